"""How fine the structure is that patches hold: the highest spatial frequency that a model describes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_rvae.patches import Patches, smoothing
from napari_rvae.polar import radial_taper

SEEN = 0.3
"""Part of the noise that must be left at a frequency for it to tell anything, in units of where most is left."""


def signal_band(patches: Patches) -> float:
    """Highest spatial frequency, cycles per patch pixel, at which patches hold more than noise: from 0.25 to 0.35."""
    some = patches.data[:: max(1, len(patches) // 500)].astype(np.float64)
    size = some.shape[-1]
    some = (some - some.mean((2, 3), keepdims=True)) * radial_taper(size)
    power = (np.abs(np.fft.fft2(some)) ** 2).mean((0, 1))
    frequency = np.fft.fftfreq(size)
    k = np.hypot(frequency[:, None], frequency)
    steps = patches.step if patches.cut else (None, None)
    left = np.outer(*(noise_spectrum(frequency, step) for step in steps))  # cutting has dimmed what is fine
    seen = left > SEEN * left.max()
    power = power / np.where(seen, left, 1)
    floor = np.median(power[seen & (k > 0.84 * k[seen].max() / 2**0.5)])
    rings = np.arange(0.25, 0.36, 0.025)
    masks = [seen & (k > ring - 0.025) & (k <= ring) for ring in rings]
    counts = np.array([mask.sum() for mask in masks])
    excess = np.array([power[mask].sum() for mask in masks]) / np.maximum(counts, 1) - 1.3 * floor
    total = (power[seen & (k <= 0.35)] - floor).clip(0).sum()
    matters = (excess > 0) & (excess * counts > 1e-3 * total)
    return float(rings[np.flatnonzero(matters)[-1]]) if matters.any() else 0.25


def noise_spectrum(frequency: NDArray[Any], step: float | None) -> NDArray[np.float64]:
    """Power that white noise of an image has in its patches, along one axis.

    Cubic splines between pixels (Unser, IEEE Signal Process. Mag. 16, 22 (1999)) and smoothing take some away.

    Parameters
    ----------
    frequency : numpy.ndarray
        (n,), cycles per patch pixel.
    step : float or None
        Image pixels per patch pixel; None for patches that were not cut from an image, which have all the noise.

    Returns
    -------
    numpy.ndarray
        (n,), in units of the noise's own power.
    """
    if step is None:
        return np.ones_like(frequency)
    folds = int(np.ceil(step)) + 3  # what is sampled too coarsely is folded back
    of_image = (frequency[:, None] + np.arange(-folds, folds + 1)) / step
    spline = np.sinc(of_image) ** 4 * 3 / (2 + np.cos(2 * np.pi * of_image))
    smoothed = _smoothed(of_image, smoothing(step))
    return np.asarray(np.square(spline * smoothed).sum(1) / step)


def _smoothed(frequency: NDArray[Any], width: float) -> NDArray[np.float64]:
    """What is left of an amplitude after smoothing with a Gaussian of so many pixels, as it is sampled at pixels."""
    reach = int(4 * width + 0.5)  # as SciPy cuts it off
    across = np.arange(-reach, reach + 1)
    kernel = np.exp(-0.5 * (across / max(width, 1e-9)) ** 2)
    phases = np.cos(2 * np.pi * frequency[..., None] * across)
    return np.asarray((phases * kernel).sum(-1) / kernel.sum())
