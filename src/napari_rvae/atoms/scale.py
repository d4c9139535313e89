"""What can be said about an image before atoms are looked for: valid pixels, noise, contrast, width of an atom."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, median_filter, uniform_filter

from napari_rvae.errors import InputDataError

Array = NDArray[np.float32]
Floats = NDArray[np.float64]
SMALLEST_SIDE = 16
BLOCK = 512
FEW_PERIODS = 12
LEAST = 4e-6  # variance, standard units: below 0.2 % of the range nothing counts, however little noise there is


@dataclass(frozen=True)
class Noise:
    """Variance of a pixel as a straight line over the local mean, and how much of it runs along lines.

    Parameters
    ----------
    gain, floor, least : float
        ``variance = max(gain * mean + floor, least)``, in units of the normalised image.
    rows, columns : numpy.ndarray
        Excess power of noise that is correlated along rows (by horizontal frequency, cycles per pixel from 0 to 0.5)
        and along columns, relative to the white part.
    """

    gain: float
    floor: float
    least: float
    rows: Array
    columns: Array

    def variance(self, mean: Array) -> Array:
        """Variance of pixels whose expectation is `mean`."""
        return np.maximum(self.gain * mean + self.floor, self.least).astype(np.float32)

    def spectrum(self, ky: Array, kx: Array) -> Array:
        """Noise power relative to its white part at frequencies `ky` (column) and `kx` (row), cycles per pixel."""
        along_rows = np.interp(np.abs(kx), np.linspace(0, 0.5, len(self.rows)), self.rows)
        along_columns = np.interp(np.abs(ky), np.linspace(0, 0.5, len(self.columns)), self.columns)
        return np.asarray(1 + along_rows + along_columns, np.float32)


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
    sign : int
        1 for bright atoms, -1 for dark ones.
    """

    pixels: Array
    invalid: NDArray[np.bool_] | None
    offset: float
    unit: float
    sign: int = 1

    def inverted(self) -> Frame:
        """The same frame for atoms of the opposite contrast."""
        return Frame(-self.pixels, self.invalid, self.offset, self.unit, -self.sign)


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
    if dtype == bool:
        raise InputDataError("This is a mask of true and false; give the image it was made from.")
    if np.issubdtype(dtype, np.complexfloating):
        raise InputDataError("This image is complex; take its amplitude or phase first.")
    if not np.issubdtype(dtype, np.number):
        raise InputDataError(f"The image holds {dtype}, not numbers.")
    if 0 in shape:
        raise InputDataError("The image is empty; choose one with pixels.")
    if min(shape) < SMALLEST_SIDE:
        raise InputDataError(f"The image is only {shape[0]} x {shape[1]} pixels; at least {SMALLEST_SIDE} in each direction are needed.")


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
        raise InputDataError("More than half of the pixels are not numbers (NaN or infinite); crop the image to its valid part.")
    low, offset, high = np.percentile(sample, [0.1, 50, 99.9])
    unit = float(high - low) or float(sample.max() - sample.min())
    if not unit > 1e-12 * max(abs(high), abs(low), 1e-300):
        raise InputDataError("The image is constant: there is nothing to find; check that the right layer is chosen.")
    standard = np.empty(pixels.shape, np.float32)
    for start in range(0, len(pixels), BLOCK):
        block = pixels[start : start + BLOCK].astype(np.float64)
        standard[start : start + BLOCK] = (block - offset) / unit
    invalid = ~np.isfinite(standard)
    if not invalid.any():
        return Frame(_without_hot_pixels(standard), None, float(offset), unit)
    _fill(standard, invalid)
    return Frame(_without_hot_pixels(standard), invalid, float(offset), unit)


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
    """Replace single pixels that stand out of all their neighbours as no focused atom can."""
    typical = median_filter(pixels, size=3)
    difference = pixels - typical
    step = max(1, int(np.sqrt(pixels.size / 1e6)))
    spread = 1.4826 * np.median(np.abs(difference[::step, ::step])) + 1e-6
    hot = np.abs(difference) > 12 * spread
    if not hot.any() or hot.mean() > 1e-3:
        return pixels
    around = (9 * uniform_filter(np.abs(difference), 3) - np.abs(difference)) / 8
    return np.where(hot & (np.abs(difference) > 6 * around), typical, pixels).astype(np.float32)


def estimate_noise(pixels: Array) -> Noise:
    """Noise of an image from frequencies beyond the resolution of the microscope.

    The variance is regressed on the local mean; noise correlated along lines shows as power at low frequencies along
    the line and highest frequencies across it, where no atom has any.
    """
    tile = pixels[: 2048, : 2048]
    high = _high_pass(tile)
    mean, variance = gaussian_filter(tile, 3), gaussian_filter(high * high, 3)
    edges = np.quantile(mean[::3, ::3], np.linspace(0.01, 0.99, 13))
    label = np.digitize(mean, edges[1:-1]).ravel()
    count = np.bincount(label, minlength=12)
    x = np.bincount(label, mean.ravel(), 12) / count.clip(1)
    y = np.bincount(label, variance.ravel(), 12) / count.clip(1)
    good = count > 30
    gain, floor = 0.0, float(np.mean(high * high))
    if good.sum() > 3 and np.ptp(x[good]) > 1e-6:
        weight = 1 / np.maximum(y[good], 1e-9)
        gain, floor = np.polyfit(x[good], y[good], 1, w=weight)
    least = max(0.25 * float(y[good].min()) if good.any() else 0.0, LEAST)
    rows, columns = _line_noise(tile)
    return Noise(float(gain), float(floor), least, rows, columns)


def _high_pass(pixels: Array) -> Array:
    """Differences over the corners of the frequency plane, scaled so that white noise keeps its variance."""
    kernel = np.array([-1, 4, -6, 4, -1], np.float32)
    kernel /= np.sqrt((kernel**2).sum())
    from scipy.ndimage import correlate1d

    return correlate1d(correlate1d(pixels, kernel, 0), kernel, 1)


def _line_noise(tile: Array) -> tuple[Array, Array]:
    power, ky, kx = power_spectrum(tile)
    high_y, high_x = np.abs(ky) > 0.36, kx > 0.36
    white = float(power[high_y][:, high_x].mean())
    rows = power[high_y].mean(0) / white - 1
    columns = power[:, high_x].mean(1)[: tile.shape[0] // 2 + 1] / white - 1
    return _excess(rows), _excess(columns)


def _excess(power: Array) -> Array:
    """Smooth a measured excess and drop what is not significant."""
    smooth = gaussian_filter(power, 1.0, mode="nearest")
    return np.where(smooth > 0.5, smooth, 0).astype(np.float32)


def power_spectrum(tile: Array) -> tuple[Array, Floats, Floats]:
    """Power of a tile and its frequencies (cycles per pixel), per pixel of noise, at least that of `LEAST`."""
    window = np.outer(np.hanning(tile.shape[0]), np.hanning(tile.shape[1])).astype(np.float32)
    power = np.abs(scipy.fft.rfft2((tile - tile.mean()) * window)) ** 2 / float((window**2).sum())
    ky, kx = np.fft.fftfreq(tile.shape[0]), np.fft.rfftfreq(tile.shape[1])
    corner = power[np.abs(ky) > 0.36][:, kx > 0.36]
    return power + np.float32(max(0.0, LEAST - float(corner.mean()))), ky, kx


def lattice_period(pixels: Array, noise: Noise) -> float | None:
    """Distance of the strongest lattice planes, pixels; None where no frequency stands out of its ring.

    Noise and randomly placed atoms spread their power over a ring with a median of ln 2 times the mean and a largest
    value of some 12 times; a Bragg spot is hundreds of times above.
    """
    tile = pixels[:2048, :2048]
    power, ky, kx = power_spectrum(tile)
    power /= noise.spectrum(ky[:, None], kx[None, :])
    axes = (np.abs(kx)[None, :] * tile.shape[1] < 2.5) | (np.abs(ky)[:, None] * tile.shape[0] < 2.5)
    side = min(tile.shape)
    ring = np.round(np.hypot(ky[:, None], kx[None, :]) * side).astype(int)
    ring[axes | (ring > 0.45 * side) | (ring < 3)] = 0
    order = np.argsort(ring, axis=None, kind="stable")
    starts = np.searchsorted(ring.ravel()[order], np.arange(1, int(0.45 * side) + 2))
    parts = np.split(power.ravel()[order], starts)[1:-1]
    median = np.array([np.median(part) if len(part) else 0 for part in parts]) / np.log(2)
    highest = np.array([part.max() if len(part) else 0 for part in parts])
    smooth = median_filter(median, 7, mode="nearest")
    # few periods have few samples in their ring, and slow changes of the background look alike
    radius = np.arange(1, len(parts) + 1)
    limit = np.where(radius < FEW_PERIODS, 150, 45)
    found = (highest > limit * smooth) & (smooth > 0) & (radius > 5)
    if not found.any():
        return None
    return side / float(radius[np.argmax(np.where(found, highest, 0))])


def estimate_contrast(response: Array) -> Literal["bright", "dark"]:
    """Are atoms bright or dark: the sharper extremes of the response win, bright unless dark is clearly better."""
    sample = response[:: max(1, response.shape[0] // 1024), :: max(1, response.shape[1] // 1024)]
    skewness = float(np.mean((sample - sample.mean()) ** 3) / (sample.std() ** 3 + 1e-30))
    return "dark" if skewness < -0.5 else "bright"
