"""The Explore dock: the scatter of any two features, linked with the image in both directions."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Points
from napari.utils.notifications import show_info
from napari.utils.theme import get_theme
from numpy.typing import NDArray
from qtpy.QtCore import Qt, QTimer
from qtpy.QtGui import QHideEvent, QKeySequence, QShortcut, QShowEvent
from qtpy.QtWidgets import (
    QLabel,
    QScrollArea,
    QSplitter,
    QStackedWidget,
    QTabWidget,
    QVBoxLayout,
    QWidget,
)

from napari_rvae.layers import RECIPE, Coloring, class_colors, color_points, coloring_of, events, model_of
from napari_rvae.widgets.atoms_link import AtomsLink
from napari_rvae.widgets.columns import (
    axis_columns,
    color_scale,
    column_label,
    displayed_text,
    displayed_values,
)
from napari_rvae.widgets.explore_baseline import BaselinePanel
from napari_rvae.widgets.explore_classes import ClassesPanel
from napari_rvae.widgets.explore_clusters import ClustersPanel
from napari_rvae.widgets.explore_controls import ColumnBoxes, MoreMenu, ToolRow
from napari_rvae.widgets.explore_image import ImageSide
from napari_rvae.widgets.explore_manifold import ManifoldPanel
from napari_rvae.widgets.explore_patches import PatchPanel
from napari_rvae.widgets.parts import Dock, LayerBox
from napari_rvae.widgets.plot_canvas import PyQtGraphCanvas
from napari_rvae.widgets.scatter import Scatter

if TYPE_CHECKING:
    from napari.viewer import Viewer

_NOTHING = (
    "<p>Find atoms, then train an rVAE: every atom becomes a point here. "
    "Any points layer with two columns of numbers can be explored.</p>"
)


class _AtomsBox(LayerBox):
    """A choice among the points layers that have something to plot."""

    def offers(self, layer: Points) -> bool:
        return super().offers(layer) and bool(axis_columns(layer.features))


class ExploreWidget(Dock):
    """Scatter plot of the features of a points layer, linked with the image.

    Parameters
    ----------
    napari_viewer : Viewer
        The viewer whose points layers are explored.

    Attributes
    ----------
    canvas : PyQtGraphCanvas
        The plot.
    scatter : Scatter
        What it shows.
    image : ImageSide
        What the mouse does in the image.
    link : AtomsLink or None
        The layer that is shown, with its selection and history.
    """

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__(napari_viewer)
        self.link: AtomsLink | None = None
        self._links: dict[Points, AtomsLink] = {}
        self._watched: set[Points] = set()
        self._shown: tuple[Any, ...] = ()
        self.canvas = PyQtGraphCanvas()
        self.scatter = Scatter(self.canvas)
        self.image = ImageSide(self, self._links)
        # Moving points by hand tells so at every step of the mouse: draw once when the hand gives time.
        self._soon = QTimer(self)
        self._soon.setSingleShot(True)
        self._soon.setInterval(0)
        self._soon.timeout.connect(self._refresh)
        self._build()
        self._connect()
        self._set_theme()
        self._layers_changed()
        self._active_changed()
        self.show_layer(self.layer_box.layer)

    # Layout ---------------------------------------------------------------------------------------------------------

    def _build(self) -> None:
        self.layer_box = _AtomsBox(self, Points, "no atoms with features yet")
        self.columns = ColumnBoxes(self.layer_box)
        self.status, self.hover = QLabel(), QLabel()
        self.hover.setWordWrap(True)
        self.hover.setMinimumHeight(2 * self.hover.fontMetrics().lineSpacing())
        self.hover.setAlignment(Qt.AlignmentFlag.AlignTop)
        self.patch, self.manifold = PatchPanel(self.viewer), ManifoldPanel(self.viewer)
        self.classes, self.clusters, self.baseline = ClassesPanel(), ClustersPanel(), BaselinePanel(self.viewer)
        self.tabs = QTabWidget()
        for panel, name in (
            (self.patch, "Patch"),
            (self.classes, "Classes"),
            (self.clusters, "Clusters"),
            (self.manifold, "Manifold"),
            (self.baseline, "Baseline"),
        ):
            area = QScrollArea()
            area.setWidgetResizable(True)
            area.setFrameShape(QScrollArea.Shape.NoFrame)
            area.setWidget(panel)
            self.tabs.addTab(area, name)
        self.panels = (self.patch, self.classes, self.clusters, self.manifold, self.baseline)

        self.more = MoreMenu(self)
        self.tools = ToolRow(self.canvas.set_tool, self._act, self.more)
        plot = QWidget()
        above = QVBoxLayout(plot)
        above.setContentsMargins(0, 0, 0, 0)
        above.addLayout(self.tools)
        above.addWidget(self.canvas.widget, 1)
        above.addWidget(self.status)
        above.addWidget(self.hover)
        content = QSplitter(Qt.Orientation.Vertical)
        content.addWidget(plot)
        content.addWidget(self.tabs)
        content.setStretchFactor(0, 3)
        content.setStretchFactor(1, 2)
        content.setChildrenCollapsible(False)
        content.setSizes([450, 350])

        nothing = QLabel(_NOTHING)
        nothing.setWordWrap(True)
        nothing.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.pages = QStackedWidget()
        self.pages.addWidget(nothing)
        self.pages.addWidget(content)
        self.rows.addWidget(self.columns)
        self.rows.addWidget(self.pages, 1)

    # Layers ---------------------------------------------------------------------------------------------------------

    def _connect(self) -> None:
        layers = self.viewer.layers
        self.listen(layers.events.inserted, self._layers_changed)
        self.listen(layers.events.removed, self._layers_changed)
        self.listen(layers.selection.events.active, self._active_changed)
        self.listen(self.viewer.events.theme, self._set_theme)
        self.listen(events.colored, self._colored)
        self.layer_box.layer_changed.connect(self.show_layer)
        self.columns.axes_chosen.connect(self.plot_columns)
        self.columns.color_chosen.connect(self.color_by)
        self.scatter.picked.connect(self.image.go_to)
        self.scatter.hovered.connect(self._hovered)
        self.image.hovered.connect(self._atom_hovered)
        self.image.failed.connect(show_info)
        self.canvas.left.connect(self._hover_ended)
        self.tabs.currentChanged.connect(self._refresh_panel)
        self.manifold.pointed.connect(self._mark)
        for panel in (self.classes, self.clusters, self.baseline):
            panel.color_wanted.connect(self.color_by)
        self.classes.labels_wanted.connect(self.image.show_classes)
        keys: dict[Any, Any] = {
            QKeySequence.StandardKey.Undo: partial(self._act, "undo"),
            QKeySequence.StandardKey.Redo: partial(self._act, "redo"),
            "Escape": partial(self._act, "clear"),
            "I": partial(self._act, "invert"),
            **{str(number): partial(self.classes.assign_number, number) for number in range(10)},
        }
        for key, action in keys.items():
            shortcut = QShortcut(QKeySequence(key), self)
            shortcut.setContext(Qt.ShortcutContext.WidgetWithChildrenShortcut)
            shortcut.activated.connect(action)
        self.image.set_keys(
            {
                "Control-Z": partial(self._act, "undo"),
                "Control-Shift-Z": partial(self._act, "redo"),
                **{str(number): partial(self.classes.assign_number, number) for number in range(10)},
            }
        )

    def showEvent(self, a0: QShowEvent | None) -> None:
        """Take the number keys in the image, too."""
        super().showEvent(a0)
        self.image.take_keys()

    def hideEvent(self, a0: QHideEvent | None) -> None:
        """Give the keys back."""
        super().hideEvent(a0)
        self.image.take_keys()

    def closed(self) -> None:
        """Let go of the viewer and of every layer."""
        super().closed()
        self._soon.stop()
        for layer in self._watched:
            self._unwatch(layer)
        self._watched.clear()
        self.image.close()
        self.scatter.close()

    def _layers_changed(self) -> None:
        now = {layer for layer in self.viewer.layers if isinstance(layer, Points)}
        for layer in self._watched - now:
            self._unwatch(layer)
        for layer in now - self._watched:  # each can be explored as soon as it has features
            layer.events.features.connect(self.layer_box.fill)
        self._watched = now

    def _unwatch(self, layer: Points) -> None:
        layer.events.features.disconnect(self.layer_box.fill)
        if layer in self._links:
            link = self._links.pop(layer)
            link.changed.disconnect(self._table_changed)
            link.lit.disconnect(self.image.outline_cells)
            link.close()
            if link is self.link:
                self._unlink()

    def _unlink(self) -> None:
        if self.link is not None:
            self.link.selection.changed.disconnect(self._selection_changed)
            self.link.history.changed.disconnect(self._history_changed)
            self.link = None
        for panel in (self.image, *self.panels):
            panel.set_link(None)

    def show_layer(self, layer: Points | None) -> None:
        """Explore a points layer.

        Parameters
        ----------
        layer : Points or None
            One of the viewer's layers with at least one column of numbers; None shows nothing.
        """
        if layer is not (self.link.layer if self.link else None):
            self._unlink()
            if layer is not None:
                if layer not in self._links:
                    self._links[layer] = link = AtomsLink(layer)
                    link.changed.connect(self._table_changed)
                    link.lit.connect(self.image.outline_cells)
                self.link = self._links[layer]
                self.link.selection.changed.connect(self._selection_changed)
                self.link.history.changed.connect(self._history_changed)
            for panel in (self.image, *self.panels):
                panel.set_link(self.link)
        self.layer_box.choose(layer)
        self._refresh()

    def _active_changed(self) -> None:
        """Follow the layer list: whoever clicks on an analysed layer wants to see it."""
        self.layer_box.choose(self.viewer.layers.selection.active)

    def plot_columns(self, x: str, y: str) -> None:
        """Plot two columns against each other.

        Parameters
        ----------
        x, y : str
            Columns of numbers.
        """
        if self.link is not None:
            self.link.x, self.link.y, self.link.chosen = x, y, True
            self._refresh()

    def color_by(self, column: str) -> None:
        """Colour the plot and the atoms in the image by a column.

        Parameters
        ----------
        column : str
            One of the features.
        """
        if self.link is not None and column in self.link.table:
            self.link.color = column
            color_points(self.link.layer, column)
            self._refresh()

    def _colored(self, layer: Points) -> None:
        """Show the colour that a layer was given elsewhere."""
        coloring = coloring_of(layer)
        if self.link is not None and layer is self.link.layer and coloring is not None:
            self.link.color = coloring.column
            self._table_changed()

    def _table_changed(self) -> None:
        self._soon.start()

    # Drawing --------------------------------------------------------------------------------------------------------

    def _refresh(self) -> None:
        """Draw what the table says now."""
        link = self.link
        something = self.columns.fill(link)
        self.pages.setCurrentIndex(int(something))
        if link is None or not something:
            return
        table = link.table
        x, y = (displayed_values(table, name) for name in (link.x, link.y))
        coloring = coloring_of(link.layer)
        if coloring is None or coloring.column != link.color:
            coloring = Coloring.of(table, link.color, class_colors(link.layer, link.color))
        shown = (link.layer, link.x, link.y, model_of(link.layer))  # another model has other latents
        self.scatter.show(
            link.selection,
            x,
            y,
            (column_label(link.x), column_label(link.y)),
            color_scale(table, coloring, link.layer.metadata.get(RECIPE)),
            fit=shown != self._shown,
        )
        self._shown = shown
        self._show_count()
        self._refresh_panel()
        self._history_changed()
        self.image.show_classes(link, anew=False)

    def _selection_changed(self) -> None:
        self._show_count()
        if self.panels[self.tabs.currentIndex()] in (self.patch, self.manifold):
            self._refresh_panel()

    def _show_count(self) -> None:
        if self.link is None:
            return
        count, total = self.link.selection.count, len(self.link.selection.mask)
        part = f" ({100 * count / total:.3g} %)" if count else ""
        self.status.setText(f"<b>{count:,}</b> of {total:,} atoms selected{part}")

    def _history_changed(self) -> None:
        if self.link is None:
            return
        self.tools.show_history(self.link.history.next_undo, self.link.history.next_redo)

    def _refresh_panel(self) -> None:
        self.panels[self.tabs.currentIndex()].refresh()

    def _set_theme(self) -> None:
        theme = get_theme(self.viewer.theme)
        highlight = "white" if sum(theme.background.as_rgb_tuple()[:3]) < 384 else "black"
        self.canvas.set_theme(theme.background.as_hex(), theme.text.as_hex(), highlight)
        self.pages.setStyleSheet(f"QToolButton:checked {{ background: {theme.current.as_hex()}; border-radius: 3px; }}")

    # Gestures -------------------------------------------------------------------------------------------------------

    def _act(self, what: str) -> None:
        if self.link is not None:
            target = self.link.history if what in ("undo", "redo") else self.link.selection
            getattr(target, what)()

    def _hovered(self, x: float, y: float, rows: NDArray[np.intp]) -> None:
        if self.link is not None:
            self._show_atoms(rows, {self.link.x: x, self.link.y: y})

    def _atom_hovered(self, row: int) -> None:
        """Show the atom under the cursor in the image, and where it lies in the plot."""
        if row < 0:
            self._hover_ended()
        elif self.link is not None and not self._soon.isActive():
            place = (displayed_values(self.link.table, name)[row] for name in (self.link.x, self.link.y))
            self.canvas.mark(*place)
            self._show_atoms(np.array([row]), {})

    def _show_atoms(self, rows: NDArray[np.intp], place: dict[str, float]) -> None:
        link = self.link
        if link is None or not len(rows) or self._soon.isActive():
            return  # the last means that the plot is older than the table
        self.hover.setText(
            displayed_text(link.table, int(rows[0]), (link.x, link.y, link.color, "angle", "sublattice"))
        )
        if self.tabs.currentIndex() == 0:
            self.patch.show_place(place, rows)

    def _hover_ended(self) -> None:
        self.hover.clear()
        self.canvas.mark(None, None)
        if self.tabs.currentIndex() == 0:
            self.patch.refresh()

    def _mark(self, first: str, first_value: float, second: str, second_value: float) -> None:
        place = {first: first_value, second: second_value}
        if self.link is not None and self.link.x in place and self.link.y in place:
            self.canvas.mark(place[self.link.x], place[self.link.y])
