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

Harmonics are stored as real vectors ``[real parts, imaginary parts]`` of length 2 T, per channel. Mirrored along x or
y, each of them keeps its value or changes its sign, so all matrices are known from one quadrant of the pixels.
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
        quadrant = Quadrant(size)
        basis = quadrant.basis(order, ring)
        weighted = quadrant.analysis(basis, order)
        freedom = np.bincount(np.tile(ring, 2), weighted**2 @ quadrant.count)
        buffers = {
            "analysis": quadrant.unfolded(weighted, order),
            "synthesis": quadrant.unfolded(basis, order).T,
            "order": order,
            "ring": ring,
            "theta": theta,
            "circle": np.concatenate([np.cos(phase), -np.sin(phase)]).round(12),  # zeros shall be zeros
            "degrees_of_freedom": freedom,
        }
        for name, values in buffers.items():
            kept = values if values.dtype.kind == "i" else without_denormals(values)
            self.register_buffer(name, torch.as_tensor(kept), persistent=False)
        self._made: tuple[Tensor, list[Tensor], list[list[Tensor]]] | None = None

    @property
    def terms(self) -> int:
        """Number T of complex harmonics of one channel."""
        return len(self.order)

    def by_ring(self, each: Tensor) -> Tensor:
        """Sums over the harmonics of every ring, (n, rings), of values (n, 2 T); the same ones give the same sums."""
        member = self.ring.repeat(2)[:, None] == torch.arange(self.rings, device=each.device)
        return each @ member.to(each.dtype)  # additions in no fixed order, as by index, would not

    @property
    def generators(self) -> Tensor:
        """What a small change of pose does to a template's harmonics: (5, 2 T, 2 T), made on first use.

        ``d harmonics / d p = generators[p] @ harmonics`` for p in `GENERATORS`: offsets in patch pixels, strain and
        logarithmic scale without unit. The window stays where it is while the motif moves under it.
        """
        return self._changes()[0]

    def _changes(self) -> tuple[Tensor, list[Tensor], list[list[Tensor]]]:
        """The generators; the harmonics of each parity; and by generator and parity, the only block that is not 0."""
        if self._made is None or self._made[0].device != self.analysis.device:
            device, order = self.analysis.device, self.order.cpu().numpy()
            made = torch.as_tensor(_generators(self.size, order, self.ring.cpu().numpy()), device=device)
            parity = torch.as_tensor(_parity(order), device=device)
            rows = [(parity == kind).nonzero()[:, 0] for kind in range(4)]
            blocks = [
                [generator[rows[kind ^ flip]][:, rows[kind]].T.contiguous() for kind in range(4)]
                for generator, flip in zip(made, _FLIPS, strict=True)
            ]
            self._made = made, rows, blocks
        return self._made

    def slopes(self, harmonics: Tensor, which: Tensor) -> Tensor:
        """What small changes of pose do to templates: products with some of the generators, parity by parity.

        Parameters
        ----------
        harmonics : torch.Tensor
            (n, channels, 2 T).
        which : torch.Tensor
            (p,) positions in `GENERATORS`.

        Returns
        -------
        torch.Tensor
            (n, p, channels, 2 T).
        """
        _, rows, blocks = self._changes()
        result = harmonics.new_empty(len(harmonics), len(which), *harmonics.shape[1:])
        for kind in range(4):
            part = harmonics.index_select(-1, rows[kind])
            for number, p in enumerate(which.tolist()):
                result[:, number].index_copy_(-1, rows[kind ^ _FLIPS[p]], part @ blocks[p][kind])
        return result

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


_FLIPS = (1, 2, 0, 3, 0)
"""Which parity, as in `_parity`, each of `GENERATORS` exchanges."""


def _parity(order: NDArray[np.int64]) -> NDArray[np.int64]:
    """Parity of real and imaginary parts, (2 T,): 1 where odd along x, plus 2 where odd along y."""
    odd = order % 2
    return np.concatenate([odd, 3 - odd])


class Quadrant:
    """The pixels with negative x and y, from which the others follow.

    Parameters
    ----------
    size : int
        Side D of the patch in pixels; that of the quadrant is H = ceil(D / 2).

    Attributes
    ----------
    x, y : numpy.ndarray
        (H * H,) coordinates from the centre of the patch.
    count : numpy.ndarray
        (H * H,): how many pixels of the patch are alike each of these but for signs.
    taper : numpy.ndarray
        (H * H,): `radial_taper` there.
    """

    def __init__(self, size: int) -> None:
        axis = np.arange(-(-size // 2)) - (size - 1) / 2
        y, x = np.meshgrid(axis, axis, indexing="ij")
        self.size, self.x, self.y = size, x.ravel(), y.ravel()
        self.count = np.where(self.x == 0, 1.0, 2.0) * np.where(self.y == 0, 1.0, 2.0)
        self.radius = np.hypot(self.x, self.y)
        self.taper = _taper_at(self.radius, size)

    def waves(self, order: NDArray[np.int64], ring: NDArray[np.int64]) -> NDArray[np.complex128]:
        """Cylindrical waves J_m(2 pi k r) exp(-i m psi), (T, H * H)."""
        radii, where = np.unique(self.radius.round(9), return_inverse=True)  # few on a pixel grid
        bessel = _bessel(2 * np.pi * (np.arange(ring.max() + 1)[:, None] + 0.5) / self.size * radii, abs(order).max())
        orders, which = np.unique(order, return_inverse=True)
        turns = np.exp(-1j * orders[:, None] * np.arctan2(self.y, self.x))
        sign = np.where((order < 0) & (order % 2 == 1), -1.0, 1.0)
        waves: NDArray[np.complex128] = (sign[:, None] * bessel[ring, :, abs(order)])[:, where] * turns[which]
        return waves

    def basis(self, order: NDArray[np.int64], ring: NDArray[np.int64]) -> NDArray[np.float64]:
        """Rows of the untapered transform, (2 T, H * H)."""
        scale = np.sqrt(np.where(order == 0, 2, 4) * np.pi * (ring + 0.5)) / self.size
        waves = self.waves(order, ring) * scale[:, None]
        return np.concatenate([waves.real, waves.imag])

    def analysis(self, basis: NDArray[np.float64], order: NDArray[np.int64]) -> NDArray[np.float64]:
        """Rows of the tapered transform, which removes the mean under the taper, (2 T, H * H)."""
        weighted, even = basis * self.taper, _parity(order) == 0  # nothing else has a mean
        share = self.taper / (self.count @ self.taper)
        weighted[even] -= np.outer(weighted[even] @ self.count, share)
        return weighted

    def unfolded(self, rows: NDArray[np.float64], order: NDArray[np.int64]) -> NDArray[np.float64]:
        """Rows of a transform at all pixels, (2 T, D * D)."""
        parity, other = _parity(order)[:, None, None], self.size // 2
        corner = rows.reshape(len(rows), -(-self.size // 2), -1)
        left = np.concatenate([corner, np.where(parity % 2, -1, 1) * corner[:, :, :other][:, :, ::-1]], 2)
        whole = np.concatenate([left, np.where(parity // 2, -1, 1) * left[:, :other][:, ::-1]], 1)
        return whole.reshape(len(rows), -1)


def _bessel(argument: NDArray[np.float64], highest: int) -> NDArray[np.float64]:
    """Bessel functions J_0 to J_highest of many arguments, (..., orders): the Fourier series of exp(i z sin phi)."""
    count = 2 ** math.ceil(math.log2(argument.max() + highest + 50))
    wave = np.exp(1j * argument[..., None] * np.sin(np.arange(count) * 2 * np.pi / count))
    series: NDArray[np.float64] = np.fft.fft(wave)[..., : highest + 1].real / count
    return series


def _generators(size: int, order: NDArray[np.int64], ring: NDArray[np.int64]) -> NDArray[np.float32]:
    """Derivatives of harmonics with respect to the pose, (5, 2 T, 2 T), from the slopes of the basis images."""
    quadrant, parity, step = Quadrant(size), _parity(order), 1e-4
    x, y, radius, taper = quadrant.x, quadrant.y, quadrant.radius.clip(1e-9), quadrant.taper
    fall = (_taper_at(radius + step, size) - _taper_at(radius - step, size)) / (2 * step * radius)
    untaper = 1.05 * taper / (taper**2 + 0.05)  # the synthesised image is the motif times the taper
    lower, upper = quadrant.waves(order - 1, ring), quadrant.waves(order + 1, ring)
    slope = np.sqrt(np.where(order == 0, 2, 4) * np.pi * (ring + 0.5)) / size * np.pi * (ring + 0.5) / size
    along_x, along_y = slope[:, None] * (lower - upper), -1j * slope[:, None] * (lower + upper)
    basis = quadrant.basis(order, ring)
    tapering = basis * (untaper * fall)  # the taper's own slope stays where it is
    slope_x = np.concatenate([along_x.real, along_x.imag]) - tapering * x
    slope_y = np.concatenate([along_y.real, along_y.imag]) - tapering * y
    weighted = quadrant.analysis(basis, order) * (untaper * quadrant.count)
    # the motif moves along a displacement field v: d motif = -v . grad motif
    fields = [(1 + 0 * x, 0 * x), (0 * x, 1 + 0 * x), (x, -y), (y, x), (x, y)]
    made = np.zeros((len(fields), len(parity), len(parity)), np.float32)
    for generator, flip, (vx, vy) in zip(made, _FLIPS, fields, strict=True):
        for kind in range(4):
            row, column = parity == kind ^ flip, parity == kind
            change = slope_x[column] * vx + slope_y[column] * vy
            generator[np.ix_(row, column)] = -weighted[row] @ change.T
    return made
