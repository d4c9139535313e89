"""Search of class and pose of patches against a set of templates."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from napari_rvae.polar import PolarSpace
from napari_rvae.poses import Resampler, gauss_newton, turned_shape
from napari_rvae.threads import at_once

_FAR = torch.tensor([0.7, 0.7, 0.08, 0.08, 0.08, 0.1])
"""Steps in shape and angle over which a template's change is linear; about half the spacing of the grid."""
FEWEST_MEMBERS = 5
"""Fewer patches, of those averaged, are odd ones and not a kind."""
APART = 0.35
"""Angles further apart than this, in radian, are followed separately."""
_MOST_RINGS = 4
"""Of offsets tried, 1.2 patch pixels apart: further ones can't be taken out of a patch."""
_BLOCK = 250
_COMPARED = 2**21
"""Poses of patches and templates compared at a time, so that they stay in the processor's cache."""


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
    residual : torch.Tensor
        (n,) squared distance, in noise variances, to the template chosen.
    """

    which: Tensor
    theta: Tensor
    shape: Tensor
    residual: Tensor


@dataclass
class Distances:
    """How far n patches are from every template, each in its best pose.

    Attributes
    ----------
    cost : torch.Tensor
        (n, templates) squared distance in noise variances.
    theta : torch.Tensor
        (n, templates) angle, radian.
    shape : torch.Tensor
        (n, templates, 5) offset, strain, scale in the motif's frame.
    """

    cost: Tensor
    theta: Tensor
    shape: Tensor

    def among(self, templates: list[int]) -> Distances:
        """Distances from some of the templates."""
        return Distances(self.cost[:, templates], self.theta[:, templates], self.shape[:, templates])

    def beside(self, other: Distances) -> Distances:
        """Distances from these templates and from others."""
        pairs = (self.cost, other.cost), (self.theta, other.theta), (self.shape, other.shape)
        return Distances(*(torch.cat(pair, 1) for pair in pairs))

    def members(self) -> Tensor:
        """How many patches are nearest to each template, (templates,)."""
        return torch.bincount(self.cost.argmin(1), minlength=self.cost.shape[1])

    def shared(self) -> list[int]:
        """The templates that are nearest to more than a few odd patches, or the first if there is none."""
        return (self.members() >= FEWEST_MEMBERS).nonzero()[:, 0].tolist() or [0]

    def nearest(self) -> Assignment:
        """The nearest template of every patch."""
        residual, which = self.cost.min(1)
        rows = torch.arange(len(which), device=which.device)
        theta = self.theta[rows, which]
        return Assignment(which, theta, turned_shape(self.shape[rows, which], theta), residual)


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

    def distances(self, harmonics: Tensor, images: Tensor, weight: Tensor) -> Distances:
        """Distance of patches to images in their best pose.

        The best pose on the grid, and the best one at quite another angle, are improved by one Gauss-Newton step, to
        which the templates in the shapes of the grid have the derivatives; the better of the two counts.

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
        Distances
            From every image.
        """
        step = GridStep(self, self.variants(images), weight)
        own = step.own.unflatten(0, (len(images), -1))
        first = torch.arange(len(images), device=images.device)[:, None] * len(self.grid)
        found = []
        compared = at_once(_COMPARED, harmonics.device)
        for block in harmonics.split(max(1, compared // (own.numel() * self.space.angles))):
            weighted = block * weight
            match = self.space.correlate_all(weighted, step.templates).unflatten(1, own.shape)
            costs = torch.add(own[:, :, None], match, alpha=-2)  # (n, templates, shapes, angles)
            profile = costs.amin(2)
            best = profile.argmin(2, keepdim=True)
            away = (self.space.theta - self.space.theta[best] + torch.pi) % (2 * torch.pi) - torch.pi
            second = profile.masked_fill(away.abs() < APART, torch.inf).argmin(2, keepdim=True)
            angle = torch.cat([best, second], 2)
            row = first + costs.take_along_dim(angle[:, :, None], 3).argmin(2)
            value = profile.gather(2, angle) + (block * weighted).sum((1, 2))[:, None, None]
            start = row, self.space.theta[angle], value
            patch = torch.arange(len(block), device=row.device).repeat_interleave(len(images))
            cost, theta, shape = step.taken(block[patch], *(part[:, :, 0].flatten() for part in start))
            # the grid is coarse: where another angle is nearly as good on it, see how good it becomes
            nearest = cost.view(-1, len(images)).amin(1)[patch]
            near = (value[:, :, 1].flatten() < 2 * nearest + self.space.terms).nonzero()[:, 0]
            again = step.taken(block[patch[near]], *(part[:, :, 1].flatten()[near] for part in start))
            better = again[0] < cost[near]
            for part, other in zip((cost, theta, shape), again, strict=True):
                part[near[better]] = other[better]
            found.append([part.unflatten(0, (len(block), -1)) for part in (cost, theta, shape)])
        return Distances(*(torch.cat(part) for part in zip(*found, strict=True)))

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
        for rows in torch.arange(len(x), device=x.device).split(at_once(_BLOCK, x.device)):
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
                    step_taken = gauss_newton(self.space, harmonics, template, angle, form, weight, self.prior, turns)
                    angle, form = step_taken.theta, step_taken.shape
            assert best is not None  # there is always a first round
            done.append(best)
        improved_theta, improved_shape, residual = (torch.cat(part) for part in zip(*done, strict=True))
        return improved_theta, improved_shape, residual

    def upright(self, x: Tensor, theta: Tensor, shape: Tensor) -> Tensor:
        """Patches with their whole pose taken out, (n, channels, D, D)."""
        blocks = zip(x.split(_BLOCK), shape.split(_BLOCK), theta.split(_BLOCK), strict=True)
        return torch.cat([self.resample(*block) for block in blocks])


class GridStep:
    """One Gauss-Newton step from poses on the grid; as all start from a few templates, most is computed for these.

    Parameters
    ----------
    search : PoseSearch
        The distance.
    templates : torch.Tensor
        (templates * shapes, channels, 2 T): the images in every shape of the grid.
    weight : torch.Tensor
        (channels, 2 T) one over the noise variance.

    Attributes
    ----------
    own : torch.Tensor
        (templates * shapes,) squared norm of a template and the penalty of its shape.
    """

    def __init__(self, search: PoseSearch, templates: Tensor, weight: Tensor) -> None:
        space, device = search.space, templates.device
        self.space, self.grid, self.templates = space, search.grid, templates
        self.free, self.turns = (search.prior > 0).nonzero()[:, 0], int(space.angles > 1)
        columns = [space.slopes(templates, self.free)]
        if self.turns:
            columns.append(space.turning(templates)[:, None])
        slope = torch.cat(columns, 1).flatten(2)
        self.slope = slope * weight.flatten()
        damping = nn.functional.pad(search.prior[self.free] ** -2, (0, self.turns))
        self.curvature = self.slope @ slope.transpose(1, 2) + torch.diag(damping)
        trace = self.curvature.diagonal(dim1=1, dim2=2).sum(1).clamp_min(1e-12)
        self.inverse = torch.linalg.inv(
            self.curvature + 1e-6 * trace[:, None, None] * torch.eye(len(damping), device=device)
        )
        count = len(templates) // len(self.grid)
        start = nn.functional.pad(self.grid[:, self.free], (0, self.turns))
        self.pull = (start * damping).repeat(count, 1)  # of the prior
        penalty = (start.square() * damping).sum(1).repeat(count)
        self.own = (templates.square() * weight).sum((1, 2)) + penalty
        self.limit = _FAR.to(device)[[*self.free.tolist(), *[5] * self.turns]]

    def taken(self, harmonics: Tensor, row: Tensor, theta: Tensor, cost: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Improve poses.

        Parameters
        ----------
        harmonics : torch.Tensor
            (n, channels, 2 T).
        row, theta, cost : torch.Tensor
            (n,) template in its shape, angle, and squared distance there.

        Returns
        -------
        cost, theta, shape : torch.Tensor
            (n,), (n,), (n, 5): the distance that is expected after the step; the shape in the motif's frame.
        """
        left = (self.space.turn(harmonics, -theta) - self.templates[row]).flatten(1)
        pull = (self.slope[row] @ left[:, :, None])[..., 0] - self.pull[row]
        change = (self.inverse[row] @ pull[:, :, None])[..., 0].clamp(-self.limit, self.limit)
        gain = (change * (2 * pull - (self.curvature[row] @ change[:, :, None])[..., 0])).sum(1)
        shape, count = self.grid[row % len(self.grid)], len(self.free)
        shape[:, self.free] += change[:, :count]
        return cost - gain, theta + change[:, count] if self.turns else theta, shape


def shape_grid(prior: Tensor) -> Tensor:
    """Shapes to try, (shapes, 5), the identity first: never more than one kind of change at a time.

    Offsets, strains and scales start on a coarse grid; what is free at the same time is found by Gauss-Newton, beside
    strain small offsets, too.
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
    rings = min(max(round(float(prior[0]) - 0.4), 1), _MOST_RINGS) if prior[0] > 0 else 0
    for ring in range(2 if prior[2] > 0 else 1, rings + 1):
        angles = torch.arange(6 * ring) * (torch.pi / 3 / ring)
        offsets = torch.zeros(6 * ring, 5)
        offsets[:, 0], offsets[:, 1] = angles.cos() * 1.2 * ring, angles.sin() * 1.2 * ring
        shapes.append(offsets)
    if prior[4] > 0:
        scales = torch.zeros(4, 5)
        scales[:, 4] = torch.tensor([-0.3, -0.15, 0.15, 0.3])
        shapes.append(scales)
    return torch.cat(shapes)
