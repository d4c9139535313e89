"""What the colours mean: a bar with its limits, or a swatch per class."""

from __future__ import annotations

from qtpy.QtCore import QRectF, QSize, Qt
from qtpy.QtGui import QColor, QImage, QPainter, QPaintEvent, QResizeEvent
from qtpy.QtWidgets import QSizePolicy, QWidget

from napari_rvae.widgets.scatter import ColorScale

_BAR = 12  # px


class Legend(QWidget):
    """The colours of a column, in the units that people read."""

    def __init__(self) -> None:
        super().__init__()
        self.scale: ColorScale | None = None
        self._gaps = False  # whether some atoms have no value
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)

    def show_scale(self, scale: ColorScale | None) -> None:
        """Show colours.

        Parameters
        ----------
        scale : ColorScale or None
            None shows nothing.
        """
        self.scale = scale
        self._gaps = scale is not None and bool((scale.index >= len(scale.lut) - 1).any())
        self.updateGeometry()
        self.update()

    def texts(self) -> list[str]:
        """List what is written: names of classes, or both ends of the scale and its title; and what grey means."""
        if self.scale is None:
            return []
        if self.scale.categorical:
            return [*self.scale.names, *["no value"] * self._gaps]
        low, high = self.scale.limits
        return [f"{low:.3g}", f"{high:.3g}", self.scale.label + " · grey: no value" * self._gaps]

    def sizeHint(self) -> QSize:
        """As many rows of swatches as there are, or the bar and its numbers."""
        if self.scale is None:
            return QSize(100, 0)
        rows = len(self._swatches()) if self.scale.categorical else 1
        return QSize(100, rows * self._line + (0 if self.scale.categorical else _BAR + 4))

    minimumSizeHint = sizeHint

    @property
    def _line(self) -> int:
        return self.fontMetrics().lineSpacing() + 2

    def _swatches(self) -> list[list[tuple[str, int, int]]]:
        """Text, number of the colour and place of every swatch, in rows that fit."""
        rows: list[list[tuple[str, int, int]]] = [[]]
        used = 0
        for number, text in enumerate(self.texts()):
            length = self.fontMetrics().horizontalAdvance(text) + _BAR + 14
            if used + length > max(self.width(), 120) and rows[-1]:
                rows.append([])
                used = 0
            rows[-1].append((text, number, used))
            used += length
        return rows

    def resizeEvent(self, _: QResizeEvent | None) -> None:
        """Break rows elsewhere."""
        self.updateGeometry()

    def paintEvent(self, _: QPaintEvent | None) -> None:
        """Paint it."""
        if self.scale is None:
            return
        painter = QPainter(self)
        painter.setPen(self.palette().text().color())
        colors = [QColor(*map(int, rgba)) for rgba in self.scale.lut]
        if self.scale.categorical:
            for place, row in enumerate(self._swatches()):
                for text, number, left in row:
                    color = colors[number] if number < len(self.scale.names) else colors[-1]
                    painter.fillRect(QRectF(left, place * self._line + 3, _BAR, _BAR), color)
                    painter.drawText(QRectF(left + _BAR + 4, place * self._line, 400, self._line), 0, text)
            return
        bar = QImage(len(colors) - 1, 1, QImage.Format.Format_RGB32)
        for place, color in enumerate(colors[:-1]):
            bar.setPixelColor(place, 0, color)
        painter.drawImage(QRectF(0, 0, self.width(), _BAR), bar)
        low, high, title = self.texts()
        below = QRectF(0, _BAR + 2, self.width(), self._line)
        painter.drawText(below, Qt.AlignmentFlag.AlignLeft, low)
        painter.drawText(below, Qt.AlignmentFlag.AlignRight, high)
        painter.drawText(below, Qt.AlignmentFlag.AlignHCenter, title)
