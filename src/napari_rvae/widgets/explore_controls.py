"""What is plotted and with which tool: the boxes and buttons above the plot."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.layers import Points, Shapes
from napari.utils.notifications import show_error, show_info
from qtpy.QtCore import Signal
from qtpy.QtWidgets import (
    QButtonGroup,
    QComboBox,
    QFileDialog,
    QGridLayout,
    QHBoxLayout,
    QInputDialog,
    QLabel,
    QMenu,
    QSizePolicy,
    QToolButton,
    QWidget,
)

from napari_rvae.errors import RVAEError
from napari_rvae.layers import add_subset, color_choices, color_points, coloring_of, save_features
from napari_rvae.widgets.atoms_link import AtomsLink
from napari_rvae.widgets.columns import axis_columns, column_label, first_axes, first_color, is_latent
from napari_rvae.widgets.parts import is_helper
from napari_rvae.widgets.scatter import Tool

if TYPE_CHECKING:
    from napari_rvae.widgets.explore import ExploreWidget

_KEYS = "Shift adds, Ctrl takes away, both together keep what is in both."
_TOOLS: tuple[tuple[str, Tool, str], ...] = (
    ("Lasso", "lasso", f"Draw around points to select them. {_KEYS}"),
    ("Box", "rectangle", f"Draw a rectangle around points to select them. {_KEYS}"),
    ("Pan", "pan", "Move the plot. With every tool: wheel or right button to zoom, middle button to move."),
)


class ColumnBoxes(QWidget):
    """Choice of the layer and of the columns on the axes and in the colours.

    Parameters
    ----------
    layer_box : QComboBox
        Choice of the layer, shown above the columns.

    Attributes
    ----------
    axes_chosen : Signal
        Columns of x and y.
    color_chosen : Signal
        Column of the colours.
    """

    axes_chosen = Signal(str, str)
    color_chosen = Signal(str)

    def __init__(self, layer_box: QComboBox) -> None:
        super().__init__()
        self.x_box, self.y_box, self.color_box = (QComboBox() for _ in range(3))
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setHorizontalSpacing(6)
        for name, box, row, column, span in (
            ("Atoms", layer_box, 0, 0, 3),
            ("X", self.x_box, 1, 0, 1),
            ("Y", self.y_box, 1, 2, 1),
            ("Colour by", self.color_box, 2, 0, 3),
        ):
            grid.addWidget(QLabel(name), row, column)
            grid.addWidget(box, row, column + 1, 1, span)
            box.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        grid.setColumnStretch(1, 1)
        grid.setColumnStretch(3, 1)
        for box in (self.x_box, self.y_box):
            box.activated.connect(lambda: self.axes_chosen.emit(self.x_box.currentData(), self.y_box.currentData()))
        self.color_box.activated.connect(lambda: self.color_chosen.emit(self.color_box.currentData()))

    def fill(self, link: AtomsLink | None) -> bool:
        """Offer the columns of a layer; what was chosen stays as long as the table has it.

        Parameters
        ----------
        link : AtomsLink or None
            Whose `x`, `y` and `color` are shown, and set where they cannot stay.

        Returns
        -------
        bool
            Whether there is anything to plot.
        """
        axes = axis_columns(link.table) if link else []
        colors = color_choices(link.layer) if link else []
        for box in (self.x_box, self.y_box, self.color_box):
            box.setEnabled(bool(axes and colors))
        if link is None or not axes or not colors:
            return False
        learned = is_latent(axes[0]) and not (is_latent(link.x) or is_latent(link.y)) and not link.chosen
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


class ToolRow(QHBoxLayout):
    """The row of buttons above the plot.

    Parameters
    ----------
    set_tool : callable
        Called with the tool that is chosen.
    act : callable
        Called with "invert", "clear", "undo" or "redo".
    menu : QMenu
        What is needed less often.
    """

    def __init__(self, set_tool: Callable[[Tool], None], act: Callable[[str], None], menu: QMenu) -> None:
        super().__init__()
        self.setSpacing(0)
        self.tools = QButtonGroup(self)
        for name, tool, tip in _TOOLS:
            button = self._button(name, tip, partial(set_tool, tool))
            button.setCheckable(True)
            button.setChecked(tool == "lasso")
            self.tools.addButton(button)
        self.addStretch(1)
        self.invert = self._button("Invert", "Select what is not selected (I)", partial(act, "invert"))
        self.clear = self._button("Clear", "Select nothing (Esc)", partial(act, "clear"))
        self.undo = self._button("↶", "Undo", partial(act, "undo"))
        self.redo = self._button("↷", "Redo", partial(act, "redo"))
        self.addStretch(1)
        more = self._button("More   ", "Show all points, select by values, new layer, save", lambda: None)
        more.setMenu(menu)
        more.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)

    def show_history(self, undo: str | None, redo: str | None) -> None:
        """Say what would be undone and redone; None where there is nothing."""
        for button, word, name in ((self.undo, "Undo", undo), (self.redo, "Redo", redo)):
            button.setEnabled(name is not None)
            button.setToolTip(f"{word} {name or ''}".strip())

    def _button(self, name: str, tip: str, action: Callable[[], Any]) -> QToolButton:
        button = QToolButton()
        button.setText(name)
        button.setAutoRaise(True)
        button.setToolTip(f"<p>{tip}</p>")
        button.clicked.connect(lambda _checked=False: action())
        self.addWidget(button)
        return button


class MoreMenu(QMenu):
    """What is needed less often: select by values or by drawn shapes, take the results along.

    Parameters
    ----------
    dock : ExploreWidget
        Whose atoms, plot and viewer are used.
    """

    def __init__(self, dock: ExploreWidget) -> None:
        super().__init__(dock)
        self._dock = dock
        self.addAction("Show all points", dock.scatter.fit)
        self.addSeparator()
        self.addAction("Select atoms by their values ...", self._ask_where)
        self.addAction("Select the atoms inside drawn shapes", self.select_in_shapes)
        self.addAction("Select the atoms on which an ensemble disagrees", partial(self._try, self.select_unstable))
        self.addAction("Selected atoms as a new layer", self.copy_selection)
        self.addSeparator()
        table, plot = ("Table (*.csv *.parquet)", self.save_table), ("Picture (*.png *.svg)", dock.scatter.save)
        self.addAction("Save the table ...", partial(self._ask, "Save the table", *table))
        self.addAction("Save the plot ...", partial(self._ask, "Save the plot", *plot))

    def select_in_shapes(self) -> None:
        """Select the atoms inside the shapes of the active shapes layer, or else of the topmost one."""
        active = self._dock.viewer.layers.selection.active
        drawn = [
            layer for layer in [*self._dock.viewer.layers, active] if isinstance(layer, Shapes) and not is_helper(layer)
        ]
        if drawn:
            self._dock.image.select_in(drawn[-1])
        else:
            show_info("Draw a polygon in a shapes layer first.")

    def select_where(self, expression: str) -> None:
        """Select the atoms for which an expression on their features holds.

        Parameters
        ----------
        expression : str
            For example ``z1 > 0.5 and sublattice == 0``.

        Raises
        ------
        InputDataError
            If it cannot be understood.
        """
        from napari_rvae.workflows import atoms_where

        if self._dock.link is not None:
            self._dock.link.selection.combine(atoms_where(self._dock.link.table, expression), source="values")

    def select_unstable(self) -> None:
        """Select the atoms of which the members of an ensemble say different things.

        Raises
        ------
        InputDataError
            If there was no ensemble.
        """
        from napari_rvae.latent import unstable_atoms

        if self._dock.link is not None:
            unstable = unstable_atoms(self._dock.link.table)
            self._dock.link.selection.combine(unstable, source="values")
            if not unstable.any():
                show_info("The members of the ensemble agree on all atoms.")

    def _ask_where(self) -> None:
        if self._dock.link is None:
            return
        now = f"{self._dock.link.x} > 0 and {self._dock.link.y} > 0"
        question = "Atoms for which this holds (columns of the table; angles in radians):"
        text, agreed = QInputDialog.getText(self, "Select atoms by their values", question, text=now)
        if agreed:
            self._try(partial(self.select_where, text))

    def copy_selection(self) -> Points | None:
        """Add the selected atoms as a new points layer, with all their features.

        Returns
        -------
        Points or None
            The new layer; None where nothing is selected.
        """
        if self._dock.link is None or not self._dock.link.selection.count:
            show_info("Select some atoms first.")
            return None
        copy = add_subset(self._dock.viewer, self._dock.link.layer, self._dock.link.selection.rows)
        if self._dock.link.color is not None:
            color_points(copy, self._dock.link.color)
        return copy

    def save_table(self, path: Path) -> None:
        """Write the features of all atoms with their positions, and beside it units and recipe as JSON.

        Parameters
        ----------
        path : Path
            ``.csv`` or ``.parquet``; the file that is there is replaced.
        """
        if self._dock.link is not None:
            recipe = save_features(self._dock.link.layer, path)
            show_info(f"Saved {path.name}, and its units and recipe in {recipe.name}")

    def _ask(self, title: str, kinds: str, save: Any) -> None:
        name, _ = QFileDialog.getSaveFileName(self, title, "", kinds)
        if name:
            self._try(partial(save, Path(name)))

    def _try(self, action: Any) -> None:
        try:
            action()
        except RVAEError as error:
            show_error(str(error))
