"""Make a result again from its recipe."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_rvae.errors import InputDataError
from napari_rvae.io import Recipe, load_image, load_patches, load_vector
from napari_rvae.settings import AverageSettings, FindSettings, PatchSettings, TrainSettings
from napari_rvae.workflows.averaging import AverageResult, average_image, average_patches
from napari_rvae.workflows.pipeline import Analysis, analyze_image, analyze_patches

if TYPE_CHECKING:
    from napari_rvae.patches import Progress, Stop


def repeat(
    path: str | os.PathLike[str], *, progress: Progress | None = None, stop: Stop | None = None
) -> Analysis | AverageResult:
    """Do again what a recipe says, on the same device and number of threads.

    Parameters
    ----------
    path : str or path-like
        A ``recipe.json``.
    progress, stop : callable, optional
        ``progress(fraction, text)`` is told how far it is; ``stop()`` is asked whether to give up.

    Returns
    -------
    Analysis or AverageResult
        The same table as before, to the last digit, on the same machine with the same libraries.

    Raises
    ------
    InputDataError
        If the recipe is damaged, or an input is gone or has changed.
    RVAEError
        Whatever the steps raise.
    """
    recipe, beside = Recipe.load(path), Path(path).absolute().parent
    again: dict[str, Any] = {"progress": progress, "stop": stop}
    settings = recipe.settings
    source = "image" if "image" in recipe.inputs else "patches"
    if source not in recipe.inputs or (recipe.command, source) not in (
        ("run", "image"),
        ("train", "patches"),
        ("average", "image"),
        ("average", "patches"),
    ):
        raise InputDataError(f"{Path(path).name} does not say on which data it ran; it is no complete recipe")
    file = recipe.inputs[source].found(beside)
    patch = PatchSettings(**settings.get("patch", {}))
    if source == "image":
        find = FindSettings(**settings.get("find", {}))
        again |= {"atoms": recipe.atoms_table(beside), "where": recipe.where}
        if "atoms" in recipe.inputs:
            again["atoms_file"] = recipe.inputs["atoms"].found(beside)
        if recipe.command == "run":
            return analyze_image(load_image(file), find, patch, _training(recipe), **again)
        return average_image(load_image(file), find, patch, AverageSettings(**settings.get("average", {})), **again)
    patches = load_patches(file)
    if recipe.command == "average":
        return average_patches(patches, patch, AverageSettings(**settings.get("average", {})), **again)
    files: dict[str, str | os.PathLike[str]] = {
        name: recipe.inputs[name].found(beside) for name in ("labels", "condition") if name in recipe.inputs
    }
    again |= {name: load_vector(found, len(patches.data), name) for name, found in files.items()}
    return analyze_patches(patches, patch, _training(recipe), files=files, **again)


def _training(recipe: Recipe) -> TrainSettings:
    """Give the settings with what they left open filled in as it was."""
    fixed = {name: recipe.used[name] for name in ("device", "threads") if recipe.used.get(name) is not None}
    return TrainSettings(**{**recipe.settings.get("train", {}), **fixed})
