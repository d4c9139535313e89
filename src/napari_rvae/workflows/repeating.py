"""Make a result again from its recipe."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_rvae.errors import InputDataError
from napari_rvae.io import ImageData, Recipe, load_image, load_patches, load_vector
from napari_rvae.settings import AverageSettings, FindSettings, PatchSettings, TrainSettings
from napari_rvae.training.reports import Earlier
from napari_rvae.workflows.averaging import AverageResult, average_image, average_patches
from napari_rvae.workflows.encoding import apply_to_image
from napari_rvae.workflows.finding import FoundAtoms, find_in_image
from napari_rvae.workflows.pipeline import Analysis, analyze_image, analyze_patches

if TYPE_CHECKING:
    from napari_rvae.models import Model
    from napari_rvae.patches import Progress, Stop


def repeat(
    path: str | os.PathLike[str], *, progress: Progress | None = None, stop: Stop | None = None
) -> Analysis | AverageResult | FoundAtoms:
    """Do again what a recipe says, on the same device and number of threads.

    Parameters
    ----------
    path : str or path-like
        A ``recipe.json``.
    progress, stop : callable, optional
        ``progress(fraction, text)`` is told how far it is; ``stop()`` is asked whether to give up.

    Returns
    -------
    Analysis, AverageResult or FoundAtoms
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
        ("find", "image"),
        ("run", "image"),
        ("train", "patches"),
        ("average", "image"),
        ("average", "patches"),
        ("encode", "image"),
    ):
        raise InputDataError(f"{Path(path).name} does not say on which data it ran; it is no complete recipe")
    file = recipe.inputs[source].found(beside)
    patch = PatchSettings(**settings.get("patch", {}))
    if source == "image":
        find = FindSettings(**settings.get("find", {}))
        if "finder" in recipe.inputs:
            find = find.model_copy(update={"finder": recipe.inputs["finder"].found(beside)})
        if recipe.command == "find":
            linked = bool(recipe.used.get("linked", False))
            return find_in_image(_image(file, recipe), find, recipe.region, linked=linked, **again)
        again |= {"atoms": recipe.atoms_table(beside), "where": recipe.where}
        if recipe.command == "encode":
            return apply_to_image(_applied_model(recipe, beside), _image(file, recipe), find, **again)
        if "atoms" in recipe.inputs:
            again["atoms_file"] = recipe.inputs["atoms"].found(beside)
        if recipe.command == "run":
            if "clean" in recipe.inputs:
                again["clean"] = load_image(recipe.inputs["clean"].found(beside))
            return analyze_image(
                _image(file, recipe), find, patch, _training(recipe), earlier=_earlier(recipe), **again
            )
        averaging = AverageSettings(**settings.get("average", {}))
        return average_image(_image(file, recipe), find, patch, averaging, **again)
    patches = load_patches(file)
    if recipe.command == "average":
        return average_patches(patches, patch, AverageSettings(**settings.get("average", {})), **again)
    files: dict[str, str | os.PathLike[str]] = {
        name: recipe.inputs[name].found(beside) for name in ("labels", "condition") if name in recipe.inputs
    }
    again |= {name: load_vector(found, len(patches.data), name) for name, found in files.items()}
    if "clean" in recipe.inputs:
        again["clean"] = load_patches(recipe.inputs["clean"].found(beside))
    return analyze_patches(patches, patch, _training(recipe), files=files, earlier=_earlier(recipe), **again)


def _applied_model(recipe: Recipe, beside: Path) -> Model:
    from napari_rvae.models import load_model

    if "model" not in recipe.inputs:
        raise InputDataError("the recipe does not say which model was applied; it is no complete recipe")
    return load_model(recipe.inputs["model"].found(beside))


def _image(file: str, recipe: Recipe) -> ImageData:
    """Read the image, and give channels and pixels the names and the size that they had, which may be set by hand."""
    used = recipe.used
    with _understood():
        image = replace(load_image(file), channels=tuple(used.get("channels", ())))
    if "pixel_size" not in used:
        return image
    size, unit = used["pixel_size"], used.get("unit")
    if size is None:
        return replace(image, pixel_size=None, unit=None)
    with _understood():
        height, width = map(float, size)
    return replace(image, pixel_size=(height, width), unit=unit)


def _earlier(recipe: Recipe) -> Earlier:
    """Tell how the training went: where the user stopped it, how large its batches were, and which members it has."""
    with _understood():
        members = tuple(_one_earlier(used) for used in recipe.used.get("members", ()))
        return replace(_one_earlier(recipe.used), members=members)


def _one_earlier(used: dict[str, Any]) -> Earlier:
    stopped = used.get("stopped_after")
    batches = tuple((int(step), int(size)) for step, size in used.get("batches", ()))
    return Earlier(None if stopped is None else int(stopped), batches)


@contextmanager
def _understood() -> Iterator[None]:
    try:
        yield
    except (TypeError, ValueError) as error:
        raise InputDataError(f"the recipe does not say clearly what was used: {error}") from error


def _training(recipe: Recipe) -> TrainSettings:
    """Give the settings with what they left open filled in as it was."""
    fixed = {name: recipe.used[name] for name in ("device", "threads") if recipe.used.get(name) is not None}
    return TrainSettings(**{**recipe.settings.get("train", {}), **fixed})
