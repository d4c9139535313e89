"""Playing-card suits in random poses: the field's test of what an rVAE has to tell apart.

A card is ``x(r) = suit(exp(-E) R(-angle) r) + noise`` with r from the centre of the patch, in x (columns) and y (rows,
downwards); a positive angle turns +x toward +y; ``E = [[a, b], [b, -a]]`` is a pure strain in the suit's own frame,
which stretches it along its own x where a is positive.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from napari_rvae.errors import SettingsError

SUITS = ("spade", "heart", "diamond", "club")
# half range of the angle and largest strain, both in degrees
CARD_SETS = {1: (12.0, 1.0), 2: (12.0, 20.0), 3: (120.0, 1.0), 4: (120.0, 20.0)}

_GLYPH = 256  # samples across a suit drawn once
_EDGE = 0.03  # width of its soft edge; lengths are in half sides of a card
_CHUNK = 256  # cards drawn at once


def cards(
    kind: int = 3, n: int = 3000, size: int = 48, noise: float = 0.05, seed: int = 0
) -> tuple[NDArray[np.float32], pd.DataFrame]:
    """Draw one of the four card sets.

    Parameters
    ----------
    kind : int
        1 to 4: angles within 12, 12, 120, 120 degrees and strains up to 1, 20, 1, 20 degrees (.35 at most).
    n, size : int
        Number of cards and their side in pixels.
    noise : float
        Standard deviation of white noise; a suit is 1 on 0.
    seed : int
        The same seed gives the same cards.

    Returns
    -------
    patches : ndarray, float32, (n, size, size)
    truth : DataFrame
        One row per card: ``label`` (index into `SUITS`), ``angle`` (rad), ``strain_a``, ``strain_b``.

    Raises
    ------
    SettingsError
        If there is no such card set.
    """
    if kind not in CARD_SETS:
        raise SettingsError(f"there is no card set {kind}; choose 1, 2, 3 or 4")
    rotation, strain = np.deg2rad(CARD_SETS[kind])
    rng = np.random.default_rng(seed)
    label = rng.integers(0, len(SUITS), n)
    angle = rng.uniform(-rotation, rotation, n)
    strength, direction = strain * np.sqrt(rng.uniform(0, 1, n)), rng.uniform(-np.pi, np.pi, n)
    a, b = strength * np.cos(direction), strength * np.sin(direction)
    patches = draw_cards(label, angle, a, b, size)
    patches += noise * rng.standard_normal(patches.shape)
    return patches.astype(np.float32), pd.DataFrame({"label": label, "angle": angle, "strain_a": a, "strain_b": b})


def draw_cards(
    label: ArrayLike, angle: ArrayLike = 0.0, strain_a: ArrayLike = 0.0, strain_b: ArrayLike = 0.0, size: int = 48
) -> NDArray[np.float64]:
    """Draw suits in given poses, without noise.

    Parameters
    ----------
    label : array_like of int, (n,)
        Index into `SUITS`.
    angle, strain_a, strain_b : array_like, (n,) or scalar
        Pose of each card, see the module's description.
    size : int
        Side in pixels.

    Returns
    -------
    ndarray, float64, (n, size, size)
    """
    from scipy.ndimage import map_coordinates

    labels, theta, a, b = np.broadcast_arrays(np.atleast_1d(label), *map(np.asarray, (angle, strain_a, strain_b)))
    y, x = (np.mgrid[:size, :size] - (size - 1) / 2) * (2 / size)
    drawn = np.empty((len(labels), size, size))
    for suit in range(len(SUITS)):
        members = np.flatnonzero(labels == suit)
        for start in range(0, len(members), _CHUNK):
            chosen = members[start : start + _CHUNK]
            u, v = _in_the_suits_frame(x, y, *(value[chosen, None, None] for value in (theta, a, b)))
            rows, columns = ((w + 1) * (_GLYPH / 2) - 0.5 for w in (v, u))
            drawn[chosen] = map_coordinates(_glyph(suit), [rows, columns], order=1)
    return drawn


def _in_the_suits_frame(
    x: NDArray[Any], y: NDArray[Any], angle: NDArray[Any], a: NDArray[Any], b: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Coordinates ``exp(-E) R(-angle) r``."""
    cosine, sine = np.cos(angle), np.sin(angle)
    u, v = cosine * x + sine * y, cosine * y - sine * x
    strength = np.hypot(a, b)
    stretch, shear = np.cosh(strength), np.sinc(1j * strength / np.pi).real  # sinh(e) / e, also at e = 0
    return stretch * u - shear * (a * u + b * v), stretch * v - shear * (b * u - a * v)


@lru_cache(maxsize=len(SUITS))
def _glyph(suit: int) -> NDArray[np.float64]:
    """One suit, upright: 1 inside, 0 outside, on a fine grid over the card."""
    v, u = (np.mgrid[:_GLYPH, :_GLYPH] + 0.5) * (2 / _GLYPH) - 1
    points = np.stack([u, v], -1)
    distance = np.min([_signed_distance(points, outline) for outline in _outlines(SUITS[suit])], 0)
    return np.asarray(np.clip(0.5 - distance / _EDGE, 0, 1))


def _outlines(suit: str) -> list[NDArray[np.float64]]:
    """Give closed polygons (x right, y down) whose union is the suit, with its centre of mass at the origin.

    The diamond is so slim that no strain in the sets makes it a square.
    """
    t = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    depth = -13 * np.cos(t) + 5 * np.cos(2 * t) + 2 * np.cos(3 * t) + np.cos(4 * t)
    heart = np.stack([16 * np.sin(t) ** 3, depth], -1) / 27
    circle = np.stack([np.cos(t), np.sin(t)], -1)
    stem = np.array([[-0.05, 0.0], [0.05, 0.0], [0.2, 0.6], [-0.2, 0.6]])
    if suit == "heart":
        return [heart + np.array([0, 0.03])]
    if suit == "diamond":
        return [np.array([[0.0, -0.66], [0.3, 0.0], [0.0, 0.66], [-0.3, 0.0]])]
    if suit == "spade":
        return [heart * np.array([0.95, -0.95]) - np.array([0, 0.1]), stem]
    leaves = [
        0.26 * circle + np.array([0.3 * np.sin(turn), -0.078 - 0.3 * np.cos(turn)])
        for turn in np.deg2rad([0, 120, 240])
    ]
    return [*leaves, stem]


def _signed_distance(points: NDArray[Any], outline: NDArray[Any]) -> NDArray[np.float64]:
    """Distance to a closed polygon, negative inside; smooth in the outline, so the same on every platform."""
    nearest, inside = np.full(points.shape[:-1], np.inf), np.zeros(points.shape[:-1], bool)
    for start, end in zip(outline, np.roll(outline, -1, 0), strict=True):
        edge, offset = end - start, points - start
        along = np.clip(offset @ edge / (edge @ edge), 0, 1)
        nearest = np.minimum(nearest, ((offset - along[..., None] * edge) ** 2).sum(-1))
        between = (start[1] > points[..., 1]) != (end[1] > points[..., 1])
        crossing = offset[..., 0] * edge[1] < offset[..., 1] * edge[0]
        inside ^= between & (crossing == (edge[1] > 0))
    distance = np.sqrt(nearest)
    return np.asarray(np.where(inside, -distance, distance))
