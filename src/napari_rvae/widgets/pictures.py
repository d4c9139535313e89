"""Small things that are painted: a grey picture, a histogram of all atoms and of the selected ones."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QPointF, QRectF, QSize, Qt, Signal
from qtpy.QtGui import QColor, QImage, QMouseEvent, QPainter, QPaintEvent
from qtpy.QtWidgets import QSizePolicy, QWidget

from napari_rvae.widgets.scatter import Histogram

_BARS = 44  # height of the bars, px


class Picture(QWidget):
    """A grey picture that fills its widget as far as its shape allows.

    Attributes
    ----------
    clicked : Signal
        Where it was clicked: fractions of width and height, from the upper left corner.
    """

    clicked = Signal(float, float)

    def __init__(self) -> None:
        super().__init__()
        self._image: QImage | None = None
        self.setMinimumSize(72, 72)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)

    def sizeHint(self) -> QSize:
        """Square, and not large."""
        return QSize(110, 110)

    def show_array(self, array: NDArray[Any] | None) -> None:
        """Show an array in the contrast of nearly all its values; None shows nothing."""
        self._image = None if array is None else _grey_image(np.asarray(array, dtype=float))
        self.update()

    def paintEvent(self, _: QPaintEvent | None) -> None:
        """Paint the picture, as large as it fits."""
        if self._image is None:
            return
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform)
        painter.drawImage(self._frame().toRect(), self._image)

    def mousePressEvent(self, a0: QMouseEvent | None) -> None:
        """Tell where it was clicked."""
        if a0 is None or self._image is None:
            return
        frame = self._frame()
        place: QPointF = a0.position() - frame.topLeft()
        x, y = place.x() / frame.width(), place.y() / frame.height()
        if 0 <= x < 1 and 0 <= y < 1:
            self.clicked.emit(x, y)

    def _frame(self) -> QRectF:
        if self._image is None:
            return QRectF()
        factor = min(self.width() / self._image.width(), self.height() / self._image.height())
        width, height = factor * self._image.width(), factor * self._image.height()
        return QRectF((self.width() - width) / 2, (self.height() - height) / 2, width, height)


def _grey_image(array: NDArray[np.float64]) -> QImage:
    low, high = np.percentile(array, (0.5, 99.5))
    grey = np.clip((array - low) * (255 / ((high - low) or 1.0)), 0, 255).astype(np.uint8)
    height, width = grey.shape
    # The copy owns its pixels: the array's may go.
    return QImage(grey.tobytes(), width, height, width, QImage.Format.Format_Grayscale8).copy()


class Bars(QWidget):
    """A histogram of all atoms, faint, and of the selected ones, strong, each as high as there is room."""

    def __init__(self) -> None:
        super().__init__()
        self.histogram: Histogram | None = None
        self.title = ""
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)

    def sizeHint(self) -> QSize:
        """Room for the bars and two lines of text."""
        return QSize(90, _BARS + 2 * self.fontMetrics().lineSpacing())

    def minimumSizeHint(self) -> QSize:
        """Narrow enough that four fit beside each other into a dock."""
        return QSize(64, self.sizeHint().height())

    def show_histogram(self, title: str, histogram: Histogram, *, fractions: bool = False) -> None:
        """Show counts.

        Parameters
        ----------
        title : str
            What is counted, with its unit.
        histogram : Histogram
            Counts of all atoms and of the selected ones.
        fractions : bool
            Show which part of each bin is selected, between 0 and 100 %, instead of both counts; one bin per frame.
        """
        self.title, self.histogram, self._fractions = title, histogram, fractions
        self.setToolTip(f"<p>{title}: {'part that is selected' if fractions else 'all atoms, selected atoms'}</p>")
        self.update()

    def paintEvent(self, _: QPaintEvent | None) -> None:
        """Paint the bars, the title above and both ends of the axis below."""
        if self.histogram is None:
            return
        painter = QPainter(self)
        text = self.palette().text().color()
        painter.setPen(text)
        line = self.fontMetrics().lineSpacing()
        centred, left, right = Qt.AlignmentFlag.AlignHCenter, Qt.AlignmentFlag.AlignLeft, Qt.AlignmentFlag.AlignRight
        painter.drawText(QRectF(0, 0, self.width(), line), centred, self.title)
        counts, selected, edges = self.histogram.counts, self.histogram.selected, self.histogram.edges
        faint = QColor(text)
        faint.setAlpha(90)
        if self._fractions:
            heights = [(np.ones(len(counts)), faint), (selected / np.maximum(counts, 1), text)]
        else:
            heights = [(counts / max(counts.max(), 1), faint), (selected / max(selected.max(), 1), text)]
            heights[1] = (heights[1][0], QColor(text.red(), text.green(), text.blue(), 170))
        width = self.width() / len(counts)
        for values, color in heights:
            for place, value in enumerate(values):
                bar = QRectF(place * width, line + _BARS * (1 - value), max(width - 0.5, 0.5), _BARS * value)
                painter.fillRect(bar, color)
        below = QRectF(0, line + _BARS, self.width(), line)
        for alignment, value in (
            (left, edges[0]),
            (right, edges[-1] - self._fractions),
        ):  # bins of frames: the last one
            painter.drawText(below, alignment, f"{value:.3g}")
