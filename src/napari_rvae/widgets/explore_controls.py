"""What is plotted and with which tool: the boxes and buttons above the plot."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from qtpy.QtCore import Signal
from qtpy.QtWidgets import (
    QButtonGroup,
    QComboBox,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QMenu,
    QSizePolicy,
    QToolButton,
    QWidget,
)

from napari_rvae.layers import color_choices, coloring_of
from napari_rvae.widgets.atoms_link import AtomsLink
from napari_rvae.widgets.columns import axis_columns, column_label, first_axes, first_color, is_latent
from napari_rvae.widgets.scatter import Tool

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
            ("atoms", layer_box, 0, 0, 3),
            ("x", self.x_box, 1, 0, 1),
            ("y", self.y_box, 1, 2, 1),
            ("colour", self.color_box, 2, 0, 3),
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
        more = self._button("⋯", "Show all points, new layer, save", lambda: None)
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
