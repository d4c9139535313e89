"""The way from one latent to another, decoded step by step."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_rvae.errors import InputDataError
from napari_rvae.latent.coding import decode

if TYPE_CHECKING:
    from napari_rvae.models import Model


def latent_path(
    model: Model,
    start: ArrayLike,
    end: ArrayLike,
    steps: int = 25,
    *,
    classes: int = 0,
    condition: ArrayLike | None = None,
) -> NDArray[np.float32]:
    """Decode latents along the straight line between two places.

    Parameters
    ----------
    model : Model
        Trained.
    start, end : array-like
        (latent,) values at both ends.
    steps : int
        Patches, both ends included.
    classes : int
        Class of joint and semi-supervised models.
    condition : array-like, optional
        (conditions,) of conditional models.

    Returns
    -------
    numpy.ndarray
        (steps, channels, D, D), as from `decode`.

    Raises
    ------
    InputDataError
        If there are fewer than two steps, or the numbers do not fit the model.
    """
    if steps < 2:
        raise InputDataError("A path has at least two steps: its ends.")
    along = np.linspace(np.asarray(start, np.float32), np.asarray(end, np.float32), steps)
    repeated = None if condition is None else np.repeat(np.atleast_2d(np.asarray(condition)), steps, 0)
    return decode(model, along, np.full(steps, classes), repeated)
