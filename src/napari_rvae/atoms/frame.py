"""The border: any image that can be analysed becomes a float32 frame in standard units, all others are refused."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from napari_rvae.atoms.filters import box_mean
from napari_rvae.errors import InputDataError

Array = NDArray[np.float32]
Floats = NDArray[np.float64]
SMALLEST_SIDE = 16
BLOCK = 512


@dataclass(frozen=True)
class Frame:
    """One image in standard units: ``pixels = sign * (image - offset) / unit``, atoms bright, holes filled.

    Parameters
    ----------
    pixels : numpy.ndarray
        float32 (y, x).
    invalid : numpy.ndarray or None
        True where the image had no finite value.
    offset, unit : float
        To go back to the image's own values.
    step : float
        Smallest difference between values that come in steps, in standard units; 0 where they do not.
    sign : int
        1 for bright atoms, -1 for dark ones.
    """

    pixels: Array
    invalid: NDArray[np.bool_] | None
    offset: float
    unit: float
    step: float = 0.0
    sign: int = 1

    def inverted(self) -> Frame:
        """The same frame for atoms of the opposite contrast."""
        return replace(self, pixels=-self.pixels, sign=-self.sign)


def check_image(image: Any) -> None:
    """Refuse what is not one real, two-dimensional image.

    Raises
    ------
    InputDataError
        If atoms cannot be looked for in such an array; the message says what to do.
    """
    shape, dtype = tuple(image.shape), np.dtype(image.dtype)
    if len(shape) == 3 and shape[-1] in (3, 4):
        raise InputDataError("This is a colour image (RGB); convert it to grey or split its channels first.")
    if len(shape) != 2:
        raise InputDataError(f"Atoms are found in images (y, x) or stacks (t, y, x), not in an array of shape {shape}.")
    if dtype.kind == "b":
        raise InputDataError("This is a mask of true and false; give the image it was made from.")
    if np.issubdtype(dtype, np.complexfloating):
        raise InputDataError("This image is complex; take its amplitude or phase first.")
    if not np.issubdtype(dtype, np.number):
        raise InputDataError(f"The image holds {dtype}, not numbers.")
    if 0 in shape:
        raise InputDataError("The image is empty; choose one with pixels.")
    if min(shape) < SMALLEST_SIDE:
        raise InputDataError(
            f"The image is only {shape[0]} x {shape[1]} pixels; at least {SMALLEST_SIDE} in each direction are needed."
        )


def standard_frame(image: Any) -> Frame:
    """Bring an image to float32 with median 0 and a robust range of 1, whatever its type and scale.

    Pixels that are not finite are filled from their surroundings and remembered.

    Raises
    ------
    InputDataError
        If the image is constant or mostly not finite.
    """
    check_image(image)
    pixels = np.asarray(image)
    step = max(1, int(np.sqrt(pixels.size / 1e6)))
    sample = pixels[::step, ::step].astype(np.float64)
    sample = sample[np.isfinite(sample)]
    if sample.size < 0.5 * pixels[::step, ::step].size:
        raise InputDataError(
            "More than half of the pixels are not numbers (NaN or infinite); crop the image to its valid part."
        )
    low, offset, high = np.percentile(sample, [0.1, 50, 99.9])
    unit = float(high - low) or float(sample.max() - sample.min())
    if not unit > 1e-12 * max(abs(high), abs(low), 1e-300):
        raise InputDataError("The image is constant: there is nothing to find; check that the right layer is chosen.")
    standard = np.empty(pixels.shape, np.float32)
    for start in range(0, len(pixels), BLOCK):
        block = pixels[start : start + BLOCK].astype(np.float64)
        standard[start : start + BLOCK] = (block - offset) / unit
    invalid = ~np.isfinite(standard)
    if invalid.any():
        _fill(standard, invalid)
    return Frame(
        _without_hot_pixels(standard), invalid if invalid.any() else None, float(offset), unit, _step(sample) / unit
    )


def _step(sample: Floats) -> float:
    """Smallest difference between values that come in steps (counts, in whatever unit); 0 where they do not."""
    values = np.unique(sample)
    return float(np.diff(values).min()) if 1 < len(values) < 0.05 * sample.size else 0.0


def _fill(pixels: Array, invalid: NDArray[np.bool_]) -> None:
    """Fill invalid pixels in place with a Gaussian mean of valid ones, ever wider where the hole is wide."""
    pixels[invalid] = 0
    missing = invalid.copy()
    sigma = 1.5
    while missing.any() and sigma < max(pixels.shape):
        weight = gaussian_filter((~invalid).astype(np.float32), sigma)
        mean = gaussian_filter(np.where(invalid, 0, pixels), sigma)
        ready = missing & (weight > 0.05)
        pixels[ready] = mean[ready] / weight[ready]
        missing &= ~ready
        sigma *= 2


def _without_hot_pixels(pixels: Array) -> Array:
    """Replace, in place, single pixels that stand out of all their neighbours as no focused atom can."""
    difference = pixels - box_mean(pixels, 3)
    step = max(1, int(np.sqrt(pixels.size / 1e6)))
    spread = 1.4826 * float(np.median(np.abs(difference[::step, ::step]))) + 1e-6
    suspects = np.argwhere(np.abs(difference) > 10 * spread)
    if len(suspects) > 1e-3 * pixels.size:
        return pixels
    for y, x in suspects:
        square = pixels[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2]
        typical = np.median(square)
        others = np.sort(np.abs(square - typical), axis=None)[:-1]
        if abs(pixels[y, x] - typical) > max(12 * spread, 4 * others[-1]):
            pixels[y, x] = typical
    return pixels
