"""The trained model of a points layer, and the channels it sees: kept in the layer's metadata, in memory only."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import ref

import dask.array as da
import numpy as np
from dask.delayed import delayed

from napari_rvae.errors import InputDataError
from napari_rvae.io import ImageData
from napari_rvae.io.images import SOURCE

if TYPE_CHECKING:
    from napari.layers import Image, Points

    from napari_rvae.models import Model

MODEL = "napari_rvae_model"
"""Key of a points layer's metadata under which the model lies that encoded its atoms."""
CHANNELS = "napari_rvae_channels"
"""Key under which the names of the channels lie that it sees, and weak references to their layers."""


def attach_model(points: Points, model: Model | None, channels: Sequence[Image] = ()) -> None:
    """Keep a model with the atoms that it encoded.

    Parameters
    ----------
    points : napari.layers.Points
        The atoms.
    model : Model or None
        The model; None takes an earlier one away.
    channels : sequence of napari.layers.Image
        What it sees, the image of the atoms first; none where it sees that one alone.
    """
    points.metadata = {**points.metadata, **model_facts(model, channels)}


def model_facts(model: Model | None, channels: Sequence[Image] = ()) -> dict[str, Any]:
    """Give what `attach_model` keeps in a layer's metadata.

    Parameters
    ----------
    model, channels
        As there.

    Returns
    -------
    dict
    """
    return {MODEL: model, CHANNELS: tuple((layer.name, ref(layer)) for layer in channels)}


def channels_of(points: Points) -> list[Image]:
    """Find the channels that the model of a layer's atoms sees.

    Parameters
    ----------
    points : napari.layers.Points
        Any points layer.

    Returns
    -------
    list of napari.layers.Image
        The image of the atoms first; empty where the model sees one image alone, or there is none.

    Raises
    ------
    InputDataError
        If one of them was removed.
    """
    found: list[Image] = []
    for name, layer in points.metadata.get(CHANNELS) or ():
        image = layer()
        if image is None:
            raise InputDataError(
                f"'{name}', a channel of the results of '{points.name}', was removed: open it again, and apply the "
                "model once more in Train rVAE, with its channels ticked under Advanced > More channels."
            )
        found.append(image)
    return found


def stacked(channels: Sequence[Any]) -> Any:
    """Put channels together.

    Parameters
    ----------
    channels : sequence of array
        Pixels of each, of the same shape.

    Returns
    -------
    dask.array.Array
        They are the first axis. What is in memory is not copied, as `dask.array.from_array` would do.
    """
    dask: Any = da  # has no types
    lazy = [
        one
        if isinstance(one, da.Array)
        else dask.from_delayed(delayed(partial(np.asarray, one), pure=False)(), one.shape, one.dtype)
        for one in channels
    ]
    return dask.stack(lazy)


def file_of(channels: Sequence[Image]) -> tuple[Path, str] | None:
    """Find the file that channels were read from.

    Parameters
    ----------
    channels : sequence of napari.layers.Image
        Their layers.

    Returns
    -------
    tuple or None
        The file, and which of its images they are, as `load_image` wants it; None where they are not of one file.
    """
    images = [layer.metadata.get(SOURCE) for layer in channels]
    found = [image for image in images if isinstance(image, ImageData)]
    if len(found) < len(images) or len({image.path for image in found}) > 1:
        return None
    if all(image is found[0] for image in found):
        return found[0].path, found[0].part
    return (found[0].path, "::".join(image.part for image in found)) if all(image.part for image in found) else None


def model_of(points: Points) -> Model | None:
    """Find the model that encoded a layer's atoms.

    Parameters
    ----------
    points : napari.layers.Points
        Any points layer.

    Returns
    -------
    Model or None
        None where no model was trained or loaded.
    """
    model: Model | None = points.metadata.get(MODEL)
    return model
