"""A simple scanning transmission electron microscope: atomic columns in, counts out, every position known."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

EXPONENT = 1.7  # contrast of a column grows as Z to this power


@dataclass(frozen=True)
class Columns:
    """Atomic columns as they are in the specimen.

    Parameters
    ----------
    positions : ndarray, (n, 2)
        y and x in nm, from the image's first pixel.
    strength : ndarray, (n,)
        Sum of Z**1.7 over the column's atoms.
    truth : DataFrame
        What else is known of each column; has a column ``class``.
    classes : tuple of str
        Name of each class.
    """

    positions: NDArray[np.float64]
    strength: NDArray[np.float64]
    truth: pd.DataFrame
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Scene:
    """A simulated image and its truth.

    Parameters
    ----------
    name : str
        What it shows.
    image : ndarray, uint16, (y, x)
        Counts.
    truth : DataFrame
        One row per atom in the image: ``atom_id``, ``y``, ``x`` (pixels), ``class`` and what else the scene knows.
    classes : tuple of str
        Name of each class.
    pixel_size : float
        Side of a pixel in nm.
    metadata : dict
        The microscope's parameters and the seed.
    """

    name: str
    image: NDArray[np.uint16]
    truth: pd.DataFrame
    classes: tuple[str, ...]
    pixel_size: float
    metadata: dict[str, object]


@dataclass(frozen=True)
class Microscope:
    """What the image suffers from. Lengths are in pixels unless they say nm.

    Parameters
    ----------
    size : int
        Side of the image.
    pixel_size : float
        Side of a pixel in nm.
    sigma : float
        Standard deviation of the probe in nm.
    dose : float
        Counts at the peak of the strongest column.
    tail, tail_width : float
        Share of a column's signal in the wide tail of the probe, and the tail's width in units of sigma.
    background, contamination : float
        Constant, and standard deviation of the smooth part, of what lies under the atoms (the strongest column is 1).
    drift, wobble : float
        Largest displacement over the scan: linear in time, and slowly varying. The truth moves with them.
    jitter : float
        Standard deviation of each line's displacement along x. Noise: the truth does not move.
    readout : float
        Standard deviation of the noise added to every pixel, in counts.
    """

    size: int = 512
    pixel_size: float = 0.018
    sigma: float = 0.042
    dose: float = 40.0
    tail: float = 0.12
    tail_width: float = 3.0
    background: float = 0.05
    contamination: float = 0.15
    drift: float = 4.0
    wobble: float = 0.6
    jitter: float = 0.25
    readout: float = 1.5

    @property
    def field(self) -> float:
        """Side of the image in nm."""
        return self.size * self.pixel_size

    def record(self, name: str, columns: Columns, seed: int = 0) -> Scene:
        """Take an image.

        Parameters
        ----------
        name : str
            Name of the scene.
        columns : Columns
            The specimen; columns outside the image still shine into it.
        seed : int
            Of drift, contamination and noise.

        Returns
        -------
        Scene
        """
        rng = np.random.default_rng(seed)
        positions = self._scanned(columns.positions / self.pixel_size, rng)
        signal = self._columns(positions, columns.strength / columns.strength.max(), rng)
        signal += self.background + self._contamination(rng)
        counts = rng.poisson(self.dose * np.clip(signal, 0, None)) + self.readout * rng.standard_normal(signal.shape)
        inside = np.all((positions > -0.5) & (positions < self.size - 0.5), 1)
        truth = columns.truth[inside].reset_index(drop=True)
        places = pd.DataFrame(positions[inside], columns=["y", "x"])
        truth = pd.concat([pd.Series(np.arange(len(places)), name="atom_id"), places, truth], axis=1)
        image = np.clip(np.round(counts), 0, 65535).astype(np.uint16)
        return Scene(name, image, truth, columns.classes, self.pixel_size, {**asdict(self), "seed": seed})

    def _scanned(self, positions: NDArray[Any], rng: np.random.Generator) -> NDArray[np.float64]:
        """Positions as the drifting, wobbling scan sees them; a line's time is its y."""
        time = positions[:, :1] / self.size
        drift = self.drift * rng.uniform(-1, 1, 2) * time
        frequency, phase = rng.uniform(1, 3, (3, 1, 2)), rng.uniform(0, 2 * np.pi, (3, 1, 2))
        wobble = self.wobble * np.mean(np.sin(2 * np.pi * frequency * time + phase), 0)
        return np.asarray(positions + drift + wobble)

    def _columns(
        self, positions: NDArray[Any], amplitude: NDArray[Any], rng: np.random.Generator
    ) -> NDArray[np.float64]:
        sigma = self.sigma / self.pixel_size
        reach = int(np.ceil(4 * self.tail_width * sigma))
        jitter = np.pad(self.jitter * rng.standard_normal(self.size), reach, mode="edge")
        near = np.all((positions > -reach + 1) & (positions < self.size + reach - 2), 1)
        positions, amplitude = positions[near], amplitude[near]
        corner = np.floor(positions).astype(int) - reach // 2
        window = np.arange(reach)
        image = np.zeros((self.size + 2 * reach,) * 2)
        rows, columns = (corner[:, axis, None] + window for axis in (0, 1))
        keep = np.clip(rows + reach, 0, len(image) - 1)
        dy = rows - positions[:, :1]
        dx = columns[:, None, :] - positions[:, 1, None, None] - jitter[keep][:, :, None]
        for share, width in ((1 - self.tail, sigma), (self.tail, self.tail_width * sigma)):
            profile = share * amplitude[:, None, None] * np.exp(-(dy[:, :, None] ** 2 + dx**2) / (2 * width**2))
            np.add.at(image, (keep[:, :, None], np.clip(columns + reach, 0, len(image) - 1)[:, None, :]), profile)
        return np.asarray(image[reach:-reach, reach:-reach])

    def _contamination(self, rng: np.random.Generator) -> NDArray[np.float64]:
        from scipy.ndimage import gaussian_filter

        smooth = gaussian_filter(rng.standard_normal((self.size, self.size)), self.size / 12, mode="reflect")
        return np.asarray(self.contamination * (smooth - smooth.min()) / np.ptp(smooth))
