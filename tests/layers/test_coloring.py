import numpy as np
import pandas as pd
import pytest

from napari_rvae.layers import GREY, Coloring


def coloring(values, column="z1", **others):
    return Coloring.of(pd.DataFrame({column: values, **others}), column)


@pytest.mark.parametrize(
    ("column", "values", "kind"),
    [
        ("z1", [0.1, 0.5, np.nan], "sequential"),
        ("angle", [0.1, 0.5, 3.0], "cyclic"),
        ("dy", [-0.1, 0.5, 0.2], "diverging"),
        ("strain_xx", [-0.1, 0.5, 0.2], "diverging"),
        ("dy_error", [0.1, 0.5, 0.2], "sequential"),
        ("class", [0.0, 1.0, np.nan], "categorical"),
        ("class_probability", [1.0, 1.0, np.nan], "sequential"),
        ("flag", ["", "edge", "moved"], "categorical"),
        ("z1", [np.nan, np.nan], "sequential"),
    ],
)
def test_kind_follows_from_the_column(column, values, kind):
    assert coloring(values, column).kind == kind


def test_angles_meet_where_the_motif_looks_the_same_again():
    quarter = np.pi / 2
    shown = coloring([0.0, 0.2, quarter - 1e-9], "angle", symmetry=4)
    assert shown.limits == pytest.approx((0, quarter))
    first, _, last = shown.colors(pd.Series([0.0, 0.2, quarter - 1e-9]))
    np.testing.assert_allclose(first, last, atol=1e-3)


def test_least_symmetric_motif_sets_the_turn():
    assert coloring([-1.0, 1.0], "angle", symmetry=[4, 2]).limits == pytest.approx((-np.pi / 2, np.pi / 2))


def test_one_outlier_does_not_take_all_colours():
    values = np.r_[np.linspace(0, 1, 1000), 1e6]
    assert coloring(values).limits[1] < 1.1


def test_atoms_at_the_edge_do_not_take_all_colours():
    flag = ["edge"] * 10 + [""] * 90
    assert coloring(np.r_[np.full(10, 0.1), np.linspace(-0.01, 0.01, 90)], "strain_xx", flag=flag).limits[1] < 0.011
    assert coloring(np.r_[np.full(10, 9.0), np.linspace(0, 1, 90)], flag=flag).limits[1] < 1
    assert coloring([0.5, 3.0], flag=["edge", "edge"]).limits[1] > 2, "where there are no others"


def test_a_probability_of_all_atoms_is_one_on_its_scale():
    assert coloring([1.0, 1.0], "class_probability").limits == (0, 1)


def test_both_signs_get_the_same_share():
    low, high = coloring([-0.1, 0.5, 0.3], "dx").limits
    assert low == -high


def test_classes_keep_their_colours_when_some_are_missing():
    every, some = pd.Series([0, 1, 2, 3]), pd.Series([2, 3])
    np.testing.assert_allclose(
        coloring(every, "class").colors(every)[2:], coloring(some, "class").colors(some), atol=1e-6
    )


def test_neighbouring_classes_differ():
    values = pd.Series(np.arange(20))
    shown = coloring(values, "class").colors(values)
    assert len(np.unique(shown.round(3), axis=0)) == 20


def test_missing_values_are_grey():
    values = pd.Series([0.0, np.nan, 1.0])
    np.testing.assert_allclose(coloring(values).colors(values)[1], GREY)
    names = pd.Series(["a", "", "b"])
    np.testing.assert_allclose(coloring(names, "flag").colors(names)[1], GREY)


def test_classes_take_the_colours_chosen_for_them_whatever_their_type():
    table = pd.DataFrame({"number": [3, 4, 3], "name": pd.Categorical(["b", "a", None], categories=["b", "a", "c"])})
    for column, chosen in (("number", {"4": "#00ff00", "9": "#123456"}), ("name", {"a": "#00ff00"})):
        plain, own = Coloring.of(table, column), Coloring.of(table, column, chosen)
        np.testing.assert_allclose(own.colors(table[column])[1], [0, 1, 0, 1])
        np.testing.assert_allclose(own.colors(table[column])[[0, 2]], plain.colors(table[column])[[0, 2]])
