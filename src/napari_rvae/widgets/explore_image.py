"""The image's side of the Explore dock: what the mouse does there, and what shows a selection there besides points."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from napari.layers import Labels, Layer, Points, Shapes
from napari.layers.base import ActionType
from numpy.typing import NDArray
from qtpy.QtCore import QObject, Signal

from napari_rvae.errors import InputDataError
from napari_rvae.latent import cell_labels, cell_numbers, cell_outlines
from napari_rvae.layers import (
    Coloring,
    atoms_of,
    atoms_table,
    cells_of,
    class_colors,
    class_map_of,
    image_data,
    image_of,
    inside,
    outline_of_cells,
    show_classes,
)
from napari_rvae.widgets.annotation import ANNOTATION, annotation_of
from napari_rvae.widgets.atoms_link import AtomsLink
from napari_rvae.widgets.jobs import Latest
from napari_rvae.widgets.parts import HELPER, Dock, is_helper, quietly_added

_MOST_CLASSES = 255  # of a labels layer


class ImageSide(QObject):
    """Hovering over atoms, picking cells and drawing shapes; outlines of selected cells, and classes as labels.

    Parameters
    ----------
    dock : Dock
        Whose viewer it is; nothing happens while the dock cannot be seen.
    links : mapping of Points to AtomsLink
        Of all layers that were explored; it changes as they come and go.

    Attributes
    ----------
    hovered : Signal
        Row of the atom under the cursor in the layer that is shown, -1 where there is none.
    failed : Signal
        What went wrong, in words.
    """

    hovered = Signal(int)
    failed = Signal(str)

    def __init__(self, dock: Dock, links: Mapping[Points, AtomsLink]) -> None:
        super().__init__(dock)
        self._dock, self._viewer, self._links = dock, dock.viewer, links
        self.link: AtomsLink | None = None
        self._row = -1
        self._watched: set[Layer] = set()
        self._outlines: WeakKeyDictionary[Labels, Labels] = WeakKeyDictionary()
        self._outlining, self._classifying = Latest(self), Latest(self)
        for latest in (self._outlining, self._classifying):
            latest.failed.connect(self.failed)
        self._keys: dict[str, Callable[[], None]] = {}
        self._keyed: Layer | None = None
        self._own_keys: dict[Any, Any] = {}
        dock.listen(self._viewer.layers.selection.events.active, self.take_keys)
        dock.listen(self._viewer.layers.events.inserted, self._layers_changed)
        dock.listen(self._viewer.layers.events.removed, self._layers_changed)
        self._viewer.mouse_move_callbacks.append(self._mouse_moved)
        self._layers_changed()

    def close(self) -> None:
        """Let go of the viewer; outlines disappear, labels of classes stay."""
        self._viewer.mouse_move_callbacks.remove(self._mouse_moved)
        for latest in (self._outlining, self._classifying):
            latest.forget()
        for layer in self._watched:
            self._unwatch(layer)
        self._watched.clear()
        self.set_link(None)

    def set_link(self, link: AtomsLink | None) -> None:
        """Follow the mouse over the atoms of another layer."""
        self.link, self._row = link, -1
        self.take_keys()

    # Keys -------------------------------------------------------------------------------------------------------------

    def set_keys(self, keys: Mapping[str, Callable[[], None]]) -> None:
        """Say what keys mean in the image; napari's names of keys.

        Without this, napari deletes the selected points when somebody who annotates presses 1.
        """
        self._keys = dict(keys)
        self.take_keys()

    def take_keys(self) -> None:
        """Give the keys to the active layer if atoms can be selected in it, as long as the dock is seen."""
        active = self._viewer.layers.selection.active if self.link is not None and self._dock.isVisible() else None
        wanted = active if active is not None and self._selects(active) else None
        if wanted is self._keyed:
            return
        if self._keyed is not None:
            self._keyed.keymap = self._own_keys
        self._keyed = wanted
        if wanted is not None:
            self._own_keys = dict(wanted.keymap)
            for key, action in self._keys.items():
                wanted.bind_key(key, lambda _, action=action: action(), overwrite=True)

    def _selects(self, layer: Layer) -> bool:
        if self.link is None or is_helper(layer):
            return False
        points = self.link.layer
        return (
            layer is points
            or isinstance(layer, Shapes)
            or (isinstance(layer, Labels) and (atoms_of(layer) is points or class_map_of(points) is layer))
        )

    def _layers_changed(self) -> None:
        now = set(self._viewer.layers)
        for layer in self._watched - now:
            self._unwatch(layer)
        for layer in now - self._watched:
            if isinstance(layer, Labels) and not is_helper(layer):
                layer.events.selected_label.connect(self._label_picked)
                layer.events.visible.connect(self._cells_hidden)
                points = atoms_of(layer)
                if points in self._links:
                    self.outline_cells(self._links[points])
            elif isinstance(layer, Shapes) and not is_helper(layer):
                layer.events.data.connect(self._shape_drawn)
        self._watched = now

    def _unwatch(self, layer: Layer) -> None:
        if isinstance(layer, Labels) and not is_helper(layer):
            layer.events.selected_label.disconnect(self._label_picked)
            layer.events.visible.disconnect(self._cells_hidden)
            self._drop_outline(layer)
        elif isinstance(layer, Points):
            for cells in cells_of(layer, list(self._outlines)):
                self._drop_outline(cells)
        elif isinstance(layer, Shapes) and not is_helper(layer):
            layer.events.data.disconnect(self._shape_drawn)

    # What the mouse does ----------------------------------------------------------------------------------------------

    def _mouse_moved(self, viewer: Any, event: Any) -> None:
        if self.link is None or viewer.dims.ndisplay != 2 or not self._dock.isVisible():
            return
        row = atom_at(self.link.layer, event.position)
        if row != self._row:
            self._row = row
            self.hovered.emit(row)

    def _label_picked(self, event: Any) -> None:
        """Select the atom whose cell was picked, or the atoms of the class that was picked."""
        labels = event.source
        for points, link in self._links.items():
            if atoms_of(labels) is points:
                picked = link.selection.ids == labels.selected_label - 1
            elif class_map_of(points) is labels:
                picked = annotation_of(link.table).cat.codes.to_numpy(np.int64) == labels.selected_label - 1
                picked &= labels.selected_label > 0
            else:
                continue
            if picked.any():
                link.selection.combine(picked, source="cells")

    def _shape_drawn(self, event: Any) -> None:
        """Select what lies in the shapes once one was drawn or changed; deleting them leaves the selection alone."""
        if event.action in (ActionType.ADDED, ActionType.CHANGED) and self._dock.isVisible():
            self.select_in(event.source)

    def select_in(self, shapes: Shapes) -> None:
        """Select the atoms inside shapes.

        Parameters
        ----------
        shapes : Shapes
            Where they are drawn.
        """
        if self.link is not None:
            self.link.selection.combine(inside(self.link.layer, shapes), source="shapes")

    def go_to(self, row: int) -> None:
        """Move the camera to an atom, and to its frame in a stack.

        Parameters
        ----------
        row : int
            Row of the atom in the layer that is shown.
        """
        if self.link is None or row >= len(self.link.layer.data):
            return
        place = self.link.layer.data_to_world(self.link.layer.data[row])
        dims = self._viewer.dims
        offset = dims.ndim - len(place)
        for axis in dims.not_displayed:
            if axis >= offset:
                dims.set_point(axis, place[axis - offset])
        camera = getattr(self._viewer, "scene", self._viewer).camera  # napari >= 0.9: viewer.scene.camera
        center = np.array(camera.center)
        for place_in_center, axis in zip(range(-len(dims.displayed), 0), dims.displayed, strict=True):
            if axis >= offset:
                center[place_in_center] = place[axis - offset]
        camera.center = tuple(center)

    # What shows a selection -------------------------------------------------------------------------------------------

    def outline_cells(self, link: AtomsLink) -> None:
        """Outline the cells of the selected atoms, in every labels layer that shows them.

        Parameters
        ----------
        link : AtomsLink
            Whose selection.
        """
        cells = [layer for layer in self._viewer.layers if isinstance(layer, Labels) and atoms_of(layer) is link.layer]
        if cells:
            ids = link.selection.ids[link.selection.mask]
            arrays = [layer.data for layer in cells]
            outlines = partial(_outlines, arrays, ids)
            self._outlining.request(outlines, partial(self._show_outlines, cells))

    def _show_outlines(self, layers: list[Labels], lit: list[NDArray[np.uint8]]) -> None:
        for cells, array in zip(layers, lit, strict=True):
            outline = self._outlines.get(cells)
            if cells not in self._viewer.layers:
                continue
            if outline is not None and outline in self._viewer.layers:
                if not np.array_equal(outline.data, array):  # drawing the layer anew has the whole canvas drawn
                    outline.data = array
            elif array.any():
                outline = self._outlines[cells] = outline_of_cells(array, cells)
                outline.metadata = HELPER
                outline.visible = cells.visible
                outline.editable = False
                quietly_added(self._viewer, outline)

    def _drop_outline(self, cells: Labels) -> None:
        outline = self._outlines.pop(cells, None)
        if outline is not None and outline in self._viewer.layers:
            self._viewer.layers.remove(outline)

    def _cells_hidden(self, event: Any) -> None:
        outline = self._outlines.get(event.source)
        if outline is not None:
            outline.visible = event.source.visible

    def show_classes(self, link: AtomsLink, *, anew: bool = True) -> None:
        """Show the classes given by hand as a labels layer.

        Parameters
        ----------
        link : AtomsLink
            Whose atoms.
        anew : bool
            Add the layer; otherwise only change the one that is there.
        """
        points, there = link.layer, class_map_of(link.layer)
        if not anew and (there is None or there not in self._viewer.layers):
            return
        image = image_of(points)
        if image is None:
            self.failed.emit("These points were not found on an image of this viewer: there is nothing to paint on.")
            return
        annotation = annotation_of(link.table)
        coloring = Coloring.of(annotation.to_frame(), ANNOTATION, class_colors(points, ANNOTATION))
        if len(coloring.names) > _MOST_CLASSES or (anew and not coloring.names):
            self.failed.emit("Make a class first." if not coloring.names else "A labels layer takes 255 classes.")
            return
        try:
            table, shape = atoms_table(points, image), image_data(image).shape
        except InputDataError as error:
            self.failed.emit(str(error))
            return
        numbers = annotation.cat.codes.to_numpy(np.int64) + 1

        def paint() -> NDArray[np.uint8]:
            return cell_numbers(cell_labels(table, shape), table["atom_id"], numbers)

        def show(classes: NDArray[np.uint8]) -> None:
            if points in self._viewer.layers:
                show_classes(self._viewer, classes, coloring, points, image)

        self._classifying.request(paint, show)


def atom_at(layer: Points, position: Any) -> int:
    """Find the atom at a place: the nearest one that is not farther than a diameter of its symbol.

    Parameters
    ----------
    layer : Points
        The atoms.
    position : sequence of float
        In the world, of all axes of the viewer.

    Returns
    -------
    int
        Its row; -1 where there is none.
    """
    place = np.asarray(layer.world_to_data(position), float)
    if not len(layer.data):
        return -1
    squared = ((layer.data[:, -2:] - place[-2:]) ** 2).sum(axis=1)
    if layer.ndim == 3:
        squared[np.rint(layer.data[:, 0]) != round(place[0])] = np.inf
    row = int(squared.argmin())
    return row if squared[row] <= layer.size[row] ** 2 else -1


def _outlines(arrays: list[NDArray[Any]], ids: NDArray[np.int64]) -> list[NDArray[np.uint8]]:
    return [cell_outlines(array, ids) for array in arrays]
