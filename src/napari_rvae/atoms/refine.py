"""Sub-pixel positions: every atom fitted as a Gaussian together with its neighbours, at the limit of the noise.

Iteratively reweighted least squares with the image's own noise model is Fisher scoring for the Poisson part, so the
errors reach the Cramer-Rao bound (e.g. Ober, Ram and Ward, Biophys. J. 86, 1185, 2004). Neighbours overlap, hence
sweeps: in each, every atom is fitted to the image less the last sweep's neighbours.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from napari_rvae.atoms.find import Detection
from napari_rvae.atoms.frame import Array, Floats
from napari_rvae.atoms.kernels import fit_range, render
from napari_rvae.atoms.parallel import go_on, in_parts
from napari_rvae.atoms.response import image_values

Y, X, AMPLITUDE, BACKGROUND, SIGMA = range(5)
QUICK = (False, 3), (False, 1)  # sweeps: are widths free, how many steps
THOROUGH = (False, 3), (True, 1), (False, 1), (True, 1), (False, 2)
SAMPLE = 20_000  # atoms whose neighbours are looked at for a median
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

    Returns
    -------
    Fits
        One row per position.

    Raises
    ------
    Stopped
        If `stop` says so.
    """
    count, pixels = len(positions), detection.frame.pixels
    if detection.flat is not None:  # spots do not fit the whole, so nothing is gained by more sweeps
        thorough, pixels = False, detection.flat
    if not count:
        return Fits(np.zeros((0, 5)), np.zeros((0, 5)))
    order = np.lexsort((positions[:, 1], positions[:, 0] // 32))  # neighbours in memory, too
    start = np.ascontiguousarray(positions[order], np.float64)
    values, variances = np.zeros((count, 5)), np.zeros((count, 5))
    values[:, :2] = start
    values[:, BACKGROUND] = image_values(pixels, start)
    values[:, SIGMA] = detection.sigma
    radius = _window_radius(start, detection.sigma)
    for free, iterations in THOROUGH if thorough else QUICK:
        go_on(stop)
        # tails and neighbours not yet found would widen a wide fit
        window = np.minimum(radius, max(2 * detection.sigma, 2.3)) if free else radius
        before = values[:, SIGMA].copy()
        _sweep(detection, pixels, start, window, free, iterations, values, variances)
        if free:
            values[:, SIGMA] = shared_sigma(before, values, variances, detection.sigma)
    if detection.compound:
        values[:, BACKGROUND] += image_values(detection.frame.pixels - pixels, values[:, :2])
    back = np.argsort(order)
    return Fits(values[back], variances[back])


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


def _window_radius(positions: Floats, sigma: float) -> Floats:
    """How far around each atom it is fitted.

    Far out there is light for an isolated atom, but mostly the neighbour's for a crowded one.
    """
    nearest = np.full(len(positions), np.inf)
    if len(positions) > 1:
        nearest = np.asarray(cKDTree(positions).query(positions, k=[2], workers=-1)[0])[:, 0]
    return np.asarray(np.maximum(np.clip(0.62 * nearest, 1.8 * sigma, 3.5 * sigma), 2.3))


def _sweep(
    detection: Detection,
    pixels: Array,
    start: Floats,
    radius: Floats,
    free_sigma: bool,
    iterations: int,
    values: Floats,
    variances: Floats,
) -> None:
    """Fit every atom once, in place, to the image less the others as they are in `values`."""
    noise, frame = detection.noise, detection.frame
    invalid = frame.invalid if frame.invalid is not None else np.zeros((1, 1), np.bool_)
    others = model_image(pixels.shape if values[:, AMPLITUDE].any() else (1, 1), values)
    parameters = np.array([noise.gain, noise.floor, noise.least])
    reach = (0.3 if detection.compound else REACH) * detection.sigma  # lines of noise drag what is wide
    variances[:] = 0

    def part(first: int, last: int) -> None:
        fit_range(
            pixels, invalid, others, start, radius, parameters, reach,
            free_sigma, iterations, first, last, values, variances,
        )  # fmt: skip

    in_parts(part, len(start), 500)


def model_image(shape: tuple[int, int], values: Floats) -> NDArray[np.float32]:
    """The columns drawn on an empty image, without background."""
    image = np.zeros(shape, np.float32)
    in_parts(lambda top, bottom: render(image, values, 5.0, top, bottom), shape[0], 64)
    return image


def nearest_neighbor_distance(positions: Floats) -> float:
    """Median distance to the nearest neighbour, pixels; NaN for fewer than two atoms."""
    if len(positions) < 2:
        return float("nan")
    some = positions[:: max(1, len(positions) // SAMPLE)]
    return float(np.median(np.asarray(cKDTree(positions).query(some, k=[2])[0])))
