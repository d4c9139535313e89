"""What one sees while a model learns: the atoms in its colours, on a layer of their own, and its manifold."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from napari.layers import Points
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_rvae.layers import Coloring, atoms_table, make_color_bar, transformation
from napari_rvae.widgets.explore_patches import Picture
from napari_rvae.widgets.parts import HELPER, quietly_added

if TYPE_CHECKING:
    from napari.viewer import Viewer

    from napari_rvae.training.reports import Look

NAME = "rVAE is learning: z1"
_EARLY = "rVAE begins to learn"
_HEIGHT = 150
_BREATH = 20  # ms in which the window draws the one and answers before it is given the other
_DRAWN = 300  # ms after which what is new was drawn
_SETTLED = 2000  # ms after which results are drawn


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
        self._look: Look | None = None
        self._recolored = QTimer(self)
        self._recolored.setSingleShot(True)
        self._recolored.setInterval(_BREATH)
        self._recolored.timeout.connect(self._recolor)
        self._settled = QTimer(self)
        self._settled.setSingleShot(True)
        self._settled.setInterval(_SETTLED)
        self._settled.timeout.connect(_unfreeze)
        self._spares = False  # see `_spare`
        self.manifold = Picture()
        self.manifold.setFixedHeight(_HEIGHT)
        self.manifold.setToolTip("<p>Patches decoded on a grid over z1 (to the right) and z2 (downwards).</p>")
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.manifold)
        self.hide()

    def begin(self, points: Points) -> None:
        """Make before there is a look what takes a while to make; nothing is to be seen on the layer yet.

        Parameters
        ----------
        points : Points
            The atoms that looks will be of.
        """
        if points is self._points:
            return
        self.end()
        self._points = points
        if points in self._viewer.layers:
            self._spare()
            layer = Points(
                points.data, size=points.size, face_color="transparent", border_width=0, name=_EARLY,
                metadata=dict(HELPER), **transformation(points),
            )  # fmt: skip
            self.layer = quietly_added(self._viewer, layer)
            QTimer.singleShot(_DRAWN, make_color_bar(points))  # of the results

    def end(self) -> None:
        """Take everything away again."""
        layer, self.layer, self._points, self._look = self.layer, None, None, None
        if layer is not None and layer in self._viewer.layers:
            self._viewer.layers.remove(layer)
        self._spare_no_more()
        self.manifold.show_array(None)
        self.hide()

    def _spare(self) -> None:
        """Let Python look for garbage only in what is made from now on.

        napari has all garbage collected when a layer is removed. Among all that PyTorch and napari are made of, this
        takes a third of a second; that of the layer is found as well among what came with it and after it.
        """
        if self._settled.isActive() or gc.get_freeze_count() == 0:  # else somebody else does so
            self._settled.stop()
            self.destroyed.connect(_unfreeze)
            gc.freeze()
            self._spares = True

    def _spare_no_more(self) -> None:
        if self._spares:
            self._spares = False
            self._settled.start()

    def show_look(self, look: Look, points: Points) -> None:
        """Show what the model says now.

        Parameters
        ----------
        look : Look
            Of the atoms that are learned from.
        points : Points
            Their layer; with another one than before it begins anew.
        """
        self.begin(points)
        self.manifold.show_array(look.manifold)
        self.show()
        self._look = look
        self._recolored.start()

    def _recolor(self) -> None:
        points, look, self._look = self._points, self._look, None
        if look is None or points not in self._viewer.layers or self.layer not in self._viewer.layers:
            return  # it has ended, or the user has removed the one or the other
        table = atoms_table(points)
        z = pd.Series(look.latents[:, 0], look.atom_id).reindex(table["atom_id"])
        known = z.notna().to_numpy()
        if known.any():
            _show(self.layer, points.data[known], np.asarray(points.size)[known], _colors(z[known].to_numpy()))


def _unfreeze(_: Any = None) -> None:
    gc.unfreeze()


def _show(layer: Points, places: Any, sizes: Any, colors: Any) -> None:
    if not np.array_equal(layer.data, places):  # napari works on all points for each of these
        layer.data = places
        layer.size = sizes
    layer.face_color = colors
    if layer.name == _EARLY:
        layer.name = NAME


def _colors(z: Any) -> Any:
    table = pd.DataFrame({"z1": z})
    return Coloring.of(table, "z1").colors(table["z1"])
