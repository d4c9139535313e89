"""Which atoms are selected, and how to go back: plain models that know neither Qt nor napari.

A selection is one boolean per atom. Plot, image and class list all read the same one and write to it through
`Selection.combine`; every change says who made it, so that nobody answers an echo of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from psygnal import Signal

Mode = Literal["replace", "add", "subtract", "intersect"]
Mask = NDArray[np.bool_]
Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Step:
    """One thing that was done: what it is called, how it is taken back and how it is done again."""

    name: str
    undo: Callable[[], None]
    redo: Callable[[], None]


class History:
    """Undo and redo, one list for everything that can be taken back.

    Parameters
    ----------
    limit : int
        So many steps are kept; the oldest are forgotten first.
    """

    changed = Signal()

    def __init__(self, limit: int = 200) -> None:
        self._limit = limit
        self._done: list[Step] = []
        self._undone: list[Step] = []

    def push(self, step: Step) -> None:
        """Remember a step that has just been done; what was undone before cannot be redone any more."""
        self._done = [*self._done, step][-self._limit :]
        self._undone.clear()
        self.changed.emit()

    def undo(self) -> None:
        """Take the latest step back, if there is one."""
        if self._done:
            step = self._done.pop()
            self._undone.append(step)
            step.undo()
            self.changed.emit()

    def redo(self) -> None:
        """Do the step again that was taken back last, if there is one."""
        if self._undone:
            step = self._undone.pop()
            self._done.append(step)
            step.redo()
            self.changed.emit()

    @property
    def next_undo(self) -> str | None:
        """Name of the step that `undo` would take back."""
        return self._done[-1].name if self._done else None

    @property
    def next_redo(self) -> str | None:
        """Name of the step that `redo` would do again."""
        return self._undone[-1].name if self._undone else None


class Selection:
    """A boolean per atom, tied to the atoms' identities and not to their rows.

    Parameters
    ----------
    ids : array of int64
        ``atom_id`` of every row.
    history : History, optional
        Where changes are remembered.

    Attributes
    ----------
    changed : psygnal.Signal
        Emitted after every change with the name of who made it.
    """

    changed = Signal(str)

    def __init__(self, ids: ArrayLike = (), history: History | None = None) -> None:
        self._ids: Ids = np.asarray(ids, dtype=np.int64)
        self._mask: Mask = np.zeros(len(self._ids), dtype=bool)
        self.history = history or History()

    @property
    def ids(self) -> Ids:
        """``atom_id`` of every row."""
        return self._ids

    @property
    def mask(self) -> Mask:
        """True for the selected rows; a view that cannot be written to."""
        view = self._mask.view()
        view.flags.writeable = False
        return view

    @property
    def count(self) -> int:
        """Number of selected atoms."""
        return int(np.count_nonzero(self._mask))

    @property
    def rows(self) -> NDArray[np.intp]:
        """Rows of the selected atoms."""
        return np.flatnonzero(self._mask)

    def combine(self, mask: ArrayLike, mode: Mode = "replace", source: str = "") -> None:
        """Combine the selection with other atoms.

        Parameters
        ----------
        mask : array of bool, one per row
            The atoms that were picked.
        mode : {"replace", "add", "subtract", "intersect"}
            What they do to the selection.
        source : str
            Who asks; handed on to whoever listens.
        """
        picked = np.asarray(mask, dtype=bool)
        if picked.shape != self._mask.shape:
            raise ValueError(f"a selection of {len(self._mask)} atoms cannot take a mask of shape {picked.shape}")
        combined: dict[Mode, Callable[[], Mask]] = {
            "replace": lambda: picked.copy(),
            "add": lambda: self._mask | picked,
            "subtract": lambda: self._mask & ~picked,
            "intersect": lambda: self._mask & picked,
        }
        self._change(combined[mode](), source)

    def invert(self, source: str = "") -> None:
        """Select what is not selected, and the other way round."""
        self._change(~self._mask, source)

    def clear(self, source: str = "") -> None:
        """Select nothing."""
        self._change(np.zeros_like(self._mask), source)

    def set_atoms(self, ids: ArrayLike) -> None:
        """Follow the table: rows may have come, gone or changed places; atoms that remain stay selected.

        Parameters
        ----------
        ids : array of int64
            ``atom_id`` of every row as it is now.
        """
        new_ids = np.asarray(ids, dtype=np.int64)
        if np.array_equal(new_ids, self._ids):
            return
        self._mask = np.isin(new_ids, self._ids[self._mask])
        self._ids = new_ids
        self.changed.emit("atoms")

    def _change(self, mask: Mask, source: str) -> None:
        if np.array_equal(mask, self._mask):
            return
        before, after = self._memory(self._mask), self._memory(mask)
        self._mask = mask
        count = self.count
        name = f"select {count:,} atom{'s' * (count != 1)}" if count else "clear selection"
        self.history.push(Step(name, before, after))
        self.changed.emit(source)

    def _memory(self, mask: Mask) -> Callable[[], None]:
        """Return a function that brings `mask` back, even when the atoms have changed since; one bit per atom."""
        ids, packed = self._ids, np.packbits(mask)

        def restore() -> None:
            remembered = np.unpackbits(packed, count=len(ids)).astype(bool)
            same = ids is self._ids or np.array_equal(ids, self._ids)
            self._mask = remembered if same else np.isin(self._ids, ids[remembered])
            self.changed.emit("history")

        return restore
