"""What a model has learned: decoded patches over two latents, and on the way from one atom to another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from napari.layers import Points
from numpy.typing import NDArray
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QComboBox, QHBoxLayout, QLabel, QPushButton, QSizePolicy, QVBoxLayout, QWidget

from napari_rvae.errors import RVAEError
from napari_rvae.latent.common_frame import each_in_contrast
from napari_rvae.layers import add_beside, image_of, model_of
from napari_rvae.widgets.atoms_link import AtomsLink
from napari_rvae.widgets.model_inputs import ModelInputs
from napari_rvae.widgets.parts import HELPER
from napari_rvae.widgets.pictures import Picture

if TYPE_CHECKING:
    from napari.viewer import Viewer

_STEPS = 9  # patches along each side of the manifold
_HELP = "Click a patch to see its place in the plot. Select two atoms for a movie of the way from one to the other."
_MOVIE = 0.4  # height of a movie, in heights of the image


class ManifoldPanel(QWidget):
    """Decoded patches on a grid over two latents; a click shows where in the plot they lie.

    Parameters
    ----------
    viewer : Viewer
        Where the picture becomes an image layer.

    Attributes
    ----------
    pointed : Signal
        Names of two latents and their values, of the patch that was clicked.
    """

    pointed = Signal(str, float, str, float)

    def __init__(self, viewer: Viewer) -> None:
        super().__init__()
        self._viewer = viewer
        self._link: AtomsLink | None = None
        self._made_of: tuple[Any, ...] = ()
        self._center, self._extent = np.zeros(1), 1.0
        self._array: NDArray[Any] | None = None
        self.across, self.up = QComboBox(), QComboBox()
        self.picture = Picture()
        self.picture.clicked.connect(self._clicked)
        self.words = QLabel()
        self.words.setWordWrap(True)
        self.layer_button = QPushButton("As image layer")
        self.layer_button.clicked.connect(self.add_layer)
        self.path_button = QPushButton("Path as movie")
        self.path_button.setToolTip("<p>Select two atoms: the decoded patches on the way from one to the other.</p>")
        self.path_button.clicked.connect(self.add_path)
        self.inputs = ModelInputs()
        self.inputs.changed.connect(self._draw)
        controls = QVBoxLayout()
        for name, box in (("Across", self.across), ("Up", self.up)):
            row = QHBoxLayout()
            row.addWidget(QLabel(name))
            row.addWidget(box, 1)
            controls.addLayout(row)
            box.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
            box.activated.connect(self._draw)
        for widget in (self.inputs, self.layer_button, self.path_button, self.words):
            controls.addWidget(widget)
        controls.addStretch(1)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(4, 6, 4, 4)
        layout.addWidget(self.picture, 3)
        layout.addLayout(controls, 2)

    def set_link(self, link: AtomsLink | None) -> None:
        """Show the model of another layer."""
        self._link = link

    def refresh(self) -> None:
        """Show the manifold of the layer's model, if it has one."""
        model = model_of(self._link.layer) if self._link else None
        names = [f"z{number + 1}" for number in range(model.settings.latent)] if model else []
        for place, box in enumerate((self.across, self.up)):
            if [box.itemText(row) for row in range(box.count())] != names:
                box.clear()
                box.addItems(names)
                box.setCurrentIndex(min(place, len(names) - 1))
        self.inputs.set_model(model)
        self.path_button.setEnabled(model is not None and self._link is not None and self._link.selection.count == 2)
        self._draw()

    def add_layer(self) -> None:
        """Add the picture to the viewer as an image layer, beside the image."""
        if self._array is not None and self._link is not None:
            self._add(self._array, f"{self._link.layer.name} manifold", self._link.layer)

    def add_path(self) -> None:
        """Add the decoded patches on the way between the two selected atoms as a movie, beside the image."""
        link = self._link
        model = model_of(link.layer) if link else None
        if link is None or model is None or link.selection.count != 2:
            return
        from napari_rvae.latent import latent_path

        names = [f"z{number + 1}" for number in range(model.settings.latent)]
        ends = link.table.reindex(columns=names).to_numpy(np.float64)[link.selection.rows]
        first, last = link.selection.ids[link.selection.rows]
        own = link.table.reindex(columns=["class"])["class"].iloc[link.selection.rows].unique()
        shared = model.classes > 1 and len(own) == 1 and own[0] in range(model.classes)
        kind = int(own[0]) if shared else self.inputs.kind or 0
        told = (self.inputs.own_condition(link.table, np.array([row])) for row in link.selection.rows)
        both = [condition for condition in told if condition is not None]
        try:
            movie = latent_path(model, *ends, classes=kind, condition=np.concatenate(both) if both else None)
        except RVAEError as error:  # an atom that was not encoded
            self.words.setText(str(error))
            return
        name = f"{link.layer.name} path {first} to {last}"
        channels = each_in_contrast(movie.swapaxes(0, 1), model)
        self._add(np.concatenate(list(channels), -1), name, link.layer, _MOVIE)

    def _add(self, pictures: NDArray[Any], name: str, points: Points, part: float = 1.0) -> None:
        add_beside(self._viewer, pictures, name, image_of(points), part, HELPER)  # no input for other docks
        self._viewer.layers.selection.active = points  # where the work goes on

    def _draw(self) -> None:
        model = model_of(self._link.layer) if self._link else None
        self.layer_button.setEnabled(model is not None)
        axes = (self.across.currentIndex(), self.up.currentIndex())
        kind, condition = self.inputs.kind or 0, self.inputs.condition
        made_of = (model, axes, kind, None if condition is None else tuple(condition[0]))
        if model is not None and made_of == self._made_of:
            return
        self._made_of, self._array = made_of, None
        if model is None or self._link is None:
            self.words.setText("This layer has no model: train an rVAE, or load one, to see what its latents mean.")
        else:
            from napari_rvae.latent import manifold

            self._center, self._extent = _covered(self._link.table, model.settings.latent, axes)
            try:
                grid = manifold(
                    model, _STEPS, axes, self._extent, center=self._center, classes=kind, condition=condition
                )
            except RVAEError as error:
                self.words.setText(str(error))
            else:
                # Upward as in the plot, not downward as in an image.
                size = model.size
                grid = each_in_contrast(grid, model)
                rows = [np.hstack(list(grid[:, top : top + size])) for top in range(0, grid.shape[1], size)]
                self._array = np.vstack(rows[::-1])
                self.words.setText(_HELP)
        self.picture.show_array(self._array)

    def _clicked(self, x: float, y: float) -> None:
        if self.across.currentIndex() == self.up.currentIndex():
            return  # one latent has no place in a plane
        model = model_of(self._link.layer) if self._link else None
        x = x * (1 if model is None else model.channels) % 1  # the whole plane in every channel
        right, down = (self._extent * (2 * int(fraction * _STEPS) / (_STEPS - 1) - 1) for fraction in (x, y))
        across, up = self.across.currentIndex(), self.up.currentIndex()
        self.pointed.emit(f"z{across + 1}", self._center[across] + right, f"z{up + 1}", self._center[up] - down)


def _covered(table: pd.DataFrame, count: int, axes: tuple[int, int]) -> tuple[NDArray[np.float64], float]:
    """Centre of all latents and the range of two of them in which nearly all atoms lie."""
    names = [f"z{number + 1}" for number in range(count)]
    values = table.reindex(columns=names).dropna().to_numpy(np.float64)
    if not len(values):
        return np.zeros(count), 2.0
    low, middle, high = np.percentile(values, (2, 50, 98), axis=0)
    reach = np.maximum(high - middle, middle - low)[list(axes)].max()
    return middle, float(reach) or 1.0
