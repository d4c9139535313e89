"""A model applied to all images of a folder: a table of files, progress, cancel, a summary at the end."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QCheckBox,
    QDialog,
    QFileDialog,
    QHeaderView,
    QLabel,
    QPushButton,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_rvae.errors import RVAEError
from napari_rvae.settings import FindSettings
from napari_rvae.widgets.jobs import Job
from napari_rvae.widgets.work import WorkRow

if TYPE_CHECKING:
    import pandas as pd

_COLUMNS = ("Image", "State", "Atoms")


class BatchDialog(QDialog):
    """Apply a model to a folder.

    Parameters
    ----------
    parent : QWidget
        Whose window it belongs to.
    model : Model
        A trained model.
    find : FindSettings
        How atoms are found.
    """

    def __init__(self, parent: QWidget, model: Any, find: FindSettings) -> None:
        super().__init__(parent)
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.setWindowTitle("Apply the model to a folder")
        self.resize(620, 440)
        self._model, self._find = model, find
        self.files: list[Path] = []
        self.output: Path | None = None
        self.folder_button = QPushButton("Images: choose a folder...")
        self.folder_button.clicked.connect(self._ask_folder)
        self.output_button = QPushButton("Tables: choose a folder...")
        self.output_button.setToolTip("<p>Gets one table per image, and summary.csv.</p>")
        self.output_button.clicked.connect(self._ask_output)
        self.replace_box = QCheckBox("Replace what is there")
        self.replace_box.setToolTip("<p>Tables of the same names, and summary.csv; without it they are kept.</p>")
        self.table = QTableWidget(0, len(_COLUMNS))
        self.table.setHorizontalHeaderLabels(_COLUMNS)
        self.table.setEditTriggers(QTableWidget.EditTrigger.NoEditTriggers)
        header = self.table.horizontalHeader()
        if header is not None:
            header.setSectionResizeMode(1, QHeaderView.ResizeMode.Stretch)
        self.work = WorkRow("Apply")
        self.work.start_clicked.connect(self.start)
        self.work.done.connect(self._on_end)
        self.summary = QLabel()
        self.summary.setWordWrap(True)
        layout = QVBoxLayout(self)
        for widget in (self.folder_button, self.output_button, self.replace_box, self.table, self.work, self.summary):
            layout.addWidget(widget)

    def _ask_folder(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Folder with images")
        if folder:
            self.choose_folder(folder)

    def _ask_output(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Folder for the tables")
        if folder:
            self.choose_output(folder)

    def choose_folder(self, folder: str | Path) -> None:
        """List the images of a folder.

        Parameters
        ----------
        folder : str or Path
            The folder.
        """
        from napari_rvae.workflows.applying import image_files

        try:
            self.files = image_files([folder])
        except RVAEError as error:
            self.work.fail(error)
            return
        self.folder_button.setText(f"Images: {len(self.files)} in {folder}")
        self.table.setRowCount(len(self.files))
        for row, file in enumerate(self.files):
            self._fill(row, file.name, "", "")
        self.table.resizeColumnToContents(0)
        self.work.say("")

    def choose_output(self, folder: str | Path) -> None:
        """Choose where the tables are written.

        Parameters
        ----------
        folder : str or Path
            The folder.
        """
        self.output = Path(folder)
        self.output_button.setText(f"Tables: {folder}")

    def start(self) -> None:
        """Apply the model to one image after the other."""
        if not self.files or self.output is None:
            self.work.say("Choose a folder with images and one for the tables.")
            return
        self.summary.setText("")
        files, output, model, find = self.files, self.output, self._model, self._find
        force = self.replace_box.isChecked()

        def step(job: Job) -> None:
            from napari_rvae.workflows.applying import apply_to_files

            asked: dict[str, Any] = {"progress": job.progress, "stop": job.stop, "report": partial(_told, job)}
            job.report(apply_to_files(model, files, output, find, force=force, **asked))

        self.work.run("Applying the model", step, lambda _: None, self._on_report)

    def _on_report(self, report: Any) -> None:
        if not isinstance(report, tuple):
            self._show_summary(report)
            return
        row, one = report
        self._fill(row, Path(one.file).name, one.error or one.note or one.state, f"{one.encoded:,} of {one.atoms:,}")
        self.table.scrollToItem(self.table.item(row, 0))

    def _show_summary(self, summary: pd.DataFrame) -> None:
        """Say what was done, also before it was cancelled."""
        for row in np.flatnonzero(summary["state"] == "not done"):
            self._fill(int(row), self.files[row].name, "not done", "")
        count = summary["state"].value_counts()
        words = [f"{count[state]} {state}" for state in ("done", "failed", "not done") if state in count]
        atoms = int(summary["encoded"].sum())
        self.summary.setText(f"{', '.join(words)}; {atoms:,} atoms have latents. See summary.csv in {self.output}.")

    def _on_end(self) -> None:
        if self.summary.text():
            self.work.say("")  # the summary says it

    def _fill(self, row: int, *texts: str) -> None:
        for column, text in enumerate(texts):
            item = QTableWidgetItem(text)
            item.setToolTip(text)
            self.table.setItem(row, column, item)

    def done(self, result: int) -> None:
        """Close; what is being done is cancelled."""
        self.work.cancel()
        super().done(result)


def _told(job: Job, number: int, applied: Any) -> None:
    job.report((number, applied))
