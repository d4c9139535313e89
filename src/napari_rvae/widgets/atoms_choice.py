"""Which atoms to use: all, those selected, a sublattice, a drawn region, or whatever an expression says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from napari.layers import Points, Shapes
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QComboBox, QLabel, QLineEdit, QSizePolicy, QVBoxLayout, QWidget

from napari_rvae.errors import InputDataError, RVAEError
from napari_rvae.layers import inside, is_result
from napari_rvae.widgets.parts import Dock, LayerBox
from napari_rvae.workflows.steps import beyond_doubt

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

ALL, SELECTED, REGION, EXPRESSION = "all atoms", "selected atoms", "atoms inside shapes", "atoms for which ..."
_SUBLATTICE = "sublattice "
_EDITED = ("added", "moved")  # by hand, and flagged so


class AtomsChoice(QWidget):
    """A choice, the layer or the expression that belongs to it, and how many atoms that is.

    Parameters
    ----------
    dock : Dock
        Where it lies.
    """

    changed = Signal()

    def __init__(self, dock: Dock) -> None:
        super().__init__()
        self.mode_box = QComboBox()
        self.mode_box.setToolTip("<p>Patches are centred on these atoms. Start with one sublattice.</p>")
        self.mode_box.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.shapes_box = LayerBox(dock, Shapes, "draw in a Shapes layer first")
        self.expression = QLineEdit()
        self.expression.setPlaceholderText("sublattice == 0 and snr > 5")
        self.expression.setToolTip("<p>An expression on the columns of the points' features.</p>")
        self.count = QLabel()
        self.count.setWordWrap(True)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        for widget in (self.mode_box, self.shapes_box, self.expression, self.count):
            layout.addWidget(widget)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Minimum)
        self.set_table(None)
        self.mode_box.currentTextChanged.connect(self._on_mode)
        self.shapes_box.layer_changed.connect(self._on_changed)
        self.expression.editingFinished.connect(self.changed)
        self._on_mode()

    @property
    def mode(self) -> str:
        """The choice."""
        return self.mode_box.currentText()

    @property
    def where(self) -> str | None:
        """The choice as an expression on the atoms table, where it is one."""
        if self.mode.startswith(_SUBLATTICE):
            return f"sublattice == {self.mode.removeprefix(_SUBLATTICE)}"
        return self.expression.text() if self.mode == EXPRESSION else None

    def set_table(self, table: pd.DataFrame | None) -> None:
        """Offer the sublattices that there are."""
        numbers = [] if table is None or "sublattice" not in table else sorted(table["sublattice"].dropna().unique())
        modes = [ALL, *(f"{_SUBLATTICE}{int(number)}" for number in numbers if len(numbers) > 1)]
        modes += [SELECTED, REGION, EXPRESSION]
        if modes == [self.mode_box.itemText(k) for k in range(self.mode_box.count())]:
            return
        mode = self.mode
        self.mode_box.blockSignals(True)
        self.mode_box.clear()
        self.mode_box.addItems(modes)
        self.mode_box.setCurrentText(mode if mode in modes else ALL)
        self.mode_box.blockSignals(False)
        self._on_mode()

    def chosen_rows(self, points: Points, table: pd.DataFrame) -> NDArray[np.bool_]:
        """Tell which atoms are chosen.

        Parameters
        ----------
        points : Points
            The layer.
        table : pandas.DataFrame
            Its atoms, row by row.

        Returns
        -------
        numpy.ndarray
            bool, one per row.

        Raises
        ------
        InputDataError
            If the expression cannot be understood, or no atom is chosen.
        """
        from napari_rvae.workflows import atoms_where

        if self.mode == SELECTED:
            chosen = np.zeros(len(table), bool)
            chosen[list(points.selected_data)] = True
        elif self.mode == REGION:
            shapes = self.shapes_box.layer
            chosen = np.zeros(len(table), bool) if shapes is None else inside(points, shapes)
        else:
            chosen = atoms_where(table, self.where)
        if not chosen.any():
            raise InputDataError(
                {
                    ALL: f"'{points.name}' has no points: find atoms first, or add some.",
                    SELECTED: f"No atom is selected: choose '{points.name}' and select some with napari's arrow tool.",
                    REGION: "No atom lies inside a shape: draw one around some atoms in a Shapes layer.",
                }.get(self.mode, f"No atom satisfies {self.where}.")
            )
        return chosen

    def chosen_atoms(self, points: Points, table: pd.DataFrame) -> tuple[pd.DataFrame, str | None]:
        """Give the choice as a recipe can hold it.

        Parameters
        ----------
        points, table
            As for `chosen_rows`.

        Returns
        -------
        atoms : DataFrame
            The table without results.
        where : str or None
            The expression that chooses from it; None chooses all.

        Raises
        ------
        InputDataError
            As `chosen_rows`.
        """
        from napari_rvae.workflows import atoms_where

        mask, where = self.chosen_rows(points, table), self.where
        atoms = table.drop(columns=[name for name in table if is_result(name)])
        try:
            atoms_where(atoms, where)
        except RVAEError:
            where = None  # it asks for results that the atoms do not have before they are trained
        if where is None and not mask.all():
            atoms["used"], where = mask, "used"
        return atoms, where

    def show_count(self, points: Points | None, table: pd.DataFrame | None) -> int:
        """Say how many atoms are chosen, and how many of them are not learned from; return the former."""
        if points is None or table is None:
            self.count.setText("")
            return 0
        try:
            chosen = self.chosen_rows(points, table)
        except InputDataError as error:
            self.count.setText(str(error))
            return 0
        text = f"{chosen.sum():,} of {len(table):,} atoms"
        doubtful = int((~beyond_doubt(table) & chosen).sum())
        if doubtful:
            text += f"; {doubtful:,} at the edge or unsupported are encoded, but not learned from"
        if {"flag", "z1"} <= set(table):
            stale = int((table["flag"].isin(_EDITED) & table["z1"].isna()).sum())
            text += f"; {stale:,} were added or moved since: they have no results" if stale else ""
        self.count.setText(text)
        return int(chosen.sum())

    def _on_mode(self, _: str = "") -> None:
        self.shapes_box.setVisible(self.mode == REGION)
        self.expression.setVisible(self.mode == EXPRESSION)
        self.changed.emit()

    def _on_changed(self, _: object = None) -> None:
        self.changed.emit()
