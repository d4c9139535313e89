"""Search of class and pose against a set of templates, and the averages of what agrees with each.

The same idea as the class averages of cryo-electron microscopy (Penczek et al., Ultramicroscopy 63, 205 (1996)): real
patches serve as first templates, patches are assigned to template, angle and shape, and the mean of a template's
members, turned and shaped back, replaces it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from napari_rvae.polar import PolarSpace
from napari_rvae.poses import Resampler, gauss_newton, turned_shape

CYCLES = 12
"""Patches are compared up to so many cycles across: kinds and poses show below it."""
SIZE = 32
"""Side to which larger patches are reduced for that, pixels."""
APART = 0.35
"""Angles further apart than this, in radian, are followed separately."""
_BLOCK = 250


@dataclass
class Assignment:
    """Where n patches belong.

    Attributes
    ----------
    which : torch.Tensor
        (n,) template.
    theta : torch.Tensor
        (n,) angle, radian.
    shape : torch.Tensor
        (n, 5) offset, strain, scale in the image frame.
    cost : torch.Tensor
        (n, templates) squared distance, in noise variances, to every template in its best pose on the grid.
    residual : torch.Tensor
        (n,) the same to the template chosen, after the pose was improved.
    """

    which: Tensor
    theta: Tensor
    shape: Tensor
    cost: Tensor
    residual: Tensor


class PoseSearch(nn.Module):
    """The pose-invariant distance of patches to templates.

    Parameters
    ----------
    space : PolarSpace
        Where patches are compared.
    prior : torch.Tensor
        (5,) width of the prior of each shape parameter; 0 keeps it fixed.
    """

    prior: Tensor
    grid: Tensor

    def __init__(self, space: PolarSpace, prior: Tensor) -> None:
        super().__init__()
        self.space, self.resample = space, Resampler(space.size)
        self.register_buffer("prior", prior)
        self.register_buffer("grid", shape_grid(prior))
        self.moves = bool((prior > 0).any())

    def variants(self, images: Tensor) -> Tensor:
        """Harmonics of images in every shape of the grid, (templates * shapes, channels, 2 T)."""
        count = len(self.grid)
        many = images.repeat_interleave(count, 0)
        return self.space.analyse(self.resample(many, -self.grid.repeat(len(images), 1)))

    def distances(self, harmonics: Tensor, images: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Distance of patches to images in their best pose on the grid.

        Parameters
        ----------
        harmonics : torch.Tensor
            (n, channels, 2 T).
        images : torch.Tensor
            (templates, channels, D, D).
        weight : torch.Tensor
            (channels, 2 T) one over the noise variance.

        Returns
        -------
        distance, shape, theta : torch.Tensor
            (n, templates, 2), (n, templates, 2, 5) in the motif's frame, (n, templates, 2): the best pose, and the
            best one at quite another angle.
        """
        templates = self.variants(images)
        penalty = torch.where(self.prior > 0, self.grid / self.prior.clamp_min(1e-9), 0.0).square().sum(1)
        own = (templates.square() * weight).sum((1, 2)).unflatten(0, (len(images), -1)) + penalty
        found = []
        for block in harmonics.split(_BLOCK):
            weighted = block * weight
            match = self.space.correlate_all(weighted, templates).unflatten(1, (len(images), -1))
            profile, shape = (own[:, :, None] - 2 * match).min(2)
            best = profile.argmin(2, keepdim=True)
            away = (self.space.theta - self.space.theta[best] + torch.pi) % (2 * torch.pi) - torch.pi
            other = profile.masked_fill(away.abs() < APART, torch.inf).argmin(2, keepdim=True)
            angle = torch.cat([best, other], 2)
            power = (block * weighted).sum((1, 2))[:, None, None]
            found.append((profile.gather(2, angle) + power, self.grid[shape.gather(2, angle)], self.space.theta[angle]))
        value, shape, theta = (torch.cat(part) for part in zip(*found, strict=True))
        return value, shape, theta

    def assign(self, x: Tensor, harmonics: Tensor, images: Tensor, weight: Tensor, steps: int = 2) -> Assignment:
        """Best template and pose of every patch, the pose improved below the grid.

        Parameters
        ----------
        x : torch.Tensor
            (n, channels, D, D) normalised patches.
        harmonics : torch.Tensor
            (n, channels, 2 T): their harmonics.
        images : torch.Tensor
            (templates, channels, D, D).
        weight : torch.Tensor
            (channels, 2 T).
        steps : int
            Gauss-Newton steps.

        Returns
        -------
        Assignment
            Per patch.
        """
        cost, shapes, thetas = self.distances(harmonics, images, weight)
        which = cost[:, :, 0].argmin(1)
        rows = torch.arange(len(x), device=x.device)
        templates = self.space.analyse(images)[which]
        poses = [(thetas[rows, which, k], turned_shape(shapes[rows, which, k], thetas[rows, which, k])) for k in (0, 1)]
        theta, shape, residual = self.improve(x, templates, *poses[0], weight, steps)
        # the grid is coarse: where another angle is nearly as good on it, see how good it becomes
        near = (cost[rows, which, 1] < 2 * cost[rows, which, 0] + len(self.space.order)).nonzero()[:, 0]
        if len(near) and self.moves:
            other = self.improve(x[near], templates[near], poses[1][0][near], poses[1][1][near], weight, steps)
            near, *better = (part[other[2] < residual[near]] for part in (near, *other))
            theta[near], shape[near], residual[near] = better
        return Assignment(which, theta, shape, cost[:, :, 0], residual)

    def improve(
        self, x: Tensor, templates: Tensor, theta: Tensor, shape: Tensor, weight: Tensor, steps: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Improve poses against given templates; the best of all steps is kept.

        Parameters
        ----------
        x : torch.Tensor
            (n, channels, D, D).
        templates : torch.Tensor
            (n, channels, 2 T).
        theta, shape : torch.Tensor
            (n,) and (n, 5) to start from.
        weight : torch.Tensor
            (channels, 2 T).
        steps : int
            Gauss-Newton steps.

        Returns
        -------
        theta, shape, residual : torch.Tensor
            Improved, with the whitened squared distance that is left.
        """
        turns = self.space.angles > 1
        done = []
        for rows in torch.arange(len(x), device=x.device).split(500):
            angle, form, template = theta[rows], shape[rows], templates[rows]
            best: tuple[Tensor, Tensor, Tensor] | None = None
            for step in range(steps + 1):
                harmonics = self.space.analyse(self.resample(x[rows], form) if self.moves else x[rows])
                centered = self.space.turn(harmonics, -angle)
                left = ((centered - template).square() * weight).sum((1, 2))
                penalty = torch.where(self.prior > 0, form / self.prior.clamp_min(1e-9), 0.0).square().sum(1)
                if best is None:
                    best = angle, form, left + penalty
                else:
                    better = left + penalty < best[2]
                    best = (
                        torch.where(better, angle, best[0]),
                        torch.where(better[:, None], form, best[1]),
                        torch.where(better, left + penalty, best[2]),
                    )
                if step < steps and (turns or self.moves):
                    angle, form, _, _ = gauss_newton(
                        self.space, harmonics, template, angle, form, weight, self.prior, turns
                    )
            assert best is not None  # there is always a first round
            done.append(best)
        improved_theta, improved_shape, residual = (torch.cat(part) for part in zip(*done, strict=True))
        return improved_theta, improved_shape, residual

    def upright(self, x: Tensor, theta: Tensor, shape: Tensor) -> Tensor:
        """Patches with their whole pose taken out, (n, channels, D, D)."""
        images: Tensor = self.resample(x, shape, theta)
        return images


class PoseFinder(nn.Module):
    """Finds class and pose of whole patches against a few averages; kept with a model as the start of its inference.

    Parameters
    ----------
    invariance : tuple of str
        Poses that are free.
    prior : torch.Tensor
        (5,) width of the prior of each shape parameter, in patch pixels.
    size : int
        Side of the patches in pixels; larger ones than `SIZE` are reduced.
    """

    def __init__(self, invariance: tuple[str, ...], prior: Tensor, size: int) -> None:
        super().__init__()
        self.size, self.side = size, min(size, SIZE)
        self.reduction = size / self.side
        angles = None if "rotation" in invariance else 1
        space = PolarSpace(self.side, min(0.375, CYCLES / self.side), angles=angles)
        self.search = PoseSearch(space, prior / prior.new_tensor([self.reduction, self.reduction, 1, 1, 1]))
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
        small = self.reduce(x)
        found = self.search.assign(small, self.search.space.analyse(small), self.images, self.weight)
        found.shape[:, :2] *= self.reduction
        return found


def shape_grid(prior: Tensor) -> Tensor:
    """Shapes to try, (shapes, 5), the identity first: never more than one kind of change at a time.

    Offsets, strains and scales start on a coarse grid; what is free at the same time is found by Gauss-Newton.
    """
    still = torch.zeros(1, 5)
    shapes = [still]
    if prior[2] > 0:
        axis = torch.linspace(-0.39, 0.39, 7)
        a, b = torch.meshgrid(axis, axis, indexing="ij")
        keep = (a**2 + b**2 <= 0.41**2) & (a**2 + b**2 > 0)
        strains = torch.zeros(int(keep.sum()), 5)
        strains[:, 2], strains[:, 3] = a[keep], b[keep]
        shapes.append(strains)
    elif prior[0] > 0:
        angles = torch.arange(6) * torch.pi / 3
        offsets = torch.zeros(6, 5)
        offsets[:, 0], offsets[:, 1] = angles.cos() * 1.2, angles.sin() * 1.2
        shapes.append(offsets)
    if prior[4] > 0:
        scales = torch.zeros(4, 5)
        scales[:, 4] = torch.tensor([-0.3, -0.15, 0.15, 0.3])
        shapes.append(scales)
    return torch.cat(shapes)


def first_exemplars(
    search: PoseSearch, x: Tensor, harmonics: Tensor, weight: Tensor, count: int, generator: torch.Generator
) -> Tensor:
    """Patches to start from, far from each other: k-means++ under the pose-invariant distance.

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
        How many.
    generator : torch.Generator
        Source of chance.

    Returns
    -------
    torch.Tensor
        (count or fewer,) positions.
    """
    some = torch.randperm(len(x), generator=generator)[:600].to(x.device)
    chosen = [0]
    nearest: Tensor | None = None
    while len(chosen) < min(count, len(some)):
        distance = search.distances(harmonics[some], x[some[chosen[-1:]]], weight)[0][:, 0, 0]
        nearest = distance if nearest is None else torch.minimum(nearest, distance)
        # what is as near as the nearest are to each other is noise, not another motif
        excess = (nearest - nearest.quantile(0.05)).clamp_min(0)
        excess[chosen] = 0
        if not bool((excess > 0).any()):
            break
        chosen.append(int(torch.multinomial(excess.cpu(), 1, generator=generator)))
    return some[chosen]


def average_rounds(
    search: PoseSearch, x: Tensor, harmonics: Tensor, images: Tensor, rounds: int, weight: Tensor | None = None
) -> tuple[Tensor, Assignment, Tensor]:
    """Expectation-maximisation over class and pose.

    Parameters
    ----------
    search : PoseSearch
        The distance.
    x, harmonics : torch.Tensor
        (n, channels, D, D) and (n, channels, 2 T).
    images : torch.Tensor
        (templates, channels, D, D) to start from.
    rounds : int
        How often.
    weight : torch.Tensor, optional
        (channels, 2 T) one over the noise variance to start from; one over the power of the patches when omitted.

    Returns
    -------
    images, assignment, weight : torch.Tensor, Assignment, torch.Tensor
        The averages, who belongs to them, and one over the variance left per coefficient.
    """
    if weight is None:
        weight = ring_weight(search.space, harmonics.square().mean(0))
    for _ in range(rounds):
        assignment = search.assign(x, harmonics, images, weight, steps=1)
        upright = search.upright(x, assignment.theta, assignment.shape)
        member = torch.nn.functional.one_hot(assignment.which, len(images)).to(x.dtype)
        counts = member.sum(0)
        kept = counts > 0
        means = torch.einsum("nt,nchw->tchw", member, upright) / counts.clamp_min(1)[:, None, None, None]
        images = means[kept]
        which = (torch.cumsum(kept, 0) - 1)[assignment.which]
        assignment = Assignment(
            which, assignment.theta, assignment.shape, assignment.cost[:, kept], assignment.residual
        )
        left = search.space.analyse(upright) - search.space.analyse(images)[which]
        weight = ring_weight(search.space, left.square().mean(0))
    return images, assignment, weight


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
    ring = space.ring.repeat(2)
    total = torch.zeros(len(power), space.rings, device=power.device).index_add_(1, ring, power)
    variance = total / space.degrees_of_freedom
    return (1 / variance.clamp_min(1e-9 * variance.max()))[:, ring]
