"""Classes to start from where there are no class averages: patches that are connected through their neighbours."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_SAMPLE = 2000
_NEIGHBORS = 8


def connected_classes(points: NDArray[np.float64], count: int, seed: int) -> NDArray[np.int64]:
    """Sort points into classes by spectral clustering of their graph of neighbours.

    A class with continuous traits is a curved sheet, which k-means would cut across. Ng, Jordan & Weiss, Adv. Neural
    Inf. Process. Syst. 14 (2001).

    Parameters
    ----------
    points : numpy.ndarray
        (n, k) features, such as scores of principal components.
    count : int
        Number of classes, at most n.
    seed : int
        The same seed gives the same classes.

    Returns
    -------
    numpy.ndarray
        (n,) classes.
    """
    from scipy.linalg import eigh
    from scipy.spatial import cKDTree
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    sampled = len(points) > _SAMPLE
    some = np.random.default_rng(seed).choice(points, _SAMPLE, replace=False) if sampled else points
    n = len(some)
    _, near = cKDTree(some).query(some, min(_NEIGHBORS + 1, n))
    graph = np.zeros((n, n))
    graph[np.arange(n)[:, None], near] = 1
    graph = graph + graph.T
    scale = 1 / np.sqrt(graph.sum(1))
    with threadpool_limits(1):  # more threads make this slower where a core is busy
        _, vectors = eigh(graph * scale[:, None] * scale, subset_by_index=[n - count, n - 1])
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-12)
        means = KMeans(count, n_init=4, random_state=seed).fit(vectors)
    found: NDArray[np.int64] = means.labels_.astype(np.int64)
    return found[cKDTree(some).query(points)[1]] if sampled else found
