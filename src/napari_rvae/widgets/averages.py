"""Class averages in the Train dock: a result in itself, and the first look at a training."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QGridLayout, QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from napari_rvae.averages import first_step_of
from napari_rvae.errors import RVAEError
from napari_rvae.layers import hashed, image_source
from napari_rvae.settings import PatchSettings, TrainSettings
from napari_rvae.widgets.parts import asked_folder
from napari_rvae.widgets.pictures import Picture
from napari_rvae.widgets.training_job import TrainingInputs, found_with

if TYPE_CHECKING:
    from napari_rvae.widgets.jobs import Job
    from napari_rvae.widgets.train import TrainWidget
    from napari_rvae.workflows import AverageResult

_MOST_SHOWN = 10
_IN_A_ROW = 5


class AveragesPanel(QWidget):
    """Buttons that average without training and save what came out, and the averages with their number of members.

    Parameters
    ----------
    dock : TrainWidget
        Whose atoms, settings and row of work are used.
    """

    def __init__(self, dock: TrainWidget) -> None:
        super().__init__()
        self._dock = dock
        self.result: AverageResult | None = None
        self._shown: Any = None
        self.button, self.save_button = QPushButton("Only average"), QPushButton("Save averages...")
        self.button.setToolTip(
            "<p>Sort the patches into kinds, turned and moved onto each other, without training: kind, angle and "
            "offset of every atom in seconds.</p>"
        )
        self.save_button.setToolTip("<p>The averages as TIFF, the table, the recipe and a picture, into a folder.</p>")
        self.button.clicked.connect(self.average)
        self.save_button.clicked.connect(self.ask_and_save)
        self.strip = QWidget()
        self.strip.setToolTip("<p>Patches that are alike, turned and moved onto each other, and averaged.</p>")
        self._grid = QGridLayout(self.strip)
        self._grid.setContentsMargins(0, 0, 0, 0)
        self._grid.setHorizontalSpacing(4)
        layout, row = QVBoxLayout(self), QHBoxLayout()
        layout.setContentsMargins(0, 0, 0, 0)
        for button in (self.button, self.save_button):
            row.addWidget(button)
        layout.addLayout(row)
        layout.addWidget(self.strip)
        self.show_averages(None)

    def watch(self) -> None:
        """Be idle while the dock works."""
        for button in (self.button, self.save_button):
            button.setEnabled(not self._dock.work.working)

    def average(self) -> None:
        """Sort the patches of the chosen atoms into class averages."""
        dock = self._dock
        try:
            image, points, atoms, where = dock.chosen()
            source = image_source(image, dock.channels.layers)
            patch, training = dock.form.value(PatchSettings), dock.form.value(TrainSettings)
        except RVAEError as error:
            dock.work.fail(error)
            return
        find, more = found_with(points), dock.channels.layers
        inputs = TrainingInputs(image, points, source, atoms, where, find, patch, training, more=more)

        def step(job: Job) -> AverageResult:
            from napari_rvae.workflows import average_image

            how = first_step_of(training)
            return average_image(
                hashed(source), find, patch, how, atoms=atoms, where=where, progress=job.progress, stop=job.stop
            )

        dock.work.run("Averaging alike patches", step, partial(self._on_averaged, inputs))

    def _on_averaged(self, inputs: TrainingInputs, result: AverageResult) -> None:
        self.show_averages(result.averages, result)
        recipe = result.recipe.model_dump(mode="json", exclude={"atoms"})
        self._dock.show_results(inputs, result.table, recipe, None)()

    def ask_and_save(self) -> None:
        """Ask for a folder and save the averages there."""
        from napari_rvae.workflows.averaging import AVERAGE_FILES

        if asked := asked_folder(self, "Folder for the averages", AVERAGE_FILES):
            self.save(*asked)

    def save(self, folder: str | Path, force: bool = False) -> None:
        """Save the averages that are shown.

        Parameters
        ----------
        folder : str or Path
            Where to.
        force : bool
            Replace what is there.
        """
        result = self.result
        if result is None:
            return

        def step(_: Job) -> None:
            result.save(folder, force)

        self._dock.work.run("Saving averages", step, lambda _: self._dock.work.say(f"Saved in {folder}.", True))

    def show_averages(self, averages: Any, result: AverageResult | None = None) -> None:
        """Show class averages.

        Parameters
        ----------
        averages : Averages or None
            None shows nothing.
        result : AverageResult, optional
            What can be saved.
        """
        self.result = result
        self.save_button.setVisible(result is not None)
        self.strip.setVisible(averages is not None)
        if averages is self._shown:
            return
        self._shown = averages
        while (item := self._grid.takeAt(0)) is not None:
            widget = item.widget()
            if widget is not None:
                widget.deleteLater()
        if averages is None:
            return
        channels = averages.images.shape[1]  # beside each other
        columns = max(1, _IN_A_ROW // channels)
        kinds = zip(averages.images, averages.counts, averages.symmetry, strict=True)
        for place, (image, count, symmetry) in enumerate(kinds):
            if place == _MOST_SHOWN:
                break
            picture, label = Picture(), QLabel(f"{count:,}")
            picture.setFixedSize(54 * min(channels, _IN_A_ROW), 54)
            picture.show_array(np.hstack(list(image)))
            picture.setToolTip(f"<p>Kind {place}: {count:,} patches, {symmetry}-fold.</p>")
            label.setAlignment(Qt.AlignmentFlag.AlignHCenter)
            row, column = divmod(place, columns)
            self._grid.addWidget(picture, 2 * row, column)
            self._grid.addWidget(label, 2 * row + 1, column)
        if left := averages.counts[_MOST_SHOWN:].sum():
            more = QLabel(f"and {len(averages.counts) - _MOST_SHOWN} more kinds, {left:,} patches")
            self._grid.addWidget(more, self._grid.rowCount(), 0, 1, columns)
        for column in range(1, _IN_A_ROW + 1):
            self._grid.setColumnStretch(column, int(column == columns))
