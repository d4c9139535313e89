"""Connected regions of atoms that are alike: grains, domains."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_NEIGHBORS = 6
_APART = 30
"""Noise is told from differences to the atom that is so many atoms away: patches of neighbours share pixels."""
_MEDIAN = 0.455
"""Median of the square of a normal number of variance one."""


def connected_regions(
    places: NDArray[np.float64], features: Sequence[NDArray[np.float64]], count: int | None, smallest: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Regions of neighbours that are alike, by Ward's method along the neighbours.

    Joining two regions adds to the sum of squares within regions. Where the number is not known, regions are joined as
    long as this is no more than the costliest step when the features are noise alone, on the same neighbours.

    Parameters
    ----------
    places : numpy.ndarray
        (n, d) positions.
    features : sequence of numpy.ndarray
        (n, any) each: what is alike within a region; divided by its noise, which differences of atoms nearby tell.
    count : int or None
        Number of regions if it is known.
    smallest : int
        Where the number is not known, atoms of smaller regions go to the nearest that is not.

    Returns
    -------
    region : numpy.ndarray
        (n,) numbers.
    share : numpy.ndarray
        (n,) of an atom's neighbours that are in the same region.
    """
    from scipy.spatial import KDTree
    from sklearn.cluster import AgglomerativeClustering
    from sklearn.neighbors import kneighbors_graph

    n = len(places)
    if n <= 2:
        return np.zeros(n, np.int64), np.ones(n)
    graph = kneighbors_graph(places, min(_NEIGHBORS, n - 1))
    near = graph.indices.reshape(n, -1)
    apart = KDTree(places).query(places, [min(_APART, n)])[1]
    parts = []
    for part in features:
        square = ((part[apart] - part[:, None]) ** 2).sum(2)
        variance = (np.median(square) / _MEDIAN or square.mean()) / 2  # a difference has the noise of both
        parts.append(part / np.sqrt(variance or 1.0))
    data = np.column_stack(parts)

    def joined(values: NDArray[np.float64], **until: float | None) -> AgglomerativeClustering:
        with warnings.catch_warnings():  # parts of an image without contact are connected where they are closest
            warnings.filterwarnings("ignore", "the number of connected components", UserWarning)
            return AgglomerativeClustering(**until, connectivity=graph, compute_distances=True).fit(values)

    if count is None:
        noise = np.random.default_rng(0).standard_normal((n, len(parts)))
        steps = joined(noise, n_clusters=1).distances_
        region = joined(data, n_clusters=None, distance_threshold=steps.max()).labels_
        large = np.flatnonzero(np.bincount(region) >= smallest)
        kept = np.isin(region, large if len(large) else [np.bincount(region).argmax()])
        region = region[kept][KDTree(places[kept]).query(places)[1]]
    else:
        region = joined(data, n_clusters=count).labels_
    return region.astype(np.int64), (region[near] == region[:, None]).mean(1)
