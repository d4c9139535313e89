"""How many kinds of motif there are: as many as are found again in other patches and from other starts.

Ben-Hur, Elisseeff & Guyon, Pacific Symposium on Biocomputing 7, 6 (2002); stability of single classes: Hennig,
Computational Statistics & Data Analysis 52, 258 (2007). A number of classes is as stable as its least stable class: one
more than there are tears a kind apart, each time elsewhere.
"""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from napari_rvae.averages import FEWEST_PATCHES, average_space
from napari_rvae.averages.exemplars import add_exemplars, average_round, ring_weight
from napari_rvae.averages.joining import Between
from napari_rvae.averages.search import PoseSearch
from napari_rvae.errors import InputDataError, Stopped
from napari_rvae.settings import CountSettings
from napari_rvae.threads import threads

if TYPE_CHECKING:
    from torch import Tensor

    from napari_rvae.patches import Patches, Progress, Stop

FIRM = 0.85
"""Stability from which on classes count as found again: "highly stable" in the words of Hennig."""
_ROUNDS, _KIND_ROUNDS = 3, 2
_PART = 2 / 3
"""Of the patches, in each resample."""


def class_stability(
    patches: Patches,
    settings: CountSettings | None = None,
    *,
    progress: Progress | None = None,
    stop: Stop | None = None,
) -> pd.DataFrame:
    """How well classes are found again in resamples of the patches, for each number of classes.

    Parameters
    ----------
    patches : Patches
        Those that reach over the edge are left out.
    settings : CountSettings, optional
        How many classes are tried, how often, and which poses make no difference.
    progress, stop : callable, optional
        ``progress(fraction, text)`` is told how far it is; ``stop()`` is asked whether to give up.

    Returns
    -------
    pandas.DataFrame
        ``classes``, and of the pairs of resamples the median ``stability`` (one resample that went astray does not
        count), the ``lowest`` and the ``highest``: of the patches that either of two resamples gives to a class, the
        share that both do, in the worst class.

    Raises
    ------
    InputDataError
        If there are too few patches, or all are alike.
    Stopped
        If `stop` said so.
    """
    settings = settings or CountSettings()
    inner = np.flatnonzero(~patches.edge)
    if (count := min(len(inner), settings.sample)) < max(FEWEST_PATCHES, 3 * settings.most):
        raise InputDataError(
            f"{count} patches are too few to try {settings.most} classes: take more patches, or try fewer classes."
        )
    generator = torch.Generator().manual_seed(settings.seed)
    with torch.no_grad(), threads(None):
        chosen = np.sort(inner[torch.randperm(len(inner), generator=generator)[: settings.sample].numpy()])
        search, x = average_space(patches.select(chosen), settings.invariance)
        found = np.full((settings.resamples, settings.most + 1, len(x)), -1)
        for number in range(settings.resamples):
            if stop is not None and stop():
                raise Stopped("Stopped while counting classes.")
            if progress is not None:
                progress(number / settings.resamples, f"Resample {number + 1} of {settings.resamples}")
            part = torch.randperm(len(x), generator=generator)[: int(_PART * len(x))]
            found[number][:, part.numpy()] = _classes(search, x[part], settings.most, generator)
    rows = []
    for count in range(2, settings.most + 1):
        pairs = [_found_again(a, b, count) for a, b in combinations(found[:, count], 2)]
        rows.append((count, float(np.median(pairs)), min(pairs), max(pairs)))
    return pd.DataFrame(rows, columns=["classes", "stability", "lowest", "highest"])


def _classes(search: PoseSearch, x: Tensor, most: int, generator: torch.Generator) -> NDArray[np.int64]:
    """Classes of patches where there are 0, 1, ... most of them, (most + 1, n); -1 for fewer than two."""
    harmonics = search.space.analyse(x)
    weight = ring_weight(search.space, harmonics.square().mean(0))
    distances = add_exemplars(search, x, harmonics, weight, 2 * most, generator)
    for _ in range(_ROUNDS):
        images, distances, weight = average_round(search, x, harmonics, distances)
    found = np.full((most + 1, len(x)), -1)
    if len(images) == 1:  # all are alike: one class, and the others empty
        found[2:] = 0
        return found
    between = Between.of(search, images, distances, weight)
    for count in range(2, most + 1):
        _, central = between.joined(count)
        kinds = distances.among(central)
        for _ in range(_KIND_ROUNDS):
            kinds = average_round(search, x, harmonics, kinds)[1]
        found[count] = kinds.cost.argmin(1).numpy()
    return found


def _found_again(one: NDArray[np.int64], other: NDArray[np.int64], count: int) -> float:
    """Of two assignments, -1 where there is none: how well the worst class of the one is found in the other."""
    from scipy.optimize import linear_sum_assignment

    both = (one >= 0) & (other >= 0)
    shared = np.zeros((count, count))
    np.add.at(shared, (one[both], other[both]), 1)
    either = shared.sum(1)[:, None] + shared.sum(0) - shared
    share = shared / np.maximum(either, 1)
    return float(share[linear_sum_assignment(-share)].min())


def stable_count(stability: pd.DataFrame) -> int | None:
    """Choose the number of classes.

    Parameters
    ----------
    stability : DataFrame
        From `class_stability`.

    Returns
    -------
    int or None
        The largest number all classes of which are found again; None where there is none.
    """
    firm = stability.loc[stability["stability"] >= FIRM, "classes"]
    return None if firm.empty else int(firm.max())


def stability_in_words(stability: pd.DataFrame) -> str:
    """Say what is to be thought of the number of classes.

    Parameters
    ----------
    stability : DataFrame
        From `class_stability`.

    Returns
    -------
    str
    """
    count, values = stable_count(stability), dict(zip(stability["classes"], stability["stability"], strict=True))
    if count is None:
        best = max(values, key=lambda one: values[one])
        return (
            f"No number of classes is found again firmly: {best} is the most stable ({values[best]:.2f} of {FIRM}). "
            "Perhaps there is but one kind, which varies, or kinds are rare."
        )
    return f"{count} classes: the largest number that is found again in other patches (stability {values[count]:.2f})."
