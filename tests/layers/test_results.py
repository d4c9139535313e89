"""Results that are undone and done again: their colours and the layers that show them come and go with them."""

import numpy as np
import pytest
from napari.layers import Labels

from napari_rvae.layers import (
    add_arrows,
    add_atoms,
    add_cells,
    add_reconstruction,
    atoms_table,
    cells_of,
    color_points,
    coloring_of,
    join_results,
    results_of,
    show_with_results,
    undo_results,
)


@pytest.fixture
def points(viewer, image, atoms):
    return add_atoms(viewer, atoms, image)


@pytest.fixture
def shown(viewer, image, points, results):
    """Results in their colours, and layers that show them."""
    color_points(points, "amplitude")
    join_results(points, results)
    color_points(points, "z1")
    pixels = np.zeros(image.data.shape, np.float32)
    layers = [
        add_cells(viewer, pixels.astype(np.int32), points, image),
        *add_reconstruction(viewer, pixels, image.data - pixels, image),
        add_arrows(viewer, atoms_table(points), points, "angle", 4.0),
    ]
    for layer in layers:
        show_with_results(layer, points, results_of(points))
    return layers


def test_they_are_coloured_as_they_were(points, shown):
    before = points.face_color.copy()
    undo_results(points)
    assert coloring_of(points).column == "amplitude"
    undo_results(points)
    assert coloring_of(points).column == "z1"
    np.testing.assert_array_equal(points.face_color, before)


def test_what_is_shown_of_other_results_stays_shown(points, shown, results):
    join_results(points, results.assign(z1=0.0))
    color_points(points, "angle")  # to compare
    undo_results(points)
    assert coloring_of(points).column == "angle"


def test_layers_go_and_come_with_them_to_their_places(viewer, points, shown):
    before = list(viewer.layers)
    undo_results(points, viewer.layers)
    assert [layer for layer in before if layer not in shown] == list(viewer.layers)
    undo_results(points, viewer.layers)
    assert list(viewer.layers) == before
    assert cells_of(points, viewer.layers) == shown[:1]


def test_layers_of_other_results_come_instead(viewer, points, shown, results):
    join_results(points, results.assign(z1=0.0))
    arrows = add_arrows(viewer, atoms_table(points), points, "angle", 4.0)
    show_with_results(arrows, points, results_of(points))
    assert {*shown, arrows} <= set(viewer.layers)  # as they were before, until one goes back
    undo_results(points, viewer.layers)
    assert arrows not in viewer.layers
    assert set(shown) <= set(viewer.layers)
    undo_results(points, viewer.layers)
    assert arrows in viewer.layers
    assert [layer for layer in shown if layer in viewer.layers] == shown[:1]  # cells are of the atoms, and of both


def test_what_was_edited_by_hand_stays(viewer, points, shown, image, results):
    cells, decoded, difference, arrows = shown
    mine = viewer.add_labels(np.zeros(image.data.shape, int))
    cells.paint((5, 5), 3)
    difference.data = difference.data + 1
    undo_results(points, viewer.layers)
    assert {mine, cells, difference} <= set(viewer.layers)
    assert not {decoded, arrows} & set(viewer.layers)
    join_results(points, results)  # the others cannot come back any more
    undo_results(points, viewer.layers)
    undo_results(points, viewer.layers)
    assert {mine, cells, difference} <= set(viewer.layers)
    assert cells.data[5, 5] == 3
    assert not {decoded, arrows} & set(viewer.layers)
    assert [layer for layer in viewer.layers if isinstance(layer, Labels)] == [cells, mine]
