"""Candidates: maxima of a matched filter in units of its own noise, so that one threshold serves every dose."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from napari_rvae.atoms.compounds import flattened, levelled, object_maxima, object_threshold, smoothing
from napari_rvae.atoms.frame import Array, Frame, standard_frame
from napari_rvae.atoms.noise import Noise, estimate_noise
from napari_rvae.atoms.parallel import go_on
from napari_rvae.atoms.response import (
    along,
    filter_response,
    find_maxima,
    image_values,
    rare,
    roundness,
    texture_limit,
)
from napari_rvae.atoms.scale import Scale, estimate_scale
from napari_rvae.atoms.windows import SIGMA, contrasts, grid
from napari_rvae.errors import InputDataError
from napari_rvae.settings import FindSettings

RIDGE = 0.2  # roundness below which a lone maximum belongs to a line or a step
LINE = 0.36  # part of the response that is left on either side, above which a lone maximum belongs to a line or a step
BROAD = 1.5  # an atom measured with a filter twice as wide shows 0.4 of its amplitude, a hill 4 times
CONTOUR = 1.5  # steps: nothing lower is seen among contours
LOWEST = 2.0  # maxima below are never candidates
SURROUND = {"auto": 2.0, "maxima": 8.0, "dog": 1.6, "log": 1.05}  # width of what is taken off, in that of an atom
ANY = -1.0  # lower than the contrast of every window
SURE = 10.0  # per cent above its threshold from which a learned finder is sure


class Finder(Protocol):
    """What a learned finder can do; `napari_rvae.models.finder.LearnedFinder` is one."""

    certainty: float
    error: float

    def spacing(self, sigma: float, period: float | None, known: float | None = None) -> float:
        """Neighbour distance of an image, pixels, from what was estimated of it."""

    def candidates(
        self, pixels: Array, spacing: float, stop: Callable[[], bool] | None = None
    ) -> tuple[NDArray[np.float64], Array]:
        """Positions (n, 2) and certainties in per cent, highest first."""


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
    lattice : bool
        Whether the image has a lattice.
    response, error : numpy.ndarray
        float32 (y, x): filter response in standard deviations of its noise, and that of an amplitude.
    texture : numpy.ndarray or None
        How much higher than in plain noise an atom must stand; None where the image has a lattice.
    maxima, heights : numpy.ndarray
        (n, 2) positions of the response's maxima, pixels, and their heights, highest first.
    threshold : float
        What counts as an atom when nobody says otherwise.
    period : float or None
        Distance of the lattice's strongest planes, pixels.
    search : str
        How atoms are looked for, as in `FindSettings`. Where it is learned, heights and threshold are per cent of
        certainty; of windows on a grid, contrasts in units of the noise.
    trusted : float
        Standard deviation of positions, pixels, where they are learned.
    flat : numpy.ndarray or None
        (y, x): the image less steps, slopes and shifts of scan lines, where molecules are looked for as a whole.
    means : numpy.ndarray or None
        (n,) means around the middles of windows on a grid, in the order of `maxima`.
    """

    frame: Frame
    noise: Noise
    sigma: float
    lattice: bool
    response: Array
    error: Array
    texture: Array | None
    maxima: NDArray[np.float64]
    heights: Array
    threshold: float
    period: float | None = None
    search: str = "auto"
    trusted: float = 0.0
    flat: Array | None = None
    means: Array | None = None

    @property
    def compound(self) -> bool:
        """Whether molecules are looked for as a whole, at a lattice or not."""
        return self.flat is not None

    def positions(self, threshold: float | None = None) -> NDArray[np.float64]:
        """Positions (n, 2) of all maxima above `threshold`, or above the automatic one; about a millisecond.

        Where the background has texture, either is raised by it, as `find_atoms` does.
        """
        limit = self.threshold if threshold is None else threshold
        return self.maxima[self.heights > limit * self.roughness(self.maxima)]

    def roughness(self, positions: NDArray[np.float64]) -> NDArray[np.float64]:
        """By how much the texture of the background raises the threshold at positions (n, 2)."""
        if self.texture is None:
            return np.ones(len(positions))
        return image_values(self.texture, positions)

    @property
    def contrast(self) -> str:
        """``"bright"`` or ``"dark"``."""
        return "bright" if self.frame.sign > 0 else "dark"

    def again(
        self,
        settings: FindSettings,
        finder: Finder | None = None,
        stop: Callable[[], bool] | None = None,
    ) -> Detection:
        """`prepare` for the same image and other settings; its noise is not measured again."""
        frame, noise = self.frame, self.noise
        if frame.sign < 0:
            frame, noise = frame.inverted(), replace(noise, gain=-noise.gain)
        return _detect(frame, noise, settings, finder, stop)


def prepare(
    image: Any,
    settings: FindSettings | None = None,
    finder: Finder | None = None,
    stop: Callable[[], bool] | None = None,
) -> Detection:
    """Estimate what the settings leave open and filter the image once.

    Parameters
    ----------
    image : array_like
        (y, x).
    settings : FindSettings, optional
        What is already known.
    finder : Finder, optional
        The learned finder, where the settings ask for one.
    stop : callable, optional
        Polled between steps, which take long on large images.

    Returns
    -------
    Detection
        ``positions(threshold)`` gives atoms at pixel accuracy for any threshold.

    Raises
    ------
    InputDataError
        If the image cannot be used, or the finder is missing.
    Stopped
        If `stop` said so.
    """
    settings = settings or FindSettings()
    return detect(standard_frame(image), settings, finder, stop)


def detect(
    frame: Frame, settings: FindSettings, finder: Finder | None = None, stop: Callable[[], bool] | None = None
) -> Detection:
    """`prepare` for an image that is already in standard units."""
    go_on(stop)
    return _detect(frame, estimate_noise(frame.pixels, frame.step), settings, finder, stop)


def _detect(
    frame: Frame, noise: Noise, settings: FindSettings, finder: Finder | None, stop: Callable[[], bool] | None
) -> Detection:
    go_on(stop)
    if settings.search == "grid":
        return _windows(frame, noise, settings)
    if settings.search == "learned":
        settings = settings.model_copy(update={"target": "atoms"})  # what is looked for is what was shown to it
    scale = estimate_scale(frame, noise, settings)
    go_on(stop)
    if scale.sign < 0:
        frame, noise = frame.inverted(), replace(noise, gain=-noise.gain)
    if settings.search == "learned":
        return _learned(frame, noise, scale, settings, finder, stop)
    sigma = scale.sigma
    flat, level = None, noise
    if scale.compound:
        flat, level = levelled(frame.pixels, noise, frame.step)
        flat = flattened(flat, sigma)
    pixels = frame.pixels if flat is None else flat
    response, error = filter_response(pixels, level, sigma, SURROUND[settings.search], mean=frame.pixels)
    go_on(stop)
    if flat is not None:
        quieter = smoothing(sigma)
        response, error = response * quieter, error / quieter
        maxima, heights = object_maxima(response, sigma, LOWEST)
        threshold = settings.threshold or object_threshold(heights, sigma, response.size)
        return Detection(frame, noise, sigma, False, response, error, None, maxima, heights, threshold, flat=flat)
    separation = 0.5 * settings.spacing if settings.spacing else 1.5 * sigma
    maxima, heights = find_maxima(response, LOWEST, separation, frame.invalid)
    real = ~_contours(frame, noise, maxima, heights * image_values(error, maxima))
    maxima, heights = maxima[real], heights[real]
    texture = None
    if not scale.lattice:
        texture = texture_limit(response, sigma)
        go_on(stop)
        wide, wide_error = filter_response(frame.pixels, noise, 2 * sigma)
        go_on(stop)
        broad = image_values(wide * wide_error, maxima) > BROAD * heights * image_values(error, maxima)
        spots = is_spot(response, maxima, sigma) & ~broad
        maxima, heights = maxima[spots], heights[spots]
    threshold = settings.threshold if settings.threshold is not None else rare(sigma, scale.lattice)
    return Detection(
        frame, noise, sigma, scale.lattice, response, error, texture, maxima, heights, threshold,
        scale.period, settings.search,
    )  # fmt: skip


def is_spot(response: Array, maxima: NDArray[np.float64], sigma: float) -> NDArray[np.bool_]:
    """Which maxima (n, 2) of a response are spots, and none of a line or a step."""
    return (roundness(response, maxima, sigma) > RIDGE) & (along(response, maxima, sigma) < LINE)


def _learned(
    frame: Frame,
    noise: Noise,
    scale: Scale,
    settings: FindSettings,
    finder: Finder | None,
    stop: Callable[[], bool] | None,
) -> Detection:
    """What a learned finder says; noise and width are still needed for amplitudes."""
    if finder is None:
        raise InputDataError("Finding atoms as learned needs a finder: train one, or give the file of one.")
    spacing = finder.spacing(scale.sigma, scale.period, settings.spacing)
    maxima, heights = finder.candidates(frame.pixels, spacing, stop)
    if frame.invalid is not None and len(maxima):
        known = image_values(frame.invalid.astype(np.float32), maxima) == 0
        maxima, heights = maxima[known], heights[known]
    response, error = filter_response(frame.pixels, noise, scale.sigma)
    threshold = settings.threshold if settings.threshold is not None else finder.certainty
    return Detection(
        frame, noise, scale.sigma, scale.lattice, response, error, None, maxima, heights, threshold,
        scale.period, "learned", finder.error * spacing,
    )  # fmt: skip


def _windows(frame: Frame, noise: Noise, settings: FindSettings) -> Detection:
    """Windows on a grid; their height is their contrast, of which any will do."""
    places, step = grid(frame.pixels.shape, settings.spacing)
    means, heights = contrasts(frame, noise, places, step)
    order = np.argsort(-heights, kind="stable")
    level, error = (np.broadcast_to(np.float32(value), frame.pixels.shape) for value in (0, 1))
    threshold = ANY if settings.threshold is None else settings.threshold
    return Detection(
        frame, noise, SIGMA * step, False, level, error, None, places[order], heights[order], threshold, step, "grid",
        means=means[order],
    )  # fmt: skip


def _contours(
    frame: Frame, noise: Noise, maxima: NDArray[np.float64], amplitude: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Which maxima may be mere contours, as an image has them in steps (counts, 8 bits) coarser than its noise."""
    if not frame.step or not len(maxima):
        return np.zeros(len(maxima), bool)
    variance = noise.gain * image_values(frame.pixels, maxima) + noise.floor
    return np.asarray((variance < 0.1 * frame.step**2) & (amplitude < CONTOUR * frame.step))
