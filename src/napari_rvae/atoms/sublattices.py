"""Sublattices: kinds of column that differ clearly in brightness."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LARGEST = 4
APART = 2.8  # standard deviations between two kinds; less, and one atom in ten is put into the wrong one
RAREST = 0.003
SAMPLE = 2000


def assign_sublattices(amplitude: NDArray[np.float64], count: int | None = None) -> NDArray[np.int64]:
    """Sublattice of every atom, 0 the brightest, by a mixture of Gaussians over the square root of the amplitude.

    Parameters
    ----------
    amplitude : numpy.ndarray
        (n,) amplitudes.
    count : int, optional
        How many there are; when None as many as stand clearly apart.
    """
    if len(amplitude) < 20 or count == 1:
        return np.zeros(len(amplitude), np.int64)
    from sklearn.mixture import GaussianMixture

    data = np.sqrt(np.maximum(amplitude, 0))[:, None]
    data = (data - data.mean()) / (data.std() + 1e-12)
    sample = data[:: max(1, len(data) // SAMPLE)]
    least = max(RAREST, 5 / len(sample))
    for kinds in [count] if count else range(LARGEST, 0, -1):
        mixture = GaussianMixture(kinds, random_state=0, reg_covar=1e-4, init_params="k-means++", n_init=4).fit(sample)
        order = np.argsort(-mixture.means_[:, 0])
        center, spread = mixture.means_[order, 0], np.sqrt(mixture.covariances_[order, 0, 0])
        gaps = -np.diff(center) / np.sqrt((spread[1:] ** 2 + spread[:-1] ** 2) / 2)
        if count or (np.all(gaps > APART) and mixture.weights_.min() > least):
            break
    rank = np.argsort(order)
    return np.asarray(rank[mixture.predict(data)], np.int64)
