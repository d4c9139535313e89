"""What models are given besides patches: labels and conditions, from columns of the atoms, and a clean image."""

from __future__ import annotations

from typing import Any

import pandas as pd
from napari.layers import Image
from qtpy.QtCore import QSignalBlocker
from qtpy.QtWidgets import QComboBox, QMenu, QPushButton, QSizePolicy

from napari_rvae.io import ImageData
from napari_rvae.layers import image_source, is_result, shows
from napari_rvae.widgets.columns import column_label
from napari_rvae.widgets.parts import Dock, LayerBox
from napari_rvae.widgets.physics_choice import PhysicsChoice
from napari_rvae.widgets.settings_form import Control, SettingsForm

_MOST_CLASSES = 50
CAPACITIES = ("latent_capacity", "latent_capacity_epochs", "class_capacity", "class_capacity_epochs")
"""Fields of capacities; the last two are those of models with classes."""
_NEVER = ("atom_id", "y", "x")


class OneColumn(Control):
    """A column with classes or a quantity of some atoms; the one that is wanted stays, whether it is there or not."""

    def __init__(self) -> None:
        super().__init__()
        self._wanted = ""
        self.widget = self._box = QComboBox()
        self._box.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self._box.setMinimumContentsLength(10)
        self._box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self._box.activated.connect(self._on_activated)

    def value(self) -> Any:
        """Return the column."""
        return self._wanted

    def set_value(self, value: Any) -> None:
        """Choose a column."""
        self._wanted = value
        self.offer(None)
        self.changed.emit()

    def offer(self, table: pd.DataFrame | None) -> None:
        """List the columns that may hold classes, with the number of atoms that have one."""
        found = {} if table is None else {name: table[name] for name in _offered(table) if _holds_classes(table[name])}
        with QSignalBlocker(self._box):
            self._box.clear()
            for name, values in found.items():
                self._box.addItem(f"{column_label(name)} ({_labelled(values):,} atoms)", name)
            if self._wanted not in found:
                self._box.insertItem(0, f"{column_label(self._wanted)} (no classes yet)", self._wanted)
            self._box.setCurrentIndex(self._box.findData(self._wanted))

    def _on_activated(self, index: int) -> None:
        self._wanted = self._box.itemData(index)
        self.changed.emit()


class SomeColumns(Control):
    """Any columns of the atoms, ticked in a menu."""

    def __init__(self) -> None:
        super().__init__()
        self._wanted: tuple[str, ...] = ()
        self.widget = self._button = QPushButton()
        self._button.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self._button.setMinimumWidth(1)  # its text may be long
        self._menu = QMenu(self._button)
        self._menu.triggered.connect(self._on_triggered)
        self._button.setMenu(self._menu)

    def value(self) -> Any:
        """Return the columns."""
        return self._wanted

    def set_value(self, value: Any) -> None:
        """Choose columns."""
        self._wanted = tuple(value)
        self.offer(None)
        self.changed.emit()

    def offer(self, table: pd.DataFrame | None) -> None:
        """List the columns of the atoms."""
        names = [] if table is None else _offered(table)
        self._menu.clear()
        for name in [*names, *(name for name in self._wanted if name not in names)]:
            action = self._menu.addAction(column_label(name))
            action.setData(name)
            action.setCheckable(True)
            action.setChecked(name in self._wanted)
        self._button.setText(", ".join(map(column_label, self._wanted)) or "choose columns")

    def _on_triggered(self, _: Any) -> None:
        self._wanted = tuple(action.data() for action in self._menu.actions() if action.isChecked())
        self._button.setText(", ".join(map(column_label, self._wanted)) or "choose columns")
        self.changed.emit()


class GivenColumns:
    """What the models of a family are given besides patches, as fields of a form."""

    def __init__(self) -> None:
        self.labels, self.conditions = OneColumn(), SomeColumns()
        self.controls: dict[str, Control] = {"label_column": self.labels, "condition_columns": self.conditions}
        self.controls["physics"] = PhysicsChoice()

    def show_in(self, form: SettingsForm, family: str, table: pd.DataFrame | None) -> None:
        """Show the fields that a family needs, with the columns that there are.

        Parameters
        ----------
        form : SettingsForm
            Made with these controls.
        family : str
            Of the chosen model.
        table : DataFrame or None
            The atoms.
        """
        form.rename("label_column", "Labels from")
        form.rename("condition_columns", "Condition")
        for name in ("classes", *CAPACITIES[2:]):
            form.show_field(name, family in ("joint", "semi"))
        form.show_field("label_column", family == "semi")
        form.show_field("condition_columns", family == "conditional")
        self.labels.offer(table)
        self.conditions.offer(table)


class CleanBox(LayerBox):
    """A choice among the images that may show what a noisy one shows, without noise; none at first.

    Parameters
    ----------
    dock : Dock
        Whose viewer it is.
    noisy : LayerBox
        Where the noisy image is chosen.
    """

    _noisy: LayerBox | None = None

    def __init__(self, dock: Dock, noisy: LayerBox) -> None:
        super().__init__(dock, Image, "none", optional=True)
        self.setToolTip(
            "<p>The same place without noise, pixel by pixel, on any scale: the model learns to make it from the noisy "
            "image.</p>"
        )
        self._noisy = noisy
        noisy.layer_changed.connect(self.fill)
        self.fill()

    def offers(self, layer: Any) -> bool:
        """Tell whether a layer is another image of the same shape."""
        noisy = None if self._noisy is None else self._noisy.layer
        other = noisy is not None and layer is not noisy
        return other and super().offers(layer) and layer.data.shape == noisy.data.shape and layer.rgb == noisy.rgb

    @property
    def source(self) -> ImageData | None:
        """The chosen image."""
        return None if self.layer is None else image_source(self.layer)

    def choose_source(self, image: ImageData | None) -> None:
        """Choose the layer that shows an image; none for None."""
        self.setCurrentIndex(0)
        if image is not None:
            self.choose(next((layer for layer in self._layers if layer is not None and shows(layer, image)), None))


def _offered(table: pd.DataFrame) -> list[str]:
    return [str(name) for name in table if name not in _NEVER and not is_result(name)]


def _holds_classes(values: pd.Series) -> bool:
    """Also decimal numbers, which are predicted for the atoms that lack them."""
    return values.nunique() >= 2 and (pd.api.types.is_float_dtype(values.dtype) or values.nunique() <= _MOST_CLASSES)


def _labelled(values: pd.Series) -> int:
    return int((values.notna() & (values.astype(object) != "")).sum())
