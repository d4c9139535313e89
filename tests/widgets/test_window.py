"""In a real window: from the menus and a sample to coloured atoms, a linked plot and saved files."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from napari.layers import Labels
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QWidget

from napari_rvae.io import load_image
from napari_rvae.layers import (
    Coloring,
    add_atoms,
    add_cells,
    add_image,
    cell_colormap,
    color_cells,
    color_points,
    coloring_of,
)
from napari_rvae.settings import TrainSettings
from napari_rvae.widgets.columns import color_scale
from napari_rvae.widgets.demo import Demo, run_demo

from .conftest import crystal

QUICK = TrainSettings(epochs=2, hidden=16, start="scratch", threads=1)
TITLES = {
    "napari/layers/segment": "Find atoms",
    "napari/layers/measure": "Train rVAE",
    "napari/layers/visualize": "Explore latent space",
}


def test_docks_are_in_the_menus(make_napari_viewer):
    from napari._app_model import get_app_model

    make_napari_viewer()
    menus = get_app_model().menus
    for menu, title in TITLES.items():
        assert [item for item in menus.get_menu(menu) if title in getattr(item.command, "title", "")], title


@pytest.mark.parametrize("name", TITLES.values())
def test_dock_opens_alone_and_closes(make_napari_viewer, qtbot, name):
    viewer = make_napari_viewer()
    dock, widget = viewer.window.add_plugin_dock_widget("napari-rvae", name)
    qtbot.waitUntil(lambda: widget.width() > 0)
    dock.destroyOnClose()
    viewer.add_image(np.eye(16))
    viewer.add_points(np.zeros((1, 2)))


def test_docks_opened_one_after_the_other_share_one_place(make_napari_viewer, qtbot):
    viewer = make_napari_viewer(show=True)
    docks = []
    for name in TITLES.values():
        dock, widget = viewer.window.add_plugin_dock_widget("napari-rvae", name)
        qtbot.waitUntil(lambda widget=widget: widget.placed and not widget.visibleRegion().isEmpty())
        docks.append(dock)
    first, *others = docks
    assert set(first.window().tabifiedDockWidgets(first)) == set(others)


def luminance(color):
    """As for the contrast of the Web Content Accessibility Guidelines."""
    light = np.array(color.getRgbF()[:3])
    return np.where(light > 0.04045, ((light + 0.055) / 1.055) ** 2.4, light / 12.92) @ (0.2126, 0.7152, 0.0722)


def test_boxes_of_more_channels_are_seen_in_every_theme(make_napari_viewer, qtbot):
    viewer = make_napari_viewer(show=True)
    for name in "abc":
        viewer.add_image(np.eye(16), name=name)
    _, dock = viewer.window.add_plugin_dock_widget("napari-rvae", "Train rVAE")
    dock.form.folded.expand(animate=False)
    channels = dock.channels.list
    channels.item(0).setCheckState(Qt.CheckState.Checked)
    fills = set()
    for theme in ("dark", "light"):
        viewer.theme = theme
        qtbot.wait(1)
        picture, fill = channels.grab().toImage(), []
        for row in range(2):
            middle = channels.visualItemRect(channels.item(row)).center().y() + channels.frameWidth()
            line = [picture.pixelColor(x, middle) for x in range(1, 24)]
            low, high = sorted((max(map(luminance, line)), min(map(luminance, line))))
            assert (high + 0.05) / (low + 0.05) > 3, f"box {row} in the {theme} theme"
            fill.append(line[4].name())
        assert fill[0] != fill[1], "ticked or not"
        fills.update(fill)
    assert len(fills) == 4, "the boxes follow the theme"


def test_controls_of_coloured_cells_show_the_colour_of_a_label(make_napari_viewer, qtbot):
    viewer = make_napari_viewer(show=True)
    image = viewer.add_image(np.zeros((8, 8)))
    points = add_atoms(viewer, pd.DataFrame({"atom_id": [0, 1], "y": [2.0, 6.0], "x": 4.0, "z1": [0.0, 1.0]}), image)
    cells = add_cells(viewer, np.repeat([1, 2], 4)[:, None].repeat(8, 1).astype(np.int32), points, image)
    color_cells(cells, cell_colormap(points.features, Coloring.of(points.features, "z1")))
    viewer.layers.selection.active = cells
    widgets = viewer.window._qt_window.findChildren(QWidget)
    box = next(widget for widget in widgets if type(widget).__name__ == "QtColorBox")
    for label in (1, 2):
        cells.selected_label = label
        box.grab()
        np.testing.assert_allclose(box.color, 255 * cells.get_color(label), atol=0.5)


def test_a_single_class_is_coloured_where_a_colour_bar_was(make_napari_viewer, qtbot):
    viewer = make_napari_viewer(show=True)
    features = {"z1": np.linspace(0, 1, 5), "sublattice": 0}
    points = viewer.add_points(np.zeros((5, 2)), features=pd.DataFrame(features))
    color_points(points, "z1")
    qtbot.wait(1)  # napari makes the bar
    color_points(points, "sublattice")
    assert len(np.unique(points.face_color, axis=0)) == 1
    assert len(color_scale(points.features, coloring_of(points)).names) == 1
    color_points(points, "z1")
    assert len(np.unique(points.face_color, axis=0)) == 5


@pytest.mark.parametrize("name", ["oxide_interface", "graphene", "cards_1"])
def test_samples_open(make_napari_viewer, name):
    viewer = make_napari_viewer()
    viewer.open_sample("napari-rvae", name)
    assert viewer.layers


def test_from_an_image_to_brushing(make_napari_viewer, qtbot, tmp_path):
    np.save(tmp_path / "crystal.npy", crystal())
    viewer = make_napari_viewer(show=True)
    [image] = add_image(viewer, load_image(tmp_path / "crystal.npy"))
    image.scale = (0.02, 0.02)
    image.units = ("nm", "nm")
    demo = Demo(viewer)
    demo.train.form.set_value(QUICK)
    with qtbot.waitSignal(demo.finished, timeout=120_000) as finished:
        demo.find.work.start_button.click()
    assert finished.args == [""]
    points = viewer.layers["crystal atoms"]
    assert len(viewer.layers) == 2
    assert points.features["z1"].notna().all()
    assert points.units == image.units
    # the pipeline went on by itself: each dock has its layers
    assert demo.train.points_box.layer is points
    assert demo.train.image_box.layer is image
    qtbot.waitUntil(lambda: demo.explore.link is not None and demo.explore.link.layer is points)
    chosen = points.features["sublattice"].to_numpy() == 0
    demo.explore.link.selection.combine(chosen, "replace", "plot")
    widths = np.asarray(points.border_width)
    assert widths[chosen].min() > widths[~chosen].max()  # they light up in the image
    assert set(points.selected_data) == set(np.flatnonzero(chosen))
    demo.explore.color_by("angle")  # each dock follows the other
    assert demo.train.results.color_box.currentData() == "angle"
    demo.train.results.color_by("dy")
    qtbot.waitUntil(lambda: demo.explore.link.color == "dy")
    demo.train.choice.mode_box.setCurrentText("selected atoms")
    *_, table, where = demo.train.chosen()
    np.testing.assert_array_equal(table[where], chosen)
    with qtbot.waitSignal(demo.train.work.done, timeout=60_000):
        demo.train.results.cells_button.click()
    assert isinstance(viewer.layers[-1], Labels)
    np.testing.assert_array_equal(demo.explore.link.selection.mask, chosen)  # colouring cells picks none
    demo.save(tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "latent.csv", "model.safetensors", "recipe.json", "summary.png", "cells.ome.tif", "window.png",
    }  # fmt: skip


def test_demonstration_leaves_its_results_and_ends(tmp_path):
    np.save(tmp_path / "mine.npy", crystal(96))
    program = "import sys; from napari_rvae.cli import main; sys.exit(main())"
    arguments = ["demo", str(tmp_path / "mine.npy"), "--screenshot", "-o", str(tmp_path / "out")]
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert str(tmp_path / "out" / "window.png") in done.stdout.split()
    from PIL import Image

    assert np.asarray(Image.open(tmp_path / "out" / "window.png").convert("L")).std() > 10


@pytest.mark.parametrize(
    ("data", "message"),
    [(np.zeros((64, 64)), "constant"), (np.random.default_rng(0).normal(size=(96, 96)), "atom")],
    ids=["constant", "noise"],
)
def test_demonstration_of_a_bad_image_ends_with_what_is_wrong(make_napari_viewer, qtbot, data, message):
    viewer = make_napari_viewer()
    viewer.add_image(data, name="bad")
    demo = Demo(viewer)
    with qtbot.waitSignal(demo.finished, timeout=60_000) as finished:
        demo.start()
    assert message in finished.args[0]
    assert not demo.find.work.working
    assert not demo.train.work.working


def test_without_any_display_the_user_is_told(monkeypatch):
    from napari_rvae.errors import RVAEError

    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(RVAEError, match="There is no display"):
        run_demo()


def test_devices_are_looked_for_when_the_dock_is_seen(make_napari_viewer, qtbot, monkeypatch):
    from types import SimpleNamespace

    cpu = SimpleNamespace(name="cpu", label="processor", note="")
    monkeypatch.setattr("napari_rvae.widgets.train.devices_here", lambda: [cpu])
    viewer = make_napari_viewer(show=True)
    demo = Demo(viewer)
    with qtbot.waitSignal(demo.train._shown.timeout):  # behind Find atoms
        pass
    assert demo.train.device.devices == []
    demo._train_dock.raise_()
    qtbot.waitUntil(lambda: demo.train.device.devices == [cpu])
