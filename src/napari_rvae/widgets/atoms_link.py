"""The link between one points layer and its selection, live in both directions; napari, but no Qt.

The layer's features are the only store of values; here are only the selection, its history and what is plotted. Rows
come and go under napari's tools, so every event starts with reading the identities anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from napari.layers import Points
from psygnal import Signal

from napari_rvae.layers import identify, set_features
from napari_rvae.widgets.selection import History, Ids, Mask, Selection, Step

HIGHLIGHT = (1.0, 1.0, 1.0, 1.0)
"""Border of a selected atom."""
_HIGHLIGHT_WIDTH = 0.35  # of the point's size
# Setting napari's own selection costs seconds for very many points: larger ones are shown, but not handed on.
MOST_MIRRORED = 2000

Columns = Mapping[str, "pd.Series[Any] | None"]


class AtomsLink:
    """A points layer, the selection of its atoms, and the history of both.

    Parameters
    ----------
    layer : Points
        Its points get an ``atom_id`` if they have none.

    Attributes
    ----------
    selection : Selection
        Which atoms are selected; shown as a bright border in the image, and in napari's own selection.
    history : History
        Undo and redo of selections and of columns.
    x, y, color : str
        Columns that are plotted; empty before the first drawing.
    chosen : bool
        The axes were chosen by hand.
    changed : psygnal.Signal
        The features or the rows of the layer have changed.
    lit : psygnal.Signal
        Other atoms are selected: the link itself.
    """

    changed = Signal()
    lit = Signal(object)

    def __init__(self, layer: Points) -> None:
        identify(layer)
        self.layer = layer
        self.history = History()
        self.selection = Selection(self.table["atom_id"], self.history)
        self.x = ""
        self.y = ""
        self.color = ""
        self.chosen = False
        self._plain = self._plain_border()
        self._mirroring = False
        self.selection.changed.connect(self._selection_changed)
        # After the layer's other listeners: one of them gives new points their identity.
        layer.events.data.connect(self._layer_changed, position="last")
        layer.events.features.connect(self._layer_changed, position="last")
        layer.selected_data.events.items_changed.connect(self._picked_in_image)

    @property
    def table(self) -> pd.DataFrame:
        """The layer's features."""
        return self.layer.features

    def close(self) -> None:
        """Let go of the layer; its borders are as they were."""
        self.selection.changed.disconnect(self._selection_changed)
        self.layer.events.data.disconnect(self._layer_changed)
        self.layer.events.features.disconnect(self._layer_changed)
        self.layer.selected_data.events.items_changed.disconnect(self._picked_in_image)
        self._show_border(np.zeros(len(self.layer.data), dtype=bool))

    def edit(self, name: str, columns: Columns, ids: Ids | None = None) -> None:
        """Write columns of the features as one step that can be taken back.

        Parameters
        ----------
        name : str
            What is done, for the undo button.
        columns : mapping of str to Series or None
            New values; None removes the column.
        ids : array of int64, optional
            Identity of the atom of each value; that of the rows as they are when None.
        """
        now = self.selection.ids
        new_ids = now if ids is None else ids
        before = {column: self.table.get(column) for column in columns}
        self.history.push(Step(name, lambda: self._write(now, before), lambda: self._write(new_ids, columns)))
        self._write(new_ids, columns)

    def _write(self, ids: Ids, columns: Columns) -> None:
        table = self.table.copy()
        for name, values in columns.items():
            if values is None:
                table = table.drop(columns=name, errors="ignore")
            else:
                # Rows may have come and gone since the values were read.
                same = len(ids) == len(table) and np.array_equal(ids, table["atom_id"])
                by_id = pd.Series(values.array, index=ids)
                table[name] = (by_id if same else by_id.reindex(table["atom_id"])).array
        set_features(self.layer, table)

    def _synchronize(self) -> bool:
        """Follow the rows; False in the middle of a change, when rows and identities do not fit yet."""
        table = self.table
        if "atom_id" not in table or len(table) != len(self.layer.data):
            return False
        ids = table["atom_id"].to_numpy()
        if np.array_equal(ids, self.selection.ids):
            return True
        if ids.dtype.kind not in "iu" or len(np.unique(ids)) < len(ids):
            return False
        self.selection.set_atoms(ids)
        return True

    def _layer_changed(self) -> None:
        if self._synchronize():
            self._show_border(self.selection.mask)  # points added by hand may have inherited a bright border
            self.changed.emit()

    def _picked_in_image(self) -> None:
        if not self._mirroring and self._synchronize():
            mask = np.zeros(len(self.layer.data), dtype=bool)
            mask[list(self.layer.selected_data)] = True
            self.selection.combine(mask, source="image")

    def _selection_changed(self, source: str) -> None:
        if len(self.selection.mask) != len(self.layer.data):
            return
        self._show_border(self.selection.mask)
        self.lit.emit(self)
        if source in ("image", "atoms"):
            return
        self._mirroring = True
        try:
            count = self.selection.count
            self.layer.selected_data = set(self.selection.rows.tolist()) if count <= MOST_MIRRORED else set()
        finally:
            self._mirroring = False

    def _show_border(self, mask: Mask) -> None:
        colors, widths = self.layer.border_color, self.layer.border_width
        shown = (colors == np.array(HIGHLIGHT, colors.dtype)).all(axis=1) & (widths == _HIGHLIGHT_WIDTH)
        if np.array_equal(shown, mask):
            return
        colors, widths = colors.copy(), widths.copy()
        colors[shown & ~mask], widths[shown & ~mask] = self._plain
        colors[mask], widths[mask] = HIGHLIGHT, _HIGHLIGHT_WIDTH
        self.layer.border_color = colors
        self.layer.border_width = widths

    def _plain_border(self) -> tuple[Any, float]:
        if len(self.layer.data):
            return self.layer.border_color[0].copy(), float(self.layer.border_width[0])
        return (0.0, 0.0, 0.0, 1.0), 0.08
