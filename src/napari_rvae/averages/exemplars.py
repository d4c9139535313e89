"""Templates from patches, and the averages of what agrees with each.

The same idea as the class averages of cryo-electron microscopy (Penczek et al., Ultramicroscopy 63, 205 (1996)): real
patches serve as first templates, patches are assigned to template, angle and shape, and the mean of a template's
members, turned and shaped back, replaces it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from napari_rvae.averages.search import Assignment, Distances, PoseSearch
from napari_rvae.polar import PolarSpace
from napari_rvae.poses import turned_shape

CYCLES = 8
"""Patches are compared up to so many cycles across: kinds and poses show below it."""
SIZE = 32
"""Side to which larger patches are reduced for that, pixels."""
ANGLES = 48
"""Angles tried; a step from the nearest reaches the best between them."""
_LEFT = 1e-6
"""Of the patches' power, that averages leave at least; those of one member or of copies leave nothing to measure by."""


class PoseFinder(nn.Module):
    """Finds class and pose of whole patches against a few averages; kept with a model as the start of its inference.

    Parameters
    ----------
    invariance : tuple of str
        Poses that are free.
    prior : torch.Tensor
        (5,) width of the prior of each shape parameter, in patch pixels; offsets are searched half as far again, since
        the middle of an average need not be that of its motif.
    size : int
        Side of the patches in pixels; larger ones than `SIZE` are reduced.
    k_max : float
        Highest spatial frequency at which patches hold more than noise, cycles per patch pixel: noise alone would agree
        with the templates that it was aligned to.
    """

    def __init__(self, invariance: tuple[str, ...], prior: Tensor, size: int, k_max: float) -> None:
        super().__init__()
        self.size, self.side, self.k_max = size, min(size, SIZE), k_max
        self.reduction = size / self.side
        angles = ANGLES if "rotation" in invariance else 1
        space = PolarSpace(self.side, min(0.375, CYCLES / self.side, k_max * self.reduction), angles=angles)
        offset = 1.5 / self.reduction
        self.search = PoseSearch(space, prior * prior.new_tensor([offset, offset, 1, 1, 1]))
        self.register_buffer("images", torch.zeros(0))
        self.register_buffer("weight", torch.zeros(0))

    images: Tensor
    weight: Tensor

    def reduce(self, x: Tensor) -> Tensor:
        """Patches at the side at which they are compared."""
        if self.size == self.side:
            return x
        shape = (self.side, self.side)
        return nn.functional.interpolate(x, shape, mode="bicubic", antialias=True, align_corners=False)

    def find(self, x: Tensor) -> Assignment:
        """Class and pose of normalised patches, (n, channels, D, D); offsets in patch pixels."""
        small, space = self.reduce(x), self.search.space
        found = self.search.distances(space.analyse(small), self.images, self.weight).nearest()
        templates = space.analyse(self.images)[found.which]
        theta, shape, residual = self.search.improve(small, templates, found.theta, found.shape, self.weight, 2)
        shape[:, :2] *= self.reduction
        return Assignment(found.which, theta, shape, residual)


def add_exemplars(
    search: PoseSearch,
    x: Tensor,
    harmonics: Tensor,
    weight: Tensor,
    count: int,
    generator: torch.Generator,
    distances: Distances | None = None,
) -> Distances:
    """Take patches as templates that are far from those there are: k-means++ under the pose-invariant distance.

    Arthur & Vassilvitskii, SODA 2007.

    Parameters
    ----------
    search : PoseSearch
        The distance.
    x, harmonics : torch.Tensor
        (n, channels, D, D) and (n, channels, 2 T).
    weight : torch.Tensor
        (channels, 2 T).
    count : int
        How many templates there shall be in the end.
    generator : torch.Generator
        Source of chance.
    distances : Distances, optional
        From the templates that are there already; none when omitted.

    Returns
    -------
    Distances
        From those and from the new ones; fewer than wanted where all patches are alike.
    """
    chosen: list[int] = []
    noise = search.space.degrees_of_freedom.sum() * x.shape[1]  # which a patch has and an average has not
    while distances is None or distances.cost.shape[1] < min(count, len(x)):
        if distances is None:
            new = int(torch.randint(len(x), (), generator=generator))
        else:
            # what is as near as the nearest are to each other is noise, not another motif
            nearest = distances.cost.amin(1)
            excess = (nearest - nearest.quantile(0.05)).clamp_min(0)
            excess[chosen] = 0
            if not bool((excess > 0).any()):
                break
            new = int(torch.multinomial(excess.cpu(), 1, generator=generator))
        chosen.append(new)
        one = search.distances(harmonics, x[new : new + 1], weight)
        one.cost -= noise
        distances = one if distances is None else distances.beside(one)
    return distances


def average_round(
    search: PoseSearch, x: Tensor, harmonics: Tensor, distances: Distances
) -> tuple[Tensor, Distances, Tensor]:
    """One round of expectation-maximisation over class and pose: average what is nearest, and measure distances again.

    Parameters
    ----------
    search : PoseSearch
        The distance.
    x, harmonics : torch.Tensor
        (n, channels, D, D) and (n, channels, 2 T).
    distances : Distances
        From the templates so far.

    Returns
    -------
    images, distances, weight : torch.Tensor, Distances, torch.Tensor
        The averages, whose members are on the average not moved, strained or scaled; how far patches are from them; and
        one over the variance left per coefficient.
    """
    found = distances.nearest()
    kept, which = found.which.unique(return_inverse=True)
    upright = search.upright(x, found.theta, found.shape)
    member = torch.nn.functional.one_hot(which, len(kept)).to(x.dtype)
    share = member / member.sum(0)
    images = torch.einsum("nt,nchw->tchw", share, upright)
    left = search.space.analyse(upright) - search.space.analyse(images)[which]
    weight = ring_weight(search.space, left.square().mean(0) + _LEFT * harmonics.square().mean(0))
    images = search.resample(images, -share.T @ turned_shape(found.shape, -found.theta))
    return images, search.distances(harmonics, images, weight), weight


def ring_weight(space: PolarSpace, power: Tensor) -> Tensor:
    """One over the variance per independent coefficient of each ring.

    Parameters
    ----------
    space : PolarSpace
        Where the power was measured.
    power : torch.Tensor
        (channels, 2 T) mean squares.

    Returns
    -------
    torch.Tensor
        (channels, 2 T).
    """
    variance = space.by_ring(power) / space.degrees_of_freedom
    return (1 / variance.clamp_min(1e-9 * variance.max()))[:, space.ring.repeat(2)]
