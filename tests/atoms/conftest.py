"""Small images with known atoms."""

import numpy as np
import pytest
from scipy.spatial import cKDTree


def draw(shape, positions, amplitude=1.0, sigma=2.3):
    """Gaussian columns on an empty image."""
    image = np.zeros(shape)
    amplitude = np.broadcast_to(amplitude, len(positions))
    reach = int(6 * sigma) + 1
    for (y, x), height in zip(positions, amplitude, strict=True):
        top, left = max(0, int(y) - reach), max(0, int(x) - reach)
        rows = np.arange(top, min(shape[0], int(y) + reach + 1))
        columns = np.arange(left, min(shape[1], int(x) + reach + 1))
        column = np.exp(-((rows[:, None] - y) ** 2 + (columns[None] - x) ** 2) / (2 * sigma**2))
        image[top : top + len(rows), left : left + len(columns)] += height * column
    return image


def lattice(shape, a, b, basis=((0.0, 0.0),), origin=(3.3, 4.6)):
    """Positions (n, 2) of a lattice inside an image, and which atom of the basis each is."""
    count = int(2 * max(shape) / min(np.hypot(*a), np.hypot(*b)))
    steps = np.mgrid[-count:count, -count:count].reshape(2, -1).T
    cells = np.array(origin) + steps @ np.array([a, b], float)
    positions = np.concatenate([cells + np.array(part) @ np.array([a, b], float) for part in basis])
    kind = np.repeat(np.arange(len(basis)), len(cells))
    inside = np.all((positions > -0.4) & (positions < np.array(shape) - 0.6), axis=1)
    return positions[inside], kind[inside]


def matched(found, true, tolerance):
    """Index of the true atom of every found one, -1 where there is none; each is used once, nearest first."""
    index = np.full(len(found), -1)
    if not len(found):
        return index
    distance, nearest = cKDTree(true).query(found)
    for i in np.argsort(distance, kind="stable"):
        if distance[i] <= tolerance and nearest[i] not in index:
            index[i] = nearest[i]
    return index


def f1(found, true, tolerance, shape, margin=5):
    """F1 score of found positions, without the margin."""

    def inner(positions):
        return np.all((positions > margin) & (positions < np.array(shape) - 1 - margin), axis=1)

    index = matched(found, true, tolerance)
    hits = inner(true[index[index >= 0]]).sum()
    return 2 * hits / (inner(found).sum() + inner(true).sum())


@pytest.fixture(scope="session")
def perovskite():
    """Heavy and light columns at a middle dose: image (counts), positions, kind (0 heavy, 1 light)."""
    shape = (192, 208)
    positions, kind = lattice(shape, (20.6, 2.1), (-2.1, 20.6), ((0, 0), (0.5, 0.5)))
    signal = 2 + draw(shape, positions, np.where(kind == 0, 40, 12))
    return np.random.default_rng(0).poisson(signal), positions, kind
