"""What nobody should have to tell: the width of an atom and whether atoms are bright or dark.

A matched filter is best where its width is the atom's own. So a ladder of widths is tried, and the one whose maxima
carry the most evidence wins; the mean patch around its maxima then gives the width itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from napari_rvae.atoms.compounds import compound_width
from napari_rvae.atoms.filters import box_mean
from napari_rvae.atoms.frame import Array, Frame
from napari_rvae.atoms.lattice import reduced, translations, window_lattice
from napari_rvae.atoms.lattice_kernels import copies_mean
from napari_rvae.atoms.noise import Noise, lattice_period, middle
from napari_rvae.atoms.parallel import in_parts
from napari_rvae.atoms.response import filter_response, find_maxima, rare, roundness, texture_limit
from napari_rvae.errors import InputDataError
from napari_rvae.settings import FindSettings

DARK = -0.25  # skewness of the response below which atoms may be dark
DARK_CELL = -0.6  # that of the mean cell of a hexagonal lattice of dark atoms
NARROW = 0.13  # width of a filter that tells atoms from the holes between them, in distances of lattice planes
CELLS = 8.0  # distances of lattice planes across a window
SEEN = 0.2  # significant maxima in a square of lattice planes; fewer tell nothing of the width
USUAL = 0.14, 0.2  # widths of atoms, in distances of lattice planes
WIDEST = 0.4  # widest atom, in distances of lattice planes
RIDGE = 0.35  # roundness below which most maxima belong to lines, or to what a filter leaves beside them
FILE, IN_LINE = 7, 0.1  # neighbours in single file: their variance across, in that along
NEAREST = 3.0  # pixels between neighbours, at least
LARGEST = {"spacing": 1.0, "sigma": 1 / 6}  # in the image's shorter side
REPEATS = 0.3  # mean autocorrelation of the response over the translations of a lattice, at least


@dataclass(frozen=True)
class Scale:
    """Width of an atom (pixels), contrast (1 bright, -1 dark), whether the image has a lattice.

    `compound` says that what is looked for is made of several spots, and `sigma` the width of the whole. `period` is
    the distance of the lattice's strongest planes, pixels.
    """

    sigma: float
    sign: int
    lattice: bool
    compound: bool = False
    period: float | None = None


def estimate_scale(frame: Frame, noise: Noise, settings: FindSettings) -> Scale:
    """Estimate what the settings leave open.

    Parameters
    ----------
    frame : Frame
        The image, in its own contrast.
    noise : Noise
        Its noise.
    settings : FindSettings
        What is known.

    Raises
    ------
    InputDataError
        If molecules are wanted but none stand out, or what is given does not suit the image.
    """
    _check_given(frame.pixels.shape, settings)
    scale = _spot_scale(frame, noise, settings)
    whole = settings.target == "molecules"
    if settings.target == "atoms" or (not whole and (settings.sigma or settings.spacing)):
        return scale
    width = settings.sigma
    if width is None:
        noise = replace(noise, gain=scale.sign * noise.gain)
        width = compound_width(scale.sign * middle(frame.pixels, 640), noise, scale.sigma, scale.lattice)
    if width is None and whole:
        raise InputDataError("No molecules made of several spots stand out: give their width (sigma) as a whole.")
    return scale if width is None else Scale(width, scale.sign, False, True)


def _check_given(shape: tuple[int, ...], settings: FindSettings) -> None:
    if settings.spacing is not None and settings.spacing < NEAREST and settings.search != "learned":
        raise InputDataError(
            f"Atoms {settings.spacing:g} px apart cannot be told apart: at least {NEAREST:g} px are needed. Leave the "
            "spacing empty if it is more, or record the image at a higher magnification."
        )
    for name, part in LARGEST.items():
        given, limit = getattr(settings, name), part * min(shape)
        if given is not None and given > limit:
            raise InputDataError(
                f"The {name} given, {given:g} px, is too large where {shape[0]} x {shape[1]} px are searched: at most "
                f"{limit:.3g} px fit. Is it in pixels?"
            )


def _spot_scale(frame: Frame, noise: Noise, settings: FindSettings) -> Scale:
    pixels = middle(frame.pixels)
    period = lattice_period(pixels, noise)
    if period is not None:
        pixels = middle(pixels, 640)
    known = [settings.sigma] if settings.sigma else _ladder(pixels, settings)
    steps = _each(lambda sigma: _filtered(pixels, noise, sigma), known)
    period = period or max(_each(repetition, steps)) or None
    lattice = period is not None
    if settings.sigma is None and period is not None:
        steps = [step for step in steps if step.sigma * step.binning < WIDEST * period] or steps[:1]
    signs = {"auto": (1, -1), "bright": (1,), "dark": (-1,)}[settings.contrast]
    evidence = {sign: _each(partial(_evidence, sign=sign, lattice=lattice), steps) for sign in signs}
    best = {sign: int(np.argmax(values)) for sign, values in evidence.items()}
    sign = signs[0]
    if len(signs) == 2 and max(evidence[-1]) > max(evidence[1]) and _skewness(steps[best[-1]].response) < DARK:
        sign = 1 if period is not None and _honeycomb(pixels, noise, period) else -1
    chosen = steps[best[sign]]
    sigma = chosen.sigma * chosen.binning
    if not lattice and len(steps) > 3 and best[sign] == len(steps) - 1:
        return Scale(known[0], sign, lattice)
    if settings.sigma is None and max(evidence[sign]) > 0:
        sigma = _width(sign * pixels, replace(noise, gain=sign * noise.gain), sigma, lattice)
        if settings.spacing is None and sigma > min(pixels.shape) / 16:
            sigma = known[0]  # a hill, not an atom
        if period is not None and len(_clear(chosen, sign, lattice)) < SEEN * pixels.size / period**2:
            # too few to average, and those were chosen by noise
            sigma = min(max(sigma, USUAL[0] * period), USUAL[1] * period)
    return Scale(sigma, sign, lattice, period=period)


def _each(function: Callable[[Any], Any], things: Sequence[Any]) -> list[Any]:
    """Results of a function for each thing, by all cores."""
    parts = in_parts(lambda first, last: [function(thing) for thing in things[first:last]], len(things), 1)
    return [result for part in parts for result in part]


def _ladder(pixels: Array, settings: FindSettings) -> list[float]:
    if settings.spacing:
        return [factor * settings.spacing for factor in (0.13, 0.18, 0.25)]
    widths = 1.4 ** np.arange(0, 12)
    return [float(width) for width in widths if width <= min(pixels.shape) / 20] or [1.0]


@dataclass(frozen=True)
class _Step:
    """A response on binned pixels; `sigma` is in binned pixels."""

    sigma: float
    binning: int
    response: Array


def _filtered(pixels: Array, noise: Noise, sigma: float) -> _Step:
    binning = max(1, int(sigma / 1.6))
    response, _ = filter_response(reduced(pixels, binning), noise.binned(binning), sigma / binning)
    return _Step(sigma / binning, binning, response)


def _evidence(step: _Step, sign: int, lattice: bool) -> float:
    """Sum of the squared heights of all significant maxima, but no single one of them counts more than the typical."""
    heights = _clear(step, sign, lattice)
    return float(len(heights) * np.median(heights) ** 2) if len(heights) else 0.0


def _clear(step: _Step, sign: int, lattice: bool) -> Array:
    """Heights of all significant maxima."""
    response = step.response * np.float32(sign)
    limit = rare(step.sigma * step.binning, lattice)
    maxima, heights = find_maxima(response, limit, 2 * step.sigma)
    if not lattice:
        heights = heights / texture_limit(response, step.sigma)[tuple(maxima.astype(int).T)]
        heights = heights[heights > limit]
    return heights


def _skewness(response: Array) -> float:
    margin = min(8, min(response.shape) // 4)
    inner = response[margin:-margin, margin:-margin]
    inner = np.clip(inner, *np.quantile(inner, [0.002, 0.998]))
    return float(np.mean((inner - inner.mean()) ** 3) / (inner.std() ** 3 + 1e-30))


def repetition(step: _Step) -> float:
    """Shortest translation (pixels) with which the response repeats across a small image; 0 where it does not."""
    cap = float(np.quantile(np.abs(step.response), 0.98))
    vectors, score = window_lattice(np.clip(step.response, -cap, cap), 2.2 * step.sigma)
    if score > 0 and not any(_has_spots(sign * step.response, step.sigma) for sign in (1, -1)):
        return 0.0  # a straight step repeats along itself
    by_chance = 15 * step.sigma / min(step.response.shape)  # measured on noise: fewer, larger grains repeat more
    return float(np.hypot(*vectors.T).min()) * step.binning if score > max(REPEATS, 2.3 * by_chance) else 0.0


def _has_spots(response: Array, sigma: float) -> bool:
    """Whether maxima are round, most of them, and do not stand in single file as along a step."""
    maxima, _ = find_maxima(response, rare(sigma, lattice=True), 2 * sigma)
    if not len(maxima) or np.median(roundness(response, maxima, sigma)) <= RIDGE:
        return False
    if len(maxima) <= FILE:
        return True
    around = maxima[cKDTree(maxima).query(maxima[:2000], k=FILE)[1]]
    off = around - around.mean(1, keepdims=True)
    spread = np.linalg.eigvalsh(off.swapaxes(1, 2) @ off)
    return bool(np.median(spread[:, 0] / spread[:, 1]) > IN_LINE)


def _honeycomb(pixels: Array, noise: Noise, period: float) -> bool:
    """Whether what looks like dark atoms may be the holes of a bright honeycomb.

    Its holes are larger than its atoms: a filter as wide as they are sees a hexagonal lattice of dark atoms. The mean
    cell is skewed far more strongly where the atoms are dark.
    """
    step = _filtered(pixels, noise, NARROW * period)
    cap = float(np.quantile(np.abs(step.response), 0.98))
    response, spacing = np.clip(step.response, -cap, cap), period / step.binning
    side = min(int(CELLS * spacing), *response.shape)
    skewness, hexagonal = [], []
    for row, column in np.ndindex(*(2 * full // side - 1 for full in response.shape)):
        y, x = row * side // 2, column * side // 2
        vectors, score = window_lattice(response[y : y + side, x : x + side], 0.8 * spacing)
        if score > 0:
            moves = np.round(translations(vectors, 0.4 * side)).astype(np.int64)
            inner = np.argwhere(np.ones((side // 3, side // 3))) + np.array([y, x]) + side // 3
            mean = copies_mean(response, inner, moves)
            skewness.append(float(np.mean((mean - mean.mean()) ** 3) / (mean.std() ** 3 + 1e-30)))
            lengths = np.sort(np.hypot(*translations(vectors, 2 * spacing).T))[:6:2]
            hexagonal.append(len(lengths) == 3 and lengths[2] < 1.15 * lengths[0])
    return np.mean(hexagonal or [0]) > 0.4 and float(np.median(skewness)) > DARK_CELL


def _width(pixels: Array, noise: Noise, sigma: float, lattice: bool) -> float:
    """Width of an atom, from the mean patch around the maxima at a first guess, until it stands."""
    response, _ = filter_response(pixels, noise, sigma)
    clear = np.max(response) > 5 * rare(sigma, lattice) * np.median(texture_limit(response, sigma))
    start, free = sigma, 2.5 if lattice or clear else 1.25  # texture under lone atoms widens their mean
    for _ in range(4):
        width = _mean_width(pixels, noise, sigma, lattice)
        if width == 0:
            return sigma
        width = float(np.clip(width, max(start / free, 0.7 * start if start < 1.5 else 0), free * start))
        if abs(width - sigma) < 0.02 * sigma:
            return width
        sigma = width
    return sigma


def _mean_width(pixels: Array, noise: Noise, sigma: float, lattice: bool) -> float:
    """Width of a Gaussian fitted to the mean patch; 0 without candidates.

    Candidates are chosen on one half of the pixels, like the white fields of a chess board, and averaged on the other:
    choosing and averaging on the same pixels sharpens noise.
    """
    rows, columns = np.ogrid[: pixels.shape[0], : pixels.shape[1]]
    around = 2 * int(3.5 * sigma) + 1
    background = box_mean(box_mean(pixels, around), around)
    half = np.where((rows + columns) % 2 == 0, 2 * (pixels - background), 0).astype(np.float32)
    response = filter_response(half, noise, sigma, mean=pixels)[0] / np.float32(np.sqrt(2))
    maxima, heights = find_maxima(response, rare(sigma, lattice), 2 * sigma)
    if not lattice:
        maxima = maxima[heights > rare(sigma, lattice) * texture_limit(response, sigma)[tuple(maxima.astype(int).T)]]
    radius = int(np.ceil(max(6 * sigma, 6)))
    inside = np.all((maxima >= radius) & (maxima < np.array(pixels.shape) - radius), axis=1)
    centers = maxima[inside].astype(int)[:2000]
    if not len(centers):
        return 0.0
    offsets = np.arange(-radius, radius + 1)
    y, x = np.meshgrid(offsets, offsets, indexing="ij")
    other = ((y + x) % 2 == 1) & (np.hypot(y, x) <= radius)
    values = pixels[centers[:, 0, None] + y[other], centers[:, 1, None] + x[other]]
    return _gaussian_width(np.hypot(y[other], x[other]), values.mean(0))


def _gaussian_width(distance: NDArray[np.float64], profile: Array) -> float:
    """Width of the Gaussian that fits a radial profile from its top to its first valley."""
    from scipy.optimize import least_squares

    ring = np.round(distance).astype(int)
    radial = np.bincount(ring, profile)[1:] / np.bincount(ring).clip(1)[1:]
    radial = np.convolve(np.pad(radial, 1, mode="edge"), [0.25, 0.5, 0.25], "valid")
    rising = np.flatnonzero(np.diff(radial) > 0)
    rising = rising[radial[rising] < 0.5 * (radial[0] + radial.min())]
    valley = max(rising[0] + 1 if len(rising) else len(radial), 3)

    def residual(p: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(p[0] * np.exp(-(near**2) / (2 * p[2] ** 2)) + p[1] - values, np.float64)

    near, values = distance[distance <= valley], profile[distance <= valley]
    guess = [float(np.ptp(values)), float(values.min()), 0.4 * valley]
    fit = least_squares(residual, guess, bounds=([0, -np.inf, 0.4], [np.inf, np.inf, 2.0 * valley]))
    return float(fit.x[2])
