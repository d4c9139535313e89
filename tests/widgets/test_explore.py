"""The Explore dock in a real viewer, driven by the mouse and the keyboard."""

from __future__ import annotations

import gc
import json
import re
import weakref
from itertools import pairwise

import numpy as np
import pandas as pd
import pyqtgraph as pg
import pytest
import torch
from napari._qt.qt_resources import get_stylesheet
from napari.components import ViewerModel
from qtpy.QtCore import QEvent, QPoint, QPointF, Qt, QThreadPool
from qtpy.QtGui import QColor, QImage, QMouseEvent
from qtpy.QtWidgets import QApplication, QLabel, QLineEdit

from napari_rvae.errors import InputDataError, OutputError
from napari_rvae.latent import cell_labels, cell_outlines, decode
from napari_rvae.layers import add_atoms, add_cells, atoms_table, attach_model, model_of
from napari_rvae.models import Model
from napari_rvae.settings import BaselineSettings, PatchSettings, TrainSettings
from napari_rvae.widgets import atoms_link, explore_classes, explore_controls, explore_image, scatter
from napari_rvae.widgets.atoms_link import HIGHLIGHT
from napari_rvae.widgets.explore import ExploreWidget
from napari_rvae.widgets.explore_image import atom_at

SHIFT, CTRL = Qt.KeyboardModifier.ShiftModifier, Qt.KeyboardModifier.ControlModifier
CENTERS = np.array([[0.0, 0.0], [5.0, 0.0], [0.0, 5.0]])
KIND = np.arange(60) % 3
LEFT_LOWER = [(-1.2, -1.2), (2.2, -1.2), (2.2, 2.2), (-1.2, 2.2)]  # around the atoms of kind 0


def table(n=60):
    rng = np.random.default_rng(0)
    z = CENTERS[KIND[:n]] + rng.uniform(-1, 1, (n, 2))
    return pd.DataFrame(
        {
            "atom_id": 100 + np.arange(n),
            "y": 10.0 + 10 * (np.arange(n) // 10),
            "x": 10.0 + 10 * (np.arange(n) % 10),
            "z1": z[:, 0],
            "z2": z[:, 1],
            "angle": np.linspace(0, 1.5, n),
            "symmetry": 4,
            "sublattice": KIND[:n],
        }
    )


@pytest.fixture(autouse=True)
def no_rate_limit(monkeypatch):
    monkeypatch.setitem(pg.CONFIG_OPTIONS, "mouseRateLimit", -1)  # a test moves faster than a hand


@pytest.fixture
def viewer():
    """A viewer without a window: the dock does not need one, and most tests neither."""
    return ViewerModel()


@pytest.fixture
def layer(viewer):
    return analysed(viewer)


@pytest.fixture
def explore(viewer, layer, qtbot):
    return shown(viewer, qtbot)


@pytest.fixture
def window(make_napari_viewer, qtbot):
    """A real window with the dock in it, opened as from the menu."""
    viewer = make_napari_viewer(show=True)
    layer = analysed(viewer)
    _, explore = viewer.window.add_plugin_dock_widget("napari-rvae", "Explore latent space")
    viewer.window.resize(1200, 900)
    settle()
    return viewer, layer, explore


def analysed(viewer, atoms=None):
    data = np.random.default_rng(0).normal(size=(80, 120)).astype(np.float32)
    image = viewer.add_image(data, name="image", scale=(0.5, 0.5))
    return add_atoms(viewer, table() if atoms is None else atoms, image)


def shown(viewer, qtbot):
    explore = ExploreWidget(viewer)
    qtbot.addWidget(explore, before_close_func=lambda widget: widget.closed())
    explore.resize(400, 900)
    with qtbot.waitExposed(explore):
        explore.show()
    settle()
    return explore


def settle():
    """Let drawings that were put off happen."""
    QApplication.sendPostedEvents()
    QApplication.processEvents()


def drag(explore, places, view=None, modifiers=Qt.KeyboardModifier.NoModifier, button=Qt.MouseButton.LeftButton):
    """Drag the mouse through places given in data coordinates."""
    widget, view = explore.canvas.widget, view or explore.canvas.main
    stops = [QPointF(widget.mapFromScene(view.mapViewToScene(QPointF(*place)))) for place in places]
    path = [a + (b - a) * step / 4 for a, b in pairwise(stops) for step in range(1, 5)]
    none = Qt.MouseButton.NoButton
    moves = [(QEvent.Type.MouseMove, place, none, button) for place in path]
    events = [
        (QEvent.Type.MouseMove, stops[0], none, none),
        (QEvent.Type.MouseButtonPress, stops[0], button, button),
        *moves,
        (QEvent.Type.MouseButtonRelease, stops[-1], button, none),
    ]
    for kind, place, changed, held in events:
        shown = widget.viewport()
        event = QMouseEvent(kind, place, QPointF(shown.mapToGlobal(place.toPoint())), changed, held, modifiers)
        QApplication.sendEvent(shown, event)


def press(qtbot, explore, key, modifiers=Qt.KeyboardModifier.NoModifier):
    """Press a key while the mouse is at work in the plot."""
    explore.window().activateWindow()
    explore.canvas.widget.setFocus()
    qtbot.waitUntil(explore.canvas.widget.hasFocus)
    qtbot.keyClick(explore.canvas.widget, key, modifiers)


def lit_in_image(layer):
    return np.flatnonzero((layer.border_color == np.array(HIGHLIGHT, np.float32)).all(axis=1)).tolist()


def lit_in_plot(explore):
    return len(explore.canvas.selected_points.data)


def rows_of(kind):
    return np.flatnonzero(kind == KIND).tolist()


def test_shows_latents_in_the_colours_of_the_image(explore, layer):
    assert explore.layer_box.currentText() == layer.name
    assert (explore.columns.x_box.currentText(), explore.columns.y_box.currentText()) == ("z1", "z2")
    assert explore.columns.color_box.currentText() == "sublattice"
    assert len(explore.canvas.points.data) == 60
    brushes = [brush.color().getRgbF() for brush in explore.canvas.points.data["brush"]]
    np.testing.assert_allclose(brushes, layer.face_color, atol=0.01)


def test_fields_are_named_with_capitals_as_in_the_other_docks(explore):
    names = {label.text() for label in explore.findChildren(QLabel) if label.text()} - {"with"}  # "Compare ... with"
    assert {"Atoms", "X", "Y", "Colour by", "Across", "Up", "Compare", "Class", "Condition", "Features"} <= names
    assert not [name for name in names if name[0].islower()]


def test_lasso_lights_up_the_atoms_in_the_image_and_leaves_their_colour(window):
    _viewer, layer, explore = window
    faces = layer.face_color.copy()
    drag(explore, [*LEFT_LOWER, LEFT_LOWER[0]])
    assert lit_in_image(layer) == rows_of(0)
    assert set(layer.selected_data) == set(rows_of(0))
    assert lit_in_plot(explore) == 20
    assert "20</b> of 60" in explore.status.text()
    np.testing.assert_array_equal(layer.face_color, faces)


def test_rectangle_modifiers_margins_buttons_and_undo(explore, layer, qtbot):
    qtbot.mouseClick(explore.tools.tools.buttons()[1], Qt.MouseButton.LeftButton)
    drag(explore, [(-1.2, -1.2), (2, 2)])
    assert lit_in_image(layer) == rows_of(0)
    drag(explore, [(3.2, 2), (6.3, -1.3)], modifiers=SHIFT)
    assert lit_in_image(layer) == sorted(rows_of(0) + rows_of(1))
    drag(explore, [(-1.2, -1.2), (2, 2)], modifiers=CTRL)
    assert lit_in_image(layer) == rows_of(1)
    drag(explore, [(-1.2, 0.5), (2.2, 0.5)], view=explore.canvas.margins[0])
    assert lit_in_image(layer) == sorted(rows_of(0) + rows_of(2))
    drag(explore, [(0.5, 3.2), (0.5, 6.2)], view=explore.canvas.margins[1], modifiers=SHIFT | CTRL)
    assert lit_in_image(layer) == rows_of(2)
    qtbot.mouseClick(explore.tools.invert, Qt.MouseButton.LeftButton)
    assert lit_in_image(layer) == sorted(rows_of(0) + rows_of(1))
    qtbot.mouseClick(explore.tools.clear, Qt.MouseButton.LeftButton)
    assert lit_in_image(layer) == []
    for rows in (sorted(rows_of(0) + rows_of(1)), rows_of(2)):
        qtbot.mouseClick(explore.tools.undo, Qt.MouseButton.LeftButton)
        assert lit_in_image(layer) == rows
    assert "select 20 atoms" in explore.tools.undo.toolTip()
    qtbot.mouseClick(explore.tools.redo, Qt.MouseButton.LeftButton)
    assert lit_in_image(layer) == sorted(rows_of(0) + rows_of(1))
    assert lit_in_plot(explore) == 40


def test_pan_moves_the_view_and_selects_nothing(explore, layer, qtbot):
    before = explore.canvas.view
    qtbot.mouseClick(explore.tools.tools.buttons()[2], Qt.MouseButton.LeftButton)
    drag(explore, [(0, 0), (2, 2)])
    assert explore.canvas.view.left == pytest.approx(before.left - 2, abs=0.3)
    assert lit_in_image(layer) == []
    qtbot.mouseClick(explore.tools.tools.buttons()[0], Qt.MouseButton.LeftButton)
    drag(explore, [(0, 0), (2, 2)], button=Qt.MouseButton.MiddleButton)
    assert explore.canvas.view.left == pytest.approx(before.left - 4, abs=0.5)


def test_atoms_picked_in_the_image_light_up_in_the_plot_without_an_echo(explore, layer):
    told = []
    explore.link.selection.changed.connect(told.append)
    layer.selected_data = {3, 4, 5}
    assert told == ["image"]
    assert explore.link.selection.rows.tolist() == [3, 4, 5] == lit_in_image(layer)
    np.testing.assert_allclose(sorted(explore.canvas.selected_points.data["x"]), sorted(layer.features["z1"][3:6]))
    layer.selected_data.add(9)
    assert lit_in_plot(explore) == 4
    layer.selected_data = set()
    assert (lit_in_plot(explore), lit_in_image(layer)) == (0, [])
    explore.link.history.undo()
    assert set(layer.selected_data) == {3, 4, 5, 9}


def test_a_picked_cell_lights_up_and_shapes_that_are_there_select(explore, layer, viewer, qtbot):
    cells = add_cells(viewer, cell_labels(atoms_table(layer), (80, 120)), layer, viewer.layers["image"])
    assert explore.link.layer is layer, "cells are no points"
    cells.selected_label = 118
    assert lit_in_image(layer) == [17]
    qtbot.waitUntil(lambda: "selected cells" in viewer.layers)
    outline = viewer.layers["selected cells"]
    np.testing.assert_array_equal(outline.data, cell_outlines(cells.data, [117]))
    other = viewer.add_labels(np.full((80, 120), 107, np.int32), name="not cells")
    other.selected_label = 107
    assert lit_in_image(layer) == [17]
    explore.more.select_in_shapes()  # says that there is none yet
    viewer.add_shapes(np.array([[0, 0], [0, 35], [35, 35], [35, 0]]) / 2, shape_type="polygon")
    explore.more.select_in_shapes()
    assert lit_in_image(layer) == [0, 1, 2, 10, 11, 12, 20, 21, 22]
    qtbot.waitUntil(lambda: len(np.unique(cells.data[outline.data > 0])) == 8)  # without the one in the middle
    cells.visible = False
    assert not outline.visible
    viewer.layers.remove(cells)
    assert outline not in viewer.layers
    cells.selected_label = 119
    assert len(lit_in_image(layer)) == 9


def test_outlines_are_drawn_anew_only_where_others_are_lit(explore, layer, viewer, qtbot, monkeypatch):
    found = []
    monkeypatch.setattr(explore_image, "cell_outlines", lambda *cells: found.append(cell_outlines(*cells)) or found[-1])
    cells = add_cells(viewer, cell_labels(atoms_table(layer), (80, 120)), layer, viewer.layers["image"])
    cells.selected_label = 118
    qtbot.waitUntil(lambda: "selected cells" in viewer.layers)
    outline, drawn = viewer.layers["selected cells"], []
    outline.events.data.connect(lambda: drawn.append(outline.data.any()))
    layer.remove([40])  # not the one that is lit
    qtbot.waitUntil(lambda: len(found) == 2)
    assert QThreadPool.globalInstance().waitForDone(20_000)
    settle()
    assert not drawn
    layer.remove([17])
    qtbot.waitUntil(lambda: drawn == [False])


def test_outlines_of_cells_go_with_the_atoms(explore, layer, viewer, qtbot):
    cells = add_cells(viewer, cell_labels(atoms_table(layer), (80, 120)), layer, viewer.layers["image"])
    cells.selected_label = 118
    qtbot.waitUntil(lambda: "selected cells" in viewer.layers)
    viewer.layers.remove(layer)
    assert [one.name for one in viewer.layers] == ["image", cells.name]


def test_the_mouse_in_the_image_hovers_picks_cells_and_draws_regions(window, qtbot):
    viewer, layer, explore = window
    viewer.reset_view()
    canvas = viewer.window._qt_viewer.canvas.native
    camera = getattr(viewer, "scene", viewer).camera
    none, left = Qt.MouseButton.NoButton, Qt.MouseButton.LeftButton

    def do(*steps):
        for kind, place, changed, held in steps:
            away = (np.array(layer.data_to_world(place)) - camera.center[-2:]) * camera.zoom
            there = QPointF(canvas.width() / 2 + away[1], canvas.height() / 2 + away[0])
            shown = QPointF(canvas.mapToGlobal(there.toPoint()))
            event = QMouseEvent(kind, there, shown, changed, held, Qt.KeyboardModifier.NoModifier)
            QApplication.sendEvent(canvas, event)
            QApplication.processEvents()

    def move(place, held=none):
        return QEvent.Type.MouseMove, place, none, held

    def press(place):
        return QEvent.Type.MouseButtonPress, place, left, left

    def release(place):
        return QEvent.Type.MouseButtonRelease, place, left, none

    do(move((31.0, 41.0)))
    assert explore.hover.text().startswith("atom 123 · z1"), "the fourth row, the fourth column"
    assert explore.patch.right_text.text() == "atom 123"
    np.testing.assert_allclose(explore.canvas.cross.getData(), layer.features.loc[[23], ["z1", "z2"]].T)
    do(move((35.0, 45.0)), move((75.0, 115.0)))
    assert (explore.hover.text(), explore.patch.right_text.text()) == ("", "")
    assert len(explore.canvas.cross.getData()[0]) == 0

    cells = add_cells(viewer, cell_labels(atoms_table(layer), (80, 120)), layer, viewer.layers["image"])
    cells.mode = "pick"
    do(move((21.0, 51.0)), press((21.0, 51.0)), release((21.0, 51.0)))
    assert lit_in_image(layer) == [14]
    assert lit_in_plot(explore) == 1

    qtbot.keyClick(canvas, Qt.Key.Key_1)
    assert layer.features["annotation"].notna().to_numpy().nonzero()[0].tolist() == [14]
    qtbot.keyClick(canvas, Qt.Key.Key_Z, CTRL)
    assert "annotation" not in layer.features
    viewer.layers.selection.active = layer
    assert set(layer.selected_data) == {14}
    qtbot.keyClick(canvas, Qt.Key.Key_1)
    assert len(layer.data) == 60, "napari's own key would have deleted it"
    explore.link.history.undo()
    explore.hide()
    qtbot.keyClick(canvas, Qt.Key.Key_2)
    assert layer.mode == "add", "napari has its keys back"
    explore.show()
    layer.mode = "pan_zoom"
    explore.link.history.undo()  # to add points, napari lets go of those that are selected
    assert lit_in_image(layer) == [14]

    shapes = viewer.add_shapes(None, ndim=2, scale=(0.5, 0.5))
    shapes.mode = "add_polygon_lasso"
    corners = [(5, 5), (5, 25), (25, 25), (25, 5), (6, 5)]
    do(move(corners[0]), press(corners[0]), *(move(corner, left) for corner in corners), release(corners[-1]))
    assert lit_in_image(layer) == [0, 1, 10, 11]
    shapes.mode = "select"
    do(move((15, 15)), press((15, 15)), move((20, 15), left), move((35, 15), left), release((35, 15)))
    assert lit_in_image(layer) == [20, 21, 30, 31], "the region was moved"
    shapes.data = []
    explore.link.history.undo()
    assert lit_in_image(layer) == [0, 1, 10, 11]
    explore.link.history.undo()
    assert lit_in_image(layer) == [14]


def test_click_selects_an_atom_and_takes_the_camera_there(viewer, explore, layer, qtbot):
    x, y = layer.features.loc[41, ["z1", "z2"]]
    widget, main = explore.canvas.widget, explore.canvas.main
    place = widget.mapFromScene(main.mapViewToScene(QPointF(x, y)))
    qtbot.mouseClick(widget.viewport(), Qt.MouseButton.LeftButton, pos=place)
    assert lit_in_image(layer) == [41]
    camera = getattr(viewer, "scene", viewer).camera
    np.testing.assert_allclose(camera.center[-2:], layer.data_to_world(layer.data[41]))
    empty = widget.mapFromScene(main.mapViewToScene(QPointF(5, 5)))
    qtbot.mouseClick(widget.viewport(), Qt.MouseButton.LeftButton, pos=empty)
    assert lit_in_image(layer) == []


def test_stacks_are_linked_in_every_frame(viewer, qtbot):
    image = viewer.add_image(np.zeros((3, 80, 120), np.float32), name="movie")
    layer = add_atoms(viewer, table().assign(frame=np.arange(60) // 20, dy=0.1, dx=0.2), image)
    explore = shown(viewer, qtbot)
    drag(explore, [*LEFT_LOWER, LEFT_LOWER[0]])
    assert lit_in_image(layer) == rows_of(0)
    explore.image.go_to(45)
    assert viewer.dims.current_step[0] == 2
    frames = explore.patch.bars["frame"]
    assert not frames.isHidden()
    np.testing.assert_array_equal(frames.histogram.selected, [7, 7, 6])
    np.testing.assert_array_equal(frames.histogram.counts, [20, 20, 20])
    assert sum(not bars.isHidden() for bars in explore.patch.bars.values()) == 4
    assert explore.patch.minimumSizeHint().width() < 300  # a dock shows it without scrolling sideways
    add_cells(viewer, cell_labels(atoms_table(layer), (3, 80, 120)), layer, image)
    qtbot.waitUntil(lambda: "selected cells" in viewer.layers)
    assert viewer.layers["selected cells"].data.any(axis=(1, 2)).all()
    explore.image.set_link(explore.link)
    assert [atom_at(layer, (frame, 30, 11)) for frame in (0, 1, 9)] == [-1, 20, -1]


def test_axes_and_colours_can_be_any_feature_and_carry_units(explore, layer, qtbot):
    explore.columns.x_box.setCurrentIndex(explore.columns.x_box.findData("angle"))
    explore.columns.x_box.activated.emit(explore.columns.x_box.currentIndex())
    assert explore.canvas.axes["bottom"].labelText == "angle (deg)"
    assert explore.canvas.points.data["x"].max() == pytest.approx(np.degrees(1.5))
    explore.columns.color_box.setCurrentIndex(explore.columns.color_box.findData("angle"))
    explore.columns.color_box.activated.emit(explore.columns.color_box.currentIndex())
    colors = [brush.color().getRgbF() for brush in explore.canvas.points.data["brush"]]
    np.testing.assert_allclose(colors, layer.face_color, atol=0.03)
    drag(explore, [(30.0, 0.5), (60.5, 0.5)], view=explore.canvas.bar_view)
    degrees = np.degrees(layer.features["angle"])
    assert lit_in_image(layer) == np.flatnonzero((degrees > 30) & (degrees < 60.5)).tolist()


def test_a_click_on_a_class_in_the_legend_selects_it(explore, layer, qtbot):
    item, widget = explore.canvas.legend.item, explore.canvas.widget
    anchor = item.document().documentLayout().anchorAt
    for number, keys, kinds in (("1", SHIFT, (1,)), ("2", SHIFT, (1, 2)), ("1", CTRL, (2,)), ("0", SHIFT | CTRL, ())):
        place = next(QPointF(x, 10) for x in range(400) if anchor(QPointF(x, 10)) == number) + QPointF(3, 0)
        place = widget.mapFromScene(item.mapToScene(place))
        qtbot.mouseClick(widget.viewport(), Qt.MouseButton.LeftButton, keys, place)
        assert lit_in_image(layer) == np.flatnonzero(np.isin(KIND, kinds)).tolist()


def test_missing_values_are_grey_or_not_drawn_but_never_lost(explore, layer, qtbot):
    features = layer.features.copy()
    features.loc[:9, "z1"] = np.nan
    features.loc[10:19, "sublattice"] = np.nan
    layer.features = features
    qtbot.waitUntil(lambda: len(explore.canvas.points.data) == 50)
    greys = [brush.color().getRgb()[:3] for brush in explore.canvas.points.data["brush"][:10]]
    assert greys == [(128, 128, 128)] * 10
    drag(explore, [(-1.2, -1.2), (7, -1.2), (7, 7), (-1.2, 7)])
    assert explore.link.selection.count == 50


def test_selection_follows_the_atoms_when_the_table_changes(explore, layer, qtbot):
    drag(explore, [*LEFT_LOWER, LEFT_LOWER[0]])
    chosen = set(layer.features["atom_id"].iloc[rows_of(0)])

    layer.remove([0, 1, 2])
    qtbot.waitUntil(lambda: len(explore.canvas.points.data) == 57)
    assert set(explore.link.selection.ids[explore.link.selection.mask]) == chosen - {100}
    assert set(layer.features["atom_id"].iloc[lit_in_image(layer)]) == chosen - {100}

    layer.selected_data = set()
    layer.add([[33.0, 44.0]])
    assert len(explore.link.selection.ids) == 58
    assert set(layer.features["atom_id"].iloc[lit_in_image(layer)]) == {160}, "napari selects a point that is added"
    explore.link.history.undo()
    explore.link.history.undo()
    assert set(layer.features["atom_id"].iloc[lit_in_image(layer)]) == chosen - {100}

    data = layer.data.copy()
    data[0] += 1
    layer.data = data
    layer.features = layer.features.drop(columns=["z1", "z2"])
    qtbot.waitUntil(lambda: explore.columns.x_box.findData("z1") < 0)
    assert explore.link.selection.count == 19


def test_layers_may_be_renamed_switched_and_deleted(viewer, explore, qtbot):
    layer = explore.link.layer
    drag(explore, [*LEFT_LOWER, LEFT_LOWER[0]])
    layer.name = "first"
    assert explore.layer_box.currentText() == "first"
    second = add_atoms(viewer, table(30), viewer.layers[0])
    settle()
    assert explore.link.layer is second, "the layer that becomes active is shown"
    assert len(explore.canvas.points.data) == 30
    drag(explore, [(3.2, -1.2), (7, -1.2), (7, 2), (3.2, 2)])
    assert len(lit_in_image(second)) == 10
    viewer.layers.selection.active = layer
    assert (len(explore.canvas.points.data), lit_in_plot(explore)) == (60, 20)
    assert lit_in_image(layer) == rows_of(0)

    watched = (layer.events.data, layer.events.features, layer.events.name)
    links = weakref.ref(explore.link)
    viewer.layers.remove(layer)
    assert explore.link.layer is second
    assert len(explore.canvas.points.data) == 30
    gc.collect()
    assert links() is None
    ours = [c for emitter in watched for c in emitter.callbacks if "explore" in str(c) or "atoms_link" in str(c)]
    assert ours == []
    links = weakref.ref(explore.link)
    viewer.layers.remove(second)
    gc.collect()
    assert links() is None
    assert explore.link is None
    assert explore.pages.currentIndex() == 0
    drag(explore, [*LEFT_LOWER, LEFT_LOWER[0]])
    explore.classes.assign_number(1)


@pytest.mark.parametrize("n", [0, 1])
def test_no_atoms_and_one_atom(viewer, qtbot, tmp_path, n):
    layer = analysed(viewer, table(n))
    attach_model(layer, Model(TrainSettings(hidden=8), size=24, channels=1, k_max=0.3).eval())
    explore = shown(viewer, qtbot)
    assert explore.link.layer is layer
    drag(explore, [(-9, -9), (9, -9), (9, 9), (-9, 9)])
    qtbot.mouseClick(explore.tools.invert, Qt.MouseButton.LeftButton)
    explore.more.select_where("z1 > -10")
    assert explore.link.selection.count == n
    explore.canvas.hovered.emit(0.0, 0.0)
    assert bool(explore.hover.text()) == bool(n)
    assert atom_at(layer, (5.0, 5.0)) == n - 1
    add_cells(viewer, cell_labels(atoms_table(layer), (80, 120)), layer, viewer.layers["image"])
    explore.classes.assign_number(1)
    explore.classes.add_class()
    explore.image.show_classes(explore.link)
    for place in range(4):
        explore.tabs.setCurrentIndex(place)
    explore.manifold.add_layer()
    explore.more.save_table(tmp_path / "atoms.csv")
    explore.canvas.save(tmp_path / "plot.png")
    qtbot.waitUntil(lambda: f"{layer.name} classes" in viewer.layers)
    assert viewer.layers[f"{layer.name} classes"].data.max() == n
    qtbot.waitUntil(lambda: ("selected cells" in viewer.layers) == (n == 1))  # outlined in a thread
    viewer.layers.selection.active = layer
    layer.add([[5.0, 5.0]])
    qtbot.waitUntil(lambda: f"of {n + 1} atoms" in explore.status.text())
    while explore.link.history.next_undo:
        explore.link.history.undo()
    assert "annotation" not in layer.features
    assert explore.link.selection.count == 0


def test_a_layer_without_features_is_offered_once_it_has_some(viewer, qtbot):
    plain = viewer.add_points(np.zeros((4, 2)))
    explore = shown(viewer, qtbot)
    assert explore.link is None
    plain.features = pd.DataFrame({"a": np.arange(4.0), "b": np.arange(4.0)})
    qtbot.waitUntil(lambda: explore.link is not None and explore.link.layer is plain)
    assert plain.features["atom_id"].is_unique


def test_number_keys_make_classes_and_undo_takes_them_back(explore, layer, qtbot):
    explore.tabs.setCurrentIndex(explore.panels.index(explore.classes))
    for number, region in ((Qt.Key.Key_1, LEFT_LOWER), (Qt.Key.Key_2, [(x + 5, y) for x, y in LEFT_LOWER])):
        drag(explore, [*region, region[0]])
        press(qtbot, explore, number)
    annotation = layer.features["annotation"]
    assert annotation.cat.categories.tolist() == ["class 1", "class 2"]
    # The codes are what the semi-supervised models take: -1 has no label.
    np.testing.assert_array_equal(annotation.cat.codes, np.choose(KIND, [0, 1, -1]))
    assert explore.columns.color_box.currentText() == "annotation"
    names = [explore.classes.list.topLevelItem(row).text(1) for row in range(2)]
    numbers = [explore.classes.list.topLevelItem(row).text(2) for row in range(2)]
    assert (names, numbers) == (["class 1", "class 2"], ["20", "20"])

    press(qtbot, explore, Qt.Key.Key_0)
    assert layer.features["annotation"].notna().sum() == 20
    press(qtbot, explore, Qt.Key.Key_Z, CTRL)
    assert layer.features["annotation"].notna().sum() == 40
    explore.classes.list.topLevelItem(0).setText(1, "vacancy")
    assert layer.features["annotation"].cat.categories.tolist() == ["vacancy", "class 2"]
    for _ in range(10):
        press(qtbot, explore, Qt.Key.Key_Z, CTRL)
    assert "annotation" not in layer.features
    assert lit_in_image(layer) == []


def test_classes_survive_atoms_that_come_and_go_and_are_selected_renamed_and_deleted(explore, layer, qtbot):
    explore.tabs.setCurrentIndex(explore.panels.index(explore.classes))
    drag(explore, [*LEFT_LOWER, LEFT_LOWER[0]])
    explore.classes.assign_number(1)
    layer.remove([0, 1])
    explore.link.history.undo()
    assert "annotation" not in layer.features
    explore.link.history.redo()
    assert layer.features["annotation"].notna().sum() == 19
    explore.link.selection.clear()
    explore.classes.list.setCurrentItem(explore.classes.list.topLevelItem(0))
    buttons = {button.text(): button for button in explore.classes.findChildren(type(explore.clusters.by))}
    qtbot.mouseClick(buttons["Select"], Qt.MouseButton.LeftButton)
    assert explore.link.selection.count == 19
    qtbot.mouseClick(buttons["New"], Qt.MouseButton.LeftButton)
    assert layer.features["annotation"].cat.categories.tolist() == ["class 1", "class 2"]
    # Joining two classes under one name.
    explore.classes.list.topLevelItem(1).setText(1, "class 1")
    assert layer.features["annotation"].cat.categories.tolist() == ["class 1"]
    explore.classes.list.setCurrentItem(explore.classes.list.topLevelItem(0))
    qtbot.mouseClick(buttons["Delete"], Qt.MouseButton.LeftButton)
    assert layer.features["annotation"].notna().sum() == 0
    explore.link.history.undo()
    assert layer.features["annotation"].notna().sum() == 19


def test_a_new_class_is_named_with_any_letters_and_digits_at_once(explore, layer, qtbot):
    explore.window().activateWindow()
    explore.tabs.setCurrentIndex(explore.panels.index(explore.classes))
    explore.link.selection.combine(KIND == 0)
    buttons = {button.text(): button for button in explore.classes.findChildren(type(explore.clusters.by))}
    qtbot.mouseClick(buttons["New"], Qt.MouseButton.LeftButton)
    settle()  # the table is shown anew meanwhile
    editor = explore.classes.list.findChild(QLineEdit)
    qtbot.keyClicks(editor, "Si 1i0")
    qtbot.keyClick(editor, Qt.Key.Key_Return)
    settle()
    annotation = layer.features["annotation"]
    assert (annotation.cat.categories.tolist(), annotation.notna().sum()) == (["Si 1i0"], 0)
    assert explore.link.selection.count == 20


def test_a_class_has_the_colour_that_was_chosen_wherever_it_is_shown(explore, layer, viewer, qtbot, monkeypatch):
    explore.tabs.setCurrentIndex(explore.panels.index(explore.classes))
    for kind in (0, 1):
        explore.link.selection.combine(kind == KIND)
        explore.classes.assign_number(kind + 1)
    own = layer.face_color.copy()
    monkeypatch.setattr(explore_classes.QColorDialog, "getColor", lambda *_: QColor("#ff0000"))
    swatch = explore.classes.list.visualItemRect(explore.classes.list.topLevelItem(1)).topLeft() + QPoint(8, 5)
    for send in (qtbot.mouseClick, qtbot.mouseDClick):
        send(explore.classes.list.viewport(), Qt.MouseButton.LeftButton, pos=swatch)
    red = np.array([1, 0, 0, 1])
    np.testing.assert_allclose(layer.face_color[KIND == 1], np.tile(red, (20, 1)))
    np.testing.assert_allclose(layer.face_color[KIND != 1], own[KIND != 1])
    qtbot.waitUntil(lambda: explore.canvas.points.data["brush"][1].color() == QColor("#ff0000"))
    explore.classes.list.topLevelItem(1).setText(1, "vacancy")
    np.testing.assert_allclose(layer.face_color[KIND == 1], np.tile(red, (20, 1)))
    assert explore.more.copy_selection().face_color[0].tolist() == red.tolist()
    viewer.layers.selection.active = layer
    for _ in range(2):
        explore.link.history.undo()
    np.testing.assert_allclose(layer.face_color, own)


def test_classes_as_labels_follow_the_atoms_and_select_them(explore, layer, viewer, qtbot):
    buttons = {button.text(): button for button in explore.classes.findChildren(type(explore.clusters.by))}
    buttons["Labels"].click()  # says that there is no class yet
    for kind in (0, 1):
        explore.link.selection.combine(kind == KIND)
        explore.classes.assign_number(kind + 1)
    buttons["Labels"].click()
    qtbot.waitUntil(lambda: f"{layer.name} classes" in viewer.layers)
    labels = viewer.layers[f"{layer.name} classes"]
    places = tuple(layer.data.astype(int).T)
    np.testing.assert_array_equal(labels.data[places], np.choose(KIND, [1, 2, 0]))
    assert labels.features["class"].tolist() == ["none", "class 1", "class 2"]
    np.testing.assert_allclose(labels.colormap.color_dict[2], layer.face_color[1], atol=0.01)
    np.testing.assert_allclose(labels.scale, layer.scale)
    labels.selected_label = 2
    assert lit_in_image(layer) == rows_of(1)
    explore.classes.assign_number(0)
    qtbot.waitUntil(lambda: labels.data.max() == 1)
    explore.link.history.undo()
    qtbot.waitUntil(lambda: labels.data.max() == 2)
    viewer.layers.remove(labels)
    explore.classes.assign_number(1)
    assert labels not in viewer.layers


def test_clusters_are_found_in_a_thread_and_become_a_column(explore, layer, qtbot):
    explore.tabs.setCurrentIndex(explore.panels.index(explore.clusters))
    with qtbot.waitSignal(explore.clusters.work.done, timeout=30_000):
        qtbot.mouseClick(explore.clusters.work.start_button, Qt.MouseButton.LeftButton)
    assert pd.crosstab(layer.features["cluster"], KIND).gt(0).to_numpy().sum() == 3
    assert layer.features["cluster_probability"].min() > 0.9
    assert explore.columns.color_box.currentText() == "cluster"
    assert "3 clusters" in explore.clusters.work.label.text()
    panel = explore.clusters
    assert {panel.first.currentText(), panel.second.currentText()} == {"cluster", "sublattice"}
    assert "1.000" in panel.score.text()
    explore.link.history.undo()
    assert "cluster" not in layer.features


def test_clusters_of_too_few_values_say_so_and_change_nothing(explore, layer, qtbot, monkeypatch):
    layer.features = layer.features.assign(z1=np.nan)
    explore.tabs.setCurrentIndex(explore.panels.index(explore.clusters))
    with qtbot.waitSignal(explore.clusters.work.done, timeout=30_000):
        explore.clusters.find_clusters()
    assert "Only 0 atoms" in explore.clusters.work.label.text()
    assert "cluster" not in layer.features


def turned_motifs(viewer):
    """Two and three blobs around a place in turn, each turned by a known angle, and a model that says so."""
    rng = np.random.default_rng(0)
    image = 0.01 * rng.standard_normal((160, 160)).astype(np.float32)
    places = np.arange(10, 160, 20.0)
    centers = np.stack(np.meshgrid(places, places, indexing="ij"), -1).reshape(-1, 2)
    angle, kind = rng.uniform(-1, 1, len(centers)), np.arange(len(centers)) % 2
    y, x = np.mgrid[:160, :160]
    for center, turn, more in zip(centers, angle, kind, strict=True):
        for way in turn + 2 * np.pi * np.arange(2 + more) / 3:
            top, left = center + 5 * np.array([np.sin(way), np.cos(way)])
            image += np.exp(-((y - top) ** 2 + (x - left) ** 2) / 4)
    atoms = pd.DataFrame({"atom_id": 100 + np.arange(64), "y": centers[:, 0], "x": centers[:, 1]})
    atoms = atoms.assign(z1=rng.normal(size=64), angle=angle, dy=0.0, dx=0.0, unexplained=0.25)
    atoms.loc[0, ["z1", "angle", "dy", "dx", "unexplained"]] = np.nan
    layer = add_atoms(viewer, atoms, viewer.add_image(image, name="motifs"))
    model = Model(TrainSettings(hidden=8, latent=1), size=20, channels=1, k_max=0.3)
    model.recipe["patch"] = PatchSettings(size=20, working_size=20).model_dump()
    attach_model(layer, model.eval())
    return layer, kind


def test_baselines_of_the_models_patches_lie_beside_its_results(viewer, qtbot, tmp_path):
    layer, kind = turned_motifs(viewer)
    before = layer.features.copy()
    explore = shown(viewer, qtbot)
    panel = explore.baseline
    explore.tabs.setCurrentIndex(explore.panels.index(panel))
    assert "model's angles" in panel.help.text()

    def computed(**settings):
        panel.form.set_value(BaselineSettings(classes=2, **settings))
        with qtbot.waitSignal(panel.work.done, timeout=60_000):
            qtbot.mouseClick(panel.work.start_button, Qt.MouseButton.LeftButton)
        said = re.fullmatch(r"(.+): (\S+) % unexplained; this model: 25 %\.", panel.comparison.text())
        return said[1], float(said[2])

    aligned = computed(latent=3)
    assert aligned[0] == "PCA, 3 components"
    assert explore.columns.color_box.currentData() == "pca_gmm_class"
    found = layer.features
    pd.testing.assert_frame_equal(found[list(before)], before)
    assert found.loc[0, ["pca1", "pca_unexplained", "pca_gmm_class"]].isna().all(), "not encoded"
    assert pd.crosstab(found["pca_gmm_class"], kind).gt(0).to_numpy().sum() == 2, "each kind is a class"
    assert {"pca1", "pca2"} <= {explore.columns.x_box.itemData(row) for row in range(explore.columns.x_box.count())}
    turned = computed(latent=3, aligned=False, clusters="kmeans")
    assert turned[0] == "Unaligned PCA, 3 components"
    assert 5 * aligned[1] < turned[1]
    assert {"pca1", "pca3", "unaligned_pca1", "unaligned_pca_kmeans_class"} <= set(layer.features)
    explore.more.save_table(tmp_path / "atoms.csv")
    saved = pd.read_csv(tmp_path / "atoms.csv")
    np.testing.assert_allclose(saved["unaligned_pca1"], layer.features["unaligned_pca1"], rtol=1e-5)
    assert computed(latent=1)[1] >= aligned[1]
    assert "pca1" in layer.features
    assert "pca2" not in layer.features, "of three components"
    for _ in range(2):
        explore.link.history.undo()
    assert "pca3" in layer.features
    assert "unaligned_pca1" not in layer.features
    explore.link.history.undo()
    assert list(layer.features) == list(before)


def test_a_baseline_without_model_or_image(explore, layer, viewer, qtbot, told):
    explore.tabs.setCurrentIndex(explore.panels.index(explore.baseline))
    with qtbot.waitSignal(explore.baseline.work.done, timeout=60_000):
        explore.baseline.compute()
    assert re.fullmatch(r"PCA, 2 components: \S+ % unexplained\.", explore.baseline.comparison.text())
    assert layer.features["pca1"].notna().all()
    assert layer.features["pca1"].dtype == np.float64, "as recipes hold them"
    attach_model(layer, Model(TrainSettings(hidden=8), size=24, channels=2, k_max=0.3).eval())
    with qtbot.waitSignal(explore.baseline.work.done, timeout=60_000):
        explore.baseline.compute()
    assert "2 channels, 'image' has 1" in told()[-1]
    viewer.layers.remove("image")
    gc.collect()
    explore.baseline.compute()
    assert "needs the image" in told()[-1]


def test_a_baseline_of_points_of_ones_own_is_of_the_image_under_them(viewer, qtbot):
    viewer.add_image(np.random.default_rng(0).normal(size=(80, 120)))
    own = viewer.add_points(table()[["y", "x"]].to_numpy(), features=table()[["z1"]])
    panel = shown(viewer, qtbot).baseline
    with qtbot.waitSignal(panel.work.done, timeout=60_000):
        panel.compute()
    assert own.features["pca2"].notna().all()


def test_selection_shows_its_mean_patch_and_hover_the_nearest_atom(explore, layer, qtbot):
    explore.link.selection.combine(np.arange(60) == 7)
    assert (explore.patch.left_text.text(), explore.patch.right_text.text()) == ("atom 107", ""), "one has no spread"
    explore.link.selection.combine(KIND == 1)
    assert explore.patch.left_text.text() == "mean of 20"
    mean, spread = table()["z1"][KIND == 1].mean(), table()["z1"][KIND == 1].std(ddof=0)
    assert f"z1 {mean:.2f} ± {spread:.2f}" in explore.patch.words.text(), "to the digit that the spread allows"
    angles = explore.patch.bars["angle"]
    low, high = angles.histogram.edges[[0, -1]]
    assert (low, high) == pytest.approx((0, 90)), "four-fold"
    assert (angles.histogram.counts.sum(), angles.histogram.selected.sum()) == (60, 20)
    assert explore.patch.bars["dx"].isHidden(), "no offsets in this table"
    explore.patch.grab()
    x, y = layer.features.loc[7, ["z1", "z2"]]
    explore.canvas.hovered.emit(x, y)
    assert explore.hover.text().startswith("atom 107 · z1")
    near = np.hypot(layer.features["z1"] - x, layer.features["z2"] - y).nsmallest(4).index
    named = re.findall(r"\d+", explore.patch.right_text.text())
    assert set(map(int, named)) & set(100 + near) > {107}, "the view is not quite square"
    assert named[0] == "107"
    assert explore.patch.left_text.text() == "no model"
    explore.canvas.left.emit()
    assert explore.patch.left_text.text() == "mean of 20"


def test_a_model_decodes_the_place_under_the_cursor_its_manifold_and_a_path(explore, layer, viewer, qtbot):
    attach_model(layer, Model(TrainSettings(hidden=8), size=24, channels=1, k_max=0.3).eval())
    explore.canvas.hovered.emit(0.0, 0.0)
    assert explore.patch.left_text.text() == "decoded here"
    explore.tabs.setCurrentIndex(explore.panels.index(explore.manifold))
    qtbot.mouseClick(explore.manifold.picture, Qt.MouseButton.LeftButton)  # its middle
    middle = np.nanmedian(layer.features[["z1", "z2"]], axis=0)
    np.testing.assert_allclose(explore.canvas.cross.getData(), middle[:, np.newaxis], atol=1e-6)
    qtbot.mouseClick(explore.manifold.layer_button, Qt.MouseButton.LeftButton)
    assert viewer.layers[-1].data.shape == (9 * 24, 9 * 24)
    assert not explore.manifold.path_button.isEnabled()
    viewer.layers.selection.active = layer
    explore.link.selection.combine(np.isin(np.arange(60), [3, 8]))
    qtbot.mouseClick(explore.manifold.path_button, Qt.MouseButton.LeftButton)
    movie = viewer.layers[-1]
    ends = decode(model_of(layer), layer.features.loc[[3, 8], ["z1", "z2"]].to_numpy())[:, 0]
    np.testing.assert_allclose(movie.data[[0, -1]], ends, atol=1e-5)
    assert movie.data.shape == (25, 24, 24)
    lefts, rights = ([place.extent.world[side, -1] for place in viewer.layers[-2:]] for side in (0, 1))
    assert viewer.layers["image"].extent.world[1, -1] < lefts[0] < rights[0] < lefts[1], "beside each other"
    layer.features = layer.features.assign(z1=np.where(np.arange(60) == 3, np.nan, layer.features["z1"]))
    count = len(viewer.layers)
    explore.manifold.add_path()
    assert "finite" in explore.manifold.words.text()
    assert len(viewer.layers) == count


def test_a_path_between_atoms_of_one_class_stays_in_it(explore, layer, viewer):
    torch.manual_seed(0)
    model = Model(TrainSettings(model="jrvae", classes=3, hidden=8), size=24, channels=1, k_max=0.3).eval()
    nothing = torch.zeros(3, 1, 2 * model.space.terms)
    model.set_frames(nothing, torch.zeros(3), torch.zeros(3, 5), torch.ones(3, dtype=torch.int64))
    attach_model(layer, model)
    layer.features = layer.features.assign(**{"class": KIND})
    explore.tabs.setCurrentIndex(explore.panels.index(explore.manifold))
    settle()
    for chosen, pair, kind in ((0, [2, 5], 2), (1, [3, 5], 1)):  # the latter are of two classes
        explore.manifold.inputs.class_box.setCurrentIndex(chosen)
        explore.link.selection.combine(np.isin(np.arange(60), pair))
        explore.manifold.add_path()
        ends = decode(model, layer.features.loc[pair, ["z1", "z2"]].to_numpy(), [kind] * 2)[:, 0]
        np.testing.assert_allclose(viewer.layers[-1].data[[0, -1]], ends, atol=1e-5)


def test_what_two_groups_differ_in_is_added_to_any_patch(explore, layer, viewer, qtbot):
    model = Model(TrainSettings(hidden=8), size=24, channels=1, k_max=0.3).eval()
    attach_model(layer, model)
    attribute, z = explore.patch.attribute, layer.features[["z1", "z2"]].to_numpy()
    explore.patch.refresh()
    assert not attribute.buttons["A"].isEnabled()
    groups = np.isin(np.arange(60), [3, 4, 5]), np.isin(np.arange(60), [20, 21])
    for letter, group in zip("AB", groups, strict=True):
        explore.link.selection.combine(group)
        assert attribute.picture.isHidden()
        qtbot.mouseClick(attribute.buttons[letter], Qt.MouseButton.LeftButton)
    direction = z[groups[1]].mean(0) - z[groups[0]].mean(0)
    expected = decode(model, z[groups[1]].mean(0) + np.array([-1, 0, 2])[:, None] * direction)[:, 0]
    for place, patch in zip((0, 2, 6), expected, strict=True):
        np.testing.assert_allclose(attribute._array[:, 24 * place : 24 * (place + 1)], patch, atol=1e-4)
    qtbot.mouseClick(attribute.layer_button, Qt.MouseButton.LeftButton)
    assert viewer.layers[-1].data.shape == (24, 7 * 24)
    explore.image.hovered.emit(8)
    assert "Atom" in attribute.words.text()
    np.testing.assert_allclose(attribute._array[:, 48:72], decode(model, z[8])[0, 0], atol=1e-4)
    layer.features = layer.features.assign(z1=np.nan)
    explore.patch.refresh()
    assert "encoded" in attribute.words.text()
    assert attribute.picture.isHidden()


@pytest.mark.parametrize(("name", "classes", "conditions"), [("jrvae", 3, 0), ("crvae", None, 2)])
def test_class_and_condition_of_a_model_are_chosen_by_hand(explore, layer, name, classes, conditions):
    settings = TrainSettings(model=name, classes=classes, hidden=8)
    torch.manual_seed(0)
    model = Model(settings, size=24, channels=1, k_max=0.3, conditions=conditions).eval()
    nothing = torch.zeros(3, 1, 2 * model.space.terms)
    model.set_frames(nothing, torch.zeros(3), torch.zeros(3, 5), torch.ones(3, dtype=torch.int64))
    attach_model(layer, model)
    layer.features = layer.features.assign(**{"class": KIND} if classes else {})
    settle()
    explore.tabs.setCurrentIndex(explore.panels.index(explore.manifold))
    inputs = explore.manifold.inputs
    assert not inputs.isHidden()
    first = explore.manifold._array
    if classes:
        inputs.class_box.setCurrentIndex(2)
        inputs.class_box.activated.emit(2)
    else:
        np.testing.assert_array_equal(inputs.condition, [[1, 0]])
        inputs.boxes[0].setValue(0)
        inputs.boxes[1].setValue(1)
    assert not np.allclose(first, explore.manifold._array)
    explore.tabs.setCurrentIndex(0)
    assert not explore.patch.inputs.isHidden()
    explore.canvas.hovered.emit(0.0, 0.0)
    assert explore.patch.left_text.text() == "decoded here"
    attach_model(layer, None)
    layer.features = layer.features.copy()
    settle()
    assert explore.patch.inputs.isHidden()


def test_an_atom_is_decoded_with_its_own_condition_unless_another_is_chosen(explore, layer):
    columns = [{"name": "phase", "classes": ["a", "b"]}, {"name": "T (K)", "mean": 300.0, "spread": 50.0}]
    torch.manual_seed(0)
    model = Model(TrainSettings(model="crvae", hidden=8), size=24, channels=1, k_max=0.3, conditions=3).eval()
    model.recipe["condition_columns"] = columns
    nothing = torch.zeros(3, 1, 2 * model.space.terms)
    model.set_frames(nothing, torch.zeros(3), torch.zeros(3, 5), torch.ones(3, dtype=torch.int64))
    attach_model(layer, model)
    count = len(layer.features)
    layer.features = layer.features.assign(phase=["a", "b"] * (count // 2) + ["a"] * (count % 2))
    layer.features = layer.features.assign(**{"T (K)": np.linspace(250, 350, count)})
    settle()
    inputs = explore.patch.inputs
    assert [inputs._rows.labelForField(box).text() for box in inputs.boxes] == ["phase", "T (K)"]
    assert inputs.own_box.isChecked()
    assert not inputs.boxes[0].isEnabled()
    assert inputs.condition_of(layer.features, np.array([1])).tolist() == [["b", layer.features["T (K)"][1]]]
    inputs.own_box.setChecked(False)
    assert inputs.condition_of(layer.features, np.array([1])).tolist() == [["a", 300.0]]
    for own in (True, False):
        inputs.own_box.setChecked(own)
        z = np.nan_to_num(layer.features[["z1", "z2"]].to_numpy()[1:2])
        expected = decode(model, z, condition=inputs.condition_of(layer.features, np.array([1])))[0, 0]
        explore.patch.show_place({}, np.array([1]))
        np.testing.assert_allclose(explore.patch._decoded(layer.features, {}, 1), expected, atol=1e-5)


@pytest.mark.parametrize("phases", ["aa", "bb", "ab"])
def test_a_path_goes_from_the_condition_of_one_atom_to_that_of_the_other(explore, layer, viewer, phases):
    columns = [{"name": "phase", "classes": ["a", "b"]}, {"name": "T (K)", "mean": 300.0, "spread": 50.0}]
    model = Model(TrainSettings(model="crvae", hidden=8), size=24, channels=1, k_max=0.3, conditions=3).eval()
    model.recipe["condition_columns"] = columns
    attach_model(layer, model)
    names = np.full(len(layer.features), "a", object)
    names[[3, 8]] = list(phases)
    layer.features = layer.features.assign(phase=names, **{"T (K)": np.linspace(200, 400, len(names))})
    explore.tabs.setCurrentIndex(explore.panels.index(explore.manifold))
    settle()
    manifold = explore.manifold.picture.grab().toImage()
    explore.link.selection.combine(np.isin(np.arange(len(names)), [3, 8]))
    explore.manifold.add_path()
    movie, rows = viewer.layers[-1].data, layer.features.loc[[3, 8]]
    ends = decode(model, rows[["z1", "z2"]].to_numpy(), condition=rows[["phase", "T (K)"]])[:, 0]
    np.testing.assert_allclose(movie[[0, -1]], ends, atol=1e-5)
    if phases != "ab":
        half = pd.DataFrame({"phase": [phases[0]], "T (K)": [rows["T (K)"].mean()]})
        middle = decode(model, rows[["z1", "z2"]].mean().to_numpy()[None], condition=half)[0, 0]
        np.testing.assert_allclose(movie[12], middle, atol=1e-5)
    assert explore.manifold.picture.grab().toImage() == manifold


def test_columns_that_are_compared_are_read_in_a_narrow_dock(explore, layer):
    layer.features = layer.features.assign(annotation=pd.Categorical(["wall", "domain"] * 30), sublattice=KIND)
    explore.tabs.setCurrentIndex(explore.panels.index(explore.clusters))
    settle()
    explore.setStyleSheet(get_stylesheet("dark"))
    explore.resize(330, 900)
    settle()
    panel = explore.clusters
    panel.first.setCurrentText("annotation")
    panel.second.setCurrentText("sublattice")
    for box in (panel.first, panel.second):
        assert box.width() >= box.sizeHint().width(), f"{box.currentText()} is cut off"
        assert panel.rect().contains(box.geometry())


def test_classes_that_were_labelled_are_offered_by_name(explore, layer):
    model = Model(TrainSettings(model="ssrvae", classes=3, hidden=8), size=24, channels=1, k_max=0.3).eval()
    model.recipe["class_names"] = ["heavy", "light"]
    explore.manifold.inputs.set_model(model)
    box = explore.manifold.inputs.class_box
    assert [box.itemText(row) for row in range(box.count())] == ["heavy", "light", "2"]


def test_out_come_the_table_the_plot_and_the_selection(explore, layer, viewer, qtbot, tmp_path):
    drag(explore, [*LEFT_LOWER, LEFT_LOWER[0]])
    explore.more.save_table(tmp_path / "atoms.csv")
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "atoms.csv"), layer.features, check_dtype=False)
    for name in ("plot.png", "plot.svg"):
        explore.scatter.save(tmp_path / name)
        assert (tmp_path / name).stat().st_size > 1000
        with pytest.raises(OutputError, match="cannot be written"):
            explore.canvas.save(tmp_path / "missing" / name)
    with pytest.raises(OutputError, match=r"end it in \.png"):
        explore.canvas.save(tmp_path / "plot")
    assert QImage(str(tmp_path / "plot.png")).width() == 2400
    recipe = json.loads((tmp_path / "atoms.recipe.json").read_text())
    assert recipe["units"] == {"y": "px", "x": "px", "angle": "rad"}
    assert recipe["atoms"]["atom_id"] == layer.features["atom_id"].tolist()
    assert "z1" not in recipe["atoms"]
    copy = explore.more.copy_selection()
    assert copy.features["atom_id"].tolist() == layer.features["atom_id"].iloc[rows_of(0)].tolist()
    np.testing.assert_array_equal(copy.data, layer.data[rows_of(0)])
    np.testing.assert_allclose(copy.scale, layer.scale)


def test_values_select_and_nonsense_is_refused(explore, layer, monkeypatch, told):
    explore.more.select_where("sublattice == 1 and y < 30")
    assert lit_in_image(layer) == [row for row in rows_of(1) if row < 20]
    with pytest.raises(InputDataError, match="no column 'nonsense'"):
        explore.more.select_where("nonsense > 1")
    for answer, agreed in (("x <", True), ("z1 > 2", False)):
        monkeypatch.setattr(explore_controls.QInputDialog, "getText", lambda *_, **__: (answer, agreed))  # noqa: B023
        explore.more._ask_where()
    assert "cannot be understood" in told()[-1]
    assert lit_in_image(layer) == [row for row in rows_of(1) if row < 20]


def test_atoms_on_which_an_ensemble_disagrees(explore, layer, told):
    (disagrees,) = [action for action in explore.more.actions() if "disagrees" in action.text()]
    disagrees.trigger()
    assert "more than one member" in told()[-1]
    layer.features = layer.features.assign(z1_dispersion=np.where(KIND == 2, 9.0, 0.1))
    settle()
    disagrees.trigger()
    assert lit_in_image(layer) == rows_of(2)
    layer.features = layer.features.assign(z1_dispersion=0.1)
    settle()
    disagrees.trigger()
    assert lit_in_image(layer) == []
    assert "agree on all atoms" in told()[-1]


def test_results_of_another_model_fill_the_plot(explore, layer):
    attach_model(layer, Model(TrainSettings(hidden=8), size=24, channels=1, k_max=0.3).eval())
    layer.features = layer.features.assign(z1=100 * layer.features["z1"])
    settle()
    (left, right), _ = explore.canvas.main.viewRange()
    assert left < layer.features["z1"].min()
    assert right > layer.features["z1"].max()
    layer.features = layer.features.assign(z1=0.01 * layer.features["z1"])  # edited: the place that is looked at stays
    settle()
    assert explore.canvas.main.viewRange()[0] == [left, right]


def test_follows_the_theme(explore, viewer, monkeypatch):
    monkeypatch.setattr(scatter, "MOST_SELECTED_POINTS", 10)
    explore.link.selection.combine(KIND == 0)
    for theme in ("light", "dark"):
        viewer.theme = theme
        assert (explore.canvas.widget.backgroundBrush().color().lightness() < 128) == (theme == "dark")
        assert (explore.canvas.selected_density.image[..., 0].mean() > 128) == (theme == "dark")


def test_closing_the_dock_lets_go_of_everything(window):
    viewer, layer, explore = window
    drag(explore, [*LEFT_LOWER, LEFT_LOWER[0]])
    viewer.window.remove_dock_widget(explore)
    assert lit_in_image(layer) == []
    layer.selected_data = {1, 2}
    layer.features = layer.features.assign(z1=0.0)
    viewer.theme = "light"
    viewer.layers.clear()
    emitters = [viewer.layers.events.inserted, viewer.layers.events.removed, viewer.events.theme, layer.events.features]
    assert [c for emitter in emitters for c in emitter.callbacks if "explore" in str(c).lower()] == []


def test_very_many_atoms_light_up_without_napari_selecting_them(explore, layer, monkeypatch):
    monkeypatch.setattr(atoms_link, "MOST_MIRRORED", 10)
    explore.link.selection.combine(KIND == 0)
    assert lit_in_image(layer) == rows_of(0)
    assert not layer.selected_data
    layer.selected_data = {4}
    assert lit_in_image(layer) == [4]
