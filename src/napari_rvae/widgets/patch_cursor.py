"""The patch of the atom under the cursor, drawn on the image with its inscribed circle."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image, Shapes
from qtpy.QtCore import QObject

from napari_rvae.errors import RVAEError
from napari_rvae.layers import image_data, transformation
from napari_rvae.widgets.parts import HELPER, quietly_added

if TYPE_CHECKING:
    import pandas as pd
    from napari.viewer import Viewer

NAME = "patch under the cursor"


class PatchCursor(QObject):
    """Follows the cursor as long as it is given atoms.

    Parameters
    ----------
    viewer : Viewer
        Whose cursor it is.
    parent : QObject
        Who it belongs to.
    """

    def __init__(self, viewer: Viewer, parent: QObject) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._image: Image | None = None
        self._places = np.zeros((0, 2))
        self._half = (0.0, 0.0)
        self._shown: tuple[float, ...] | None = None
        self.layer: Shapes | None = None
        viewer.mouse_move_callbacks.append(self.on_move)

    def watch(self, image: Image | None, places: Any, half: tuple[float, float]) -> None:
        """Draw patches of some atoms.

        Parameters
        ----------
        image : Image or None
            Where they lie; None draws nothing.
        places : numpy.ndarray
            (n, 2) or (n, 3) positions in its pixels.
        half : tuple of float
            Half of the patch's height and width in its pixels.
        """
        self._image, self._places, self._half = image, np.asarray(places, float), half
        self._shown = None
        if image is None or not len(self._places):
            self.hide()

    def hide(self) -> None:
        """Take the drawing away."""
        layer, self.layer, self._shown = self.layer, None, None
        if layer is not None and layer in self._viewer.layers:
            self._viewer.layers.remove(layer)

    def close(self) -> None:
        """Let go of the viewer."""
        self.hide()
        if self.on_move in self._viewer.mouse_move_callbacks:
            self._viewer.mouse_move_callbacks.remove(self.on_move)

    def on_move(self, viewer: Viewer, event: Any) -> None:
        """Draw the patch of the nearest atom, where one is near."""
        if self._image is None or not len(self._places) or viewer.dims.ndisplay != 2:
            return
        place = np.asarray(self._image.world_to_data(event.position), float)
        atom = self._nearest(place)
        if self.layer is not None:
            self.layer.visible = atom is not None  # removed and added again it would flicker in the layer list
        if atom is not None and tuple(atom) != self._shown:
            self._shown = tuple(atom)
            self._draw(atom)

    def _nearest(self, place: Any) -> Any:
        places = self._places
        if places.shape[1] == 3:
            places = places[places[:, 0] == round(float(place[0]))]
        away = ((places[:, -2:] - place[-2:]) ** 2).sum(1)
        if not len(away):
            return None
        nearest = int(away.argmin())
        return places[nearest] if away[nearest] <= max(self._half) ** 2 else None

    def _draw(self, atom: Any) -> None:
        height, width = self._half
        corners = np.array([[-height, -width], [-height, width], [height, width], [height, -width]])
        outline = np.tile(atom, (4, 1)).astype(float)
        outline[:, -2:] += corners
        if self.layer is None or self.layer not in self._viewer.layers:
            assert self._image is not None
            self.layer = Shapes(
                [outline, outline],
                shape_type=["rectangle", "ellipse"],
                ndim=self._image.ndim,
                name=NAME,
                face_color="transparent",
                edge_color=["#F0E442", "#56B4E9"],
                edge_width=max(width / 15, 0.3),
                metadata=HELPER,
                **transformation(self._image),
            )
            quietly_added(self._viewer, self.layer)
            self.layer.editable = False
        else:
            self.layer.data = [outline, outline]
            if self._viewer.layers[-1] is not self.layer:  # cells may have come on top
                self._viewer.layers.move(self._viewer.layers.index(self.layer), -1)


def size_for(table: pd.DataFrame, image: Image, invariances: tuple[str, ...]) -> int | None:
    """Patch size where none is set; of many atoms this takes a while.

    Parameters
    ----------
    table : DataFrame
        Atoms table.
    image : Image
        Where the atoms lie.
    invariances : tuple of str
        Poses that are free.

    Returns
    -------
    int or None
        None where no patch fits.
    """
    from napari_rvae.patches import automatic_size

    try:
        return automatic_size(table, image_data(image).shape[-2:], "strain" in invariances)
    except RVAEError:
        return None
