"""What a method without a network tells of the same patches, beside what the model tells."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QLabel, QVBoxLayout, QWidget

from napari_rvae.errors import InputDataError
from napari_rvae.layers import atoms_table, model_of, source_of
from napari_rvae.settings import BaselineSettings
from napari_rvae.widgets.atoms_link import AtomsLink
from napari_rvae.widgets.jobs import Job
from napari_rvae.widgets.parts import image_under
from napari_rvae.widgets.settings_form import SettingsForm
from napari_rvae.widgets.work import WorkRow

if TYPE_CHECKING:
    from napari.viewer import Viewer

    from napari_rvae.workflows import Beside

_HELP = "Does a model tell more than linear algebra? The same patches{}, without a network."


class BaselinePanel(QWidget):
    """Describe the atoms by PCA or NMF and clusters, and say what these and the model leave unexplained.

    Parameters
    ----------
    viewer : Viewer
        Where the image is looked for when the points were not made on one.

    Attributes
    ----------
    color_wanted : Signal
        Name of the column in whose colours the result is seen.
    """

    color_wanted = Signal(str)

    def __init__(self, viewer: Viewer) -> None:
        super().__init__()
        self._viewer = viewer
        self._link: AtomsLink | None = None
        self.help, self.comparison = QLabel(), QLabel()
        self.form = SettingsForm(BaselineSettings, without=["invariance"], folded=["seed"])
        self.form.rename("latent", "Components")
        self.work = WorkRow("Compute baseline")
        self.work.start_clicked.connect(self.compute)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(4, 6, 4, 4)
        for widget in (self.help, self.form, self.work, self.comparison):
            layout.addWidget(widget)
        for label in (self.help, self.comparison):
            label.setWordWrap(True)
        layout.addStretch(1)

    def set_link(self, link: AtomsLink | None) -> None:
        """Work on another layer."""
        self._link = link
        self.comparison.clear()

    def refresh(self) -> None:
        """Say by what patches can be aligned."""
        model = None if self._link is None else model_of(self._link.layer)
        posed = model is not None and model.settings.invariances
        self.help.setText(_HELP.format(", aligned by the model's angles and offsets" if posed else ""))

    def compute(self) -> None:
        """Describe the patches in a thread; the result becomes columns of the features."""
        link = self._link
        if link is None:
            return
        try:
            image = image_under(link.layer, self._viewer)
            if image is None:
                raise InputDataError("A baseline needs the image of the atoms: open it.")
            source, table = source_of(link.layer, image), atoms_table(link.layer, image)
            settings = self.form.value(BaselineSettings)
        except InputDataError as error:
            self.work.fail(error)
            return
        model = model_of(link.layer)

        def work(job: Job) -> Beside:
            from napari_rvae.workflows import baseline_beside

            return baseline_beside(model, source, table, settings, progress=job.progress, stop=job.stop)

        self.comparison.clear()
        self.work.run("Computing a baseline", work, partial(self._computed, link, settings))

    def _computed(self, link: AtomsLink, settings: BaselineSettings, found: Beside) -> None:
        # In doubles, as recipes hold them: what is trained on these columns is repeated to the last digit.
        doubles = found.columns.astype(dict.fromkeys(found.columns.select_dtypes(np.float32), np.float64))
        columns = {str(name): values for name, values in doubles.items()}
        first = next(iter(columns))
        own = re.compile(rf"{first[:-1]}\d+")  # of an earlier one with more components
        older = [name for name in map(str, link.table) if own.fullmatch(name) and name not in columns]
        name = f"{'' if settings.aligned else 'unaligned '}{settings.method.upper()}"
        link.edit(name, {**columns, **dict.fromkeys(older)}, found.columns.index.to_numpy())
        if link is self._link:
            several = "s" * (settings.latent > 1)
            words = f"{name}, {settings.latent} component{several}: {100 * found.unexplained:.3g} % unexplained"
            known = "" if np.isnan(found.by_model) else f"; this model: {100 * found.by_model:.3g} %"
            self.comparison.setText(f"{words[0].upper()}{words[1:]}{known}.")
            self.color_wanted.emit(next((column for column in columns if column.endswith("_class")), first))
