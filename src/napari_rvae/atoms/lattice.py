"""What the neighbours say: the mean response over the translations of the lattice around every site.

A column too weak to stand out of the noise alone repeats with the lattice. The lattice is found locally, from the
autocorrelation of a window, so grains may turn, scans may drift and walls may shift; a window without a lattice gives
no support, and no atom needs it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter

from napari_rvae.atoms.frame import Array, Floats
from napari_rvae.atoms.kernels import translated_mean

WINDOW = 9.0  # neighbour distances across a window
LONGEST = 0.42  # longest translation used, in windows
CANDIDATES = 14  # autocorrelation peaks that may span the lattice
SIGNIFICANT = 0.25  # mean autocorrelation over the translations of a lattice, at least
STEPS = np.array([(i, j) for i in range(-4, 5) for j in range(-4, 5) if (i, j) > (0, 0)])  # half of the plane


@dataclass(frozen=True)
class Sites:
    """Where the lattice around says that atoms should be.

    Parameters
    ----------
    positions : numpy.ndarray
        (n, 2) pixels.
    here : numpy.ndarray
        (n,) response at the site itself.
    mean, spread, count : numpy.ndarray
        (n,) mean and standard deviation of the response at the site's translated copies, and how many there are.
    """

    positions: Floats
    here: Floats
    mean: Floats
    spread: Floats
    count: Floats


@dataclass(frozen=True)
class Block:
    """A part of the image, ``(top, bottom), (left, right)``, and the translations (n, 2) of the lattice around it."""

    rows: tuple[int, int]
    columns: tuple[int, int]
    moves: NDArray[np.int64]


def local_lattices(response: Array, sigma: float, spacing: float) -> list[Block]:
    """The lattice around every part of an image, where there is one.

    Parameters
    ----------
    response : numpy.ndarray
        (y, x), in standard deviations of its noise.
    sigma : float
        Width of an atom, pixels.
    spacing : float
        Rough distance of neighbours, pixels.
    """
    shape = np.array(response.shape)
    window = int(min(WINDOW * spacing, shape.min()))
    step = max(8, int(0.66 * window))
    binning = max(1, int(sigma / 1.1))
    cap = float(np.quantile(response[::3, ::3], 0.98))
    small = reduced(np.clip(response, -cap, cap), binning)
    blocks = []
    for top in range(0, shape[0], step):
        for left in range(0, shape[1], step):
            block = np.array([(top, min(top + step, shape[0])), (left, min(left + step, shape[1]))])
            y, x = np.clip((block.sum(1) - window) // 2, 0, shape - window) // binning
            tile = small[y : y + window // binning, x : x + window // binning]
            vectors, score = window_lattice(tile, 2.2 * sigma / binning)
            if score > SIGNIFICANT:
                moves = np.round(translations(vectors * binning, LONGEST * window)).astype(np.int64)
                blocks.append(Block((top, int(block[0, 1])), (left, int(block[1, 1])), moves))
    return blocks


def lattice_sites(response: Array, blocks: list[Block], sigma: float) -> Sites:
    """Maxima of the response averaged over the local lattice's translations."""
    size = max(3, 2 * int(1.2 * sigma) + 1)
    parts = [_block_maxima(response, block, size) for block in blocks]
    table = np.concatenate(parts) if parts else np.zeros((0, 6))
    return Sites(table[:, :2], *table[:, 2:].T)


def _block_maxima(response: Array, block: Block, size: int) -> Floats:
    """Rows (y, x, here, mean, spread, count) of the maxima of the mean over translations inside a block."""
    halo = size // 2 + 1
    (top, bottom), (left, right) = block.rows, block.columns
    y0, x0 = max(top - halo, 0), max(left - halo, 0)
    y1, x1 = min(bottom + halo, response.shape[0]), min(right + halo, response.shape[1])
    mean, spread, count = translated_mean(response, y0, y1, x0, x1, block.moves)
    here = response[y0:y1, x0:x1]
    total = (mean * count + here) / (count + 1)
    peak = (total == maximum_filter(total, size=size)) & (mean > 0)
    peak[: top - y0] = peak[bottom - y0 :] = False
    peak[:, : left - x0] = peak[:, right - x0 :] = False
    where = np.argwhere(peak)
    columns = [where + np.array([y0, x0]), here[peak, None], mean[peak, None], spread[peak, None], count[peak, None]]
    return np.concatenate(columns, axis=1, dtype=np.float64)


def reduced(image: Array, factor: int) -> Array:
    """Mean over squares of pixels."""
    if factor == 1:
        return image
    rows, columns = (side // factor for side in image.shape)
    squares = image[: rows * factor, : columns * factor].reshape(rows, factor, columns, factor)
    return np.asarray(squares.mean((1, 3)), np.float32)


def window_lattice(tile: Array, shortest: float) -> tuple[Floats, float]:
    """The lattice of a window: two vectors (2, 2) and the mean autocorrelation over its translations.

    Parameters
    ----------
    tile : numpy.ndarray
        (y, x).
    shortest : float
        No vector is shorter, pixels.
    """
    correlation, center = _autocorrelation(tile)
    reach = LONGEST * min(tile.shape)
    peaks = _half_plane_peaks(correlation, center, shortest, reach)
    if len(peaks) < 2:
        return np.zeros((2, 2)), 0.0
    i, j = np.triu_indices(len(peaks), 1)
    first, second = peaks[i], peaks[j]
    area = np.abs(first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0])
    good = area > 0.45 * np.hypot(*first.T) * np.hypot(*second.T)
    if not good.any():
        return np.zeros((2, 2)), 0.0
    pairs, area = np.stack([first, second], 1)[good], area[good]
    moves = np.einsum("ck,nkd->ncd", STEPS, pairs)
    inside = np.hypot(moves[..., 0], moves[..., 1]) <= reach
    index = np.round(np.where(inside[..., None], moves, 0) + center).astype(int)
    values = np.where(inside, correlation[index[..., 0], index[..., 1]], 0)
    score = values.sum(1) / inside.sum(1)
    if not score.max() > 0:
        return np.zeros((2, 2)), 0.0
    near = np.flatnonzero(score > 0.85 * score.max())
    best = near[np.argmin(area[near])]
    return _polished(correlation, center, pairs[best], reach), float(score[best])


@lru_cache(maxsize=32)
def _window(height: int, width: int) -> tuple[Array, list[int], Array]:
    """A Hann window, the size to correlate it in, and its autocorrelation, 1 at no shift."""
    hann = np.outer(np.hanning(height + 2)[1:-1], np.hanning(width + 2)[1:-1]).astype(np.float32)
    shape = [scipy.fft.next_fast_len(int(1.45 * side), real=True) for side in hann.shape]
    weight = _correlate(hann, shape)
    return hann, shape, np.maximum(weight / weight.max(), 0.05)


def _correlate(image: Array, shape: list[int]) -> Array:
    power = np.abs(scipy.fft.rfft2(image, s=shape)) ** 2
    return np.asarray(np.fft.fftshift(scipy.fft.irfft2(power, s=shape)), np.float32)


def _autocorrelation(tile: Array) -> tuple[Array, Floats]:
    """Autocorrelation without the window's own fall-off, 1 at no shift, and the index of no shift."""
    hann, shape, weight = _window(*tile.shape)
    own = _correlate((tile - tile.mean()) * hann, shape)
    center = np.array([side // 2 for side in shape], np.float64)
    return own / (weight * np.float32(own.max() or 1)), center


def _half_plane_peaks(correlation: Array, center: Floats, shortest: float, reach: float) -> Floats:
    peak = correlation == maximum_filter(correlation, size=3)
    where = np.argwhere(peak) - center
    length = np.hypot(*where.T)
    keep = (length > shortest) & (length < reach) & ((where[:, 0] > 0) | ((where[:, 0] == 0) & (where[:, 1] > 0)))
    where = where[keep]
    height = correlation[tuple((where + center).astype(int).T)]
    chosen = where[np.argsort(-height, kind="stable")[:CANDIDATES]]
    return np.asarray(chosen[np.argsort(np.hypot(*chosen.T), kind="stable")])


def translations(vectors: Floats, reach: float) -> Floats:
    """All translations (n, 2) of a lattice up to a length, without none."""
    count = int(np.ceil(1.5 * reach / max(1.0, np.hypot(*vectors.T).min())))
    count = min(count, 12)
    steps = np.mgrid[-count : count + 1, -count : count + 1].reshape(2, -1).T
    moves = steps @ vectors
    length = np.hypot(*moves.T)
    return np.asarray(moves[(length > 0) & (length <= reach)])


def _polished(correlation: Array, center: Floats, vectors: Floats, reach: float) -> Floats:
    """Lattice vectors fitted to the autocorrelation's own peaks near all translations."""
    count = int(np.ceil(reach / np.hypot(*vectors.T).min())) + 1
    steps = np.mgrid[-count : count + 1, -count : count + 1].reshape(2, -1).T
    moves = steps @ vectors
    keep = (np.hypot(*moves.T) <= reach) & np.any(steps != 0, axis=1)
    steps, moves = steps[keep], moves[keep]
    offsets = np.mgrid[-2:3, -2:3].reshape(2, -1).T
    index = np.round(moves + center).astype(int)[:, None] + offsets
    values = correlation[index[..., 0], index[..., 1]].clip(0)
    values = values - values.min(1, keepdims=True) + 1e-6
    weight = values**2
    found = (weight[..., None] * index).sum(1) / weight.sum(1)[:, None] - center
    weighted = steps * values.max(1)[:, None] ** 2
    return np.asarray(np.linalg.solve(weighted.T @ steps, weighted.T @ found))
