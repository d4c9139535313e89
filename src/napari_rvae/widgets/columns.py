"""What the columns of a table mean to a person: name, unit, and which of them can be plotted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.api.types import is_numeric_dtype

from napari_rvae.layers.coloring import GREY, LEVELS, Coloring
from napari_rvae.widgets.scatter import ColorScale

_PIXELS = {"y", "x", "dy", "dx", "dy_error", "dx_error", "dy_dispersion", "dx_dispersion", "error", "sigma"}
_ANGLES = {"angle", "angle_error", "angle_dispersion"}
_LENGTH_UNITS = {"pm", "nm", "um", "µm", "mm", "angstrom"}
# What a microscopist looks at first, when it is there.
_FIRST_COLORS = ("annotation", "class", "cluster", "angle", "sublattice")


def column_label(name: str) -> str:
    """Name of a column with its unit, as on an axis.

    Parameters
    ----------
    name : str
        Column of the latent table.

    Returns
    -------
    str
        For example ``angle (deg)`` or ``reconstruction error``.
    """
    stem, _, unit = name.rpartition("_")
    if unit in _LENGTH_UNITS and stem:
        return f"{stem.replace('_', ' ')} ({unit})"
    unit = "px" if name in _PIXELS else "deg" if name in _ANGLES else ""
    return name.replace("_", " ") + (f" ({unit})" if unit else "")


def axis_columns(table: pd.DataFrame) -> list[str]:
    """List the columns that can stand on an axis: numbers, latents first."""
    names = [str(name) for name in table if is_numeric_dtype(table[name]) and name != "atom_id"]
    return sorted(names, key=lambda name: not is_latent(name))


def is_latent(name: str) -> bool:
    """Tell ``z1``, ``z2``, ... from other columns."""
    return name[:1] == "z" and name[1:].isdigit()


def first_axes(names: list[str]) -> tuple[str, str]:
    """Choose what is shown first: two latents, or the first two columns that are not places."""
    chosen = [name for name in names if name not in ("y", "x", "frame")] or names
    return chosen[0], chosen[min(1, len(chosen) - 1)]


def first_color(names: Iterable[str]) -> str:
    """Choose the colour shown first: classes, else angles, else anything."""
    names = list(names)
    return next((name for name in _FIRST_COLORS if name in names), names[0])


def displayed_values(table: pd.DataFrame, name: str) -> NDArray[np.float64]:
    """Values of a numeric column in the unit of its label.

    Parameters
    ----------
    table : DataFrame
        The features.
    name : str
        One of its numeric columns.

    Returns
    -------
    array of float64
        Angles in degrees; NaN where there is no value.
    """
    return _factor(name) * table[name].to_numpy(np.float64, na_value=np.nan)


def displayed_text(table: pd.DataFrame, row: int, names: Iterable[str]) -> str:
    """Put some values of one atom into words.

    Parameters
    ----------
    table : DataFrame
        The features.
    row : int
        The atom's row.
    names : iterable of str
        Columns wanted; those that the table lacks are left out.

    Returns
    -------
    str
        For example ``atom 12 · z1 0.31 · angle 14.2°``.
    """
    words = [f"atom {table['atom_id'].iloc[row]}"]
    for name in dict.fromkeys(names):
        if name not in table:
            continue
        value = table[name].iloc[row]
        if pd.isna(value):
            value = "–"
        elif is_numeric_dtype(table[name]):
            number = _factor(name) * float(value)
            value = f"{number:.0f}" if number.is_integer() else f"{number:.3g}"
        unit = {"px": " px", "deg": "°"}.get(column_label(name)[len(name) + 2 : -1], "")
        words.append(f"{name.replace('_', ' ')} {value}{unit}")
    return " · ".join(words)


def color_scale(table: pd.DataFrame, coloring: Coloring, recipe: Mapping[str, Any] | None = None) -> ColorScale:
    """Turn the colours of a layer into those of a plot.

    Parameters
    ----------
    table : DataFrame
        The features.
    coloring : Coloring
        How one of their columns is coloured.
    recipe : mapping, optional
        Of the results, which tells what the classes were called by whoever labelled some of them.

    Returns
    -------
    ColorScale
        The same colours, atom by atom, with limits in the unit of the label.
    """
    values = table[coloring.column]
    categorical = coloring.kind == "categorical"
    count = max(len(coloring.names), 1) if categorical else LEVELS
    level = coloring.levels(values)
    # A class lies in the middle of its colour, a number anywhere on the scale.
    place = np.floor(level * count) if categorical else np.rint(level * (count - 1))
    index = np.where(np.isfinite(place), np.clip(place, 0, count - 1), count).astype(np.uint16)
    colors = coloring.colormap.map((np.arange(count) + 0.5) / count if categorical else np.linspace(0, 1, count))
    lut = (255 * np.vstack([colors, GREY])).round().astype(np.uint8)
    low, high = (_factor(coloring.column) * limit for limit in coloring.limits)
    names = coloring.names
    if coloring.column == "class" and recipe is not None:
        called = dict(enumerate(recipe.get("used", {}).get("class_names", ())))
        names = tuple(f"{name}: {called[int(name)]}" if int(name) in called else name for name in names)
    return ColorScale(column_label(coloring.column), index, lut, (low, high), names, categorical)


def _factor(name: str) -> float:
    return 180 / np.pi if name in _ANGLES else 1.0
