"""Choice of a term of one's own in the loss, among those that are registered."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import QSignalBlocker
from qtpy.QtWidgets import QComboBox, QSizePolicy

from napari_rvae.widgets.settings_form import Control


class PhysicsChoice(Control):
    """One of the terms that there are, or none; the list is made anew whenever it is opened."""

    def __init__(self) -> None:
        super().__init__()
        self.widget = self._box = _Box(self.offer)
        self._box.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self._box.addItem("none", "")
        self._box.activated.connect(lambda _: self.changed.emit())

    def value(self) -> Any:
        """Return the name of the term; empty for none."""
        return self._box.currentData()

    def set_value(self, value: Any) -> None:
        """Choose a term, whether it is registered yet or not."""
        if self._box.findData(value) < 0:
            self._box.addItem(value, value)
        self._box.setCurrentIndex(self._box.findData(value))
        self.changed.emit()

    def offer(self) -> None:
        """List the terms that there are; the chosen one stays."""
        from napari_rvae.training.physics import physics_terms

        chosen = self.value()
        names = dict.fromkeys([*sorted(physics_terms()), *([chosen] if chosen else [])])
        with QSignalBlocker(self._box):
            self._box.clear()
            self._box.addItem("none", "")
            for name in names:
                self._box.addItem(name, name)
            self._box.setCurrentIndex(self._box.findData(chosen))


class _Box(QComboBox):
    """A combo box that asks for its entries."""

    def __init__(self, asked: Any) -> None:
        super().__init__()
        self._asked = asked

    def showPopup(self) -> None:  # noqa: N802 - Qt's name
        """List what there is now, and open."""
        self._asked()
        super().showPopup()
