"""Noise of an image, and whether it has a lattice, from its power spectrum."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from scipy.ndimage import correlate1d, gaussian_filter, maximum_filter, median_filter

from napari_rvae.atoms.filters import box_mean
from napari_rvae.atoms.frame import Array, Floats

FEW_PERIODS = 12
FINEST = 0.36  # cycles per pixel: finer planes have too few pixels, and what is sharp folds back from beyond
LEAST = 4e-6  # variance, standard units: below 0.2 % of the range nothing counts, however little noise there is
SIDE = 1024  # pixels of the middle part that is looked at
STREAKS, APART = 4, 4.0  # steps in an image; how much a Bragg spot has more than what is between it and the middle
AGREED = 15.0  # times the mean of its ring that every direction of a lattice has
RING = 0.02  # cycles per pixel: width of the rings whose power is compared
GRAIN = 0.45  # pixels, at a band of one cycle per pixel, over which noise is alike
LEVEL, EMPTY = 2.0, 3000.0  # ratios of powers: noise is level over an octave by less; beyond its band it falls by more


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
    band : float
        Highest frequency of the noise, cycles per pixel, in an image that was enlarged or smoothed; 0.5 in others.
    """

    gain: float
    floor: float
    least: float
    rows: Array
    columns: Array
    band: float = 0.5

    def variance(self, mean: Array) -> Array:
        """Variance of pixels whose expectation is `mean`."""
        return np.asarray(np.maximum(self.gain * mean + self.floor, self.least), np.float32)

    def spectrum(self, ky: NDArray[Any], kx: NDArray[Any]) -> Array:
        """Noise power relative to its white part at frequencies `ky` (column) and `kx` (row), cycles per pixel."""
        along_rows = np.interp(np.abs(kx), np.linspace(0, 0.5, len(self.rows)), self.rows)
        along_columns = np.interp(np.abs(ky), np.linspace(0, 0.5, len(self.columns)), self.columns)
        return np.asarray(along_rows.astype(np.float32) + along_columns.astype(np.float32) + np.float32(1))

    @property
    def grain(self) -> float:
        """Pixels over which noise is alike, 0 where every pixel has its own."""
        return GRAIN / self.band if self.band < 0.5 else 0.0

    def binned(self, factor: int) -> Noise:
        """Noise of the mean over squares of pixels."""
        area = factor * factor
        rows, columns = (power[: max(2, len(power) // factor)] for power in (self.rows, self.columns))
        band = min(0.5, factor * self.band)
        return Noise(self.gain / area, self.floor / area, self.least / area, rows, columns, band)


def middle(pixels: Array, side: int = SIDE) -> Array:
    """The middle part of an image, at most `side` pixels wide."""
    top, left = (max(0, (full - side) // 2) for full in pixels.shape)
    return pixels[top : top + side, left : left + side]


def estimate_noise(pixels: Array, step: float = 0.0) -> Noise:
    """Noise of an image from frequencies beyond the resolution of the microscope.

    The variance is regressed on the local mean; noise correlated along lines shows as power at low frequencies along
    the line and highest frequencies across it, where no atom has any.

    An image that was enlarged or smoothed holds nothing at its highest frequencies. Its noise is told by so few of its
    pixels that these hold something at theirs, and is as strong as in the band that is left.
    """
    tile = middle(pixels)
    band, density = _band(tile)
    factor = max(1, round(GRAIN / band))
    few = np.ascontiguousarray(tile[::factor, ::factor])
    gain, floor, least = _variance(few, step)
    rows, columns, lines, share = _line_noise(tile, band)
    if density:
        share = density / float(np.maximum(gain * few + floor, least).mean())
    return Noise(gain * share, floor * share, max(least * share, LEAST, lines), rows, columns, band)


def _variance(tile: Array, step: float) -> tuple[float, float, float]:
    """Gain, floor and least of the finest structure's variance."""
    high = _high_pass(tile)
    mean = _smooth(tile)
    edges = np.quantile(mean[::3, ::3], np.linspace(0.01, 0.99, 13))
    label = np.digitize(mean, edges[1:-1])
    square = _smooth(high * high).ravel()  # as smooth as the mean, or the line would be too flat
    label = label.ravel()
    count = np.bincount(label, minlength=12)
    x = np.bincount(label, mean.ravel(), 12) / count.clip(1)
    y = np.bincount(label, square, 12) / count.clip(1)
    good = count > 30
    gain, floor = 0.0, float(square.mean())
    if good.sum() > 3 and np.ptp(x[good]) > 1e-6:
        weight = 1 / np.maximum(y[good], 1e-9)
        gain, floor = np.polyfit(x[good], y[good], 1, w=weight)
    least = max(
        0.25 * float(y[good].min()) if good.any() else 0.0, LEAST, step**2
    )  # whole numbers come in steps, and these in contours
    return float(gain), float(floor), least


def _band(tile: Array) -> tuple[float, float]:
    """Highest frequency of the noise, and its power below; 0.5 and 0 where it fills all frequencies.

    Over the octave below that frequency noise is level, over the one above it all but ends. The power of atoms does not
    do both: that of a Gaussian falls by no more than 16 over an octave after one over which it has fallen by 2, and by
    1000 where atoms keep apart, so that power grows as the square of small frequencies.
    """
    power, ky, kx = _power(tile)
    ring = np.round(np.hypot(ky[:, None], kx[None, :]) / RING).astype(int)
    level = _by_ring(power, ring, int(0.7 / RING), np.median, first=0) / np.log(2)
    for outer in range(int(0.35 / RING), 3, -1):
        octave = level[outer // 2 : outer + 1]
        density = float(np.median(octave[: len(octave) // 2 + 1]))  # further out it begins to fall
        even = octave.max() < LEVEL * octave.min()
        if even and density > LEAST and level[min(2 * outer, len(level) - 1)] * EMPTY < density:
            return outer * RING, density
    return 0.5, 0.0


def _smooth(pixels: Array) -> Array:
    """Nearly a Gaussian mean over 3 pixels."""
    return box_mean(box_mean(pixels, 7), 7)


def _high_pass(pixels: Array) -> Array:
    """Differences over the corners of the frequency plane, scaled so that white noise keeps its variance."""
    kernel = np.array([-1, 4, -6, 4, -1], np.float32)
    kernel /= np.sqrt((kernel**2).sum())
    return correlate1d(correlate1d(pixels, kernel, 0), kernel, 1)


def _line_noise(tile: Array, band: float) -> tuple[Array, Array, float, float]:
    """Excess noise along rows and columns; the least white noise; the part of the finest structure that is noise.

    Where noise runs along lines only, there is next to none at some frequencies. A filter would look nowhere else, and
    see rounding errors; hence a least white noise.
    """
    power, ky, kx = power_spectrum(tile)
    highest = band if band == 0.5 else band / np.sqrt(2)
    high_y, high_x = ((k > 0.72 * highest) & (k <= highest) for k in (np.abs(ky), kx))
    corner = power[high_y][:, high_x]
    rows = np.median(power[high_y], 0) / np.log(2)
    columns = np.median(power[:, high_x], 1)[: tile.shape[0] // 2 + 1] / np.log(2)
    white = float(np.median(corner)) / np.log(2)
    plain = min(1.0, white / float(corner.mean()))
    least = 3e-3 * float(max(rows[3:].max(), columns[3:].max()))
    white = max(white, least)
    excess = [_excess(power / white - 1) for power in (rows, columns)]
    if band < 0.5:  # a crystal has streaks in the band, too, at the frequencies of its planes
        excess = [np.minimum.accumulate(power) for power in excess]
    return excess[0], excess[1], least, plain


def _excess(power: Array) -> Array:
    """Smooth a measured excess and drop what is not significant.

    Offsets of whole lines drift like a random walk: slow changes from line to line are far stronger than the fast ones
    that can be told from atoms, so these frequencies are all but left out.
    """
    smooth = gaussian_filter(power, 1.0, mode="nearest")
    smooth[:3] *= np.where(smooth[:3] > 1, 50, 1)
    return np.where(smooth > 0.5, smooth, 0).astype(np.float32)


def power_spectrum(tile: Array) -> tuple[Array, Floats, Floats]:
    """Power of a tile and its frequencies (cycles per pixel), per pixel of noise, at least that of `LEAST`."""
    power, ky, kx = _power(tile)
    corner = power[np.abs(ky) > 0.36][:, kx > 0.36]
    power += max(0.0, LEAST - float(corner.mean()))
    return np.asarray(power, np.float32), ky, kx


def _power(tile: Array) -> tuple[Array, Floats, Floats]:
    window = np.outer(np.hanning(tile.shape[0]), np.hanning(tile.shape[1])).astype(np.float32)
    power = np.abs(scipy.fft.rfft2((tile - tile.mean()) * window)) ** 2 / float((window**2).sum())
    ky, kx = np.fft.fftfreq(tile.shape[0]), np.fft.rfftfreq(tile.shape[1])
    return np.asarray(power, np.float32), np.asarray(ky), np.asarray(kx)


def lattice_period(pixels: Array, noise: Noise) -> float | None:
    """Distance of the strongest lattice planes, pixels; None where no frequency stands out of its ring.

    Noise and randomly placed atoms spread their power over a ring with a median of ln 2 times the mean and a largest
    value of some 12 times; a Bragg spot is hundreds of times above.
    """
    tile = middle(pixels)
    power, ky, kx = power_spectrum(tile)
    power /= noise.spectrum(ky[:, None], kx[None, :])
    axes = (np.abs(kx)[None, :] * tile.shape[1] < 2.5) | (np.abs(ky)[:, None] * tile.shape[0] < 2.5)
    side = min(tile.shape)
    ring = np.round(np.hypot(ky[:, None], kx[None, :]) * side).astype(int)
    ring[axes | (ring > min(FINEST, noise.band) * side) | (ring < 3)] = 0
    for _ in range(STREAKS):
        spot = _strongest(power, ring, side)
        if spot is None:
            return _few_periods(power, ring, side)
        y, x = float(ky[spot[0]]), float(kx[spot[1]])
        if power[spot] > APART * _before(power, y, x, side):
            return float(1 / np.hypot(y, x))
        ring[_streak(ky, kx, float(np.arctan2(y, x)), side)] = 0
    return None


def _few_periods(power: Array, ring: NDArray[np.int64], side: int) -> float | None:
    """Distance of the planes of a lattice of few periods, whose spots are weak alone but agree.

    Three directions 60 degrees apart, or two at right angles, stand out of their ring; in noise, and where atoms lie at
    random, the lowest of them has no more than some six times the mean.
    """
    typical = _typical(power, ring, side)
    near = maximum_filter(np.where(ring > 0, power, 0), 3, mode=("wrap", "nearest"))
    best, period = AGREED, None
    for radius, directions in product(np.arange(6.0, min(2 * FEW_PERIODS, FINEST * side), 0.5), (3, 2)):
        angle = np.arange(0, np.pi / directions, 0.5 / radius)[:, None] + np.pi / directions * np.arange(directions)
        y, x = radius / side * np.sin(angle), radius / side * np.cos(angle)
        place = _places(power, y, x)
        height = near[place] / max(typical[round(radius) - 1], 1e-30)
        clear = ring[place] > 0  # one may lie where scan lines do
        lowest = np.where(clear.sum(1) > 1, np.where(clear, height, np.inf).min(1), 0)
        most = int(lowest.argmax())
        ahead = [APART * _before(power, float(b), float(a), side) for b, a in zip(y[most], x[most], strict=True)]
        if lowest[most] > best and (near[place][most] > ahead)[clear[most]].all():
            best, period = float(lowest[most]), side / float(radius)
    return period


def _before(power: Array, y: float, x: float, side: int) -> float:
    """Power in the direction of a frequency, nearer to the middle: that of a step falls, a Bragg spot stands alone."""
    radius = np.hypot(y, x) * side
    part = np.arange(min(0.6 * radius, radius - 4), radius - 3) / radius
    across = np.array([-1.5, -0.5, 0.5, 1.5])[:, None] / radius
    found = power[_places(power, part * y - across * x, part * x + across * y)]
    return float(np.median(found.max(0)))


def _places(power: Array, y: Floats, x: Floats) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where frequencies, cycles per pixel, lie in a power spectrum, of which half is kept."""
    rows = np.round(np.where(x < 0, -y, y) * len(power)).astype(np.int64)
    return rows, np.round(np.abs(x) * (2 * power.shape[1] - 2)).astype(np.int64)


def _streak(ky: Floats, kx: Floats, angle: float, side: int) -> NDArray[np.bool_]:
    """Frequencies on a straight line through the middle, and where it folds back beyond the highest frequency."""
    tall, wide = ky[:, None], kx[None, :]
    found = np.zeros((len(ky), len(kx)), bool)
    for down, across in np.ndindex(3, 3):
        y, x = tall + (down - 1), wide + (across - 1)
        found |= np.abs(y * np.cos(angle) - x * np.sin(angle)) * side < 2.5 + 0.015 * np.hypot(y, x) * side
    return found


def _strongest(power: Array, ring: NDArray[np.int64], side: int) -> tuple[int, int] | None:
    """Index of the strongest frequency in the ring out of which one stands out."""
    smooth, highest = _typical(power, ring, side), _by_ring(power, ring, int(0.45 * side), np.max)
    # few periods have few samples in their ring, and slow changes of the background look alike
    radius = np.arange(1, len(smooth) + 1)
    limit = np.where(radius < FEW_PERIODS, 150, 45)
    found = (highest > limit * smooth) & (smooth > 0) & (radius > 5)
    if not found.any():
        return None
    chosen = np.flatnonzero(ring == radius[np.argmax(np.where(found, highest, 0))])
    y, x = np.unravel_index(chosen[np.argmax(power.ravel()[chosen])], power.shape)
    return int(y), int(x)


def _typical(power: Array, ring: NDArray[np.int64], side: int) -> Floats:
    """Mean power of every ring from the first on, as its median tells it, smooth from ring to ring."""
    typical = _by_ring(power, ring, int(0.45 * side), np.median) / np.log(2)
    return np.asarray(median_filter(typical, 7, mode="nearest"))


def _by_ring(
    power: Array, ring: NDArray[np.int64], last: int, summary: Callable[[Array], Any], first: int = 1
) -> Floats:
    """Summary of the power of every ring from the first to the last; 0 where a ring is empty."""
    number = ring.ravel().astype(np.int16)  # small numbers are sorted ten times as fast
    order = np.argsort(number, kind="stable")
    starts = np.searchsorted(number[order], np.arange(first, last + 2))
    parts = np.split(power.ravel()[order], starts)[1:-1]
    return np.array([summary(part) if len(part) else 0 for part in parts], np.float64)
