"""Clusters of atoms by features of the table, with how sure each assignment is, and how two columns agree.

Which method when: a Gaussian mixture (``gmm``) for clouds of different width and tilt, and when their number is not
known; k-means for round clouds of similar width; HDBSCAN for odd shapes and for data with outliers, which it leaves
unassigned; ``regions`` for grains and domains, neighbours that are alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_rvae.errors import InputDataError, Stopped
from napari_rvae.settings import ClusterSettings

if TYPE_CHECKING:
    import pandas as pd

LARGEST_COUNT_TRIED = 10

Assignment = tuple[NDArray[np.int64], NDArray[np.float64]]


def find_clusters(
    table: pd.DataFrame,
    columns: Sequence[str],
    settings: ClusterSettings | None = None,
    *,
    progress: Callable[[float, str], None] | None = None,
    stop: Callable[[], bool] | None = None,
) -> pd.DataFrame:
    """Sort atoms into clusters.

    Parameters
    ----------
    table : DataFrame
        One row per atom. Rows with a missing value in one of the columns are left out.
    columns : sequence of str
        Features to use. Each is divided by its spread; ``angle`` enters as the sine and cosine of itself times its
        ``symmetry``, so that there is no seam. Beside others, ``y`` and ``x`` say who is next to whom: unless another
        method is chosen, clusters are connected regions.
    settings : ClusterSettings, optional
        Method, number of clusters, seed.
    progress : callable, optional
        Called with a fraction (0..1) and what is being done.
    stop : callable, optional
        Polled between fits; when true, `Stopped` is raised.

    Returns
    -------
    DataFrame with the table's index
        ``cluster``: 0, 1, ... in falling order of size, -1 where the atom belongs to none (Int64).
        ``cluster_probability``: 0..1, the mixture's posterior, HDBSCAN's membership, for k-means the margin by which
        the nearest centre is nearer than the next (.5 = undecided), for regions the share of the neighbours that are in
        the same; NaN for rows left out.

    Raises
    ------
    InputDataError
        If a column is missing or not a number, fewer complete rows than clusters are there, or regions are to be found
        without positions.
    Stopped
        If `stop` said so.
    """
    import pandas as pd
    from threadpoolctl import threadpool_limits

    settings = settings or ClusterSettings()
    features = _features(table, columns)
    complete = np.isfinite(features).all(axis=1)
    data = features[complete]
    if len(data) < max(2, settings.count or 1):
        raise InputDataError(
            f"Only {len(data)} atoms have a value in {', '.join(columns)}; choose other features or fewer clusters."
        )
    progress, stop = progress or _silent, stop or (lambda: False)
    placed = {"y", "x"} < set(columns)
    with threadpool_limits(1):  # more threads make matrices this small ten times slower where a core is busy
        if settings.method == "regions" or (settings.method == "auto" and placed):
            if not placed:
                raise InputDataError("Regions need y, x and a feature that is alike within each; choose these.")
            numbers, probability = _regions(table.iloc[np.flatnonzero(complete)], columns, settings, progress, stop)
        else:
            spread = data.std(axis=0)
            data = (data - data.mean(axis=0)) / np.where(spread > 0, spread, 1)
            find = {"auto": _mixture, "gmm": _mixture, "kmeans": _kmeans, "hdbscan": _hdbscan}[settings.method]
            numbers, probability = find(data, settings, progress, stop)
    result = pd.DataFrame({"cluster": -1, "cluster_probability": np.nan}, index=table.index)
    result.loc[complete, "cluster"] = _by_size(numbers)
    result.loc[complete, "cluster_probability"] = probability
    return result


def cluster_agreement(first: pd.Series[Any], second: pd.Series[Any]) -> tuple[pd.DataFrame, float]:
    """Compare two ways to sort the same atoms.

    Parameters
    ----------
    first, second : Series
        Classes of the same rows, of any type; rows without a value in one of them are left out.

    Returns
    -------
    DataFrame
        Counts, one row per class of the first, one column per class of the second.
    float
        Adjusted Rand index: 1 for the same partition, about 0 for unrelated ones; NaN without common rows.
    """
    import pandas as pd
    from sklearn.metrics import adjusted_rand_score

    both = (first.notna() & second.notna()).to_numpy()
    a, b = _names(first[both]), _names(second[both])
    counts = pd.crosstab(a.to_numpy(), b.to_numpy(), rownames=[first.name], colnames=[second.name])
    return counts, float(adjusted_rand_score(a, b)) if both.any() else float("nan")


def _names(classes: pd.Series[Any]) -> pd.Series[str]:
    """Classes as text; a whole number without the decimals it has where others are missing."""
    from pandas.api.types import is_float_dtype

    whole = is_float_dtype(classes) and bool((classes % 1 == 0).all())
    return (classes.astype("int64") if whole else classes).astype(str)


def _silent(_fraction: float, _what: str) -> None:
    pass


def _features(table: pd.DataFrame, columns: Sequence[str]) -> NDArray[np.float64]:
    from pandas.api.types import is_numeric_dtype

    if not columns:
        raise InputDataError("Choose at least one feature to cluster by.")
    for name in columns:
        if name not in table or not is_numeric_dtype(table[name]):
            raise InputDataError(f"The table has no column of numbers named {name}; choose another feature.")
    parts = []
    for name in columns:
        values = table[name].to_numpy(np.float64, na_value=np.nan)
        if name == "angle":
            fold = table["symmetry"].to_numpy(np.float64, na_value=1) if "symmetry" in table else 1.0
            parts += [np.cos(fold * values), np.sin(fold * values)]
        else:
            parts.append(values)
    return np.column_stack(parts)


def _sample(data: NDArray[Any], settings: ClusterSettings) -> NDArray[Any]:
    if len(data) <= settings.sample:
        return data
    return np.random.default_rng(settings.seed).choice(data, settings.sample, replace=False)


def _counts_to_try(settings: ClusterSettings, n: int) -> Sequence[int]:
    return [settings.count] if settings.count else range(1, min(LARGEST_COUNT_TRIED, n) + 1)


def _best_mixture(data: NDArray[np.float64], settings: ClusterSettings, shape: str, progress: Any, stop: Any) -> Any:
    """Fit mixtures of every number of components that comes into question; the best by BIC."""
    from sklearn.mixture import GaussianMixture

    sample = _sample(data, settings)
    counts = _counts_to_try(settings, len(sample))
    fits = []
    for done, count in enumerate(counts):
        if stop():
            raise Stopped("Clustering was stopped; nothing was changed.")
        progress(done / len(counts), f"{count} cluster{'s' * (count != 1)}")
        mixture = GaussianMixture(count, covariance_type=shape, random_state=settings.seed, n_init=2, reg_covar=1e-5)
        fits.append(mixture.fit(sample))
    return min(fits, key=lambda mixture: mixture.bic(sample))


def _mixture(data: NDArray[np.float64], settings: ClusterSettings, progress: Any, stop: Any) -> Assignment:
    posterior = _best_mixture(data, settings, "full", progress, stop).predict_proba(data)
    return posterior.argmax(axis=1), posterior.max(axis=1)


def _kmeans(data: NDArray[np.float64], settings: ClusterSettings, progress: Any, stop: Any) -> Assignment:
    from sklearn.cluster import KMeans

    # k-means is the limit of a mixture of round clouds, so that mixture's BIC says how many.
    count = settings.count or _best_mixture(data, settings, "spherical", progress, stop).n_components
    means = KMeans(count, random_state=settings.seed, n_init=4).fit(_sample(data, settings))
    distances = means.transform(data)
    if count == 1:
        return np.zeros(len(data), np.int64), np.ones(len(data))
    nearest, next_ = np.partition(distances, 1, axis=1)[:, :2].T
    total = nearest + next_
    return distances.argmin(axis=1), np.divide(next_, total, out=np.full(len(data), 0.5), where=total > 0)


def _hdbscan(data: NDArray[np.float64], settings: ClusterSettings, progress: Any, stop: Any) -> Assignment:
    from scipy.spatial import KDTree
    from sklearn.cluster import HDBSCAN

    if stop():
        raise Stopped("Clustering was stopped; nothing was changed.")
    progress(0.0, "dense regions")
    sample = _sample(data, settings)
    smallest = min(settings.smallest or max(5, len(sample) // 100), len(sample))
    # `copy` only silences a warning about a future default; the data is not needed afterwards.
    found = HDBSCAN(min_cluster_size=max(2, smallest), copy=True).fit(sample)
    if len(sample) == len(data):
        return found.labels_.astype(np.int64), found.probabilities_
    nearest = KDTree(sample).query(data)[1]
    return found.labels_[nearest].astype(np.int64), found.probabilities_[nearest]


def _regions(
    table: pd.DataFrame, columns: Sequence[str], settings: ClusterSettings, progress: Any, stop: Any
) -> Assignment:
    from scipy.spatial import KDTree

    from napari_rvae.latent.regions import connected_regions

    if stop():
        raise Stopped("Clustering was stopped; nothing was changed.")
    progress(0.0, "connected regions")
    places = table[["y", "x"]].to_numpy(np.float64)
    if "frame" in table:  # farther from each other than any two atoms of one
        places = np.column_stack([places, table["frame"].to_numpy(np.float64) * 2 * (np.ptp(places) + 1)])
    features = [_features(table, [name]) for name in columns if name not in ("y", "x")]
    rows = _sample(np.arange(len(table)), settings)
    smallest = settings.smallest or max(5, len(rows) // 100)
    found = connected_regions(places[rows], [part[rows] for part in features], settings.count, smallest)
    nearest = KDTree(places[rows]).query(places)[1]
    return found[0][nearest], found[1][nearest]


def _by_size(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Renumber clusters in falling order of size, so that small changes of the data do not shuffle the names."""
    names, inverse, counts = np.unique(numbers, return_inverse=True, return_counts=True)
    counts = np.where(names < 0, -1, counts)
    order = np.argsort(-counts, kind="stable")
    rank = np.empty(len(names), np.int64)
    rank[order] = np.arange(len(names))
    rank[names < 0] = -1
    return rank[inverse]
