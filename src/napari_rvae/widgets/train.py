"""The Train rVAE dock: an image and its atoms in, a model and results on every atom out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import pandas as pd
from napari.layers import Image, Points
from napari.utils.notifications import show_info, show_warning
from qtpy.QtCore import QTimer, Signal
from qtpy.QtGui import QShowEvent
from qtpy.QtWidgets import QCheckBox, QDockWidget, QLabel

from napari_rvae.errors import InputDataError, RVAEError
from napari_rvae.layers import RECIPE, atoms_table, events, image_of, image_source, pixel_size
from napari_rvae.layers.preferences import preferences
from napari_rvae.settings import INVARIANCES, PatchSettings, TrainSettings
from napari_rvae.widgets.atoms_choice import SELECTED, AtomsChoice
from napari_rvae.widgets.averages import AveragesPanel
from napari_rvae.widgets.channels import MoreChannels
from napari_rvae.widgets.device import DeviceControl, devices_here
from napari_rvae.widgets.given_columns import CleanBox, GivenColumns
from napari_rvae.widgets.jobs import Latest
from napari_rvae.widgets.joint_panel import JointPanel
from napari_rvae.widgets.live import LiveLook
from napari_rvae.widgets.model_files import ModelFiles
from napari_rvae.widgets.outcome import brought_back, color_results, put_results
from napari_rvae.widgets.parts import Dock, LayerBox, is_derived
from napari_rvae.widgets.patch_cursor import PatchCursor, size_for
from napari_rvae.widgets.results_panel import ResultsPanel
from napari_rvae.widgets.resume import ResumeRow
from napari_rvae.widgets.settings_form import Control, SettingsForm, Several, wide_form
from napari_rvae.widgets.train_view import LossCurve
from napari_rvae.widgets.training_job import Run, TrainingInputs, found_with, trained_in_thread
from napari_rvae.widgets.work import State, WorkRow

if TYPE_CHECKING:
    from napari.viewer import Viewer

    from napari_rvae.workflows import Analysis
    from napari_rvae.workflows.interrupted import Inputs, KeptTraining

_SEEN = 200  # ms
_BREATH = 20  # ms in which the window answers before what follows from a change is shown
_SQUARE = 0.01  # pixels whose sides differ by less count as square


class TrainWidget(Dock):
    """Train a model on the patches around atoms, and show what it says about each of them.

    Parameters
    ----------
    napari_viewer : Viewer
        Whose layers are used.
    """

    trained = Signal(object)  # the points layer that has results

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__(napari_viewer)
        self.analysis: Analysis | None = None
        self._preferred = preferences()
        self.cache = self._preferred.cache  # where trainings are kept for a crash; None is the user's cache
        self._points: Points | None = None
        self._run: Run | None = None  # the training that is running
        self._settled: Run | None = None  # one that was stopped and whose results follow
        self._devices, self._sizes = Latest(self), Latest(self)
        self._size: int | None = None  # of a patch, where none is set
        self._asked: Any = ...  # the invariances for which it was asked for
        self._shown = QTimer(self)
        self._shown.setSingleShot(True)
        self._shown.setInterval(_SEEN)
        self._shown.timeout.connect(self._find_devices)
        self._soon = QTimer(self)
        self._soon.setSingleShot(True)
        self._soon.setInterval(_BREATH)
        self._soon.timeout.connect(self._refresh)
        self._build_input()
        self._build_settings()
        self._build_training()
        self._build_results()
        self.rows.addStretch(1)
        self.listen(self.viewer.layers.selection.events.active, self._on_active)
        self.listen(events.colored, self.results.on_colored)
        self._on_active()
        self._on_points(self.points_box.layer)

    # Layout -----------------------------------------------------------------------------------------------------------

    def _build_input(self) -> None:
        self.image_box = LayerBox(self, Image, "open an image first")
        self.points_box = LayerBox(self, Points, "find atoms first")
        self.image_box.layer_changed.connect(self._on_moved)
        self.points_box.layer_changed.connect(self._on_points)
        self.choice = AtomsChoice(self)
        self.choice.changed.connect(self._later)
        self.pixels, self.device_label = QLabel(), QLabel()
        for label in (self.pixels, self.device_label):
            label.setWordWrap(True)
        form = wide_form()
        form.addRow("Image", self.image_box)
        form.addRow("Atoms", self.points_box)
        form.addRow("Use", self.choice)
        self.rows.addLayout(form)
        self.rows.addWidget(self.pixels)

    def _build_settings(self) -> None:
        self.heading("Patches and model")
        self.device = DeviceControl()
        self.invariance = Several(INVARIANCES, optional=True)
        self.given = GivenColumns()
        controls: dict[str, Control] = {"device": self.device, "invariance": self.invariance, **self.given.controls}
        folded = ("invariance", "early_stopping", "members", "seed")
        self.form = SettingsForm(PatchSettings, TrainSettings, controls=controls, folded=folded)
        self.clean_box = CleanBox(self, self.image_box)
        self.form.add_folded("Clean image (optional)", self.clean_box)
        self.form.reset_button.clicked.connect(self._prefer)
        self._prefer()
        self.form.rename("size", "Patch size")
        self.form.rename("latent", "Latent dimensions")
        self.form.changed.connect(self._later)
        self.channels = MoreChannels(self)
        self.form.folded.addWidget(self.channels)
        self.cursor_box = QCheckBox("Show the patch under the cursor")
        self.cursor_box.setToolTip("<p>Square: the patch. Circle: what the model sees, whatever the rotation.</p>")
        self.cursor_box.setChecked(True)
        self.cursor_box.toggled.connect(self._later)
        self.patch_cursor = PatchCursor(self.viewer, self)
        self.joint = JointPanel(self)
        for widget in (self.form, self.joint, self.cursor_box):
            self.rows.addWidget(widget)

    def _build_training(self) -> None:
        self.settling = WorkRow("")
        self.settling.cancel_button.setText("Keep only the model")
        self.settling.cancel_button.setToolTip("<p>Do without its results; it can be applied to the atoms later.</p>")
        self.settling.done.connect(self._on_settled)
        self.settling.hide()
        self.work = WorkRow("Train", "Stop and keep", heir=self.settling)
        self.work.keep_button.setToolTip(
            "<p>End the training now and use what was learned so far: its results on all atoms follow.</p>"
        )
        self.work.cancel_button.setToolTip("<p>Give up; the atoms stay as they were.</p>")
        self.work.start_clicked.connect(self.train)
        self.work.state_changed.connect(self._later)
        self.work.handed_over.connect(self._on_handed_over)
        self.work.done.connect(self._on_done)
        self.resume_row = ResumeRow(self.work)
        self.resume_row.resumed.connect(self.resume)
        self.averages = AveragesPanel(self)
        self.curve = LossCurve()
        self.live = LiveLook(self.viewer)
        for widget in (self.device_label, self.resume_row, self.work, self.averages, self.curve, self.live):
            self.rows.addWidget(widget)
        self.points_box.layer_changed.connect(self.work.turn_away)

    def _build_results(self) -> None:
        self.heading("Results on the atoms")
        self.results = ResultsPanel(self)
        self.files = ModelFiles(self)
        for widget in (self.settling, self.results, self.files):
            self.rows.addWidget(widget)

    def showEvent(self, event: QShowEvent | None) -> None:
        """Wait for the moment when the dock is really seen: it may be put behind another one."""
        super().showEvent(event)
        around = self.parent()
        while around is not None and not isinstance(around, QDockWidget):
            around = around.parent()
        if around is not None:
            around.visibilityChanged.connect(self._seen)
        self._seen()

    def _seen(self, _: bool = True) -> None:
        self._shown.start()

    def _find_devices(self) -> None:
        """Look for devices; not earlier, for PyTorch takes seconds to load, and many more while atoms are sought."""
        if not self.visibleRegion().isEmpty():
            self._look_around()

    def _look_around(self) -> None:
        """Look for what may have changed: the free memory of devices, and trainings that were interrupted."""
        self._devices.request(devices_here, self._on_devices)
        self.resume_row.look(self.cache)

    def _on_devices(self, devices: list[Any]) -> None:
        first = not self.device.devices
        self.device.set_devices(devices)
        if first and self.device.value() == "auto":
            self.device.set_value(self._preferred.device)

    def _prefer(self) -> None:
        """Begin with what stands in napari's preferences, and no clean image."""
        self.clean_box.choose_source(None)
        self.device.set_value(self._preferred.device)
        if self._preferred.threads is not None:
            self.form.controls["threads"].set_value(self._preferred.threads)

    def closed(self) -> None:
        """Let go of the viewer; training that is running is cancelled."""
        super().closed()
        self._listen_to(None)
        self._soon.stop()
        self._shown.stop()
        self.work.leave()
        self.settling.leave()
        self.live.end()
        self.patch_cursor.close()
        for latest in (self._devices, self._sizes, self.results.recolored, self.resume_row.latest):
            latest.forget()

    # Input ------------------------------------------------------------------------------------------------------------

    def _later(self, _: Any = None) -> None:
        self._soon.start()

    def _on_active(self, _: Any = None) -> None:
        """Follow the user to another layer, as long as nothing is running."""
        active = self.viewer.layers.selection.active
        others = (None, self.clean_box.layer, *self.channels.layers)
        if not (self.work.working or active in others or is_derived(active)):
            self.points_box.choose(active)
            self.image_box.choose(image_of(active) if isinstance(active, Points) else active)

    def _on_points(self, points: Points | None) -> None:
        self._listen_to(points)
        if points is not None:
            self.image_box.choose(image_of(points))
        self._on_moved()

    def _listen_to(self, points: Points | None) -> None:
        """Hear of the edits of one layer only."""
        if self._points is not None:
            self._points.events.data.disconnect(self._on_moved)
            self._points.events.features.disconnect(self._later)
            self._points.selected_data.events.items_changed.disconnect(self._on_selection)
        self._points = points
        if points is not None:
            points.events.data.connect(self._on_moved)
            points.events.features.connect(self._later)
            points.selected_data.events.items_changed.connect(self._on_selection)

    def _on_selection(self, *_: Any) -> None:
        if self.choice.mode == SELECTED:
            self._later()

    def _on_moved(self, _: Any = None) -> None:
        self._size, self._asked = None, ...
        self._later()

    def _on_size(self, size: int | None) -> None:
        self._size = size
        self._later()

    def _refresh(self) -> None:
        """Show what follows from layers and settings: counts, the patch under the cursor, what can be done."""
        image, points = self.image_box.layer, self.points_box.layer
        table, count = None, 0
        try:
            if points is not None:
                table = atoms_table(points, image)
        except RVAEError as error:
            self.choice.count.setText(str(error))
        else:
            self.choice.set_table(table)
            count = self.choice.show_count(points, table)
        model = TrainSettings(model=self.form.controls["model"].value())
        self.given.show_in(self.form, model.family, table)
        self.joint.watch(model.family)
        self.averages.watch()
        self.invariance.set_implied(model.invariances)
        self.device_label.setText(self.device.in_words(count))
        self._show_pixels(image)
        self._show_cursor(image, table)
        self.results.watch(points)
        self.files.refresh()

    def _show_pixels(self, image: Image | None) -> None:
        (height, width), unit = pixel_size(image) if image is not None else ((1.0, 1.0), "")
        self.pixels.setVisible(abs(height / width - 1) > _SQUARE)
        text = f"Pixels are {height:.3g} x {width:.3g} {unit or 'units'}: patches are cut on a square physical grid."
        self.pixels.setText(text)

    def _show_cursor(self, image: Image | None, table: pd.DataFrame | None) -> None:
        if self._asked != self.invariance.value() and image is not None and table is not None:
            self._asked = self.invariance.value()
            self._sizes.request(partial(size_for, table, image, self._asked or ()), self._on_size)
        self.form.set_estimates({"size": self._size})
        half = (self.form.controls["size"].value() or self._size or 0) / 2
        if image is None or table is None or not half or not self.cursor_box.isChecked():
            self.patch_cursor.watch(None, [], (0, 0))
            return
        (height, width), _ = pixel_size(image)
        down = half * width / height if abs(height / width - 1) > _SQUARE else half
        columns = ["frame", "y", "x"] if image.ndim == 3 else ["y", "x"]
        self.patch_cursor.watch(image, table[columns].to_numpy(float), (down, half))

    def chosen(self) -> tuple[Image, Points, pd.DataFrame, str | None]:
        """Return the layers, the atoms table and the expression that chooses from it.

        Raises
        ------
        InputDataError
            If something is missing.
        """
        image, points = self.image_box.layer, self.points_box.layer
        if image is None:
            raise InputDataError("There is no image: open the one on which the atoms were found.")
        if points is None:
            raise InputDataError(
                "There are no atoms: find them with Plugins > rVAE > Find atoms, or add a points layer."
            )
        return image, points, *self.choice.chosen_atoms(points, atoms_table(points, image))

    # Training ---------------------------------------------------------------------------------------------------------

    def train(self) -> None:
        """Cut patches, train a model and encode every chosen atom."""
        try:
            image, points, atoms, where = self.chosen()
            source, clean = image_source(image, self.channels.layers), self.clean_box.source
            patch, training = self.form.value(PatchSettings), self.form.value(TrainSettings)
            if training.family == "joint" and not training.classes:
                raise InputDataError(f"{training.model} needs to know the number of classes: set Classes.")
        except RVAEError as error:
            self.work.fail(error)
            return
        settings = found_with(points), patch, training
        self._train(TrainingInputs(image, points, source, atoms, where, *settings, clean, self.channels.layers))

    def resume(self, kept: KeptTraining) -> None:
        """Go on with a training that was interrupted, on its own image and atoms."""
        self._train(None, kept)

    def _train(self, inputs: TrainingInputs | None, kept: KeptTraining | None = None) -> None:
        self.curve.restart()
        self.averages.show_averages(None)
        if inputs is not None:
            self.live.begin(inputs.points)
        self._run = run = Run(inputs)
        job = partial(trained_in_thread, inputs, kept, self.cache)
        on_trained, on_report = partial(self._on_trained, run), partial(self._on_report, run)
        self.work.run("Training", job, on_trained, on_report, prepares=True, waits=False)

    def _on_report(self, run: Run, report: Any) -> None:
        from napari_rvae.models import Model
        from napari_rvae.workflows.interrupted import Inputs

        if isinstance(report, Model):
            run.model = report
            self.work.settles(run is self._run)
        elif isinstance(report, Inputs):
            run.inputs = self._resumed(report)
        elif run is self._run:  # else what is seen here is the next training
            self.curve.add(report)
            if report.phase == "training":
                self.work.begin()
            if report.averages is not None and report.member == 1:  # who learns from all atoms
                self.averages.show_averages(report.averages)
            if report.look is not None and run.inputs is not None:
                self.live.show_look(report.look, run.inputs.points)
            self.work.settles(report.phase in ("finishing", "done"))

    def _resumed(self, given: Inputs) -> TrainingInputs:
        """Show what an interrupted training is about."""
        inputs = brought_back(self.viewer, given)
        for settings in (given.patch, given.training):
            self.form.set_value(settings)
        self.points_box.choose(inputs.points)
        self.image_box.choose(inputs.image)
        self.clean_box.choose_source(given.clean)
        self.channels.choose(inputs.more)
        self.live.begin(inputs.points)
        return inputs

    def _on_handed_over(self) -> None:
        """Be ready for something else; atoms show what the model knew last until its results are there."""
        run, self._run = self._run, None
        if run is not None and run.inputs is not None:
            run.recipe = run.inputs.points.metadata.get(RECIPE)
        self._settled, self.files.loaded = run, None
        self.settling.show()
        self.work.say("Stopped, and the model is kept. Its results on all atoms follow below; go on meanwhile.")

    def _on_settled(self) -> None:
        run, self._settled = self._settled, None
        if run is not None and run.model is not None and self.settling.state is State.READY:
            self.files.loaded = run.model
            self.files.refresh()
            self._say("The model is kept: Model > Apply to the chosen atoms gives its results.", behind=True)
        self.settling.setVisible(self.settling.state is State.FAILED)
        self.live.end()
        self._look_around()

    def _on_done(self) -> None:
        if self._run is not None and not self.settling.working:  # else the last look at another one is shown
            self.live.end()
        self._run = None
        self._look_around()

    def _on_trained(self, run: Run, analysis: Analysis) -> Callable[[], None] | None:
        self.analysis = analysis
        self.files.remember(analysis, behind=run is self._settled)
        if (inputs := run.inputs) is None:
            return None
        recipe = analysis.recipe.model_dump(mode="json", exclude={"atoms"})
        notes, behind = analysis.recipe.used.get("notes", []), run if run is self._settled else None
        return self.show_results(inputs, analysis.table, recipe, analysis.model, notes, behind)

    def show_results(
        self,
        inputs: TrainingInputs,
        table: pd.DataFrame,
        recipe: Any,
        model: Any,
        notes: Sequence[str] = (),
        behind: Run | None = None,
    ) -> Callable[[], None]:
        """Write results onto their atoms, see `put_results`; what is returned shows them.

        Parameters
        ----------
        inputs, table, recipe, model
            As for `put_results`.
        notes : sequence of str
            What went otherwise than was asked for.
        behind : Run, optional
            The user went on meanwhile: the dock turns to these atoms only if it shows them still.
        """
        follow = behind is None or self.points_box.layer is inputs.points or inputs.points not in self.viewer.layers
        points, words = put_results(self.viewer, inputs, table, recipe, model, behind)
        return partial(self._show_results, points, words, notes, follow, behind is not None)

    def _show_results(self, points: Points, words: str, notes: Sequence[str], follow: bool, behind: bool) -> None:
        color_results(points)
        if follow:
            self.points_box.choose(points)
            self.results.watch(points)
        self._say(" ".join([words, *notes]), behind)
        if notes:
            show_warning(" ".join(notes))
        self.files.refresh()
        self.trained.emit(points)

    def _say(self, text: str, behind: bool) -> None:
        (show_info if behind and self.work.working else self.work.say)(text)
