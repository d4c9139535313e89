"""What one sees of a training: the loss curve."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QLabel, QVBoxLayout, QWidget

_CURVES = {
    "loss": ("learned from", "#56B4E9"),
    "held_out": ("held out", "#E69F00"),
    "data": ("misfit", "#999999"),
    "divergence": ("information in z", "#009E73"),
    "supervised": ("labels", "#D55E00"),
    "physics": ("physics", "#CC79A7"),
}
"""Words and colour of what a report tells of the loss; the last ones are drawn where the model has such a term."""
_ALWAYS = ("loss", "held_out", "data", "divergence")
_SMALLEST = 1e-3  # on the logarithmic axis
_FEWEST = 5  # epochs along the axis
_BETWEEN_DRAWINGS = 0.5  # s


class LossCurve(QWidget):
    """Loss of the patches learned from and held out, its terms, epoch by epoch, and what went otherwise."""

    def __init__(self) -> None:
        super().__init__()
        self.setToolTip(
            "<p>Loss (negative evidence lower bound) per patch, in nats above one less than the lowest so far; where "
            "the held-out curve rises again, the model learns by heart. Misfit: the part of the loss that says how far "
            "patches are from what is decoded, above one less than its lowest. Information: what the latents say about "
            "a patch, in nats.</p>"
        )
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self.legend, self.notes = QLabel(), QLabel()  # above the plot: the plot's own one hides the curves
        self.legend.setAlignment(Qt.AlignmentFlag.AlignRight)
        for label in (self.legend, self.notes):
            label.setWordWrap(True)
            layout.addWidget(label)
        self.notes.hide()
        self._curves: dict[str, Any] = {}  # made when a training begins: it takes a while
        self._forget()
        self.hide()

    def _make_plot(self) -> None:
        import pyqtgraph as pg

        plot = pg.PlotWidget(background=None)
        plot.setFixedHeight(140)
        plot.setLabel("bottom", "epoch")
        plot.setLabel("left", "nats")
        plot.setLogMode(y=True)
        plot.hideButtons()
        plot.setMenuEnabled(False)
        menu = plot.getPlotItem().ctrlMenu
        menu.setParent(plot, menu.windowFlags())  # it would outlive the plot
        ticks = [(math.log10(lead) + power, f"{lead * 10.0**power:g}") for power in range(-3, 7) for lead in (1, 3)]
        plot.getAxis("left").setTicks([ticks])  # there is no room for more
        plot.setLimits(xMin=0, minXRange=_FEWEST)  # or ticks are parts of an epoch
        self._plot = plot
        for name in _ALWAYS:
            self._add_curve(name)
        self.layout().insertWidget(1, plot)

    def _add_curve(self, name: str) -> None:
        import pyqtgraph as pg

        words, color = _CURVES[name]
        self._curves[name] = self._plot.plot(pen=pg.mkPen(color, width=2), name=words, connect="finite")

    def _name_curves(self) -> None:
        entries = [(words.replace(" ", "&nbsp;"), color) for words, color in (_CURVES[name] for name in self._curves)]
        self.legend.setText(" ".join(f'<span style="color:{c}">&#9632;</span>&nbsp;{words}' for words, c in entries))

    def restart(self) -> None:
        """Show an empty plot."""
        if not self._curves:
            self._make_plot()
        self._forget()
        for name in self._curves.keys() - set(_ALWAYS):  # the next model may have no such term
            self._plot.removeItem(self._curves.pop(name))
        for curve in self._curves.values():
            curve.setData([], [])
        self._name_curves()
        self.show()
        self._number_axes(False)  # they would count what is not there yet

    def _number_axes(self, yes: bool) -> None:
        for side in ("bottom", "left"):
            self._plot.getAxis(side).setStyle(showValues=yes)

    def _forget(self) -> None:
        self.member = 1
        self.epochs: list[int] = []
        self.values: dict[str, list[float]] = {name: [] for name in _CURVES}
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
        self.notes.setText("\n".join(report.notes))
        self.notes.setVisible(bool(report.notes))
        if report.phase in ("finishing", "done"):
            self.draw()
        if report.loss is None:
            return
        if not self.epochs:  # some were before an interruption
            for epoch, loss, held_out in report.losses[:-1]:
                self._append(epoch, {"loss": loss, "held_out": held_out})
        self._append(report.epoch, {**report.terms, "loss": report.loss, "held_out": report.held_out})
        if time.monotonic() - self._drawn > _BETWEEN_DRAWINGS:
            self.draw()

    def _append(self, epoch: int, told: dict[str, float | None]) -> None:
        self.epochs.append(epoch)
        for name, values in self.values.items():
            value = told.get(name)
            values.append(float("nan") if value is None else value)

    def draw(self) -> None:
        """Show what was added since the last time; each drawing takes a while where no graphics card does it."""
        self._drawn = time.monotonic()
        if not self.epochs:
            return
        self._number_axes(True)
        shown = {name: np.array(values) for name, values in self.values.items()}
        for together in (("loss", "held_out"), ("data",)):
            lowest = np.nanmin([shown[name] for name in together]) - 1
            shown |= {name: shown[name] - lowest for name in together}
        for name, values in shown.items():
            if name not in self._curves and np.nan_to_num(values).any():
                self._add_curve(name)
                self._name_curves()
            if name in self._curves:
                self._curves[name].setData(self.epochs, np.maximum(values, _SMALLEST))
