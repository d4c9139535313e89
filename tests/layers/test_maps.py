import numpy as np
import pandas as pd
import pytest

from napari_rvae.latent import cell_labels
from napari_rvae.layers import GREY, Coloring, add_arrows, add_atoms, add_cells, cell_colormap, join_results


def test_cells_have_the_colours_of_their_atoms(viewer, image, atoms, results):
    points = add_atoms(viewer, atoms, image)
    join_results(points, results)
    cells = add_cells(viewer, cell_labels(atoms, (40, 60)), points, image)
    for column in ("z1", "sublattice", "flag", "angle"):
        coloring = Coloring.of(points.features, column)
        cells.colormap = cell_colormap(points.features, coloring)
        expected = coloring.colors(points.features[column])
        for (y, x), color in zip(points.data, expected, strict=True):
            label = cells.data[round(y), round(x)]
            np.testing.assert_allclose(cells.colormap.map(label), color, atol=0.03)
    np.testing.assert_allclose(cells.colormap.map(8), GREY)  # label 8 is atom 7, which has no angle
    assert cells.colormap.map(0)[3] == 0
    np.testing.assert_allclose(cells.data_to_world((3, 4)), image.data_to_world((3, 4)))


def test_many_cells_need_few_colours():
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"atom_id": np.arange(20_000), "z1": rng.normal(size=20_000)})
    colormap = cell_colormap(table, Coloring.of(table, "z1"))
    assert len({tuple(color) for color in colormap.color_dict.values()}) <= 256


def test_recolouring_leaves_nothing_of_the_colours_before():
    table = pd.DataFrame({"atom_id": [0, 1], "z1": [0.0, 1.0], "z2": [1.0, 0.0]})
    labels = np.array([[1, 2]], np.int32)
    first = cell_colormap(table, Coloring.of(table, "z1")).map(labels)
    second = cell_colormap(table, Coloring.of(table, "z2")).map(labels)
    np.testing.assert_allclose(first, second[:, ::-1])


def test_angle_arrows_point_along_the_angle(viewer, image):
    table = pd.DataFrame({"atom_id": [0, 1, 2], "y": 5.0, "x": 6.0, "angle": [0.0, np.pi / 2, np.nan]})
    points = add_atoms(viewer, table, image)
    arrows = add_arrows(viewer, table, points, "angle", 3.0)
    np.testing.assert_allclose(arrows.data[:, 0], [[5, 6], [5, 6]])
    np.testing.assert_allclose(arrows.data[:, 1], [[0, 1], [1, 0]], atol=1e-9)  # y, x: a quarter turns +x toward +y
    assert arrows.length == 3.0
    np.testing.assert_allclose(arrows.data_to_world((3, 4)), image.data_to_world((3, 4)))


def test_offset_arrows_say_how_much_they_are_enlarged(viewer, image, atoms, results):
    points = add_atoms(viewer, atoms, image)
    join_results(points, results)
    arrows = add_arrows(viewer, points.features, points, "offset", 3.0)
    assert arrows.length == 30
    assert arrows.name == "crystal atoms offsets x 30"
    np.testing.assert_allclose(arrows.data[:, 1], [[0.1, 0], [-0.1, 0], [0, 0.2]])


def test_arrows_of_a_stack_stay_in_their_frames(viewer):
    movie = viewer.add_image(np.zeros((3, 40, 60)))
    table = pd.DataFrame({"atom_id": [0, 1], "frame": [0, 2], "y": 5.0, "x": 6.0, "dy": 0.1, "dx": [0.1, 0.2]})
    arrows = add_arrows(viewer, table, add_atoms(viewer, table, movie), "offset", 3.0)
    assert arrows.data[:, 0, 0].tolist() == [0, 2]
    assert not arrows.data[:, 1, 0].any()


@pytest.mark.parametrize("kind", ["angle", "offset"])
def test_no_values_give_no_arrows(viewer, image, atoms, kind):
    points = add_atoms(viewer, atoms, image)
    table = points.features.assign(angle=np.nan, dy=np.nan, dx=np.nan)
    assert len(add_arrows(viewer, table, points, kind, 3.0).data) == 0
