"""How fine the structure is that patches hold: the highest spatial frequency that a model describes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_rvae.patches import Patches, smoothing
from napari_rvae.polar import radial_taper

SEEN = 0.3
"""Part of an image's noise that must be left in patches for a frequency to tell anything."""


def signal_band(patches: Patches) -> float:
    """Highest spatial frequency, cycles per patch pixel, at which patches hold more than noise: from 0.25 to 0.35."""
    some = patches.data[:: max(1, len(patches) // 500)].astype(np.float64)
    size = some.shape[-1]
    some = (some - some.mean((2, 3), keepdims=True)) * radial_taper(size)
    power = (np.abs(np.fft.fft2(some)) ** 2).mean((0, 1))
    frequency = np.fft.fftfreq(size)
    k = np.hypot(frequency[:, None], frequency)
    steps = patches.step if patches.cut else (None, None)
    along_y, along_x = (noise_spectrum(frequency, step) for step in steps)  # cutting has dimmed what is fine
    seen = np.outer(along_y > SEEN, along_x > SEEN)
    power = power / np.where(seen, np.outer(along_y, along_x), 1)
    floor = np.median(power[seen & (k > 0.84 * k[seen].max() / 2**0.5)])
    rings = np.arange(0.25, 0.36, 0.025)
    masks = [seen & (k > ring - 0.025) & (k <= ring) for ring in rings]
    counts = np.array([mask.sum() for mask in masks])
    excess = np.array([power[mask].sum() for mask in masks]) / np.maximum(counts, 1) - 1.05 * floor
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
    of_image = (frequency[:, None] + np.arange(-4, 5)) / step  # what is sampled too coarsely is folded back
    spline = np.sinc(of_image) ** 4 * 3 / (2 + np.cos(2 * np.pi * of_image))
    of_pixels = (of_image - np.rint(of_image))[..., None] + np.arange(-1, 2)
    smoothed = np.exp(-2 * (np.pi * of_pixels * smoothing(step)) ** 2).sum(-1) if smoothing(step) else 1.0
    return np.asarray(np.square(spline * smoothed).sum(1) / step)
