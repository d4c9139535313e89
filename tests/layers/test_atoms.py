"""Atoms as points: who they are survives all that napari's tools do to them."""

import numpy as np
import pandas as pd
import pytest
from napari.layers import Points

from napari_rvae.errors import InputDataError
from napari_rvae.layers import (
    GREY,
    RECIPE,
    add_atoms,
    atoms_table,
    can_undo,
    color_choices,
    color_points,
    coloring_of,
    image_of,
    join_results,
    model_of,
    undo_results,
)


@pytest.fixture
def points(viewer, image, atoms):
    return add_atoms(viewer, atoms, image, {"command": "find"})


def drag(points, index, to):
    """Move a point as napari's select tool does: events are blocked until the mouse is released."""
    with points.events.data.blocker():
        points._move({index}, points.data[index])
    points._move({index}, to)
    points._drag_start = None


def test_atoms_lie_on_their_image_wherever_it_lies(points, image):
    assert points.name == "crystal atoms"
    assert image_of(points) is image
    assert points.units == image.units
    assert points.axis_labels == image.axis_labels
    for atom in points.data:
        np.testing.assert_allclose(points.data_to_world(atom), image.data_to_world(atom))
    assert points.metadata[RECIPE] == {"command": "find"}
    assert (points.size == 4.0).all()  # half the distance of neighbours, in pixels


def test_positions_are_given_in_pixels_of_any_image(viewer, points, image):
    other = Points(np.array([image.data_to_world(atom) for atom in points.data]))
    viewer.add_layer(other)
    table = atoms_table(other, image)
    np.testing.assert_allclose(table[["y", "x"]], points.data)
    assert table["atom_id"].tolist() == [0, 1, 2, 3]


def test_what_was_estimated_when_atoms_were_found_is_known(viewer, image, atoms):
    used = {"target": "molecules", "sigma": 4.0}
    points = add_atoms(viewer, atoms, image, {"command": "find", "used": used})
    assert atoms_table(points, image).attrs["napari_rvae"] == used


def test_points_of_a_plane_are_refused_on_a_stack(viewer, points):
    stack = viewer.add_image(np.zeros((3, 40, 60)), name="movie")
    with pytest.raises(InputDataError, match=r"2 axes and 'movie' 3"):
        atoms_table(points, stack)


def test_added_point_is_a_new_atom_without_values(points, results):
    join_results(points, results)
    points.selected_data = {0}  # napari gives a new point the features of the selected one
    points.add([30.0, 40.0])
    new = points.features.iloc[-1]
    assert new["atom_id"] == 13
    assert (new["y"], new["x"], new["flag"]) == (30.0, 40.0, "added")
    assert new[["z1", "angle", "amplitude", "sublattice"]].isna().all()
    assert points.features["atom_id"].dtype == np.int64


def test_number_of_a_removed_atom_is_not_given_again(points):
    points.selected_data = {3}
    points.remove_selected()
    points.add([30.0, 40.0])
    points.add([31.0, 41.0])
    assert points.features["atom_id"].tolist() == [4, 7, 9, 13, 14]


def test_pasted_points_are_new_atoms(points):
    points.selected_data = {0, 1}
    points._copy_data()
    points._paste_data()
    table = atoms_table(points)
    assert table["atom_id"].tolist() == [4, 7, 9, 12, 13, 14]
    assert table["flag"].tolist()[-2:] == ["added", "added"]


def test_moved_atom_keeps_its_number_and_loses_what_was_learned_elsewhere(points, results):
    join_results(points, results)
    drag(points, 0, (8.0, 9.0))
    first = points.features.iloc[0]
    assert (first["atom_id"], first["y"], first["x"], first["flag"]) == (4, 8.0, 9.0, "moved")
    assert np.isnan(first["z1"])
    assert first["amplitude"] == 1.0
    assert points.features["z1"].tolist()[2:] == [0.2, 0.3]


def test_edited_atoms_of_a_layer_without_flags_are_marked_too(viewer, image, atoms):
    points = add_atoms(viewer, atoms.drop(columns="flag").assign(z1=1.0), image)
    points._move({1}, points.data[1])
    assert "flag" not in points.features
    points._move({1}, points.data[1] + 3.0)
    points.add([1.0, 2.0])
    assert points.features["flag"].tolist() == ["", "moved", "", "", "added"]
    assert points.features["z1"].isna().tolist() == [False, True, False, False, True]


def test_all_points_can_be_exchanged(points):
    points.data = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [7.0, 8.0], [9.0, 10.0]])
    assert points.features["atom_id"].is_unique
    np.testing.assert_array_equal(points.features[["y", "x"]], points.data)


def test_points_without_features_become_atoms(viewer):
    points = viewer.add_points(np.array([[1.0, 2.0], [3.0, 4.0]]))
    table = atoms_table(points)
    assert table.columns.tolist() == ["atom_id", "y", "x"]
    points.add([5.0, 6.0])
    assert points.features["atom_id"].tolist() == [0, 1, 2]


def test_empty_layer_becomes_atoms_with_its_first_point(viewer):
    points = viewer.add_points(np.zeros((0, 2)))
    assert len(atoms_table(points)) == 0
    points.add([5.0, 6.0])
    assert atoms_table(points)[["atom_id", "y", "x"]].iloc[0].tolist() == [0, 5, 6]


def test_stack_gives_frames(viewer):
    movie = viewer.add_image(np.zeros((5, 40, 60)), name="movie")
    atoms = pd.DataFrame({"atom_id": [0, 1], "frame": [0, 3], "y": [1.0, 2.0], "x": [3.0, 4.0]})
    points = add_atoms(viewer, atoms, movie)
    np.testing.assert_array_equal(points.data, [[0, 1, 3], [3, 2, 4]])
    points.add([2.0, 8.0, 9.0])
    assert atoms_table(points, movie)["frame"].tolist() == [0, 3, 2]


def test_results_find_their_atoms(points, results):
    points.selected_data = {1}
    points.remove_selected()
    points.add([1.0, 1.0])
    join_results(points, results, {"command": "run"}, model := object())
    np.testing.assert_array_equal(points.features["z1"], [0.1, 0.2, 0.3, np.nan])
    assert points.features["amplitude"].tolist()[:3] == [1.0, 3.0, 4.0]
    assert points.metadata[RECIPE] == {"command": "run"}
    assert model_of(points) is model


def test_atom_that_moved_meanwhile_gets_no_results(points, image, results):
    places = atoms_table(points)
    image.translate = (3, 4)  # which moves no atom in its own image
    drag(points, 0, (8.0, 9.0))
    points.add([1.0, 1.0])
    join_results(points, results, places=places)
    np.testing.assert_array_equal(points.features["z1"], [np.nan, np.nan, 0.2, 0.3, np.nan])


def test_results_can_be_undone_and_done_again(points, results):
    assert not can_undo(points)
    before = points.features.copy()
    join_results(points, results, {"command": "run"}, "model")
    after = points.features.copy()
    undo_results(points)
    pd.testing.assert_frame_equal(points.features, before)
    assert points.metadata[RECIPE] == {"command": "find"}
    assert model_of(points) is None
    undo_results(points)
    pd.testing.assert_frame_equal(points.features, after)
    assert model_of(points) == "model"


def test_atom_without_a_value_is_grey_and_visible(points, results):
    join_results(points, results)
    for column in ("z1", "angle", "dy", "sublattice", "flag"):
        color_points(points, column)
        colors = points.face_color
        assert (colors[:, 3] == 1).all()
        empty = points.features[column].isna() | (points.features[column] == "")
        np.testing.assert_allclose(colors[empty], np.tile(GREY, (empty.sum(), 1)), atol=1e-6)
        assert not np.allclose(colors[~empty], GREY)


def test_new_point_is_grey_whatever_is_shown(points, results):
    join_results(points, results)
    for column in ("z1", "flag", "sublattice"):
        color_points(points, column)
        points.selected_data = {0}
        points.add([3.0, 3.0])
        if column != "flag":  # the flag says that it was added
            np.testing.assert_allclose(points.face_color[-1], GREY, atol=1e-6)
        assert coloring_of(points).column == column


def test_colors_follow_new_results(points, results):
    join_results(points, results)
    color_points(points, "z1")
    before = points.face_color.copy()
    join_results(points, results.assign(z1=[0.1, 0.3, 0.2]))
    np.testing.assert_allclose(points.face_color[[0, 3]], before[[3, 0]], atol=1e-6)


def test_results_stand_first_among_what_can_be_shown(points, results):
    join_results(points, results)
    assert color_choices(points) == ["z1", "angle", "dy", "dx", "amplitude", "sublattice", "flag"]


@pytest.mark.skipif(not hasattr(Points, "face_colorbar"), reason="napari 0.7.0 has no colour bar for points")
def test_color_bar_goes_with_the_results(points, results):
    join_results(points, results)
    color_points(points, "z1")
    assert points.face_colorbar.visible
    undo_results(points)
    assert not points.face_colorbar.visible


@pytest.mark.skipif(not hasattr(Points, "face_colorbar"), reason="napari 0.7.0 has no colour bar for points")
def test_color_bar_shows_where_it_says_something(points, results):
    join_results(points, results)
    color_points(points, "z1")
    assert points.face_colorbar.visible
    color_points(points, "sublattice")
    assert not points.face_colorbar.visible
