"""The scatter's canvas, drawn by pyqtgraph: symbols, density pictures, histograms beside the axes, colour bar."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyqtgraph as pg
import pyqtgraph.exporters
from numpy.typing import NDArray
from qtpy.QtCore import QPointF, QRectF, Qt, QTimer
from qtpy.QtGui import QBrush, QColor, QPainter, QPainterPath, QPen, QPolygonF
from qtpy.QtSvg import QSvgGenerator
from qtpy.QtWidgets import QGraphicsPathItem

from napari_rvae.errors import OutputError
from napari_rvae.widgets.scatter import ColorScale, Floats, Histogram, Picture, ScatterCanvas, Tool, View
from napari_rvae.widgets.selection import Mode

_MARGIN_PIXELS = 34
_BAR_PIXELS = 12
_REST_MILLISECONDS = 60
_LASSO_STEP = 3.0  # pixels between corners of a lasso
_DIMMED = 0.3
_PRINT_WIDTH = 2400
_MOST_NAMES = 24  # in a legend
_WIDEST = 10_000  # px


def mode_of(modifiers: Any) -> Mode:
    """Say what the held keys mean: Shift adds, Ctrl subtracts, both intersect."""
    shift = bool(modifiers & Qt.KeyboardModifier.ShiftModifier)
    control = bool(modifiers & Qt.KeyboardModifier.ControlModifier)
    modes: dict[tuple[bool, bool], Mode] = {
        (False, False): "replace",
        (True, False): "add",
        (False, True): "subtract",
        (True, True): "intersect",
    }
    return modes[shift, control]


class _DrawingView(pg.ViewBox):
    """A view in which dragging with the left button draws: a lasso, a rectangle, or a range of one axis.

    Parameters
    ----------
    finished : callable
        Called with the vertices (n, 2) in data coordinates and the mode.
    clicked : callable
        Called with x, y and the mode.
    axis : int, optional
        A range of this axis is drawn instead of a region.
    """

    def __init__(
        self,
        finished: Callable[[Floats, Mode], None],
        clicked: Callable[[float, float, Mode], None] | None = None,
        axis: int | None = None,
    ) -> None:
        super().__init__(enableMenu=False)
        self.disableAutoRange()
        self.tool: Tool = "rectangle"
        self.outline = QGraphicsPathItem()
        self.outline.setZValue(100)
        self.outline.hide()
        self.addItem(self.outline, ignoreBounds=True)
        self._finished, self._clicked, self._axis = finished, clicked, axis
        self._corners: list[QPointF] = []

    def mouseDragEvent(self, ev: Any, axis: int | None = None) -> None:
        """Draw with the left button; the other buttons move and scale as everywhere in pyqtgraph."""
        if ev.button() != Qt.MouseButton.LeftButton or self.tool == "pan":
            super().mouseDragEvent(ev, axis)
            return
        ev.accept()
        if ev.isStart():
            self._corners = [ev.buttonDownPos()]
        self._extend(ev.pos())
        path = QPainterPath()
        path.addPolygon(QPolygonF([self.mapToView(corner) for corner in self._corners]))
        path.closeSubpath()
        self.outline.setPath(path)
        self.outline.setVisible(not ev.isFinish())
        if ev.isFinish():
            vertices = np.array([(p.x(), p.y()) for p in map(self.mapToView, self._corners)])
            self._finished(vertices, mode_of(ev.modifiers()))

    def mouseClickEvent(self, ev: Any) -> None:
        """Tell where a click was."""
        if ev.button() == Qt.MouseButton.LeftButton and self._clicked is not None:
            ev.accept()
            place = self.mapToView(ev.pos())
            self._clicked(place.x(), place.y(), mode_of(ev.modifiers()))

    def _extend(self, position: QPointF) -> None:
        first = self._corners[0]
        if self.tool == "lasso":
            if (position - self._corners[-1]).manhattanLength() >= _LASSO_STEP:
                self._corners.append(position)
            return
        x0, x1, y0, y1 = first.x(), position.x(), first.y(), position.y()
        if self._axis == 0:
            y0, y1 = 0.0, self.height()
        elif self._axis == 1:
            x0, x1 = 0.0, self.width()
        # The first corner stays where the drag began along the axis that counts.
        self._corners = [QPointF(x0, y0), QPointF(x1, y0), QPointF(x1, y1), QPointF(x0, y1)]


class _Symbols(pg.ScatterPlotItem):
    """Symbols that leave clicks to the view beneath them."""

    def mouseClickEvent(self, ev: Any) -> None:
        ev.ignore()


class _Legend(pg.LabelItem):
    """A text that breaks into lines where the plot is narrow, instead of widening it; its links are numbers."""

    room = 300.0
    picked: Callable[[int, Mode], None]

    def mouseClickEvent(self, ev: Any) -> None:
        """Tell which link was clicked."""
        link = self.item.document().documentLayout().anchorAt(self.item.mapFromScene(ev.scenePos()))
        if link and ev.button() == Qt.MouseButton.LeftButton:
            ev.accept()
            self.picked(int(link), mode_of(ev.modifiers()))

    def wrap(self, view: pg.ViewBox) -> None:
        """Follow the width of the plot."""
        self.room = max(view.width(), 100.0)
        self.updateMin()

    def updateMin(self) -> None:  # noqa: N802
        """Ask for the height that the text needs."""
        self.item.setTextWidth(self.room)
        height = self.itemRect().height()
        self.setMinimumSize(0, height)
        self._sizeHint = dict.fromkeys((Qt.SizeHint.MinimumSize, Qt.SizeHint.PreferredSize), (0, height))
        self._sizeHint[Qt.SizeHint.MaximumSize] = (_WIDEST, height)  # as wide as the plot, or clicks pass it by
        self.updateGeometry()


class _PlotWidget(pg.GraphicsLayoutWidget):
    """A graphics layout that tells when the mouse leaves it."""

    def __init__(self, left: Callable[[], None]) -> None:
        super().__init__()
        self._left = left

    def leaveEvent(self, ev: Any) -> None:
        super().leaveEvent(ev)
        self._left()


class PyQtGraphCanvas(ScatterCanvas):
    """A scatter canvas as a Qt widget, `widget`."""

    def __init__(self) -> None:
        self.widget = _PlotWidget(self.left.emit)
        self.widget.setMinimumHeight(220)
        self._theme = ("black", "white", "white")
        self._scale: ColorScale | None = None  # of the legend
        self._lit: tuple[NDArray[np.float64], View] | None = None  # in the highlight colour
        self._highlight = QColor("white")
        self._rest = QTimer(self.widget)
        self._rest.setSingleShot(True)
        self._rest.setInterval(_REST_MILLISECONDS)
        self._rest.timeout.connect(self.view_rested.emit)
        self._build_layout()
        self._build_items()
        self.main.sigRangeChanged.connect(lambda: self._rest.start())
        self.widget.scene().sigMouseMoved.connect(self._mouse_moved)

    def _build_layout(self) -> None:
        layout = self.widget.ci.layout
        layout.setSpacing(2)
        layout.setContentsMargins(2, 2, 4, 2)
        self.main = _DrawingView(self.region_drawn.emit, self.clicked.emit)
        self.main.tool = "lasso"
        self.margins = tuple(_DrawingView(self._range_finished(axis), axis=axis) for axis in (0, 1))
        self.margins[0].setXLink(self.main)
        self.margins[1].setYLink(self.main)
        self.axes = {side: pg.AxisItem(side) for side in ("left", "bottom")}
        for axis in self.axes.values():
            axis.linkToView(self.main)
        self.bar_view = _DrawingView(self._range_finished(2), axis=0)
        self.bar_view.setMouseEnabled(False, False)
        self._bar_axis = pg.AxisItem("bottom")
        self._bar_axis.linkToView(self.bar_view)
        self.legend = _Legend(justify="left")
        self.legend.picked = self.class_clicked.emit
        for item, row, column in (
            (self.margins[0], 0, 1),
            (self.axes["left"], 1, 0),
            (self.main, 1, 1),
            (self.margins[1], 1, 2),
            (self.axes["bottom"], 2, 1),
            (self.bar_view, 3, 1),
            (self._bar_axis, 4, 1),
            (self.legend, 5, 1),
        ):
            self.widget.addItem(item, row, column)
        self.main.sigResized.connect(self.legend.wrap)
        layout.setRowFixedHeight(0, _MARGIN_PIXELS)
        layout.setColumnFixedWidth(2, _MARGIN_PIXELS)
        layout.setRowStretchFactor(1, 10)

    def _build_items(self) -> None:
        self.points, self.selected_points, self.cross = (
            _Symbols(pen=None, pxMode=True, size=size, symbol=symbol)
            for size, symbol in ((6, "o"), (8, "o"), (15, "+"))
        )
        self.density, self.selected_density = (pg.ImageItem(axisOrder="row-major") for _ in range(2))
        for height, item in enumerate(
            (self.density, self.points, self.selected_density, self.selected_points, self.cross)
        ):
            item.setZValue(height)
            self.main.addItem(item, ignoreBounds=True)
        self._bars = [[QGraphicsPathItem() for _ in range(2)] for _ in range(2)]
        for view, bars, enabled in zip(self.margins, self._bars, ({"y": False}, {"x": False}), strict=True):
            view.setMouseEnabled(**enabled)
            for bar in bars:
                view.addItem(bar, ignoreBounds=True)
        self.margins[0].setYRange(0, 1.05, padding=0)
        self.margins[1].setXRange(0, 1.05, padding=0)
        self._bar = pg.ImageItem(axisOrder="row-major")
        self.bar_view.addItem(self._bar, ignoreBounds=True)

    @property
    def view(self) -> View:
        """The visible part of the plane."""
        (left, right), (bottom, top) = self.main.viewRange()
        return View(left, right, bottom, top, max(1.0, self.main.width()), max(1.0, self.main.height()))

    def set_view(self, left: float, right: float, bottom: float, top: float) -> None:
        """Show this part of the plane."""
        self.main.setRange(xRange=(left, right), yRange=(bottom, top), padding=0)

    def show_points(self, x: Floats, y: Floats, index: NDArray[np.uint16], lut: Picture) -> None:
        """Draw a symbol per atom."""
        self.density.clear()
        self._set(self.points, x, y, index, lut)

    def show_density(self, picture: Picture, view: View) -> None:
        """Draw a picture of the density."""
        self.points.clear()
        self._show_picture(self.density, picture, view)

    def show_selected_points(self, x: Floats, y: Floats, index: NDArray[np.uint16], lut: Picture) -> None:
        """Draw the selected atoms as ringed symbols."""
        self._lit = None
        self.selected_density.clear()
        self._set(self.selected_points, x, y, index, lut)

    def show_selected_density(self, picture: NDArray[np.float64], view: View) -> None:
        """Draw where the selected atoms are in the highlight colour."""
        self._lit = picture, view
        self.selected_points.clear()
        rgba = np.empty((*picture.shape, 4), np.uint8)
        rgba[..., :3] = self._highlight.getRgb()[:3]
        rgba[..., 3] = 255 * picture
        self._show_picture(self.selected_density, rgba, view)

    def dim(self, dimmed: bool) -> None:
        """Let the atoms that are not selected step back."""
        for item in (self.points, self.density):
            item.setOpacity(_DIMMED if dimmed else 1.0)

    def show_margins(self, x: Histogram, y: Histogram) -> None:
        """Draw the histograms beside the axes, each as high as there is room, so that shapes can be compared."""
        for axis, histogram in enumerate((x, y)):
            for bar, counts in zip(self._bars[axis], (histogram.counts, histogram.selected), strict=True):
                along = np.repeat(histogram.edges, 2)
                heights = np.concatenate([[0], np.repeat(counts / max(1, counts.max()), 2), [0]])
                bar.setPath(pg.arrayToQPath(*((along, heights) if axis == 0 else (heights, along))))

    def set_labels(self, x: str, y: str) -> None:
        """Name the axes."""
        self.axes["bottom"].setLabel(escape(x))
        self.axes["left"].setLabel(escape(y))

    def show_scale(self, scale: ColorScale | None) -> None:
        """Draw a colour bar for amounts and angles, a legend for classes."""
        bar = scale is not None and not scale.categorical
        layout = self.widget.ci.layout
        layout.setRowFixedHeight(3, _BAR_PIXELS if bar else 0)
        for item in (self.bar_view, self._bar_axis):
            item.setVisible(bar)
        self._bar_axis.setHeight(None if bar else 0)
        self.legend.setVisible(not bar)
        self._scale = None if bar else scale
        self.legend.setText(self._legend_html(self._scale))
        if scale is not None and bar:
            low, high = scale.limits
            self._bar.setImage(scale.lut[np.newaxis, :-1], levels=(0, 255))
            self._bar.setRect(QRectF(low, 0, (high - low) or 1.0, 1))
            self.bar_view.setRange(xRange=(low, high if high > low else low + 1), yRange=(0, 1), padding=0)
            self._bar_axis.setLabel(escape(scale.label))

    def mark(self, x: float | None, y: float | None) -> None:
        """Draw a cross at a place, or none."""
        self.cross.setData([] if x is None else [x], [] if y is None else [y])

    def set_tool(self, tool: Tool) -> None:
        """Choose what dragging with the left button does."""
        self.main.tool = tool
        self.main.setCursor(Qt.CursorShape.OpenHandCursor if tool == "pan" else Qt.CursorShape.CrossCursor)

    def set_theme(self, background: str, foreground: str, highlight: str) -> None:
        """Take over the colours of the window.

        Parameters
        ----------
        background, foreground, highlight : str
            Of the plot, of axes and text, of what is selected; anything QColor understands.
        """
        self._theme = (background, foreground, highlight)
        self._highlight = QColor(highlight)
        self.widget.setBackground(background)
        faint = QColor(foreground)
        faint.setAlpha(110)
        for axis in (*self.axes.values(), self._bar_axis):
            axis.setPen(faint)
            axis.setTextPen(foreground)
        self.legend.setText(self._legend_html(self._scale), color=foreground)
        self.cross.setPen(pg.mkPen(foreground, width=1.5))
        self.selected_points.setPen(pg.mkPen(self._highlight, width=1.5))
        if self._lit is not None:
            self.show_selected_density(*self._lit)
        fill = QColor(self._highlight)
        fill.setAlpha(40)
        for view in (self.main, *self.margins, self.bar_view):
            view.setBorder(faint)
            view.outline.setPen(pg.mkPen(self._highlight, width=1.5))
            view.outline.setBrush(QBrush(fill))
        strong = QColor(self._highlight)
        strong.setAlpha(150)
        for every, selected in self._bars:
            every.setPen(QPen(Qt.PenStyle.NoPen))
            every.setBrush(QBrush(faint))
            selected.setPen(QPen(Qt.PenStyle.NoPen))
            selected.setBrush(QBrush(strong))

    def save(self, path: Path) -> None:
        """Write the plot for print, black on white: .svg as vectors, .png as pixels.

        Raises
        ------
        OutputError
            If it cannot be written there, or the name ends otherwise.
        """
        if path.suffix.lower() not in (".png", ".svg"):
            raise OutputError(f"{path.name} does not say what kind of picture it is; end it in .png or .svg")
        theme = self._theme
        self.set_theme("white", "black", "black")
        try:
            exporter = pg.exporters.ImageExporter(self.widget.scene())
            if path.suffix.lower() == ".svg":
                written = self._save_vectors(path, exporter)
            else:
                exporter.parameters()["width"] = _PRINT_WIDTH
                written = exporter.export(str(path))
        finally:
            self.set_theme(*theme)
        if not written:
            raise OutputError(f"{path} cannot be written; choose another folder")

    def _save_vectors(self, path: Path, exporter: Any) -> bool:
        # pyqtgraph's own SVG exporter stumbles over filled paths.
        size = self.widget.sceneRect().size().toSize()
        file = QSvgGenerator()
        file.setFileName(str(path))
        file.setSize(size)
        file.setViewBox(QRectF(0, 0, size.width(), size.height()))
        file.setResolution(self.widget.logicalDpiX())  # the axes are kept as drawings of the screen's resolution
        painter = QPainter()
        if not painter.begin(file):
            return False
        painter.fillRect(0, 0, size.width(), size.height(), self.widget.backgroundBrush())
        exporter.setExportMode(True, {"antialias": True, "painter": painter, "resolutionScale": 1.0})
        self.widget.scene().render(painter, QRectF(painter.viewport()), self.widget.sceneRect())
        exporter.setExportMode(False)
        return painter.end()

    def _set(self, item: pg.ScatterPlotItem, x: Floats, y: Floats, index: NDArray[np.uint16], lut: Picture) -> None:
        drawn = np.isfinite(x) & np.isfinite(y)
        # One brush object per colour: pyqtgraph then paints one symbol per colour and copies it.
        brushes = np.array([QBrush(QColor(*map(int, color))) for color in lut], dtype=object)
        item.setData(x[drawn], y[drawn], brush=brushes[index[drawn]])

    def _show_picture(self, item: pg.ImageItem, picture: Picture, view: View) -> None:
        item.setImage(picture, levels=(0, 255))
        item.setRect(QRectF(view.left, view.bottom, view.right - view.left, view.top - view.bottom))

    def _legend_html(self, scale: ColorScale | None) -> str:
        if scale is None:
            return ""
        text = f"color:{self._theme[1]};text-decoration:none"
        entries = [
            f'<a href="{number}" style="{text}"><span style="color:#{bytes(color[:3]).hex()}">&#9679;</span>&nbsp;'
            f"{escape(name).replace(' ', '&nbsp;')}</a>"
            for number, (name, color) in enumerate(zip(scale.names[:_MOST_NAMES], scale.lut, strict=False))
        ]
        if len(scale.names) > _MOST_NAMES:
            entries.append(f"and {len(scale.names) - _MOST_NAMES} more")
        return f"{escape(scale.label)}:&nbsp; " + " &nbsp;".join(entries)

    def _range_finished(self, axis: int) -> Callable[[Floats, Mode], None]:
        along = axis if axis < 2 else 0

        def finished(vertices: Floats, mode: Mode) -> None:
            low, high = vertices[:, along].min(), vertices[:, along].max()
            self.range_drawn.emit(axis, float(low), float(high), mode)

        return finished

    def _mouse_moved(self, position: QPointF) -> None:
        if self.main.sceneBoundingRect().contains(position):
            place = cast(QPointF, self.main.mapSceneToView(position))
            self.hovered.emit(place.x(), place.y())
        else:
            self.left.emit()
