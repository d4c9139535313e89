"""Recipes: everything from which a result can be made again."""

from __future__ import annotations

import math
import os
import platform
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, ValidationError

from napari_rvae.errors import InputDataError
from napari_rvae.io.files import reading, replacing, sha256
from napari_rvae.io.images import ImageData
from napari_rvae.io.tables import as_atoms, load_atoms

_LIBRARIES = ("numpy", "scipy", "pandas", "scikit-image", "torch", "numba")


class FileRecord(BaseModel):
    """A file that went in, and its hash.

    Parameters
    ----------
    path : str
        Where it was, absolute, ``file.h5::part`` where it holds several data sets.
    sha256 : str
        Its hash.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    sha256: str = Field(pattern="^[0-9a-f]{64}$")

    @classmethod
    def of(cls, data: ImageData | str | os.PathLike[str]) -> FileRecord:
        """Note a file.

        Parameters
        ----------
        data : ImageData, str or path-like
            The file, or what was loaded from it.

        Returns
        -------
        FileRecord
        """
        if isinstance(data, ImageData):
            part = f"::{data.part}" if data.part else ""
            return cls(path=f"{os.path.abspath(data.path)}{part}", sha256=data.sha256)  # noqa: PTH100  links stay
        return cls(path=os.path.abspath(data), sha256=sha256(Path(data)))  # noqa: PTH100

    def found(self, beside: Path) -> str:
        """Find the file where it was, or beside the recipe, and make sure that it is the same.

        Parameters
        ----------
        beside : Path
            Folder of the recipe.

        Returns
        -------
        str
            Where it is now, with its part.

        Raises
        ------
        InputDataError
            If it is gone or has changed.
        """
        file, _, part = self.path.partition("::")
        for place in (Path(file), beside / Path(file).name):
            if place.exists():
                with reading(place):
                    same = sha256(place) == self.sha256
                if not same:
                    raise InputDataError(
                        f"{place} has changed since the recipe was made; put the original back or run anew"
                    )
                return f"{place}::{part}" if part else str(place)
        raise InputDataError(f"{file} is gone; put it back or beside the recipe")


class RegionRecord(BaseModel):
    """The part of an image where atoms were looked for.

    Parameters
    ----------
    name : str
        Of the layer that showed it.
    shape : tuple of int
        (y, x) of the image, or (t, y, x) where every frame of a stack has its own part.
    runs : tuple of int
        Numbers of pixels outside, inside, outside... in the order of reading.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = ""
    shape: tuple[PositiveInt, ...] = Field(min_length=2, max_length=3)
    runs: tuple[NonNegativeInt, ...]

    @classmethod
    def of(cls, mask: NDArray[np.bool_], name: str = "") -> RegionRecord:
        """Note a region.

        Parameters
        ----------
        mask : ndarray of bool, (y, x) or (t, y, x)
            True inside.
        name : str
            What the user calls it.

        Returns
        -------
        RegionRecord
        """
        changes = np.flatnonzero(np.diff(mask.ravel(), prepend=False))
        runs = np.diff(changes, prepend=0, append=mask.size)
        return cls(name=name, shape=mask.shape, runs=tuple(runs.tolist()))

    def mask(self, shape: tuple[int, ...]) -> NDArray[np.bool_]:
        """Give the region back.

        Parameters
        ----------
        shape : tuple of int
            (y, x) or (t, y, x) of the image: a recipe that claims another one may claim any size.

        Returns
        -------
        ndarray of bool, (y, x) or (t, y, x)

        Raises
        ------
        InputDataError
            If the region is not one of such an image.
        """
        if self.shape not in (shape, shape[-2:]) or sum(self.runs) != math.prod(self.shape):
            raise InputDataError("the region in the recipe does not fit its image")
        return np.repeat(np.arange(len(self.runs)) % 2 == 1, self.runs).reshape(self.shape)


class Recipe(BaseModel):
    """What was done, to which data, with what: read by ``napari-rvae repeat``, written beside every result.

    Parameters
    ----------
    format : int
        Version of this description.
    command : str
        ``find``, ``run``, ``train``, ``average``, or ``encode`` of a model that was applied.
    version : str
        Of napari-rvae.
    inputs : dict of FileRecord
        ``image`` or ``patches``, and where given ``atoms``, ``clean``, ``labels``, ``condition``,
        ``finder``; ``model`` of one that was applied.
    atoms : dict, optional
        The atoms that went in, column by column, where they were not in a file; of ``find``, what became of them.
    where : str, optional
        Which atoms were used.
    region : RegionRecord, optional
        Where atoms were looked for; in the whole image when None.
    settings : dict
        Of each step: ``find``, ``patch``, ``train``, ``average``.
    used : dict
        What the settings left open: epochs, batch size, device, threads, sizes.
    units : dict
        Unit of each column of the table.
    platform : dict
        Operating system, processor, Python and libraries.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    command: Literal["find", "run", "train", "average", "encode"]
    version: str = Field(default_factory=lambda: version("napari-rvae"))
    inputs: dict[str, FileRecord]
    atoms: dict[str, list[Any]] | None = None
    where: str | None = None
    region: RegionRecord | None = None
    settings: dict[str, dict[str, Any]]
    used: dict[str, Any] = {}
    units: dict[str, str] = {}
    platform: dict[str, str] = Field(default_factory=lambda: platform_facts())

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it as JSON.

        Parameters
        ----------
        path : str or path-like
            Where to.

        Raises
        ------
        OutputError
            If it cannot be written there.
        """
        with replacing(Path(path)) as file:
            file.write_text(self.model_dump_json(indent=2, exclude_none=True) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Recipe:
        """Read and check a recipe.

        Parameters
        ----------
        path : str or path-like
            A file that `save` wrote.

        Returns
        -------
        Recipe

        Raises
        ------
        InputDataError
            If it is missing, damaged or from a newer version.
        """
        file = Path(path)
        with reading(file):
            text = file.read_text(encoding="utf-8")
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "its text"
            if where == "format":
                message = f"{file.name} is from another version; repeat it with the version that made it"
            else:
                message = f"{file.name} is no recipe of napari-rvae: {where}: {first['msg']}"
            raise InputDataError(message) from error

    def atoms_table(self, beside: Path) -> pd.DataFrame | None:
        """Give the atoms that went in.

        Parameters
        ----------
        beside : Path
            Folder of the recipe.

        Returns
        -------
        DataFrame or None
            None where they were found in the image.

        Raises
        ------
        InputDataError
            If their file is gone or has changed.
        """
        if self.atoms is not None:
            try:
                return as_atoms(pd.DataFrame(self.atoms), "the recipe")
            except ValueError as error:
                raise InputDataError(f"the atoms in the recipe are no table: {error}") from error
        return load_atoms(self.inputs["atoms"].found(beside)) if "atoms" in self.inputs else None


def inline_atoms(atoms: pd.DataFrame) -> dict[str, list[Any]]:
    """Atoms as a recipe holds them.

    Parameters
    ----------
    atoms : DataFrame
        Atoms table.

    Returns
    -------
    dict of list
        Column by column, None for what is no number.
    """
    return {str(name): values.astype(object).where(values.notna(), None).tolist() for name, values in atoms.items()}


def platform_facts() -> dict[str, str]:
    """Say on what a result was made.

    Returns
    -------
    dict
        Operating system, processor, Python and the libraries that compute.
    """
    facts: Mapping[str, str] = {
        "system": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "python": sys.version.split()[0],
    }
    return {**facts, **{library: version(library) for library in _LIBRARIES}}
