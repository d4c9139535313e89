"""The border: any image that can be analysed becomes a float32 frame in standard units, all others are refused."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, find_objects, gaussian_filter, label

from napari_rvae.atoms.filters import box_mean
from napari_rvae.errors import InputDataError

Array = NDArray[np.float32]
Floats = NDArray[np.float64]
SMALLEST_SIDE = 16
BLOCK = 512
SQUARE = np.ones((3, 3), np.bool_)
SHARPENED = 10  # times that what was filled in is made to fit its surroundings
CHANCE = 1e-3  # expected number of flat squares or lines, below which noise has made none
SHARP = 0.3, 0.15  # fall at the first pixel off a flat area, in the image's range; at the second, in that of the first


@dataclass(frozen=True)
class Frame:
    """One image in standard units: ``pixels = sign * (image - offset) / unit``, atoms bright, holes filled.

    Holes are pixels that are not finite, dead lines, and what was burned in or saturated.

    Parameters
    ----------
    pixels : numpy.ndarray
        float32 (y, x).
    invalid : numpy.ndarray or None
        True where the image measured nothing.
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

    Pixels that measured nothing, as they are not finite or as `flat_areas` tells, are filled from their surroundings
    and remembered.

    Raises
    ------
    InputDataError
        If the image is constant or mostly not finite.
    """
    check_image(image)
    pixels = np.asarray(image)
    step = max(1, int(np.sqrt(pixels.size / 1e6)))
    finite = np.isfinite(pixels)
    if np.mean(finite[::step, ::step]) < 0.5:
        raise InputDataError(
            "More than half of the pixels are not numbers (NaN or infinite); crop the image to its valid part."
        )
    invalid = ~finite | flat_areas(pixels, finite)
    sample = pixels[::step, ::step][~invalid[::step, ::step]].astype(np.float64)
    low, offset, high = np.percentile(sample, [0.1, 50, 99.9])
    unit = float(high - low) or float(sample.max() - sample.min())
    if not unit > 1e-12 * max(abs(high), abs(low), 1e-300):
        raise InputDataError("The image is constant: there is nothing to find; check that the right layer is chosen.")
    standard = np.empty(pixels.shape, np.float32)
    for start in range(0, len(pixels), BLOCK):
        block = pixels[start : start + BLOCK].astype(np.float64)
        standard[start : start + BLOCK] = (block - offset) / unit
    if invalid.any():
        _fill(standard, invalid)
    return Frame(
        _without_hot_pixels(standard), invalid if invalid.any() else None, float(offset), unit, _step(sample) / unit
    )


def flat_areas(pixels: NDArray[Any], finite: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Where an image holds its lowest or highest value, and only that, although nothing there was as low or high.

    Dead lines, scale bars and their text, empty margins and saturated areas are such; the flat tops of saturated atoms
    are not, for they fall off slowly.

    Parameters
    ----------
    pixels : numpy.ndarray
        (y, x).
    finite : numpy.ndarray
        (y, x) bool: which of them count.

    Returns
    -------
    numpy.ndarray
        (y, x) bool; nowhere true where that would be most of the image.
    """
    flat = np.zeros(pixels.shape, np.bool_)
    values = pixels[finite]
    for extreme in (values.min(), values.max()):
        same = pixels == extreme
        for across in (same, same.T):
            (flat if across is same else flat.T)[_dead_rows(across)] = True
        flat |= _sharp_areas(pixels, same & ~flat, finite & ~flat)
    return flat if flat.mean() < 0.5 else np.zeros_like(flat)


def _dead_rows(same: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Rows (y,) that hold one value, unlike the rows beside them."""
    part = same.mean(1)
    dead = part == 1
    if not dead.any() or dead.all():
        return np.zeros_like(dead)
    beside = np.flatnonzero(~dead)
    usual = float(np.mean(part[beside]))
    if len(same) * usual ** same.shape[1] > CHANCE:
        return np.zeros_like(dead)
    after = np.searchsorted(beside, np.arange(len(dead))).clip(0, len(beside) - 1)
    nearest = np.minimum(part[beside[after]], part[beside[np.maximum(after - 1, 0)]])
    return np.asarray(dead & (nearest < 0.5))


def _sharp_areas(pixels: NDArray[Any], same: NDArray[np.bool_], finite: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Areas of one value, no narrower than 3 pixels, that end more sharply than anything seen by a microscope."""
    areas = np.zeros_like(same)
    core = same[:-2] & same[1:-1] & same[2:]
    core = core[:, :-2] & core[:, 1:-1] & core[:, 2:]
    if not core.any():
        return areas
    whole = binary_dilation(np.pad(core, 1), SQUARE)
    rest = finite & ~whole
    if not rest.any() or np.mean(same[rest]) ** 9 * same.size > CHANCE:
        return areas
    low, high = np.percentile(pixels[rest], [0.1, 99.9])
    labels, _ = label(whole)
    for number, place in enumerate(find_objects(labels), 1):
        y, x = (slice(max(0, side.start - 2), side.stop + 2) for side in place)
        inside, near = labels[y, x] == number, finite[y, x]
        once = binary_dilation(inside, SQUARE)
        twice = binary_dilation(once, SQUARE)
        first, second = (pixels[y, x][ring & near].astype(np.float64) for ring in (once & ~inside, twice & ~once))
        if not len(first) or not len(second):
            continue
        value = float(pixels[y, x][inside][0])
        fall, further = value - np.median(first), np.median(first) - np.median(second)
        if abs(fall) > SHARP[0] * (high - low) and further * np.sign(fall) < SHARP[1] * abs(fall):
            areas[y, x] |= inside
    return areas


def _step(sample: Floats) -> float:
    """Smallest difference between values that come in steps (counts, in whatever unit); 0 where they do not."""
    values = np.unique(sample)
    return float(np.diff(values).min()) if 1 < len(values) < 0.05 * sample.size else 0.0


def _fill(pixels: Array, invalid: NDArray[np.bool_]) -> None:
    """Fill invalid pixels in place with a Gaussian mean of valid ones, ever wider where the hole is wide.

    A mean flattens what is curved, and along a dead line that would look like noise; so what smoothing takes off is
    given back, until it stands.
    """
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
    for _ in range(SHARPENED):
        smooth = gaussian_filter(pixels, 1.0)
        pixels[invalid] = (2 * smooth - gaussian_filter(smooth, 1.0))[invalid]


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
