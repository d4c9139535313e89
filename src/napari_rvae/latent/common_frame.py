"""Real patches turned into the frame of their motif, so that they can be compared with each other and with a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_rvae.errors import InputDataError

if TYPE_CHECKING:
    import pandas as pd

    from napari_rvae.models import Model


def patches_in_common_frame(
    image: Any, atoms: pd.DataFrame, step: tuple[float, float], pixels: int = 48
) -> NDArray[np.float32]:
    """Cut patches around atoms, turned back by their angle and centred on their motif.

    Parameters
    ----------
    image : array-like
        (y, x), or (t, y, x) when the table has ``frame``; lazy arrays are read only where the atoms are.
    atoms : DataFrame
        ``y``, ``x`` in pixels; ``angle`` (rad, +x toward +y), ``dy`` and ``dx`` (px) where they are known, 0 elsewhere.
    step : tuple of float
        Image pixels per pixel of the result along rows and columns, as in `Patches.step`.
    pixels : int
        Side of the result in its own pixels.

    Returns
    -------
    ndarray of float32, (n, pixels, pixels)
        One patch per row, by linear interpolation; pixels beyond the image repeat its edge.

    Raises
    ------
    InputDataError
        If image and table do not fit together.
    """
    stacked = "frame" in atoms
    if image.ndim != 2 + stacked:
        raise InputDataError(f"The image has {image.ndim} axes, the atoms belong to one with {2 + stacked}.")

    def values(name: str) -> NDArray[np.float64]:
        return np.nan_to_num(atoms[name].to_numpy(np.float64)) if name in atoms else np.zeros(len(atoms))

    # A canonical place u lies in the image at step * R(angle) u + centre + offset.
    grid = np.arange(pixels) - (pixels - 1) / 2
    down, right = grid[:, np.newaxis], grid[np.newaxis, :]
    cosine, sine = (f(values("angle"))[:, np.newaxis, np.newaxis] for f in (np.cos, np.sin))
    x = step[1] * (right * cosine - down * sine) + (values("x") + values("dx"))[:, np.newaxis, np.newaxis]
    y = step[0] * (right * sine + down * cosine) + (values("y") + values("dy"))[:, np.newaxis, np.newaxis]
    frames = atoms["frame"].to_numpy(np.int64) if stacked else np.zeros(len(atoms), np.int64)
    result = np.empty((len(atoms), pixels, pixels), np.float32)
    for frame in np.unique(frames):
        mine = frames == frame
        result[mine] = _sampled(image[frame] if stacked else image, y[mine], x[mine])
    return result


def _sampled(image: Any, y: NDArray[np.float64], x: NDArray[np.float64]) -> NDArray[np.float32]:
    from scipy.ndimage import map_coordinates

    bounds = []
    for places, length in ((y, image.shape[0]), (x, image.shape[1])):
        first = int(np.clip(np.floor(places.min()), 0, length - 1))
        bounds.append(slice(first, int(np.clip(np.ceil(places.max()) + 1, first + 1, length))))
    part = np.asarray(image[bounds[0], bounds[1]], np.float32)
    places = np.stack([y - bounds[0].start, x - bounds[1].start])
    return np.asarray(map_coordinates(part, places, order=1, mode="nearest"), np.float32)


def each_in_contrast(channels: NDArray[Any], model: Model, level: bool = False) -> NDArray[Any]:
    """Bring channels to a common contrast, for one picture of all: amplitudes may be thousands where phases are tenths.

    Parameters
    ----------
    channels : ndarray
        (channels, ..., h, w), in the intensities of the image.
    model : Model
        Trained on them.
    level : bool
        Whether they have a level, which decoded ones have not.

    Returns
    -------
    ndarray
        In units of the spread of every channel in all patches; a single channel as it is.
    """
    if model.channels == 1 or model.channels != len(channels):
        return channels
    mean, spread = (one.cpu().numpy().reshape(-1, *(1,) * (channels.ndim - 1)) for one in (model.mean, model.spread))
    return np.asarray((channels - mean * level) / spread)
