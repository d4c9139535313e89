"""What one sees of a training: the loss curve and the class averages."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QGridLayout, QLabel, QVBoxLayout, QWidget

from napari_rvae.widgets.explore_patches import Picture

_CURVES = {"learned from": "#56B4E9", "held out": "#E69F00", "information in z": "#009E73"}
_PHYSICS = {"physics": "#CC79A7"}  # where there is a term of one's own
_BETWEEN_DRAWINGS = 0.5  # s
_MOST_SHOWN = 10
_IN_A_ROW = 5


class LossCurve(QWidget):
    """Loss of the patches learned from and of those held out, and what z says about them, epoch by epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.setFixedHeight(165)
        self.setToolTip(
            "<p>Loss (negative evidence lower bound) per patch, in nats above one less than the lowest so far; where "
            "the held-out curve rises again, the model learns by heart. Information: what the latents say about a "
            "patch, in nats.</p>"
        )
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self.legend = QLabel()  # above the plot: the plot's own one hides the curves
        self.legend.setAlignment(Qt.AlignmentFlag.AlignRight)
        layout.addWidget(self.legend)
        self._curves: list[Any] = []  # made when a training begins: it takes a while
        self._forget()

    def _make_plot(self) -> None:
        import pyqtgraph as pg

        plot = pg.PlotWidget(background=None)
        plot.setLabel("bottom", "epoch")
        plot.setLabel("left", "nats")
        plot.setLogMode(y=True)
        plot.hideButtons()
        plot.setMenuEnabled(False)
        menu = plot.getPlotItem().ctrlMenu
        menu.setParent(plot, menu.windowFlags())  # it would outlive the plot
        ticks = [(math.log10(lead) + power, f"{lead * 10.0**power:g}") for power in range(-3, 7) for lead in (1, 3)]
        plot.getAxis("left").setTicks([ticks])  # there is no room for more
        self._plot = plot
        self._add_curves(_CURVES)
        self.layout().addWidget(plot)

    def _add_curves(self, colors: dict[str, str]) -> None:
        import pyqtgraph as pg

        for name, color in colors.items():
            self._curves.append(self._plot.plot(pen=pg.mkPen(color, width=2), name=name, connect="finite"))
            self.legend.setText(f'{self.legend.text()} &nbsp;<span style="color:{color}">&#9632;</span> {name}')

    def restart(self) -> None:
        """Show an empty plot."""
        if not self._curves:
            self._make_plot()
        self._forget()
        for curve in self._curves:
            curve.setData([], [])

    def _forget(self) -> None:
        self.member = 1
        self.epochs: list[int] = []
        self.losses: list[float] = []
        self.held_out: list[float] = []
        self.information: list[float] = []
        self.physics: list[float] = []
        self._drawn = 0.0

    def add(self, report: Any) -> None:
        """Go on with the curves, or begin those of the next member of an ensemble.

        Parameters
        ----------
        report : TrainingReport
            Of any phase.
        """
        if report.member != self.member:
            self.restart()
            self.member = report.member
        if report.phase in ("finishing", "done"):
            self.draw()
        if report.loss is None:
            return
        if not self.epochs:  # some were before an interruption
            for epoch, loss, held_out in report.losses[:-1]:
                self._append(epoch, loss, held_out, {})
        self._append(report.epoch, report.loss, report.held_out, report.terms)
        if time.monotonic() - self._drawn > _BETWEEN_DRAWINGS:
            self.draw()

    def _append(self, epoch: int, loss: float, held_out: float | None, terms: dict[str, float]) -> None:
        self.epochs.append(epoch)
        self.losses.append(loss)
        self.held_out.append(float("nan") if held_out is None else held_out)
        self.information.append(terms.get("divergence", float("nan")))
        self.physics.append(terms.get("physics", float("nan")))

    def draw(self) -> None:
        """Show what was added since the last time; each drawing takes a while where no graphics card does it."""
        self._drawn = time.monotonic()
        if not self.epochs:
            return
        losses, held_out = np.array(self.losses), np.array(self.held_out)
        lowest = np.nanmin([losses, held_out]) - 1
        physics = np.maximum(self.physics, 1e-3)
        if len(self._curves) == len(_CURVES) and np.isfinite(physics).any():
            self._add_curves(_PHYSICS)
        shown = (losses - lowest, held_out - lowest, np.maximum(self.information, 1e-3), physics)
        for curve, values in zip(self._curves, shown, strict=False):
            curve.setData(self.epochs, values)


class AveragesStrip(QWidget):
    """The class averages with their number of members: a first look before anything is learned."""

    def __init__(self) -> None:
        super().__init__()
        self._grid = QGridLayout(self)
        self._grid.setContentsMargins(0, 0, 0, 0)
        self._grid.setHorizontalSpacing(4)
        self._shown: Any = None
        self.setToolTip("<p>Patches that are alike, turned and moved onto each other, and averaged.</p>")

    def show_averages(self, averages: Any) -> None:
        """Show class averages.

        Parameters
        ----------
        averages : Averages or None
            None shows nothing.
        """
        if averages is self._shown:
            return
        self._shown = averages
        while (item := self._grid.takeAt(0)) is not None:
            widget = item.widget()
            if widget is not None:
                widget.deleteLater()
        if averages is None:
            return
        for place, (image, count) in enumerate(zip(averages.images, averages.counts, strict=True)):
            if place == _MOST_SHOWN:
                break
            picture, label = Picture(), QLabel(f"{count:,}")
            picture.setFixedSize(54, 54)
            picture.setMinimumSize(54, 54)
            picture.show_array(image[0])
            label.setAlignment(Qt.AlignmentFlag.AlignHCenter)
            row, column = divmod(place, _IN_A_ROW)
            self._grid.addWidget(picture, 2 * row, column)
            self._grid.addWidget(label, 2 * row + 1, column)
        self._grid.setColumnStretch(_IN_A_ROW, 1)
