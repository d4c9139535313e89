"""Changing an attribute: what two groups of atoms differ in, added to any patch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from napari_rvae.errors import RVAEError
from napari_rvae.latent.common_frame import each_in_contrast
from napari_rvae.layers import add_beside, image_of
from napari_rvae.widgets.atoms_link import AtomsLink
from napari_rvae.widgets.parts import HELPER
from napari_rvae.widgets.pictures import Picture
from napari_rvae.widgets.selection import Ids

if TYPE_CHECKING:
    from napari.viewer import Viewer

    from napari_rvae.models import Model

_HELP = "Select atoms and press A, select others and press B: what B has and A lacks is added to every patch shown."
_STRIP = 64  # height of the strip, px
_HEIGHT = 0.15  # of the strip as a layer, in heights of the image


class AttributeStrip(QWidget):
    """Two groups of atoms, and a patch with more and less of what the second has and the first lacks.

    Parameters
    ----------
    viewer : Viewer
        Where the strip becomes an image layer.

    Attributes
    ----------
    taken : Signal
        One of the groups is another one.
    """

    taken = Signal()

    def __init__(self, viewer: Viewer) -> None:
        super().__init__()
        self._viewer = viewer
        self._link: AtomsLink | None = None
        self._groups: dict[str, Ids] = {}
        self._array: NDArray[Any] | None = None
        self.buttons = {name: QPushButton(name) for name in "AB"}
        self.layer_button = QPushButton("As layer")
        self.layer_button.clicked.connect(self.add_layer)
        self.picture, self.words = Picture(), QLabel(_HELP)
        self.picture.setFixedHeight(_STRIP)
        self.words.setWordWrap(True)
        row = QHBoxLayout()
        row.addWidget(QLabel("Attribute"))
        for name, button in self.buttons.items():
            button.setToolTip(f"<p>Take the selected atoms as group {name}.</p>")
            button.clicked.connect(lambda _, name=name: self._take(name))
            row.addWidget(button)
        row.addStretch(1)
        row.addWidget(self.layer_button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(row)
        layout.addWidget(self.picture)
        layout.addWidget(self.words)
        self.picture.hide()
        self.layer_button.hide()

    def set_link(self, link: AtomsLink | None) -> None:
        """Take groups of another layer's atoms."""
        self._link, self._groups, self._array = link, {}, None

    def show_patch(self, model: Model | None, z: Any, kind: int, condition: Any, name: str) -> None:
        """Show a patch with more and less of the attribute.

        Parameters
        ----------
        model : Model or None
            The layer's model; without one there is nothing to show.
        z : array-like or None
            (latent,) of the patch; None shows the groups only.
        kind : int
            Its class.
        condition : array-like or None
            Of conditional models.
        name : str
            What it is called.
        """
        selected = self._link is not None and self._link.selection.count > 0
        for letter, button in self.buttons.items():
            button.setEnabled(selected)
            count = len(self._groups.get(letter, ()))
            button.setText(f"{letter}: {count:,}" if count else letter)
        self._array = None
        words = _HELP
        if model is not None and z is not None and self._link is not None and len(self._groups) == 2:
            from napari_rvae.latent import attribute_direction, changed_attribute

            table = self._link.table
            without, with_it = (np.isin(table["atom_id"], self._groups[letter]) for letter in "AB")
            try:
                direction = attribute_direction(table, with_it, without, model.settings.latent)
                strip = changed_attribute(model, z, direction, classes=kind, condition=condition)
            except RVAEError as error:  # atoms that are gone, or a model that was exchanged a moment ago
                words = str(error)
            else:
                self._array = np.hstack([np.vstack(list(each_in_contrast(patch, model))) for patch in strip])
                words = f"{name} with -1 to 2 times, in steps of ½, what B has and A lacks; the third is as it is"
        self.words.setText(words)
        self.picture.show_array(self._array)
        self.picture.setVisible(self._array is not None)
        self.layer_button.setVisible(self._array is not None)

    def add_layer(self) -> None:
        """Add the strip to the viewer as an image layer, beside the image."""
        if self._array is None or self._link is None:
            return
        points = self._link.layer
        add_beside(self._viewer, self._array, f"{points.name} attribute", image_of(points), _HEIGHT, HELPER)
        self._viewer.layers.selection.active = points  # where the work goes on

    def _take(self, name: str) -> None:
        if self._link is not None and self._link.selection.count:
            selection = self._link.selection
            self._groups[name] = selection.ids[selection.rows].copy()
            self.taken.emit()
