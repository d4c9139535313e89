"""The Find atoms dock: an image layer in, a points layer out."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image, Labels, Points, Shapes
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QCheckBox, QHBoxLayout, QLabel, QPushButton, QSlider

from napari_rvae.errors import InputDataError, RVAEError
from napari_rvae.layers import (
    add_atoms,
    add_tracks,
    atoms_table,
    hashed,
    image_data,
    image_of,
    image_source,
    pixel_size,
    place_refined,
    region_mask,
)
from napari_rvae.settings import FindSettings
from napari_rvae.widgets.find_finder import FinderFile, FinderPanel
from napari_rvae.widgets.jobs import Job
from napari_rvae.widgets.parts import Dock, LayerBox
from napari_rvae.widgets.preview import Preview
from napari_rvae.widgets.settings_form import SettingsForm
from napari_rvae.widgets.snr_plot import SnrPlot
from napari_rvae.widgets.work import WorkRow

if TYPE_CHECKING:
    import pandas as pd
    from napari.viewer import Viewer
    from numpy.typing import NDArray

    from napari_rvae.layers.refined import Refined
    from napari_rvae.workflows import FoundAtoms

_TICKS = 1000  # of the threshold's slider, whose steps are equal ratios
_LOWEST, _HIGHEST = 2.0, 20.0  # its ends, unless there are stronger atoms


class FindWidget(Dock):
    """Find the atoms of an image or a stack.

    Parameters
    ----------
    napari_viewer : Viewer
        Whose layers are used.
    """

    found = Signal(object)  # the new points layer

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__(napari_viewer)
        self.image_box = LayerBox(self, Image, "open an image first")
        self.image_box.layer_changed.connect(self._on_image)
        self.heading("Image")
        self.rows.addWidget(self.image_box)
        self.region_box = LayerBox(self, (Shapes, Labels), "the whole image", optional=True)
        self.region_box.setToolTip("<p>Where atoms are looked for: inside drawn shapes or painted labels.</p>")
        self.region_box.layer_changed.connect(self._on_region)
        self._region: Any = None  # the layer that is listened to
        self.rows.addWidget(self.region_box)
        self.heading("What the atoms are like")
        self.form = SettingsForm(FindSettings, controls={"finder": FinderFile()})
        self.form.changed.connect(self._on_settings)
        self.rows.addWidget(self.form)
        self._build_preview()
        self.tracks_box = QCheckBox("Link atoms over the frames")
        self.tracks_box.setToolTip("<p>Follow every atom through the stack and show its way as a tracks layer.</p>")
        self.rows.addWidget(self.tracks_box)
        self.work = WorkRow("Find atoms")
        self.work.start_clicked.connect(self.find_atoms)
        self.rows.addWidget(self.work)
        self._build_refine()
        self.finder = FinderPanel(self)
        self.rows.addWidget(self.finder)
        self.rows.addStretch(1)
        self._on_image(self.image_box.layer)

    def _build_preview(self) -> None:
        self.preview_box = QCheckBox("Live preview")
        self.preview_box.setToolTip("Show what would be found, before the exact fit.")
        self.preview_box.toggled.connect(self._on_settings)
        self.slider = QSlider(Qt.Orientation.Horizontal)
        self.slider.setRange(0, _TICKS)
        self._highest = _HIGHEST
        self.slider.setToolTip(f"<p>Threshold. {FindSettings.model_fields['threshold'].description}</p>")
        self.slider.valueChanged.connect(self._on_slider)
        self.slider.setEnabled(False)
        self.count = QLabel()
        self.count.setWordWrap(True)
        row = QHBoxLayout()
        row.addWidget(self.preview_box)
        row.addWidget(self.slider, 1)
        self.rows.addLayout(row)
        self.rows.addWidget(self.count)
        self.snr_plot = SnrPlot()
        self.rows.addWidget(self.snr_plot)
        self.preview = Preview(self.viewer, self)
        self.preview.shown.connect(self._on_preview_shown)
        self.preview.failed.connect(self._say)
        self.preview.removed.connect(partial(self.preview_box.setChecked, False))
        self.listen(self.viewer.dims.events.current_step, self._on_step)
        self.listen(self.viewer.layers.events.removed, self.preview.on_removed)

    def _build_refine(self) -> None:
        self._refined: Refined | None = None
        self.refine_button = QPushButton("Refine selected points")
        self.refine_button.setToolTip("<p>Fit the points that are selected in the active points layer, only them.</p>")
        self.refine_button.clicked.connect(self.refine)
        self.undo_button = QPushButton("Undo")
        self.undo_button.setToolTip("<p>Put the points back that were refined last.</p>")
        self.undo_button.setEnabled(False)
        self.undo_button.clicked.connect(self._on_undo)
        row = QHBoxLayout()
        row.addWidget(self.refine_button, 2)
        row.addWidget(self.undo_button, 1)
        self.rows.addLayout(row)

    def closed(self) -> None:
        """Let go of the viewer; a search that is running is cancelled."""
        super().closed()
        self._on_region(None)
        self.work.cancel()
        self.finder.work.cancel()
        self.preview.close()

    # Finding ----------------------------------------------------------------------------------------------------------

    def find_atoms(self) -> None:
        """Find the atoms of the chosen image."""
        from napari_rvae.io import RegionRecord
        from napari_rvae.workflows import find_in_image

        image = self.image_box.layer
        try:
            if image is None:
                raise InputDataError("There is no image: open one, or a sample from File > Open Sample > rVAE.")
            source, settings, drawn = image_source(image), self.form.value(FindSettings), self.region_box.layer
            region = None if drawn is None else RegionRecord.of(region_mask(drawn, image), drawn.name)
        except RVAEError as error:
            self.work.fail(error)
            return
        self.preview_box.setChecked(False)
        linked = self.tracks_box.isChecked() and image.ndim == 3

        def step(job: Job) -> FoundAtoms:
            known = hashed(source) if source.path.exists() else source
            return find_in_image(known, settings, region, linked=linked, progress=job.progress, stop=job.stop)

        self.work.run("Finding atoms", step, partial(self._on_found, image))

    def _on_found(self, image: Image, found: FoundAtoms) -> None:
        from napari_rvae.workflows.finding import IF_NONE, atoms_in_words

        atoms = found.table
        if atoms.empty:
            raise InputDataError(f"No atoms were found in '{image.name}': {IF_NONE}.")
        estimated, recipe = atoms.attrs.get("napari_rvae", {}), found.recipe.model_dump(mode="json", exclude_none=True)
        layer = add_atoms(self.viewer, atoms, image, recipe)
        size, unit = pixel_size(image)
        words = atoms_in_words(atoms, sum(size) / 2, unit)
        if "track" in atoms:
            try:
                add_tracks(self.viewer, atoms, image)
                self.viewer.layers.selection.active = layer
            except InputDataError as error:  # the atoms are there all the same
                words += f" · no tracks: {error}"
        learned = found.recipe.settings["find"]["search"] == "learned"  # its threshold is a certainty
        self.form.set_estimates(
            {name: value for name, value in estimated.items() if name != "threshold" or not learned}
        )
        self.snr_plot.show_atoms(atoms["snr"].to_numpy(), estimated.get("threshold", 0.0))
        self.work.say(words)
        self.found.emit(layer)

    # Refining ---------------------------------------------------------------------------------------------------------

    def refine(self) -> None:
        """Fit the selected points of the active points layer."""
        from napari_rvae.atoms import refine_atoms

        points = self.viewer.layers.selection.active
        try:
            if not isinstance(points, Points) or not points.selected_data:
                raise InputDataError("Select points of a points layer first: those that were added or moved by hand.")
            image = image_of(points) or self.image_box.layer
            if image is None:
                raise InputDataError("There is no image to which the points belong: open it first.")
            data, settings, atoms = image_data(image), self.form.value(FindSettings), atoms_table(points, image)
        except RVAEError as error:
            self.work.fail(error)
            return
        chosen = atoms.iloc[sorted(points.selected_data)]

        def step(_: Job) -> pd.DataFrame:
            return refine_atoms(data, atoms, chosen["atom_id"], settings).loc[chosen.index]

        self.work.run("Refining points", step, partial(self._on_refined, points, image, chosen))

    def _on_refined(self, points: Points, image: Image, before: pd.DataFrame, after: pd.DataFrame) -> None:
        from napari_rvae.atoms import at_the_limit

        self._refined = place_refined(points, image, before, after)
        self._refined_in = image
        self.undo_button.setEnabled(True)
        moved = self._refined.after[["y", "x"]].to_numpy() - self._refined.before[["y", "x"]].to_numpy()
        far = f", by up to {np.hypot(*moved.T).max():.2f} px" if len(moved) else ""
        weak = int(at_the_limit(after).sum())
        empty = f"; at {weak:,} of them no atom stands out of the noise" if weak else ""
        self.work.say(f"{len(moved):,} point{'' if len(moved) == 1 else 's'} refined{far}{empty}")

    def _on_undo(self) -> None:
        refined, self._refined = self._refined, None
        self.undo_button.setEnabled(False)
        if refined is not None:
            place_refined(refined.points, self._refined_in, refined.after, refined.before)
            self.work.say("The points are back where they were")

    # Settings and preview ---------------------------------------------------------------------------------------------

    def _on_image(self, image: Image | None) -> None:
        self.tracks_box.setVisible(image is not None and image.ndim == 3)
        size, unit = pixel_size(image) if image is not None else ((1.0, 1.0), "")
        self.form.set_pixel(sum(size) / 2, unit)
        self.form.set_estimates({})
        self.snr_plot.show_atoms(None)
        self.work.say("")
        self._on_settings()

    def _on_region(self, region: Any) -> None:
        """Follow what is drawn or painted into the chosen layer, and nothing else."""
        for layer, connect in ((self._region, False), (region, True)):
            for name in ("data", "labels_update"):
                emitter = getattr(layer.events, name, None) if layer is not None else None
                if emitter is not None:
                    (emitter.connect if connect else emitter.disconnect)(self._on_drawn)
        self._region = region
        self._on_settings()

    def _on_drawn(self, _: Any = None) -> None:
        if self.preview_box.isChecked():
            self._on_settings()

    def _on_step(self, _: Any = None) -> None:
        if self.image_box.layer is not None and self.image_box.layer.ndim == 3:
            self._on_settings()

    def _on_settings(self, _: Any = None) -> None:
        image, wanted = self.image_box.layer, self.preview_box.isChecked()
        self.form.show_field("finder", self.form.controls["search"].value() == "learned")
        self.slider.setEnabled(wanted and image is not None)
        if not wanted or image is None:
            self.preview.close()
            self._say("")
            return
        try:
            drawn = self.region_box.layer
            region = None if drawn is None else region_mask(drawn, image)
            self.preview.show(image, image_data(image), self.form.value(FindSettings), region)
        except RVAEError as error:
            self._say(str(error))

    def _on_preview_shown(self, points: Points, threshold: float, heights: NDArray[Any]) -> None:
        learned = self.form.controls["search"].value() == "learned"
        limit = f"{threshold:.0f} % certainty" if learned else f"{threshold:.1f} standard deviations of the noise"
        self._say(f"About {len(points.data):,} atoms above {limit}")
        self.snr_plot.show_atoms(None if learned else heights, threshold)
        self._highest = max(float(heights[0]) if len(heights) else 0.0, _HIGHEST)
        self.slider.blockSignals(True)
        self.slider.setValue(round(_TICKS * math.log(threshold / _LOWEST) / math.log(self._highest / _LOWEST)))
        self.slider.blockSignals(False)

    def _say(self, text: str) -> None:
        self.count.setText(text)
        self.count.setVisible(bool(text))

    def _on_slider(self, ticks: int) -> None:
        self.form.controls["threshold"].set_value(_LOWEST * (self._highest / _LOWEST) ** (ticks / _TICKS))
