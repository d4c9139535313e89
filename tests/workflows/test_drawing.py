"""Colours and panels of the summary."""

import numpy as np
import pandas as pd
import pytest

from napari_rvae.workflows.drawing import (
    PANEL,
    colored,
    curve_panel,
    cyclic,
    gray,
    image_panel,
    scatter_panel,
    sequential,
    tile_panel,
)


def test_angles_come_round_in_equally_bright_colours():
    from skimage.color import rgb2lab

    colors = cyclic(np.linspace(0, 1, 64))
    np.testing.assert_array_equal(colors[0], colors[-1])
    steps = np.linalg.norm(np.diff(colors.astype(int), axis=0), axis=1)
    assert steps.max() < 20
    assert np.ptp(rgb2lab(colors[None] / 255)[0, :, 0]) < 2


def test_sequential_colours_get_brighter():
    brightness = sequential(np.linspace(0, 1, 20)).astype(float) @ [0.3, 0.6, 0.1]
    assert (np.diff(brightness) > 0).all()


def test_angle_colours_know_the_symmetry():
    table = pd.DataFrame({"angle": [0.1, 0.1 + np.pi], "symmetry": [2, 2]})
    colors, _, limits = colored(table, "angle")
    assert np.abs(colors[0].astype(int) - colors[1]).max() <= 1
    assert limits == ("0°", "180°")
    mixed = pd.DataFrame({"y": [10.0, 30.0], "x": [10.0, 30.0], "angle": [0.1, 0.4], "symmetry": [2, 4]})
    panel = np.asarray(image_panel(np.zeros((40, 40)), mixed, "angle"))
    assert (panel[:, -1] == 255).all(), "no text is cut off"


@pytest.mark.parametrize("values", [[1.0, 1.0, 1.0], [0.0, np.nan, 5.0]])
def test_grey_values_survive_odd_images(values):
    assert gray(np.array([values])).dtype == np.uint8
    assert gray(np.full((2, 2), np.nan)).shape == (2, 2)


def test_atoms_are_drawn_in_their_colour_and_the_others_in_grey():
    atoms = pd.DataFrame({"y": [10.0, 30.0], "x": [10.0, 30.0], "class": [0.0, np.nan]})
    panel = np.asarray(image_panel(np.zeros((40, 40)), atoms, "class"))
    zoom = PANEL / 40
    top = panel.shape[0] - 26 - PANEL
    assert panel[top + int(10.5 * zoom), int(10.5 * zoom)].tolist() == [0, 114, 178]
    assert panel[top + int(30.5 * zoom), int(30.5 * zoom)].tolist() == [150, 150, 150]
    assert panel[top + int(20 * zoom), int(5 * zoom)].tolist() == [0, 0, 0]


def test_scale_bar_is_as_long_as_it_says():
    atoms = pd.DataFrame({"y": [10.0], "x": [10.0], "z1": [1.0]})
    panel, plain = (np.asarray(image_panel(np.zeros((40, 40)), atoms, "z1", *scale)) for scale in ((0.1, "nm"), ()))
    row = panel[panel.shape[0] - 26 - 16, :PANEL]
    assert (row == 255).all(1).sum() == pytest.approx(PANEL / 4, abs=2), "1 nm of the 4 nm that the image is wide"
    assert not (plain[-42, :PANEL] == 255).any()


def test_atoms_at_the_edge_take_neither_all_colours_nor_all_room():
    z = np.r_[np.full(5, 50.0), np.linspace(0, 1, 95)]
    table = pd.DataFrame({"z1": z, "z2": z[::-1].copy(), "flag": ["edge"] * 5 + [""] * 95})
    assert colored(table, "z1")[2][1] == "0.98"
    drawn = np.asarray(scatter_panel(table, "z1", "z1", "z2"))[60:PANEL, 10 : PANEL - 10]
    assert np.ptp(np.nonzero((drawn.astype(int).max(2) - drawn.min(2)) > 60)[1]) > 0.8 * PANEL


def test_strains_are_told_in_per_cent():
    table = pd.DataFrame({"strain_xx": np.linspace(-0.02, 0.02, 101)})
    assert colored(table, "strain_xx")[2] == ("-1.9 %", "1.9 %")


def test_panels_without_much_to_show():
    empty = pd.DataFrame({"epoch": [], "loss": [], "held_out": []})
    one = pd.DataFrame({"epoch": [1], "loss": [3.0], "held_out": [None]})
    point = pd.DataFrame({"z1": [0.3], "angle": [0.2]})
    sizes = {curve_panel(empty).size, curve_panel(one).size, scatter_panel(point, "z1", "angle", "angle").size}
    assert sizes == {tile_panel(np.zeros((1, 5, 5)), "one").size}
