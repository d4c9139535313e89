"""What atoms look like: decoded under the cursor beside the nearest real one, the mean of a selection, the manifold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from napari.layers import Image, Points
from numpy.typing import NDArray
from qtpy.QtCore import QPointF, QRectF, QSize, Qt, Signal
from qtpy.QtGui import QImage, QMouseEvent, QPainter, QPaintEvent
from qtpy.QtWidgets import QComboBox, QGridLayout, QHBoxLayout, QLabel, QPushButton, QSizePolicy, QVBoxLayout, QWidget

from napari_rvae.errors import RVAEError
from napari_rvae.layers import atoms_table, image_data, image_of, model_of
from napari_rvae.patches import NEIGHBOR_DISTANCES, nearest_neighbor_distance
from napari_rvae.widgets.atoms_link import AtomsLink
from napari_rvae.widgets.columns import is_latent

if TYPE_CHECKING:
    from napari.viewer import Viewer

_MOST_AVERAGED = 500
_PIXELS = 48
_STEPS = 9  # patches along each side of the manifold


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


class PatchPanel(QWidget):
    """Two pictures: the latent under the cursor and the atom nearest to it, or the mean and the spread of a selection.

    Parameters
    ----------
    viewer : Viewer
        Where the image is looked for when the points were not made on one.
    """

    def __init__(self, viewer: Viewer) -> None:
        super().__init__()
        self._viewer = viewer
        self._link: AtomsLink | None = None
        self._atoms: tuple[pd.DataFrame, Any, tuple[float, float], int] | None = None
        self._read: Any = None  # the table from which they were read
        self.left, self.right = Picture(), Picture()
        self.left_text, self.right_text, self.words = QLabel(), QLabel(), QLabel()
        grid = QGridLayout()
        for column, (picture, text) in enumerate(((self.left, self.left_text), (self.right, self.right_text))):
            text.setAlignment(Qt.AlignmentFlag.AlignCenter)
            text.setWordWrap(True)
            grid.addWidget(picture, 0, column)
            grid.addWidget(text, 1, column)
        grid.setRowStretch(0, 1)
        self.words.setWordWrap(True)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(4, 6, 4, 4)
        layout.addLayout(grid, 1)
        layout.addWidget(self.words)

    def set_link(self, link: AtomsLink | None) -> None:
        """Show the atoms of another layer."""
        self._link, self._atoms, self._read = link, None, None

    def refresh(self) -> None:
        """Show the selection: its mean, its spread, and what distinguishes it."""
        count = self._link.selection.count if self._link else 0
        if self._link is None or not count:
            self._show(None, None, "", "")
            self.words.setText("Move through the plot to see the patches there; select atoms to see their mean.")
            return
        rows = self._link.selection.rows
        if count > _MOST_AVERAGED:
            rows = np.random.default_rng(0).choice(rows, _MOST_AVERAGED, replace=False)
        patches = self._real(rows)
        some = f"{len(rows):,} of {count:,}" if count > _MOST_AVERAGED else f"{count:,}"
        if patches is None:
            self._show(None, None, "", "")
        else:
            self._show(patches.mean(axis=0), patches.std(axis=0), f"mean of {some}", "spread")
        self.words.setText(_described(self._link.table, self._link.selection.mask))

    def show_place(self, x_name: str, x: float, y_name: str, y: float, row: int) -> None:
        """Show what a place in the plot means.

        Parameters
        ----------
        x_name, y_name : str
            Columns on the axes.
        x, y : float
            The place.
        row : int
            Row of the atom nearest to it.
        """
        if self._link is None:
            return
        table = self._link.table
        decoded = self._decoded(table, {x_name: x, y_name: y}, row)
        real = self._real(np.array([row]))
        here = "decoded here" if is_latent(x_name) or is_latent(y_name) else "decoded"
        atom = f"nearest: atom {table['atom_id'].iloc[row]}"
        self._show(decoded, None if real is None else real[0], here if decoded is not None else "no model", atom)

    def _show(self, left: Any, right: Any, left_text: str, right_text: str) -> None:
        self.left.show_array(left)
        self.right.show_array(right)
        self.left_text.setText(left_text)
        self.right_text.setText(right_text)

    def _decoded(self, table: pd.DataFrame, place: dict[str, float], row: int) -> NDArray[Any] | None:
        model = model_of(self._link.layer) if self._link else None
        if model is None:
            return None
        from napari_rvae.latent import decode

        names = [f"z{number + 1}" for number in range(model.settings.latent)]
        z = [place.get(name, table[name].iloc[row] if name in table else 0.0) for name in names]
        kind = table["class"].iloc[row] if "class" in table and model.classes > 1 else None
        classes = None if kind is None or pd.isna(kind) else np.array([int(kind)])
        try:
            return np.hstack(list(decode(model, np.nan_to_num(np.array([z], dtype=float)), classes)[0]))
        except RVAEError:  # a conditional model cannot be asked without its condition
            return None

    def _real(self, rows: NDArray[np.intp]) -> NDArray[Any] | None:
        from napari_rvae.latent.common_frame import patches_in_common_frame

        if self._link is None:
            return None
        try:
            if self._atoms is None or self._read is not self._link.table:
                self._atoms, self._read = self._read_atoms(self._link.layer), self._link.table
            atoms, image, step, pixels = self._atoms
            return None if image is None else patches_in_common_frame(image, atoms.iloc[rows], step, pixels)
        except RVAEError:  # an image that does not belong to these points: then there is nothing to see
            return None

    def _read_atoms(self, layer: Points) -> tuple[pd.DataFrame, Any, tuple[float, float], int]:
        """Read atoms in the image's pixels, the image, and the size of a patch: the model's, if there is one."""
        fitting = [image for image in self._viewer.layers if isinstance(image, Image) and image.ndim == layer.ndim]
        image = image_of(layer) or (fitting[-1] if fitting else None)
        atoms, model, pixels = atoms_table(layer, image), model_of(layer), _PIXELS
        if model is not None and "step" in model.recipe:
            step, pixels = tuple(model.recipe["step"]), model.size
        else:
            step = (NEIGHBOR_DISTANCES * nearest_neighbor_distance(atoms) / pixels,) * 2
        usable = image is not None and not image.rgb and np.isfinite(step).all()
        return atoms, image_data(image) if usable else None, step, pixels


def _described(table: pd.DataFrame, mask: NDArray[np.bool_]) -> str:
    """Say where a selection differs from the other atoms: mean and spread of what was learned."""
    words = []
    for name in table:
        if not (is_latent(str(name)) or name in ("dy", "dx", "reconstruction_error")):
            continue
        values = table[name].to_numpy(np.float64, na_value=np.nan)[mask]
        if np.isfinite(values).any():
            words.append(f"{str(name).replace('_', ' ')} {np.nanmean(values):.3g} ± {np.nanstd(values):.2g}")
    if "frame" in table:
        frames = table["frame"][mask].nunique()
        words.append(f"in {frames} of {table['frame'].nunique()} frames")
    return " · ".join(words)


class ManifoldPanel(QWidget):
    """Decoded patches on a grid over two latents; a click shows where in the plot they lie.

    Parameters
    ----------
    viewer : Viewer
        Where the picture becomes an image layer.

    Attributes
    ----------
    pointed : Signal
        Names of two latents and their values, of the patch that was clicked.
    """

    pointed = Signal(str, float, str, float)

    def __init__(self, viewer: Viewer) -> None:
        super().__init__()
        self._viewer = viewer
        self._link: AtomsLink | None = None
        self._made_of: tuple[Any, ...] = ()
        self._center, self._extent = np.zeros(1), 1.0
        self._array: NDArray[Any] | None = None
        self.across, self.up = QComboBox(), QComboBox()
        self.picture = Picture()
        self.picture.clicked.connect(self._clicked)
        self.words = QLabel()
        self.words.setWordWrap(True)
        self.layer_button = QPushButton("As image layer")
        self.layer_button.clicked.connect(self.add_layer)
        row = QHBoxLayout()
        for name, box in (("across", self.across), ("up", self.up)):
            row.addWidget(QLabel(name))
            row.addWidget(box, 1)
            box.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
            box.setMinimumWidth(44)
            box.activated.connect(self._draw)
        row.addWidget(self.layer_button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(4, 6, 4, 4)
        layout.addLayout(row)
        layout.addWidget(self.picture, 1)
        layout.addWidget(self.words)

    def set_link(self, link: AtomsLink | None) -> None:
        """Show the model of another layer."""
        self._link = link

    def refresh(self) -> None:
        """Show the manifold of the layer's model, if it has one."""
        model = model_of(self._link.layer) if self._link else None
        names = [f"z{number + 1}" for number in range(model.settings.latent)] if model else []
        for place, box in enumerate((self.across, self.up)):
            if [box.itemText(row) for row in range(box.count())] != names:
                box.clear()
                box.addItems(names)
                box.setCurrentIndex(min(place, len(names) - 1))
        self._draw()

    def add_layer(self) -> None:
        """Add the picture to the viewer as an image layer."""
        if self._array is not None and self._link is not None:
            self._viewer.add_image(self._array, name=f"{self._link.layer.name} manifold")

    def _draw(self) -> None:
        model = model_of(self._link.layer) if self._link else None
        self.layer_button.setEnabled(model is not None)
        axes = (self.across.currentIndex(), self.up.currentIndex())
        if model is not None and (model, axes) == self._made_of:
            return
        self._made_of, self._array = (model, axes), None
        if model is None or self._link is None:
            self.words.setText("This layer has no model: train an rVAE, or load one, to see what its latents mean.")
        else:
            from napari_rvae.latent import manifold

            self._center, self._extent = _covered(self._link.table, model.settings.latent, axes)
            try:
                grid = manifold(model, steps=_STEPS, axes=axes, extent=self._extent, center=self._center)
            except RVAEError as error:  # a conditional model, for instance
                self.words.setText(str(error))
            else:
                # Upward as in the plot, not downward as in an image.
                size = model.size
                rows = [np.hstack(list(grid[:, top : top + size])) for top in range(0, grid.shape[1], size)]
                self._array = np.vstack(rows[::-1])
                self.words.setText(
                    "Decoded patches over the range of the atoms; click one to see its place in the plot."
                )
        self.picture.show_array(self._array)

    def _clicked(self, x: float, y: float) -> None:
        if self.across.currentIndex() == self.up.currentIndex():
            return  # one latent has no place in a plane
        right, down = (self._extent * (2 * int(fraction * _STEPS) / (_STEPS - 1) - 1) for fraction in (x, y))
        across, up = self.across.currentIndex(), self.up.currentIndex()
        self.pointed.emit(f"z{across + 1}", self._center[across] + right, f"z{up + 1}", self._center[up] - down)


def _covered(table: pd.DataFrame, count: int, axes: tuple[int, int]) -> tuple[NDArray[np.float64], float]:
    """Centre of all latents and the range of two of them in which nearly all atoms lie."""
    names = [f"z{number + 1}" for number in range(count)]
    values = table.reindex(columns=names).dropna().to_numpy(np.float64)
    if not len(values):
        return np.zeros(count), 2.0
    low, middle, high = np.percentile(values, (2, 50, 98), axis=0)
    reach = np.maximum(high - middle, middle - low)[list(axes)].max()
    return middle, float(reach) or 1.0
