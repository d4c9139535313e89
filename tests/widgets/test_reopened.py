"""Results opened from their folder: the docks know them, and go on from there."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from napari.layers import Image as ImageLayer
from napari.layers import Labels, Points
from npe2 import PluginManager
from PIL import Image

from napari_rvae import cli
from napari_rvae.io import ImageData, load_image
from napari_rvae.layers import model_of
from napari_rvae.widgets.explore import ExploreWidget
from napari_rvae.workflows import analyze_image

from .conftest import crystal
from .test_train import QUICK, make_dock, refreshed  # noqa: F401  fixtures


@pytest.fixture
def reopened(viewer, pixels, tmp_path):
    np.save(tmp_path / "crystal.npy", pixels)
    analyze_image(load_image(tmp_path / "crystal.npy"), training=QUICK).save(tmp_path / "results")
    PluginManager.instance().discover()
    viewer.open(tmp_path / "results", plugin="napari-rvae")
    return {type(layer): layer for layer in viewer.layers}


def test_docks_know_the_results(viewer, reopened, make_dock, opened, qtbot):  # noqa: F811
    dock = make_dock()
    points, cells = reopened[Points], reopened[Labels]
    assert (dock.image_box.layer, dock.points_box.layer) == (reopened[ImageLayer], points)
    assert refreshed(dock).results.color_box.currentText() == "z1"
    assert dock.files.model is model_of(points)
    assert dock.results.decoded_button.isEnabled()
    before = cells.colormap
    dock.results.color_by("z2")
    qtbot.waitUntil(lambda: cells.colormap is not before, timeout=20_000)
    first = int(points.features["atom_id"].iloc[7])
    np.testing.assert_allclose(cells.colormap.map(first + 1), points.face_color[7], atol=0.05)
    explore = opened(ExploreWidget(viewer))
    qtbot.waitUntil(lambda: explore.link is not None and explore.link.layer is points)
    assert (explore.link.x, explore.link.y) == ("z1", "z2")
    explore.color_by("angle")
    assert dock.results.color_box.currentData() == "angle"


def test_they_are_saved_as_they_are_now_and_repeated(reopened, make_dock, tmp_path, qtbot):  # noqa: F811
    dock, points = make_dock(), reopened[Points]
    points._move({7}, points.data[7])
    points._move({7}, points.data[7] + 2.0)
    assert refreshed(dock).files.save_button.isEnabled()
    with qtbot.waitSignal(dock.work.done, timeout=60_000):
        dock.files.save_results(tmp_path / "out")
    before, now = (pd.read_csv(tmp_path / name / "latent.csv") for name in ("results", "out"))
    assert now["flag"][7] == "moved"
    pd.testing.assert_frame_equal(now[before.columns].drop(7), before.drop(7), check_dtype=False)
    assert cli.main(["repeat", str(tmp_path / "out" / "recipe.json"), "-o", str(tmp_path / "again")]) == 0
    again = pd.read_csv(tmp_path / "again" / "latent.csv")
    pd.testing.assert_frame_equal(again[before.columns], before, check_exact=True)


def test_their_picture_shows_how_the_loss_went(reopened, make_dock, tmp_path, qtbot):  # noqa: F811
    dock = make_dock()
    with qtbot.waitSignal(dock.work.done, timeout=60_000):
        refreshed(dock).files.save_results(tmp_path / "out")
    before, now = (np.asarray(Image.open(tmp_path / name / "summary.png")) for name in ("results", "out"))
    np.testing.assert_array_equal(now, before)


def test_images_saved_with_results_go_along_to_another_folder(viewer, pixels, make_dock, tmp_path, qtbot):  # noqa: F811
    first, second = tmp_path / "first", tmp_path / "second"
    held = {"image": pixels, "clean": crystal(seed=1)}
    image, clean = (ImageData(data, name, None, None, Path(name), 64 * "c") for name, data in held.items())
    analyze_image(image, training=QUICK, clean=clean).save(first)
    PluginManager.instance().discover()
    viewer.open(first, plugin="napari-rvae")
    dock = make_dock()
    with qtbot.waitSignal(dock.work.done, timeout=60_000):
        refreshed(dock).files.save_results(second)
    for name, data in held.items():
        np.testing.assert_array_equal(np.load(second / f"{name}.npy"), data)
    shutil.rmtree(first)
    assert cli.main(["repeat", str(second / "recipe.json"), "-o", str(tmp_path / "again")]) == 0
    again, ours = (pd.read_csv(tmp_path / name / "latent.csv") for name in ("again", "second"))
    pd.testing.assert_frame_equal(again[ours.columns], ours, check_exact=True)


def test_results_of_an_applied_model_are_opened_and_saved_again(
    viewer,
    reopened,
    make_dock,  # noqa: F811
    pixels,
    tmp_path,
    qtbot,
):
    dock = make_dock()
    np.save(tmp_path / "other.npy", pixels[::-1])
    with qtbot.waitSignal(dock.work.done, timeout=60_000):
        refreshed(dock).files.apply_to_image(tmp_path / "other.npy")
    for folder in ("first", "second"):
        with qtbot.waitSignal(dock.work.done, timeout=60_000):
            dock.files.save_results(tmp_path / folder)
        viewer.layers.clear()
        viewer.open(tmp_path / folder, plugin="napari-rvae")
        assert refreshed(dock).image_box.layer.name == "other"
        assert dock.results.color_box.currentText() == "z1"
    first, second = (pd.read_csv(tmp_path / name / "latent.csv") for name in ("first", "second"))
    pd.testing.assert_frame_equal(second[first.columns], first)


def test_what_is_trained_on_them_is_repeated(reopened, make_dock, press, tmp_path, qtbot):  # noqa: F811
    dock = make_dock()
    press(dock.work.start_button, dock.work)
    with qtbot.waitSignal(dock.work.done, timeout=60_000):
        dock.files.save_results(tmp_path / "out")
    assert not (tmp_path / "out" / "image.npy").exists()  # it is in its file
    assert cli.main(["repeat", str(tmp_path / "out" / "recipe.json"), "-o", str(tmp_path / "again")]) == 0
    ours, theirs = (pd.read_csv(tmp_path / name / "latent.csv") for name in ("out", "again"))
    pd.testing.assert_frame_equal(theirs[ours.columns], ours, check_exact=True)
