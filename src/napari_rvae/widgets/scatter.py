"""The scatter of two features: what is drawn and what a gesture selects, whatever draws it.

`ScatterCanvas` is what a drawing library must offer; `Scatter` is the logic between it and the selection. Neither knows
Qt or napari, so the logic is tested with a canvas that only remembers what it was told.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from psygnal import Signal

from napari_rvae.widgets.density import brightness, counts_in_pixels, density_picture, inside_view
from napari_rvae.widgets.selection import Mask, Mode, Selection

Tool = Literal["lasso", "rectangle", "pan"]
Floats = NDArray[np.float64]
Picture = NDArray[np.uint8]

MOST_POINTS = 50_000  # so many symbols are drawn one by one; more become a picture of their density
MOST_SELECTED_POINTS = 20_000
CLICK_RADIUS = 8.0  # how near a click must be to a point, in pixels of the canvas
NEIGHBORS = 4  # so many points near the cursor are told
_NEAR = 12.0  # pixels of the canvas, within which points are looked for first
_BINS = 64
_MARGIN = 0.2
_DENSITY_PIXEL, _PRINT_PIXEL = 2.0, 0.5  # canvas pixels per pixel of a density picture


@dataclass(frozen=True)
class View:
    """The visible part of the plane and the canvas' size in pixels."""

    left: float
    right: float
    bottom: float
    top: float
    width: float
    height: float

    def grown(self, fraction: float) -> View:
        """Return a view that reaches farther on every side by a fraction of its size."""
        dx, dy = fraction * (self.right - self.left), fraction * (self.top - self.bottom)
        grow = 1 + 2 * fraction
        return View(
            self.left - dx, self.right + dx, self.bottom - dy, self.top + dy, grow * self.width, grow * self.height
        )


@dataclass(frozen=True)
class ColorScale:
    """Colours of one column.

    Attributes
    ----------
    label : str
        Name of the column with its unit.
    index : array of uint16, (n,)
        Row of `lut` for every atom; the last one, grey, stands for a missing value.
    lut : array of uint8, (k + 1, 4)
        Colours, RGBA.
    limits : (float, float)
        Values of the first and the last colour, in the label's unit.
    names : tuple of str
        Names of the first colours, of classes.
    categorical : bool
        Classes, which get a legend; otherwise numbers, which get a bar.
    """

    label: str
    index: NDArray[np.uint16]
    lut: Picture
    limits: tuple[float, float] = (0.0, 1.0)
    names: tuple[str, ...] = ()
    categorical: bool = False

    def between(self, low: float, high: float) -> Mask:
        """Tell whose colour lies in a part of the scale, to the precision of the colours; never what has no value.

        Parameters
        ----------
        low, high : float
            Values in the unit of the label; what lies beyond a limit has the colour of the limit.
        """
        last = len(self.lut) - 2
        start, stop = self.limits
        first, final = ((value - start) / (stop - start) * last for value in (low, high))
        return (self.index >= first) & (self.index <= final) & (self.index <= last)


@dataclass(frozen=True)
class Histogram:
    """Counts of one axis: of all atoms and of the selected ones."""

    edges: Floats
    counts: NDArray[np.int64]
    selected: NDArray[np.int64]


class ScatterCanvas(ABC):
    """What a drawing library must offer; positions are in data coordinates.

    Attributes
    ----------
    region_drawn : psygnal.Signal
        Vertices (n, 2) of a polygon that was drawn, and the mode.
    range_drawn : psygnal.Signal
        Axis (0 = x, 1 = y, 2 = colour), lower and upper value, mode.
    class_clicked : psygnal.Signal
        Number of a colour in the legend, mode.
    clicked : psygnal.Signal
        x, y, mode.
    hovered : psygnal.Signal
        x, y.
    left : psygnal.Signal
        The mouse has left the plot.
    view_rested : psygnal.Signal
        The view has changed and come to rest.
    """

    region_drawn = Signal(np.ndarray, str)
    range_drawn = Signal(int, float, float, str)
    class_clicked = Signal(int, str)
    clicked = Signal(float, float, str)
    hovered = Signal(float, float)
    left = Signal()
    view_rested = Signal()

    @property
    @abstractmethod
    def view(self) -> View:
        """The visible part of the plane."""

    @abstractmethod
    def set_view(self, left: float, right: float, bottom: float, top: float) -> None:
        """Show this part of the plane."""

    @abstractmethod
    def show_points(self, x: Floats, y: Floats, index: NDArray[np.uint16], lut: Picture) -> None:
        """Draw a symbol per atom, and no density picture; ``lut[index]`` are the colours."""

    @abstractmethod
    def show_density(self, picture: Picture, view: View) -> None:
        """Draw a picture (rows upward, RGBA) over a part of the plane, and no symbols."""

    @abstractmethod
    def show_selected_points(self, x: Floats, y: Floats, index: NDArray[np.uint16], lut: Picture) -> None:
        """Draw the selected atoms on top as ringed symbols, and no density picture of them."""

    @abstractmethod
    def show_selected_density(self, picture: NDArray[np.float64], view: View) -> None:
        """Draw where the selected atoms are (rows upward, 0..1) in the highlight colour, and no symbols of them."""

    @abstractmethod
    def dim(self, dimmed: bool) -> None:
        """Let the atoms that are not selected step back."""

    @abstractmethod
    def show_margins(self, x: Histogram, y: Histogram) -> None:
        """Draw the histograms beside the axes."""

    @abstractmethod
    def set_labels(self, x: str, y: str) -> None:
        """Name the axes."""

    @abstractmethod
    def show_scale(self, scale: ColorScale | None) -> None:
        """Draw the colour bar or the legend."""

    @abstractmethod
    def mark(self, x: float | None, y: float | None) -> None:
        """Draw a cross at a place, or none."""

    @abstractmethod
    def set_tool(self, tool: Tool) -> None:
        """Choose what dragging with the left button does."""

    @abstractmethod
    def save(self, path: Path) -> None:
        """Write the plot as a picture; the suffix says which kind (.png, .svg)."""


class Scatter:
    """Points, colours and gestures of one plot.

    Parameters
    ----------
    canvas : ScatterCanvas
        What draws.
    selection : Selection
        What gestures change and what lights up.

    Attributes
    ----------
    picked : psygnal.Signal
        The row whose point was clicked.
    hovered : psygnal.Signal
        x, y and the rows of the nearest points, the nearest first; none where nothing is drawn.
    """

    picked = Signal(int)
    hovered = Signal(float, float, np.ndarray)

    def __init__(self, canvas: ScatterCanvas, selection: Selection | None = None) -> None:
        self.canvas = canvas
        self._selection = selection or Selection()
        self._selection.changed.connect(self._draw_selected)
        self._xy: tuple[Floats, Floats] = (np.empty(0), np.empty(0))
        self._coarse_x = np.empty(0, np.float32)
        self._bins: tuple[NDArray[np.int16], ...] = ()
        self._edges: tuple[Floats, ...] = ()
        self._scale: ColorScale | None = None
        self._pixel = _DENSITY_PIXEL
        canvas.region_drawn.connect(self._region_drawn)
        canvas.range_drawn.connect(self._range_drawn)
        canvas.class_clicked.connect(self._class_clicked)
        canvas.clicked.connect(self._clicked)
        canvas.hovered.connect(self._hovered)
        canvas.view_rested.connect(self._view_rested)

    def close(self) -> None:
        """Listen to the selection no more."""
        self._selection.changed.disconnect(self._draw_selected)

    def show(
        self, selection: Selection, x: ArrayLike, y: ArrayLike, labels: tuple[str, str], scale: ColorScale, *, fit: bool
    ) -> None:
        """Show atoms.

        Parameters
        ----------
        selection : Selection
            Of the same atoms.
        x, y : array of float, (n,)
            Positions in the plot; atoms with NaN are not drawn and cannot be picked.
        labels : (str, str)
            Names of the axes with units.
        scale : ColorScale
            Colours of the same atoms.
        fit : bool
            Show all of them; otherwise the view stays as it is.
        """
        if selection is not self._selection:
            self._selection.changed.disconnect(self._draw_selected)
            self._selection = selection
            self._selection.changed.connect(self._draw_selected)
        new = (np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64))
        if not all(np.array_equal(a, b, equal_nan=True) for a, b in zip(new, self._xy, strict=True)) or not self._bins:
            self._xy, self._coarse_x = new, new[0].astype(np.float32)
            self._edges, self._bins = zip(*(_binned(values) for values in new), strict=True)
        self._scale = scale
        self.canvas.set_labels(*labels)
        self.canvas.show_scale(scale)
        if fit:
            self.fit()
        self._draw_atoms()
        self._draw_selected()

    def fit(self) -> None:
        """Show all atoms."""
        (left, right), (bottom, top) = (_padded_range(values) for values in self._xy)
        self.canvas.set_view(left, right, bottom, top)

    def nearest(self, x: float, y: float, count: int = 1) -> tuple[NDArray[np.intp], float]:
        """Find the points nearest to a place.

        Parameters
        ----------
        x, y : float
            The place.
        count : int
            So many, or as many as there are.

        Returns
        -------
        array of int
            Their rows, the nearest first.
        float
            Distance of the nearest in pixels of the canvas; infinite where there is none.
        """
        view = self.canvas.view
        scale_x = view.width / (view.right - view.left)
        scale_y = view.height / (view.top - view.bottom)
        # A strip of the plot first, in single precision and with a margin for it: few points are left for the rest.
        reach = _NEAR / scale_x + 1e-6 * abs(x)
        rows = np.flatnonzero(np.abs(self._coarse_x - np.float32(x)) <= reach)
        squared = self._squared(rows, x, y, scale_x, scale_y)
        if np.count_nonzero(squared <= _NEAR**2) < count:
            rows = np.flatnonzero(np.isfinite(self._xy[0]) & np.isfinite(self._xy[1]))
            squared = self._squared(rows, x, y, scale_x, scale_y)
        order = np.argpartition(squared, count - 1)[:count] if len(rows) > count else np.arange(len(rows))
        order = order[np.argsort(squared[order])]
        return rows[order], float(np.sqrt(squared[order[0]])) if order.size else np.inf

    def _squared(self, rows: NDArray[np.intp], x: float, y: float, scale_x: float, scale_y: float) -> Floats:
        return ((self._xy[0][rows] - x) * scale_x) ** 2 + ((self._xy[1][rows] - y) * scale_y) ** 2

    def _draw_atoms(self) -> None:
        x, y = self._xy
        scale = self._scale
        if scale is None:
            return
        if len(x) <= MOST_POINTS:
            self.canvas.show_points(x, y, scale.index, scale.lut)
            return
        view = self.canvas.view.grown(_MARGIN)
        inside = inside_view(x, y, view)
        if np.count_nonzero(inside) <= MOST_POINTS:
            self.canvas.show_points(x[inside], y[inside], scale.index[inside], scale.lut)
        else:
            self.canvas.show_density(density_picture(x, y, scale, view, self._pixel), view)

    def _draw_selected(self) -> None:
        scale, mask = self._scale, self._selection.mask
        x, y = self._xy
        if scale is None or len(mask) != len(x):
            return  # the table is just changing: `show` follows
        rows = np.flatnonzero(mask)
        self.canvas.dim(rows.size > 0)
        if rows.size <= MOST_SELECTED_POINTS:
            self.canvas.show_selected_points(x[rows], y[rows], scale.index[rows], scale.lut)
        else:
            view = self.canvas.view.grown(_MARGIN)
            counts = counts_in_pixels(x[rows], y[rows], view, self._pixel)[0]
            self.canvas.show_selected_density(brightness(counts), view)
        self.canvas.show_margins(*(self._histogram(axis, rows) for axis in (0, 1)))

    def _histogram(self, axis: int, rows: NDArray[np.intp]) -> Histogram:
        bins = self._bins[axis]
        # The last bin takes the missing values and is not shown.
        counts, selected = (np.bincount(some, minlength=_BINS + 1)[:_BINS] for some in (bins, bins[rows]))
        return Histogram(self._edges[axis], counts, selected)

    def save(self, path: Path) -> None:
        """Write the plot for print, with a density as fine as the print; see `ScatterCanvas.save`."""
        self._pixel = _PRINT_PIXEL
        try:
            self._view_rested()
            self.canvas.save(path)
        finally:
            self._pixel = _DENSITY_PIXEL
            self._view_rested()

    def _view_rested(self) -> None:
        if len(self._xy[0]) > MOST_POINTS:
            self._draw_atoms()
            if self._selection.count > MOST_SELECTED_POINTS:
                self._draw_selected()

    def _region_drawn(self, vertices: Floats, mode: Mode) -> None:
        self._combine(points_in_polygon(*self._xy, vertices), mode)

    def _range_drawn(self, axis: int, low: float, high: float, mode: Mode) -> None:
        if axis < 2:
            self._combine((self._xy[axis] >= low) & (self._xy[axis] <= high), mode)
        elif self._scale is not None:
            self._combine(self._scale.between(low, high), mode)

    def _class_clicked(self, number: int, mode: Mode) -> None:
        if self._scale is not None:
            self._combine(self._scale.index == number, mode)

    def _clicked(self, x: float, y: float, mode: Mode) -> None:
        rows, distance = self.nearest(x, y)
        mask = np.zeros(len(self._xy[0]), dtype=bool)
        if distance <= CLICK_RADIUS:
            mask[rows] = True
            self._combine(mask, mode)
            self.picked.emit(int(rows[0]))
        elif mode == "replace":
            self._combine(mask, mode)

    def _combine(self, mask: Mask, mode: Mode) -> None:
        if len(mask) == len(self._selection.mask):
            self._selection.combine(mask, mode, source="plot")

    def _hovered(self, x: float, y: float) -> None:
        self.hovered.emit(x, y, self.nearest(x, y, NEIGHBORS)[0])


def points_in_polygon(x: Floats, y: Floats, vertices: Floats) -> Mask:
    """Say which points lie in a polygon; NaN lies nowhere.

    Parameters
    ----------
    x, y : array of float, (n,)
        Points.
    vertices : array of float, (m, 2)
        Corners; the last is joined to the first.

    Returns
    -------
    array of bool, (n,)
        True inside.
    """
    from skimage.measure import points_in_poly

    inside = np.zeros(len(x), dtype=bool)
    if len(vertices) < 3:
        return inside
    (left, bottom), (right, top) = vertices.min(axis=0), vertices.max(axis=0)
    near = np.flatnonzero((x >= left) & (x <= right) & (y >= bottom) & (y <= top))
    inside[near] = points_in_poly(np.column_stack([x[near], y[near]]), vertices)
    return inside


def _binned(values: Floats) -> tuple[Floats, NDArray[np.int16]]:
    """Edges over the range of the values, and every value's bin; missing values go to bin `_BINS`."""
    low, high = _padded_range(values, 0.0)
    edges = np.linspace(low, high, _BINS + 1)
    with np.errstate(invalid="ignore"):
        bins = np.clip((values - low) * (_BINS / (high - low)), 0, _BINS - 1)
    return edges, np.where(np.isfinite(bins), bins, _BINS).astype(np.int16)


def _padded_range(values: Floats, padding: float = 0.05) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    if not finite.size:
        return 0.0, 1.0
    low, high = float(finite.min()), float(finite.max())
    pad = padding * (high - low) if high > low else 0.5 * (abs(low) or 1.0)
    return low - pad, high + pad
