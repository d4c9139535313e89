"""Classes given by hand: a categorical column of the features table; plain functions from one state to the next.

The codes of the column are the labels of the semi-supervised models: -1 where an atom has no class.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

ANNOTATION = "annotation"
"""Name of the column."""

Annotation = pd.Series


def annotation_of(table: pd.DataFrame) -> Annotation:
    """Read the classes given by hand.

    Parameters
    ----------
    table : DataFrame
        The features; the column may be missing, or hold plain text as read from a file.

    Returns
    -------
    Series of categories
        One row per atom; missing where it has no class.
    """
    if ANNOTATION not in table:
        return pd.Series(pd.Categorical([None] * len(table), categories=[]), name=ANNOTATION)
    values = table[ANNOTATION].reset_index(drop=True)
    if isinstance(values.dtype, pd.CategoricalDtype):
        return values
    text = values.astype(object).where(values.notna() & (values != ""))
    return text.map(lambda value: value if value is None else str(value), na_action="ignore").astype("category")


def class_names(annotation: Annotation) -> list[str]:
    """List the classes in the order in which they were made, used or not."""
    return [str(name) for name in annotation.cat.categories]


def assigned(annotation: Annotation, mask: np.ndarray, name: str | None) -> Annotation:
    """Give atoms a class, which is made if there is none of that name; None takes their class away.

    Parameters
    ----------
    annotation : Series of categories
        As it is.
    mask : array of bool
        Which atoms.
    name : str or None
        The class.

    Returns
    -------
    Series of categories
        As it will be.
    """
    result = with_class(annotation, name) if name is not None else annotation.copy()
    result[mask] = name
    return result


def with_class(annotation: Annotation, name: str) -> Annotation:
    """Make a class, unless there is one of that name."""
    if name in class_names(annotation):
        return annotation.copy()
    return annotation.cat.add_categories([name])


def renamed(annotation: Annotation, old: str, new: str) -> Annotation:
    """Rename a class; where the new name is taken, the two become one."""
    names = class_names(annotation)
    if new not in names:
        return annotation.cat.rename_categories({old: new})
    return without_class(assigned(annotation, (annotation == old).to_numpy(), new), old)


def without_class(annotation: Annotation, name: str) -> Annotation:
    """Take a class away; its atoms have none."""
    return annotation.cat.remove_categories([name])


def new_class_name(annotation: Annotation) -> str:
    """Find a name that no class has yet."""
    names = class_names(annotation)
    return next(
        name for number in range(len(names) + 1, len(names) * 2 + 2) if (name := f"class {number}") not in names
    )


def counts(annotation: Annotation) -> dict[str, int]:
    """Count the atoms of every class."""
    found: Any = annotation.value_counts()
    return {name: int(found.get(name, 0)) for name in class_names(annotation)}
