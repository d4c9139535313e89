"""Pose and content of patches under a model, found by search and Gauss-Newton steps rather than guessed by a network.

The encoder proposes z; the angle is searched over the whole circle; angle, offset, strain, scale and, if asked, z are
then improved together. Their covariance is the inverse curvature, widened by what the model leaves out.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import NamedTuple

import torch
from torch import Tensor

from napari_rvae.models import left_out
from napari_rvae.models.model import Model
from napari_rvae.poses import gauss_newton, wrapped

_WORTH = 0.1
"""What a step must have brought for another one, and be expected to bring while a model learns: squared misfit in
noise variances (a third of a deviation)."""
_HARDLY = 0.01
"""What a step must be expected to bring to be taken at all."""
_UNLIKE = 0.1
"""Part of a motif's own agreement with itself that it may lose at its second best angle for that to be tried."""


@dataclass
class Inferred:
    """Pose and content of n patches.

    Attributes
    ----------
    theta : torch.Tensor
        (n,) angle, radian.
    shape : torch.Tensor
        (n, 5) offset (patch pixels), strain, scale in the image frame.
    z : torch.Tensor
        (n, latent).
    log_class : torch.Tensor
        (n, classes) log probability of every class.
    harmonics : torch.Tensor
        (n, channels, 2 T) with the whole pose, angle included, taken out.
    templates : torch.Tensor
        (n, channels, 2 T) decoded.
    covariance : torch.Tensor
        (n, p, p) of the free shape parameters, the angle if free, and z, in the motif's frame; empty unless `content`.
    log_angles : torch.Tensor
        (n, J) log posterior of the angle on the grid.
    cost : torch.Tensor
        (n,) squared misfit in noise variances, priors included.
    """

    theta: Tensor
    shape: Tensor
    z: Tensor
    log_class: Tensor
    harmonics: Tensor
    templates: Tensor
    covariance: Tensor
    log_angles: Tensor
    cost: Tensor

    def put(self, rows: Tensor, other: Inferred) -> Inferred:
        """A copy in which some rows (mask, or numbers) are replaced."""
        mine = {item.name: getattr(self, item.name).clone() for item in fields(self)}
        for name, values in mine.items():
            values[rows] = getattr(other, name)
        return Inferred(**mine)

    def only(self, rows: Tensor) -> Inferred:
        """Those rows (mask)."""
        return Inferred(**{item.name: getattr(self, item.name)[rows] for item in fields(self)})


@torch.no_grad()
def infer(
    model: Model,
    x: Tensor,
    shape: Tensor,
    *,
    base: Tensor | None = None,
    theta: Tensor | None = None,
    window: float | None = None,
    condition: Tensor | None = None,
    labels: Tensor | None = None,
    steps: int = 2,
    content: bool = False,
) -> Inferred:
    """Find pose and content of a block of patches.

    Parameters
    ----------
    model : Model
        Trained, or in training.
    x : torch.Tensor
        (n, channels, D, D) raw patches.
    shape : torch.Tensor
        (n, 5) offset, strain and scale to start from.
    base : torch.Tensor, optional
        (n, 5): the part of `shape` that was already taken out when the patches were cut.
    theta : torch.Tensor, optional
        (n,) angle to start from; used with `window` only.
    window : float, optional
        Search the angle only so far (radian) from `theta`.
    condition, labels : torch.Tensor, optional
        As in `Model.objective`.
    steps : int
        Rounds of search and Gauss-Newton.
    content : bool
        Whether z is improved too.

    Returns
    -------
    Inferred
        The best of all rounds, patch by patch; those that improve no more, or hardly would, are left out of later ones.
    """
    prior = model.pose_prior
    free = bool((prior > 0).any()) or model.turns or content
    base = torch.zeros_like(shape) if base is None else base
    rows = torch.arange(len(x), device=x.device)  # those that still improve
    z: Tensor | None = None
    best: dict[str, Tensor] = {}
    for step in range(steps + 1):
        harmonics = model.harmonics(x[rows], shape - base[rows])
        if z is None:
            z, _ = model.encode(harmonics)
        given = None if condition is None else condition[rows]
        label = None if labels is None else labels[rows]
        found = _searched(model, harmonics, z, given, label, theta, window)
        theta, templates = _followed(model, found.theta, None if step == 0 else theta, 4), found.templates
        centered = model.space.turn(harmonics, -theta)
        cost = _cost(model, centered, templates, shape, theta) + (z.square().sum(1) if content else 0)
        state = {"theta": theta, "shape": shape, "z": z, "cost": cost, "harmonics": centered, "templates": templates}
        state |= {"log_class": found.log_class, "log_angles": found.log_angles}
        if not best:
            best = {**state, "theta": theta.clone(), "shape": shape.clone(), "z": z.clone()}
        else:
            gained = best["cost"][rows] - cost
            better = (gained > 0).nonzero()[:, 0]
            for name, values in state.items():
                best[name][rows[better]] = values[better]
        if step == steps or not free:
            break
        if step > 1:
            going = (gained > _WORTH).nonzero()[:, 0]
            if len(going) == 0:
                break
            rows, theta, shape, z, harmonics, templates, which = (
                part[going] for part in (rows, theta, shape, z, harmonics, templates, found.which)
            )
        slope = None
        if content:
            which = found.which if step < 2 else which
            given = None if condition is None else condition[rows]
            slope = (z, torch.ones_like(z[0]), decoder_slope(model, z, which, given))
        here = (model.space, harmonics, templates, theta, shape, model.weight, prior, model.turns)
        moved = gauss_newton(*here, slope, model.angle_precision)
        going = (moved.gain > _HARDLY).nonzero()[:, 0]
        if len(going) == 0:
            break
        rows, theta, shape, z = (
            part[going] for part in (rows, moved.theta, moved.shape, z if moved.z is None else moved.z)
        )
    covariance = x.new_zeros(len(x), 0, 0)
    if content:
        by_content = decoder_slope(model, best["z"], best["log_class"].argmax(1), condition)
        covariance = gauss_newton(
            model.space,
            model.space.turn(best["harmonics"], best["theta"]),
            best["templates"],
            best["theta"],
            best["shape"],
            model.weight,
            prior,
            model.turns,
            (best["z"], torch.ones_like(best["z"][0]), by_content),
            model.angle_precision,
        ).covariance
        covariance = left_out.widened(model, covariance, best["templates"], by_content, best["theta"])
    return Inferred(covariance=covariance, **best)


def from_rival(model: Model, x: Tensor, found: Inferred, *, base: Tensor, condition: Tensor | None = None) -> Inferred:
    """Pose and content of symmetric motifs, found anew from the second best of their equivalent angles; the better one.

    Symmetry is never exact. Which of equivalent angles a search takes depends on how a patch is turned; what is found
    of the patch must not.

    Parameters
    ----------
    model, x, base, condition
        As for `infer`.
    found : Inferred
        With `content`.
    """
    near, shown = 8 * torch.pi / model.space.angles, found.log_angles
    apart = model.space.theta - found.theta[:, None]
    kind = found.log_class.argmax(1) if model.classes > 1 else model.kind_of(found.templates)
    order = model.kind_symmetry[kind][:, None]
    other = (shown > shown.roll(1, 1)) & (shown >= shown.roll(-1, 1))  # a maximum of its own
    other &= (wrapped(apart).abs() > near) & (wrapped(order * apart).abs() < order * near)
    most, rival = shown.masked_fill(~other, -torch.inf).max(1)
    whole = (found.templates.square() * model.weight).sum((1, 2))
    rows = (most > shown.amax(1) - _UNLIKE * whole).nonzero()[:, 0]
    if not model.turns or len(rows) == 0:
        return found
    again = infer(
        model,
        x[rows],
        found.shape[rows],
        base=base[rows],
        theta=model.space.theta[rival[rows]],
        window=near,
        condition=None if condition is None else condition[rows],
        steps=5,
        content=True,
    )
    better = again.cost < found.cost[rows]
    return found.put(rows[better], again.only(better))


@torch.no_grad()
def improve(
    model: Model,
    x: Tensor,
    shape: Tensor,
    theta: Tensor,
    harmonics: Tensor,
    *,
    base: Tensor,
    window: float | None = None,
    condition: Tensor | None = None,
    labels: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Improve poses that are nearly right, while a model learns: a search of the angle and one Gauss-Newton step.

    Parameters
    ----------
    model, x, shape, base, window, condition, labels
        As for `infer`.
    theta : torch.Tensor
        (n,) angle so far.
    harmonics : torch.Tensor
        (n, channels, 2 T) with angle and shape so far taken out.

    Returns
    -------
    shape, theta, harmonics : torch.Tensor
        The better ones, patch by patch.
    """
    prior = model.pose_prior
    z, _ = model.encode(harmonics)  # turning a patch changes nothing
    harmonics = model.space.turn(harmonics, theta)
    found = _searched(model, harmonics, z, condition, labels, theta, window)
    theta, templates = _followed(model, found.theta, theta, 1), found.templates
    centered, shape = model.space.turn(harmonics, -theta), shape.clone()
    here = (model.space, harmonics, templates, theta, shape, model.weight, prior, model.turns)
    step = gauss_newton(*here, None, model.angle_precision)
    rows = (step.gain > _WORTH).nonzero()[:, 0]
    new = model.harmonics(x[rows], step.shape[rows] - base[rows])
    new = model.space.turn(new, -step.theta[rows])
    before, after = (
        _cost(model, left, templates[rows], *pose)
        for left, *pose in ((centered[rows], shape[rows], theta[rows]), (new, step.shape[rows], step.theta[rows]))
    )
    better = after < before
    rows = rows[better]
    shape[rows], theta[rows], centered[rows] = step.shape[rows], step.theta[rows], new[better]
    return shape, theta, centered


class _Searched(NamedTuple):
    """Best angle, (n,), and class, (n,), its templates, and log probabilities of classes and angles."""

    theta: Tensor
    which: Tensor
    templates: Tensor
    log_class: Tensor
    log_angles: Tensor


def _searched(
    model: Model,
    harmonics: Tensor,
    z: Tensor,
    condition: Tensor | None,
    labels: Tensor | None,
    theta: Tensor | None,
    window: float | None,
) -> _Searched:
    """Search class and angle; within the window around theta only, where there is one."""
    templates = model.decode(z, condition)
    log_prior = log_angle_prior(model, harmonics.new_zeros(1)) + model.log_share
    log_joint = model.log_likelihood(harmonics, templates) + log_prior
    if labels is not None:
        other = (labels[:, None] >= 0) & (torch.arange(model.classes, device=labels.device) != labels[:, None])
        log_joint = log_joint.masked_fill(other[:, :, None], -1e4)
    within = log_joint
    if window is not None and theta is not None:
        apart = wrapped(model.space.theta - theta[:, None])
        within = within.masked_fill((apart.abs() > window + torch.pi / model.space.angles)[:, None], -1e9)
    found, which = _highest(within, model.space.theta)
    chosen = templates[torch.arange(len(z), device=z.device), which]
    return _Searched(found, which, chosen, _evidence(within).log_softmax(1), log_joint.logsumexp(1).log_softmax(1))


def _cost(model: Model, centered: Tensor, templates: Tensor, shape: Tensor, theta: Tensor) -> Tensor:
    """Squared misfit in noise variances and what the priors of shape and angle add, (n,)."""
    prior = model.pose_prior
    left = ((centered - templates).square() * model.weight).sum((1, 2))
    moved = torch.where(prior > 0, shape / prior.clamp_min(1e-9), 0.0).square().sum(1)
    return left + moved + model.angle_precision * wrapped(theta).square()


def _followed(model: Model, found: Tensor, theta: Tensor | None, steps: int) -> Tensor:
    """The refined angle, unless the search has found another mode, more than so many steps of the grid away."""
    if not model.turns:
        return torch.zeros_like(found)
    if theta is None:
        return found
    apart = wrapped(found - theta)
    return torch.where(apart.abs() > steps * 2 * torch.pi / model.space.angles, found, theta)


def log_angle_prior(model: Model, theta: Tensor) -> Tensor:
    """Log probability of the angles ``theta + grid``, (n, 1, J); uniform, or normal about 0 as the settings say."""
    grid = model.space.theta
    if model.angle_precision == 0:
        return torch.full_like(grid, -float(torch.log(torch.tensor(float(len(grid)))))).expand(len(theta), 1, -1)
    return (-0.5 * model.angle_precision * wrapped(theta[:, None] + grid).square()).log_softmax(1)[:, None]


def decoder_slope(model: Model, z: Tensor, which: Tensor, condition: Tensor | None) -> Tensor:
    """Derivatives of the decoded harmonics with respect to z, (n, latent, channels, 2 T)."""
    rows = torch.arange(len(z), device=z.device)

    def decoded(values: Tensor) -> Tensor:
        return model.decode(values, condition)[rows, which]

    units = torch.eye(z.shape[1], device=z.device)
    return torch.stack([torch.func.jvp(decoded, (z,), (unit.expand_as(z),))[1] for unit in units], 1)


def _evidence(log_joint: Tensor) -> Tensor:
    """Log probability of every class, (n, classes), from (n, classes, J); where there is one, any number."""
    return log_joint.logsumexp(2) if log_joint.shape[1] > 1 else log_joint[:, :, 0]


def _highest(log_joint: Tensor, grid: Tensor) -> tuple[Tensor, Tensor]:
    """Angle, between the grid's by a parabola, and class of the highest point of (n, classes, J)."""
    n, _, angles = log_joint.shape
    which = _evidence(log_joint).argmax(1)
    rows = torch.arange(n, device=grid.device)
    j = log_joint[rows, which].argmax(1)
    if angles < 3:
        return grid[j], which
    left, here, right = (log_joint[rows, which, (j + k) % angles] for k in (-1, 0, 1))
    bend = (2 * here - left - right).clamp_min(1e-6)
    shift = (0.5 * (right - left) / bend).clamp(-0.5, 0.5)
    return grid[j] + shift * (2 * torch.pi / angles), which
