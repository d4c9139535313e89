"""What a decoder wants to be told besides the latents: the class and the condition."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QCheckBox, QComboBox, QDoubleSpinBox, QFormLayout, QLabel, QSizePolicy, QWidget

if TYPE_CHECKING:
    from napari_rvae.models import Model

_NUMBER = "number"  # of a condition without a name


class ModelInputs(QWidget):
    """Choice of class and condition; nothing is seen for models that have neither.

    Parameters
    ----------
    own : str
        What is offered above the classes and before the condition, and means those of the atom itself; nothing when
        empty.

    Attributes
    ----------
    changed : Signal
        Something else was chosen.
    """

    changed = Signal()

    def __init__(self, own: str = "") -> None:
        super().__init__()
        self._own = own
        self._made_for: tuple[Any, ...] = ()
        self.class_text, self.class_box = QLabel("Class"), QComboBox()
        self.class_box.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.class_box.activated.connect(lambda: self.changed.emit())
        self.own_box = QCheckBox(own)
        self.own_box.setChecked(bool(own))
        self.own_box.setToolTip("<p>Decode every atom with what is known of it, or with what is chosen below.</p>")
        self.own_box.toggled.connect(self._enable)
        self.own_box.toggled.connect(lambda _: self.changed.emit())
        self.boxes: list[QComboBox | QDoubleSpinBox] = []
        self._columns: list[Mapping[str, Any]] = []
        self._rows = QFormLayout(self)
        self._rows.setContentsMargins(0, 0, 0, 0)
        self._rows.addRow(self.class_text, self.class_box)
        self._rows.addRow("Condition", self.own_box)
        self.hide()

    @property
    def kind(self) -> int | None:
        """The class; None where none was chosen."""
        index = self.class_box.currentIndex() - bool(self._own)
        return index if index >= 0 else None

    @property
    def condition(self) -> NDArray[Any] | None:
        """The condition chosen, (1, columns), in its units; None for models without."""
        values = [box.currentText() if isinstance(box, QComboBox) else box.value() for box in self.boxes]
        numeric = all(isinstance(value, float) for value in values)
        return np.array([values], float if numeric else object) if values else None

    def condition_of(self, table: pd.DataFrame, rows: NDArray[np.intp]) -> NDArray[Any] | None:
        """The condition of some atoms together, or the one chosen; the chosen one for atoms without theirs, too."""
        return self.own_condition(table, rows) if self.own_box.isChecked() else self.condition

    def own_condition(self, table: pd.DataFrame, rows: NDArray[np.intp]) -> NDArray[Any] | None:
        """The condition of some atoms together, whatever is chosen; the chosen one where they have none."""
        chosen = self.condition
        if chosen is None:
            return None
        from napari_rvae.models.conditions import usual

        for number, noted in enumerate(self._columns):
            if noted["name"] in table and len(known := table[noted["name"]].iloc[rows].dropna()):
                chosen[0, number] = usual(noted, known)
        return chosen

    def set_model(self, model: Model | None) -> None:
        """Offer what a model wants; what was chosen stays as long as that is the same."""
        columns: list[Mapping[str, Any]] = []
        names: list[str] = []
        if model is not None:
            from napari_rvae.models.conditions import class_names

            unnamed = [{"name": _NUMBER, "mean": float(k == 0), "spread": 1.0} for k in range(model.conditions)]
            columns = list(model.recipe.get("condition_columns") or unnamed)
            names = class_names(model)
        wanted = (names, columns)
        if wanted == self._made_for:
            return
        self._made_for, self._columns = wanted, columns
        self.class_box.clear()
        self.class_box.addItems([*([self._own] if self._own and names else []), *names])
        for box in self.boxes:
            self._rows.removeRow(box)
        self.boxes = []
        for noted in columns:
            self.boxes.append(self._box(noted))
            self._rows.addRow(str(noted["name"]), self.boxes[-1])
        self._rows.setRowVisible(self.class_box, bool(names))
        self._rows.setRowVisible(self.own_box, bool(columns and self._own))
        self._enable()
        self.setVisible(bool(names or columns))

    def _enable(self) -> None:
        for box in self.boxes:
            box.setEnabled(not self.own_box.isChecked())

    def _box(self, noted: Mapping[str, Any]) -> QComboBox | QDoubleSpinBox:
        if "classes" in noted:
            box: QComboBox | QDoubleSpinBox = QComboBox()
            box.addItems(noted["classes"])
            box.currentIndexChanged.connect(lambda _: self.changed.emit())
        else:
            box = QDoubleSpinBox()
            box.setRange(-1e12, 1e12)
            box.setDecimals(4)
            box.setSingleStep(float(f"{noted['spread'] / 10:.0e}"))
            box.setValue(noted["mean"])
            box.valueChanged.connect(lambda _: self.changed.emit())
        box.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        return box
