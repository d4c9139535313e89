"""Frames of kinds: how symmetric a motif is, where its middle lies, and which of its angles is called zero."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_rvae.polar import PolarSpace

_SEEN = 16.0
"""Squared distance, in noise variances, above which an asymmetry is seen in most patches."""

_FINER = 16
"""Motifs are turned to each other on a grid so many times finer than that of the search: within half a degree."""

_AGREED = 0.8
"""Squared mean over mean square of an asymmetry in the members above which they have it in common."""
_MOST, _SEEN_EACH = 0.5, 2.0
"""Squared difference of a patch and itself turned, in units of its own square (2 where they are unlike; up to .1 in
crystals, whose atoms are a little off their places, more than 1 of digits), and in deviations of the noise, above which
only the mean of patches is symmetric."""
_UNSEEN = 0.1
"""Share of an asymmetry that a change of place and strain need not explain: it brings in what was out of the window."""

_CENTERING_STEPS = 3


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
    templates: Tensor | None = None,
    highest: int = 8,
) -> Symmetry:
    """Symmetry of a motif whose template may itself be off its middle, or strained.

    The largest m for which the motif, turned by 2 pi / m, differs from itself by less than one patch's noise lets one
    see, or differs in what its members do not agree on: averages and decoders are imperfect. Where members have nothing
    of the difference, their scalar products with it scatter about zero, and those of the better of two angles are the
    absolute values: their squared mean is 2 / pi of their mean square. A motif of which only the mean is symmetric, as
    that of many digits, is not: each member's own template must be. Offset and strain that are free make no difference:
    those that leave the least asymmetry are found by least squares and taken out first.

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
    templates : torch.Tensor, optional
        (n, channels, 2 T) what a model makes of each of them.
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
        if members is not None and templates is not None and _only_mean(space, templates, weight, members, m):
            continue
        told = free[free < (2 if m == 2 else 4)]  # half a turn leaves strain as it is
        found, before, change = _centered(space, harmonics, weight, m, told, prior)
        seen = change * weight
        if float((change * seen).sum()) < max(_SEEN, _UNSEEN * before * bool(len(told))):
            return Symmetry(m, found)
        if members is not None and len(members):
            share = (members * seen).sum((1, 2))
            if float(share.mean()) ** 2 < _AGREED * float(share.square().mean()):
                return Symmetry(m, found)
    return Symmetry(1, shape)


def _only_mean(space: PolarSpace, templates: Tensor, weight: Tensor, members: Tensor, order: int) -> bool:
    """Whether patches, turned, differ from themselves in most of what they are, each by its own template.

    The scalar product of a patch with the difference is half the squared length of that, and scatters by its length.
    """
    change = templates - space.turn(templates, torch.full_like(templates[:, 0, 0], 2 * torch.pi / order))
    energy = (change.square() * weight).sum((1, 2)).clamp_min(1e-12)
    seen = float(((members * change * weight).sum((1, 2)) / energy.sqrt()).mean())
    return seen > _SEEN_EACH and float(energy.mean()) > _MOST * float((templates.square() * weight).sum((1, 2)).mean())


def _centered(
    space: PolarSpace, harmonics: Tensor, weight: Tensor, order: int, told: Tensor, prior: Tensor
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
        damping = prior[told] ** -2
        curvature = weighted @ slope.flatten(1).T + torch.diag(damping)
        shape[told] += torch.linalg.solve(curvature, weighted @ change.flatten() - damping * shape[told])
        upright = space.moved(harmonics, -shape.nan_to_num())
        change = upright - space.turn(upright[None], turn)[0]
    return shape, before, change


def common_zeros(
    space: PolarSpace,
    spectra: Tensor,
    weight: Tensor,
    theta: NDArray[np.float64],
    kind: NDArray[np.int64],
    symmetry: NDArray[np.int64],
) -> NDArray[np.float64]:
    """The angle that is called zero of every kind, from the data alone, so that it is the same for every seed.

    Kinds are turned to each other by the best correlation of their motifs. What then is zero is told by all patches of
    the most frequent order of symmetry (`zero_angle`). Where a kind is less symmetric than that, its own patches choose
    among the turns that make no difference to the others.

    Parameters
    ----------
    space : PolarSpace
        Where the motifs live.
    spectra : torch.Tensor
        (kinds, channels, 2 T) of the motifs.
    weight : torch.Tensor
        (channels, 2 T) one over the noise variance.
    theta : numpy.ndarray
        (n,) angles of the patches in their kind's own frame, radian.
    kind : numpy.ndarray
        (n,) kind of every patch.
    symmetry : numpy.ndarray
        (kinds,) order of symmetry.

    Returns
    -------
    numpy.ndarray
        (kinds,) radian, to be subtracted from a kind's angles.
    """
    zero = aligned(space, spectra, weight)
    counts = np.bincount(kind, minlength=len(spectra))
    order = int(np.argmax(np.bincount(symmetry, counts)))
    first = int(np.argmax(np.where(symmetry == order, counts, -1)))
    upright = torch.full((1,), float(zero[first]), device=spectra.device)
    motif = space.turn(spectra[first : first + 1], upright)[0]
    zero = zero + zero_angle(space, motif, (theta - zero[kind])[symmetry[kind] == order], order)
    for number, own in enumerate(symmetry):
        if own < order and counts[number]:
            mean = np.angle(np.exp(1j * own * (theta[kind == number] - zero[number])).mean()) / own
            zero[number] += np.round(mean * order / (2 * np.pi)) * 2 * np.pi / order
    return zero


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
    match = all_angles.flatten(2).cpu().double().numpy()
    power = np.diagonal(match[:, :, 0])
    angle = (space.theta[:, None] + fine).flatten().cpu().double().numpy()
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
    real, imaginary = harmonics.cpu().double().unflatten(-1, (2, -1)).unbind(1)
    order = space.order.cpu().numpy()
    wave = torch.complex(real, imaginary).numpy()
    # sum the rings with the phase of the strongest one, so that they do not cancel
    best, phase = 1, 0.0
    strength = 0.0
    for m in range(1, 9):
        part = wave[:, order == m].ravel()
        if m % symmetry == 0 and np.sum(np.abs(part) ** 2) > strength:
            strength, best, phase = float(np.sum(np.abs(part) ** 2)), m, float(np.angle(part[np.argmax(np.abs(part))]))
    zero = -phase / best  # a motif that points to an angle has the phase of -m times that angle
    if best > symmetry:  # the strongest harmonic leaves a choice: take the direction in which the profile is highest
        choices = zero + 2 * np.pi * np.arange(best) / best
        profile = [float(np.sum((wave * np.exp(1j * order * c)).real)) for c in choices]
        zero = float(choices[int(np.argmax(profile))])
    return -zero
