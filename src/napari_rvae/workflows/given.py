"""What is known of atoms besides their patches: classes of some of them, conditions of all, from columns of a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from napari_rvae.errors import InputDataError, SettingsError
from napari_rvae.settings import TrainSettings

_MOST_CLASSES = 10
"""Whole numbers with more different values are a quantity."""


@dataclass(frozen=True)
class Given:
    """What a model is told of every patch.

    Attributes
    ----------
    settings : TrainSettings
        With the number of classes filled in.
    labels : ndarray, (n,), or None
        Class of each patch, -1 where it is not known; or decimal numbers, nan where they are not known.
    condition : ndarray of float, (n, k), or None
        What is known of each patch.
    noted : dict
        What the numbers mean, kept with the model: ``class_names``, ``value_column``, ``condition_columns``.
    """

    settings: TrainSettings
    labels: NDArray[Any] | None
    condition: NDArray[np.float32] | None
    noted: dict[str, Any]


def given_by(settings: TrainSettings, atoms: pd.DataFrame) -> Given:
    """Read labels and conditions from the columns that the settings name.

    Parameters
    ----------
    settings : TrainSettings
        Which model, and which columns.
    atoms : DataFrame
        One row per patch.

    Returns
    -------
    Given
        Nothing for models that need neither.

    Raises
    ------
    InputDataError
        If a column is missing, or does not hold what the model needs.
    SettingsError
        If there are more classes of labels than the model has, or no condition is named.
    """
    if settings.family == "semi" and _is_quantity(atoms.get(settings.label_column)):
        values = atoms[settings.label_column].to_numpy(np.float64, na_value=np.nan)
        return Given(settings, values, None, {"value_column": settings.label_column})
    if settings.family == "semi":
        names, labels = _labels(atoms, settings.label_column)
        count = settings.classes or len(names)
        if len(names) > count:
            raise SettingsError(
                f"{settings.label_column} holds {len(names)} classes, the model has {count}: raise the number of "
                "classes, or leave it empty"
            )
        settings = settings.model_copy(update={"classes": count})
        return Given(settings, labels, None, {"class_names": names})
    if settings.family == "conditional":
        columns = settings.condition_columns
        if not columns:
            raise SettingsError(f"{settings.model} needs a condition: name the columns that hold what is known")
        noted = [_described(_column(atoms, name)) for name in columns]
        return Given(settings, None, condition_of(noted, atoms), {"condition_columns": noted})
    return Given(settings, None, None, {})


def condition_of(columns: Sequence[Mapping[str, Any]], atoms: pd.DataFrame) -> NDArray[np.float32]:
    """Turn columns into what a conditional model is given.

    Parameters
    ----------
    columns : sequence of dict
        As noted with the model: ``name`` and ``classes``, or ``name``, ``mean`` and ``spread``.
    atoms : DataFrame
        One row per patch.

    Returns
    -------
    ndarray of float, (n, k)
        A class is one 1 among zeros, a quantity is in units of its spread.

    Raises
    ------
    InputDataError
        If a column is missing, has no value for some atoms, or a class that the model does not know.
    """
    parts = []
    for noted in columns:
        values = _column(atoms, noted["name"])
        if "classes" not in noted:
            parts.append((_numbers(values)[:, None] - noted["mean"]) / noted["spread"])
            continue
        unknown = sorted(set(values.map(_named)) - set(noted["classes"]))
        if unknown:
            raise InputDataError(f"the model does not know the {noted['name']} {', '.join(unknown)}; train anew")
        parts.append(values.map(_named).to_numpy()[:, None] == np.array(noted["classes"], object))
    return np.concatenate(parts, 1).astype(np.float32)


def _column(atoms: pd.DataFrame, name: str) -> pd.Series[Any]:
    """A column without gaps."""
    if name not in atoms:
        raise InputDataError(f"the atoms have no column {name}, which the model is given as a condition; add it")
    values = atoms[name]
    gaps = int((values.isna() | (values.astype(object) == "")).sum())
    if gaps:
        raise InputDataError(f"{name} has no value for {gaps} of the atoms; fill it, or choose those that have one")
    return values


def _described(values: pd.Series[Any]) -> dict[str, Any]:
    numeric = pd.api.types.is_numeric_dtype(values.dtype) and values.dtype != bool
    whole = numeric and pd.api.types.is_integer_dtype(values.dtype)
    if not numeric or (whole and values.nunique() <= _MOST_CLASSES):
        return {"name": str(values.name), "classes": sorted(set(values.map(_named)), key=_order)}
    numbers = _numbers(values)
    return {"name": str(values.name), "mean": float(numbers.mean()), "spread": float(numbers.std()) or 1.0}


def _numbers(values: pd.Series[Any]) -> NDArray[np.float64]:
    numbers = pd.to_numeric(values, errors="coerce").to_numpy(float)
    if not np.isfinite(numbers).all():
        raise InputDataError(f"{values.name} holds what is no finite number; correct it")
    return numbers


def _labels(atoms: pd.DataFrame, name: str) -> tuple[list[str], NDArray[np.int64]]:
    """Names of the classes in order, and the class of each atom, -1 where it has none."""
    if name not in atoms:
        raise InputDataError(
            f"the atoms have no column {name} with the classes of some of them; give a few atoms a class in "
            "Explore latent space, or name another column"
        )
    texts = atoms[name].astype(object).where(atoms[name].notna(), "").map(_named)
    known = ~texts.isin(("", "-1"))
    names = sorted(set(texts[known]), key=_order)
    if len(names) < 2:
        raise InputDataError(
            f"{name} holds {len(names)} of at least 2 classes among these atoms; label a few atoms of every class"
        )
    codes = {one: code for code, one in enumerate(names)}
    return names, texts.map(codes).where(known, -1).to_numpy().astype(np.int64)


def _is_quantity(values: pd.Series[Any] | None) -> bool:
    """Whether a column holds numbers to predict rather than classes, which gaps may have made decimals."""
    if values is None or not pd.api.types.is_float_dtype(values.dtype):
        return False
    told = values.dropna()
    return bool((told % 1 != 0).any()) or told.nunique() > _MOST_CLASSES


def _named(value: Any) -> str:
    """A class by its name; whole numbers alike, whether a gap has made them decimals or not."""
    number = isinstance(value, (float, np.floating)) and float(value).is_integer()
    return str(int(value)) if number else str(value)


def _order(name: str) -> tuple[bool, int, str]:
    """Numbers by size, before texts."""
    digits = name.lstrip("-").isdigit()
    return not digits, int(name) if digits else 0, name
