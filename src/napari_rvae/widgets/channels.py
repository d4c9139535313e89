"""More channels in the Train dock: layers that show the same place as the image, such as other detectors."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from napari.layers import Image, Points
from napari.utils.theme import get_theme
from qtpy.QtCore import QSignalBlocker, Qt
from qtpy.QtWidgets import QLabel, QListWidget, QListWidgetItem, QVBoxLayout, QWidget

from napari_rvae.errors import InputDataError
from napari_rvae.layers import channels_of, fits
from napari_rvae.widgets.parts import is_helper

if TYPE_CHECKING:
    from napari_rvae.widgets.train import TrainWidget

_MOST_SEEN = 4  # rows; of more one sees these, and scrolls


class MoreChannels(QWidget):
    """Ticks for the layers that are learned from together with the image; not to be seen where none fits it.

    Parameters
    ----------
    dock : TrainWidget
        Whose image and atoms are meant.
    """

    def __init__(self, dock: TrainWidget) -> None:
        super().__init__()
        self._dock = dock
        self._image: Image | None = None
        self._ticked: list[Image] = []
        self._offered: list[Image] = []
        self.list = QListWidget()
        self.list.setToolTip(
            "<p>Layers of the same place, such as other detectors, or phase beside amplitude: every patch then has "
            "all of them, and the model learns from all. Atoms are those of the image above.</p>"
        )
        self.list.itemChanged.connect(self._on_ticked)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self.label = QLabel()
        self.label.setWordWrap(True)
        layout.addWidget(self.label)
        layout.addWidget(self.list)
        layers = dock.viewer.layers
        for emitter in (layers.events.inserted, layers.events.removed, layers.events.renamed):
            dock.listen(emitter, self.fill)
        dock.listen(layers.selection.events.active, self.fill)  # their scale may have been set meanwhile
        dock.listen(dock.viewer.events.theme, self._set_theme)
        self._set_theme()
        dock.image_box.layer_changed.connect(self._on_image)
        dock.points_box.layer_changed.connect(self.choose_those_of)
        self._image = dock.image_box.layer
        self.choose_those_of(dock.points_box.layer)

    @property
    def layers(self) -> tuple[Image, ...]:
        """The layers that are ticked, in the order in which they were, whatever is above what in the viewer."""
        return tuple(layer for layer in self._ticked if layer in self._offered)

    def choose(self, layers: Iterable[Image]) -> None:
        """Tick just these layers, as far as they are there."""
        self._ticked = list(layers)
        self.fill()

    def choose_those_of(self, points: Points | None) -> None:
        """Tick the channels that the model of some atoms sees; where it sees none, what is ticked stays."""
        try:
            more = [] if points is None else channels_of(points)[1:]
        except InputDataError:  # said where they are needed
            return
        self.choose(more or self._ticked)

    def fill(self, _: Any = None) -> None:
        """List the layers that fit the image; one that was ticked stays, so that it is missed when it fits no more."""
        image = self._dock.image_box.layer
        there = [layer for layer in self._dock.viewer.layers if isinstance(layer, Image) and layer is not image]
        self._ticked = [layer for layer in self._ticked if layer in self._dock.viewer.layers]
        self._offered = [
            layer
            for layer in there
            if image is not None and (layer in self._ticked or (not is_helper(layer) and fits(image, layer)))
        ]
        with QSignalBlocker(self.list):
            self.list.clear()
            for layer in self._offered:
                item = QListWidgetItem(layer.name)
                item.setFlags(Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsUserCheckable)
                item.setCheckState(Qt.CheckState.Checked if layer in self._ticked else Qt.CheckState.Unchecked)
                self.list.addItem(item)
        rows = min(max(len(self._offered), 1), _MOST_SEEN)
        self.list.setFixedHeight(rows * max(self.list.sizeHintForRow(0), 1) + 2 * self.list.frameWidth())
        self.setVisible(bool(self._offered))
        self._count()

    def _set_theme(self, _: Any = None) -> None:
        """Draw ticks as napari does elsewhere, with a frame: it leaves those of lists in the list's own colour."""
        theme = get_theme(self._dock.viewer.theme)
        primary, frame, ticked = (color.as_hex() for color in (theme.primary, theme.icon, theme.current))
        self.list.setStyleSheet(
            "QListWidget { background: transparent; } QListWidget::item { height: 20px; }"
            "QListWidget::indicator { width: 12px; height: 12px; padding: 1px; border-radius: 2px; }"
            f"QListWidget::indicator {{ background: {primary}; border: 1px solid {frame}; }}"
            f"QListWidget::indicator:checked {{ background: {ticked}; image: url(theme_{theme.id}:/check.svg); }}"
        )

    def _on_image(self, image: Image | None) -> None:
        """Another image has other channels; one that was a channel itself exchanges its place with the image."""
        before, self._image = self._image, image
        swapped = [before if layer is image else layer for layer in self._ticked]
        self.choose(layer for layer in swapped if None not in (layer, image) and fits(image, layer))

    def _on_ticked(self, item: QListWidgetItem) -> None:
        layer = self._offered[self.list.row(item)]
        self._ticked = [other for other in self._ticked if other is not layer]
        if item.checkState() == Qt.CheckState.Checked:
            self._ticked.append(layer)
        self._count()

    def _count(self) -> None:
        """Say which channels there are, and that there are several where the list is folded away."""
        names = [layer.name for layer in self.layers]
        self.label.setText(f"More channels: {', '.join(names)}" if names else "More channels")
        self._dock.form.folded.setText(f"Advanced ({1 + len(names)} channels)" if names else "Advanced")
