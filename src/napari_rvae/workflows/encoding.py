"""A trained model applied to other images and patches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd
from numpy.typing import NDArray

from napari_rvae.errors import SettingsError
from napari_rvae.io import FileRecord, ImageData, Recipe, add_physical_positions, column_units, inline_atoms
from napari_rvae.models.conditions import Condition
from napari_rvae.settings import FindSettings, PatchSettings
from napari_rvae.workflows.pipeline import Analysis, known_analysis
from napari_rvae.workflows.steps import (
    atoms_of,
    beyond_doubt,
    check_channels,
    chosen_patches,
    dumped,
    finder_record,
    scaled,
)

_MISFIT = 2.0  # median of reconstruction errors; of images trained on it is .9 to 1.1

if TYPE_CHECKING:
    from napari_rvae.models import Model
    from napari_rvae.patches import Progress, Stop


def encode_image(
    model: Model,
    image: ImageData,
    find: FindSettings | None = None,
    *,
    atoms: pd.DataFrame | None = None,
    where: str | None = None,
    condition: Any = None,
    progress: Progress | None = None,
    stop: Stop | None = None,
) -> pd.DataFrame:
    """Apply a trained model to every atom of another image.

    Parameters
    ----------
    model : Model
        A trained model.
    image : ImageData
        Image or stack. Where both images have a scale, patches cover the same physical size as in training.
    find : FindSettings, optional
        How atoms are found; windows on a grid as in training where nothing else is asked for.
    atoms : DataFrame, optional
        Atoms table to use instead; conditional models need the columns with which they were trained, or `condition`.
    where : str, optional
        Expression that chooses the atoms; without it the one of the training, ``""`` means all.
    condition : array-like, (atoms,) or (atoms, k), optional
        What conditional models are given, one per row of `atoms`, instead of their columns.
    progress, stop : callable, optional
        ``progress(fraction, text)`` is told how far it is; ``stop()`` is asked whether to give up.

    Returns
    -------
    DataFrame
        Latent table.

    Raises
    ------
    RVAEError
        A child of it that says what is wrong with image, atoms or model.
    Stopped
        If `stop` said so.
    """
    from napari_rvae.latent import encode

    check_channels(model, image)
    table = atoms_of(image, find_settings(model, image, find), atoms, scaled(progress, 0, 0.3), stop)
    settings = patch_settings(model, image)
    where = model.recipe.get("made_by", {}).get("where") if where is None else where
    patches = chosen_patches(image, table, settings, where, scaled(progress, 0.3, 0.5), stop)
    columns = model.recipe.get("condition_columns")
    if columns:
        known = Condition.for_model(columns, table if condition is None else condition, len(table))
        condition = known[pd.Index(table["atom_id"]).get_indexer(patches.atom_id)]
    elif condition is not None:
        raise SettingsError(f"{model.settings.model} takes no condition: leave it out.")
    latent = encode(model, patches, atoms=table, condition=condition, progress=scaled(progress, 0.5, 1), stop=stop)
    return add_physical_positions(latent, image.pixel_size, image.unit)


def apply_to_image(
    model: Model,
    image: ImageData,
    find: FindSettings | None = None,
    *,
    atoms: pd.DataFrame | None = None,
    where: str | None = None,
    progress: Progress | None = None,
    stop: Stop | None = None,
) -> Analysis:
    """Apply a trained model to every atom of another image, and note how, so that the results can be saved.

    Parameters
    ----------
    model, image, find, atoms, where, progress, stop
        As for `encode_image`.

    Returns
    -------
    Analysis
        As `known_analysis` gives it.

    Raises
    ------
    RVAEError
        As `encode_image` does.
    """
    find = find_settings(model, image, find)
    table = encode_image(model, image, find, atoms=atoms, where=where, progress=progress, stop=stop)
    trained = model.recipe.get("made_by", {}).get("used", {})
    used = {name: trained[name] for name in ("epochs", "device") if name in trained}
    used |= {"pixel_size": image.pixel_size, "unit": image.unit, "channels": list(image.channels)}
    recipe = Recipe(
        command="encode",
        inputs={"image": FileRecord.of(image), **finder_record(find, atoms)},
        atoms=None if atoms is None else inline_atoms(atoms),
        where=where,
        settings=dumped(find=find, patch=patch_settings(model, image), train=model.settings),
        used=used,
        units=column_units(table, image.unit),
    )
    return known_analysis(image, table, model, recipe)


def encode_patches(
    model: Model,
    source: ImageData,
    *,
    condition: NDArray[Any] | None = None,
    progress: Progress | None = None,
    stop: Stop | None = None,
) -> pd.DataFrame:
    """Apply a trained model to ready-made patches.

    Parameters
    ----------
    model : Model
        A trained model.
    source : ImageData
        (n, h, w) or (n, channels, h, w).
    condition : array-like or DataFrame, (n,) or (n, k), optional
        What conditional models are given, in the units of the training.
    progress, stop : callable, optional
        ``progress(fraction, text)`` is told how far it is; ``stop()`` is asked whether to give up.

    Returns
    -------
    DataFrame
        One row per patch, in order.

    Raises
    ------
    RVAEError
        A child of it that says what is wrong with patches or model.
    Stopped
        If `stop` said so.
    """
    from napari_rvae.latent import encode
    from napari_rvae.patches import patches_from_array

    if condition is not None and not model.conditions:
        raise SettingsError(f"{model.settings.model} takes no condition: leave it out.")
    patches = patches_from_array(source.data, patch_settings(model, source))
    table: pd.DataFrame = encode(model, patches, condition=condition, progress=progress, stop=stop)
    return table


def misfit(model: Model, table: pd.DataFrame) -> str:
    """Say where a model does not explain what it was applied to.

    Parameters
    ----------
    model : Model
        What was applied.
    table : DataFrame
        The latent table that came of it.

    Returns
    -------
    str
        Empty where at least half of the atoms are explained about as well as noise allows.
    """
    median = table.loc[beyond_doubt(table), "reconstruction_error"].median()
    if not median > _MISFIT:
        return ""
    words = (
        f"The model does not explain these atoms (median reconstruction error {median:.3g}, about 1 where it was "
        "trained): are they of another specimen, magnification or exposure?"
    )
    if model.recipe.get("normalization") == "patch":
        return words
    return f"{words} Where only the exposure differs, train with the normalization 'patch'."


def patch_settings(model: Model, image: ImageData) -> PatchSettings:
    """Cut as in training; the same size in nm where both images have one.

    Parameters
    ----------
    model : Model
        A trained model.
    image : ImageData
        The image, or patches.

    Returns
    -------
    PatchSettings
    """
    noted = dict(model.recipe.get("patch", {}))
    if noted.get("size"):
        noted["size"] = round(noted["size"] * _enlarged(model, image))
    return PatchSettings(**noted)


def find_settings(model: Model, image: ImageData, asked: FindSettings | None = None) -> FindSettings:
    """How atoms are found: as asked, or where nothing is, windows on a grid as in training if those were learned from.

    Parameters
    ----------
    model : Model
        A trained model.
    image : ImageData
        The image.
    asked : FindSettings, optional
        What is asked for.

    Returns
    -------
    FindSettings
    """
    noted = dict(model.recipe.get("made_by", {}).get("settings", {}).get("find", {}))
    if noted.get("search") != "grid" or asked not in (None, FindSettings()):
        return asked or FindSettings()
    if noted.get("spacing"):
        noted["spacing"] *= _enlarged(model, image)
    return FindSettings(**noted)


def _enlarged(model: Model, image: ImageData) -> float:
    """How many pixels of an image are as long as one of the training's; 1 where a scale is unknown."""
    used = model.recipe.get("made_by", {}).get("used", {})
    before, now = used.get("pixel_size"), image.pixel_size
    return float(before[-1] / now[-1]) if before and now and used.get("unit") == image.unit else 1.0
