"""Molecules: objects made of several spots, found at their own scale instead of spot by spot.

Over a ladder of widths, the maxima of a filter stay where they are while it is narrower than what they stand for. The
spots of a molecule stay, move together where the filter covers several of them, and from then on the molecules stay.
Lone atoms have no second rest; in a crystal the spots themselves repeat, and are what is looked for.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter, minimum_filter
from scipy.spatial import cKDTree

from napari_rvae.atoms.filters import box_mean
from napari_rvae.atoms.frame import Array, Floats
from napari_rvae.atoms.lattice import local_lattices, reduced, window_lattice
from napari_rvae.atoms.lattice_kernels import copies_mean
from napari_rvae.atoms.noise import Noise, estimate_noise
from napari_rvae.atoms.parallel import in_parts
from napari_rvae.atoms.response import filter_response, find_maxima, height_by_chance, image_values, rare, roundness

STEP = 1.18  # from one width to the next
MOTION, REST, RISE = 0.8, 0.85, 0.12  # parts of the maxima that stay: less in motion, more at rest, and how much more
RIDGE = 0.1  # roundness below which a maximum belongs to a line
FEWEST = 10  # objects, or there is nothing to tell a rest from chance
FAINTEST = 0.3  # of the typical object
BY_CHANCE = 0.02  # part of the objects that may be noise
WIDEST = 5.0  # width of an object, in those of its spots
COVER = 1.8  # a spot nearer to an object, in widths, is a part of it
COVERED = 0.8  # part of the spots that belong to objects, at least
PARTS = 1.4  # spots of an object on average, at least
CRYSTAL = 0.68  # mean autocorrelation over the translations of its lattice; molecules on a lattice reach 0.6
OUTLIER = 2.0  # median deviations of differences between lines
REPEATS = 0.5  # of a spot's height found at its copies in a crystal, at least


def levelled(pixels: Array, noise: Noise, step: float = 0.0) -> tuple[Array, Noise]:
    """An image without the shifts of its scan lines against each other, and the noise that it then has.

    Lines are as high as those beside them but for most of what differs, hence the mean of the differences with outliers
    cut (Huber, Ann. Math. Stat. 35, 73 (1964)). What the sum of many differences drifts by is slow.
    """
    shifted = [axis for axis, lines in enumerate((noise.rows, noise.columns)) if lines[0] > 0]
    for axis in shifted:
        differences = np.diff(pixels, axis=axis)
        middle = np.median(differences, axis=1 - axis, keepdims=True)
        cut = OUTLIER * float(np.median(np.abs(differences - middle)))
        shift = middle + np.clip(differences - middle, -cut, cut).mean(1 - axis, keepdims=True)
        height = np.insert(np.cumsum(shift, axis=axis), 0, 0, axis=axis)
        pixels = pixels - (height - np.median(height)).astype(np.float32)
    return pixels, estimate_noise(pixels, step) if shifted else noise


def flattened(pixels: Array, sigma: float) -> Array:
    """An image less what is wider than an object of width `sigma`: steps and slopes go, and leave no trace."""
    smooth, backdrop = _backdrop(pixels, sigma)
    return np.asarray(smooth - backdrop, np.float32)


def smoothing(sigma: float) -> np.float32:
    """By how much less noise a filter of width `sigma` passes where the image has been flattened."""
    return np.float32(np.sqrt(1 + (_around(sigma) ** 2 - 1) / (6 * sigma**2)))


def _around(sigma: float) -> int:
    return 2 * int(0.5 * sigma) + 1


def _backdrop(pixels: Array, sigma: float) -> tuple[Array, Array]:
    """A slightly smoothed image, and what of it is wider than an object (a morphological opening)."""
    size = 2 * int(3.5 * sigma) + 1
    around = _around(sigma)
    smooth = box_mean(box_mean(pixels, around), around)
    margin = min(size, min(pixels.shape) - 1)
    padded = np.pad(smooth, margin, mode="symmetric")
    backdrop = maximum_filter(minimum_filter(padded, size), size)
    return smooth, backdrop[margin : margin + pixels.shape[0], margin : margin + pixels.shape[1]]


def object_maxima(response: Array, sigma: float, threshold: float) -> tuple[Floats, Array]:
    """Positions and heights of the round maxima of a response."""
    maxima, heights = find_maxima(response, threshold, 1.5 * sigma)
    spots = roundness(response, maxima, sigma) > RIDGE
    return maxima[spots], heights[spots]


def object_threshold(heights: Array, sigma: float, area: int) -> float:
    """What counts as an object on so many pixels: few by chance, and none much weaker than the typical."""
    clear = heights[heights > rare(sigma, lattice=True)]
    if not len(clear):
        return rare(sigma, lattice=True)
    limit = height_by_chance(sigma, BY_CHANCE * len(clear) / area)
    return max(limit, FAINTEST * float(np.median(clear)))


@dataclass(frozen=True)
class _Rung:
    sigma: float
    maxima: Floats


def is_crystal(pixels: Array, noise: Noise, sigma: float) -> bool:
    """Whether spots of width `sigma` repeat far better than molecules can, which turn and differ."""
    response, _ = filter_response(pixels, noise, sigma)
    cap = float(np.quantile(np.abs(response[::2, ::2]), 0.98))
    response = np.clip(response, -cap, cap)
    side = min(response.shape) // 4
    tops, lefts = (np.linspace(0, full - side, 3).astype(int) for full in response.shape)
    scores = [
        window_lattice(response[top : top + side, left : left + side], 2.2 * sigma)[1] for top in tops for left in lefts
    ]
    return bool(np.median(scores) > CRYSTAL)


def compound_width(pixels: Array, noise: Noise, sigma: float, lattice: bool) -> float | None:
    """Width of the objects that spots belong to; None where the spots stand for themselves.

    Parameters
    ----------
    pixels : numpy.ndarray
        (y, x), standard units, spots bright.
    noise : Noise
        Noise of the pixels.
    sigma : float
        Width of a spot as it was estimated, pixels.
    lattice : bool
        Whether the image has a lattice; if the spots repeat with it, they are atoms.
    """
    if lattice and is_crystal(pixels, noise, sigma):
        return None
    pixels, noise = levelled(pixels, noise)
    rungs, staying = _ladder(pixels, noise)
    rests = _rests(staying)
    for count, (first, _) in enumerate(rests):
        for _, last in rests[:count]:
            if staying[first] > min(staying[last:first]) + RISE:
                width = _judged(pixels, noise, rungs[last], rungs[first + 1], lattice)
                if width is not None:
                    return width
    return None


def _ladder(pixels: Array, noise: Noise) -> tuple[list[_Rung], list[float]]:
    """Maxima at ever larger widths, and the part of them that stays to the next."""
    widths = [width for width in STEP ** np.arange(24) if width < min(pixels.shape) / 20]

    def look(first: int, last: int) -> list[_Rung]:
        return [_rung(pixels, noise, width) for width in widths[first:last]]

    rungs = [rung for part in in_parts(look, len(widths), 1) for rung in part if len(rung.maxima) >= FEWEST]
    return rungs, [_staying(one, two) for one, two in itertools.pairwise(rungs)]


def _rests(staying: list[float]) -> list[tuple[int, int]]:
    """First and last rung of every run from which most maxima stay; between two runs they move."""
    runs: list[tuple[int, int]] = []
    for k, part in enumerate(staying):
        if part < REST:
            continue
        if runs and min(staying[runs[-1][1] : k]) >= MOTION:
            runs[-1] = runs[-1][0], k
        else:
            runs.append((k, k))
    return runs


def _judged(pixels: Array, noise: Noise, spots: _Rung, objects: _Rung, lattice: bool) -> float | None:
    """Width of the objects if the spots are parts of them."""
    if objects.sigma > WIDEST * spots.sigma or not _made_of(objects, spots.maxima):
        return None
    return None if lattice and _repeat(pixels, noise, spots, objects) else objects.sigma


def _rung(pixels: Array, noise: Noise, width: float) -> _Rung:
    binning = max(1, int(width / 1.6))
    small, sigma = reduced(pixels, binning), width / binning
    raised = small - _backdrop(small, sigma)[1]  # smoothing would hide how small spots move
    response, _ = filter_response(raised, noise.binned(binning), sigma, mean=small)
    maxima, heights = object_maxima(response, sigma, rare(width, lattice=True))
    if len(heights):
        maxima = maxima[heights > FAINTEST * np.median(heights)]
    return _Rung(float(width), maxima * binning + (binning - 1) / 2)


def _staying(one: _Rung, two: _Rung) -> float:
    """Part of the maxima that are found at the next width, too."""
    return float(np.isfinite(cKDTree(two.maxima).query(one.maxima, distance_upper_bound=0.8 * two.sigma)[0]).mean())


def _made_of(objects: _Rung, spots: Floats) -> bool:
    """Whether nearly all spots belong to objects, and objects have several on average."""
    inside = np.isfinite(cKDTree(objects.maxima).query(spots, distance_upper_bound=COVER * objects.sigma)[0])
    return bool(inside.mean() > COVERED and inside.sum() > PARTS * len(objects.maxima))


def _repeat(pixels: Array, noise: Noise, spots: _Rung, objects: _Rung) -> bool:
    """Whether the spots repeat with the lattice around them."""
    response, _ = filter_response(pixels, noise, spots.sigma)
    spacing = float(np.median(np.asarray(cKDTree(objects.maxima).query(objects.maxima, k=[2])[0])))
    ratios: list[NDArray[np.float64]] = []
    for block in local_lattices(response, spots.sigma, spacing):
        low, high = np.array([block.rows, block.columns]).T
        inside = spots.maxima[np.all((spots.maxima >= low) & (spots.maxima < high), axis=1)]
        means = copies_mean(response, np.round(inside).astype(np.int64), block.moves)
        ratios.append(means / image_values(response, inside))
    values = np.concatenate(ratios) if ratios else np.zeros(0)
    return bool(np.median(values) > REPEATS and len(values) > 0.5 * len(spots.maxima)) if len(values) else False
