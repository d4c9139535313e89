"""The live preview of Find atoms: rings where atoms would be found, kept up to date by a thread."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
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
    from numpy.typing import NDArray

    from napari_rvae.atoms import Area, Detection


@dataclass(frozen=True, eq=False)
class _Subject:
    """What is filtered, and how: all but the threshold."""

    image: Image
    data: Any
    frame: int | None
    region: NDArray[np.bool_] | None
    settings: FindSettings

    def beside(self, other: _Subject | None) -> bool:
        """Whether both are of the same pixels."""
        return other is not None and (self.image, self.frame) == (other.image, other.frame) and (
            self.data is other.data and self.region is other.region
        )  # fmt: skip

    def same(self, other: _Subject | None) -> bool:
        """Whether both are the same."""
        return other is not None and self.beside(other) and self.settings == other.settings


@dataclass(frozen=True)
class _Filtered:
    """What a filter sees in an area: the heights of its candidates, highest first, and what was estimated of them."""

    area: Area
    detection: Detection
    heights: NDArray[Any]
    estimates: dict[str, float]


class Preview(QObject):
    """A points layer of rings; the filtered image is kept, so that another threshold costs nothing."""

    shown = Signal(int, float, object, object)  # how many atoms, the threshold, heights and estimates as in `_Filtered`
    removed = Signal()
    failed = Signal(str)

    def __init__(self, viewer: Viewer, parent: QObject) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._latest = Latest(self, live=True)
        self._latest.failed.connect(self._on_failed)
        self._asked: _Subject | None = None
        self._kept: tuple[_Subject, _Filtered] | None = None
        self._threshold: float | None = None
        self.layer: Points | None = None

    def show(
        self,
        image: Image,
        data: Any,
        settings: FindSettings,
        region: NDArray[np.bool_] | None = None,
        frame: int | None = None,
    ) -> None:
        """Show what would be found in an image, or in one frame of a stack.

        `region` is a mask (y, x), or None for the whole image; another array is another region.
        """
        subject = _Subject(image, data, frame, region, settings.model_copy(update={"threshold": None}))
        self._threshold = settings.threshold
        if self._kept is not None and subject.same(self._kept[0]):
            self._forget_asked()
            self._draw(*self._kept)
        elif not subject.same(self._asked):
            if not subject.beside(self._asked):
                self._forget_asked()
            self._asked = subject
            known = self._kept[1].detection if self._kept is not None and subject.beside(self._kept[0]) else None
            work = partial(_filtered, subject, known, self._latest.outdated)
            self._latest.request(work, partial(self._on_filtered, subject))

    @property
    def waiting(self) -> bool:
        """Whether something is being filtered."""
        return self._asked is not None

    def forget(self) -> None:
        """Filter the image anew when it is shown next."""
        self._kept = None

    def clear(self) -> None:
        """Take the rings away until something is shown again."""
        layer, self.layer = self.layer, None
        if layer is not None and layer in self._viewer.layers:
            self._viewer.layers.remove(layer)

    def close(self) -> None:
        """Show nothing any more."""
        self._forget_asked()
        self.forget()
        self.clear()

    def on_removed(self, event: Any) -> None:
        """Notice that the user has removed the layer."""
        if event.value is self.layer:
            self.layer = None
            self.removed.emit()

    def _forget_asked(self) -> None:
        self._asked = None
        self._latest.forget()

    def _on_failed(self, text: str) -> None:
        self._asked = None
        self.clear()
        self.failed.emit(text)

    def _on_filtered(self, subject: _Subject, filtered: _Filtered) -> None:
        self._kept = subject, filtered
        if subject is self._asked:
            self._asked = None
        self._draw(subject, filtered)

    def _draw(self, subject: _Subject, filtered: _Filtered) -> None:
        image, detection = subject.image, filtered.detection
        positions, inside = filtered.area.placed(detection.positions(self._threshold))
        positions = positions[inside]
        if subject.frame is not None:
            positions = np.column_stack([np.full(len(positions), subject.frame), positions])
        size = max(4 * detection.sigma, 3.0)
        if self.layer is None:
            self.layer = Points(
                positions,
                ndim=image.ndim,
                name=f"{image.name} preview",
                size=size,
                face_color="transparent",
                border_color="#F0E442",
                border_width=0.15,
                metadata=HELPER,
                **transformation(image),
            )
            quietly_added(self._viewer, self.layer)
            self.layer.editable = False
        else:
            same = self.layer.current_size == size
            self.layer.current_size = size  # of new points
            self.layer.data = positions
            if not same:
                self.layer.size = size
        threshold = self._threshold or detection.threshold
        self.shown.emit(len(positions), threshold, filtered.heights, filtered.estimates)


def _filtered(subject: _Subject, known: Detection | None, stop: Callable[[], bool]) -> _Filtered:
    """Filter the pixels of a subject; `known` is what a filter has seen in the same ones before."""
    from napari_rvae.atoms import Area, prepare
    from napari_rvae.atoms.refine import nearest_neighbor_distance
    from napari_rvae.workflows.steps import finder_of

    data, settings = subject.data, subject.settings
    area = Area(subject.region, data.shape[-2:])
    if known is not None:
        detection = known.again(settings, finder_of(settings), stop)
    else:
        pixels = np.asarray((data if subject.frame is None else data[subject.frame])[area.box])
        detection = prepare(pixels, settings, finder_of(settings), stop)
    estimates = {
        "spacing": nearest_neighbor_distance(detection.positions()),
        "sigma": detection.sigma,
        "threshold": detection.threshold,
    }
    estimates = {name: value for name, value in estimates.items() if getattr(settings, name) is None}
    return _Filtered(area, detection, detection.heights[area.placed(detection.maxima)[1]], estimates)
