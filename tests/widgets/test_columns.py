"""Names, units and colours of columns, and classes given by hand, apart from any window."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from napari_rvae.layers import Coloring
from napari_rvae.widgets.annotation import annotation_of, assigned, class_names, counts, new_class_name, renamed
from napari_rvae.widgets.columns import axis_columns, color_scale, column_label, displayed_text, displayed_values


@pytest.fixture
def table():
    return pd.DataFrame(
        {
            "atom_id": [7, 8, 9],
            "y": [1.0, 2.0, 3.0],
            "z2": [0.5, np.nan, 1.5],
            "z1": [0.0, 1.0, 2.0],
            "angle": [0.0, np.pi / 4, np.nan],
            "symmetry": [4, 4, 4],
            "flag": ["", "edge", ""],
        }
    )


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("z1", "z1"),
        ("angle", "angle (deg)"),
        ("dy_error", "dy error (px)"),
        ("reconstruction_error", "reconstruction error"),
        ("y_nm", "y (nm)"),
        ("my_own_column", "my own column"),
    ],
)
def test_labels_carry_units(name, label):
    assert column_label(name) == label


def test_latents_come_first_and_identities_and_text_have_no_axis(table):
    assert axis_columns(table) == ["z2", "z1", "y", "angle", "symmetry"]


def test_angles_are_shown_in_degrees(table):
    np.testing.assert_allclose(displayed_values(table, "angle"), [0, 45, np.nan])
    assert displayed_text(table, 1, ("z1", "z2", "angle", "z1", "none")) == "atom 8 · z1 1 · z2 – · angle 45°"


def test_colours_are_those_of_the_image_with_grey_for_no_value(table):
    for name in ("z2", "angle", "flag", "symmetry"):
        coloring = Coloring.of(table, name)
        scale = color_scale(table, coloring)
        np.testing.assert_allclose(scale.lut[scale.index] / 255, coloring.colors(table[name]), atol=0.02)
    scale = color_scale(table, Coloring.of(table, "angle"))
    assert scale.limits[1] - scale.limits[0] == pytest.approx(90)
    assert scale.index[2] == len(scale.lut) - 1
    assert not scale.between(*scale.limits)[2]


def test_classes_read_from_a_file_are_classes_again(table):
    text = table.assign(annotation=["vacancy", None, ""])
    annotation = annotation_of(text)
    assert class_names(annotation) == ["vacancy"]
    assert annotation.cat.codes.tolist() == [0, -1, -1]
    assert counts(assigned(annotation, np.array([False, True, True]), "dopant")) == {"vacancy": 1, "dopant": 2}
    assert new_class_name(renamed(annotation, "vacancy", "class 2")) == "class 3"
    assert class_names(annotation_of(table)) == []
