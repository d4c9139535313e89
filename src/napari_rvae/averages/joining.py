"""Which exemplars show the same kind of motif, and how kinds are turned to a common frame."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_rvae.averages.search import Distances, PoseSearch
from napari_rvae.poses import turned_shape

_DETECTABLE = 25.0
"""Squared distance, in noise variances, above which two motifs can be told apart patch by patch (five sigma)."""

_FIRM = 10
"""An average of fewer members may show a mixture of kinds."""

_PROBED = 60
"""Members of each average that tell whether others lie between it and the next."""


def kinds_of(
    search: PoseSearch,
    x: Tensor,
    images: Tensor,
    distances: Distances,
    weight: Tensor,
    count: int | None,
    *,
    exactly: bool = True,
) -> list[int]:
    """Join exemplars that show one kind of motif.

    Two exemplars are one kind if their averages, in the best pose, differ by no more than a single patch's noise lets
    one see, or if the patches fill the way between them as densely as its ends: then it is one motif that varies.

    Parameters
    ----------
    search : PoseSearch
        The distance.
    x : torch.Tensor
        (n, channels, D, D) patches.
    images : torch.Tensor
        (exemplars, channels, D, D) averages.
    distances : Distances
        Of the patches from the exemplars.
    weight : torch.Tensor
        (channels, 2 T).
    count : int or None
        Number of kinds if it is known: the nearest of those found are joined on; where there are fewer, odd patches
        are kinds, too, or some are parted.
    exactly : bool
        Otherwise there may be more: averages of more members may be seen to agree.

    Returns
    -------
    list of int
        Of each kind, the largest first, the exemplar from which the others differ least in offset, strain and scale.
        Kinds of odd patches are left out, unless more kinds than there are otherwise are wanted.
    """
    kept, members = distances.shared(), distances.members()
    found = _found(search, x, images[kept], distances.among(kept), weight, count, exactly)
    kinds = [kept[c] for c in found]
    if count is not None and len(kinds) < count:
        others = [k for k in members.argsort(descending=True, stable=True).tolist() if k not in kinds]
        kinds += others[: count - len(kinds)]
    return kinds


def _found(
    search: PoseSearch,
    x: Tensor,
    images: Tensor,
    distances: Distances,
    weight: Tensor,
    count: int | None,
    exactly: bool,
) -> list[int]:
    """Central exemplars of the kinds that there are, joined on or parted to as many as wanted, or as there can be."""
    if len(images) == 1:
        return [0]
    exact = between = Between.of(search, images, distances, weight)
    distance, members = between.distance, between.members
    freedom = float(search.space.degrees_of_freedom.sum()) * images.shape[1]
    firm = members >= min(_FIRM, members.max() / 2)
    distance = _few_join_nearest(distance, firm)
    near = (distance >= _DETECTABLE) & (distance < 4 * freedom)
    near |= near.T
    own, cost = _exact_costs(search, x, images, distances, weight, near | np.eye(len(near), dtype=bool))
    for a, b in np.argwhere(np.triu(near, 1)):
        rows = (own == a) | (own == b)
        if _continuous(cost[rows, a] - cost[rows, b], own[rows] == a):
            distance[a, b] = distance[b, a] = _DETECTABLE / 2
    between = replace(between, distance=distance)
    kind, central = between.joined(None)
    few = [c for q, c in enumerate(central) if q and _is_odd(kind == q, exact, distances, freedom)]
    kinds = [c for c in central if c not in few]
    if count is None or len(kinds) == count or (len(kinds) > count and not exactly):
        return kinds
    if len(kinds) > count:
        return [kinds[c] for c in between.among(kinds).joined(count)[1]]
    if len(central) >= count:
        return kinds + few[: count - len(kinds)]
    return exact.joined(min(count, len(images)))[1]


def _is_odd(mine: NDArray[np.bool_], between: Between, distances: Distances, freedom: float) -> bool:
    """Whether a kind, of the exemplars `mine`, is but odd patches.

    These are few, and the next kind is within two standard deviations of them, noise left out: they differ nearly as
    much from each other.
    """
    count = int(between.members[mine].sum())
    if count >= _FIRM or mine.all():
        return False
    cost, which = (part.cpu().numpy() for part in distances.cost.min(1))
    scatter = cost[mine[which]].mean() * count / (count - 1) - freedom  # of the members beyond noise
    return bool(4 * scatter > between.distance[np.ix_(mine, ~mine)].min())


@dataclass(frozen=True)
class Between:
    """How far exemplars are from each other.

    Attributes
    ----------
    distance : numpy.ndarray
        (exemplars, exemplars) squared, in the best pose, in noise variances, less what chance makes of it.
    change : numpy.ndarray or None
        (exemplars, exemplars) squared change of offset, strain and scale from one to the other, in units of their
        priors; None where there is no such change.
    members : numpy.ndarray
        (exemplars,) how many patches each has.
    """

    distance: NDArray[np.float64]
    change: NDArray[np.float64] | None
    members: NDArray[np.int64]

    @classmethod
    def of(cls, search: PoseSearch, images: Tensor, distances: Distances, weight: Tensor) -> Between:
        """Measure it; arguments as for `kinds_of`."""
        k = len(images)
        members = distances.members().cpu().numpy()
        harmonics = search.space.analyse(images)
        start = search.distances(harmonics, images, weight)
        theta, shape = start.theta.flatten(), start.shape.flatten(0, 1)
        one, other = images.repeat_interleave(k, 0), harmonics.repeat(k, 1, 1)
        _, shape, apart = search.improve(one, other, theta, turned_shape(shape, theta), weight, steps=4)
        squared = apart.view(k, k).cpu().numpy()
        freedom = float(search.space.degrees_of_freedom.sum()) * images.shape[1]
        chance = freedom + 3 * np.sqrt(2 * freedom)  # of an average's own noise: few members leave much of it
        distance = np.minimum(squared, squared.T) - chance * (1 / members[:, None] + 1 / members)
        distance = np.clip(distance, 1e-3, None)
        np.fill_diagonal(distance, 0)
        free = search.prior > 0
        if not free.any():
            return cls(distance, None, members)
        change = (shape[:, free] / search.prior[free]).square().sum(1)
        return cls(distance, change.view(k, k).T.cpu().numpy(), members)

    def among(self, exemplars: list[int]) -> Between:
        """Between some of the exemplars."""
        pairs = np.ix_(exemplars, exemplars)
        change = None if self.change is None else self.change[pairs]
        return Between(self.distance[pairs], change, self.members[exemplars])

    def joined(self, count: int | None) -> tuple[NDArray[np.int64], list[int]]:
        """Join exemplars to a number of kinds, or all that are near.

        Parameters
        ----------
        count : int or None
            Number of kinds if it is known.

        Returns
        -------
        kind : numpy.ndarray
            (exemplars,) kind of every exemplar, 0 .. kinds - 1, the largest kind first.
        central : list of int
            The exemplar of each kind from which the others differ least in offset, strain and scale.
        """
        from scipy.cluster.hierarchy import fcluster, linkage
        from scipy.spatial.distance import squareform

        tree = linkage(squareform(self.distance), "single")
        label = fcluster(tree, _DETECTABLE, "distance") if count is None else fcluster(tree, count, "maxclust")
        size = np.bincount(label, self.members)
        rank = np.argsort(np.argsort(-size, kind="stable"), kind="stable")
        kind = rank[label]
        kinds = range(kind.max() + 1)
        if self.change is None:
            return kind, [int(np.argmax(np.where(kind == q, self.members, -1))) for q in kinds]
        own = (self.change * (kind[:, None] == kind)) @ self.members
        return kind, [int(np.argmin(np.where(kind == q, own, np.inf))) for q in kinds]


def _few_join_nearest(distance: NDArray[np.float64], firm: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Distances in which averages of few members are near to none but the nearest, so that none is a bridge."""
    alone = distance + np.diag(np.full(len(distance), np.inf))
    kept = firm[:, None] & firm
    kept[np.arange(len(firm)), alone.argmin(1)] |= ~firm
    kept |= kept.T
    np.fill_diagonal(kept, True)
    return np.where(kept, distance, np.maximum(distance, 4 * distance.max() + 4 * _DETECTABLE))


def _exact_costs(
    search: PoseSearch, x: Tensor, images: Tensor, distances: Distances, weight: Tensor, wanted: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Own average (n,) of some members of each, and their costs (n, averages), poses improved, where these are wanted.

    An average has a part of each member's noise in it; the cost of a member is that from the average of the others.
    """
    which = distances.cost.argmin(1)
    rows = torch.cat([(which == k).nonzero()[:_PROBED, 0] for k in range(len(images))])
    own, templates = which[rows].cpu().numpy(), search.space.analyse(images)
    cost = np.full((len(rows), len(images)), np.inf)
    for k, template in enumerate(templates):
        mine = np.flatnonzero(wanted[own, k])
        some = rows[torch.as_tensor(mine, device=rows.device)]
        theta, target = distances.theta[some, k], template.expand(len(some), -1, -1)
        shape = turned_shape(distances.shape[some, k], theta)
        cost[mine, k] = search.improve(x[some], target, theta, shape, weight, steps=1)[2].cpu().numpy()
    members = np.bincount(which.cpu().numpy(), minlength=len(images))[own].clip(2)
    cost[np.arange(len(own)), own] *= (members / (members - 1)) ** 2
    return own, cost


def _continuous(way: NDArray[np.float64], first: NDArray[np.bool_]) -> bool:
    """Whether patches lie between two averages as densely as at them: how much farther each is from the first."""
    start, end = np.median(way[first]), np.median(way[~first])
    way = (way - start) / max(end - start, 1e-9)  # 0 at the first, 1 at the second
    at_first, middle, at_second = (np.mean(np.abs(way - place) < 0.25) for place in (0, 0.5, 1))
    return bool(middle > 0.5 * min(at_first, at_second))
