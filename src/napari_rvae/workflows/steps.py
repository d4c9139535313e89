"""What every workflow begins with: the atoms of an image and the patches around them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BaseModel

from napari_rvae.errors import InputDataError
from napari_rvae.io import FileRecord, ImageData
from napari_rvae.settings import FindSettings, PatchSettings
from napari_rvae.workflows.expressions import atoms_where

if TYPE_CHECKING:
    from napari_rvae.models import Model
    from napari_rvae.models.finder import LearnedFinder
    from napari_rvae.patches import Patches, Progress, Stop


_DOUBTFUL = ("edge", "unsupported")


def beyond_doubt(table: pd.DataFrame) -> NDArray[np.bool_]:
    """Tell the atoms that are learned from and that set the limits of colours.

    Parameters
    ----------
    table : DataFrame
        Atoms or latent table; without ``flag`` none is doubtful.

    Returns
    -------
    ndarray, bool, (n,)
        False at the edge, and where no neighbour speaks for the atom.
    """
    return ~table["flag"].isin(_DOUBTFUL).to_numpy(bool) if "flag" in table else np.ones(len(table), bool)


def first_channel(image: ImageData) -> Any:
    """Give the pixels in which atoms are found.

    Parameters
    ----------
    image : ImageData
        Image or stack, perhaps with several channels.

    Returns
    -------
    array
        (y, x) or (t, y, x).
    """
    return image.data if image.channel_axis is None else image.data[0]


def finder_of(find: FindSettings) -> LearnedFinder | None:
    """Load the learned finder that the settings name.

    Parameters
    ----------
    find : FindSettings
        How atoms are found.

    Returns
    -------
    LearnedFinder or None
        None where none is asked for.

    Raises
    ------
    InputDataError
        If its file is not named.
    ModelFileError
        If it cannot be read.
    """
    if find.search != "learned":
        return None
    if not find.finder:
        raise InputDataError("Finding atoms as learned needs a finder: train one, or give the file of one.")
    from napari_rvae.models.finder import load_finder

    return load_finder(find.finder)


def finder_record(find: FindSettings, given: pd.DataFrame | None = None) -> dict[str, FileRecord]:
    """Note the learned finder that was used, for the inputs of a recipe.

    Parameters
    ----------
    find : FindSettings
        How atoms are found.
    given : DataFrame, optional
        Atoms that were not found but given: no finder was used.

    Returns
    -------
    dict of FileRecord
        ``finder``; empty where none was used.
    """
    if given is None and find.search == "learned" and find.finder:
        return {"finder": FileRecord.of(find.finder)}
    return {}


def atoms_of(
    image: ImageData, find: FindSettings, given: pd.DataFrame | None, progress: Progress | None, stop: Stop | None
) -> pd.DataFrame:
    """Find atoms, or make sure that those given lie in the image.

    Parameters
    ----------
    image : ImageData
        Image or stack.
    find : FindSettings
        How atoms are found.
    given : DataFrame or None
        Atoms table to use instead.
    progress, stop : callable or None
        ``progress(fraction, text)`` is told how far it is; ``stop()`` is asked whether to give up.

    Returns
    -------
    DataFrame
        Atoms table.

    Raises
    ------
    InputDataError
        If there are no atoms, or some given ones lie outside.
    Stopped
        If `stop` said so.
    """
    from napari_rvae.atoms import find_atoms

    pixels = first_channel(image)
    if given is None:
        atoms = find_atoms(pixels, find, finder=finder_of(find), progress=progress, stop=stop)
        if atoms.empty:
            raise InputDataError(f"no atoms were found in {image.name}; lower the threshold or give the spacing")
        return atoms
    frames = pixels.shape[:-2]
    if bool(frames) != ("frame" in given):
        raise InputDataError("a stack needs a column frame in its atoms, a single image must not have one")
    limits = {"y": pixels.shape[-2], "x": pixels.shape[-1], **({"frame": frames[0]} if frames else {})}
    for column, length in limits.items():
        outside = ~given[column].between(-0.5, length - 0.5)
        if outside.any():
            raise InputDataError(
                f"{outside.sum()} atoms lie outside the image ({column} must be below {length}); "
                "are x and y exchanged, or in nm?"
            )
    return given


def chosen_patches(
    image: ImageData,
    atoms: pd.DataFrame,
    settings: PatchSettings,
    where: str | None,
    progress: Progress | None,
    stop: Stop | None,
    invariances: tuple[str, ...] = (),
) -> Patches:
    """Cut patches around the atoms that an expression chooses.

    Parameters
    ----------
    image : ImageData
        Image or stack.
    atoms : DataFrame
        Atoms table.
    settings : PatchSettings
        How patches are cut.
    where : str or None
        Expression on the atoms table.
    progress, stop : callable or None
        ``progress(fraction, text)`` is told how far it is; ``stop()`` is asked whether to give up.
    invariances : tuple of str
        Poses that will be free.

    Returns
    -------
    Patches
        One per chosen atom, but none of the last frames of a stack where a delay is wanted.

    Raises
    ------
    InputDataError
        If no atom is chosen, or patches cannot be cut.
    Stopped
        If `stop` said so.
    """
    from napari_rvae.patches import extract_patches

    chosen = atoms[atoms_where(atoms, where)]
    if chosen.empty:
        raise InputDataError(f"no atom satisfies {where!r}")
    if settings.delay and "frame" in chosen:
        later = chosen["frame"] + settings.delay < len(first_channel(image))
        chosen = chosen[later] if later.any() else chosen
    return extract_patches(
        image.data,
        chosen,
        settings,
        channel_axis=image.channel_axis,
        pixel_size=image.pixel_size,
        strained="strain" in invariances,
        progress=progress,
        stop=stop,
    )


def clean_copies(
    image: ImageData, clean: ImageData, atoms: pd.DataFrame, where: str | None, patches: Patches, stop: Stop | None
) -> Patches:
    """Cut patches out of an image without noise where others were cut out of the noisy one.

    Parameters
    ----------
    image, clean : ImageData
        The noisy image, and the clean one.
    atoms : DataFrame
        Atoms table.
    where : str or None
        Expression that has chosen the atoms.
    patches : Patches
        Cut out of the noisy image.
    stop : callable or None
        ``stop()`` is asked whether to give up.

    Returns
    -------
    Patches
        In the same order.

    Raises
    ------
    InputDataError
        If the images differ in shape, or the clean one cannot be used.
    Stopped
        If `stop` said so.
    """
    if clean.data.shape != image.data.shape or clean.channel_axis != image.channel_axis:
        here, there = (" x ".join(map(str, one.data.shape)) for one in (image, clean))
        raise InputDataError(
            f"the clean image {clean.name} has {there} pixels, {image.name} {here}; both must show the same place, "
            "pixel by pixel"
        )
    return chosen_patches(replace(image, data=clean.data), atoms, patches.settings, where, None, stop)


def check_channels(model: Model, image: ImageData) -> None:
    """Make sure that an image has the channels that a model was trained on.

    Parameters
    ----------
    model : Model
        A trained model.
    image : ImageData
        Image or stack.

    Raises
    ------
    InputDataError
        If it has more or fewer, or the same in another order.
    """
    here = 1 if image.channel_axis is None else image.data.shape[image.channel_axis]
    wanted = model.channels // 2 if model.recipe.get("patch", {}).get("delay") else model.channels
    known = channel_names(model)
    names = ", ".join(known)
    if here != wanted:
        several = f"{'s' * (wanted > 1)}{f' ({names})' if known else ''}"
        raise InputDataError(
            f"The model was trained on {wanted} channel{several}, '{image.name}' has {here}: give an image "
            "with as many, or choose others of its layers in Train rVAE, Advanced > More channels."
        )
    if list(image.channels) != known and sorted(image.channels) == sorted(known):
        raise InputDataError(
            f"The model was trained on the channels {names}, these are {', '.join(image.channels)}: take {known[0]} as "
            "the image, and tick the others in that order."
        )


def channel_names(model: Model) -> list[str]:
    """Names of the channels that a model was trained on, in order; empty where they are not known."""
    used = model.recipe.get("made_by", {}).get("used", {})
    return list(map(str, used.get("channels", ())))


def scaled(progress: Progress | None, start: float, end: float) -> Progress | None:
    """Let a step report its own fraction as a part of the whole.

    Parameters
    ----------
    progress : callable or None
        Of the whole.
    start, end : float
        Fractions of the whole at which the step begins and ends.

    Returns
    -------
    callable or None
        For the step.
    """
    if progress is None:
        return None
    return lambda fraction, text: progress(start + (end - start) * fraction, text)


def dumped(**steps: BaseModel) -> dict[str, dict[str, Any]]:
    """Write settings of several steps as a recipe holds them.

    Parameters
    ----------
    **steps : settings
        By the name of the step.

    Returns
    -------
    dict of dict
    """
    return {name: settings.model_dump(mode="json") for name, settings in steps.items()}
