"""The learned finder in the Find atoms dock: its file, and its training on corrected points or simulated images."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.layers import Points
from qtpy.QtWidgets import QFileDialog, QHBoxLayout, QLineEdit, QPushButton, QVBoxLayout, QWidget
from superqt import QCollapsible

from napari_rvae.errors import InputDataError, RVAEError
from napari_rvae.layers import atoms_table, image_data, image_of, region_mask
from napari_rvae.settings import FinderSettings
from napari_rvae.widgets.jobs import Job
from napari_rvae.widgets.parts import LayerBox
from napari_rvae.widgets.settings_form import Control, SettingsForm
from napari_rvae.widgets.work import WorkRow

if TYPE_CHECKING:
    from napari_rvae.models.finder import LearnedFinder
    from napari_rvae.training.finder import Example, FinderReport
    from napari_rvae.widgets.find import FindWidget

_FILTER = "Finders (*.safetensors)"
_CURVES = {"learned from": "#56B4E9", "held out": "#E69F00"}


class FinderFile(Control):
    """The file of a finder, typed or chosen."""

    def __init__(self) -> None:
        super().__init__()
        self.widget = QWidget()
        self._line = QLineEdit()
        self._line.setPlaceholderText("none chosen")
        self._line.editingFinished.connect(self.changed)
        self.button = QPushButton("...")
        self.button.setFixedWidth(28)
        self.button.clicked.connect(self._ask)
        row = QHBoxLayout(self.widget)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self._line, 1)
        row.addWidget(self.button)

    def value(self) -> Any:
        """Return the file, None for none."""
        return self._line.text().strip() or None

    def set_value(self, value: Any) -> None:
        """Show a file."""
        self._line.setText(value or "")
        self._line.setCursorPosition(len(value or ""))
        self.changed.emit()

    def _ask(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self.widget, "Choose a finder", self.value() or "", _FILTER)
        if path:
            self.set_value(path)


class FinderCurve(QWidget):
    """Loss of what is learned from and of what is held out, over the steps."""

    def __init__(self) -> None:
        super().__init__()
        self.setFixedHeight(120)
        self.setToolTip("<p>Cross-entropy per pixel. Training is done when the held-out curve falls no more.</p>")
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self._curves: list[Any] = []  # made when there is something to draw: it takes a while
        self.setVisible(False)
        self.restart()

    def restart(self) -> None:
        """Forget the curves."""
        self.reports: list[tuple[int, float, float]] = []

    def add(self, report: FinderReport) -> None:
        """Go on with the curves."""
        self.reports.append((report.step, report.loss, report.held_out))
        if not self._curves:
            self._make_plot()
        self.setVisible(True)
        steps, *losses = zip(*self.reports, strict=True)
        for curve, values in zip(self._curves, losses, strict=True):
            curve.setData(steps, values)

    def _make_plot(self) -> None:
        import pyqtgraph as pg

        plot = pg.PlotWidget(background=None)
        plot.setLabel("bottom", "step")
        plot.setLabel("left", "loss")
        plot.getAxis("left").enableAutoSIPrefix(False)
        plot.hideButtons()
        plot.setMenuEnabled(False)
        menu = plot.getPlotItem().ctrlMenu
        menu.setParent(plot, menu.windowFlags())  # it would outlive the plot
        plot.addLegend(offset=(-5, 5))
        self._curves = [plot.plot(pen=pg.mkPen(color, width=2), name=name) for name, color in _CURVES.items()]
        self.layout().addWidget(plot)


class FinderPanel(QCollapsible):
    """Train a finder and use it.

    Parameters
    ----------
    dock : FindWidget
        Whose viewer and region are used, and which then searches with the finder.
    """

    def __init__(self, dock: FindWidget) -> None:
        super().__init__("Train a finder")
        self._dock = dock
        content = QWidget()
        rows = QVBoxLayout(content)
        rows.setContentsMargins(0, 0, 0, 0)
        self.points_box = LayerBox(dock, Points, "no points: simulated images only", optional=True)
        self.points_box.setToolTip(
            "<p>Points that you have corrected: all atoms of their image, or of the region that is chosen above.</p>"
        )
        rows.addWidget(self.points_box)
        self.form = SettingsForm(FinderSettings)
        rows.addWidget(self.form)
        self.work = WorkRow("Train finder...", "Stop and keep")
        self.work.start_clicked.connect(self.ask_and_train)
        rows.addWidget(self.work)
        self.curve = FinderCurve()
        rows.addWidget(self.curve)
        self.addWidget(content)
        if (inner := self.layout()) is not None:
            inner.setContentsMargins(0, 0, 0, 0)
        self.collapse(animate=False)

    def ask_and_train(self) -> None:
        """Ask where the finder is to be kept, and train it."""
        try:
            examples, settings = self._examples(), self.form.value(FinderSettings)
            if not examples and settings.specimen == "none":
                raise InputDataError("There is nothing to learn from: choose points or a specimen.")
        except RVAEError as error:
            self.work.fail(error)
            return
        path, _ = QFileDialog.getSaveFileName(self, "Keep the finder as", "finder.safetensors", _FILTER)
        if not path:
            return
        file = Path(path)
        if file.suffix.lower() != ".safetensors":
            file = file.with_name(f"{file.name}.safetensors")
            if file.exists():  # of which the dialog knew nothing
                self.work.fail(InputDataError(f"{file.name} is there already: choose it, or another name."))
                return
        self.curve.restart()
        self.work.run("Training a finder", partial(_train, examples, settings, file), self._on_trained, self.curve.add)

    def _examples(self) -> list[Example]:
        """What was corrected by hand, frame by frame."""
        from napari_rvae.training.finder import examples_of

        points = self.points_box.layer
        if points is None:
            return []
        image = image_of(points) or self._dock.image_box.layer
        if image is None:
            raise InputDataError("There is no image to which the points belong: open it first.")
        drawn = self._dock.region_box.layer
        region = None if drawn is None else region_mask(drawn, image)
        return examples_of(image_data(image), atoms_table(points, image), region)

    def _on_trained(self, trained: tuple[Path, LearnedFinder, float]) -> None:
        file, _, score = trained
        self._dock.preview.forget()  # its name may be that of an earlier one
        self._dock.form.controls["search"].set_value("learned")
        self._dock.form.controls["finder"].set_value(str(file))
        self.work.say(f"{file.name}: F1 {score:.3f} on what it was not shown. Find atoms now uses it.")


def _train(
    examples: list[Example], settings: FinderSettings, file: Path, job: Job
) -> tuple[Path, LearnedFinder, float]:
    """Train in a thread, and keep the finder where the user wants it."""
    from napari_rvae.training.finder import train_finder

    for report in train_finder(examples, settings, stop=job.stop, keep=job.finishing_early):
        job.report(report)
        job.progress(report.step / report.steps, f"loss {report.loss:.4f}", report.seconds_left)
    if report.finder is None:
        raise InputDataError("The training ended without a finder.")
    report.finder.save(file)
    return file, report.finder, report.score
