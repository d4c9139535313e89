"""Cells against a brute-force search and against lattices whose cells are known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from napari_rvae.errors import InputDataError
from napari_rvae.latent import cell_labels, cell_numbers, cell_outlines


def table(positions, ids=None, frames=None):
    positions = np.asarray(positions, dtype=float).reshape(-1, 2)
    atoms = pd.DataFrame({"atom_id": np.arange(len(positions)) if ids is None else ids})
    if frames is not None:
        atoms["frame"] = frames
    return atoms.assign(y=positions[:, 0], x=positions[:, 1])


def brute_force(atoms, shape, radius):
    rows, columns = np.indices(shape)
    squared = (rows[..., None] - atoms["y"].to_numpy()) ** 2 + (columns[..., None] - atoms["x"].to_numpy()) ** 2
    nearest = squared.argmin(axis=-1)
    labels = atoms["atom_id"].to_numpy()[nearest] + 1
    return np.where(squared.min(axis=-1) <= radius**2, labels, 0)


@pytest.mark.parametrize("radius", [0.4, 3.0, 7.5, 200.0])
def test_agrees_with_a_search_over_all_atoms(radius):
    rng = np.random.default_rng(3)
    # Some atoms lie outside: their cells still reach into the image.
    atoms = table(rng.uniform(-4, 64, (60, 2)), ids=rng.permutation(1000)[:60])
    labels = cell_labels(atoms, (50, 61), radius=radius)
    assert labels.dtype == np.int32
    np.testing.assert_array_equal(labels, brute_force(atoms, (50, 61), radius))


def test_default_radius_fills_a_square_lattice_and_leaves_a_vacancy_open():
    y, x = (axis.ravel() for axis in np.mgrid[5:95:10, 5:95:10])
    full = cell_labels(table(np.column_stack([y, x])), (90, 90))
    assert (full > 0).all()
    assert np.unique(full, return_counts=True)[1][40] == 100  # the middle atom's cell has the lattice's area

    vacancy = (y == 45) & (x == 45)
    open_ = cell_labels(table(np.column_stack([y, x])[~vacancy]), (90, 90))
    assert open_[45, 45] == 0
    assert (open_ == 0).mean() < 0.02


def test_stacks_are_labelled_frame_by_frame():
    atoms = table([[2, 2], [7, 7], [2, 7]], ids=[4, 5, 6], frames=[0, 0, 2])
    labels = cell_labels(atoms, (3, 10, 10), radius=100)
    assert set(np.unique(labels[0])) == {5, 6}
    assert (labels[1] == 0).all()
    assert (labels[2] == 7).all()


def test_atoms_at_the_same_place_and_a_lone_atom_are_no_trouble():
    assert set(np.unique(cell_labels(table([[5, 5], [5, 5]]), (10, 10)))) == {0, 1}
    lone = cell_labels(table([[50, 50]]), (100, 100))
    assert lone[50, 50] == 1
    assert lone[50, 61] == 0
    assert not cell_labels(table([]), (8, 8)).any()


@pytest.mark.parametrize(
    ("atoms", "shape", "words"),
    [
        (table([[1, 1]]).drop(columns="y"), (5, 5), "no column y"),
        (table([[1, 1]]), (2, 5, 5), "no column frame"),
        (table([[1, 1]]), (5,), "shape of an image"),
        (table([[np.nan, 1]]), (5, 5), "no position"),
        (table([[1, 1], [2, 2]], ids=[1, 1]), (5, 5), "different whole numbers"),
        (table([[1, 1]], ids=[2**31]), (5, 5), "different whole numbers"),
        (table([[1, 1], [2, 2]], frames=[0, 1]), (5, 5), "several frames"),
    ],
)
def test_bad_tables_are_named(atoms, shape, words):
    with pytest.raises(InputDataError, match=words):
        cell_labels(atoms, shape)


def test_a_radius_of_nothing_is_refused():
    with pytest.raises(InputDataError, match="above 0"):
        cell_labels(table([[1, 1]]), (5, 5), radius=0)


def test_cells_take_numbers_of_their_atoms():
    atoms = table([(5, 5), (5, 15), (15, 5)], ids=[7, 2, 40])
    cells = cell_labels(atoms, (20, 20), radius=3)
    # One atom has no number, another no cell.
    numbers = cell_numbers(cells, [7, 2, 1000], [3, 255, 1])
    assert numbers.dtype == np.uint8
    assert [numbers[5, 5], numbers[5, 15], numbers[15, 5], numbers[0, 19]] == [3, 255, 0, 0]
    np.testing.assert_array_equal(numbers > 0, np.isin(cells, [8, 3]))
    assert not cell_numbers(np.zeros((3, 3), np.int32), [], []).any()


def test_an_outline_goes_around_all_cells_together_and_stays_inside_them():
    cells = np.zeros((2, 12, 20), np.int32)
    cells[0, 2:8, 2:6], cells[0, 2:8, 6:10], cells[0, 2:8, 12:16] = 5, 6, 7
    cells[1, :, 10:] = 6  # touches the edge of the image
    outlines = cell_outlines(cells, [4, 5])
    expected = np.zeros_like(cells, dtype=np.uint8)
    expected[0, 2:8, 2:10] = 1
    expected[0, 3:7, 3:9] = 0
    expected[1, :, 10] = 1
    np.testing.assert_array_equal(outlines, expected)
    assert not cell_outlines(cells, []).any()
