"""The logic of the scatter, with a canvas that only remembers what it was told."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage.measure import points_in_poly

from napari_rvae.widgets import scatter as module
from napari_rvae.widgets.scatter import ColorScale, Scatter, ScatterCanvas, View, points_in_polygon
from napari_rvae.widgets.selection import Selection


class FakeCanvas(ScatterCanvas):
    """Remembers the last arguments of everything that was drawn."""

    def __init__(self):
        self.drawn = {}
        self.shown_view = View(0, 1, 0, 1, 400, 400)

    @property
    def view(self):
        return self.shown_view

    def set_view(self, left, right, bottom, top):
        self.shown_view = View(left, right, bottom, top, 400, 400)

    def show_points(self, x, y, index, lut):
        self.drawn.pop("density", None)
        self.drawn["points"] = (x, y, index, lut)

    def show_density(self, picture, view):
        self.drawn.pop("points", None)
        self.drawn["density"] = (picture, view)

    def show_selected_points(self, x, y, index, lut):
        self.drawn.pop("selected_density", None)
        self.drawn["selected"] = (x, y)

    def show_selected_density(self, picture, view):
        self.drawn.pop("selected", None)
        self.drawn["selected_density"] = (picture, view)

    def dim(self, dimmed):
        self.drawn["dim"] = dimmed

    def show_margins(self, x, y):
        self.drawn["margins"] = (x, y)

    def set_labels(self, x, y):
        self.drawn["labels"] = (x, y)

    def show_scale(self, scale):
        self.drawn["scale"] = scale

    def mark(self, x, y):
        self.drawn["mark"] = (x, y)

    def set_tool(self, tool):
        self.drawn["tool"] = tool

    def save(self, path):
        self.drawn["saved"] = path


def red_and_blue(n):
    lut = np.array([[255, 0, 0, 255], [0, 0, 255, 255], [128, 128, 128, 255]], np.uint8)
    return ColorScale("kind", np.arange(n, dtype=np.uint16) % 2, lut, names=("red", "blue"), categorical=True)


def shown(x, y, fit=True):
    selection = Selection(np.arange(len(x)))
    scatter = Scatter(FakeCanvas(), selection)
    scatter.show(selection, x, y, ("z1", "angle (deg)"), red_and_blue(len(x)), fit=fit)
    return scatter, scatter.canvas, selection


SQUARE = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])


def test_shows_all_atoms_with_a_little_room_and_names_the_axes():
    _scatter, canvas, _ = shown([0.0, 10.0, np.nan], [-1.0, 1.0, 0.0])
    view = canvas.view
    assert view.left < 0 < 10 < view.right < 12
    assert view.bottom < -1 < 1 < view.top < 1.3
    assert canvas.drawn["labels"] == ("z1", "angle (deg)")
    np.testing.assert_array_equal(canvas.drawn["points"][0], [0, 10, np.nan])


@pytest.mark.parametrize(
    ("x", "y"), [([], []), ([3.0], [3.0]), ([np.nan, np.nan], [1.0, 2.0]), ([2.0, 2.0], [0.0, 0.0])]
)
def test_no_atom_one_atom_no_value_and_one_value_are_no_trouble(x, y):
    _scatter, canvas, selection = shown(x, y)
    assert np.isfinite([canvas.view.left, canvas.view.right, canvas.view.bottom, canvas.view.top]).all()
    assert canvas.view.left < canvas.view.right
    canvas.region_drawn.emit(10 * SQUARE - 1, "replace")
    assert selection.count == np.isfinite(x).sum()
    canvas.hovered.emit(0.0, 0.0)
    canvas.clicked.emit(1e9, 1e9, "replace")
    assert selection.count == 0


def test_regions_ranges_and_clicks_select_with_their_mode():
    scatter, canvas, selection = shown([0.5, 2.5, 0.2, 9.0], [0.5, 0.5, 0.2, 9.0])
    picked = []
    scatter.picked.connect(picked.append)
    canvas.region_drawn.emit(SQUARE, "replace")
    assert selection.rows.tolist() == [0, 2]
    canvas.range_drawn.emit(0, 2.0, 3.0, "add")
    assert selection.rows.tolist() == [0, 1, 2]
    canvas.range_drawn.emit(1, 0.0, 0.3, "subtract")
    assert selection.rows.tolist() == [0, 1]
    canvas.region_drawn.emit(SQUARE, "intersect")
    assert selection.rows.tolist() == [0]
    np.testing.assert_array_equal(canvas.drawn["selected"][0], [0.5])
    assert canvas.drawn["dim"]
    canvas.clicked.emit(8.95, 9.0, "add")
    assert selection.rows.tolist() == [0, 3]
    assert picked == [3]
    canvas.clicked.emit(5.0, 5.0, "add")
    assert selection.rows.tolist() == [0, 3]
    canvas.clicked.emit(5.0, 5.0, "replace")
    assert selection.count == 0
    assert not canvas.drawn["dim"]


def test_the_nearest_points_are_found_near_and_far_in_order_and_never_those_without_a_place():
    x, y = np.random.default_rng(0).uniform(0, 10, (2, 300))
    x[7] = np.nan
    scatter, canvas, _ = shown(x, y)
    canvas.set_view(0, 10, 0, 10)
    for place in ((5.0, 5.0), (-30.0, 80.0)):
        rows, distance = scatter.nearest(*place, 4)
        away = 40 * np.hypot(x - place[0], y - place[1])  # 400 pixels
        np.testing.assert_array_equal(rows, np.argsort(away)[:4])
        assert distance == pytest.approx(np.nanmin(away))
    rows, _ = shown([1.0, np.nan, 0.0], [0.0, 0.0, 0.0])[0].nearest(0.1, 0.0, 4)
    assert rows.tolist() == [2, 0]


def test_a_range_of_the_colour_bar_selects_values_and_never_what_has_none():
    index = np.array([0, 50, 100, 150, 200, 201], np.uint16)  # the last has no value
    scale = ColorScale("z3", index, np.zeros((202, 4), np.uint8), limits=(-1.0, 1.0))
    _scatter, canvas, selection = shown(np.arange(6.0), np.arange(6.0))
    _scatter.show(selection, np.arange(6.0), np.arange(6.0), ("x", "y"), scale, fit=True)
    canvas.range_drawn.emit(2, -0.6, 0.1, "replace")
    assert selection.rows.tolist() == [1, 2]
    canvas.range_drawn.emit(2, 0.4, 9.0, "add")
    assert selection.rows.tolist() == [1, 2, 3, 4]


def test_histograms_count_all_and_selected():
    x = np.concatenate([np.linspace(0, 1, 30), [np.nan]])
    _scatter, canvas, selection = shown(x, x)
    selection.combine(x > 0.5)
    horizontal, vertical = canvas.drawn["margins"]
    assert horizontal.counts.sum() == vertical.counts.sum() == 30
    assert horizontal.selected.sum() == selection.count == 15
    assert horizontal.selected[: len(horizontal.selected) // 2].sum() == 0
    assert (horizontal.edges[0], horizontal.edges[-1]) == (0, 1)


def test_many_atoms_become_a_picture_and_are_points_again_when_zoomed_in(monkeypatch):
    monkeypatch.setattr(module, "MOST_POINTS", 100)
    monkeypatch.setattr(module, "MOST_SELECTED_POINTS", 20)
    x, y = np.random.default_rng(0).uniform(0, 1, (2, 1000))
    _scatter, canvas, selection = shown(x, y)
    picture, view = canvas.drawn["density"]
    assert "points" not in canvas.drawn
    assert picture.shape[2] == 4
    assert (picture[..., 3] > 0).any()
    assert (picture[..., 3] == 0).any()

    # A lasso finds every atom inside, drawn or not.
    canvas.region_drawn.emit(0.5 * SQUARE, "replace")
    assert selection.count == np.count_nonzero((x <= 0.5) & (y <= 0.5))
    lit, view = canvas.drawn["selected_density"]
    rows, columns = np.nonzero(lit)
    assert (view.left + (columns + 0.0) * (view.right - view.left) / lit.shape[1]).max() <= 0.5
    assert (view.bottom + (rows + 0.0) * (view.top - view.bottom) / lit.shape[0]).max() <= 0.5

    canvas.set_view(0.4, 0.5, 0.4, 0.5)
    canvas.view_rested.emit()
    near = canvas.drawn["points"][0]
    assert 0 < len(near) <= 100
    assert np.abs(near - 0.45).max() <= 0.1


def test_density_is_finer_in_print(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "MOST_POINTS", 1)
    scatter, canvas, _ = shown(*np.random.default_rng(0).uniform(0, 1, (2, 100)))
    printed = []
    monkeypatch.setattr(canvas, "save", lambda path: printed.append(canvas.drawn["density"][0].shape[0]))
    scatter.save(tmp_path / "plot.png")
    assert printed == [4 * canvas.drawn["density"][0].shape[0]]


def test_density_has_the_mean_colour_of_its_atoms(monkeypatch):
    monkeypatch.setattr(module, "MOST_POINTS", 1)
    _scatter, canvas, _ = shown(np.array([0.0, 0.0, 1.0, 1.0]), np.array([0.0, 0.0, 1.0, 1.0]))
    picture = canvas.drawn["density"][0]
    filled = picture[picture[..., 3] > 0]
    assert len(filled) == 2
    np.testing.assert_array_equal(filled[:, :3], [[127, 0, 127]] * 2)


def test_a_table_in_the_middle_of_a_change_is_waited_for():
    scatter, canvas, selection = shown([0.5, 0.6], [0.5, 0.6])
    selection.combine([True, True])
    selection.set_atoms([0])  # the plot still has two points
    canvas.region_drawn.emit(SQUARE, "replace")
    canvas.clicked.emit(0.5, 0.5, "replace")
    assert selection.count == 1
    scatter.show(selection, [0.5], [0.5], ("a", "b"), red_and_blue(1), fit=False)
    np.testing.assert_array_equal(canvas.drawn["selected"][0], [0.5])


def test_another_selection_takes_the_place_of_the_first():
    scatter, canvas, first = shown([0.5, 0.6], [0.5, 0.6])
    second = Selection([7, 8])
    scatter.show(second, [0.5, 3.0], [0.5, 3.0], ("a", "b"), red_and_blue(2), fit=True)
    canvas.region_drawn.emit(SQUARE, "replace")
    assert (first.count, second.rows.tolist()) == (0, [0])
    first.combine([True, True])
    assert len(canvas.drawn["selected"][0]) == 1
    scatter.close()
    second.clear()
    assert len(canvas.drawn["selected"][0]) == 1


coordinates = st.floats(-3, 3, allow_nan=False).map(lambda value: round(value, 2))


@given(
    points=st.lists(st.tuples(coordinates, coordinates), max_size=30),
    vertices=st.lists(st.tuples(coordinates, coordinates), min_size=1, max_size=12),
)
def test_polygon_agrees_with_a_test_of_every_point_and_never_holds_nan(points, vertices):
    points, vertices = np.array(points).reshape(-1, 2), np.array(vertices)
    inside = points_in_polygon(*np.vstack([points, [np.nan, 0]]).T, vertices)
    expected = points_in_poly(points, vertices) if len(points) and len(vertices) > 2 else np.zeros(len(points), bool)
    np.testing.assert_array_equal(inside[:-1], expected)
    assert not inside[-1]
