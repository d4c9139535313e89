"""The selection is a set of atoms: its algebra, its memory and who is told what."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_rvae.widgets.selection import History, Selection, Step

MODES = {
    "replace": lambda old, picked: picked,
    "add": lambda old, picked: old | picked,
    "subtract": lambda old, picked: old - picked,
    "intersect": lambda old, picked: old & picked,
}
atoms = st.sets(st.integers(0, 30), max_size=31)
gestures = st.lists(st.tuples(st.sampled_from([*MODES, "invert", "clear"]), atoms), max_size=12)


def selected(selection):
    return set(selection.ids[selection.mask].tolist())


def do(selection, gesture, picked):
    if gesture in MODES:
        selection.combine(np.isin(selection.ids, list(picked)), gesture)
    else:
        getattr(selection, gesture)()


@given(ids=atoms, steps=gestures)
def test_gestures_do_what_sets_do_and_undo_walks_back_through_all_of_them(ids, steps):
    selection = Selection(sorted(ids))
    expected: set[int] = set()
    visited = [expected]
    for gesture, picked in steps:
        do(selection, gesture, picked)
        if gesture in MODES:
            expected = MODES[gesture](expected, picked & ids)
        else:
            expected = ids - expected if gesture == "invert" else set()
        assert selected(selection) == expected
        assert selection.count == len(expected) == len(selection.rows)
        if expected != visited[-1]:
            visited.append(expected)
    for state in reversed(visited[:-1]):
        selection.history.undo()
        assert selected(selection) == state
    assert selection.history.next_undo is None
    for state in visited[1:]:
        selection.history.redo()
        assert selected(selection) == state
    assert selection.history.next_redo is None


@given(before=st.permutations(range(12)), after=st.permutations(range(6, 20)), picked=atoms)
def test_atoms_keep_their_selection_whatever_row_they_are_in(before, after, picked):
    selection = Selection(before)
    do(selection, "replace", picked)
    selection.set_atoms(after)
    assert selected(selection) == picked & set(before) & set(after)
    selection.clear()
    selection.history.undo()
    selection.history.undo()
    assert selected(selection) == set()
    selection.history.redo()
    assert selected(selection) == picked & set(before) & set(after)


def test_every_change_says_who_made_it_and_no_change_says_nothing():
    selection = Selection(range(4))
    told = []
    selection.changed.connect(told.append)
    selection.combine([True, False, False, False], source="plot")
    selection.combine([True, False, False, False], source="image")
    selection.combine([False] * 4, "add", source="image")
    selection.invert("button")
    selection.set_atoms([0, 1, 2, 3])
    selection.set_atoms([3, 2])
    selection.history.undo()
    assert told == ["plot", "button", "atoms", "history"]


def test_the_mask_belongs_to_the_selection_alone():
    selection = Selection(range(3))
    picked = np.array([True, False, True])
    selection.combine(picked)
    picked[:] = False
    assert selection.count == 2
    with pytest.raises(ValueError, match="read-only"):
        selection.mask[0] = False
    with pytest.raises(ValueError, match="3 atoms"):
        selection.combine([True])


def test_history_forgets_the_oldest_and_what_was_undone_before_a_new_step():
    values = [0]
    history = History(limit=3)

    def step(value):
        old = values[0]
        values[0] = value
        history.push(Step(f"set {value}", lambda: values.__setitem__(0, old), lambda: values.__setitem__(0, value)))

    for value in range(1, 6):
        step(value)
    for _ in range(9):
        history.undo()
    assert values == [2]
    history.redo()
    assert (values, history.next_undo, history.next_redo) == ([3], "set 3", "set 4")
    step(10)
    assert history.next_redo is None
    history.redo()
    assert values == [10]
