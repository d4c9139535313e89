"""The part of an image where atoms are looked for."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_rvae.errors import InputDataError

SURROUNDINGS = 32  # pixels around a region that tell what its atoms are like


class Area:
    """All of an image, or a region of it.

    Parameters
    ----------
    region : array_like of bool or None
        (y, x), True where atoms are looked for; None for the whole image.
    shape : tuple of int
        (y, x) of the image.

    Raises
    ------
    InputDataError
        If the region does not fit the image, or is empty.
    """

    def __init__(self, region: Any, shape: tuple[int, ...]) -> None:
        self._region: NDArray[np.bool_] | None = None
        self.box: tuple[slice, ...] = (slice(None), slice(None))
        if region is None:
            return
        self._region = _checked(region, shape)
        self.box = tuple(
            slice(max(0, used[0] - SURROUNDINGS), used[-1] + 1 + SURROUNDINGS)
            for used in (np.flatnonzero(self._region.any(1)), np.flatnonzero(self._region.any(0)))
        )

    def placed(self, positions: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Positions (n, 2) of the box in pixels of the whole image, and which of them lie in the region."""
        if self._region is None:
            return positions, np.ones(len(positions), bool)
        place = positions + np.array([side.start for side in self.box], np.float64)
        y, x = np.round(place).astype(int).T
        height, width = self._region.shape
        return place, self._region[y.clip(0, height - 1), x.clip(0, width - 1)]


def areas(region: Any, shape: tuple[int, ...]) -> dict[int, Area]:
    """Give the area of each frame of a stack in which atoms are looked for.

    Parameters
    ----------
    region : array_like of bool or None
        (y, x), the same in every frame, or (t, y, x); None for all of every frame.
    shape : tuple of int
        (t, y, x) of the stack.

    Raises
    ------
    InputDataError
        If the region does not fit the stack, or is empty.
    """
    if region is None or np.ndim(region) == 2:
        return dict.fromkeys(range(shape[0]), Area(region, shape[1:]))
    parts = enumerate(_checked(region, shape))
    return {frame: Area(part, shape[1:]) for frame, part in parts if part.any()}


def _checked(region: Any, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    mask = np.asarray(region, bool)
    if mask.shape != tuple(shape):
        raise InputDataError(f"The region has shape {mask.shape}, but the image {tuple(shape)}.")
    if not mask.any():
        raise InputDataError("The region covers no pixel of the image; draw it on the image.")
    return mask
