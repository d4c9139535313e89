"""The second look: weak atoms beside strong ones, and those that the neighbours' lattice predicts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from napari_rvae.atoms.find import SURE, Detection, is_spot
from napari_rvae.atoms.frame import Array, Floats
from napari_rvae.atoms.kernels import drop_second
from napari_rvae.atoms.lattice import Block, Sites, lattice_sites, local_lattices
from napari_rvae.atoms.parallel import go_on
from napari_rvae.atoms.refine import AMPLITUDE, SIGMA, Fits, Y, fit_atoms, model_image, nearest_neighbor_distance
from napari_rvae.atoms.response import filter_response, find_maxima, image_values, texture_limit

PRIOR = 4.0  # log odds that a site of the lattice is occupied
FAINTEST = 0.06  # of the typical atom: what a wrong profile leaves of it may be as bright
HIDDEN = 0.12  # the same, where the lattice repeats what is left beside its brighter sites
DOUBTFUL = 1.5  # an atom off the lattice is doubted below so many thresholds
LOOKS = 2
FEW = 0.002  # of the atoms: where fewer come or go, another look finds nothing
FURTHEST = 2.0  # neighbours, in distances of lattice planes
CLOSEST = 2.0  # no two atoms nearer, in sigmas


@dataclass(frozen=True)
class Columns:
    """All atoms of an image, fitted.

    Parameters
    ----------
    fits : Fits
        One row per atom, in standard units.
    snr : numpy.ndarray
        (n,) amplitudes in standard deviations of what the filter measures: the unit of the threshold.
    doubtful : numpy.ndarray
        (n,) bool: weak, and not where the lattice around has its sites.
    """

    fits: Fits
    snr: Floats
    doubtful: NDArray[np.bool_]

    def select(self, chosen: NDArray[Any]) -> Columns:
        """Some of the atoms, by mask or index."""
        fits = Fits(self.fits.values[chosen], self.fits.variances[chosen])
        return Columns(fits, self.snr[chosen], self.doubtful[chosen])


def find_columns(detection: Detection, refine: bool = True, *, stop: Callable[[], bool] | None = None) -> Columns:
    """Fit all atoms of a prepared image: those that stand out, then those that become visible once these are known.

    Parameters
    ----------
    detection : Detection
        The image and its filter response.
    refine : bool
        If False, only the maxima of the response, at pixel accuracy.
    stop : callable, optional
        Polled between steps.
    """
    if detection.means is not None:
        return _windows(detection)
    if detection.search != "auto":
        return _as_they_are(detection, refine, stop)
    fits = fit_atoms(detection, detection.positions(), thorough=False, stop=stop)
    if detection.compound and refine:
        snr = fits.values[:, AMPLITUDE] / image_values(detection.error, fits.values[:, :2])
        return Columns(fits, snr, np.zeros(len(snr), bool)).select(snr > 0)
    if not refine:
        fits.values[:, :2] = detection.positions()
        snr = fits.values[:, AMPLITUDE] / image_values(detection.error, fits.values[:, :2])
        return Columns(fits, snr, np.zeros(len(snr), bool))
    blocks: list[Block] | None = None if detection.lattice else []
    positions, accepted = fits.values[:, :2], np.zeros((0, 2))
    for look in range(LOOKS):
        if len(fits.values) < 2:
            break
        clean, left = clean_response(detection, fits, stop)
        go_on(stop)
        if blocks is None:
            blocks = local_lattices(clean, detection.sigma, _spacing(detection, fits.values[:, :2]))
            go_on(stop)
        positions, accepted = _second_look(detection, fits, clean, left, blocks, stop)
        del clean, left  # as large as the image
        few = FEW * len(positions)
        if look + 1 == LOOKS or _changes(fits.values[:, :2], positions, detection.sigma) < few:
            break
        fits = fit_atoms(detection, positions, thorough=False, stop=stop)
    fits = fit_atoms(detection, positions, stop=stop)
    fits = _distinct(fits, 0.6 * CLOSEST * detection.sigma)
    snr = fits.values[:, AMPLITUDE] / image_values(detection.error, fits.values[:, :2])
    supported = np.ones(len(snr), bool)
    if detection.lattice and len(snr) > 1:
        near = 0.3 * nearest_neighbor_distance(fits.values[:, :2])
        supported = np.isfinite(cKDTree(accepted).query(fits.values[:, :2], distance_upper_bound=near)[0])
    columns = Columns(fits, snr, ~supported & (snr < DOUBTFUL * detection.threshold))
    # without a lattice, what a fit finds much weaker than the filter did was no spot
    return columns if detection.lattice else columns.select(snr > 0.6 * detection.threshold)


def _windows(detection: Detection) -> Columns:
    """Windows on a grid: how bright their middles are, and their contrast."""
    places, means = detection.positions(), detection.means
    count = len(places)
    assert means is not None
    values = np.column_stack([places, means[:count], np.zeros(count), np.full(count, detection.sigma)])
    contrast = detection.heights[:count].astype(np.float64)
    return Columns(Fits(values, np.zeros_like(values)), contrast, np.zeros(count, bool))


def _as_they_are(detection: Detection, refine: bool, stop: Callable[[], bool] | None) -> Columns:
    """The candidates, fitted, without a second look; learned positions stay where the fit knows less of them."""
    start = detection.positions()
    fits = fit_atoms(detection, start, thorough=refine and not detection.trusted, stop=stop)
    values, variances = fits.values, fits.variances
    doubtful = np.zeros(len(start), bool)
    if detection.trusted:
        moved = np.hypot(*(values[:, :2] - start).T)
        unsure = (variances[:, :2].max(1, initial=0) > detection.trusted**2) | (moved > 2 * detection.trusted)
        unsure |= variances[:, Y] == 0
        values[unsure, :2], variances[unsure, :2] = start[unsure], detection.trusted**2
        doubtful = detection.heights[: len(start)] < min(detection.threshold + SURE, 100)
    elif refine:
        fits = _distinct(fits, 0.6 * CLOSEST * detection.sigma)
        doubtful = np.zeros(len(fits.values), bool)
    else:
        values[:, :2] = start
    snr = fits.values[:, AMPLITUDE] / image_values(detection.error, fits.values[:, :2])
    return Columns(fits, snr, doubtful)


def _spacing(detection: Detection, positions: Floats) -> float:
    """Distance of neighbours, pixels; the few that noise leaves are further apart."""
    spacing = nearest_neighbor_distance(positions)
    return spacing if detection.period is None else min(spacing, FURTHEST * detection.period)


def _changes(before: Floats, after: Floats, distance: float) -> int:
    """How many positions came or went."""
    kept = int(np.isfinite(cKDTree(before).query(after, distance_upper_bound=distance)[0]).sum())
    return len(before) + len(after) - 2 * kept


def _distinct(fits: Fits, distance: float) -> Fits:
    """Without what has no light, and without the weaker one where two have met while being fitted."""
    order = np.argsort(-fits.values[:, AMPLITUDE], kind="stable")
    order = order[(fits.values[order, AMPLITUDE] > 0) & (fits.variances[order, AMPLITUDE] > 0)]
    keep = order[_is_apart(fits.values[order, :2], distance)]
    return Fits(fits.values[keep], fits.variances[keep])


def _second_look(
    detection: Detection,
    fits: Fits,
    clean: Array,
    left: Array,
    blocks: list[Block],
    stop: Callable[[], bool] | None,
) -> tuple[Floats, Floats]:
    """Positions of all atoms now that some are known, and the lattice sites among them."""
    positions = fits.values[:, :2]
    spacing = _spacing(detection, positions)
    accepted = hidden = np.zeros((0, 2))
    typical = np.median(image_values(clean, positions))
    if detection.lattice:
        sites = lattice_sites(clean, blocks, detection.sigma)
        accepted = sites.positions[_occupied(sites) & (sites.mean > FAINTEST * typical)]
        go_on(stop)
        sites = lattice_sites(left, blocks, detection.sigma)  # those on the slopes of brighter neighbours
        plain = (sites.here > detection.threshold) & (sites.mean > max(HIDDEN * typical, 2 * detection.threshold))
        hidden = sites.positions[_occupied(sites) & plain]
        go_on(stop)
        positions = positions[image_values(clean, positions) > detection.threshold]
    maxima, heights = find_maxima(left, detection.threshold, 1.5 * detection.sigma, detection.frame.invalid)
    # what a smooth background or a wrong profile leaves is rough on both sides of zero
    least = detection.threshold * image_values(texture_limit(left, detection.sigma), maxima)
    found = heights > np.maximum(least, FAINTEST * typical)
    if not detection.lattice:
        found &= is_spot(left, maxima, detection.sigma)
    new = maxima[found]
    positions = _apart([positions, accepted], CLOSEST * detection.sigma)
    distance = np.clip(0.55 * spacing, CLOSEST * detection.sigma, 3 * detection.sigma)
    return _apart([positions, hidden, new], distance), np.concatenate([accepted, hidden])


def clean_response(detection: Detection, fits: Fits, stop: Callable[[], bool] | None = None) -> tuple[Array, Array]:
    """The response as if no atom had neighbours, and what is left of it without the atoms."""
    pixels = detection.frame.pixels
    go_on(stop)
    left = pixels - model_image(pixels.shape, fits.values)
    go_on(stop)
    left, error = filter_response(left, detection.noise, detection.sigma, surround=3, mean=pixels)
    go_on(stop)
    restored = fits.values.copy()
    restored[:, AMPLITUDE] /= image_values(error, restored[:, :2])
    restored[:, SIGMA] = np.sqrt(2) * detection.sigma
    return left + model_image(pixels.shape, restored), left


def _occupied(sites: Sites) -> NDArray[np.bool_]:
    """Sites where an atom is likelier than none, given what is there and what their copies are like."""
    mean, spread = sites.mean, np.maximum(sites.spread, 1)
    significant = (mean > 1) & (mean * np.sqrt(sites.count) > 4 * spread)
    here = np.minimum(sites.here, mean)
    expected = np.sqrt(1 + (0.2 * mean) ** 2)
    odds = PRIOR - 4 * np.maximum(spread / expected - 1, 0)
    odds = odds - (here - mean) ** 2 / (2 * spread**2) - np.log(spread) + here**2 / 2
    return np.asarray(significant & (odds > 0))


def _apart(groups: list[Floats], distance: float) -> Floats:
    """All positions, earlier ones first, without those nearer than `distance` to one before."""
    positions = np.concatenate(groups)
    return positions[_is_apart(positions, distance)]


def _is_apart(positions: Floats, distance: float) -> NDArray[np.bool_]:
    keep = np.ones(len(positions), bool)
    if not len(positions):
        return keep
    pairs = cKDTree(positions).query_pairs(distance, output_type="ndarray")
    drop_second(keep, pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))])
    return keep
