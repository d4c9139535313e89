"""What is known of atoms besides their patches: classes of some of them, conditions of all, from columns of a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from napari_rvae.errors import InputDataError, SettingsError
from napari_rvae.models.conditions import MOST_CLASSES, Condition, class_name, class_order, column_without_gaps
from napari_rvae.settings import TrainSettings

_SAME_PLACE = 0.5  # px: two atoms are not so near to each other
_NAMED = 10


@dataclass(frozen=True)
class Given:
    """What a model is told of every patch.

    Attributes
    ----------
    settings : TrainSettings
        With the number of classes filled in.
    labels : ndarray, (n,), or None
        Class of each patch, -1 where it is not known; or decimal numbers, nan where they are not known.
    condition : Condition or None
        What is known of each patch.
    noted : dict
        What the numbers mean, kept with the model: ``class_names``, ``value_column``, ``condition_columns``.
    """

    settings: TrainSettings
    labels: NDArray[Any] | None
    condition: Condition | None
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
        _check_places(atoms, labels, names)
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
        known = pd.DataFrame({name: column_without_gaps(atoms, name) for name in columns})
        condition = Condition.of(known, len(atoms))
        return Given(settings, None, condition, {"condition_columns": condition.columns})
    return Given(settings, None, None, {})


def _labels(atoms: pd.DataFrame, name: str) -> tuple[list[str], NDArray[np.int64]]:
    """Names of the classes in order, and the class of each atom, -1 where it has none."""
    if name not in atoms:
        raise InputDataError(
            f"the atoms have no column {name} with the classes of some of them; give a few atoms a class in "
            "Explore latent space, or name another column"
        )
    texts = atoms[name].astype(object).where(atoms[name].notna(), "").map(class_name)
    known = ~texts.isin(("", "-1"))
    names = sorted(set(texts[known]), key=class_order)
    if len(names) < 2:
        raise InputDataError(
            f"{name} holds {len(names)} of at least 2 classes among these atoms; label a few atoms of every class"
        )
    codes = {one: code for code, one in enumerate(names)}
    return names, texts.map(codes).where(known, -1).to_numpy().astype(np.int64)


def _check_places(atoms: pd.DataFrame, labels: NDArray[np.int64], names: list[str]) -> None:
    """Raise an InputDataError if atoms at one place are said to be of different classes."""
    from scipy.spatial import cKDTree

    if not {"y", "x"} <= set(atoms):
        return
    told = np.flatnonzero(labels >= 0)
    places = atoms[["y", "x"]].to_numpy(float)[told]
    if "frame" in atoms:
        places = np.column_stack([places, atoms["frame"].to_numpy(float)[told]])  # frames are a pixel apart
    pairs = told[cKDTree(places).query_pairs(_SAME_PLACE, output_type="ndarray").reshape(-1, 2)]
    for one, other in pairs:
        if labels[one] != labels[other]:
            ids = atoms["atom_id"].to_numpy() if "atom_id" in atoms else np.arange(len(atoms))
            raise InputDataError(
                f"atoms {ids[one]} and {ids[other]} lie at one place (y {atoms['y'].iloc[one]:.1f}, "
                f"x {atoms['x'].iloc[one]:.1f}), but one is {names[labels[one]]} and the other {names[labels[other]]}; "
                "remove one of them, or correct its class"
            )


def labelled_classes(atoms: pd.DataFrame, column: str) -> int | None:
    """How many classes a column holds; None where it holds too few of them.

    Parameters
    ----------
    atoms : DataFrame
        Atoms table.
    column : str
        With the classes of some of them.

    Returns
    -------
    int or None
    """
    try:
        return len(_labels(atoms, column)[0])
    except InputDataError:
        return None


def check_learned(known: Given, learned_from: NDArray[np.bool_]) -> None:
    """See whether every labelled class has patches that are learned from.

    Parameters
    ----------
    known : Given
        Of all patches.
    learned_from : ndarray of bool
        Which patches are learned from.

    Raises
    ------
    InputDataError
        If a class is labelled only on others.
    """
    names = known.noted.get("class_names", ())
    if known.labels is None or not names:
        return
    left = sorted(set(range(len(names))) - set(known.labels[learned_from].tolist()))
    if left:
        raise InputDataError(
            f"{', '.join(names[code] for code in left)}: labelled only on atoms at the edge, or without support from "
            "their neighbors, which are not learned from; label some others, or take these labels away"
        )


def classed_otherwise(labels: NDArray[Any] | None, latent: pd.DataFrame) -> list[str]:
    """Say which labelled patches a model gives to other classes than their labels do.

    Parameters
    ----------
    labels : ndarray or None
        (n,) class of each patch, -1 where it is not known; other labels say nothing.
    latent : DataFrame
        Their rows of the latent table, in order.

    Returns
    -------
    list of str
        One note, or none.
    """
    if labels is None or labels.dtype.kind not in "iu" or "class" not in latent:
        return []
    told = labels >= 0
    other = told & (latent["class"].to_numpy() != labels)
    if not other.any():
        return []
    ids = latent["atom_id"].to_numpy()[other]
    few = ", ".join(map(str, ids[:_NAMED])) + (", ..." if len(ids) > _NAMED else "")
    return [f"The model gives {other.sum()} of {told.sum()} labelled atoms another class: look at {few}."]


def _is_quantity(values: pd.Series[Any] | None) -> bool:
    """Whether a column holds numbers to predict rather than classes, which gaps may have made decimals."""
    if values is None or not pd.api.types.is_float_dtype(values.dtype):
        return False
    told = values.dropna()
    return bool((told % 1 != 0).any()) or told.nunique() > MOST_CLASSES
