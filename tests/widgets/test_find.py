"""The Find atoms dock: its buttons pressed, its layers looked at."""

from dataclasses import replace
from threading import Event

import dask.array as da
import numpy as np
import pandas as pd
import pytest
from napari.layers import Points, Tracks

from napari_rvae.errors import Stopped
from napari_rvae.io import load_image, load_table
from napari_rvae.layers import RECIPE, add_image, atoms_table, image_source, save_features
from napari_rvae.settings import FinderSettings, FindSettings
from napari_rvae.widgets.find import FindWidget
from napari_rvae.workflows import repeat

from .conftest import crystal


@pytest.fixture
def dock(viewer, opened):
    return opened(FindWidget(viewer))


def atoms_layers(viewer):
    return [layer for layer in viewer.layers if isinstance(layer, Points) and not layer.name.endswith("preview")]


def test_atoms_become_points_on_their_image(viewer, image, dock, press, qtbot):
    with qtbot.waitSignal(dock.found) as found:
        press(dock.work.start_button, dock.work)
    (points,) = found.args
    assert points.name == "crystal atoms"
    assert 118 <= len(points.data) <= 124  # eleven by eleven, those on the border with luck
    np.testing.assert_allclose(points.scale, image.scale)
    assert points.units == image.units
    truth = np.stack(np.meshgrid(np.arange(6, 128, 12), np.arange(6, 128, 12)), -1).reshape(-1, 2)
    nearest = np.linalg.norm(points.data[:, None] - truth, axis=2).min(1)
    assert np.median(nearest) < 0.1
    assert points.features["sublattice"].nunique() == 2
    assert points.metadata[RECIPE]["settings"]["find"] == FindSettings().model_dump(mode="json")
    assert f"{len(points.data)} bright atoms" in dock.work.label.text()
    assert "nm" in dock.work.label.text()
    assert dock.form.controls["spacing"].widget.text().startswith("auto (0.2")


def test_finding_again_makes_a_new_layer_and_keeps_corrections(viewer, image, dock, press):
    press(dock.work.start_button, dock.work)
    (first,) = atoms_layers(viewer)
    first.add([50.0, 50.0])
    count = len(first.data)
    press(dock.work.start_button, dock.work)
    assert len(atoms_layers(viewer)) == 2
    assert len(first.data) == count


def test_settings_are_obeyed(viewer, image, dock, press):
    dock.form.controls["threshold"].set_value(1000.0)
    press(dock.work.start_button, dock.work)
    assert not atoms_layers(viewer)
    assert "No atoms were found in 'crystal'" in dock.work.label.text()


def test_windows_on_a_grid_need_no_atoms(viewer, image, dock, press, qtbot):
    dock.form.controls["search"].set_value("grid")
    assert not dock.form.controls["sigma"].widget.isVisibleTo(dock)
    dock.preview_box.setChecked(True)
    qtbot.waitUntil(lambda: "windows" in dock.count.text())
    count = int(dock.count.text().split()[1].replace(",", ""))
    assert dock.count.text() == f"About {count:,} windows"
    press(dock.work.start_button, dock.work)
    (points,) = atoms_layers(viewer)
    assert points.name == "crystal windows"
    assert len(points.data) == count > 1500
    assert dock.work.label.text().startswith(f"{count:,} windows")
    assert "limit" not in dock.work.label.text()
    assert dock.form.controls["spacing"].widget.text().startswith("auto")
    dock.form.controls["search"].set_value("auto")
    assert dock.form.controls["sigma"].widget.isVisibleTo(dock)


def test_only_what_lies_inside_drawn_shapes_is_found(viewer, image, dock, press):
    shapes = viewer.add_shapes([[[0, 0], [0, 1.28], [1.28, 1.28], [1.28, 0]]], shape_type="rectangle", name="corner")
    assert dock.region_box.layer is None
    dock.region_box.choose(shapes)
    press(dock.work.start_button, dock.work)
    (points,) = atoms_layers(viewer)
    assert 25 <= len(points.data) <= 36
    assert points.data.max() < 65
    assert points.metadata[RECIPE]["region"]["name"] == "corner"


def test_preview_and_recipe_keep_to_the_region(viewer, pixels, dock, press, qtbot, tmp_path):
    np.save(tmp_path / "crystal.npy", pixels)
    [image] = add_image(viewer, load_image(tmp_path / "crystal.npy"))
    shapes = viewer.add_shapes([[[40, 40], [40, 128], [128, 128], [128, 40]]], shape_type="polygon", name="corner")
    dock.image_box.choose(image)
    dock.region_box.choose(shapes)
    dock.preview_box.setChecked(True)
    qtbot.waitUntil(lambda: dock.preview.layer is not None, timeout=20_000)
    assert dock.preview.layer.data.min() >= 39
    before = len(dock.preview.layer.data)
    shapes.data = [[[80, 80], [80, 128], [128, 128], [128, 80]]]
    qtbot.waitUntil(lambda: len(dock.preview.layer.data) < before, timeout=20_000)
    assert dock.preview.layer.data.min() >= 79
    press(dock.work.start_button, dock.work)
    (points,) = atoms_layers(viewer)
    save_features(points, tmp_path / "atoms.csv")
    again = repeat(tmp_path / "atoms.recipe.json").table
    pd.testing.assert_frame_equal(again, load_table(tmp_path / "atoms.csv"), check_like=True, check_dtype=False)


def test_labels_of_a_frame_restrict_that_frame_in_the_recipe_too(viewer, dock, press, tmp_path):
    np.save(tmp_path / "movie.npy", np.stack([crystal(96)] * 3))
    add_image(viewer, load_image(tmp_path / "movie.npy"))
    drawn = np.zeros((3, 96, 96), np.uint8)
    drawn[1, :48], drawn[2, :, 48:] = 1, 2
    dock.region_box.choose(viewer.add_labels(drawn, name="mine"))
    press(dock.work.start_button, dock.work)
    (points,) = atoms_layers(viewer)
    frame, y, x = points.data.T
    assert set(frame) == {1, 2}
    assert y[frame == 1].max() < 48
    assert x[frame == 2].min() > 47
    assert "in 2 frames" in dock.work.label.text()
    save_features(points, tmp_path / "atoms.csv")
    again = repeat(tmp_path / "atoms.recipe.json").table
    pd.testing.assert_frame_equal(again, load_table(tmp_path / "atoms.csv"), check_like=True, check_dtype=False)


def test_histogram_shows_how_many_atoms_stand_at_the_limit(viewer, dock, press):
    faint = crystal() + 0.35 * np.random.default_rng(1).standard_normal((128, 128))
    viewer.add_image(faint, name="faint")
    press(dock.work.start_button, dock.work)
    (points,) = atoms_layers(viewer)
    limit = points.metadata[RECIPE]["used"]["threshold"]
    weak = int((points.features["snr"] < limit + 1).sum())
    assert weak > 0
    assert f"{weak} at the limit of detection" in dock.work.label.text()
    assert dock.snr_plot.isVisible()
    viewer.add_image(crystal(), name="another")
    dock.image_box.choose(viewer.layers["another"])
    assert not dock.snr_plot.isVisible()


def test_atoms_of_a_stack_become_tracks(viewer, dock, press):
    viewer.add_image(np.stack([crystal(64), np.roll(crystal(64), 1, 0)]), name="movie", scale=(1, 0.1, 0.1))
    dock.tracks_box.setChecked(True)
    press(dock.work.start_button, dock.work)
    (points,) = atoms_layers(viewer)
    (tracks,) = (layer for layer in viewer.layers if isinstance(layer, Tracks))
    assert tracks.name == "movie tracks"
    assert viewer.layers.selection.active is points
    np.testing.assert_allclose(tracks.scale, (1, 0.1, 0.1))
    assert points.features["track"].nunique() < 0.7 * len(points.data)
    assert tracks.features["displacement"].median() == pytest.approx(0.5, abs=0.1)


def test_atoms_seen_once_are_shown_without_tracks(viewer, dock, press):
    here, there = np.random.default_rng(0).normal(100, 2, (2, 64, 64)).astype(np.float32)
    y, x = np.mgrid[:64, :64]
    for frame, (top, left) in ((here, (12, 14)), (there, (45, 50))):
        frame += 90 * np.exp(-((y - top) ** 2 + (x - left) ** 2) / (2 * 2.3**2)).astype(np.float32)
    viewer.add_image(np.stack([here, there, np.full_like(here, 5)]), name="movie")
    dock.tracks_box.setChecked(True)
    press(dock.work.start_button, dock.work)
    (points,) = atoms_layers(viewer)
    assert len(points.data) == 2
    assert dock.snr_plot.isVisible()
    assert "2 bright atoms in 2 frames" in dock.work.label.text()
    assert "1 frame could not be used, being constant or no numbers: 2" in dock.work.label.text()
    assert "no tracks: No atom was found in two frames" in dock.work.label.text()
    assert not any(isinstance(layer, Tracks) for layer in viewer.layers)


def test_a_finder_is_trained_on_corrected_points_and_used(
    viewer, image, dock, press, told, qtbot, tmp_path, monkeypatch
):
    press(dock.work.start_button, dock.work)
    (points,) = atoms_layers(viewer)
    dock.finder.expand(animate=False)
    dock.finder.work.start_button.click()
    assert "nothing to learn from" in told()[0]
    dock.finder.points_box.choose(points)
    dock.finder.form.set_value(FinderSettings(steps=40, batch_size=4))
    file, typed = tmp_path / "0.5 nm.safetensors", str(tmp_path / "0.5 nm")
    monkeypatch.setattr("napari_rvae.widgets.find_finder.QFileDialog.getSaveFileName", lambda *_: (typed, ""))
    press(dock.finder.work.start_button, dock.finder.work)
    assert file.exists()
    dock.finder.work.start_button.click()
    assert "is there already" in told()[-1], "the dialog asked about another name"
    assert len(dock.finder.curve.reports) == 40
    settings = dock.form.value(FindSettings)
    assert (settings.search, settings.finder) == ("learned", str(file))
    dock.preview_box.setChecked(True)
    qtbot.waitUntil(lambda: "certainty" in dock.count.text(), timeout=20_000)
    press(dock.work.start_button, dock.work)
    learned = atoms_layers(viewer)[-1]
    assert learned.metadata[RECIPE]["inputs"]["finder"]["path"] == str(file)
    file.unlink()
    press(dock.work.start_button, dock.work)
    assert "There is no finder" in told()[-1]


def test_selected_points_are_refined_and_put_back(viewer, image, dock, press):
    press(dock.work.start_button, dock.work)
    (points,) = atoms_layers(viewer)
    fitted = points.data.copy()
    inner = int(np.argmin(np.linalg.norm(fitted - 64, axis=1)))
    points.data = np.where(np.arange(len(fitted))[:, None] == inner, fitted + 1.2, fitted)
    points.add([fitted[inner] + [6.0, 5.0]])  # in between, and not selected
    by_hand = points.data.copy()
    points.selected_data = {inner}
    viewer.layers.selection.active = points
    press(dock.refine_button, dock.work)
    np.testing.assert_allclose(points.data[inner], fitted[inner], atol=0.3)
    others = np.arange(len(by_hand)) != inner
    np.testing.assert_array_equal(points.data[others], by_hand[others])
    assert "1 point refined" in dock.work.label.text()
    dock.undo_button.click()
    np.testing.assert_allclose(points.data, by_hand, atol=1e-6)
    assert not dock.undo_button.isEnabled()


def test_refining_where_no_atom_is_says_so(viewer, image, dock, press, told):
    press(dock.work.start_button, dock.work)
    (points,) = atoms_layers(viewer)
    points.add(points.data[np.argmin(np.linalg.norm(points.data - 64, axis=1))] + [6.0, 6.0])  # between four
    points.selected_data = {len(points.data) - 1}
    viewer.layers.selection.active = points
    press(dock.refine_button, dock.work)
    assert "at 1 of them no atom stands out" in dock.work.label.text()
    points.add([[500.0, 20.0]])
    points.selected_data = {len(points.data) - 1}
    press(dock.refine_button, dock.work)
    assert "1 of 1 points lie outside the image" in told()[-1]


def test_refining_nothing_says_what_to_do(viewer, image, dock, told):
    dock.refine_button.click()
    assert "Select points" in told()[0]


def test_preview_follows_the_threshold_and_leaves_nothing_behind(viewer, image, dock, qtbot, press):
    active = viewer.layers.selection.active
    dock.preview_box.setChecked(True)
    qtbot.waitUntil(lambda: dock.preview.layer is not None, timeout=20_000)
    many = len(dock.preview.layer.data)
    assert many > 90
    assert f"About {many}" in dock.count.text()
    assert viewer.layers.selection.active is active
    np.testing.assert_allclose(dock.preview.layer.scale, image.scale)
    slider = dock.form.controls["threshold"].slider
    slider.setValue(round(0.95 * slider.maximum()))
    assert len(dock.preview.layer.data) < many
    assert dock.form.value(FindSettings).threshold > 20
    dock.form.controls["sigma"].set_value(3.0)
    dock.form.reset()
    qtbot.waitUntil(lambda: len(dock.preview.layer.data) == many, timeout=20_000)
    press(dock.work.start_button, dock.work)
    assert not dock.preview_box.isChecked()
    assert [layer.name for layer in viewer.layers] == ["crystal", "crystal atoms"]


def test_preview_that_the_user_removes_is_off(viewer, image, dock, qtbot):
    dock.preview_box.setChecked(True)
    qtbot.waitUntil(lambda: dock.preview.layer is not None, timeout=20_000)
    viewer.layers.remove(dock.preview.layer)
    assert not dock.preview_box.isChecked()
    dock.preview_box.setChecked(True)
    qtbot.waitUntil(lambda: dock.preview.layer is not None, timeout=20_000)


def test_preview_of_a_stack_follows_the_frame(viewer, dock, qtbot):
    viewer.add_image(np.stack([crystal(), crystal(spacing=24)]), name="movie")
    dock.preview_box.setChecked(True)
    viewer.dims.set_current_step(0, 0)
    qtbot.waitUntil(lambda: dock.preview.layer is not None and not dock.preview.layer.data[:, 0].any(), timeout=20_000)
    first = len(dock.preview.layer.data)
    viewer.dims.set_current_step(0, 1)
    qtbot.waitUntil(lambda: dock.preview.layer.data[:, 0].all(), timeout=20_000)
    assert len(dock.preview.layer.data) < first


def test_preview_of_what_cannot_be_used_says_why(viewer, dock, qtbot):
    viewer.add_image(np.zeros((64, 64)), name="nothing")
    dock.preview_box.setChecked(True)
    assert dock.count.text() == "The image is being filtered..."
    qtbot.waitUntil(lambda: "The image is constant" in dock.count.text(), timeout=20_000)
    assert dock.preview.layer is None


def test_layers_that_come_and_go_and_change_their_names(viewer, dock):
    assert dock.image_box.layer is None
    assert dock.image_box.currentText() == "open an image first"
    one, two = viewer.add_image(crystal(), name="one"), viewer.add_image(crystal(), name="two")
    dock.image_box.choose(one)
    two.name = "second"
    assert dock.image_box.layer is one
    assert [dock.image_box.itemText(k) for k in range(2)] == ["second", "one"]
    viewer.layers.move(0, 2)
    assert dock.image_box.layer is one
    viewer.layers.remove(one)
    assert dock.image_box.layer is two


def test_dock_opened_alone_says_what_to_do(dock, press, told):
    dock.work.start_button.click()
    assert "open one, or a sample" in dock.work.label.text()
    assert len(told()) == 1
    assert dock.work.start_button.isEnabled()


# Input that cannot be used, and input that merely looks unusual -------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "options"),
    [
        (np.zeros((64, 64)), {}),
        (np.full((64, 64), np.nan), {}),
        (np.full((64, 64), np.inf), {}),
        (np.zeros((64, 64, 3), np.uint8), {"rgb": True}),
        (np.eye(64, dtype=bool), {}),
        (np.random.default_rng(0).random((64, 1)), {}),
        (np.random.default_rng(0).random((1, 64)), {}),
        (np.zeros((2, 2, 64, 64)), {}),
        (np.zeros((3, 64, 64)), {}),
        (da.from_array(np.full((3, 64, 64), np.nan)), {}),
    ],
    ids=["constant", "nan", "inf", "rgb", "bool", "narrow", "flat", "4d", "constant stack", "lazy nan"],
)  # fmt: skip
def test_bad_image_is_explained_and_the_dock_stays_usable(viewer, image, dock, press, told, qtbot, data, options):
    bad = viewer.add_image(data, name="bad", **options)
    dock.image_box.choose(bad)
    dock.work.start_button.click()
    qtbot.waitUntil(lambda: not dock.work.working, timeout=60_000)
    messages = told()
    assert len(messages) == 1
    assert messages[0] == dock.work.label.text()
    assert "Failed with" not in messages[0]  # no defect of ours
    assert len(messages[0]) > 20
    assert not atoms_layers(viewer)
    dock.image_box.choose(image)
    press(dock.work.start_button, dock.work)
    assert len(atoms_layers(viewer)) == 1


@pytest.mark.parametrize("data", [crystal(64) + 1j, np.zeros((0, 64)), np.zeros((0, 64, 64))])
def test_what_napari_itself_cannot_show_is_explained_too(image, dock, press, told, monkeypatch, data):
    with monkeypatch.context() as patch:
        patch.setattr("napari_rvae.widgets.find.image_source", lambda layer: replace(image_source(layer), data=data))
        press(dock.work.start_button, dock.work)
    assert len(told()) == 1
    assert "Failed with" not in told()[0]
    press(dock.work.start_button, dock.work)
    assert "atoms" in dock.work.label.text()


def test_some_missing_pixels_are_no_obstacle(viewer, pixels, dock, press):
    holed = pixels.copy()
    holed[40:44, 40:60] = np.nan
    viewer.add_image(holed, name="holed")
    press(dock.work.start_button, dock.work)
    (points,) = atoms_layers(viewer)
    assert len(points.data) > 80


def test_single_atom_is_found(viewer, dock, press):
    y, x = np.mgrid[:64, :64]
    spot = np.exp(-((y - 30.3) ** 2 + (x - 33.7) ** 2) / 18) + 0.02 * np.random.default_rng(0).standard_normal((64, 64))
    viewer.add_image(spot, name="adatom")
    press(dock.work.start_button, dock.work)
    (points,) = atoms_layers(viewer)
    np.testing.assert_allclose(points.data, [[30.3, 33.7]], atol=0.3)
    assert dock.work.label.text().startswith("1 bright atom ·")


def test_multiscale_image_is_searched_at_full_resolution(viewer, pixels, dock, press):
    viewer.add_image([pixels, pixels[::2, ::2]], multiscale=True, name="pyramid")
    press(dock.work.start_button, dock.work)
    (points,) = atoms_layers(viewer)
    assert len(points.data) >= 95
    assert points.data.max() > 100


def test_lazy_stack_is_read_frame_by_frame_in_the_thread(viewer, pixels, dock, press):
    read = []

    def frame(block_info=None):
        read.append(block_info[None]["chunk-location"][0])
        return pixels[None]

    stack = da.map_blocks(
        frame, chunks=((1,) * 3, (128,), (128,)), dtype=np.float32, meta=np.zeros((0, 0, 0), np.float32)
    )
    layer = viewer.add_image(stack, name="movie", contrast_limits=(0, 1))
    read.clear()
    press(dock.work.start_button, dock.work)
    assert set(read) == {0, 1, 2}
    (points,) = atoms_layers(viewer)
    assert points.data.shape[1] == 3
    assert atoms_table(points, layer)["frame"].value_counts().tolist() == [len(points.data) // 3] * 3


def test_not_enough_memory_is_said(viewer, image, dock, press, told, monkeypatch):
    def greedy(*args, **options):
        raise MemoryError("Unable to allocate 9 TiB")

    with monkeypatch.context() as patch:
        patch.setattr("napari_rvae.atoms.find_atoms", greedy)
        press(dock.work.start_button, dock.work)
    assert "not enough memory" in told()[0]
    press(dock.work.start_button, dock.work)
    assert len(atoms_layers(viewer)) == 1


def test_image_may_go_or_change_its_name_while_it_is_searched(viewer, image, dock, qtbot):
    with qtbot.waitSignal(dock.work.done, timeout=60_000):
        dock.work.start_button.click()
        image.name = "renamed"
        viewer.layers.remove(image)
    (points,) = atoms_layers(viewer)
    assert points.name == "renamed atoms"
    np.testing.assert_allclose(points.scale, (0.02, 0.02))


def test_cancel_does_not_wait_for_a_large_image(viewer, image, dock, press, qtbot, monkeypatch):
    filtering, go_on = Event(), Event()

    def slow(pixels, settings, region, finder, progress, stop):
        filtering.set()
        assert go_on.wait(30)
        assert stop()
        raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr("napari_rvae.atoms.find_atoms", slow)
        dock.work.start_button.click()
        qtbot.waitUntil(filtering.is_set, timeout=20_000)
        dock.work.cancel_button.click()
        assert not dock.work.working
    press(dock.work.start_button, dock.work)
    assert len(atoms_layers(viewer)) == 1
    go_on.set()
    assert "Cancelled" not in dock.work.label.text()


def test_cancelled_search_leaves_nothing(viewer, dock, qtbot):
    viewer.add_image(np.stack([crystal(seed=k) for k in range(50)]), name="long movie")
    with qtbot.waitSignal(dock.work.done, timeout=60_000):
        dock.work.start_button.click()
        qtbot.waitUntil(lambda: dock.work.progress_bar.value() > 0, timeout=60_000)
        dock.work.cancel_button.click()
    assert not atoms_layers(viewer)
    assert "Cancelled" in dock.work.label.text()
