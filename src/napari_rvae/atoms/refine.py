"""Sub-pixel positions: every atom fitted as a Gaussian together with its neighbours, at the limit of the noise.

Iteratively reweighted least squares with the image's own noise model is Fisher scoring for the Poisson part, so the
errors reach the Cramer-Rao bound (e.g. Ober, Ram and Ward, Biophys. J. 86, 1185, 2004). Neighbours overlap, hence
sweeps: in each, every atom is fitted to the image less the last sweep's neighbours.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from napari_rvae.atoms.find import Detection
from napari_rvae.errors import Stopped

Floats = NDArray[np.float64]
Y, X, AMPLITUDE, BACKGROUND, SIGMA = range(5)
NEIGHBOURS = 12
REACH = 1.5  # an atom may move so many sigmas from where it was found


def compiled(function: Callable[..., Any]) -> Any:
    """Compile with numba, keeping the result on disk where there is a place for it."""
    try:
        return numba.njit(cache=True, nogil=True, fastmath={"nnan", "ninf", "nsz", "contract", "arcp"})(function)
    except RuntimeError:  # neither the package nor the user's cache folder can be written
        return numba.njit(nogil=True, fastmath={"nnan", "ninf", "nsz", "contract", "arcp"})(function)


@dataclass(frozen=True)
class Fits:
    """Fitted columns.

    Parameters
    ----------
    values : numpy.ndarray
        (n, 5): y, x, amplitude, background, sigma; pixels and standard units.
    variances : numpy.ndarray
        (n, 5): their formal variances; 0 for what was held.
    """

    values: Floats
    variances: Floats


def fit_atoms(
    detection: Detection,
    positions: Floats,
    *,
    sweeps: int = 4,
    stop: Callable[[], bool] | None = None,
    fixed: Floats | None = None,
) -> Fits:
    """Fit columns at `positions` (n, 2), overlapping neighbours together.

    Parameters
    ----------
    detection : Detection
        The image and its noise.
    positions : numpy.ndarray
        (n, 2) starting positions, pixels.
    sweeps : int
        Sweeps over all atoms.
    stop : callable, optional
        Polled per sweep.
    fixed : numpy.ndarray, optional
        (m, 5) columns that are there but stay as they are.

    Returns
    -------
    Fits
        One row per position.

    Raises
    ------
    Stopped
        If `stop` says so.
    """
    count = len(positions)
    values = np.empty((count, 5))
    values[:, :2] = positions
    pixels = detection.frame.pixels
    y, x = np.round(positions).astype(int).T
    y, x = y.clip(0, pixels.shape[0] - 1), x.clip(0, pixels.shape[1] - 1)
    values[:, AMPLITUDE] = 0
    values[:, BACKGROUND] = pixels[y, x]
    values[:, SIGMA] = detection.sigma
    if not count:
        return Fits(values, np.zeros((0, 5)))
    everything = values if fixed is None else np.concatenate([values, fixed])
    neighbours, radius = _neighbourhood(everything, count, detection.sigma)
    variances = np.zeros((count, 5))
    for sweep in range(sweeps):
        if stop is not None and stop():
            raise Stopped("Stopped while fitting atoms.")
        free = sweep == sweeps - 2
        values, variances = _sweep(detection, everything, positions, neighbours, radius, free, 3 if sweep == 0 else 2)
        if free:
            values[:, SIGMA] = shared_sigma(values, variances, detection.sigma)
        everything[:count] = values
    return Fits(values, variances)


def shared_sigma(values: Floats, variances: Floats, fallback: float) -> Floats:
    """Widths drawn toward their median as far as their errors allow (empirical Bayes)."""
    sigma, error2 = values[:, SIGMA], variances[:, SIGMA]
    good = (values[:, AMPLITUDE] ** 2 > 64 * variances[:, AMPLITUDE]) & (error2 > 0) & (error2 < (0.3 * fallback) ** 2)
    if good.sum() < 3:
        return np.full(len(sigma), fallback)
    center = float(np.median(sigma[good]))
    spread2 = (1.4826 * np.median(np.abs(sigma[good] - center))) ** 2
    intrinsic = max(spread2 - float(np.median(error2[good])), (0.01 * center) ** 2)
    weight = np.where(error2 > 0, intrinsic / (intrinsic + error2), 0)
    return np.asarray(center + weight * (sigma - center).clip(-0.4 * center, 0.4 * center))


def _neighbourhood(values: Floats, count: int, sigma: float) -> tuple[NDArray[np.int32], Floats]:
    tree = cKDTree(values[:, :2])
    k = min(NEIGHBOURS + 1, len(values))
    distance, index = tree.query(values[:count, :2], k=list(range(1, k + 1)), distance_upper_bound=7 * sigma)
    neighbours = np.where(np.isfinite(distance[:, 1:]), index[:, 1:], -1).astype(np.int32)
    nearest = distance[:, 1] if k > 1 else np.full(count, np.inf)
    # far out there is light for an isolated atom, but mostly the neighbour's for a crowded one
    radius = np.clip(0.62 * nearest, 1.8 * sigma, 3.5 * sigma)
    return neighbours, radius


def _sweep(
    detection: Detection,
    everything: Floats,
    start: Floats,
    neighbours: NDArray[np.int32],
    radius: Floats,
    free_sigma: bool,
    iterations: int,
) -> tuple[Floats, Floats]:
    count = len(start)
    values, variances = everything[:count].copy(), np.zeros((count, 5))
    noise, frame = detection.noise, detection.frame
    invalid = frame.invalid if frame.invalid is not None else np.zeros((1, 1), np.bool_)
    start = np.ascontiguousarray(start, np.float64)

    def part(first: int, last: int) -> None:
        _fit_range(
            frame.pixels, invalid, everything, start, neighbours, radius, noise.gain, noise.floor, noise.least,
            REACH * detection.sigma, free_sigma, iterations, first, last, values, variances,
        )  # fmt: skip

    threads = os.cpu_count() or 1
    if count < 2000 or threads == 1:
        part(0, count)
    else:
        cuts = np.linspace(0, count, 4 * threads + 1).astype(int)
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(part, cuts[:-1], cuts[1:]))
    return values, variances


@compiled
def _solve(matrix, vector, size):  # type: ignore[no-untyped-def]
    """Solve in place by Gauss-Jordan; `matrix` becomes its inverse, `vector` the solution. False if singular."""
    for i in range(size):
        pivot = matrix[i, i]
        if pivot <= 1e-30:
            return False
        inverse = 1.0 / pivot
        matrix[i, i] = 1.0
        for j in range(size):
            matrix[i, j] *= inverse
        vector[i] *= inverse
        for k in range(size):
            if k != i:
                factor = matrix[k, i]
                matrix[k, i] = 0.0
                for j in range(size):
                    matrix[k, j] -= factor * matrix[i, j]
                vector[k] -= factor * vector[i]
    return True


@compiled
def _fit_range(  # type: ignore[no-untyped-def]
    pixels, invalid, everything, start, neighbours, radius, gain, floor, least,
    reach, free_sigma, iterations, first, last, values, variances,
):  # fmt: skip
    """Fit atoms `first` to `last`; everything else stays."""
    height, width = pixels.shape
    has_invalid = invalid.size > 1
    side = 2 * int(np.ceil(np.max(radius))) + 3
    light = np.empty((side, side))
    along_y, along_x = np.empty(side), np.empty(side)
    matrix, vector, row = np.empty((5, 5)), np.empty(5), np.empty(5)
    size = 5 if free_sigma else 4
    for i in range(first, last):
        r = radius[i]
        y0 = max(0, int(np.ceil(start[i, 0] - r)))
        y1 = min(height, int(np.floor(start[i, 0] + r)) + 1)
        x0 = max(0, int(np.ceil(start[i, 1] - r)))
        x1 = min(width, int(np.floor(start[i, 1] + r)) + 1)
        if y1 - y0 < 2 or x1 - x0 < 2:
            continue
        light[:] = 0.0
        for k in range(neighbours.shape[1]):
            j = neighbours[i, k]
            if j < 0:
                break
            a = everything[j, 2]
            c = -0.5 / (everything[j, 4] * everything[j, 4])
            for y in range(y0, y1):
                along_y[y - y0] = a * np.exp(c * (y - everything[j, 0]) ** 2)
            for x in range(x0, x1):
                along_x[x - x0] = np.exp(c * (x - everything[j, 1]) ** 2)
            for y in range(y1 - y0):
                for x in range(x1 - x0):
                    light[y, x] += along_y[y] * along_x[x]
        py, px, a, b, s = values[i, 0], values[i, 1], values[i, 2], values[i, 3], values[i, 4]
        fine = True
        for step in range(iterations + 1):
            matrix[:] = 0.0
            vector[:] = 0.0
            c = -0.5 / (s * s)
            for y in range(y0, y1):
                along_y[y - y0] = np.exp(c * (y - py) ** 2)
            for x in range(x0, x1):
                along_x[x - x0] = np.exp(c * (x - px) ** 2)
            for y in range(y0, y1):
                dy = y - py
                for x in range(x0, x1):
                    dx = x - px
                    if (y - start[i, 0]) ** 2 + (x - start[i, 1]) ** 2 > r * r:
                        continue
                    if has_invalid and invalid[y, x]:
                        continue
                    g = along_y[y - y0] * along_x[x - x0]
                    model = a * g + b + light[y - y0, x - x0]
                    weight = 1.0 / max(gain * model + floor, least)
                    difference = pixels[y, x] - model
                    row[0] = g
                    row[1] = 1.0
                    row[2] = a * g * dy / (s * s)
                    row[3] = a * g * dx / (s * s)
                    row[4] = a * g * (dy * dy + dx * dx) / (s * s * s)
                    for m in range(size):
                        w = weight * row[m]
                        vector[m] += w * difference
                        for n in range(m + 1):
                            matrix[m, n] += w * row[n]
            use = size
            if step == 0 and a == 0.0:
                use = 2  # without an amplitude there is no gradient to move along
            for m in range(use):
                for n in range(m):
                    matrix[n, m] = matrix[m, n]
            if not _solve(matrix, vector, use):
                fine = False
                break
            if step == iterations:
                break
            a += vector[0]
            b += vector[1]
            if use > 2 and a > 0.0:
                limit = 0.5 * s
                py = start[i, 0] + min(max(py + min(max(vector[2], -limit), limit) - start[i, 0], -reach), reach)
                px = start[i, 1] + min(max(px + min(max(vector[3], -limit), limit) - start[i, 1], -reach), reach)
            if use > 4:
                s = min(max(s + vector[4], 0.6 * values[i, 4]), 1.6 * values[i, 4])
        if fine:
            values[i, 0], values[i, 1], values[i, 2], values[i, 3], values[i, 4] = py, px, a, b, s
            variances[i, 2], variances[i, 3] = matrix[0, 0], matrix[1, 1]
            variances[i, 0], variances[i, 1] = matrix[2, 2], matrix[3, 3]
            variances[i, 4] = matrix[4, 4] if size > 4 else 0.0
        else:
            values[i, 2] = 0.0


@compiled
def _render(image, values, reach):  # type: ignore[no-untyped-def]
    """Add all columns to `image`, in place, out to `reach` sigmas."""
    height, width = image.shape
    for i in range(values.shape[0]):
        s = values[i, 4]
        r = reach * s
        c = -0.5 / (s * s)
        y0, y1 = max(0, int(values[i, 0] - r)), min(height, int(values[i, 0] + r) + 2)
        x0, x1 = max(0, int(values[i, 1] - r)), min(width, int(values[i, 1] + r) + 2)
        for y in range(y0, y1):
            top = values[i, 2] * np.exp(c * (y - values[i, 0]) ** 2)
            for x in range(x0, x1):
                image[y, x] += top * np.exp(c * (x - values[i, 1]) ** 2)


def model_image(shape: tuple[int, int], values: Floats) -> NDArray[np.float32]:
    """The columns drawn on an empty image, without background."""
    image = np.zeros(shape, np.float32)
    _render(image, values, 5.0)
    return image
