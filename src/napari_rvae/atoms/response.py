"""The matched filter, in units of its own noise, and its maxima."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from napari_rvae.atoms.filters import box_mean, in_errors, local_maxima
from napari_rvae.atoms.frame import Array
from napari_rvae.atoms.noise import Noise
from napari_rvae.atoms.parallel import in_parts

BLOCK = 256
REACH = (2.2, 2.8, 3.6, 5.0)  # widths off a maximum, where a line goes on and a spot has ended


def texture_limit(response: Array, sigma: float) -> Array:
    """How much higher than in plain noise a maximum must be where the background has texture, at least 1.

    Atoms are bright: what is dark shows how much a structureless background varies at their scale. Texture varies
    less wildly than its variance says, hence the factor.
    """
    step = max(1, int(np.sqrt(response.size / 1e5)))
    typical = max(float(-np.quantile(response[::step, ::step], 0.16)), 1)
    dark = np.clip(response, -3 * typical, 0)  # the dark rim around a few bright atoms is not texture
    rough = box_mean(dark * dark, 2 * int(20 * sigma) + 1)
    return np.asarray(np.maximum(0.74 * np.sqrt(2 * np.maximum(rough, 0)), 1), np.float32)


def rare(sigma: float, lattice: bool) -> float:
    """Height above which smoothed white noise has next to no maximum.

    One in two megapixels is allowed; without a lattice, where the best of ten widths has been picked, one in twenty.
    """
    return height_by_chance(sigma, 5e-7 if lattice else 5e-8)


def height_by_chance(sigma: float, density: float) -> float:
    """Height above which smoothed white noise has no more than so many maxima per pixel.

    Maxima of a Gaussian field above t have a density of ``t exp(-t^2 / 2) / ((2 pi)^1.5 2 sigma^2)`` where its
    correlation falls off as ``exp(-r^2 / (4 sigma^2))`` (Adler, The Geometry of Random Fields, 1981).
    """
    height = np.linspace(2.5, 7, 451)
    expected = height * np.exp(-(height**2) / 2) / ((2 * np.pi) ** 1.5 * sigma**2)  # surroundings: twice as rough
    return float(height[np.argmax(expected < density)])


def filter_response(
    pixels: Array, noise: Noise, sigma: float, surround: float = 2.0, mean: Array | None = None
) -> tuple[Array, Array]:
    """Response of a matched filter (a Gaussian less its surroundings), divided by its standard deviation.

    Parameters
    ----------
    pixels : numpy.ndarray
        (y, x), standard units.
    noise : Noise
        Noise of the pixels.
    sigma : float
        Width of an atom, pixels.
    surround : float
        Width of the surroundings, in `sigma`.
    mean : numpy.ndarray, optional
        What sets the local noise, if not the pixels themselves.

    Returns
    -------
    response, error : numpy.ndarray
        float32 (y, x): the response, and the standard deviation of an amplitude measured by it; their product is the
        amplitude of an atom of this width.
    """
    (top, bottom), (left, right) = (_padding(side, 4 * surround * sigma) for side in pixels.shape)
    flat = pixels - trend(pixels, 4 * surround * sigma)
    padded = np.pad(flat, ((top, bottom), (left, right)), mode="symmetric")
    shape = padded.shape
    spectrum = scipy.fft.rfft2(padded, workers=-1)
    del padded, flat
    height, spread = _apply(spectrum, noise, sigma, surround, shape)
    filtered = scipy.fft.irfft2(spectrum, s=shape, workers=-1, overwrite_x=True)
    del spectrum
    response = filtered[top : shape[0] - bottom, left : shape[1] - right]
    error = box_mean(pixels if mean is None else mean, 2 * int(2.5 * max(sigma, noise.grain)) + 1)
    result = np.empty(pixels.shape, np.float32)
    line = np.array([noise.gain, noise.floor, noise.least, spread, height], np.float32)
    edges = [_mirrored(side, sigma) for side in pixels.shape]
    in_parts(lambda first, last: in_errors(response, error, line, *edges, first, last, result), len(pixels), 64)
    return result, error


def _apply(
    spectrum: NDArray[Any], noise: Noise, sigma: float, surround: float, shape: tuple[int, ...]
) -> tuple[float, float]:
    """Multiply a spectrum by the filter's, in place and by blocks of rows.

    Returns the response to an atom of amplitude 1, and the standard deviation of the amplitude per that of a pixel.
    """
    ky, kx = np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None, :]

    def gaussian(frequency: NDArray[Any], width: float) -> Array:
        return np.asarray(np.exp(-((2 * np.pi * width * frequency) ** 2) / 2), np.float32)

    atom_x, wide_x = gaussian(kx, sigma), gaussian(kx, surround * sigma)
    weight = np.full(kx.shape[1], 2.0)  # rfft holds half of the plane
    weight[0] = 1
    height = variance = 0.0
    for start in range(0, len(spectrum), BLOCK):
        rows = ky[start : start + BLOCK]
        atom = gaussian(rows, sigma) * atom_x
        power = noise.spectrum(rows, kx)
        transfer = atom * (1 - gaussian(rows, surround * sigma) * wide_x) / power
        height += float(((transfer * atom) @ weight).sum())
        variance += float(((transfer * transfer * power) @ weight).sum())
        spectrum[start : start + BLOCK] *= transfer
    pixels = shape[0] * shape[1]
    height *= 2 * np.pi * sigma**2 / pixels
    return height, float(np.sqrt(variance / pixels)) / height


def trend(pixels: Array, width: float) -> Array:
    """Slow changes of the background, continued straight on beyond the border."""
    size = 2 * int(width / 2) + 1
    (top, left) = (min(size, side - 1) for side in pixels.shape)
    padded = np.pad(pixels, ((top, top), (left, left)), mode="reflect", reflect_type="odd")
    smooth = box_mean(box_mean(padded, size), size)
    return np.asarray(smooth[top : smooth.shape[0] - top, left : smooth.shape[1] - left], np.float32)


def _mirrored(side: int, sigma: float) -> Array:
    """How much noise grows toward the border, where a pixel and its mirror image count as two."""
    distance = np.arange(side) + 0.5
    growth = np.exp(-(distance**2) / sigma**2)
    return np.asarray(np.sqrt(1 + growth + growth[::-1]), np.float32)


def _padding(side: int, wanted: float) -> tuple[int, int]:
    """Pixels to add before and after, at most what a reflection can give, to a length good for FFTs."""
    before = min(int(np.ceil(wanted)), side - 1)
    return before, min(scipy.fft.next_fast_len(side + 2 * before, real=True) - side - before, side - 1)


def find_maxima(
    response: Array, threshold: float, separation: float, invalid: NDArray[np.bool_] | None = None
) -> tuple[NDArray[np.float64], Array]:
    """Maxima of the response above a threshold, highest first, none nearer than `separation` to a higher one."""
    where = local_maxima(response, threshold, max(1, int(separation / np.sqrt(2))))
    if invalid is not None:
        where = where[~invalid[tuple(where.T)]]
    heights = response[tuple(where.T)]
    order = np.argsort(-heights, kind="stable")
    return where[order].astype(np.float64), heights[order]


def image_values(image: Array, positions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values of an image at the pixels nearest to positions (n, 2)."""
    y, x = np.round(positions).astype(int).T
    return np.asarray(image[y.clip(0, image.shape[0] - 1), x.clip(0, image.shape[1] - 1)], np.float64)


def roundness(response: Array, positions: NDArray[np.float64], sigma: float) -> NDArray[np.float64]:
    """Smaller over larger curvature of the response at its maxima (n, 2): 1 for a spot, 0 for a ridge."""
    step = max(1, round(sigma))

    def at(dy: int, dx: int) -> NDArray[np.float64]:
        return image_values(response, positions + np.array([dy * step, dx * step]))

    here = at(0, 0)
    yy, xx = 2 * here - at(1, 0) - at(-1, 0), 2 * here - at(0, 1) - at(0, -1)
    yx = (at(1, -1) + at(-1, 1) - at(1, 1) - at(-1, -1)) / 4
    mean, difference = (yy + xx) / 2, np.hypot((yy - xx) / 2, yx)
    return np.asarray((mean - difference) / np.maximum(mean + difference, 1e-9))


def along(response: Array, positions: NDArray[np.float64], sigma: float) -> NDArray[np.float64]:
    """How much of the response at positions (n, 2) is left on either side, in the direction of the most.

    Nearly nothing of a spot, even beside another one; most of a step or a line, however much noise roughens its crest.
    """
    turns = np.arange(12) * np.pi / 12
    steps = max(sigma, 1.0) * np.stack([np.sin(turns), np.cos(turns)], 1)

    def side(step: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(np.mean([image_values(response, positions + far * step) for far in REACH], 0))

    sides = [np.minimum(side(step), side(-step)) for step in steps]
    return np.asarray(np.max(sides, 0, initial=0) / np.maximum(image_values(response, positions), 1e-9))
