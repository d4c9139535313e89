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

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from napari_rvae.atoms.find import Detection
from napari_rvae.atoms.frame import Floats
from napari_rvae.atoms.kernels import fit_range, render
from napari_rvae.errors import Stopped

Y, X, AMPLITUDE, BACKGROUND, SIGMA = range(5)
NEIGHBOURS = 12
QUICK = (False, 3), (False, 1)  # sweeps: are widths free, how many steps
THOROUGH = (False, 3), (True, 1), (False, 1), (True, 1), (False, 2)
REACH = 1.5  # an atom may move so many sigmas from where it was found


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
    thorough: bool = True,
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
    thorough : bool
        Fit widths too and go on until it stands; otherwise one look is enough.
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
    for free, iterations in THOROUGH if thorough else QUICK:
        if stop is not None and stop():
            raise Stopped("Stopped while fitting atoms.")
        # tails and neighbours not yet found would widen a wide fit
        window = np.minimum(radius, max(2 * detection.sigma, 2.3)) if free else radius
        values, variances = _sweep(detection, everything, positions, neighbours, window, free, iterations)
        if free:
            values[:, SIGMA] = shared_sigma(everything[:count, SIGMA], values, variances, detection.sigma)
        everything[:count] = values
    return Fits(values, variances)


def shared_sigma(before: Floats, values: Floats, variances: Floats, expected: float) -> Floats:
    """Widths drawn toward their common mean as far as their errors allow (empirical Bayes)."""
    sigma, error2 = values[:, SIGMA], variances[:, SIGMA]
    good = (values[:, AMPLITUDE] ** 2 > 100 * variances[:, AMPLITUDE]) & (error2 > 0)
    if not good.any():
        return before
    center = float(np.median(sigma[good]))
    center = float(np.clip(center, 0.75 * expected, 1.4 * expected))
    spread2 = (1.4826 * np.median(np.abs(sigma[good] - np.median(sigma[good])))) ** 2
    intrinsic = max(spread2 - float(np.median(error2[good])), (0.01 * center) ** 2)
    weight = np.where(good, intrinsic / (intrinsic + error2), 0)
    return np.asarray(center + weight * (sigma - center).clip(-0.3 * center, 0.3 * center))


def _neighbourhood(values: Floats, count: int, sigma: float) -> tuple[NDArray[np.int32], Floats]:
    k = min(NEIGHBOURS + 1, len(values))
    found = cKDTree(values[:, :2]).query(values[:count, :2], k=list(range(1, k + 1)), distance_upper_bound=7 * sigma)
    distance, index = np.asarray(found[0]), np.asarray(found[1])
    neighbours = np.where(np.isfinite(distance[:, 1:]), index[:, 1:], -1).astype(np.int32)
    nearest = distance[:, 1] if k > 1 else np.full(count, np.inf)
    # far out there is light for an isolated atom, but mostly the neighbour's for a crowded one
    radius = np.maximum(np.clip(0.62 * nearest, 1.8 * sigma, 3.5 * sigma), 2.3)
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

    parameters = np.array([noise.gain, noise.floor, noise.least])

    def part(first: int, last: int) -> None:
        fit_range(
            frame.pixels, invalid, everything, start, neighbours, radius, parameters, REACH * detection.sigma,
            free_sigma, iterations, first, last, values, variances,
        )  # fmt: skip

    threads = os.cpu_count() or 1
    if count < 2000 or threads == 1:
        part(0, count)
    else:
        cuts = np.linspace(0, count, 4 * threads + 1).astype(int)
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(part, cuts[:-1], cuts[1:]))
    return values, variances


def model_image(shape: tuple[int, int], values: Floats) -> NDArray[np.float32]:
    """The columns drawn on an empty image, without background."""
    image = np.zeros(shape, np.float32)
    render(image, values, 5.0)
    return image


def nearest_neighbor_distance(positions: Floats) -> float:
    """Median distance to the nearest neighbour, pixels; NaN for fewer than two atoms."""
    if len(positions) < 2:
        return float("nan")
    return float(np.median(np.asarray(cKDTree(positions).query(positions, k=[2])[0])))
