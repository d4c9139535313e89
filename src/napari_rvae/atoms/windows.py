"""Windows on a regular grid: what is learned from where an image shows no atoms, as domains and their walls."""

from __future__ import annotations

import numpy as np
import pandas as pd

from napari_rvae.atoms.filters import box_mean
from napari_rvae.atoms.frame import Array, Floats, Frame
from napari_rvae.atoms.noise import Noise
from napari_rvae.errors import InputDataError

USUAL = 2500  # windows of an image where no spacing is given
MOST = 1_000_000
TARGET = "windows"  # what tables of them say was looked for
WIDTH = 8.0  # of a window, in spacings: neighbours overlap
SIGMA = 0.25  # what stands for the width of an atom, in spacings: no window is nearer to the edge than two of these


def grid(shape: tuple[int, ...], spacing: float | None) -> tuple[Floats, float]:
    """Middles (n, 2) of windows, as many pixels apart as `spacing` says, and how many that is.

    Raises
    ------
    InputDataError
        If there would be too many.
    """
    step = spacing or max(2, round(float(np.sqrt(shape[0] * shape[1] / USUAL))))
    counts = [max(1, int((side - 1) // step)) for side in shape]
    if counts[0] * counts[1] > MOST:
        raise InputDataError(f"Windows {step:g} px apart would be {counts[0] * counts[1]:,}: give a larger spacing.")
    y, x = ((side - 1) / 2 + step * (np.arange(n) - (n - 1) / 2) for side, n in zip(shape, counts, strict=True))
    return np.stack(np.meshgrid(y, x, indexing="ij"), -1).reshape(-1, 2), step


def called(atoms: pd.DataFrame) -> str:
    """What the rows of an atoms table are, in one word: "atom", or "window" where they lie on a grid."""
    return "window" if atoms.attrs.get("napari_rvae", {}).get("target") == TARGET else "atom"


def contrasts(frame: Frame, noise: Noise, places: Floats, step: float) -> tuple[Array, Array]:
    """Mean around every middle, (n,), and standard deviation in every window, (n,), in that of the noise."""
    pixels = frame.pixels
    around = min(2 * int(WIDTH * step / 2) + 1, 2 * (min(pixels.shape) // 2) - 1)
    mean, square = box_mean(pixels, around), box_mean(pixels * pixels, around)
    at = tuple(np.round(places).astype(int).T)
    spread = np.maximum(square[at] - mean[at] ** 2, 0) / noise.variance(mean[at])
    return box_mean(pixels, 2 * int(step / 2) + 1)[at], np.sqrt(spread)
