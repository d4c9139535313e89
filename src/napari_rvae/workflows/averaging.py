"""Class averages of an image or of ready-made patches, without training."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from napari_rvae.io import (
    FileRecord,
    ImageData,
    Recipe,
    add_physical_positions,
    check_outputs,
    column_units,
    inline_atoms,
    save_table,
    written_together,
)
from napari_rvae.settings import AverageSettings, FindSettings, PatchSettings
from napari_rvae.workflows.steps import atoms_of, chosen_patches, dumped, finder_record, scaled

if TYPE_CHECKING:
    from napari_rvae.averages import Averages
    from napari_rvae.patches import Progress, Stop

AVERAGE_FILES = ("classes.csv", "averages.tif", "recipe.json", "summary.png")


@dataclass(frozen=True)
class AverageResult:
    """Class averages and the class of every patch.

    Parameters
    ----------
    source : ImageData
        The image or the patches.
    averages : Averages
        One image per class.
    table : DataFrame
        One row per patch.
    recipe : Recipe
        How it was made.
    """

    source: ImageData
    averages: Averages
    table: pd.DataFrame
    recipe: Recipe

    def save(self, folder: str | os.PathLike[str], force: bool = False) -> None:
        """Write table, averages, recipe and summary.

        Parameters
        ----------
        folder : str or path-like
            Where to; made if it is not there.
        force : bool
            Replace existing results.

        Raises
        ------
        OutputError
            If there are results already, or it cannot be written there.
        """
        import tifffile

        from napari_rvae.workflows.summary import average_summary

        target = Path(folder)
        check_outputs([target / name for name in AVERAGE_FILES], force)
        picture = average_summary(self)
        with written_together(target) as place:
            save_table(self.table, place / "classes.csv")
            tifffile.imwrite(
                place / "averages.tif", np.asarray(self.averages.images, np.float32), photometric="minisblack"
            )
            self.recipe.save(place / "recipe.json")
            picture.save(place / "summary.png")


def average_image(
    image: ImageData,
    find: FindSettings | None = None,
    patch: PatchSettings | None = None,
    settings: AverageSettings | None = None,
    *,
    atoms: pd.DataFrame | None = None,
    atoms_file: str | os.PathLike[str] | None = None,
    where: str | None = None,
    progress: Progress | None = None,
    stop: Stop | None = None,
) -> AverageResult:
    """Find atoms, cut patches and sort them into class averages.

    Parameters
    ----------
    image : ImageData
        Image or stack.
    find, patch, settings : settings, optional
        Of each step.
    atoms : DataFrame, optional
        Atoms table to use instead of finding atoms.
    atoms_file : str or path-like, optional
        The file that `atoms` come from, noted in the recipe.
    where : str, optional
        Expression that chooses the atoms.
    progress, stop : callable, optional
        ``progress(fraction, text)`` is told how far it is; ``stop()`` is asked whether to give up.

    Returns
    -------
    AverageResult
        Its table has the positions too.

    Raises
    ------
    RVAEError
        A child of it that says what is wrong with image, atoms or settings.
    Stopped
        If `stop` said so.
    """
    from napari_rvae.averages import average

    find, patch, settings = find or FindSettings(), patch or PatchSettings(), settings or AverageSettings()
    inputs = {"image": FileRecord.of(image)}
    if atoms is not None and atoms_file is not None:
        inputs["atoms"] = FileRecord.of(atoms_file)
    found = atoms_of(image, find, atoms, scaled(progress, 0, 0.3), stop)
    inputs |= finder_record(find, atoms)
    patches = chosen_patches(image, found, patch, where, scaled(progress, 0.3, 0.5), stop, settings.invariance)
    averages = average(patches, settings, progress=scaled(progress, 0.5, 1), stop=stop)
    places = found[[column for column in ("atom_id", "frame", "y", "x") if column in found]]
    table = places.merge(averages.table, on="atom_id", how="right", validate="one_to_one")
    table = add_physical_positions(table, image.pixel_size, image.unit)
    recipe = Recipe(
        command="average",
        inputs=inputs,
        atoms=inline_atoms(found) if atoms is not None and atoms_file is None else None,
        where=where,
        settings=dumped(find=find, patch=patch, average=settings),
        used=dumped(patch=patches.settings),
        units=column_units(table, image.unit),
    )
    return AverageResult(image, averages, table, recipe)


def average_patches(
    source: ImageData,
    patch: PatchSettings | None = None,
    settings: AverageSettings | None = None,
    *,
    progress: Progress | None = None,
    stop: Stop | None = None,
) -> AverageResult:
    """Sort ready-made patches into class averages.

    Parameters
    ----------
    source : ImageData
        (n, h, w) or (n, channels, h, w).
    patch, settings : settings, optional
        Of each step.
    progress, stop : callable, optional
        ``progress(fraction, text)`` is told how far it is; ``stop()`` is asked whether to give up.

    Returns
    -------
    AverageResult
        One row per patch, in order.

    Raises
    ------
    RVAEError
        A child of it that says what is wrong with patches or settings.
    Stopped
        If `stop` said so.
    """
    from napari_rvae.averages import average
    from napari_rvae.patches import patches_from_array

    patch, settings = patch or PatchSettings(), settings or AverageSettings()
    patches = patches_from_array(source.data, patch)
    averages = average(patches, settings, progress=progress, stop=stop)
    recipe = Recipe(
        command="average",
        inputs={"patches": FileRecord.of(source)},
        settings=dumped(patch=patch, average=settings),
        used=dumped(patch=patches.settings),
        units=column_units(averages.table),
    )
    return AverageResult(source, averages, averages.table, recipe)
