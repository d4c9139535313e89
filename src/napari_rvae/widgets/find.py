"""The Find atoms dock: an image layer in, a points layer out."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image, Labels, Points, Shapes
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QCheckBox, QHBoxLayout, QLabel, QPushButton

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
    shown_frame,
)
from napari_rvae.settings import FindSettings
from napari_rvae.widgets.find_finder import FinderFile, FinderPanel
from napari_rvae.widgets.jobs import Job
from napari_rvae.widgets.parts import Dock, Heard, LayerBox
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

_PLACE = ("scale", "translate", "rotate", "shear", "affine", "units")  # what tells where a layer lies
_DRAWN = ("data", "labels_update", "set_data", *_PLACE)  # where painting is undone, only set_data tells


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
        self.image_box.setToolTip("<p>An image, or a stack of frames that are searched one after the other.</p>")
        self.heading("Image")
        self.rows.addWidget(self.image_box)
        self.region_box = LayerBox(self, (Shapes, Labels), "the whole image", optional=True)
        self.region_box.setToolTip(
            "<p>Where atoms are looked for: inside drawn shapes or painted labels. In a stack, shapes hold for all "
            "frames, and labels that have frames themselves hold each for its own.</p>"
        )
        self.region_box.layer_changed.connect(self._on_region)
        self._image_heard = Heard((self._on_pixels, ("data",)), (self._on_placed, _PLACE))
        self._region_heard = Heard((self._on_drawn, _DRAWN))
        self._mask: NDArray[np.bool_] | None = None  # of the region, the same array until something in it changes
        self._mask_is_old = True
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
        self.snr_plot = SnrPlot()
        self.rows.addWidget(self.snr_plot)
        self._build_refine()
        self.finder = FinderPanel(self)
        self.rows.addWidget(self.finder)
        self.rows.addStretch(1)
        self._on_image(self.image_box.layer)

    def _build_preview(self) -> None:
        self.preview_box = QCheckBox("Live preview")
        self.preview_box.setToolTip(
            "<p>Show what would be found, before the exact fit, and follow the sliders. Points stay as they are.</p>"
        )
        self.preview_box.toggled.connect(self._on_settings)
        self.count = QLabel()
        self.count.setWordWrap(True)
        self.rows.addWidget(self.preview_box)
        self.rows.addWidget(self.count)
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
        self._image_heard.choose(None)
        self._region_heard.choose(None)
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

        self.work.run("Finding atoms", step, partial(self._on_found, image), waits=False)

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
        if image is self.image_box.layer:
            used = found.recipe.settings["find"]
            left_open = {name: value for name, value in estimated.items() if used.get(name) is None}
            self.form.set_estimates(_told(used["search"], left_open))
            heights = None if used["search"] == "grid" else atoms["snr"].to_numpy()
            self.snr_plot.show_atoms(heights, estimated.get("threshold", 0.0))
        else:
            words = f"{image.name}: {words}"
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

        def step(job: Job) -> pd.DataFrame:
            return refine_atoms(data, atoms, chosen["atom_id"], settings, stop=job.stop).loc[chosen.index]

        self.work.run("Refining points", step, partial(self._on_refined, points, image, chosen), waits=False)

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
        self._image_heard.choose(image)
        self.tracks_box.setVisible(image is not None and image.ndim == 3)
        self.form.set_estimates({})
        self.snr_plot.show_atoms(None)
        self.work.say("")
        self._on_placed()

    def _on_pixels(self, _: Any = None) -> None:
        self._on_image(self.image_box.layer)

    def _on_placed(self, _: Any = None) -> None:
        image = self.image_box.layer
        size, unit = pixel_size(image) if image is not None else ((1.0, 1.0), "")
        self.form.set_pixel(sum(size) / 2, unit)
        self.preview.clear()
        self._mask_is_old = True
        self._on_settings()

    def _on_region(self, region: Any) -> None:
        """Follow what is drawn or painted into the chosen layer, and nothing else."""
        self._region_heard.choose(region)
        self._mask = None
        self._on_drawn()

    def _on_drawn(self, _: Any = None) -> None:
        self._mask_is_old = True
        if self.preview_box.isChecked():
            self._on_settings()

    def _on_step(self, _: Any = None) -> None:
        if self.image_box.layer is not None and self.image_box.layer.ndim == 3:
            self._on_drawn()

    def _on_settings(self, _: Any = None) -> None:
        image, wanted = self.image_box.layer, self.preview_box.isChecked()
        search = self.form.controls["search"].value()
        self.form.show_field("finder", search == "learned")
        for name in ("contrast", "sigma"):
            self.form.show_field(name, search != "grid")
        if not wanted or image is None:
            self.preview.close()
            self._say("")
            return
        try:
            data, frame = image_data(image), shown_frame(image, self.viewer.dims.point)
            self.preview.show(image, data, self.form.value(FindSettings), self._region(image, frame), frame)
            if self.preview.waiting and self.preview.layer is None:
                self._say("The image is being filtered...")
        except RVAEError as error:
            self.preview.close()
            self._say(str(error))

    def _region(self, image: Image, frame: int | None) -> NDArray[np.bool_] | None:
        """Where atoms are looked for: the same array as long as nothing is changed in it."""
        drawn = self.region_box.layer
        if self._mask_is_old and drawn is not None:
            mask = region_mask(drawn, image, frame)
            if self._mask is None or not np.array_equal(mask, self._mask):
                self._mask = mask
        self._mask_is_old = False
        return self._mask

    def _on_preview_shown(
        self, count: int, threshold: float, heights: NDArray[Any], estimates: dict[str, float]
    ) -> None:
        search = self.form.controls["search"].value()
        learned, kind = search == "learned", "window" if search == "grid" else "atom"
        limit = f"{threshold:.0f} % certainty" if learned else f"{threshold:.1f} standard deviations of the noise"
        above = f" above {limit}"
        if kind == "window":  # without a threshold all count
            above = f" whose contrast is {threshold:.1f} times the noise or more" if threshold > 0 else ""
        self._say(f"About {count:,} {kind}{'s' * (count != 1)}{above}")
        self.form.set_estimates(_told(search, estimates))
        self.form.controls["threshold"].set_highest(100.0 if learned else float(heights.max(initial=0.0)))
        self.snr_plot.show_atoms(heights if kind == "atom" and not learned else None, threshold)

    def _say(self, text: str) -> None:
        self.count.setText(text)
        self.count.setVisible(bool(text))


def _told(search: str, estimates: dict[str, Any]) -> dict[str, Any]:
    """Those estimates that mean what their field does: a learned finder's threshold is a certainty."""
    hidden = {"learned": ("threshold",), "grid": ("threshold", "sigma")}.get(search, ())
    return {name: value for name, value in estimates.items() if name not in hidden}
