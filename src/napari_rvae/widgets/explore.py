"""The Explore dock: the scatter of any two features, linked with the image in both directions."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from napari.layers import Points
from napari.utils.notifications import show_error, show_info
from napari.utils.theme import get_theme
from qtpy.QtCore import Qt, QTimer
from qtpy.QtGui import QKeySequence, QShortcut
from qtpy.QtWidgets import (
    QButtonGroup,
    QComboBox,
    QFileDialog,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QMenu,
    QSizePolicy,
    QSplitter,
    QStackedWidget,
    QTabWidget,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from napari_rvae.errors import RVAEError
from napari_rvae.io import save_table
from napari_rvae.layers import Coloring, add_subset, atoms_table, color_choices, color_points, coloring_of
from napari_rvae.widgets.atoms_link import AtomsLink
from napari_rvae.widgets.columns import (
    axis_columns,
    color_scale,
    column_label,
    displayed_text,
    displayed_values,
    first_axes,
    first_color,
    is_latent,
)
from napari_rvae.widgets.explore_classes import ClassesPanel
from napari_rvae.widgets.explore_clusters import ClustersPanel
from napari_rvae.widgets.explore_patches import ManifoldPanel, PatchPanel
from napari_rvae.widgets.parts import Dock, LayerBox, is_helper
from napari_rvae.widgets.plot_canvas import PyQtGraphCanvas
from napari_rvae.widgets.scatter import Scatter, Tool

if TYPE_CHECKING:
    from napari.viewer import Viewer

_NOTHING = (
    "<p>Find atoms, then train an rVAE: every atom becomes a point here. "
    "Any points layer with two columns of numbers can be explored.</p>"
)
_KEYS = "Shift adds, Ctrl takes away, both together keep what is in both."


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
    link : AtomsLink or None
        The layer that is shown, with its selection and history.
    """

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__(napari_viewer)
        self.link: AtomsLink | None = None
        self._links: dict[Points, AtomsLink] = {}
        self._shown: tuple[Any, ...] = ()
        self.canvas = PyQtGraphCanvas()
        self.scatter = Scatter(self.canvas)
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
        self.layer_box = LayerBox(self, Points, "no atoms with features yet", self._can_be_explored)
        self.x_box, self.y_box, self.color_box = (QComboBox() for _ in range(3))
        for box in (self.x_box, self.y_box, self.color_box):
            box.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.status, self.hover = QLabel(), QLabel()
        self.hover.setWordWrap(True)
        self.hover.setMinimumHeight(2 * self.hover.fontMetrics().lineSpacing())
        self.hover.setAlignment(Qt.AlignmentFlag.AlignTop)
        self.patch, self.manifold = PatchPanel(self.viewer), ManifoldPanel(self.viewer)
        self.classes, self.clusters = ClassesPanel(), ClustersPanel()
        self.tabs = QTabWidget()
        for panel, name in (
            (self.patch, "Patch"),
            (self.classes, "Classes"),
            (self.clusters, "Clusters"),
            (self.manifold, "Manifold"),
        ):
            self.tabs.addTab(panel, name)

        plot = QWidget()
        above = QVBoxLayout(plot)
        above.setContentsMargins(0, 0, 0, 0)
        above.addLayout(self._tools())
        above.addWidget(self.canvas.widget, 1)
        above.addWidget(self.status)
        above.addWidget(self.hover)
        content = QSplitter(Qt.Orientation.Vertical)
        content.addWidget(plot)
        content.addWidget(self.tabs)
        content.setStretchFactor(0, 3)
        content.setStretchFactor(1, 1)
        content.setChildrenCollapsible(False)
        content.setSizes([520, 260])

        nothing = QLabel(_NOTHING)
        nothing.setWordWrap(True)
        nothing.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.pages = QStackedWidget()
        self.pages.addWidget(nothing)
        self.pages.addWidget(content)
        self.rows.addLayout(self._choices())
        self.rows.addWidget(self.pages, 1)

    def _choices(self) -> QGridLayout:
        grid = QGridLayout()
        grid.setHorizontalSpacing(6)
        for name, box, row, column, span in (
            ("atoms", self.layer_box, 0, 0, 3),
            ("x", self.x_box, 1, 0, 1),
            ("y", self.y_box, 1, 2, 1),
            ("colour", self.color_box, 2, 0, 3),
        ):
            grid.addWidget(QLabel(name), row, column)
            grid.addWidget(box, row, column + 1, 1, span)
        grid.setColumnStretch(1, 1)
        grid.setColumnStretch(3, 1)
        return grid

    def _tools(self) -> QHBoxLayout:
        row = QHBoxLayout()
        row.setSpacing(0)
        self.tools = QButtonGroup(self)
        for name, tool, tip in (
            ("Lasso", "lasso", f"Draw around points to select them. {_KEYS}"),
            ("Box", "rectangle", f"Draw a rectangle around points to select them. {_KEYS}"),
            ("Pan", "pan", "Move the plot. With every tool: wheel or right button to zoom, middle button to move."),
        ):
            button = self._button(row, name, tip, partial(self.canvas.set_tool, cast("Tool", tool)))
            button.setCheckable(True)
            button.setChecked(tool == "lasso")
            self.tools.addButton(button)
        row.addStretch(1)
        self.invert = self._button(row, "Invert", "Select what is not selected (I)", lambda: self._select("invert"))
        self.clear = self._button(row, "Clear", "Select nothing (Esc)", lambda: self._select("clear"))
        self.undo = self._button(row, "↶", "Undo", lambda: self._history("undo"))
        self.redo = self._button(row, "↷", "Redo", lambda: self._history("redo"))
        row.addStretch(1)
        menu = QMenu(self)
        menu.addAction("Show all points", self.scatter.fit)
        menu.addAction("Selected atoms as a new layer", self.copy_selection)
        menu.addSeparator()
        table, plot = ("Table (*.csv *.parquet)", self.save_table), ("Picture (*.png *.svg)", self.canvas.save)
        menu.addAction("Save the table ...", partial(self._ask, "Save the table", *table))
        menu.addAction("Save the plot ...", partial(self._ask, "Save the plot", *plot))
        more = self._button(row, "⋯", "Show all points, new layer, save", lambda: None)
        more.setMenu(menu)
        more.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        return row

    def _button(self, row: QHBoxLayout, name: str, tip: str, action: Any) -> QToolButton:
        button = QToolButton()
        button.setText(name)
        button.setAutoRaise(True)
        button.setToolTip(tip)
        button.clicked.connect(lambda _checked=False: action())
        row.addWidget(button)
        return button

    # Layers ---------------------------------------------------------------------------------------------------------

    def _connect(self) -> None:
        layers = self.viewer.layers
        self.listen(layers.events.inserted, self._layers_changed)
        self.listen(layers.events.removed, self._layers_changed)
        self.listen(layers.selection.events.active, self._active_changed)
        self.listen(self.viewer.events.theme, self._set_theme)
        self.layer_box.layer_changed.connect(self.show_layer)
        for box in (self.x_box, self.y_box):
            box.activated.connect(self._axes_chosen)
        self.color_box.activated.connect(lambda: self.color_by(self.color_box.currentData()))
        self.scatter.picked.connect(self.go_to)
        self.scatter.hovered.connect(self._hovered)
        self.canvas.left.connect(self._hover_ended)
        self.tabs.currentChanged.connect(self._refresh_panel)
        self.manifold.pointed.connect(self._mark)
        for panel in (self.classes, self.clusters):
            panel.color_wanted.connect(self.color_by)
        keys: dict[Any, Any] = {
            QKeySequence.StandardKey.Undo: lambda: self._history("undo"),
            QKeySequence.StandardKey.Redo: lambda: self._history("redo"),
            "Escape": lambda: self._select("clear"),
            "I": lambda: self._select("invert"),
            **{str(number): partial(self.classes.assign_number, number) for number in range(10)},
        }
        for key, action in keys.items():
            shortcut = QShortcut(QKeySequence(key), self)
            shortcut.setContext(Qt.ShortcutContext.WidgetWithChildrenShortcut)
            shortcut.activated.connect(action)

    def closed(self) -> None:
        """Let go of the viewer and of every layer."""
        super().closed()
        self._soon.stop()
        for layer in list(self._links):
            self._forget(layer)
        for layer in self.viewer.layers:
            if isinstance(layer, Points):
                layer.events.features.disconnect(self.layer_box.fill)
        self.scatter.close()

    def _can_be_explored(self, layer: Points) -> bool:
        return not is_helper(layer) and (layer in self._links or bool(axis_columns(layer.features)))

    def _layers_changed(self) -> None:
        points = [layer for layer in self.viewer.layers if isinstance(layer, Points)]
        for layer in set(self._links) - set(points):
            self._forget(layer)
        for layer in points:  # a layer can be explored as soon as it has features
            layer.events.features.connect(self.layer_box.fill)

    def _forget(self, layer: Points) -> None:
        link = self._links.pop(layer)
        link.changed.disconnect(self._table_changed)
        link.close()
        layer.events.features.disconnect(self.layer_box.fill)
        if link is self.link:
            self._unlink()

    def _unlink(self) -> None:
        if self.link is not None:
            self.link.selection.changed.disconnect(self._selection_changed)
            self.link.history.changed.disconnect(self._history_changed)
            self.link = None

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
                    self._links[layer] = AtomsLink(layer)
                    self._links[layer].changed.connect(self._table_changed)
                self.link = self._links[layer]
                self.link.selection.changed.connect(self._selection_changed)
                self.link.history.changed.connect(self._history_changed)
            for panel in (self.classes, self.clusters, self.patch, self.manifold):
                panel.set_link(self.link)
        self.layer_box.choose(layer)
        self._refresh()

    def _active_changed(self) -> None:
        """Follow the layer list: whoever clicks on an analysed layer wants to see it."""
        self.layer_box.choose(self.viewer.layers.selection.active)

    def _axes_chosen(self) -> None:
        if self.link is not None:
            self.link.x, self.link.y = self.x_box.currentData(), self.y_box.currentData()
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

    def _table_changed(self) -> None:
        self._soon.start()

    # Drawing --------------------------------------------------------------------------------------------------------

    def _refresh(self) -> None:
        """Draw what the table says now."""
        link = self.link
        self.pages.setCurrentIndex(0 if link is None else 1)
        for box in (self.x_box, self.y_box, self.color_box):
            box.setEnabled(link is not None)
        if link is None or not self._choose_columns(link):
            return
        table = link.table
        x, y = (displayed_values(table, name) for name in (link.x, link.y))
        coloring = coloring_of(link.layer)
        if coloring is None or coloring.column != link.color:
            coloring = Coloring.of(table, link.color)
        shown = (link.layer, link.x, link.y)
        self.scatter.show(
            link.selection,
            x,
            y,
            (column_label(link.x), column_label(link.y)),
            color_scale(table, coloring),
            fit=shown != self._shown,
        )
        self._shown = shown
        self.patch.table_changed()
        self._show_count()
        self._refresh_panel()
        self._history_changed()

    def _choose_columns(self, link: AtomsLink) -> bool:
        """Fill the boxes; keep what was chosen as long as the table has it. False if there is nothing to plot."""
        axes, colors = axis_columns(link.table), color_choices(link.layer)
        if not axes or not colors:
            self.pages.setCurrentIndex(0)
            return False
        learned = is_latent(axes[0]) and not any(is_latent(name or "") for name in (link.x, link.y))
        if link.x not in axes or link.y not in axes or learned:
            link.x, link.y = first_axes(axes)
        if link.color not in colors or learned:
            coloring = coloring_of(link.layer)
            link.color = coloring.column if coloring and coloring.column in colors else first_color(colors)
        for box, names, current in (
            (self.x_box, axes, link.x),
            (self.y_box, axes, link.y),
            (self.color_box, colors, link.color),
        ):
            if [box.itemData(row) for row in range(box.count())] != names:
                box.clear()
                for name in names:
                    box.addItem(column_label(name), name)
            box.setCurrentIndex(names.index(current))
        return True

    def _selection_changed(self) -> None:
        self._show_count()
        if self.tabs.currentWidget() is self.patch:
            self.patch.refresh()

    def _show_count(self) -> None:
        if self.link is None:
            return
        count, total = self.link.selection.count, len(self.link.selection.mask)
        part = f" ({100 * count / total:.3g} %)" if count else ""
        self.status.setText(f"<b>{count:,}</b> of {total:,} atoms selected{part}")

    def _history_changed(self) -> None:
        if self.link is None:
            return
        history = self.link.history
        for button, word, name in ((self.undo, "Undo", history.next_undo), (self.redo, "Redo", history.next_redo)):
            button.setEnabled(name is not None)
            button.setToolTip(f"{word} {name or ''}".strip())

    def _refresh_panel(self) -> None:
        cast(Any, self.tabs.currentWidget()).refresh()

    def _set_theme(self) -> None:
        theme = get_theme(self.viewer.theme)
        highlight = "white" if theme.type == "dark" else "black"
        self.canvas.set_theme(theme.background.as_hex(), theme.text.as_hex(), highlight)
        self.pages.setStyleSheet(f"QToolButton:checked {{ background: {theme.current.as_hex()}; border-radius: 3px; }}")

    # Gestures -------------------------------------------------------------------------------------------------------

    def _select(self, what: str) -> None:
        if self.link is not None:
            getattr(self.link.selection, what)("button")

    def _history(self, what: str) -> None:
        if self.link is not None:
            getattr(self.link.history, what)()

    def go_to(self, row: int) -> None:
        """Move the camera to an atom, and to its frame in a stack.

        Parameters
        ----------
        row : int
            Row of the atom in the layer that is shown.
        """
        if self.link is None:
            return
        place = self.link.layer.data_to_world(self.link.layer.data[row])
        dims = self.viewer.dims
        offset = dims.ndim - len(place)
        for axis in dims.not_displayed:
            if axis >= offset:
                dims.set_point(axis, place[axis - offset])
        camera = getattr(self.viewer, "scene", self.viewer).camera  # napari >= 0.9: viewer.scene.camera
        center = np.array(camera.center)
        for place_in_center, axis in zip(range(-len(dims.displayed), 0), dims.displayed, strict=True):
            if axis >= offset:
                center[place_in_center] = place[axis - offset]
        camera.center = tuple(center)

    def _hovered(self, x: float, y: float, row: int) -> None:
        link = self.link
        if link is None or row < 0:
            return
        self.hover.setText(displayed_text(link.table, row, (link.x, link.y, link.color)))
        if self.tabs.currentWidget() is self.patch:
            self.patch.show_place(link.x, x, link.y, y, row)

    def _hover_ended(self) -> None:
        self.hover.clear()
        self.patch.refresh()

    def _mark(self, first: str, first_value: float, second: str, second_value: float) -> None:
        place = {first: first_value, second: second_value}
        if self.link is not None and self.link.x in place and self.link.y in place:
            self.canvas.mark(place[self.link.x], place[self.link.y])

    # Out ------------------------------------------------------------------------------------------------------------

    def copy_selection(self) -> Points | None:
        """Add the selected atoms as a new points layer, with all their features.

        Returns
        -------
        Points or None
            The new layer; None where nothing is selected.
        """
        if self.link is None or not self.link.selection.count:
            show_info("Select some atoms first.")
            return None
        copy = add_subset(self.viewer, self.link.layer, self.link.selection.rows)
        if self.link.color is not None:
            color_points(copy, self.link.color)
        return copy

    def save_table(self, path: Path) -> None:
        """Write the features of all atoms, with their positions.

        Parameters
        ----------
        path : Path
            ``.csv`` or ``.parquet``; the file that is there is replaced.
        """
        if self.link is not None:
            save_table(atoms_table(self.link.layer), path)

    def _ask(self, title: str, kinds: str, save: Any) -> None:
        name, _ = QFileDialog.getSaveFileName(self, title, "", kinds)
        if name:
            try:
                save(Path(name))
            except RVAEError as error:
                show_error(str(error))
