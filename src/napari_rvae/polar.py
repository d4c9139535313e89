"""Polar Fourier space, where turning a patch is a change of phase and all its angles are searched at once.

A patch x (D x D pixels r = (x, y), polar coordinates r, psi) becomes its angular harmonics on rings of spatial
frequency k_i = (i + 1/2) / D,

``h[i, m] = sqrt(4 pi k_i / D) * sum_r taper(r) x(r) J_m(2 pi k_i r) exp(-i m psi)``     (sqrt(2 pi k_i / D) for m = 0),

the polar Fourier transform with its Fourier series over the angle done in closed form (Jacobi-Anger expansion; Zhao &
Singer, J. Opt. Soc. Am. A 30, 871 (2013), use the same basis). x is real, so m >= 0 suffices, and a ring of radius k
holds no more than 2 pi k r_max harmonics, so the set is triangular: half the size of a rectangular one. With these
weights the transform keeps scalar products within the band, and

- turning a patch by theta (+x toward +y) multiplies h[i, m] by exp(-i m theta);
- the scalar product of a patch X with a template C turned by theta is Re sum X conj(C) exp(i m theta): one matrix
  product gives it for all angles;
- small offsets, strains and changes of scale of a template are matrices (`PolarSpace.generators`).

Harmonics are stored as real vectors ``[real parts, imaginary parts]`` of length 2 T, per channel.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

GENERATORS = ("dx", "dy", "strain_a", "strain_b", "scale")
"""Small changes of pose in the order of `PolarSpace.generators`."""


class PolarSpace(nn.Module):
    """Maps between patches of D x D pixels and their harmonics.

    Parameters
    ----------
    size : int
        Side D of the patches in pixels.
    k_max : float
        Highest spatial frequency in cycles per pixel.
    angles : int, optional
        Number of angles on the circle that are compared; enough for the band when omitted. 1 leaves out rotation.

    Attributes
    ----------
    analysis : torch.Tensor
        (2 T, D * D): harmonics = analysis @ pixels; removes the mean under the taper.
    synthesis : torch.Tensor
        (D * D, 2 T): pixels (under the taper) from harmonics.
    order : torch.Tensor
        (T,): the m of every harmonic.
    ring : torch.Tensor
        (T,): the ring of every harmonic.
    theta : torch.Tensor
        (J,): the angles compared, radian, the first one 0.
    circle : torch.Tensor
        (2 T, J): turns the products of two patches' harmonics into their correlation at all angles.
    degrees_of_freedom : torch.Tensor
        (rings,): independent coefficients per ring, the trace of analysis @ analysis.T there.
    """

    analysis: Tensor
    synthesis: Tensor
    order: Tensor
    ring: Tensor
    theta: Tensor
    circle: Tensor
    degrees_of_freedom: Tensor

    def __init__(self, size: int, k_max: float = 0.35, angles: int | None = None) -> None:
        super().__init__()
        self.size, self.k_max = size, k_max
        self.rings = ring_count(size, k_max)
        order, ring = triangle(self.rings)
        if angles is None:
            angles = 8 * math.ceil((2 * order.max() + 1) / 8)
        self.angles = angles
        theta = np.arange(angles) * 2 * np.pi / angles
        phase = order[:, None] * theta
        basis, taper = _basis(size, order, ring), radial_taper(size).ravel()
        weighted = basis * taper
        weighted -= np.outer(weighted.sum(1), taper / taper.sum())  # the mean under the taper is removed
        freedom = np.bincount(np.tile(ring, 2), (weighted**2).sum(1))
        buffers = {
            "analysis": weighted,
            "synthesis": basis.T,
            "order": order,
            "ring": ring,
            "theta": theta,
            "circle": np.concatenate([np.cos(phase), -np.sin(phase)]),
            "degrees_of_freedom": freedom,
        }
        for name, values in buffers.items():
            kept = values if values.dtype.kind == "i" else without_denormals(values)
            self.register_buffer(name, torch.as_tensor(kept), persistent=False)
        self._generators: Tensor | None = None

    @property
    def terms(self) -> int:
        """Number T of complex harmonics of one channel."""
        return len(self.order)

    @property
    def generators(self) -> Tensor:
        """What a small change of pose does to a template's harmonics: (5, 2 T, 2 T), made on first use.

        ``d harmonics / d p = generators[p] @ harmonics`` for p in `GENERATORS`: offsets in patch pixels, strain and
        logarithmic scale without unit. The window stays where it is while the motif moves under it.
        """
        if self._generators is None or self._generators.device != self.analysis.device:
            made = _generators(
                self.size, self.order.cpu().numpy(), self.ring.cpu().numpy(), self.analysis.cpu().numpy()
            )
            self._generators = torch.as_tensor(made, device=self.analysis.device)
        return self._generators

    def analyse(self, x: Tensor) -> Tensor:
        """Harmonics of patches.

        Parameters
        ----------
        x : torch.Tensor
            (n, channels, D, D).

        Returns
        -------
        torch.Tensor
            (n, channels, 2 T).
        """
        return x.flatten(-2) @ self.analysis.T

    def synthesise(self, harmonics: Tensor) -> Tensor:
        """Patches (zero mean, under the taper, within the band) of harmonics.

        Parameters
        ----------
        harmonics : torch.Tensor
            (n, channels, 2 T).

        Returns
        -------
        torch.Tensor
            (n, channels, D, D).
        """
        images: Tensor = (harmonics @ self.synthesis.T).unflatten(-1, (self.size, self.size))
        return images

    def turn(self, harmonics: Tensor, theta: Tensor) -> Tensor:
        """Turn patches by theta, from +x toward +y.

        Parameters
        ----------
        harmonics : torch.Tensor
            (n, channels, 2 T).
        theta : torch.Tensor
            (n,), radian.

        Returns
        -------
        torch.Tensor
            (n, channels, 2 T).
        """
        phase = theta[:, None, None] * self.order
        cosine, sine = phase.cos(), phase.sin()
        real, imaginary = harmonics.unflatten(-1, (2, -1)).unbind(-2)
        return torch.cat([real * cosine + imaginary * sine, imaginary * cosine - real * sine], -1)

    def turning(self, harmonics: Tensor) -> Tensor:
        """Derivative of `turn` with respect to theta at 0; same shapes."""
        real, imaginary = harmonics.unflatten(-1, (2, -1)).unbind(-2)
        return torch.cat([imaginary * self.order, -real * self.order], -1)

    def moved(self, harmonics: Tensor, shape: Tensor) -> Tensor:
        """A template moved, strained and scaled a little, by the exponential series of its generators.

        Parameters
        ----------
        harmonics : torch.Tensor
            (channels, 2 T).
        shape : torch.Tensor
            (5,) in the order of `GENERATORS`.

        Returns
        -------
        torch.Tensor
            (channels, 2 T).
        """
        generator = torch.einsum("p,pij->ij", shape, self.generators)
        term = result = harmonics
        for power in range(1, 5):
            term = term @ generator.T / power
            result = result + term
        return result

    def correlate(self, patches: Tensor, templates: Tensor) -> Tensor:
        """Scalar products of patches with templates turned by every angle.

        Parameters
        ----------
        patches, templates : torch.Tensor
            (..., channels, 2 T), broadcast against each other.

        Returns
        -------
        torch.Tensor
            (..., J): at angle theta[j] the template is turned by theta[j].
        """
        x, c = patches.unflatten(-1, (2, -1)), templates.unflatten(-1, (2, -1))
        real = (x * c).sum(-2)
        imaginary = x[..., 1, :] * c[..., 0, :] - x[..., 0, :] * c[..., 1, :]
        return torch.cat([real, imaginary], -1).sum(-2) @ self.circle

    def correlate_all(self, patches: Tensor, templates: Tensor) -> Tensor:
        """Scalar products of every patch with every template turned by every angle.

        Parameters
        ----------
        patches : torch.Tensor
            (n, channels, 2 T).
        templates : torch.Tensor
            (s, channels, 2 T).

        Returns
        -------
        torch.Tensor
            (n, s, J).
        """
        x, c = patches.unflatten(-1, (2, -1)), templates.unflatten(-1, (2, -1))
        quarter = torch.stack([x[:, :, 1], -x[:, :, 0]], 2)
        counts = torch.bincount(self.order).tolist()  # the harmonics are sorted by order
        series = x.new_empty(2, len(counts), len(x), len(c))
        parts = zip(x.split(counts, -1), quarter.split(counts, -1), c.split(counts, -1), strict=True)
        for m, (real, imaginary, template) in enumerate(parts):
            other = template.flatten(1).T
            torch.mm(real.flatten(1), other, out=series[0, m])
            torch.mm(imaginary.flatten(1), other, out=series[1, m])
        first = torch.cumsum(torch.tensor([0, *counts[:-1]]), 0).to(self.circle.device)
        waves = torch.cat([self.circle[first], self.circle[first + self.terms]])
        match: Tensor = (waves.T @ series.flatten(0, 1).flatten(1)).unflatten(1, (len(x), len(c)))
        return match.movedim(0, -1)


def radial_taper(size: int) -> NDArray[np.float64]:
    """Weight of every pixel: 1 inside, falling smoothly to 0 at the inscribed circle.

    Parameters
    ----------
    size : int
        Side of the patch in pixels.

    Returns
    -------
    numpy.ndarray
        (size, size).
    """
    return _taper_at(np.hypot(*pixel_grid(size)), size).reshape(size, size)


def _taper_at(radius: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    profile: NDArray[np.float64] = np.cos(np.pi / 2 * np.clip((radius / (size / 2) - 0.75) / 0.25, 0, 1)) ** 2
    return profile


def pixel_grid(size: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """X and y of the pixels of a patch, from its centre, (size * size,) each."""
    axis = np.arange(size) - (size - 1) / 2
    y, x = np.meshgrid(axis, axis, indexing="ij")
    return x.ravel(), y.ravel()


def ring_count(size: int, k_max: float) -> int:
    """Number of rings up to k_max, cycles per pixel, of patches of this size."""
    return max(2, round(k_max * size))


def triangle(rings: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Harmonics that a patch can hold, whatever its size.

    Parameters
    ----------
    rings : int
        How many rings there are.

    Returns
    -------
    order, ring : numpy.ndarray
        (T,) each, sorted by order.
    """
    limit = [math.ceil(math.pi * (ring + 0.5)) + 1 for ring in range(rings)]  # 2 pi k r_max with r_max = D / 2
    pairs = [(m, ring) for ring in range(rings) for m in range(limit[ring] + 1)]
    order, ring = np.array(sorted(pairs)).T
    return order, ring


def without_denormals(values: NDArray[np.float64]) -> NDArray[np.float32]:
    """In single precision, without numbers so small that processors multiply them a hundred times more slowly."""
    return np.where(abs(values) < 1e-20 * abs(values).max(), 0, values).astype(np.float32)


def _basis(size: int, order: NDArray[np.int64], ring: NDArray[np.int64]) -> NDArray[np.float64]:
    """Rows of the untapered transform, (2 T, D * D)."""
    scale = np.sqrt(np.where(order == 0, 2, 4) * np.pi * (ring + 0.5)) / size
    wave = _wave(size, order, ring) * scale[:, None]
    return np.concatenate([wave.real, wave.imag])


def _wave(size: int, order: NDArray[np.int64], ring: NDArray[np.int64]) -> NDArray[np.complex128]:
    """Cylindrical waves J_m(2 pi k r) exp(-i m psi), (T, D * D)."""
    from scipy.special import jv

    x, y = pixel_grid(size)
    radii, where = np.unique(np.hypot(x, y).round(9), return_inverse=True)  # few on a pixel grid
    k = (ring[:, None] + 0.5) / size
    bessel: NDArray[np.float64] = jv(order[:, None], 2 * np.pi * k * radii)
    waves: NDArray[np.complex128] = bessel[:, where] * np.exp(-1j * order[:, None] * np.arctan2(y, x))
    return waves


def _generators(
    size: int, order: NDArray[np.int64], ring: NDArray[np.int64], analysis: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Derivatives of harmonics with respect to the pose, from the slopes of the basis images."""
    x, y = pixel_grid(size)
    radius = np.hypot(x, y).clip(1e-9)
    taper, step = _taper_at(radius, size), 1e-4
    fall = (_taper_at(radius + step, size) - _taper_at(radius - step, size)) / (2 * step * radius)
    untaper = 1.05 * taper / (taper**2 + 0.05)  # the synthesised image is the motif times the taper
    lower, upper = _wave(size, order - 1, ring), _wave(size, order + 1, ring)
    slope = np.sqrt(np.where(order == 0, 2, 4) * np.pi * (ring + 0.5)) / size * np.pi * (ring + 0.5) / size
    along_x, along_y = slope[:, None] * (lower - upper), -1j * slope[:, None] * (lower + upper)
    tapering = _basis(size, order, ring) * (untaper * fall)  # the taper's own slope stays where it is
    slope_x = (np.concatenate([along_x.real, along_x.imag]) - tapering * x).astype(np.float32)
    slope_y = (np.concatenate([along_y.real, along_y.imag]) - tapering * y).astype(np.float32)
    # the motif moves along a displacement field v: d motif = -v . grad motif
    fields = [(1 + 0 * x, 0 * x), (0 * x, 1 + 0 * x), (x, -y), (y, x), (x, y)]
    weighted = analysis * untaper.astype(np.float32)
    return np.stack([-weighted @ (slope_x * vx + slope_y * vy).T for vx, vy in fields]).astype(np.float32)
