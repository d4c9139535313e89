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
        self._region = np.asarray(region, bool)
        if self._region.shape != tuple(shape):
            raise InputDataError(f"The region has shape {self._region.shape}, but the image {tuple(shape)}.")
        if not self._region.any():
            raise InputDataError("The region covers no pixel of the image; draw it on the image.")
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
