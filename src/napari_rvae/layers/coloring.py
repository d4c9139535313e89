"""Which colour a value gets, the same in points, cells, arrows and plots."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from napari.utils.colormaps import Colormap, ensure_colormap
from numpy.typing import NDArray

from napari_rvae.layers.preferences import preferences
from napari_rvae.workflows.steps import beyond_doubt

if TYPE_CHECKING:
    from napari.layers import Points

GREY = (0.5, 0.5, 0.5, 1.0)
"""Colour of what has no value: seen, but never taken for a value."""
LEVELS = 255
"""Colours of a continuous scale."""

CLASS_COLORS = "napari_rvae_class_colors"
"""Key of a layer's metadata under which the colours lie that were chosen for classes, by column and name."""

Kind = Literal["sequential", "diverging", "cyclic", "categorical"]

# Okabe and Ito's colours, told apart by the colour-blind, then lighter and darker ones
_PALETTE = [
    "#56B4E9", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#F0E442", "#0072B2", "#B7E1FA", "#8C564B", "#98DF8A",
    "#FF9896", "#9467BD", "#C5B0D5", "#DBDB8D", "#17BECF", "#7F4F00", "#F7B6D2", "#005F45", "#C49C94", "#1F2FB4",
]  # fmt: skip
_MOST_CLASSES = 50
_NO_CLASSES = ("_probability", "_error", "_dispersion")  # may all be 0 or 1 by chance, and have no sign


@dataclass(frozen=True)
class Coloring:
    """How a column of a table is coloured.

    Attributes
    ----------
    column : str
        Name of the column.
    kind : {"sequential", "diverging", "cyclic", "categorical"}
        What the values are.
    colormap : napari.utils.Colormap
        Colours from the lower to the upper limit, grey for NaN.
    limits : tuple of float
        Values at both ends; half a step outside the first and the last class.
    names : tuple of str
        Of classes, in the order of their colours.
    text : bool
        The column holds names, not numbers.
    """

    column: str
    kind: Kind
    colormap: Colormap
    limits: tuple[float, float]
    names: tuple[str, ...] = ()
    text: bool = False

    @classmethod
    def of(cls, table: pd.DataFrame, column: str, chosen: Mapping[str, str] | None = None) -> Coloring:
        """Choose colours for a column.

        Parameters
        ----------
        table : pandas.DataFrame
            The table, with ``symmetry`` where angles repeat.
        column : str
            The column to be shown.
        chosen : mapping of str to str, optional
            Colours that somebody wants for some classes, by their names.

        Returns
        -------
        Coloring
            Classes for whole numbers and names, a circle for angles, two sides for what has a sign.
        """
        values = table[column]
        if not pd.api.types.is_numeric_dtype(values):
            if isinstance(values.dtype, pd.CategoricalDtype):  # in their order, so that a new class recolours no other
                names = tuple(map(str, values.cat.categories))
            else:
                names = tuple(sorted({str(value) for value in values.dropna() if value != ""}))
            return cls(column, "categorical", *_classes(0, names, chosen), names=names, text=True)
        numbers = values.to_numpy(float)
        finite = np.isfinite(numbers)
        sure = finite & beyond_doubt(table)
        numbers, sure_numbers = numbers[finite], numbers[sure if sure.any() else finite]
        if column == "angle":
            return cls(column, "cyclic", _colormap(preferences().angles, closed=True), _period(table, numbers))
        if len(numbers) == 0:
            return cls(column, "sequential", _colormap(preferences().numbers), (0.0, 1.0))
        low, high = numbers.min(), numbers.max()
        whole = (numbers == np.rint(numbers)).all() and column not in ("frame", "atom_id")
        if whole and high - low < _MOST_CLASSES and not column.endswith(_NO_CLASSES):
            names = tuple(str(int(low) + k) for k in range(int(high - low) + 1))
            return cls(column, "categorical", *_classes(int(low), names, chosen), names=names)
        if column.startswith(("dy", "dx", "strain")) and not column.endswith(_NO_CLASSES):
            limit = float(np.percentile(np.abs(sure_numbers), 99)) or 1.0
            return cls(column, "diverging", _colormap("PiYG"), (-limit, limit))
        low, high = np.percentile(sure_numbers, (1, 99))
        if not high > low:
            low, high = (0, 1) if column.endswith("_probability") else (low, low + 1)
        return cls(column, "sequential", _colormap(preferences().numbers), (float(low), float(high)))

    def levels(self, values: pd.Series) -> NDArray[np.float64]:
        """Place values between the limits.

        Parameters
        ----------
        values : pandas.Series
            Values of the column.

        Returns
        -------
        numpy.ndarray
            0 to 1, NaN where there is no value.
        """
        low, high = self.limits
        if self.text:
            numbers = values.astype(object).map({name: k for k, name in enumerate(self.names)}).to_numpy(float)
        else:
            numbers = values.to_numpy(float)
        level = (numbers - low) / (high - low)
        return np.asarray(level % 1 if self.kind == "cyclic" else np.clip(level, 0, 1), float)

    def colors(self, values: pd.Series) -> NDArray[np.float64]:
        """Colour values.

        Parameters
        ----------
        values : pandas.Series
            Values of the column.

        Returns
        -------
        numpy.ndarray
            (n, 4) red, green, blue, opacity from 0 to 1.
        """
        return np.asarray(self.colormap.map(self.levels(values)), float)


def class_colors(points: Points, column: str) -> dict[str, str]:
    """Tell which colours were chosen for classes.

    Parameters
    ----------
    points : napari.layers.Points
        The atoms.
    column : str
        A column of classes.

    Returns
    -------
    dict
        Colours such as ``#ff0000`` by the name of the class; classes without a chosen one are left out.
    """
    return dict(points.metadata.get(CLASS_COLORS, {}).get(column, {}))


def set_class_colors(points: Points, column: str, colors: Mapping[str, str]) -> None:
    """Choose colours for classes; they are seen when the points are coloured by the column the next time.

    Parameters
    ----------
    points : napari.layers.Points
        The atoms.
    column : str
        A column of classes.
    colors : mapping of str to str
        By the name of the class; the others have theirs from a list.
    """
    chosen = {**points.metadata.get(CLASS_COLORS, {}), column: dict(colors)}
    points.metadata = {**points.metadata, CLASS_COLORS: chosen}


def _colormap(name: str, closed: bool = False) -> Colormap:
    colors = ensure_colormap(name).map(np.linspace(0, 1, LEVELS))
    if closed:
        colors[-1] = colors[0]
    return Colormap(colors, name=f"{name} with grey", nan_color=GREY)


def _classes(
    first: int, names: tuple[str, ...], chosen: Mapping[str, str] | None
) -> tuple[Colormap, tuple[float, float]]:
    count = max(len(names), 1)
    colors = [_PALETTE[(first + k) % len(_PALETTE)] for k in range(count)]
    if chosen:
        colors = [chosen.get(name, color) for name, color in zip(names, colors, strict=False)] or colors
    limits = first - 0.5, first + count - 0.5
    if count == 1:  # napari's colour bar, once made, takes no single colour
        colors *= 2
    return Colormap(colors, name="classes", interpolation="zero", nan_color=GREY), limits


def _period(table: pd.DataFrame, angles: NDArray[np.float64]) -> tuple[float, float]:
    """One turn, or the part of it after which the least symmetric motif looks the same."""
    order = table["symmetry"].min() if "symmetry" in table else 1
    period = 2 * np.pi / (order if order >= 1 else 1)
    start = 0.0 if len(angles) == 0 or angles.min() >= 0 else -period / 2
    return start, start + period
