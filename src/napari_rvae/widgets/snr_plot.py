"""How far atoms stand out of the noise: a histogram, with the limit of detection."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtWidgets import QVBoxLayout, QWidget

_BINS = 48
_LEAST = 1.0  # standard deviation of the noise: what is below is not told apart


class SnrPlot(QWidget):
    """Numbers of atoms over their signal-to-noise ratio, on a logarithmic axis, and the threshold as a line."""

    def __init__(self) -> None:
        super().__init__()
        self.setFixedHeight(120)
        self.setToolTip(
            "<p>How far atoms stand out, in standard deviations of the noise. The line is the threshold: where the "
            "histogram falls to nothing before it, nearly all atoms are found; where it cuts the histogram, atoms are "
            "missing. Atoms left of it were found because the lattice around them predicts them.</p>"
        )
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self._items: Any = None  # made when there is something to draw: it takes a while
        self.setVisible(False)

    def _make_plot(self) -> None:
        import pyqtgraph as pg

        plot = pg.PlotWidget(background=None)
        plot.setLabel("bottom", "signal / noise")
        plot.setLabel("left", "atoms")
        plot.setLogMode(x=True)
        plot.setMouseEnabled(x=False, y=False)
        ticks = [digit * 10**power for power in range(5) for digit in (1, 2, 5)]
        plot.getAxis("bottom").setTicks([[(np.log10(value), f"{value:,}") for value in ticks]])
        plot.getPlotItem().layout.setContentsMargins(0, 6, 4, 5)  # or half of its words would be cut off
        plot.hideButtons()
        plot.setMenuEnabled(False)
        menu = plot.getPlotItem().ctrlMenu
        menu.setParent(plot, menu.windowFlags())  # it would outlive the plot
        bars = plot.plot(stepMode="center", fillLevel=0, brush="#56B4E9", pen=None)
        line = pg.InfiniteLine(angle=90, pen=pg.mkPen("#E69F00", width=2))
        plot.addItem(line)
        self._items = bars, line
        self.layout().addWidget(plot)

    def show_atoms(self, snr: NDArray[Any] | None, threshold: float = 0.0) -> None:
        """Show a histogram.

        Parameters
        ----------
        snr : numpy.ndarray or None
            (n,) signal-to-noise ratios; None or none of them hides the plot.
        threshold : float
            The limit of detection.
        """
        self.setVisible(snr is not None and len(snr) > 0 and threshold > 0)
        if not self.isVisibleTo(self.parentWidget()):
            return
        if self._items is None:
            self._make_plot()
        bars, line = self._items
        values = np.maximum(np.asarray(snr, float), _LEAST)
        highest = max(float(values.max()), threshold)
        edges = np.geomspace(min(float(values.min()), threshold) / 1.1, highest * 1.1, _BINS + 1)
        bars.setData(edges, np.histogram(values, edges)[0])
        line.setValue(np.log10(threshold))
