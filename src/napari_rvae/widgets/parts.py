"""What the docks share: the frame, the choice of a layer, headings, the question for a folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from inspect import unwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from napari.layers import Image, Layer, Points
from qtpy.QtCore import QEvent, QSize, Qt, QTimer, Signal
from qtpy.QtGui import QShowEvent
from qtpy.QtWidgets import (
    QComboBox,
    QDockWidget,
    QFileDialog,
    QFrame,
    QLabel,
    QMainWindow,
    QMessageBox,
    QScrollArea,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from napari_rvae.layers.atoms import image_of
from napari_rvae.layers.images import DERIVED
from napari_rvae.layers.models import channels_of
from napari_rvae.layers.opening import link_layers

if TYPE_CHECKING:
    from napari.viewer import Viewer


class Dock(QWidget):
    """A dock whose content scrolls where the window is small, and that lets go of everything when it is closed."""

    def __init__(self, viewer: Viewer) -> None:
        super().__init__()
        # from its menus napari gives a proxy, whose layers are proxies, too, and never the same object as a layer
        self.viewer: Viewer = unwrap(cast(Any, viewer))
        self._heard: list[tuple[Any, Callable[..., Any]]] = []
        self.placed = False  # whether it has its place in the window
        content = QWidget()
        self.rows = QVBoxLayout(content)
        self.rows.setContentsMargins(6, 6, 6, 6)
        area = _Scrolled()
        area.setWidgetResizable(True)
        area.setFrameShape(QFrame.Shape.NoFrame)
        area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        area.setWidget(content)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(area)

    def heading(self, text: str) -> QLabel:
        """Add a heading."""
        label = QLabel(f"<b>{text}</b>")
        self.rows.addWidget(label)
        return label

    def listen(self, emitter: Any, slot: Callable[..., Any]) -> None:
        """Connect to something that outlives the dock."""
        emitter.connect(slot)
        self._heard.append((emitter, slot))

    def showEvent(self, a0: QShowEvent | None) -> None:
        """Share the place of the docks that are open already, when first seen: below them there is no room."""
        super().showEvent(a0)
        if not self.placed:
            QTimer.singleShot(0, self._join_others)  # napari has not finished with it yet

    def _join_others(self) -> None:
        main, frame = self.window(), self.parentWidget()
        while frame is not None and not isinstance(frame, QDockWidget):
            frame = frame.parentWidget()
        if self.placed or frame is None or not isinstance(main, QMainWindow):
            return
        self.placed, area = True, main.dockWidgetArea(frame)
        for other in main.findChildren(QDockWidget):
            beside = other is not frame and other.isVisible() and not other.isFloating()
            if beside and main.dockWidgetArea(other) == area and other.findChild(Dock) is not None:
                main.tabifyDockWidget(other, frame)
                frame.raise_()
                return

    def event(self, event: QEvent | None) -> bool:
        """Notice that the dock is closed: napari then takes it out of its window."""
        if event is not None and event.type() == QEvent.Type.ParentChange and self.parent() is None:
            self.closed()
            self.deleteLater()
        return super().event(event)

    def closed(self) -> None:
        """Let go of the viewer."""
        for emitter, slot in self._heard:
            emitter.disconnect(slot)
        self._heard.clear()


class _Scrolled(QScrollArea):
    """Scrolls up and down only, hence never narrower than its content."""

    def minimumSizeHint(self) -> QSize:
        content, bar = self.widget(), self.verticalScrollBar()
        width = 0 if content is None or bar is None else content.minimumSizeHint().width() + bar.sizeHint().width()
        return QSize(max(width, 280), 120)


class LayerBox(QComboBox):
    """A choice among the viewer's layers of some kind; a layer that is renamed or joined by others stays chosen.

    Parameters
    ----------
    dock : Dock
        Whose viewer it is.
    kind : type
        Of layer.
    nothing : str
        Shown when there is none.
    optional : bool
        Whether no layer, shown by the same words, can be chosen, too, and is at first.
    """

    layer_changed = Signal(object)

    def __init__(
        self, dock: Dock, kind: type[Layer] | tuple[type[Layer], ...], nothing: str, optional: bool = False
    ) -> None:
        super().__init__()
        self._viewer, self._kind, self._nothing, self._optional = dock.viewer, kind, nothing, optional
        self._layers: list[Layer | None] = []
        self._shown: Layer | None = None
        self.setPlaceholderText(nothing)  # where there are layers that only the user may choose
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setMinimumContentsLength(10)
        self.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        events = dock.viewer.layers.events
        for emitter in (events.inserted, events.removed, events.reordered, events.renamed):
            dock.listen(emitter, self.fill)
        self.currentIndexChanged.connect(self._on_index)
        self.fill()

    @property
    def layer(self) -> Any:
        """The chosen layer, None when there is none."""
        index = self.currentIndex()
        return self._layers[index] if 0 <= index < len(self._layers) else None

    def choose(self, layer: Layer | None) -> None:
        """Choose a layer, if it is offered."""
        if layer is not None and layer in self._layers:
            self.setCurrentIndex(self._layers.index(layer))

    def offers(self, layer: Any) -> bool:
        """Tell whether a layer of the right kind can be chosen."""
        return not is_helper(layer)

    def fill(self, _: Any = None) -> None:
        """List the layers anew, the topmost first."""
        link_layers(self._viewer.layers)
        current = self.layer
        self.blockSignals(True)
        self._layers = [
            layer for layer in reversed(self._viewer.layers) if isinstance(layer, self._kind) and self.offers(layer)
        ]
        if self._optional:
            self._layers.insert(0, None)
        self.clear()
        self.addItems([self._nothing if layer is None else layer.name for layer in self._layers] or [self._nothing])
        self.setEnabled(bool(self._layers))
        if current in self._layers:
            self.setCurrentIndex(self._layers.index(current))
        else:
            own = (k for k, layer in enumerate(self._layers or [None]) if layer is None or not is_derived(layer))
            self.setCurrentIndex(next(own, -1))
        self.blockSignals(False)
        self._on_index()

    def _on_index(self, _: int = 0) -> None:
        if self.layer is not self._shown:
            self._shown = self.layer
            self.layer_changed.emit(self.layer)


class Heard:
    """One layer at a time, some of whose events are heard.

    Parameters
    ----------
    slots : tuple of callable and names of events
        What is called when; a layer need not have all of the events.
    """

    def __init__(self, *slots: tuple[Callable[..., Any], Iterable[str]]) -> None:
        self._slots = slots
        self._layer: Layer | None = None

    def choose(self, layer: Layer | None) -> None:
        """Hear this one from now on."""
        for one, connect in ((self._layer, False), (layer, True)):
            for slot, names in self._slots:
                for name in names:
                    emitter = getattr(one.events, name, None) if one is not None else None
                    if emitter is not None:
                        (emitter.connect if connect else emitter.disconnect)(slot)
        self._layer = layer


HELPER = {"napari_rvae_helper": True}
"""Metadata of layers that only show something and are not offered as input."""


def quietly_added(viewer: Viewer, layer: Layer) -> Layer:
    """Add a layer that only shows something: the user's active layer stays active.

    Parameters
    ----------
    viewer : Viewer
        Where to.
    layer : Layer
        The layer.

    Returns
    -------
    Layer
        The same layer.
    """
    selected = set(viewer.layers.selection)
    active = viewer.layers.selection.active
    viewer.add_layer(layer)
    viewer.layers.selection = selected
    viewer.layers.selection.active = active
    return layer


def show_alone(viewer: Viewer, layers: Sequence[Layer]) -> None:
    """Hide what lies over or under some layers, and fit the view to them; nothing does in napari's grid.

    Parameters
    ----------
    viewer : Viewer
        Where they are.
    layers : sequence of Layer
        What is to be seen.
    """
    if getattr(viewer, "canvas", viewer).grid.enabled:  # napari before 0.9 has it in the viewer
        return
    for layer in viewer.layers:
        if layer not in layers and (isinstance(layer, Image) or not is_helper(layer)):  # others follow their docks
            layer.visible = False
    try:
        viewer.reset_view(layers=layers)
    except TypeError:  # napari 0.7.0 fits the view to all layers only
        viewer.reset_view()


def is_helper(layer: Layer) -> bool:
    """Tell layers that only show something from the user's.

    Parameters
    ----------
    layer : Layer
        Any layer.

    Returns
    -------
    bool
        Whether its metadata say so.
    """
    return HELPER.items() <= layer.metadata.items()


def is_derived(layer: Layer) -> bool:
    """Tell whether a layer was computed from an image: a reconstruction, or what it leaves over.

    Parameters
    ----------
    layer : Layer
        Any layer.

    Returns
    -------
    bool
        True for layers that are input only where somebody chooses them.
    """
    return DERIVED.items() <= layer.metadata.items()


def image_under(points: Points, viewer: Viewer) -> Image | None:
    """Find the image to which points belong: that of their results, on which they were made, or the topmost that fits.

    Parameters
    ----------
    points : Points
        The atoms.
    viewer : Viewer
        Where it is looked for.

    Returns
    -------
    Image or None
        None where there is no image with as many axes.

    Raises
    ------
    InputDataError
        If a channel that their model sees was removed.
    """
    images = [
        layer for layer in viewer.layers if isinstance(layer, Image) and not (is_helper(layer) or is_derived(layer))
    ]
    fitting = [image for image in images if image.ndim == points.ndim]
    return next(iter(channels_of(points)), image_of(points)) or (fitting[-1] if fitting else None)


def asked_folder(parent: QWidget, title: str, files: Iterable[str]) -> tuple[str, bool] | None:
    """Ask for a folder, and whether what it holds may be replaced.

    Parameters
    ----------
    parent : QWidget
        Over which it is asked.
    title : str
        What the folder is for.
    files : iterable of str
        What will be written into it.

    Returns
    -------
    tuple of str and bool, or None
        The folder, and whether something is to be replaced; None where the user would rather not.
    """
    folder = QFileDialog.getExistingDirectory(parent, title)
    there = [name for name in files if folder and (Path(folder) / name).exists()]
    question = f"{folder} already holds {', '.join(there)}. Replace?"
    if there and QMessageBox.question(parent, "Replace results?", question) != QMessageBox.StandardButton.Yes:
        return None
    return (folder, bool(there)) if folder else None
