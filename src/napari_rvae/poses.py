"""Poses: how they are taken out of a patch, and how they are improved step by step.

A pose is an angle, and a `shape` of five numbers in the order of `napari_rvae.polar.GENERATORS`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from napari_rvae.errors import SettingsError
from napari_rvae.polar import PolarSpace, pixel_grid, without_denormals

_BEYOND = 6
"""Pixels beyond the border of a patch that are known, as in a mirror: two more than the largest offset to take out."""


STRAIN_PRIOR, SCALE_PRIOR = 0.2, 0.2
MOST_OFFSET_PRIOR = 3.0
"""Patch pixels: three quarters of the largest offset that can be taken out."""


def pose_prior(invariance: tuple[str, ...], offset: float) -> Tensor:
    """Widths of the normal priors of a shape.

    Parameters
    ----------
    invariance : tuple of str
        Poses that are free.
    offset : float
        Width of the prior of offsets, patch pixels.

    Returns
    -------
    torch.Tensor
        (5,) in the order of `GENERATORS`; 0 for those that are not free.

    Raises
    ------
    SettingsError
        If offsets may be larger than can be taken out of a patch.
    """
    if "translation" in invariance and offset > MOST_OFFSET_PRIOR:
        raise SettingsError(
            f"The prior of offsets is {offset:.3g} pixels of the patches wide; {MOST_OFFSET_PRIOR:g} can be searched: "
            "choose a smaller offset prior, or find the atoms anew, nearer to where they are."
        )
    widths = (offset, offset, STRAIN_PRIOR, STRAIN_PRIOR, SCALE_PRIOR)
    free = ("translation", "translation", "strain", "strain", "scale")
    return torch.tensor([width * (name in invariance) for name, width in zip(free, widths, strict=True)])


class Resampler(nn.Module):
    """Takes offset, strain and scale out of patches, so that only their angle is left.

    A patch is ``x(r) = C(exp(-s - E) (R(-theta) (r - d)))``. With the strain in the image frame,
    E' = R(theta) E R(-theta), ``y(u) = x(d + exp(s + E') u) = C(R(-theta) u)``: no angle is needed to take the rest
    of the pose out.

    Parameters
    ----------
    size : int
        Side D of the patches in pixels.
    """

    upsample: Tensor
    spline: Tensor
    grid: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        from scipy.ndimage import map_coordinates, spline_filter1d

        # four times the pixels by cubic spline, then bilinear: torch's bicubic kernel moves even a linear ramp to and
        # fro within each pixel, by up to .05 of it. An even number, so that no sample of a patch that is hardly moved
        # lies where the slope of the bilinear surface jumps
        fine = (np.arange(4 * size) + 0.5) / 4 - 0.5
        matrix = np.stack([map_coordinates(unit, [fine], order=3, mode="mirror") for unit in np.eye(size)], 1)
        self.register_buffer("upsample", torch.as_tensor(without_denormals(matrix)), persistent=False)
        spline = spline_filter1d(np.eye(size), 3, axis=0, mode="mirror")
        mirrored = np.pad(spline, ((_BEYOND, _BEYOND), (0, 0)), mode="reflect")
        spline = mirrored[::-1]  # in the order in which windows of weights meet it, see `moved`
        self.register_buffer("spline", torch.as_tensor(without_denormals(spline)), persistent=False)
        grid = np.stack(pixel_grid(size)).reshape(2, size, size) * (2 / size)
        self.register_buffer("grid", torch.as_tensor(grid.astype(np.float32)), persistent=False)

    def forward(self, x: Tensor, shape: Tensor, theta: Tensor | None = None) -> Tensor:
        """Resample patches.

        Parameters
        ----------
        x : torch.Tensor
            (n, channels, D, D).
        shape : torch.Tensor
            (n, 5): dx, dy in patch pixels, strain a and b, logarithmic scale, in the image frame.
        theta : torch.Tensor, optional
            (n,) angle that is taken out too, radian.

        Returns
        -------
        torch.Tensor
            (n, channels, D, D).
        """
        fine = self.upsample @ x @ self.upsample.T
        matrix = strain_matrix(shape)
        if theta is not None:
            c, s = theta.cos(), theta.sin()
            matrix = matrix @ torch.stack([torch.stack([c, -s], -1), torch.stack([s, c], -1)], -2)
        move = shape[:, :2, None, None] * (2 / x.shape[-1])
        grid = matrix[:, :, 0, None, None] * self.grid[0] + matrix[:, :, 1, None, None] * self.grid[1] + move
        grid = grid.movedim(1, -1)
        return nn.functional.grid_sample(fine, grid, mode="bilinear", padding_mode="border", align_corners=False)

    def moved(self, x: Tensor, offset: Tensor) -> Tensor:
        """Take out an offset alone, by cubic splines along rows and columns: the same, in a fraction of the time.

        Parameters
        ----------
        x : torch.Tensor
            (n, channels, D, D).
        offset : torch.Tensor
            (n, 2): dx, dy in patch pixels.

        Returns
        -------
        torch.Tensor
            (n, channels, D, D).
        """
        size = x.shape[-1]
        places = torch.arange(1 - _BEYOND - size, size + _BEYOND, device=x.device)
        apart = (offset.T[:, :, None] + places).abs()  # (2, n, 2 (D + _BEYOND) - 1)
        far, near = (2 - apart).clamp_min(0), (1 - apart).clamp_min(0)
        weight = (far * far * far - 4 * near * near * near) / 6  # the cubic B-spline
        across, down = weight.unfold(-1, size + 2 * _BEYOND, 1) @ self.spline  # (n, D, D) each
        result: Tensor = down[:, None] @ x @ across[:, None].transpose(-1, -2)
        return result


def strain_matrix(shape: Tensor) -> Tensor:
    """The matrix exp(s + E) of strain and scale.

    Parameters
    ----------
    shape : torch.Tensor
        (n, 5) as in `GENERATORS`.

    Returns
    -------
    torch.Tensor
        (n, 2, 2), for column vectors (x, y).
    """
    a, b, scale = shape[:, 2], shape[:, 3], shape[:, 4].exp()
    size = (a * a + b * b).clamp_min(1e-12).sqrt()
    cosh, sinh = size.cosh() * scale, size.sinh() / size * scale
    return torch.stack([torch.stack([cosh + sinh * a, sinh * b], -1), torch.stack([sinh * b, cosh - sinh * a], -1)], -2)


def wrapped(angle: Tensor) -> Tensor:
    """Angles, radian, within half a turn of 0."""
    return (angle + torch.pi) % (2 * torch.pi) - torch.pi


def turned_shape(shape: Tensor, theta: Tensor) -> Tensor:
    """Offset and strain seen in a frame, when the motif is turned by theta: vectors turn by theta, strains by 2 theta.

    Parameters
    ----------
    shape : torch.Tensor
        (n, 5) as in `GENERATORS`.
    theta : torch.Tensor
        (n,), radian.

    Returns
    -------
    torch.Tensor
        (n, 5).
    """
    c1, s1, c2, s2 = theta.cos(), theta.sin(), (2 * theta).cos(), (2 * theta).sin()
    x, y, a, b, scale = shape.unbind(-1)
    return torch.stack([c1 * x - s1 * y, s1 * x + c1 * y, c2 * a - s2 * b, s2 * a + c2 * b, scale], -1)


def slopes(space: PolarSpace, templates: Tensor, which: Tensor, turn: bool, content: Tensor | None = None) -> Tensor:
    """What small changes of pose and content do to templates.

    Parameters
    ----------
    space : PolarSpace
        Where this happens.
    templates : torch.Tensor
        (n, channels, 2 T).
    which : torch.Tensor
        (p,) positions in `GENERATORS`.
    turn : bool
        Whether the angle is free.
    content : torch.Tensor, optional
        (n, k, channels, 2 T) derivatives of the templates.

    Returns
    -------
    torch.Tensor
        (n, p + turn + k, channels * 2 T).
    """
    columns = [space.slopes(templates, which)]
    if turn:
        columns.append(space.turning(templates)[:, None])
    if content is not None:
        columns.append(content)
    return torch.cat(columns, 1).flatten(2)


class Step(NamedTuple):
    """What `gauss_newton` gives.

    Attributes
    ----------
    theta, shape, z : torch.Tensor
        (n,), (n, 5) and, if content is free, (n, k): the improved values.
    covariance : torch.Tensor
        (n, p, p) of (the free ones of `GENERATORS`, angle if free, z if free) in the template's frame.
    gain : torch.Tensor
        (n,) how much smaller what is minimised is expected to be.
    """

    theta: Tensor
    shape: Tensor
    z: Tensor | None
    covariance: Tensor
    gain: Tensor


def gauss_newton(
    space: PolarSpace,
    patches: Tensor,
    templates: Tensor,
    theta: Tensor,
    shape: Tensor,
    weight: Tensor,
    prior: Tensor,
    turn: bool,
    content: tuple[Tensor, Tensor, Tensor] | None = None,
    angle_precision: float = 0.0,
) -> Step:
    """Improve angle, offset, strain, scale and content together by one damped Gauss-Newton step.

    Minimises ``|patch - turned template|^2 weight + (shape / prior)^2`` for each patch by itself, and what the priors
    of angle and content add.

    Parameters
    ----------
    space : PolarSpace
        Where this happens.
    patches, templates : torch.Tensor
        (n, channels, 2 T); the patches resampled with `shape`, the templates not turned.
    theta : torch.Tensor
        (n,), radian.
    shape : torch.Tensor
        (n, 5), in the image frame.
    weight : torch.Tensor
        (channels, 2 T): one over the noise variance.
    prior : torch.Tensor
        (5,): width of the normal prior of each of `GENERATORS`; 0 keeps it fixed.
    turn : bool
        Whether the angle is free.
    content : tuple of torch.Tensor, optional
        z (n, k), its prior width (k,) and the templates' derivatives (n, k, channels, 2 T), if z is free too.
    angle_precision : float
        One over the variance of the normal prior of the angle about 0, 1 / radian^2.

    Returns
    -------
    Step
        The improved values.
    """
    which = (prior > 0).nonzero()[:, 0]
    centered = space.turn(patches, -theta)
    own = turned_shape(shape, -theta)
    value, precision = [own[:, which]], [prior[which] ** -2]
    if turn:
        value.append(wrapped(theta)[:, None])
        precision.append(torch.full_like(prior[:1], angle_precision))
    if content is not None:
        value.append(content[0])
        precision.append(content[1] ** -2)
    slope = slopes(space, templates, which, turn, None if content is None else content[2])
    damping = torch.cat(precision)
    weighted = slope * weight.flatten()
    curvature = weighted @ slope.transpose(1, 2) + torch.diag(damping)
    pull = (weighted @ (centered - templates).flatten(1)[:, :, None])[..., 0] - damping * torch.cat(value, 1)
    trust = 1e-6 * curvature.diagonal(dim1=1, dim2=2).amax(1).clamp_min(1e-12)
    inverse = torch.linalg.inv(
        curvature + trust[:, None, None] * torch.eye(curvature.shape[-1], device=curvature.device)
    )
    step = (inverse @ pull[:, :, None])[..., 0]
    limit = torch.tensor([0.7, 0.7, 0.08, 0.08, 0.08], device=shape.device)  # the model is linear only so far
    limit = torch.cat([limit[which], limit.new_tensor([0.1] * turn + [0.7] * (step.shape[1] - len(which) - turn))])
    step = step.clamp(-limit, limit)
    gain = (step * (2 * pull - (curvature @ step[:, :, None])[..., 0])).sum(1)
    change = torch.zeros_like(own)
    change[:, which], p = step[:, : len(which)], len(which)
    if turn:
        theta = theta + step[:, p]
    z = content[0] + step[:, p + turn :] if content is not None else None
    return Step(theta, turned_shape(own + change, theta), z, inverse, gain)
