"""What is done with results: colours, cells, arrows, undo."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Labels, Points
from qtpy.QtCore import QSignalBlocker
from qtpy.QtWidgets import QComboBox, QHBoxLayout, QLabel, QPushButton, QSizePolicy, QVBoxLayout, QWidget

from napari_rvae.errors import InputDataError
from napari_rvae.layers import (
    RECIPE,
    Coloring,
    add_arrows,
    add_cells,
    add_reconstruction,
    atoms_table,
    can_undo,
    cell_colormap,
    cells_of,
    channels_of,
    color_cells,
    color_choices,
    color_points,
    coloring_of,
    image_data,
    image_source,
    model_of,
    results_of,
    show_with_results,
    undo_results,
)
from napari_rvae.widgets.columns import color_scale, column_label
from napari_rvae.widgets.jobs import Latest
from napari_rvae.widgets.legend import Legend

if TYPE_CHECKING:
    import pandas as pd

    from napari_rvae.widgets.jobs import Job
    from napari_rvae.widgets.train import TrainWidget

_NOT_COLORED = "not by a feature"


class ResultsPanel(QWidget):
    """Colour the chosen atoms by any of their features, and show them as cells and arrows.

    Parameters
    ----------
    dock : TrainWidget
        Whose image, points and worker are used.
    """

    def __init__(self, dock: TrainWidget) -> None:
        super().__init__()
        self._dock = dock
        self._points: Points | None = None
        self.recolored = Latest(self)
        self.recolored.failed.connect(dock.work.say)
        self.color_box = QComboBox()
        self.color_box.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.color_box.setToolTip("<p>Colour atoms, and their cells, by a feature; atoms without a value are grey.</p>")
        self.color_box.activated.connect(self._on_color)
        self.legend = Legend()
        self.cells_button = self._button("Cells", "Label every pixel with its nearest atom, coloured like the atoms.")
        self.cells_button.clicked.connect(self.show_cells)
        self.angles_button = self._button("Angles", "Show angles as arrows.")
        self.angles_button.clicked.connect(partial(self.show_arrows, "angle"))
        self.offsets_button = self._button("Offsets", "Show offsets as arrows, enlarged until they can be seen.")
        self.offsets_button.clicked.connect(partial(self.show_arrows, "offset"))
        self.decoded_button = self._button(
            "Reconstruct", "Add the image as the model understands it, without noise, and what it did not understand."
        )
        self.decoded_button.clicked.connect(self.show_reconstruction)
        self.undo_button = self._button(
            "Undo",
            "Bring back the results that the last ones replaced. Cells, arrows and reconstructions go and come with "
            "theirs, unless they were edited by hand.",
        )
        self.undo_button.clicked.connect(self.undo)
        choice, buttons, more = QHBoxLayout(), QHBoxLayout(), QHBoxLayout()
        choice.addWidget(QLabel("Colour by"))
        choice.addWidget(self.color_box, 1)
        for button in (self.cells_button, self.angles_button, self.offsets_button):
            buttons.addWidget(button)
        for button in (self.decoded_button, self.undo_button):
            more.addWidget(button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(choice)
        layout.addWidget(self.legend)
        layout.addLayout(buttons)
        layout.addLayout(more)
        self.watch(None)

    @staticmethod
    def _button(text: str, tip: str) -> QPushButton:
        button = QPushButton(text)
        button.setToolTip(f"<p>{tip}</p>")
        return button

    def watch(self, points: Points | None) -> None:
        """Show the features of a points layer.

        Parameters
        ----------
        points : Points or None
            None shows nothing.
        """
        self._points = points
        self.refresh()

    def refresh(self) -> None:
        """Follow the layer: its features, and how it is coloured."""
        points = self._points
        names = [] if points is None else color_choices(points)
        coloring = None if points is None else coloring_of(points)
        with QSignalBlocker(self.color_box):
            self.color_box.clear()
            self.color_box.addItem(_NOT_COLORED)
            for name in names:
                self.color_box.addItem(column_label(name), name)
            self.color_box.setCurrentIndex(0 if coloring is None else self.color_box.findData(coloring.column))
        scale = None
        if points is not None and coloring is not None:
            scale = color_scale(points.features, coloring, points.metadata.get(RECIPE))
        self.legend.show_scale(scale)
        for button, column in (
            (self.cells_button, "atom_id"), (self.angles_button, "angle"), (self.offsets_button, "dy"),
        ):  # fmt: skip
            button.setEnabled(points is not None and column in points.features)
        self.undo_button.setEnabled(points is not None and can_undo(points))
        self.decoded_button.setEnabled(points is not None and model_of(points) is not None)

    def color_by(self, column: str) -> None:
        """Colour the atoms, and their cells, by a feature.

        Parameters
        ----------
        column : str
            Its name.
        """
        if self._points is not None:
            color_points(self._points, column)

    def on_colored(self, points: Points) -> None:
        """Follow the colours of a layer, whoever changed them.

        Parameters
        ----------
        points : Points
            The layer.
        """
        if points is self._points:
            self.refresh()
            self._recolor_cells(points)

    def _on_color(self, index: int) -> None:
        column = self.color_box.itemData(index)
        if column is not None:
            self.color_by(column)

    def undo(self) -> None:
        """Bring back the results that the last ones replaced, with the layers that show them."""
        points, layers = self._points, self._dock.viewer.layers
        if points is not None and can_undo(points):
            undo_results(points, layers)
            layers.selection.active = points  # another one is, where the active one went
            self.on_colored(points)
            if not self._dock.work.working:
                self._dock.work.say("")  # what it said last was about the others

    # Cells and arrows -------------------------------------------------------------------------------------------------

    def show_cells(self) -> None:
        """Add the cells of the atoms as a labels layer."""
        points, image, work = self._points, self._dock.image_box.layer, self._dock.work
        if points is None or image is None:
            work.fail(InputDataError("Cells need an image: choose the one on which the atoms were found."))
            return
        try:
            table, shape = atoms_table(points, image), image_data(image).shape
        except InputDataError as error:
            work.fail(error)
            return
        coloring, results = coloring_of(points), results_of(points)

        def step(_: Any) -> Any:
            from napari_rvae.latent import cell_labels

            cells = cell_labels(table, shape)
            return cells, None if coloring is None else _prepared(table, coloring)

        def show(made: Any) -> None:
            cells, colormap = made
            layer = add_cells(self._dock.viewer, cells, points, image)
            show_with_results(layer, points, results)
            if colormap is not None:
                color_cells(layer, colormap)
            self._dock.viewer.layers.selection.active = points if points in self._dock.viewer.layers else layer

        work.run("Drawing cells", step, show)

    def _recolor_cells(self, points: Points) -> None:
        cells, coloring = cells_of(points, self._dock.viewer.layers), coloring_of(points)
        if cells and coloring is not None:
            self.recolored.request(partial(_prepared, points.features, coloring), partial(_color_all, cells))

    def show_arrows(self, kind: Any, _: bool = False) -> None:
        """Add angles or offsets as a vectors layer.

        Parameters
        ----------
        kind : {"angle", "offset"}
            What the arrows show.
        """
        if self._points is not None:
            points = self._points
            length = 1.2 * float(np.median(points.size)) if len(points.data) else 1.0
            arrows = add_arrows(self._dock.viewer, atoms_table(points), points, kind, length)
            show_with_results(arrows, points, results_of(points))
            self._dock.viewer.layers.selection.active = points

    def show_reconstruction(self) -> None:
        """Add the image as the model understands it, and the difference, as image layers."""
        points, image, work = self._points, self._dock.image_box.layer, self._dock.work
        model = None if points is None else model_of(points)
        if points is None or image is None or model is None:
            work.fail(InputDataError("A reconstruction needs an image and atoms with results: train a model first."))
            return
        try:
            layers = channels_of(points) or [image]
            source, table = image_source(layers[0], layers[1:]), atoms_table(points, layers[0])
            pixels, results = [image_data(layer) for layer in layers], results_of(points)
        except InputDataError as error:
            work.fail(error)
            return

        def step(job: Job) -> Any:
            from napari_rvae.workflows import reconstruct_image

            decoded = reconstruct_image(model, source, table, progress=job.progress, stop=job.stop)
            parts = decoded if len(layers) > 1 else [decoded]
            return [(part, own - part) for part, own in zip(parts, pixels, strict=True)]

        def show(made: Any) -> None:
            for layer, (decoded, difference) in reversed(list(zip(layers, made, strict=True))):
                for added in add_reconstruction(self._dock.viewer, decoded, difference, layer):
                    show_with_results(added, points, results)
            self._dock.viewer.layers.selection.active = points if points in self._dock.viewer.layers else None
            work.say(
                "The reconstruction lies on the image; between them, hidden, is what the model did not understand."
            )

        work.run("Reconstructing", step, show)


def _color_all(cells: list[Labels], colormap: Any) -> None:
    for layer in cells:
        color_cells(layer, colormap)


def _prepared(table: pd.DataFrame, coloring: Coloring) -> Any:
    """Colormap of cells that has already done its slow part, away from the window."""
    colormap = cell_colormap(table, coloring)
    colormap.map(np.zeros((1, 1), np.int32))
    return colormap
