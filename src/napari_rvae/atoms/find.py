"""Candidates: maxima of a matched filter in units of its own noise, so that one threshold serves every dose."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, maximum_filter

from napari_rvae.atoms.scale import Array, Frame, Noise, estimate_contrast, estimate_noise, lattice_period, standard_frame
from napari_rvae.settings import FindSettings

LOWEST = 2.0  # maxima below are never candidates


@dataclass(frozen=True)
class Detection:
    """An image with its filter response, ready for any threshold: what a live preview keeps.

    Parameters
    ----------
    frame : Frame
        The image in standard units.
    noise : Noise
        Its noise.
    sigma : float
        Width of an atom, pixels.
    period : float or None
        Distance of lattice planes, pixels; None where there is no lattice.
    response, error : numpy.ndarray
        float32 (y, x): filter response in standard deviations of its noise, and that of an amplitude.
    maxima, heights : numpy.ndarray
        (n, 2) positions of its maxima, pixels, and their heights, highest first.
    threshold : float
        What counts as an atom when nobody says otherwise.
    """

    frame: Frame
    noise: Noise
    sigma: float
    period: float | None
    response: Array
    error: Array
    maxima: NDArray[np.float64]
    heights: Array
    threshold: float

    def positions(self, threshold: float | None = None) -> NDArray[np.float64]:
        """Positions (n, 2) of all maxima above `threshold`, or above the automatic one; below a millisecond."""
        limit = self.threshold if threshold is None else threshold
        return self.maxima[: int(np.searchsorted(-self.heights, -limit, side="right"))]

    @property
    def contrast(self) -> str:
        """``"bright"`` or ``"dark"``."""
        return "bright" if self.frame.sign > 0 else "dark"


def prepare(image: Any, settings: FindSettings | None = None) -> Detection:
    """Estimate what the settings leave open and filter the image once.

    Parameters
    ----------
    image : array_like
        (y, x).
    settings : FindSettings, optional
        What is already known.

    Returns
    -------
    Detection
        ``positions(threshold)`` gives atoms at pixel accuracy for any threshold.

    Raises
    ------
    InputDataError
        If the image cannot be used.
    """
    settings = settings or FindSettings()
    return detect(standard_frame(image), settings)


def detect(frame: Frame, settings: FindSettings) -> Detection:
    """`prepare` for an image that is already in standard units."""
    noise = estimate_noise(frame.pixels)
    period = lattice_period(frame.pixels, noise)
    sigma = settings.sigma or estimate_sigma(frame, noise, settings, period is None)
    response, error = filter_response(frame.pixels, noise, sigma)
    contrast = settings.contrast if settings.contrast != "auto" else estimate_contrast(response)
    if contrast == "dark":
        frame, noise, response = frame.inverted(), replace(noise, gain=-noise.gain), -response
    if period is None:
        texture = texture_noise(response, sigma)
        response, error = response / texture, error * texture
    separation = 0.5 * settings.spacing if settings.spacing else 1.5 * sigma
    maxima, heights = find_maxima(response, LOWEST, separation, frame.invalid)
    threshold = settings.threshold if settings.threshold is not None else rare(sigma)
    return Detection(frame, noise, sigma, period, response, error, maxima, heights, threshold)


def texture_noise(response: Array, sigma: float) -> Array:
    """How much rougher than its noise an image without a lattice is around every pixel, at least 1.

    Atoms are bright: what is dark shows how much a structureless background varies at their scale.
    """
    dark = np.minimum(response, 0)
    rough = gaussian_filter(dark * dark, 12 * sigma, truncate=2)
    return np.maximum(np.sqrt(2 * rough), 1).astype(np.float32)


def rare(sigma: float) -> float:
    """Height above which smoothed white noise has one maximum in two megapixels.

    Maxima of a Gaussian field above t have a density of ``t exp(-t^2 / 2) / ((2 pi)^1.5 2 sigma^2)`` where its
    correlation falls off as ``exp(-r^2 / (4 sigma^2))`` (Adler, The Geometry of Random Fields, 1981).
    """
    height = np.linspace(2.5, 7, 451)
    density = height * np.exp(-(height**2) / 2) / ((2 * np.pi) ** 1.5 * sigma**2)  # surroundings make it twice as rough
    return float(height[np.argmax(density < 0.5e-6)])


def filter_response(
    pixels: Array, noise: Noise, sigma: float, surround: float = 2.0, mean: Array | None = None
) -> tuple[Array, Array]:
    """Response of a matched filter (a Gaussian less its surroundings), divided by its standard deviation.

    Parameters
    ----------
    pixels : numpy.ndarray
        (y, x), standard units.
    noise : Noise
        Noise of the pixels.
    sigma : float
        Width of an atom, pixels.
    surround : float
        Width of the surroundings, in `sigma`.
    mean : numpy.ndarray, optional
        What sets the local noise, if not the pixels themselves.

    Returns
    -------
    response, error : numpy.ndarray
        float32 (y, x): the response, and the standard deviation of an amplitude measured by it; their product is the
        amplitude of an atom of this width.
    """
    (top, bottom), (left, right) = (_padding(side, 4 * surround * sigma) for side in pixels.shape)
    # odd reflection continues a slope, so that a gradient has no response at the border
    padded = np.pad(pixels, ((top, bottom), (left, right)), mode="reflect", reflect_type="odd")
    ky = np.fft.fftfreq(padded.shape[0]).astype(np.float32)[:, None]
    kx = np.fft.rfftfreq(padded.shape[1]).astype(np.float32)[None, :]
    atom = np.exp(-((2 * np.pi * sigma) ** 2) * (ky**2 + kx**2) / 2)
    power = noise.spectrum(ky, kx)
    transfer = atom * (1 - atom ** (surround**2)) / power
    weight = np.full(kx.shape[1], 2.0 / padded.size)  # rfft holds half of the plane
    weight[0] /= 2
    height = 2 * np.pi * sigma**2 * float(((transfer * atom) @ weight).sum())
    spread = np.sqrt(float(((transfer**2 * power) @ weight).sum())) / height
    del atom, power
    spectrum = scipy.fft.rfft2(padded, workers=-1)
    spectrum *= transfer
    filtered = scipy.fft.irfft2(spectrum, s=padded.shape, workers=-1)
    local = gaussian_filter(pixels if mean is None else mean, 2 * sigma, truncate=3)
    error = np.sqrt(noise.variance(local)) * np.float32(spread)
    response = filtered[top : padded.shape[0] - bottom, left : padded.shape[1] - right]
    return (response / (np.float32(height) * error)).astype(np.float32), error.astype(np.float32)


def _padding(side: int, wanted: float) -> tuple[int, int]:
    """Pixels to add before and after, at most what a reflection can give, to a length good for FFTs."""
    before = min(int(np.ceil(wanted)), side - 1)
    return before, min(scipy.fft.next_fast_len(side + 2 * before, real=True) - side - before, side - 1)


def find_maxima(
    response: Array, threshold: float, separation: float, invalid: NDArray[np.bool_] | None = None
) -> tuple[NDArray[np.float64], Array]:
    """Maxima of the response above a threshold, highest first, none nearer than `separation` to a higher one."""
    size = 2 * max(1, int(separation / np.sqrt(2))) + 1
    peak = (response == maximum_filter(response, size=size)) & (response > threshold)
    if invalid is not None:
        peak &= ~invalid
    where = np.argwhere(peak)
    heights = response[peak]
    order = np.argsort(-heights, kind="stable")
    return where[order].astype(np.float64), heights[order]


def estimate_sigma(frame: Frame, noise: Noise, settings: FindSettings, isolated: bool) -> float:
    """Width of an atom: of the mean patch around candidates chosen on the other half of the pixels.

    Starts at the finest scale and goes on to the first at which something stands out of the noise.
    """
    pixels = frame.pixels[:2048, :2048]
    sign = -1 if settings.contrast == "dark" else 1
    start = 0.2 * settings.spacing if settings.spacing else 1.0
    largest = min(pixels.shape) / 20
    for scale in start * 1.4 ** np.arange(20):
        if scale > largest:
            break
        sigma = float(scale)
        for _ in range(6):
            previous = sigma
            width, count = _mean_width(sign * pixels, noise, sigma, settings, isolated)
            if count < 3 or not 0.5 < width < largest:
                break
            sigma = width
            if abs(sigma - previous) < 0.02 * sigma:
                return sigma
        else:
            return sigma
    return float(start * 2)


def _mean_width(
    pixels: Array, noise: Noise, sigma: float, settings: FindSettings, isolated: bool
) -> tuple[float, int]:
    """Width of a Gaussian fitted to the mean patch at scale `sigma`, and how many candidates made it."""
    rows, columns = np.indices(pixels.shape, sparse=True)
    chosen = (rows + columns) % 2 == 0
    smooth = gaussian_filter(pixels, 3 * sigma)
    half = np.where(chosen, 2 * (pixels - smooth), 0).astype(np.float32)
    response = filter_response(half, noise, sigma, mean=pixels)[0] / np.float32(np.sqrt(2))
    if isolated:
        response /= texture_noise(response, sigma)
    maxima, _ = find_maxima(response, rare(sigma), 0.5 * settings.spacing if settings.spacing else 2 * sigma)
    radius = int(np.ceil(max(6 * sigma, 6)))
    inside = np.all((maxima >= radius) & (maxima < np.array(pixels.shape) - radius), axis=1)
    centers = maxima[inside].astype(int)[:4000]
    if len(centers) < 3:
        return 0.0, len(centers)
    offsets = np.arange(-radius, radius + 1)
    y, x = np.meshgrid(offsets, offsets, indexing="ij")
    other = ((y + x) % 2 == 1) & (np.hypot(y, x) <= radius)
    values = pixels[centers[:, 0, None] + y[other], centers[:, 1, None] + x[other]]
    return _gaussian_width(np.hypot(y[other], x[other]), values.mean(0)), len(centers)


def _gaussian_width(distance: NDArray[np.float64], profile: Array) -> float:
    """Width of the Gaussian that fits a radial profile from its top to its first valley."""
    from scipy.optimize import least_squares

    ring = np.round(distance).astype(int)
    radial = np.bincount(ring, profile)[1:] / np.bincount(ring).clip(1)[1:]
    radial = np.convolve(np.pad(radial, 1, mode="edge"), [0.25, 0.5, 0.25], "valid")
    rising = np.flatnonzero(np.diff(radial) > 0)
    rising = rising[radial[rising] < 0.5 * (radial[0] + radial.min())]
    valley = max(rising[0] + 1 if len(rising) else len(radial), 3)

    def residual(p: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(p[0] * np.exp(-(near**2) / (2 * p[2] ** 2)) + p[1] - values, np.float64)

    near, values = distance[distance <= valley], profile[distance <= valley]
    guess = [float(np.ptp(values)), float(values.min()), 0.4 * valley]
    fit = least_squares(residual, guess, bounds=([0, -np.inf, 0.4], [np.inf, np.inf, 2.0 * valley]))
    return float(fit.x[2])
