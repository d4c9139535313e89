"""What a decoder wants to be told besides the latents: the class and the condition."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QComboBox, QDoubleSpinBox, QHBoxLayout, QLabel, QSizePolicy, QVBoxLayout, QWidget

if TYPE_CHECKING:
    from napari_rvae.models import Model


class ModelInputs(QWidget):
    """Choice of class and condition; nothing is seen for models that have neither.

    Parameters
    ----------
    no_class : str
        What is offered above the classes, and means none of them; nothing when empty.

    Attributes
    ----------
    changed : Signal
        Something else was chosen.
    """

    changed = Signal()

    def __init__(self, no_class: str = "") -> None:
        super().__init__()
        self._no_class = no_class
        self._made_for: tuple[int, int] = (1, 0)
        self.class_text, self.class_box = QLabel("class"), QComboBox()
        self.class_box.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.class_box.activated.connect(lambda: self.changed.emit())
        self.condition_text = QLabel("condition")
        self.condition_text.setToolTip("<p>What a conditional model is given; the first of several is 1 at first.</p>")
        self.boxes: list[QDoubleSpinBox] = []
        rows, of_class, self._row = QVBoxLayout(self), QHBoxLayout(), QHBoxLayout()
        rows.setContentsMargins(0, 0, 0, 0)
        of_class.addWidget(self.class_text)
        of_class.addWidget(self.class_box, 1)
        self._row.addWidget(self.condition_text)
        rows.addLayout(of_class)
        rows.addLayout(self._row)
        self.hide()

    @property
    def kind(self) -> int | None:
        """The class; None where none was chosen."""
        index = self.class_box.currentIndex() - bool(self._no_class)
        return index if index >= 0 else None

    @property
    def condition(self) -> NDArray[Any] | None:
        """The condition, (1, conditions); None for models without."""
        return np.array([[box.value() for box in self.boxes]]) if self.boxes else None

    def set_model(self, model: Model | None) -> None:
        """Offer what a model wants; what was chosen stays as long as that is the same."""
        wanted = (1, 0) if model is None else (model.classes, model.conditions)
        if wanted == self._made_for:
            return
        self._made_for = wanted
        classes, conditions = wanted
        self.class_box.clear()
        if classes > 1:
            self.class_box.addItems([*([self._no_class] if self._no_class else []), *map(str, range(classes))])
        for box in self.boxes:
            self._row.removeWidget(box)
            box.deleteLater()
        self.boxes = [self._box(1.0 if number == 0 and conditions > 1 else 0.0) for number in range(conditions)]
        for widget in (self.class_text, self.class_box):
            widget.setVisible(classes > 1)
        self.condition_text.setVisible(conditions > 0)
        self.setVisible(classes > 1 or conditions > 0)

    def _box(self, value: float) -> QDoubleSpinBox:
        box = QDoubleSpinBox()
        box.setRange(-1e6, 1e6)
        box.setSingleStep(0.1)
        box.setValue(value)
        box.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        box.valueChanged.connect(lambda _: self.changed.emit())
        self._row.addWidget(box, 1)
        return box
