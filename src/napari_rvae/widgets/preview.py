"""The live preview of Find atoms: rings where atoms would be found, kept up to date by a thread."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image, Points
from qtpy.QtCore import QObject, Signal

from napari_rvae.layers import transformation
from napari_rvae.settings import FindSettings
from napari_rvae.widgets.jobs import Latest
from napari_rvae.widgets.parts import HELPER, quietly_added

if TYPE_CHECKING:
    from napari.viewer import Viewer


class Preview(QObject):
    """A points layer of rings; the filtered image is kept, so that another threshold costs nothing."""

    shown = Signal(object, float, object)  # the layer, the threshold, the heights of all candidates, highest first
    removed = Signal()
    failed = Signal(str)

    def __init__(self, viewer: Viewer, parent: QObject) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._latest = Latest(self)
        self._latest.failed.connect(self.failed)
        self._prepared: tuple[Any, Any] = (None, None)
        self.layer: Points | None = None

    def show(self, image: Image, data: Any, settings: FindSettings, region: Any = None) -> None:
        """Show what would be found in an image, or in the frame of a stack that is looked at.

        `region` is a mask (y, x), or None for the whole image.
        """
        frame = None
        if image.ndim == 3:
            place = image.world_to_data(self._viewer.dims.point)[0]
            frame = int(np.clip(round(float(place)), 0, len(data) - 1))
        plain = settings.model_copy(update={"threshold": None})
        key = (id(image), frame, plain, None if region is None else region.tobytes())
        if self._prepared[0] == key:
            self._latest.forget()
            self._place(image, frame, settings, key, self._prepared[1])
        else:
            show = partial(self._place, image, frame, settings, key)
            self._latest.request(partial(_prepare, data, frame, plain, region), show)

    def forget(self) -> None:
        """Filter the image anew when it is shown next."""
        self._prepared = (None, None)

    def close(self) -> None:
        """Show nothing any more."""
        self._latest.forget()
        self._prepared = (None, None)
        layer, self.layer = self.layer, None
        if layer is not None and layer in self._viewer.layers:
            self._viewer.layers.remove(layer)

    def on_removed(self, event: Any) -> None:
        """Notice that the user has removed the layer."""
        if event.value is self.layer:
            self.layer = None
            self.removed.emit()

    def _place(self, image: Image, frame: int | None, settings: FindSettings, key: Any, prepared: Any) -> None:
        self._prepared = key, prepared
        area, detection, heights = prepared
        positions, inside = area.placed(detection.positions(settings.threshold))
        positions = positions[inside]
        if frame is not None:
            positions = np.column_stack([np.full(len(positions), frame), positions])
        if self.layer is None:
            self.layer = Points(
                np.zeros((0, image.ndim)),
                ndim=image.ndim,
                name=f"{image.name} preview",
                face_color="transparent",
                border_color="#F0E442",
                border_width=0.15,
                metadata=HELPER,
                **transformation(image),
            )
            quietly_added(self._viewer, self.layer)
            self.layer.editable = False
        self.layer.current_size = max(4 * detection.sigma, 3.0)
        self.layer.data = positions
        self.layer.size = self.layer.current_size
        self.shown.emit(self.layer, settings.threshold or detection.threshold, heights)


def _prepare(data: Any, frame: int | None, settings: FindSettings, region: Any) -> Any:
    """The area, what a filter sees in it, and the heights of its candidates."""
    from napari_rvae.atoms import Area, prepare
    from napari_rvae.workflows.steps import finder_of

    area = Area(region, data.shape[-2:])
    pixels = np.asarray((data if frame is None else data[frame])[area.box])
    detection = prepare(pixels, settings, finder_of(settings))
    return area, detection, detection.heights[area.placed(detection.maxima)[1]]
