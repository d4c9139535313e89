"""What atoms look like: decoded under the cursor beside the nearest real one, or what is in a selection."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from napari.layers import Points
from numpy.typing import NDArray
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QGridLayout, QHBoxLayout, QLabel, QVBoxLayout, QWidget

from napari_rvae.errors import RVAEError
from napari_rvae.latent.common_frame import each_in_contrast
from napari_rvae.layers import Coloring, atoms_table, channels_of, image_data, model_of
from napari_rvae.patches import NEIGHBOR_DISTANCES, nearest_neighbor_distance
from napari_rvae.widgets.atoms_link import AtomsLink
from napari_rvae.widgets.columns import column_label, displayed_values, is_latent
from napari_rvae.widgets.explore_attribute import AttributeStrip
from napari_rvae.widgets.model_inputs import ModelInputs
from napari_rvae.widgets.parts import image_under
from napari_rvae.widgets.pictures import Bars, Picture
from napari_rvae.widgets.scatter import Histogram
from napari_rvae.widgets.selection import Mask

if TYPE_CHECKING:
    from napari.viewer import Viewer

    from napari_rvae.models import Model

_MOST_AVERAGED = 500
_PIXELS = 48
_HISTOGRAMS = ("angle", "dx", "dy")
_BINS = 36


class PatchPanel(QWidget):
    """Two pictures: the latent under the cursor and the atom nearest to it, or the mean and the spread of a selection.

    Below them, what is in the selection: means, histograms of angle and offset, the part of every frame.

    Parameters
    ----------
    viewer : Viewer
        Where the image is looked for when the points were not made on one.
    """

    def __init__(self, viewer: Viewer) -> None:
        super().__init__()
        self._viewer = viewer
        self._link: AtomsLink | None = None
        self._atoms: tuple[pd.DataFrame, list[Any], tuple[float, float], int] | None = None
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
        self.inputs = ModelInputs("the atom's")
        self.attribute = AttributeStrip(viewer)
        self.attribute.taken.connect(self.refresh)
        self.bars = {name: Bars() for name in (*_HISTOGRAMS, "frame")}
        row = QHBoxLayout()
        row.setSpacing(8)
        for bars in self.bars.values():
            row.addWidget(bars)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(4, 6, 4, 4)
        layout.addWidget(self.inputs)
        layout.addLayout(grid, 1)
        layout.addWidget(self.words)
        layout.addWidget(self.attribute)
        layout.addLayout(row)

    def set_link(self, link: AtomsLink | None) -> None:
        """Show the atoms of another layer."""
        self._link, self._atoms, self._read = link, None, None
        self.attribute.set_link(link)

    def refresh(self) -> None:
        """Show the selection: its mean, its spread, and what distinguishes it."""
        self.inputs.set_model(model_of(self._link.layer) if self._link else None)
        count = self._link.selection.count if self._link else 0
        self._show_attribute({}, self._link.selection.rows if self._link else np.zeros(0, np.intp), "The mean")
        if self._link is None or not count:
            self._show(None, None, "", "")
            self.words.setText("Move over the plot or the image to see patches; select atoms to see their mean.")
            for bars in self.bars.values():
                bars.hide()
            return
        rows = self._link.selection.rows
        if count > _MOST_AVERAGED:
            rows = np.random.default_rng(0).choice(rows, _MOST_AVERAGED, replace=False)
        patches = self._real(rows)
        some = f"{len(rows):,} of {count:,}" if count > _MOST_AVERAGED else f"{count:,}"
        if patches is None:
            self._show(None, None, "", "")
        elif count == 1:
            self._show(patches[0], None, f"atom {self._link.selection.ids[rows[0]]}", "")
        else:
            self._show(patches.mean(axis=0), patches.std(axis=0), f"mean of {some}", "spread")
        self.words.setText(_described(self._link.table, self._link.selection.mask))
        self._show_bars(self._link.table, self._link.selection.mask)

    def _show_bars(self, table: pd.DataFrame, mask: Mask) -> None:
        for name, bars in self.bars.items():
            values = displayed_values(table, name) if name in table else np.full(len(table), np.nan)
            values = np.where(np.isfinite(values), values, np.nan)
            several = name != "frame" or len(np.unique(values)) > 1
            bars.setVisible(bool(np.isfinite(values).any()) and several)
            if bars.isHidden():
                continue
            if name == "frame":
                bars.show_histogram("% per frame", _by_frame(values, mask), fractions=True)
            else:
                bars.show_histogram(column_label(name), _counted(values, mask, _ends(table, name, values)))

    def show_place(self, place: Mapping[str, float], rows: NDArray[np.intp]) -> None:
        """Show what a place in the plot means, or an atom in the image.

        Parameters
        ----------
        place : mapping of str to float
            Columns on the axes and the values there; nothing for the atom itself.
        rows : array of int
            Row of the atom, or of those nearest to the place: of four all are shown.
        """
        if self._link is None:
            return
        table = self._link.table
        rows = rows if len(rows) == 4 else rows[:1]
        decoded = self._decoded(table, place, int(rows[0]))
        real = self._real(rows)
        if real is not None:
            real = _tiled(real) if len(real) == 4 else real[0]
        here = "decoded here" if any(map(is_latent, place)) else "decoded"
        names = ", ".join(map(str, table["atom_id"].iloc[rows]))
        atoms = f"{'nearest: ' if place else ''}atom{'s' * (len(rows) > 1)} {names}"
        self._show(decoded, real, here if decoded is not None else "no model", atoms)
        self._show_attribute(place, rows[:1], "What is decoded here" if any(map(is_latent, place)) else f"Atom {names}")

    def _show(self, left: Any, right: Any, left_text: str, right_text: str) -> None:
        self.left.show_array(left)
        self.right.show_array(right)
        self.left_text.setText(left_text)
        self.right_text.setText(right_text)

    def _decoded(self, table: pd.DataFrame, place: Mapping[str, float], row: int) -> NDArray[Any] | None:
        model = model_of(self._link.layer) if self._link else None
        if model is None:
            return None
        from napari_rvae.latent import decode

        z, kind = self._content(model, table, place, np.array([row]))
        try:
            condition = self.inputs.condition_of(table, np.array([row]))
            patch = decode(model, z[np.newaxis], [kind], condition)[0]
        except RVAEError:  # the model was exchanged a moment ago
            return None
        return np.hstack(list(each_in_contrast(patch, model)))

    def _content(
        self, model: Model, table: pd.DataFrame, place: Mapping[str, float], rows: NDArray[np.intp]
    ) -> tuple[NDArray[np.float64], int]:
        """Mean latents of some atoms, moved to a place in the plot, and the class of most of them or the chosen one."""
        names = [f"z{number + 1}" for number in range(model.settings.latent)]
        values = table.reindex(columns=names).iloc[rows].to_numpy(np.float64, na_value=np.nan)
        known = values[np.isfinite(values).all(1)]
        mean = known.mean(0) if len(known) else np.zeros(len(names))
        kind = self.inputs.kind
        if kind is None and "class" in table and model.classes > 1:
            most = table["class"].iloc[rows].mode()
            kind = int(most.iloc[0]) if len(most) else 0
        z = np.array([place.get(name, own) for name, own in zip(names, mean, strict=True)])
        return np.nan_to_num(z), min(kind or 0, model.classes - 1)

    def _show_attribute(self, place: Mapping[str, float], rows: NDArray[np.intp], name: str) -> None:
        model = model_of(self._link.layer) if self._link else None
        z, kind, condition = None, 0, None
        if self._link is not None and model is not None and len(rows):
            z, kind = self._content(model, self._link.table, place, rows)
            condition = self.inputs.condition_of(self._link.table, rows)
        self.attribute.show_patch(model, z, kind, condition, name)

    def _real(self, rows: NDArray[np.intp]) -> NDArray[Any] | None:
        from napari_rvae.latent.common_frame import patches_in_common_frame

        if self._link is None:
            return None
        try:
            if self._atoms is None or self._read is not self._link.table:
                self._atoms, self._read = self._read_atoms(self._link.layer), self._link.table
            atoms, images, step, pixels = self._atoms
            parts = np.array([patches_in_common_frame(image, atoms.iloc[rows], step, pixels) for image in images])
            model = model_of(self._link.layer)
            parts = parts if model is None else each_in_contrast(parts, model, level=True)
            return np.concatenate(list(parts), axis=-1) if len(parts) else None
        except RVAEError as error:  # an image that does not belong to these points, or a channel that is gone
            self.words.setText(str(error))
            return None

    def _read_atoms(self, layer: Points) -> tuple[pd.DataFrame, list[Any], tuple[float, float], int]:
        """Read atoms in the image's pixels, its channels, and the size of a patch: the model's, if there is one."""
        image = image_under(layer, self._viewer)
        atoms, model, pixels = atoms_table(layer, image), model_of(layer), _PIXELS
        if model is not None and "step" in model.recipe:
            step, pixels = tuple(model.recipe["step"]), model.size
        else:
            step = (NEIGHBOR_DISTANCES * nearest_neighbor_distance(atoms) / pixels,) * 2
        usable = image is not None and not image.rgb and np.isfinite(step).all()
        images = [image_data(one) for one in channels_of(layer) or [image]] if usable else []
        return atoms, images, step, pixels


def _tiled(patches: NDArray[Any]) -> NDArray[Any]:
    """Four patches in a square, with a line between them."""
    framed = np.pad(patches, ((0, 0), (1, 1), (1, 1)), constant_values=patches.max())
    return np.block([[*framed[:2]], [*framed[2:]]])


def _with_spread(mean: float, spread: float) -> str:
    """Write a mean to the digit that its spread allows."""
    if not spread > 0:
        return f"{mean:.3g}"
    digits = max(1 - int(np.floor(np.log10(spread))), 0)
    return f"{mean + 0.0:.{digits}f} ± {spread:.{digits}f}"


def _described(table: pd.DataFrame, mask: NDArray[np.bool_]) -> str:
    """Say where a selection differs from the other atoms: mean and spread of what was learned."""
    words = []
    for name in table:
        if not (is_latent(str(name)) or name in ("dy", "dx", "reconstruction_error")):
            continue
        values = table[name].to_numpy(np.float64, na_value=np.nan)[mask]
        if np.isfinite(values).any():
            words.append(f"{str(name).replace('_', ' ')} {_with_spread(np.nanmean(values), np.nanstd(values))}")
    if "frame" in table:
        frames = table["frame"][mask].nunique()
        words.append(f"in {frames} of {table['frame'].nunique()} frames")
    return " · ".join(words)


def _ends(table: pd.DataFrame, name: str, values: NDArray[np.float64]) -> tuple[float, float]:
    """Both ends of a histogram: the period of angles, elsewhere where nearly all values lie."""
    if name == "angle":
        low, high = np.degrees(Coloring.of(table, name).limits)
    else:
        low, high = np.nanpercentile(values, (0.5, 99.5))
    return (float(low), float(high)) if high > low else (float(low) - 0.5, float(low) + 0.5)


def _counted(values: NDArray[np.float64], mask: Mask, ends: tuple[float, float]) -> Histogram:
    low, high = ends
    known = np.isfinite(values)
    counts, edges = np.histogram(values[known].clip(low, high), _BINS, ends)
    return Histogram(edges, counts, np.histogram(values[known & mask].clip(low, high), _BINS, ends)[0])


def _by_frame(values: NDArray[np.float64], mask: Mask) -> Histogram:
    frames = np.nan_to_num(values).astype(np.int64)
    first, bins = frames.min(), int(np.ptp(frames)) + 1
    counts, selected = (np.bincount(some - first, minlength=bins) for some in (frames, frames[mask]))
    return Histogram(first + np.arange(bins + 1.0), counts, selected)
