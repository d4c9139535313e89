"""What a model has learned, as pictures: its manifold, and what two groups of atoms differ in."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from napari_rvae.errors import InputDataError, SettingsError
from napari_rvae.io import replacing
from napari_rvae.latent.common_frame import each_in_contrast
from napari_rvae.models.conditions import class_names, usual
from napari_rvae.workflows.drawing import gray
from napari_rvae.workflows.expressions import atoms_where

if TYPE_CHECKING:
    from napari_rvae.models import Model

_SEEN = 96
"""Pixels of a patch in a picture to look at, at least."""


def manifold_picture(
    model: Model,
    axes: tuple[int, int] = (0, 1),
    steps: int = 9,
    extent: float = 2.0,
    *,
    kind: str | None = None,
    condition: str | None = None,
) -> NDArray[np.float32]:
    """Decode a grid over two latents, laid out as a plot: the first to the right, the second upward.

    Parameters
    ----------
    model : Model
        Trained.
    axes : tuple of int
        Two latents; a model with one alone gives a row.
    steps, extent
        As for `napari_rvae.latent.manifold`.
    kind : str, optional
        Class of joint and semi-supervised models, by its name or number; all, side by side, when omitted.
    condition : str, optional
        What conditional models are told: a value for each of their columns, separated by commas.

    Returns
    -------
    numpy.ndarray
        (channels, h, w), in the image's intensities.

    Raises
    ------
    InputDataError
        If the model has no such latents, class or condition.
    SettingsError
        If the model uses no class or no condition.
    """
    from napari_rvae.latent import manifold

    latent, size = model.settings.latent, model.size
    if not all(0 <= axis < latent for axis in axes[:latent]) or (latent > 1 and axes[0] == axes[1]):
        raise InputDataError(f"the model has {latent} latents, numbered from 1; choose two different ones of them")
    known = _told(model, condition)
    grids = [
        manifold(model, steps, axes, extent, classes=number, condition=known) for number in _numbers_of(model, kind)
    ]
    upward = [grid.reshape(len(grid), -1, size, grid.shape[-1])[:, ::-1].reshape(grid.shape) for grid in grids]
    return np.concatenate(upward, -1)


def attribute_picture(
    model: Model,
    table: pd.DataFrame,
    having: str,
    lacking: str,
    patch_of: str | None = None,
    *,
    kind: str | None = None,
    condition: str | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Decode a patch with more and less of what one group of atoms has and another lacks.

    Parameters
    ----------
    model : Model
        Trained.
    table : DataFrame
        Latent table by this model.
    having, lacking : str
        Which atoms: expressions as for `atoms_where`.
    patch_of : str, optional
        Atoms whose mean latents are changed; those of `lacking` when omitted.
    kind, condition : str, optional
        As for `manifold_picture`; what most of those atoms have when omitted.

    Returns
    -------
    picture : numpy.ndarray
        (channels, D, steps * D), in the image's intensities: steps as in `napari_rvae.latent.paths.AMOUNTS`.
    direction : numpy.ndarray
        (latent,) the difference of the groups.

    Raises
    ------
    InputDataError
        If the table is not of this model, a group is empty, or both are the same.
    SettingsError
        If the model uses no class or no condition.
    """
    from napari_rvae.latent import attribute_direction, changed_attribute

    names = [f"z{number + 1}" for number in range(model.settings.latent)]
    found = [name for name in map(str, table) if name[:1] == "z" and name[1:].isdigit()]
    if sorted(found) != sorted(names):
        raise InputDataError(f"the table has {len(found)} latents, the model {len(names)}; give a table of this model")
    with_it, without = (atoms_where(table, expression) for expression in (having, lacking))
    if np.array_equal(with_it, without):
        raise InputDataError("both groups are the same atoms; there is no difference between them")
    direction = attribute_direction(table, with_it, without, len(names))
    rows = table[without if patch_of is None else atoms_where(table, patch_of)].dropna(subset=names)
    if rows.empty:
        raise InputDataError(f"no atom that was encoded satisfies {patch_of!r}")
    if kind is None and model.classes > 1 and "class" in rows:
        numbers = [int(rows["class"].mode().iloc[0])]
    else:
        numbers = _numbers_of(model, kind)[:1]
    known = _told(model, condition, rows)
    strip = changed_attribute(model, rows[names].mean(), direction, classes=numbers[0], condition=known)
    return np.concatenate(list(strip), -1), direction


def save_picture(picture: NDArray[np.float32], model: Model, path: Path) -> None:
    """Write decoded patches: as TIFF with their intensities, else as a grey picture, channels side by side.

    Parameters
    ----------
    picture : ndarray, (channels, h, w)
        Decoded patches, put together.
    model : Model
        By which.
    path : Path
        ``.tif``, ``.tiff`` or ``.png``.

    Raises
    ------
    OutputError
        If it cannot be written there.
    """
    import tifffile
    from PIL import Image

    with replacing(path) as place:
        if path.suffix.lower() == ".png":
            seen = Image.fromarray(gray(np.hstack(list(each_in_contrast(picture, model)))))
            zoom = -(-_SEEN // model.size)
            seen.resize((zoom * seen.width, zoom * seen.height), Image.Resampling.BICUBIC).save(place)
        elif len(picture) == 1:
            tifffile.imwrite(place, picture[0])
        else:
            tifffile.imwrite(place, picture, photometric="minisblack", metadata={"axes": "CYX"})


def _numbers_of(model: Model, kind: str | None) -> list[int]:
    """Numbers of the classes that are asked for."""
    names = class_names(model)
    if kind is None:
        return list(range(model.classes))
    if not names:
        raise SettingsError(f"{model.settings.model} has no classes: leave --class out")
    known = {str(number): number for number in range(len(names))} | {name: k for k, name in enumerate(names)}
    if kind not in known:
        raise InputDataError(f"the model has no class {kind}; there are {', '.join(names)}")
    return [known[kind]]


def _told(model: Model, given: str | None, rows: pd.DataFrame | None = None) -> NDArray[Any] | None:
    """What a conditional model is told, (1, columns): as it is given, or what most of some atoms have."""
    columns = model.recipe.get("condition_columns", [])
    if not model.conditions:
        if given is not None:
            raise SettingsError(f"{model.settings.model} takes no condition: leave --condition out")
        return None
    if given is None and rows is not None and all(noted["name"] in rows for noted in columns):
        return np.array([[usual(noted, rows[noted["name"]]) for noted in columns]], object)
    values = [] if given is None else given.split(",")
    if len(values) != len(columns):
        wanted = ",".join(str(noted["name"]).upper() for noted in columns)
        raise InputDataError(f"{model.settings.model} is conditional: say for what, with --condition {wanted}")
    return np.array([values], object)
