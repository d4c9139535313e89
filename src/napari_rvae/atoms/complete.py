"""The second look: weak atoms beside strong ones, and those that the neighbours' lattice predicts."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from napari_rvae.atoms.find import Detection
from napari_rvae.atoms.frame import Array, Floats
from napari_rvae.atoms.lattice import Block, Sites, lattice_sites, local_lattices
from napari_rvae.atoms.refine import AMPLITUDE, SIGMA, Fits, fit_atoms, model_image
from napari_rvae.atoms.response import filter_response, find_maxima, image_values, texture_limit

PRIOR = 4.0  # log odds that a site of the lattice is occupied
CLOSEST = 2.0  # no two atoms nearer, in sigmas


def find_columns(detection: Detection, *, stop: Callable[[], bool] | None = None) -> tuple[Fits, NDArray[np.bool_]]:
    """Fit all atoms of a prepared image: those that stand out, then those that become visible once these are known.

    Returns
    -------
    fits : Fits
        One row per atom.
    supported : numpy.ndarray
        (n,) True where the lattice around expects an atom.
    """
    fits = fit_atoms(detection, detection.positions(), thorough=False, stop=stop)
    if len(fits.values) < 2:
        return fit_atoms(detection, fits.values[:, :2], stop=stop), np.zeros(len(fits.values), bool)
    blocks: list[Block] | None = None if detection.lattice else []
    for last in (False, True):
        clean, left = clean_response(detection, fits)
        if blocks is None:
            blocks = local_lattices(clean, detection.sigma, nearest_neighbor_distance(fits.values[:, :2]))
        positions, accepted = _second_look(detection, fits, clean, left, blocks)
        fits = fit_atoms(detection, positions, thorough=last, stop=stop)
    if not len(accepted):
        return fits, np.zeros(len(fits.values), bool)
    distance, _ = cKDTree(accepted).query(fits.values[:, :2])
    return fits, distance < 0.3 * nearest_neighbor_distance(positions)


def _second_look(
    detection: Detection, fits: Fits, clean: Array, left: Array, blocks: list[Block]
) -> tuple[Floats, Floats]:
    """Positions of all atoms now that some are known, and the lattice sites among them."""
    positions = fits.values[:, :2]
    spacing = nearest_neighbor_distance(positions)
    accepted = np.zeros((0, 2))
    if detection.lattice:
        sites = lattice_sites(clean, blocks, detection.sigma)
        accepted = sites.positions[_occupied(sites)]
        positions = positions[image_values(clean, positions) > detection.threshold]
    maxima, heights = find_maxima(left, detection.threshold, 1.5 * detection.sigma, detection.frame.invalid)
    # what a smooth background or a wrong profile leaves is rough on both sides of zero
    new = maxima[heights > detection.threshold * image_values(texture_limit(left, detection.sigma), maxima)]
    positions = _apart([positions, accepted], CLOSEST * detection.sigma)
    return _apart([positions, new], max(CLOSEST * detection.sigma, 0.55 * spacing)), accepted


def nearest_neighbor_distance(positions: Floats) -> float:
    """Median distance to the nearest neighbour, pixels."""
    return float(np.median(cKDTree(positions).query(positions, k=2)[0][:, 1]))


def clean_response(detection: Detection, fits: Fits) -> tuple[Array, Array]:
    """The response as if no atom had neighbours, and what is left of it without the atoms."""
    pixels = detection.frame.pixels
    left, error = filter_response(
        pixels - model_image(pixels.shape, fits.values), detection.noise, detection.sigma, surround=3, mean=pixels
    )
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
    pairs = cKDTree(positions).query_pairs(distance, output_type="ndarray")
    pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
    keep = np.ones(len(positions), bool)
    for first, second in pairs:
        if keep[first]:
            keep[second] = False
    return positions[keep]
