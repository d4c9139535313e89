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

from napari_rvae.atoms.frame import Array, Floats
from napari_rvae.atoms.lattice_kernels import best_pair, block_sites, polished
from napari_rvae.atoms.parallel import in_parts

WINDOW = 9.0  # neighbour distances across a window
LONGEST = 0.42  # longest translation used, in windows
SIGNIFICANT = 0.25  # mean autocorrelation over the translations of a lattice, at least


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
    binning = max(1, int(sigma / 1.1))
    window = int(min(max(WINDOW * spacing, 16 * binning), shape.min()))
    step = max(8, int(0.66 * window))
    cap = float(np.quantile(response[::3, ::3], 0.98))
    small = reduced(np.clip(response, -cap, cap), binning)
    corners = [(top, left) for top in range(0, shape[0], step) for left in range(0, shape[1], step)]

    def look(first: int, last: int) -> list[Block]:
        blocks = []
        for top, left in corners[first:last]:
            block = np.array([(top, min(top + step, shape[0])), (left, min(left + step, shape[1]))])
            y, x = np.clip((block.sum(1) - window) // 2, 0, shape - window) // binning
            tile = small[y : y + window // binning, x : x + window // binning]
            vectors, score = window_lattice(tile, 2.2 * sigma / binning)
            if score > SIGNIFICANT:
                moves = np.round(translations(vectors * binning, LONGEST * window)).astype(np.int64)
                blocks.append(Block((top, int(block[0, 1])), (left, int(block[1, 1])), moves))
        return blocks

    return [block for part in in_parts(look, len(corners), 16) for block in part]


def lattice_sites(response: Array, blocks: list[Block], sigma: float) -> Sites:
    """Maxima of the response averaged over the local lattice's translations."""
    reach = max(1, int(1.2 * sigma))

    def look(first: int, last: int) -> list[tuple[float, ...]]:
        return [site for b in blocks[first:last] for site in block_sites(response, *b.rows, *b.columns, b.moves, reach)]

    found = [site for part in in_parts(look, len(blocks), 8) for site in part] if blocks else []
    table = np.array(found, np.float64).reshape(-1, 6)
    return Sites(table[:, :2], *table[:, 2:].T)


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
    pair, score = best_pair(correlation, center, shortest, reach)
    return (polished(correlation, center, pair, reach) if score > 0 else pair), score


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


def translations(vectors: Floats, reach: float) -> Floats:
    """All translations (n, 2) of a lattice up to a length, without none."""
    count = int(np.ceil(1.5 * reach / max(1.0, np.hypot(*vectors.T).min())))
    count = min(count, 12)
    steps = np.mgrid[-count : count + 1, -count : count + 1].reshape(2, -1).T
    moves = steps @ vectors
    length = np.hypot(*moves.T)
    return np.asarray(moves[(length > 0) & (length <= reach)])
