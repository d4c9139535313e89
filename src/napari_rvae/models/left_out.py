"""What a model leaves out of its patches, and how far that moves what is estimated.

A patch, its pose taken out, is the decoded motif C, noise, and what neither of them tells: offset, strain and scale
where they are not free, and every part of the motif a little off its place: along x of the image all parts of a row
alike, as scan lines are shifted, along y each by itself, as atoms are displaced.
Linearised, with J the derivatives with respect to what is estimated,

``x = C + J p + sum over k of N_k u_k + noise``,  u_k normal with variance tau_k^2,

and the noise's variance rises with the intensity where counts are recorded. The estimate moves by ``H^-1 J' W N u``, H
the curvature and W one over the mean noise variance, so its covariance is ``H^-1 J' W S W J H^-1``, S being the
covariance of all that is not ``C + J p`` (the sandwich of White, Econometrica 50, 1 (1982), with S modelled). The tau_k
are estimated by the method of moments from what estimates leave over.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from napari_rvae.models.model import Model
from napari_rvae.polar import radial_taper
from napari_rvae.poses import slopes

_PARTS = 5
"""A patch has so many parts along each side that are displaced each by itself: about an atom each."""
_MIDDLE = _PARTS**2 // 2
_GROUPS = ((0, 2), (2, 4), (4, 5))
"""Offset, strain, scale in `GENERATORS`."""


@torch.no_grad()
def estimated(model: Model, harmonics: Tensor, templates: Tensor, content: Tensor, theta: Tensor) -> Tensor:
    """Estimate how large it is that the model leaves out.

    Parameters
    ----------
    model : Model
        Its noise estimated.
    harmonics, templates : torch.Tensor
        (n, channels, 2 T) patches with their poses taken out, and what the model makes of them.
    content : torch.Tensor
        (n, latent, channels, 2 T) derivatives of the templates with respect to z.
    theta : torch.Tensor
        (n,) angles that were taken out.

    Returns
    -------
    torch.Tensor
        (6,) tau of offset (patch pixels), strain, scale (0 where they are free); of the places of a patch's lines along
        x and of its parts along y of the image (patch pixels); and how the variance of the noise rises with intensity,
        relative to its mean.
    """
    weight = model.weight.flatten()
    own, aside, members = _own_and_aside(model, templates, content)
    result = weight.new_zeros(6)
    left = _without((harmonics - templates).flatten(1)[:, None], own, weight)
    beside = _without(aside, own, weight)
    share = ((beside * weight) @ left.transpose(1, 2))[:, :, 0]
    power = (beside.square() * weight).sum(2)
    for number, (first, end) in enumerate(_GROUPS):
        group = (members >= first) & (members < end)
        excess = (share.square() - power)[:, group].sum() / power[:, group].square().sum().clamp_min(1e-12)
        result[number] = excess.clamp_min(0).sqrt()
    every = torch.cat([own, aside], 1)
    left = _seen(model, _without(left, every, weight))
    random = torch.randn(left.shape, generator=torch.Generator().manual_seed(0)).to(left)

    def simulated(rise: Tensor) -> Tensor:
        """What estimates would leave of noise alone, whose variance rises so."""
        noise = (random * _unevenness(model, rise, templates).sqrt()).unflatten(-1, (model.channels, *[model.size] * 2))
        return _seen(model, _without(model.space.analyse(noise).flatten(2) * spectrum, every, weight))

    spectrum = _noise_alone(model)
    result[5] = _rise(model, left, simulated, templates)
    # votes of the middle on its own place, and those of as much that is left over but agrees on no direction
    moved, noise = _moved(model, templates, theta), simulated(result[5])
    steep = moved.square().sum(1) * (_part_of(model.size) == _MIDDLE).to(moved).repeat(model.channels)
    level, alike = ((rows.square()[:, 0] * steep).sum() for rows in (left, noise))
    excess = _votes(left, moved, model.size) - _votes(noise, moved, model.size) * level / alike.clamp_min(1e-12)
    shaken = _shaken(moved / _taper(model, moved).clamp_min(0.2), model.size)
    for axis, rows in enumerate(shaken.unflatten(-1, (model.channels, *[model.size] * 2)).unbind(1)):
        kept = _seen(model, _without(model.space.analyse(rows).flatten(1)[:, None], every, weight))
        result[3 + axis] = (excess[axis] / _votes(kept, moved, model.size)[axis]).nan_to_num(0.0)
    result[3:5] = result[3:5].clamp(0, 1).sqrt()  # further than a pixel nothing is linear
    return result


@torch.no_grad()
def widened(model: Model, covariance: Tensor, templates: Tensor, content: Tensor, theta: Tensor) -> Tensor:
    """Covariance of what is estimated, with what the model leaves out.

    Parameters
    ----------
    model : Model
        It knows how large that is.
    covariance : torch.Tensor
        (n, p, p) inverse curvature.
    templates, content, theta : torch.Tensor
        As for `estimated`.

    Returns
    -------
    torch.Tensor
        (n, p, p).
    """
    tau = model.left_out
    if not bool((tau > 0).any()):
        return covariance
    weight = model.weight.flatten()
    own, aside, members = _own_and_aside(model, templates, content)
    scale = torch.cat([tau[number].expand(end - first) for number, (first, end) in enumerate(_GROUPS)])
    moves = covariance @ ((own * weight) @ aside.transpose(1, 2)) * scale[members]
    moved = _moved(model, templates, theta) / _taper(model, templates).clamp_min(0.2)
    pulled = _by_part(_heard(model, own * weight), moved, model.size)
    locally = (covariance @ pulled.flatten(2)).unflatten(2, (2, _PARTS, _PARTS))
    lines, parts = locally[:, :, 0].sum(-1), locally[:, :, 1].flatten(2)
    if bool(model.pose_prior[0] > 0):  # it is the atom in the middle whose place is asked for
        parts[:, :2, _MIDDLE] -= torch.stack([theta.sin(), theta.cos()], 1)
    locally = torch.cat([lines * tau[3], parts * tau[4]], 2)
    total: Tensor = covariance + moves @ moves.transpose(1, 2) + locally @ locally.transpose(1, 2)
    heard = _heard(model, own * weight * _noise_alone(model))
    alone = (heard * _unevenness(model, tau[5], templates)) @ heard.transpose(1, 2)
    return total + covariance @ (alone - (own * weight) @ own.transpose(1, 2)) @ covariance


def _own_and_aside(model: Model, templates: Tensor, content: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Derivatives with respect to what is estimated and to poses that are not free; which poses those are."""
    free = model.pose_prior > 0
    own = slopes(model.space, templates, free.nonzero()[:, 0], model.turns, content)
    fixed = (~free).nonzero()[:, 0]
    return own, slopes(model.space, templates, fixed, False), fixed


def _noise_alone(model: Model) -> Tensor:
    """Deviation of the noise, (channels * 2 T,): motifs have little in the upper half of the rings."""
    alone = model.noise[:, model.space.rings // 2 :].median(1).values.sqrt()
    return alone.repeat_interleave(2 * model.space.terms)


def _without(rows: Tensor, basis: Tensor, weight: Tensor) -> Tensor:
    """Rows, (n, k, m), less what a basis, (n, p, m), explains of them."""
    weighted = basis * weight
    curvature = weighted @ basis.transpose(1, 2)
    curvature = curvature + 1e-6 * torch.diag_embed(curvature.diagonal(dim1=1, dim2=2) + 1e-12)
    share: Tensor = torch.linalg.solve(curvature, weighted @ rows.transpose(1, 2))
    left: Tensor = rows - share.transpose(1, 2) @ basis
    return left


def _taper(model: Model, like: Tensor) -> Tensor:
    """Taper of the pixels of all channels, (channels * D * D,)."""
    taper = torch.as_tensor(radial_taper(model.size).ravel(), dtype=like.dtype, device=like.device)
    return taper.repeat(model.channels)


def _seen(model: Model, rows: Tensor) -> Tensor:
    """Pictures, (n, k, channels * D * D), of rows of harmonics, (n, k, channels * 2 T)."""
    pictures = model.space.synthesise(rows.unflatten(-1, (model.channels, -1)).flatten(0, 1))
    flat: Tensor = pictures.unflatten(0, rows.shape[:2]).flatten(2)
    return flat


def _heard(model: Model, rows: Tensor) -> Tensor:
    """What every pixel, (n, k, channels * D * D), adds to products of its patch's harmonics and rows of harmonics."""
    heard: Tensor = (rows.unflatten(-1, (model.channels, -1)) @ model.space.analysis).flatten(2)
    return heard


def _moved(model: Model, templates: Tensor, theta: Tensor) -> Tensor:
    """What moving along x and y of the image does to a template's picture, (n, 2, channels * D * D)."""
    x, y = _seen(model, slopes(model.space, templates, torch.arange(2), False)).unbind(1)
    c, s = theta.cos()[:, None], theta.sin()[:, None]
    return torch.stack([c * x - s * y, s * x + c * y], 1)


def _rise(model: Model, left: Tensor, simulated: Callable[[Tensor], Tensor], templates: Tensor) -> Tensor:
    """Rise of the noise's variance with the intensity, by moments: estimates take most away where motifs are steep."""
    bright = _seen(model, templates.flatten(1)[:, None])
    moments = torch.stack([_taper(model, left).square().expand_as(bright), _taper(model, left) * bright])
    little = left.new_tensor(0.1)
    even = simulated(torch.zeros_like(little)).square()
    more = (simulated(little).square() - even) / little
    (a, d), (b, e), (p, q) = ((moments * part).sum((1, 2, 3)) for part in (even, more, left.square()))
    # p = level (a + rise b), q = level (d + rise e)
    rise: Tensor = ((q * a - p * d) / (p * e - q * b)).nan_to_num(0.0).clamp(0, 1)
    return rise


def _unevenness(model: Model, rise: Tensor, templates: Tensor) -> Tensor:
    """Variance of the noise of every pixel in units of its mean, (n, 1, channels * D * D)."""
    taper = _taper(model, templates)
    bright = _seen(model, templates.flatten(1)[:, None]) / taper.clamp_min(0.2)
    return (1 + rise * bright).clamp_min(0.1)


def _shaken(moved: Tensor, size: int) -> Tensor:
    """What is seen of parts off their place by a pixel along x, as lines are, and along y, each by itself."""
    generator = torch.Generator().manual_seed(1)
    part, channels = _part_of(size), moved.shape[-1] // size**2
    off = torch.randn(len(moved), 2, _PARTS**2, generator=generator)
    off[:, 0] = off[:, 0, ::_PARTS].repeat_interleave(_PARTS, 1)
    return moved * off.to(moved)[:, :, part.to(moved.device).repeat(channels)]


def _votes(left: Tensor, moved: Tensor, size: int) -> Tensor:
    """Mean squared displacement, along x and y, by which the middle explains best what is left over there, (2,)."""
    curvature = _by_part(moved, moved, size)[..., _MIDDLE]
    pull = _by_part(left, moved, size)[:, 0, :, _MIDDLE]
    ridge = 1e-6 * torch.diag_embed(curvature.diagonal(dim1=1, dim2=2) + 1e-12)
    vote = torch.linalg.solve(curvature + ridge, pull)
    (xx, xy), (_, yy) = curvature.permute(1, 2, 0)
    weight: Tensor = (xx * yy - xy * xy).clamp_min(0)[:, None]
    mean: Tensor = (weight * vote.square()).sum(0) / weight.sum().clamp_min(1e-12)
    return mean


def _by_part(seen: Tensor, moved: Tensor, size: int) -> Tensor:
    """Products of pictures, (n, k, channels * D * D) and (n, 2, channels * D * D), part by part, (n, k, 2, parts)."""
    part = _part_of(size).to(seen.device).repeat(seen.shape[-1] // size**2)
    member = (part[:, None] == torch.arange(_PARTS**2, device=part.device)).to(seen.dtype)
    return (seen[:, :, None] * moved[:, None]) @ member


def _part_of(size: int) -> Tensor:
    """Part that every pixel belongs to, (D * D,), rows of parts one after another."""
    along = torch.arange(size) * _PARTS // size
    return (along[:, None] * _PARTS + along).flatten()
