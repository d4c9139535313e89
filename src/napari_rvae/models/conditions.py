"""What conditional models are told of every patch: classes as ones among zeros, quantities in units of their spread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from napari_rvae.errors import InputDataError

if TYPE_CHECKING:
    from napari_rvae.models.model import Model

MOST_CLASSES = 10
"""Whole numbers with more different values are a quantity."""
_MOST_INPUTS = 1000


@dataclass(frozen=True)
class Condition:
    """What is known of each patch, as the model is told it.

    Attributes
    ----------
    columns : list of dict
        What the numbers mean, kept with the model: ``name`` and ``classes``, or ``name``, ``mean`` and ``spread``.
    values : ndarray of float, (n, k)
        A class is one 1 among zeros, a quantity is in units of its spread.
    """

    columns: list[dict[str, Any]]
    values: NDArray[np.float32]

    @classmethod
    def of(cls, given: ArrayLike | pd.DataFrame | Condition, count: int) -> Condition:
        """Find out what is a class and what a quantity.

        Parameters
        ----------
        given : array-like, DataFrame or Condition
            (n,) or (n, k): texts, truth values and whole numbers of few different values are classes, other numbers are
            quantities.
        count : int
            Number of patches.

        Returns
        -------
        Condition

        Raises
        ------
        InputDataError
            If it does not fit the patches, or something is missing or no number.
        """
        if isinstance(given, Condition):
            return given
        table = _table(given)
        if len(table) != count or not table.shape[1]:
            raise InputDataError(f"The condition must be {count} classes or rows of numbers, one per patch.")
        columns = [_described(column_without_gaps(table, name)) for name in map(str, table)]
        if (inputs := width_of(columns)) > _MOST_INPUTS:
            raise InputDataError(
                f"The condition has {inputs} different classes, more than {_MOST_INPUTS}: join classes, or give a "
                "quantity as numbers."
            )
        return cls(columns, _coded(columns, table))

    @classmethod
    def for_model(cls, columns: Sequence[Mapping[str, Any]], given: ArrayLike | pd.DataFrame, count: int) -> Condition:
        """Tell a model what it was told in training, in the same units.

        Parameters
        ----------
        columns : sequence of dict
            As noted with the model.
        given : array-like or DataFrame
            (n, columns), or (n,) for a single one; or (n, k) with classes as ones among zeros.
        count : int
            Number of patches.

        Returns
        -------
        Condition

        Raises
        ------
        InputDataError
            If a column is missing, has no value for some atoms, or a class that the model does not know.
        """
        names = [noted["name"] for noted in columns]
        if isinstance(given, pd.DataFrame):
            return cls([*map(dict, columns)], _coded(columns, given))
        table = _table(given)
        if len(table) == count and table.shape[1] == width_of(columns) != len(names):
            table = _named_classes(columns, table)
        if table.shape != (count, len(names)):
            raise InputDataError(
                f"This model is conditional: give its condition for every one of {count} patches ({', '.join(names)})."
            )
        return cls([*map(dict, columns)], _coded(columns, table.set_axis(names, axis=1)))

    def __getitem__(self, rows: Any) -> Condition:
        """That of some patches."""
        return Condition(self.columns, self.values[rows])


def width_of(columns: Sequence[Mapping[str, Any]]) -> int:
    """How many numbers a model is told."""
    return sum(len(noted.get("classes", "1")) for noted in columns)


def column_without_gaps(atoms: pd.DataFrame, name: str) -> pd.Series[Any]:
    """A column in which every atom has a value.

    Raises
    ------
    InputDataError
        If there is no such column, or it has gaps.
    """
    if name not in atoms:
        raise InputDataError(
            f"the atoms have no column {name}, which the model is given as a condition; add it to the features of the "
            "points, or to the table that --atoms names"
        )
    values = atoms[name]
    gaps = int((values.isna() | (values.astype(object) == "")).sum())
    if gaps:
        raise InputDataError(f"{name} has no value for {gaps} of the atoms; fill it, or choose those that have one")
    return values


def class_name(value: Any) -> str:
    """A class by its name; whole numbers alike, whether a gap has made them decimals or not."""
    number = isinstance(value, (float, np.floating)) and float(value).is_integer()
    return str(int(value)) if number else str(value).strip()


def class_names(model: Model) -> list[str]:
    """Names of a model's classes, as it was told them in training, or their numbers; none where it has no classes."""
    known = model.recipe.get("class_names", [])
    return [known[k] if k < len(known) else str(k) for k in range(model.classes)] if model.classes > 1 else []


def usual(noted: Mapping[str, Any], values: pd.Series[Any]) -> Any:
    """What a condition is of some patches together: the class of most of them, or the mean of a quantity."""
    return values.mode().iloc[0] if "classes" in noted else float(values.mean())


def class_order(name: str) -> tuple[bool, int, str]:
    """Numbers by size, before texts."""
    digits = name.lstrip("-").isdigit()
    return not digits, int(name) if digits else 0, name


def _table(given: ArrayLike | pd.DataFrame) -> pd.DataFrame:
    """One row per patch, with names for what has none."""
    if isinstance(given, pd.DataFrame):
        return given
    values = np.asarray(given)
    if values.ndim not in (1, 2) or values.dtype.kind not in "biufUO":
        return pd.DataFrame()
    table = pd.DataFrame(values).infer_objects()
    count = table.shape[1]
    return table.set_axis(["condition"] if count == 1 else [f"condition{k + 1}" for k in range(count)], axis=1)


def _described(values: pd.Series[Any]) -> dict[str, Any]:
    numeric = pd.api.types.is_numeric_dtype(values.dtype) and not pd.api.types.is_bool_dtype(values.dtype)
    whole = numeric and pd.api.types.is_integer_dtype(values.dtype)
    if not numeric or (whole and values.nunique() <= MOST_CLASSES):
        return {"name": str(values.name), "classes": sorted(set(values.map(class_name)), key=class_order)}
    numbers = _numbers(values)
    return {"name": str(values.name), "mean": float(numbers.mean()), "spread": float(numbers.std()) or 1.0}


def _coded(columns: Sequence[Mapping[str, Any]], atoms: pd.DataFrame) -> NDArray[np.float32]:
    parts = []
    for noted in columns:
        values = column_without_gaps(atoms, noted["name"])
        if "classes" not in noted:
            parts.append((_numbers(values)[:, None] - noted["mean"]) / noted["spread"])
            continue
        names = values.map(class_name)
        unknown = sorted(set(names) - set(noted["classes"]))
        if unknown:
            raise InputDataError(f"the model does not know the {noted['name']} {', '.join(unknown)}; train anew")
        parts.append(names.to_numpy()[:, None] == np.array(noted["classes"], object))
    return np.concatenate(parts, 1).astype(np.float32)


def _named_classes(columns: Sequence[Mapping[str, Any]], table: pd.DataFrame) -> pd.DataFrame:
    """Classes by their names instead of as ones among zeros."""
    parts, first = [], 0
    for noted in columns:
        count = width_of([noted])
        part, first = table.iloc[:, first : first + count], first + count
        if "classes" in noted:
            ones = part.to_numpy()
            if not (np.isin(ones, (0, 1)).all() and (ones.sum(1) == 1).all()):
                raise InputDataError(f"The condition must hold one 1 among zeros for each patch's {noted['name']}.")
            part = pd.DataFrame(np.array(noted["classes"], object)[ones.argmax(1)])
        parts.append(part)
    return pd.concat(parts, axis=1)


def _numbers(values: pd.Series[Any]) -> NDArray[np.float64]:
    numbers = pd.to_numeric(values, errors="coerce").to_numpy(float)
    if not np.isfinite(numbers).all():
        raise InputDataError(f"{values.name} holds what is no finite number; correct it")
    return numbers
