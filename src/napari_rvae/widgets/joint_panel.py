"""What joint models ask for, in the Train dock: how many classes there are, and the schedule of their capacities."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QPushButton, QVBoxLayout, QWidget

from napari_rvae.errors import RVAEError
from napari_rvae.layers import image_source
from napari_rvae.settings import CountSettings, PatchSettings, TrainSettings
from napari_rvae.widgets.given_columns import CAPACITIES

if TYPE_CHECKING:
    from napari_rvae.widgets.jobs import Job
    from napari_rvae.widgets.train import TrainWidget

_CURVE, _FIRM_LINE = "#56B4E9", "#909090"
_HEIGHT = 130


class JointPanel(QWidget):
    """A button that counts classes with the curve that it found, and the capacities as they will grow.

    Parameters
    ----------
    dock : TrainWidget
        Whose atoms, settings and row of work are used.
    """

    def __init__(self, dock: TrainWidget) -> None:
        super().__init__()
        self._dock = dock
        self.stability: pd.DataFrame | None = None
        self.button = QPushButton("How many classes?")
        self.button.setToolTip(
            "<p>Sorts parts of the patches into 2, 3, ... classes, each part by itself, and sets the largest number "
            "whose classes are all found again. Without training; takes about half a minute.</p>"
        )
        self.button.clicked.connect(self.count)
        self.plot: Any = None  # made when there is something to draw: it takes a while
        self.capacities: Any = None
        self._drawn: Any = None
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.button)

    def watch(self, family: str) -> None:
        """Be there for models with classes, and idle while the dock works."""
        self.setVisible(family in ("joint", "semi"))
        self.button.setVisible(family == "joint")
        self.button.setEnabled(not self._dock.work.working)
        controls, points = self._dock.form.controls, self._dock.points_box.layer
        values = {name: controls[name].value() for name in ("model", "classes", *CAPACITIES)}
        if family == "semi" and values["classes"] is None and points is not None:
            from napari_rvae.workflows.given import labelled_classes

            values["classes"] = labelled_classes(points.features, controls["label_column"].value())
        self._show_capacities(TrainSettings(**values))

    def count(self) -> None:
        """Count the classes among the patches of the chosen atoms."""
        dock = self._dock
        try:
            image, _, atoms, where = dock.chosen()
            source, patch = image_source(image, dock.channels.layers), dock.form.value(PatchSettings)
            settings = CountSettings(invariance=dock.form.value(TrainSettings).invariances)
        except RVAEError as error:
            dock.work.fail(error)
            return

        def step(job: Job) -> pd.DataFrame:
            from napari_rvae.workflows import count_image

            return count_image(
                source, None, patch, settings, atoms=atoms, where=where, progress=job.progress, stop=job.stop
            )

        dock.work.run("Counting classes", step, self._on_counted)

    def _on_counted(self, stability: pd.DataFrame) -> None:
        from napari_rvae.averages.counting import stability_in_words, stable_count

        self.stability, count = stability, stable_count(stability)
        self._draw(stability, count)
        if count is not None:
            self._dock.form.controls["classes"].set_value(count)
        self._dock.work.say(stability_in_words(stability))

    def _show_capacities(self, settings: TrainSettings) -> None:
        from napari_rvae.training.capacity import capacity_at, growing_until

        end = growing_until(settings)
        if self.capacities is not None:
            self.capacities.setVisible(end > 0)
        if settings == self._drawn or not end:
            return
        import pyqtgraph as pg

        self._drawn = settings
        if self.capacities is None:
            self.capacities = small_plot("epoch", "capacity (nat)")
            self.capacities.setToolTip(
                "<p>What latents and classes are to say of a patch, epoch by epoch. Training does not end before.</p>"
            )
            self.capacities.addLegend(offset=(-5, 5))
            self.layout().addWidget(self.capacities)
        self.capacities.clear()
        epochs = np.linspace(0, 1.25 * end, 101)
        along = [capacity_at(settings, epoch) for epoch in epochs]
        for name, color in (("latents", _CURVE), ("classes", "#E69F00")):
            values = [getattr(one, name) for one in along]
            if values[0] is not None:
                self.capacities.plot(epochs, values, pen=pg.mkPen(color, width=2), name=name)

    def _draw(self, stability: pd.DataFrame, count: int | None) -> None:
        import pyqtgraph as pg

        from napari_rvae.averages.counting import FIRM

        if self.plot is None:
            self.plot = small_plot("classes", "stability")
            self.plot.setYRange(0, 1)
            self.plot.setToolTip(
                "<p>How well the worst class is found again in other patches: median, lowest and highest of the pairs "
                "of parts. Above the dashed line classes are firm; the filled point is the largest such number.</p>"
            )
            self.layout().addWidget(self.plot)
        self.plot.clear()
        x, y = stability["classes"].to_numpy(float), stability["stability"].to_numpy(float)
        middle = {"top": stability["highest"].to_numpy() - y, "bottom": y - stability["lowest"].to_numpy()}
        self.plot.addItem(pg.ErrorBarItem(x=x, y=y, beam=0.2, pen=pg.mkPen(_CURVE), **middle))
        self.plot.addItem(pg.InfiniteLine(FIRM, angle=0, pen=pg.mkPen(_FIRM_LINE, style=Qt.PenStyle.DashLine)))
        brushes = [pg.mkBrush(_CURVE) if one == count else None for one in stability["classes"]]
        pen = pg.mkPen(_CURVE, width=2)
        self.plot.plot(x, y, pen=pen, symbol="o", symbolSize=8, symbolPen=pen, symbolBrush=brushes)


def small_plot(bottom: str, left: str) -> Any:
    """Make a plot that fits into a dock.

    Parameters
    ----------
    bottom, left : str
        Names of the axes.

    Returns
    -------
    pyqtgraph.PlotWidget
    """
    import pyqtgraph as pg

    plot = pg.PlotWidget(background=None)
    plot.setFixedHeight(_HEIGHT)
    plot.setLabel("bottom", bottom)
    plot.setLabel("left", left)
    plot.hideButtons()
    plot.setMenuEnabled(False)
    plot.setMouseEnabled(False, False)
    menu = plot.getPlotItem().ctrlMenu
    menu.setParent(plot, menu.windowFlags())  # it would outlive the plot
    return plot
