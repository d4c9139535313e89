"""An image as a model understands it: every patch decoded, turned and moved back to its place, and blended."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from napari_rvae.errors import InputDataError, Stopped
from napari_rvae.io import ImageData, replacing
from napari_rvae.models.conditions import Condition
from napari_rvae.polar import radial_taper
from napari_rvae.workflows.encoding import patch_settings
from napari_rvae.workflows.steps import check_channels, chosen_patches, first_channel, scaled

if TYPE_CHECKING:
    from napari_rvae.models import Model
    from napari_rvae.patches import Patches, Progress, Stop

_BLOCK = 250
_LEAST_WEIGHT = 0.05
"""Pixels that only the outermost rim of a patch covers are left out."""


def reconstruct_image(
    model: Model,
    image: ImageData,
    table: pd.DataFrame,
    *,
    progress: Progress | None = None,
    stop: Stop | None = None,
) -> NDArray[np.float32]:
    """Denoise an image: put together what a model decodes at every atom.

    Patches are weighted by their taper where they overlap. Each keeps its own mean, which the model does not see.

    Parameters
    ----------
    model : Model
        A trained model.
    image : ImageData
        The image or stack.
    table : DataFrame
        Its latent table by this model; rows without latents are left out.
    progress, stop : callable, optional
        ``progress(fraction, text)`` is told how far it is; ``stop()`` is asked whether to give up.

    Returns
    -------
    ndarray of float32
        ([channels,] [t,] y, x), in the image's intensities; nan where no patch reaches. What the model did not
        understand is the image minus this.

    Raises
    ------
    InputDataError
        If the table is not of this model, or has no latents at all.
    Stopped
        If `stop` said so.
    """
    from napari_rvae.latent import reconstruct

    names = {f"z{i + 1}" for i in range(model.settings.latent)} | ({"angle"} if model.turns else set())
    if not names <= set(table) or table["z1"].notna().sum() == 0:
        raise InputDataError("the table holds no latents of this model; encode the atoms with it first")
    rows = table[table["z1"].notna()]
    check_channels(model, image)
    patches = chosen_patches(image, rows, patch_settings(model, image), None, scaled(progress, 0, 0.2), stop)
    columns = model.recipe.get("condition_columns")
    condition = Condition.for_model(columns, rows, len(rows)) if columns else None
    canvas = _Canvas(first_channel(image).shape, patches)
    for start in range(0, len(patches), _BLOCK):
        if stop is not None and stop():
            raise Stopped("Stopped while reconstructing; nothing was kept.")
        some = slice(start, min(start + _BLOCK, len(patches)))
        chosen = patches.select(np.arange(some.start, some.stop))
        known = None if condition is None else condition[some]
        canvas.add(chosen, reconstruct(model, chosen, rows.iloc[some], known))
        if progress is not None:
            progress(0.2 + 0.8 * some.stop / len(patches), "Reconstructing")
    result = canvas.blended()
    return result[0] if image.channel_axis is None else result[: image.data.shape[image.channel_axis]]


def save_pixels(pixels: NDArray[np.float32], image: ImageData, path: Path) -> None:
    """Write pixels that lie on an image as TIFF, with the image's scale.

    Parameters
    ----------
    pixels : ndarray
        ([channels,] [t,] y, x).
    image : ImageData
        What they lie on.
    path : Path
        Where to.

    Raises
    ------
    OutputError
        If it cannot be written there.
    """
    import tifffile

    named = ("C" if image.channel_axis is not None else "") + ("T" if first_channel(image).ndim == 3 else "")
    if named == "CT":
        pixels, named = pixels.swapaxes(0, 1), "TC"  # the order of ImageJ
    facts: dict[str, Any] = {"metadata": {"axes": f"{named}YX"}}
    if image.pixel_size is not None:
        height, width = image.pixel_size
        facts = {"resolution": (1 / width, 1 / height), "metadata": {"axes": f"{named}YX", "unit": image.unit or ""}}
    with replacing(path) as place:
        tifffile.imwrite(place, pixels, imagej=True, **facts)


class _Canvas:
    """Sums of decoded patches and of their weights, pixel by pixel."""

    def __init__(self, shape: tuple[int, ...], patches: Patches) -> None:
        from scipy.ndimage import spline_filter

        self._shape = shape
        self._frames = (shape[0] if len(shape) == 3 else 1, *shape[-2:])
        channels, size = patches.data.shape[1:3]
        self._sum = np.zeros((channels, *self._frames), np.float32)
        self._weight = np.zeros(self._frames, np.float32)
        self._taper = radial_taper(size).astype(np.float32)
        self._smooth = spline_filter(self._taper, mode="mirror")

    def add(self, patches: Patches, decoded: NDArray[np.float32]) -> None:
        """Lay patches where they were cut; they come under the taper, with their level added."""
        from scipy.ndimage import map_coordinates, spline_filter

        taper = self._taper
        level = (patches.data * taper).sum((2, 3), keepdims=True) / taper.sum()
        weighted = decoded - level * (1 - taper)
        middle = (taper.shape[0] - 1) / 2
        for patch, center, frame in zip(weighted, patches.centers, patches.frame, strict=True):
            reach = middle * np.array(patches.step)
            first = np.maximum(np.ceil(center - reach), 0).astype(int)
            last = np.minimum(np.floor(center + reach), np.array(self._shape[-2:]) - 1).astype(int)
            axes = [np.arange(a, b + 1) for a, b in zip(first, last, strict=True)]
            inside = (frame, slice(first[0], last[0] + 1), slice(first[1], last[1] + 1))
            where = np.meshgrid(
                *[(axis - c) / step + middle for axis, c, step in zip(axes, center, patches.step, strict=True)],
                indexing="ij",
            )
            self._weight[inside] += map_coordinates(self._smooth, where, mode="mirror", prefilter=False)
            for channel, values in enumerate(patch):
                smooth = spline_filter(values, mode="mirror")
                self._sum[(channel, *inside)] += map_coordinates(smooth, where, mode="mirror", prefilter=False)

    def blended(self) -> NDArray[np.float32]:
        """(channels, [t,] y, x), nan where there is too little to tell."""
        with np.errstate(divide="ignore", invalid="ignore"):
            result = np.where(self._weight > _LEAST_WEIGHT, self._sum / self._weight, np.float32(np.nan))
        return result.reshape(len(result), *self._shape)
