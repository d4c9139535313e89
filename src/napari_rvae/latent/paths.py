"""Ways through latent space, decoded step by step: from one place to another, and along what two groups differ in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_rvae.errors import InputDataError
from napari_rvae.latent.coding import conditions_told, decode
from napari_rvae.models.conditions import Condition

if TYPE_CHECKING:
    import pandas as pd

    from napari_rvae.models import Model

AMOUNTS = (-1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0)
"""How much of an attribute is added, where nothing else is asked for."""


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
        (k,) of conditional models, as in training; or (2, k) at both ends, in between as much of each as of the
        latents: quantities change evenly, one class fades into another.

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
    given = None if condition is None else np.atleast_2d(np.asarray(condition))
    told = conditions_told(model, given if given is None or len(given) == 2 else np.repeat(given, 2, 0), 2)
    between = None if told is None else Condition([], np.linspace(told[0].numpy(), told[1].numpy(), steps))
    return decode(model, along, np.full(steps, classes), between)


def attribute_direction(
    table: pd.DataFrame, having: ArrayLike, lacking: ArrayLike, latent: int | None = None
) -> NDArray[np.float64]:
    """What one group of atoms has and another lacks: the difference of their mean latents.

    Parameters
    ----------
    table : pandas.DataFrame
        Latent table, or the features of a points layer.
    having, lacking : array-like
        (n,) booleans, one per row: the two groups. Rows without latents do not count.
    latent : int, optional
        Number of latents; all columns ``z1 ...`` when omitted.

    Returns
    -------
    numpy.ndarray
        (latent,) from those that lack it to those that have it; added to the latents of any patch it changes that
        patch likewise (see `changed_attribute`).

    Raises
    ------
    InputDataError
        If a group holds no atom with latents, or the table has no latents.
    """
    count = latent or sum(name[:1] == "z" and name[1:].isdigit() for name in map(str, table.columns))
    names = [f"z{number + 1}" for number in range(count)]
    if not names or not set(names) <= set(table.columns):
        raise InputDataError("The table has no latents z1, z2, ...: encode the atoms first.")
    values = table[names].to_numpy(np.float64, na_value=np.nan)
    known = np.isfinite(values).all(1)
    groups = [np.asarray(group, bool) & known for group in (having, lacking)]
    if not all(group.any() for group in groups):
        raise InputDataError("Both groups need at least one atom that was encoded.")
    with_it, without = (values[group].mean(0) for group in groups)
    return np.asarray(with_it - without)


def changed_attribute(
    model: Model,
    z: ArrayLike,
    direction: ArrayLike,
    amounts: ArrayLike = AMOUNTS,
    *,
    classes: int = 0,
    condition: ArrayLike | None = None,
) -> NDArray[np.float32]:
    """Decode a patch with more and less of an attribute.

    Parameters
    ----------
    model : Model
        Trained.
    z : array-like
        (latent,) of the patch.
    direction : array-like
        (latent,) as from `attribute_direction`.
    amounts : array-like
        (steps,) how much of it is added: 0 the patch itself, 1 as much as the groups differ.
    classes : int
        Class of joint and semi-supervised models.
    condition : array-like, optional
        (k,) of conditional models, as in training.

    Returns
    -------
    numpy.ndarray
        (steps, channels, D, D), as from `decode`.

    Raises
    ------
    InputDataError
        If the numbers do not fit the model.
    """
    much = np.atleast_1d(np.asarray(amounts, np.float64))
    start, step = (np.asarray(one, np.float64) for one in (z, direction))
    if start.shape != step.shape or start.ndim != 1:
        raise InputDataError(f"A patch of {start.size} latents needs a direction of as many, not {step.size}.")
    repeated = None if condition is None else np.repeat(np.atleast_2d(np.asarray(condition)), len(much), 0)
    return decode(model, start + much[:, None] * step, np.full(len(much), classes), repeated)
