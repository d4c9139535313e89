"""What one sees while a model learns: the atoms in its colours, on a layer of their own, and its manifold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from napari.layers import Points
from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_rvae.layers import Coloring, atoms_table, transformation
from napari_rvae.widgets.explore_patches import Picture
from napari_rvae.widgets.parts import HELPER, quietly_added

if TYPE_CHECKING:
    from napari.viewer import Viewer

    from napari_rvae.training.reports import Look

NAME = "rVAE is learning: z1"
_HEIGHT = 150


class LiveLook(QWidget):
    """Shows every look at the model; the user's own layers stay as they are.

    Parameters
    ----------
    viewer : Viewer
        Where the layer is shown.
    """

    def __init__(self, viewer: Viewer) -> None:
        super().__init__()
        self._viewer = viewer
        self._points: Points | None = None
        self.layer: Points | None = None
        self.manifold = Picture()
        self.manifold.setFixedHeight(_HEIGHT)
        self.manifold.setToolTip("<p>Patches decoded on a grid over z1 (to the right) and z2 (downwards).</p>")
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.manifold)
        self.hide()

    def end(self) -> None:
        """Take everything away again."""
        layer, self.layer, self._points = self.layer, None, None
        if layer is not None and layer in self._viewer.layers:
            self._viewer.layers.remove(layer)
        self.manifold.show_array(None)
        self.hide()

    def show_look(self, look: Look, points: Points) -> None:
        """Show what the model says now.

        Parameters
        ----------
        look : Look
            Of the atoms that are learned from.
        points : Points
            Their layer; with another one than before it begins anew.
        """
        if points is not self._points:
            self.end()
            self._points = points
        self.manifold.show_array(look.manifold)
        self.show()
        if points not in self._viewer.layers or (self.layer is not None and self.layer not in self._viewer.layers):
            return  # the user has removed the one or the other
        table = atoms_table(points)
        z = pd.Series(look.latents[:, 0], look.atom_id).reindex(table["atom_id"])
        known = z.notna().to_numpy()
        if not known.any():
            return
        colors = _colors(z[known].to_numpy())
        if self.layer is None or len(self.layer.data) != known.sum():
            self._show_layer(points, points.data[known], np.asarray(points.size)[known], colors)
        else:
            self.layer.data = points.data[known]
            self.layer.face_color = colors

    def _show_layer(self, points: Points, places: Any, sizes: Any, colors: Any) -> None:
        if self.layer is not None:
            self._viewer.layers.remove(self.layer)
        self.layer = quietly_added(
            self._viewer,
            Points(
                places, size=sizes, face_color=colors, border_width=0, name=NAME, metadata=dict(HELPER),
                **transformation(points),
            ),
        )  # fmt: skip


def _colors(z: Any) -> Any:
    table = pd.DataFrame({"z1": z})
    return Coloring.of(table, "z1").colors(table["z1"])
