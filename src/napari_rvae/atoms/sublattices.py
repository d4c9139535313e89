"""Sublattices: kinds of column that differ in brightness."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LARGEST = 4


def assign_sublattices(amplitude: NDArray[np.float64], count: int | None = None) -> NDArray[np.int64]:
    """Sublattice of every atom, 0 the brightest, by a mixture of Gaussians over the amplitude.

    Parameters
    ----------
    amplitude : numpy.ndarray
        (n,) amplitudes.
    count : int, optional
        How many there are; found by the Bayesian information criterion when None.
    """
    if len(amplitude) < 20 or count == 1:
        return np.zeros(len(amplitude), np.int64)
    from sklearn.mixture import GaussianMixture

    data = np.sqrt(np.maximum(amplitude, 0))[:, None]
    data = (data - data.mean()) / (data.std() + 1e-12)
    sample = data[:: max(1, len(data) // 3000)]
    counts = [count] if count else range(1, LARGEST + 1)
    fits = [GaussianMixture(k, random_state=0, reg_covar=1e-3, init_params="k-means++", n_init=3).fit(sample) for k in counts]
    best = fits[int(np.argmin([fit.bic(sample) for fit in fits]))]
    rank = np.argsort(np.argsort(-best.means_[:, 0]))
    return rank[best.predict(data)].astype(np.int64)
