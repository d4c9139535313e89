"""Models and results on disk: save, load, apply."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
from qtpy.QtWidgets import QFileDialog, QHBoxLayout, QMenu, QPushButton, QWidget

from napari_rvae.errors import RVAEError
from napari_rvae.layers import (
    RECIPE,
    add_atoms,
    add_image,
    atoms_table,
    hashed,
    image_of,
    image_source,
    is_result,
    model_of,
    source_of,
)
from napari_rvae.settings import FindSettings
from napari_rvae.widgets.batch import BatchDialog
from napari_rvae.widgets.parts import asked_folder, show_alone
from napari_rvae.widgets.training_job import TrainingInputs, found_with

if TYPE_CHECKING:
    from napari.layers import Image, Points

    from napari_rvae.models import Model
    from napari_rvae.widgets.jobs import Job
    from napari_rvae.widgets.train import TrainWidget
    from napari_rvae.workflows import Analysis

_FILTER = "rVAE models (*.safetensors)"
_SAVES = "Table, model, recipe, cells and a picture, in a folder of your choice."


class ModelFiles(QWidget):
    """Save results, save and load models, apply a loaded model to the chosen atoms.

    Parameters
    ----------
    dock : TrainWidget
        Whose layers and worker are used.
    """

    def __init__(self, dock: TrainWidget) -> None:
        super().__init__()
        self._dock = dock
        self.loaded: Any = None
        self._analyses: WeakKeyDictionary[Model, dict[str, Any]] = WeakKeyDictionary()  # all but the models
        self.save_button = QPushButton("Save results...")
        self.save_button.clicked.connect(self.ask_and_save_results)
        self.model_button = QPushButton("Model")
        self.model_button.setToolTip("<p>Save the model, load one, or apply it to the chosen atoms.</p>")
        menu = QMenu(self)
        self.save_action = menu.addAction("Save model...", self.ask_and_save_model)
        self.load_action = menu.addAction("Load model...", self.ask_and_load_model)
        self.apply_action = menu.addAction("Apply to the chosen atoms", self.apply)
        self.other_action = menu.addAction("Apply to another image...", self.ask_and_apply_to_image)
        self.folder_action = menu.addAction("Apply to a folder...", self.ask_and_apply_to_folder)
        self.model_button.setMenu(menu)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.save_button)
        row.addWidget(self.model_button)

    @property
    def model(self) -> Any:
        """The model loaded last, else that of the chosen atoms."""
        points = self._dock.points_box.layer
        return self.loaded if self.loaded is not None or points is None else model_of(points)

    def remember(self, analysis: Analysis, behind: bool) -> None:
        """Let results be saved as long as some atoms have them, or could have them back by undoing.

        Parameters
        ----------
        analysis : Analysis
            Of a training in this window.
        behind : bool
            The user went on meanwhile, perhaps with a model that was loaded.
        """
        self.loaded = self.loaded if behind else None
        few = replace(analysis.patches.select(np.arange(0)), cut=None)  # they may be large, and are not saved
        self._analyses[analysis.model] = {**vars(analysis), "patches": few, "model": None}

    def refresh(self) -> None:
        """Offer what can be done."""
        points, idle = self._dock.points_box.layer, not self._dock.work.working
        why_not = self._why_not_saved()
        self.save_button.setEnabled(idle and not why_not)
        self.save_button.setToolTip(f"<p>{why_not or _SAVES}</p>")
        self.save_action.setEnabled(idle and self.model is not None)
        self.load_action.setEnabled(idle)
        self.apply_action.setEnabled(idle and self.model is not None and points is not None)
        for action in (self.other_action, self.folder_action):
            action.setEnabled(idle and self.model is not None)

    def _why_not_saved(self) -> str:
        """Say why the results that are shown cannot be saved with all that belongs to them; empty if they can."""
        points = self._dock.points_box.layer
        model = None if points is None else model_of(points)
        if points is None or model is None:
            return "There are no results to save yet: train a model."
        if self._trained_here(points) is not None:
            return ""
        if not isinstance(points.metadata.get(RECIPE), dict):
            why = "It is not known how these results were made."
        elif self._image_of(points) not in self._dock.viewer.layers:
            why = "The image of these results is not open."
        else:
            return ""
        return f"{why} Save the table with Explore latent space > More, and the model with Model > Save model."

    def _image_of(self, points: Points) -> Image | None:
        return image_of(points) or self._dock.image_box.layer

    def _trained_here(self, points: Points) -> dict[str, Any] | None:
        """What is remembered of the training that made results; None if they were opened, or of an applied model."""
        recipe, model = points.metadata.get(RECIPE), model_of(points)
        applied = isinstance(recipe, dict) and recipe.get("command") == "encode"
        return None if applied or model is None else self._analyses.get(model)

    # Results ----------------------------------------------------------------------------------------------------------

    def ask_and_save_results(self) -> None:
        """Ask for a folder and save results there."""
        from napari_rvae.workflows.pipeline import ANALYSIS_FILES

        if asked := asked_folder(self, "Folder for the results", ANALYSIS_FILES):
            self.save_results(*asked)

    def save_results(self, folder: str | Path, force: bool = False) -> None:
        """Save the results as they are now, with all corrections made by hand.

        Atoms that were added or moved since have no results and are flagged; the recipe holds the atoms as they were
        trained, and repeats that.

        Parameters
        ----------
        folder : str or Path
            Where to.
        force : bool
            Replace what is there.
        """
        from napari_rvae.io import Recipe, add_physical_positions
        from napari_rvae.workflows import Analysis, known_analysis

        dock = self._dock
        points = dock.points_box.layer
        model = None if points is None else model_of(points)
        if points is None or model is None or self._why_not_saved():
            return
        then = self._trained_here(points)
        image, recipe = self._image_of(points), points.metadata.get(RECIPE)
        try:
            table = atoms_table(points, dock.image_box.layer if then else image)
            source = then["source"] if then else source_of(points, image)
        except RVAEError as error:
            dock.work.fail(error)
            return

        def step(_: Job) -> None:
            if then:
                placed = add_physical_positions(table, source.pixel_size, source.unit)
                now = Analysis(**then | {"model": model, "table": placed})
            else:
                now = known_analysis(hashed(source), table, model, Recipe.model_validate(recipe))
            now.save(folder, force=force)

        dock.work.run("Saving results", step, lambda _: dock.work.say(f"Saved in {folder}", True))

    # Models -----------------------------------------------------------------------------------------------------------

    def ask_and_save_model(self) -> None:
        """Ask for a file and save the model there."""
        path, _ = QFileDialog.getSaveFileName(self, "Save model", "model.safetensors", _FILTER)
        if path:
            self.save_model(path)

    def save_model(self, path: str | Path) -> None:
        """Save the model.

        Parameters
        ----------
        path : str or Path
            Where to.
        """
        model, work = self.model, self._dock.work
        if model is not None:
            work.run("Saving the model", lambda _: model.save(path), lambda _: work.say(f"Saved {path}"))

    def ask_and_load_model(self) -> None:
        """Ask for a file and load a model."""
        path, _ = QFileDialog.getOpenFileName(self, "Load model", "", _FILTER)
        if path:
            self.load_model(path)

    def load_model(self, path: str | Path) -> None:
        """Load a model; it can then be applied.

        Parameters
        ----------
        path : str or Path
            A model file.
        """

        def step(_: Job) -> Any:
            from napari_rvae.models import load_model

            return load_model(path)

        def done(model: Any) -> None:
            from napari_rvae.workflows.steps import channel_names

            self.loaded = model
            settings = model.settings
            what = f"{settings.model}, {settings.latent} latent dimensions"
            if names := channel_names(model):
                what += f", channels {', '.join(names)}"
            self._dock.work.say(f"Loaded {Path(path).name} ({what}); it can be applied now: Model > Apply.")
            self.refresh()

        self._dock.work.run("Loading the model", step, done)

    def apply(self) -> None:
        """Encode the chosen atoms with the model."""
        dock, model = self._dock, self.model
        try:
            image, points, atoms, where = dock.chosen()
            source = image_source(image, dock.channels.layers)
        except RVAEError as error:
            dock.work.fail(error)
            return

        def step(job: Job) -> Analysis:
            from napari_rvae.workflows import apply_to_image

            told: dict[str, Any] = {"progress": job.progress, "stop": job.stop}
            return apply_to_image(model, hashed(source), found_with(points), atoms=atoms, where=where, **told)

        inputs = TrainingInputs(image, points, source, atoms, where, more=dock.channels.layers)
        dock.work.run("Applying the model", step, partial(self._on_applied, inputs))

    def _on_applied(self, inputs: TrainingInputs, done: Analysis) -> Callable[[], None]:
        from napari_rvae.workflows import misfit

        notes = [note for note in (misfit(done.model, done.table),) if note]
        return self._dock.show_results(inputs, done.table, done.recipe.model_dump(mode="json"), done.model, notes)

    def ask_and_apply_to_image(self) -> None:
        """Ask for an image and apply the model to it."""
        path, _ = QFileDialog.getOpenFileName(self, "Apply the model to an image")
        if path:
            self.apply_to_image(path)

    def apply_to_image(self, path: str | Path) -> None:
        """Open an image, find its atoms and encode them; the layers that were seen before are hidden.

        Parameters
        ----------
        path : str or Path
            An image file.
        """
        dock, model, find = self._dock, self.model, self._find_settings()

        def step(job: Job) -> Any:
            from napari_rvae.io import load_image
            from napari_rvae.workflows import apply_to_image

            return apply_to_image(model, load_image(path), find, progress=job.progress, stop=job.stop)

        def done(made: Analysis) -> Callable[[], None]:
            source, table = made.source, made.table
            image, *more = add_image(dock.viewer, source)
            atoms = table[[name for name in table if not is_result(name)]]
            points = add_atoms(dock.viewer, atoms, image, {"command": "find"})
            show_alone(dock.viewer, [image, points])
            return self._on_applied(TrainingInputs(image, points, source, atoms, None, more=more), made)

        dock.work.run("Applying the model", step, done)

    def ask_and_apply_to_folder(self) -> None:
        """Open the dialog that applies the model to all images of a folder."""
        self.batch = BatchDialog(self._dock, self.model, self._find_settings())
        self.batch.show()

    def _find_settings(self) -> FindSettings:
        points = self._dock.points_box.layer
        return FindSettings() if points is None else found_with(points)
