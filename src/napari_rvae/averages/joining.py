"""Which exemplars show the same kind of motif, and how kinds are turned to a common frame."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_rvae.averages.exemplars import Distances, PoseSearch
from napari_rvae.polar import PolarSpace
from napari_rvae.poses import turned_shape

_DETECTABLE = 25.0
"""Squared distance, in noise variances, above which two motifs can be told apart patch by patch (five sigma)."""

_FIRM = 10
"""An average of fewer members may show a mixture of kinds."""

_PROBED = 100
"""Members of each average that tell whether others lie between it and the next."""

_SEEN = 16.0
"""Squared distance, in noise variances, above which an asymmetry is seen in most patches."""

_FINER = 16
"""Motifs are turned to each other on a grid so many times finer than that of the search: within half a degree."""

_AGREED = 0.8
"""Squared mean over mean square of an asymmetry in the members above which they have it in common."""

_UNSEEN = 0.1
"""Share of an asymmetry that a change of place and strain need not explain: it brings in what was out of the window."""

_CENTERING_STEPS = 3


def kinds_of(
    search: PoseSearch, x: Tensor, images: Tensor, distances: Distances, weight: Tensor, count: int | None
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
        Number of kinds if it is known.

    Returns
    -------
    list of int
        Of each kind, the largest first, the exemplar from which the others differ least in offset, strain and scale.
        Kinds of odd patches are left out unless their number is known.
    """
    kept = distances.shared() if count is None else list(range(len(images)))
    images, distances = images[kept], distances.among(kept)
    if len(images) == 1:
        return kept
    between = Between.of(search, images, distances, weight)
    kind, central = between.joined(count)
    if count is None:
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
        kind, central = replace(between, distance=distance).joined(None)
        central = [c for q, c in enumerate(central) if not _is_odd(kind == q, between, distances, freedom)] or central[
            :1
        ]
    return [kept[c] for c in central]


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


@dataclass(frozen=True)
class Symmetry:
    """How often a motif looks the same in one turn, and where it then is.

    Attributes
    ----------
    order : int
        1 if there is no symmetry.
    shape : torch.Tensor
        (5,) offset, strain and scale of the template in its own frame, as far as its symmetry tells them: the middle
        of a motif of order 2 or more, the strain of one of order 3 or more; nan else.
    """

    order: int
    shape: Tensor


def symmetry_of(
    space: PolarSpace,
    harmonics: Tensor,
    weight: Tensor,
    prior: Tensor,
    members: Tensor | None = None,
    highest: int = 8,
) -> Symmetry:
    """Symmetry of a motif whose template may itself be off its middle, or strained.

    The largest m for which the motif, turned by 2 pi / m, differs from itself by less than one patch's noise lets one
    see, or differs in what its members do not agree on: averages and decoders are imperfect. Where members have nothing
    of the difference, their scalar products with it scatter about zero, and those of the better of two angles are the
    absolute values: their squared mean is 2 / pi of their mean square. Offset and strain that are free make no
    difference: those that leave the least asymmetry are found by least squares and taken out first.

    Parameters
    ----------
    space : PolarSpace
        Where the motif lives.
    harmonics : torch.Tensor
        (channels, 2 T).
    weight : torch.Tensor
        (channels, 2 T) one over the noise variance.
    prior : torch.Tensor
        (5,) width of the prior of each of `GENERATORS`; 0 for those not free.
    members : torch.Tensor, optional
        (n, channels, 2 T) patches of this motif, their poses taken out.
    highest : int
        The largest order that is looked for.

    Returns
    -------
    Symmetry
        Order 1 if the model does not turn.
    """
    shape = torch.full((5,), torch.nan, device=harmonics.device)
    if space.angles == 1:
        return Symmetry(1, shape)
    free = (prior[:4] > 0).nonzero()[:, 0]
    for m in range(highest, 1, -1):
        told = free[free < (2 if m == 2 else 4)]  # half a turn leaves strain as it is
        found, before, change = _centered(space, harmonics, weight, m, told)
        seen = change * weight
        if float((change * seen).sum()) < max(_SEEN, _UNSEEN * before * bool(len(told))):
            return Symmetry(m, found)
        if members is not None and len(members):
            share = (members * seen).sum((1, 2))
            if float(share.mean()) ** 2 < _AGREED * float(share.square().mean()):
                return Symmetry(m, found)
    return Symmetry(1, shape)


def _centered(
    space: PolarSpace, harmonics: Tensor, weight: Tensor, order: int, told: Tensor
) -> tuple[Tensor, float, Tensor]:
    """Offset and strain that leave the least asymmetry; the asymmetry, squared, before, and what is left of it."""
    turn = torch.full((1,), 2 * torch.pi / order, device=harmonics.device)
    shape = torch.full((5,), torch.nan, device=harmonics.device)
    shape[told] = 0
    change = harmonics - space.turn(harmonics[None], turn)[0]
    before, upright = float((change.square() * weight).sum()), harmonics
    for _ in range(_CENTERING_STEPS * bool(len(told))):
        slope = torch.einsum("pij,cj->pci", space.generators[told], upright)
        slope = slope - space.turn(slope, turn.expand(len(told)))
        weighted = (slope * weight).flatten(1)
        shape[told] += torch.linalg.solve(weighted @ slope.flatten(1).T, weighted @ change.flatten())
        upright = space.moved(harmonics, -shape.nan_to_num())
        change = upright - space.turn(upright[None], turn)[0]
    return shape, before, change


def aligned(space: PolarSpace, spectra: Tensor, weight: Tensor) -> NDArray[np.float64]:
    """Angles of motifs relative to the first, each turned to the one it resembles most.

    Parameters
    ----------
    space : PolarSpace
        Where the motifs live.
    spectra : torch.Tensor
        (kinds, channels, 2 T).
    weight : torch.Tensor
        (channels, 2 T) one over the noise variance.

    Returns
    -------
    numpy.ndarray
        (kinds,) radian: what is at this angle in a kind's own frame is at zero in the first one's.
    """
    zero, done = np.zeros(len(spectra)), [0]
    if space.angles == 1:
        return zero
    fine = torch.arange(_FINER, device=spectra.device) * (2 * torch.pi / space.angles / _FINER)
    turned = [space.turn(spectra * weight, -one.expand(len(spectra))) for one in fine]
    all_angles = torch.stack([space.correlate_all(one, spectra) for one in turned], -1)
    match = all_angles.flatten(2).double().cpu().numpy()
    power = np.diagonal(match[:, :, 0])
    angle = (space.theta[:, None] + fine).flatten().double().cpu().numpy()
    best, theta = match.max(2), angle[match.argmax(2)]  # (motif, template)
    apart = power[:, None] + power - 2 * best
    while len(done) < len(power):  # Prim's tree of least distances
        rest = [k for k in range(len(power)) if k not in done]
        near = apart[np.ix_(rest, done)]
        i, j = np.unravel_index(near.argmin(), near.shape)
        zero[rest[i]] = zero[done[j]] - theta[rest[i], done[j]]
        done.append(rest[i])
    return zero


def zero_angle(space: PolarSpace, harmonics: Tensor, theta: NDArray[np.float64], symmetry: int) -> float:
    """The angle that is called zero, from the data alone, so that it is the same for every seed.

    The circular mean of the kind's angles if they have a direction in common, otherwise the direction of the strongest
    angular harmonic of its average.

    Parameters
    ----------
    space : PolarSpace
        Where the average lives.
    harmonics : torch.Tensor
        (channels, 2 T) of the average.
    theta : numpy.ndarray
        (n,) angles of the kind's patches, radian.
    symmetry : int
        Order of the motif's symmetry.

    Returns
    -------
    float
        Radian, to be subtracted from the kind's angles.
    """
    if space.angles == 1:
        return 0.0
    direction = np.exp(1j * symmetry * theta).mean() if len(theta) else 0
    if abs(direction) > 3 / np.sqrt(max(len(theta), 1)):
        return float(np.angle(direction)) / symmetry
    real, imaginary = harmonics.double().cpu().unflatten(-1, (2, -1)).unbind(1)
    order = space.order.cpu().numpy()
    wave = torch.complex(real, imaginary).numpy()
    # sum the rings with the phase of the strongest one, so that they do not cancel
    best, phase = 1, 0.0
    strength = 0.0
    for m in range(1, 9):
        part = wave[:, order == m].ravel()
        if m % symmetry == 0 and np.sum(np.abs(part) ** 2) > strength:
            strength, best, phase = float(np.sum(np.abs(part) ** 2)), m, float(np.angle(part[np.argmax(np.abs(part))]))
    zero = phase / best
    if best > symmetry:  # the strongest harmonic leaves a choice: take the direction in which the profile is highest
        choices = zero + 2 * np.pi * np.arange(best) / best
        profile = [float(np.sum((wave * np.exp(1j * order * c)).real)) for c in choices]
        zero = float(choices[int(np.argmax(profile))])
    return -zero
