"""Several layers of one place in the docks: what only one of them shows is learned, shown and kept."""

import tracemalloc

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import tifffile
from napari.layers import Image, Points
from npe2 import PluginManager
from qtpy.QtCore import Qt
from sklearn.metrics import adjusted_rand_score

from napari_rvae import cli
from napari_rvae.io import Recipe, load_image
from napari_rvae.layers import add_atoms, add_subset, atoms_table, channels_of, hashed, image_source, model_of
from napari_rvae.layers.opening import open_results
from napari_rvae.settings import FindSettings, PatchSettings, TrainSettings
from napari_rvae.widgets.explore import ExploreWidget
from napari_rvae.widgets.pictures import Picture
from napari_rvae.workflows.interrupted import Inputs, KeptTraining
from napari_rvae.workflows.steps import channel_names

from .test_train import PLACES, make_dock  # noqa: F401  a fixture

KINDS = np.random.default_rng(3).integers(2, size=len(PLACES))
"""Of the columns: the first detector shows both alike."""
HEIGHTS = {0: np.ones(len(PLACES)), 1: 0.5 + 0.5 * KINDS}
"""Of the columns, by detector."""
SETTINGS = TrainSettings(model="jrvae", classes=2, epochs=6, hidden=16, invariance=("rotation",), threads=1)
PLACED = {"scale": (0.02, 0.02), "units": ("nm", "nm")}


def detector(heights, seed):
    """Columns of given heights, with noise."""
    y, x = np.mgrid[:128, :128]
    image = 0.02 * np.random.default_rng(seed).standard_normal((128, 128))
    for (top, left), height in zip(PLACES, heights, strict=True):
        image += height * np.exp(-((y - top) ** 2 + (x - left) ** 2) / (2 * 2.0**2))
    return image.astype(np.float32)


@pytest.fixture
def haadf(viewer):
    return viewer.add_image(detector(HEIGHTS[0], 0), name="HAADF", **PLACED)


@pytest.fixture
def abf(viewer, haadf):
    return viewer.add_image(detector(HEIGHTS[1], 1), name="ABF", **PLACED)


@pytest.fixture
def points(viewer, haadf, abf):
    table = pd.DataFrame({"atom_id": np.arange(len(PLACES)), "y": PLACES[:, 0] * 1.0, "x": PLACES[:, 1] * 1.0})
    return add_atoms(viewer, table, haadf)


@pytest.fixture
def dock(points, make_dock):  # noqa: F811
    dock = make_dock()
    for settings in (SETTINGS, PatchSettings(size=14)):  # without the neighbours
        dock.form.set_value(settings)
    return dock


def offered(dock):
    return [dock.channels.list.item(row).text() for row in range(dock.channels.list.count())]


def tick(dock, name, ticked=True):
    item = dock.channels.list.findItems(name, Qt.MatchFlag.MatchExactly)[0]
    item.setCheckState(Qt.CheckState.Checked if ticked else Qt.CheckState.Unchecked)


def rand_index(points):
    inner = ((PLACES > 16) & (PLACES < 110)).all(1)
    return adjusted_rand_score(KINDS[inner], points.features["class"].astype(float)[inner])


def test_two_detectors_tell_what_one_does_not(points, haadf, abf, dock, press):
    press(dock.work.start_button, dock.work)
    assert rand_index(points) < 0.2
    assert channels_of(points) == []
    tick(dock, "ABF")
    press(dock.work.start_button, dock.work)
    assert rand_index(points) == 1
    assert model_of(points).channels == 2
    assert channels_of(points) == [haadf, abf]
    dock.results.undo()
    assert channels_of(points) == []


def test_layers_that_fit_are_offered_and_what_happens_to_them_is_told(viewer, haadf, abf, points, dock, told, qtbot):
    assert offered(dock) == ["ABF"]
    other = viewer.add_image(np.zeros((128, 128)), name="other", **PLACED)
    dock.image_box.choose(haadf)
    for name in ("other", "ABF"):
        tick(dock, name)
    viewer.layers.move(viewer.layers.index(other), len(viewer.layers))
    assert dock.channels.layers == (other, abf)
    assert dock.channels.label.text() == "More channels: other, ABF"
    assert dock.form.folded.text() == "Advanced (3 channels)"
    viewer.layers.remove(other)
    tick(dock, "ABF", False)
    assert dock.form.folded.text() == "Advanced"
    small = viewer.add_image(np.zeros((64, 64)), name="small", **PLACED)
    viewer.add_image(np.zeros((128, 128)), name="aside", translate=(1, 0), **PLACED)
    viewer.add_image(np.zeros((128, 128)), name="unscaled")
    viewer.add_image(np.zeros((128, 128, 3), np.uint8), rgb=True, name="photo", **PLACED)
    viewer.layers.selection.active = points
    assert offered(dock) == ["ABF"]
    tick(dock, "ABF")
    viewer.layers.selection.active = abf  # to look at it
    assert dock.image_box.layer is haadf
    dock.image_box.choose(abf)
    assert offered(dock) == ["HAADF"]
    assert dock.channels.layers == (haadf,)
    dock.image_box.choose(small)
    assert dock.channels.isHidden()
    dock.image_box.choose(haadf)
    assert dock.channels.layers == ()
    tick(dock, "ABF")
    abf.scale = (0.03, 0.03)
    dock.train()
    assert "'ABF' is no channel of 'HAADF'" in told()[-1]
    assert offered(dock) == ["ABF"]
    viewer.layers.remove(abf)
    assert dock.channels.isHidden()
    assert dock.channels.layers == ()


def test_averages_and_counts_are_of_all_channels(points, dock, press, qtbot):
    tick(dock, "ABF")
    press(dock.averages.button, dock.work)
    assert rand_index(points) == 1
    pictures = dock.averages.strip.findChildren(Picture)
    assert len(pictures) == 2
    assert {picture.width() / picture.height() for picture in pictures} == {2}
    with qtbot.waitSignal(dock.work.done, timeout=120_000):
        dock.joint.count()
    assert dock.form.controls["classes"].value() == 2
    dock.channels.choose(())
    with qtbot.waitSignal(dock.work.done, timeout=120_000):
        dock.averages.average()
    assert rand_index(points) < 0.2


@pytest.fixture
def trained(dock, press):
    tick(dock, "ABF")
    press(dock.work.start_button, dock.work)
    return dock


def test_all_channels_are_seen_wherever_results_are(viewer, haadf, abf, points, trained, press, opened, qtbot):
    explore = opened(ExploreWidget(viewer))
    qtbot.waitUntil(lambda: explore.link is not None and explore.link.layer is points)
    real = explore.patch._real(np.array([50]))[0]
    decoded = explore.patch._decoded(points.features, {}, 50)
    assert real.shape == decoded.shape
    pixels = real.shape[0]
    assert real.shape == (pixels, 2 * pixels)
    mean, spread = (getattr(model_of(points), name).numpy() for name in ("mean", "spread"))
    heights = [part.max() for part in np.split(real, 2, axis=1)] * spread + mean
    assert heights == pytest.approx([1, 0.5 + 0.5 * KINDS[50]], abs=0.1)
    with qtbot.waitSignal(explore.baseline.work.done, timeout=60_000):
        explore.baseline.compute()
    assert "this model" in explore.baseline.comparison.text()
    press(trained.results.decoded_button, trained.work)
    shown = {name: viewer.layers[f"{name} reconstruction"] for name in ("HAADF", "ABF")}
    for layer in (haadf, abf):
        ours, theirs = shown[layer.name].data, layer.data
        there = np.isfinite(ours)
        assert np.corrcoef(ours[there], theirs[there])[0, 1] > 0.85
        np.testing.assert_allclose(viewer.layers[f"{layer.name} difference"].data[there], (theirs - ours)[there])
    grid = explore.manifold
    explore.tabs.setCurrentIndex(explore.panels.index(grid))
    side = grid._array.shape[0]
    assert grid._array.shape == (side, 2 * side)
    with qtbot.waitSignals([grid.pointed, grid.pointed]) as places:
        for x in (0.1, 0.6):
            grid.picture.clicked.emit(x, 0.3)
    assert places.all_signals_and_args[0].args == places.all_signals_and_args[1].args
    subset = add_subset(viewer, points, KINDS == 1)
    assert channels_of(subset) == [haadf, abf]


def test_channels_of_any_intensity_are_seen_side_by_side(abf, points, dock, press, viewer, opened, qtbot):
    abf.data = 50_000 + 1000 * abf.data
    tick(dock, "ABF")
    press(dock.work.start_button, dock.work)
    assert rand_index(points) == 1
    explore = opened(ExploreWidget(viewer))
    qtbot.waitUntil(lambda: explore.link is not None and explore.link.layer is points)
    for picture in (explore.patch._real(np.array([50]))[0], explore.patch._decoded(points.features, {}, 50)):
        first, second = (np.ptp(half) for half in np.split(picture, 2, axis=1))
        assert 1 / 3 < first / second < 3
        assert np.ptp(picture) < 1.5 * max(first, second)


def test_a_model_is_applied_only_where_channels_are(viewer, points, haadf, abf, trained, press, told, tmp_path, qtbot):
    trained.channels.choose(())
    with qtbot.waitSignal(trained.work.done, timeout=60_000):
        trained.files.apply()
    assert "trained on 2 channels (HAADF, ABF), 'HAADF' has 1" in told()[-1]
    trained.image_box.choose(abf)
    tick(trained, "HAADF")
    with qtbot.waitSignal(trained.work.done, timeout=60_000):
        trained.files.apply()
    assert "on the channels HAADF, ABF, these are ABF, HAADF" in told()[-1]
    trained.image_box.choose(haadf)
    model_of(points).save(tmp_path / "model.safetensors")
    with qtbot.waitSignal(trained.work.done, timeout=60_000):
        trained.files.load_model(tmp_path / "model.safetensors")
    assert "channels HAADF, ABF" in trained.work.label.text()
    trained.channels.choose(())
    before = points.features["angle"].copy()
    tick(trained, "ABF")
    with qtbot.waitSignal(trained.work.done, timeout=60_000):
        trained.files.apply()
    np.testing.assert_allclose(points.features["angle"], before, atol=1e-4)
    assert rand_index(points) == 1
    tifffile.imwrite(
        tmp_path / "other.tif", np.stack([detector(HEIGHTS[0], 2), detector(HEIGHTS[1], 3)]),
        photometric="minisblack", metadata={"axes": "CYX"},
    )  # fmt: skip
    with qtbot.waitSignal(trained.work.done, timeout=60_000):
        trained.files.apply_to_image(tmp_path / "other.tif")
    new = viewer.layers["other atoms"]
    assert channels_of(new) == [viewer.layers["other"], viewer.layers["other channel 2"]]
    assert trained.points_box.layer is new
    assert trained.image_box.layer.name == "other"
    assert [layer.name for layer in trained.channels.layers] == ["other channel 2"]


def test_saved_reopened_trained_again_and_repeated(viewer, points, trained, press, tmp_path, qtbot, make_dock):  # noqa: F811
    with qtbot.waitSignal(trained.work.done, timeout=60_000):
        trained.files.save_results(tmp_path / "out")
    assert (tmp_path / "out" / "image.tif").exists()
    assert cli.main(["repeat", str(tmp_path / "out" / "recipe.json"), "-o", str(tmp_path / "again")]) == 0
    ours, theirs = (pd.read_csv(tmp_path / name / "latent.csv") for name in ("out", "again"))
    pd.testing.assert_frame_equal(theirs[ours.columns], ours, check_exact=True)
    viewer.layers.clear()
    PluginManager.instance().discover()
    viewer.open(tmp_path / "out", plugin="napari-rvae")
    images = [layer for layer in viewer.layers if isinstance(layer, Image)]
    reopened = next(layer for layer in viewer.layers if isinstance(layer, Points))
    assert [layer.name for layer in images] == ["HAADF", "ABF"]
    assert channels_of(reopened) == images
    assert trained.image_box.layer is images[0]
    assert trained.channels.layers == (images[1],)
    trained._refresh()
    with qtbot.waitSignal(trained.work.done, timeout=60_000):
        trained.files.save_results(tmp_path / "copy")
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "copy" / "latent.csv")[ours.columns], ours)
    press(trained.work.start_button, trained.work)
    again = reopened.features.set_index("atom_id").reindex(columns=["class", "angle", "z1", "z2"])
    pd.testing.assert_frame_equal(again, ours.set_index("atom_id")[list(again)], check_dtype=False, rtol=1e-5)
    with qtbot.waitSignal(trained.work.done, timeout=60_000):
        trained.files.save_results(tmp_path / "second")
    recipe = Recipe.load(tmp_path / "second" / "recipe.json")
    assert recipe.inputs["image"].path == str(tmp_path / "second" / "image.tif"), "all that repeat needs goes along"
    assert recipe.used["channels"] == ["HAADF", "ABF"]
    assert (tmp_path / "second" / "image.tif").exists()
    images[1].data = images[1].data + 1  # is in no file any more
    assert not hashed(image_source(images[0], images[1:])).path.exists()


def test_channels_in_memory_are_not_copied_where_the_window_waits(viewer):
    layers = [viewer.add_image(np.full((2, 512, 512), 0.5, np.float32), name=name) for name in ("HAADF", "ABF")]
    tracemalloc.start()
    source = image_source(layers[0], layers[1:])
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < layers[0].data.nbytes / 2
    assert source.channels == ("HAADF", "ABF")
    np.testing.assert_array_equal(source.data, np.full((2, 2, 512, 512), 0.5))


def test_an_interrupted_training_finds_its_channels_again(viewer, haadf, abf, points, dock, press, cache, qtbot):
    tick(dock, "ABF")
    source = hashed(image_source(haadf, [abf]))
    settings = dock.form.value(PatchSettings), dock.form.value(TrainSettings)
    kept = KeptTraining.begin(Inputs(source, atoms_table(points, haadf), None, FindSettings(), *settings), cache)
    kept.release()
    dock.channels.choose(())
    with qtbot.waitSignal(dock.work.done, timeout=60_000):
        dock.resume(kept)
    assert rand_index(points) == 1
    assert channels_of(points) == [haadf, abf]
    assert channel_names(model_of(points)) == ["HAADF", "ABF"]
    assert dock.channels.layers == (abf,)
    assert len(viewer.layers) == 3


def test_stacks_with_channels_go_the_same_way(viewer, make_dock, press, tmp_path, qtbot):  # noqa: F811
    one, two = (np.stack([detector(heights, seed + 2 * k) for k in (0, 1)]) for seed, heights in HEIGHTS.items())
    placed = {"scale": (1, 0.02, 0.02), "units": ("pixel", "nm", "nm")}
    first = viewer.add_image(one, name="HAADF", **placed)
    second = viewer.add_image(da.from_array(two, chunks=(1, 128, 128)), name="ABF", **placed)
    places = np.vstack([np.insert(PLACES, 0, frame, axis=1) for frame in (0, 1)])
    table = pd.DataFrame({"atom_id": np.arange(len(places)), **dict(zip(("frame", "y", "x"), places.T, strict=True))})
    points = add_atoms(viewer, table, first)
    dock = make_dock()
    for settings in (SETTINGS, PatchSettings(size=14)):
        dock.form.set_value(settings)
    tick(dock, "ABF")
    press(dock.work.start_button, dock.work)
    assert adjusted_rand_score(np.tile(KINDS, 2), points.features["class"].astype(float)) == 1
    press(dock.results.decoded_button, dock.work)
    assert viewer.layers["ABF reconstruction"].data.shape == second.data.shape
    with qtbot.waitSignal(dock.work.done, timeout=60_000):
        dock.files.save_results(tmp_path / "out")
    saved = load_image(tmp_path / "out" / "image.tif")
    assert saved.channel_axis == 0
    np.testing.assert_array_equal(saved.data, [one, two])
    images = [data for data, _, kind in open_results(tmp_path / "out") if kind == "image"]
    np.testing.assert_array_equal(images, [one, two])
