"""What may happen to a training in the window: nothing is lost, nothing is overwritten, everything is said.

| fault | what happens | test |
|---|---|---|
| the program was killed | offered again with its image and atoms | test_interrupted_training_is_resumed |
| the dock is closed while preparing, training, stopping | kept, offered again | test_dock_closed_while_it_trains |
| the window is closed while it trains | asks, kept, offered again | test_closing_the_window_asks_and_keeps |
| anything, while the results of a stopped training follow | see test_settling.py | |
| cancelled | layers as they were, nothing kept | test_cancel_forgets_the_training |
| image moved, renamed, exchanged | results on the atoms, said | test_image_moved_and_exchanged |
| atoms added and moved | grey and flagged, said | test_edited_atoms_have_no_results |
| the same, after the training | the same | test_what_was_edited_later_is_marked_and_not_repeated |
| image, points removed; points renamed | see test_train.py | |
| a second training | refused, said | test_second_training_is_refused |
| the memory is full | went on, said | test_what_went_otherwise_is_said |
| anything fails | nothing of it stays in memory | test_nothing_is_left_of_a_training_that_failed |
| the loss is no number | the last good model is used, said | test_wild_loss_is_said |
| the disk is full | went on, said | test_full_disk_is_said |
"""

import gc
import shutil
import weakref
from threading import Event
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from napari.components import ViewerModel
from napari.layers import Image, Points
from napari.layers._source import layer_source
from qtpy.QtGui import QCloseEvent
from qtpy.QtWidgets import QDialog, QFileDialog

from napari_rvae import cli
from napari_rvae.errors import OutputError
from napari_rvae.io import load_image
from napari_rvae.layers import add_atoms, add_image
from napari_rvae.settings import PatchSettings, TrainSettings
from napari_rvae.widgets.live import NAME, LiveLook
from napari_rvae.widgets.train import TrainWidget
from napari_rvae.widgets.work import State
from napari_rvae.workflows.interrupted import interrupted_trainings

from .conftest import crystal
from .test_train import QUICK, atoms, make_dock, points, refreshed  # noqa: F401  fixtures

ENDLESS = TrainSettings(epochs=100_000, early_stopping=False, hidden=16, start="scratch", threads=1)


@pytest.fixture
def dock(points, make_dock):  # noqa: F811
    return make_dock()


@pytest.fixture(autouse=True)
def often(monkeypatch):
    """Keep the state and look at the model at every step."""
    monkeypatch.setattr("napari_rvae.training.checkpoints.EVERY", 0.0)
    monkeypatch.setattr("napari_rvae.widgets.training_job.LOOK_EVERY", 0.0)


def begun(qtbot, dock, settings=ENDLESS, epochs=2):
    """Train until there is something to keep."""
    dock.form.set_value(settings)
    dock.work.start_button.click()
    qtbot.waitUntil(lambda: len(dock.curve.epochs) >= epochs, timeout=60_000)


def ended(qtbot, dock, action):
    with qtbot.waitSignal(dock.work.done, timeout=60_000):
        action()


def stopped(qtbot, dock):
    """Stop and keep, and wait for the results."""
    with qtbot.waitSignal(dock.settling.done, timeout=60_000):
        dock.work.keep_button.click()


def test_interrupted_training_is_resumed(viewer, image, points, dock, press, qtbot, cache, opened):  # noqa: F811
    calm = viewer.add_image(2 * crystal(seed=1), name="calm")
    viewer.layers.selection.active = points
    dock.clean_box.choose(calm)
    press(dock.work.start_button, dock.work)
    whole = dock.analysis.table
    assert not dock.resume_row.isVisible()
    killed = cache.parent / "killed"

    def kill(report):
        if getattr(report, "phase", "") == "training" and report.epoch == 1 and not killed.exists():
            shutil.copytree(cache, killed, ignore=shutil.ignore_patterns(".writing-*"))  # what a kill would have left

    follow = dock._on_report
    dock._on_report = lambda run, report: (kill(report), follow(run, report))
    press(dock.work.start_button, dock.work)
    assert list(cache.iterdir()) == []  # over, hence forgotten
    (left,) = killed.iterdir()
    (left / "lock").unlink(missing_ok=True)
    other = ViewerModel()
    fresh = opened(TrainWidget(other))
    fresh.cache = killed
    fresh.resume_row.look(killed)
    qtbot.waitUntil(fresh.resume_row.isVisible, timeout=60_000)
    assert fresh.resume_row.label.text().startswith("A training of crystal from ")
    ended(qtbot, fresh, fresh.resume_row.resume_button.click)
    (shown,) = [layer for layer in other.layers if isinstance(layer, Image) and layer is not fresh.clean_box.layer]
    np.testing.assert_array_equal(fresh.clean_box.layer.data, calm.data)
    np.testing.assert_array_equal(shown.data, image.data)
    np.testing.assert_allclose(shown.scale, image.scale)
    (mine,) = [layer for layer in other.layers if isinstance(layer, Points)]
    np.testing.assert_array_equal(mine.features["z1"], whole["z1"])
    assert fresh.form.value(TrainSettings).epochs == QUICK.epochs
    assert fresh.curve.epochs == [1, 2]
    assert fresh.analysis.losses["epoch"].tolist() == [1, 2]
    qtbot.waitUntil(lambda: not fresh.resume_row.isVisible() and fresh.resume_row.latest._job is None)
    assert list(killed.iterdir()) == []


@pytest.mark.parametrize("state", [State.PREPARING, State.WORKING, State.STOPPING])
def test_dock_closed_while_it_trains(viewer, points, dock, make_dock, qtbot, cache, state):  # noqa: F811
    before = points.features.copy()
    if state is State.PREPARING:
        dock.form.set_value(ENDLESS)
        dock.work.start_button.click()
        assert dock.work.state is State.PREPARING
    else:
        begun(qtbot, dock)
        assert dock.work.state is State.WORKING
        if state is State.STOPPING:
            dock.work.keep_button.click()
            assert dock.work.state is State.STOPPING
    ended(qtbot, dock, dock.closed)
    pd.testing.assert_frame_equal(points.features, before)
    assert [layer.name for layer in viewer.layers] == ["crystal", "crystal atoms"]
    again = make_dock()  # it is offered to the next one
    qtbot.waitUntil(again.resume_row.isVisible, timeout=60_000)
    when = "before it had learned anything" if state is State.PREPARING else "after epoch"
    assert f"interrupted {when}" in again.resume_row.label.text()
    again.resume_row.resume_button.click()
    qtbot.waitUntil(lambda: len(again.curve.epochs) >= 2, timeout=60_000)
    shown = [layer.name for layer in viewer.layers if not layer.name.startswith("rVAE")]
    assert shown == ["crystal", "crystal atoms"]  # those that are open
    assert again.points_box.layer is points
    ended(qtbot, again, again.closed)
    again = make_dock()
    qtbot.waitUntil(again.resume_row.isVisible, timeout=60_000)
    again.resume_row.discard_button.click()
    qtbot.waitUntil(lambda: not again.resume_row.isVisible(), timeout=60_000)
    assert list(cache.iterdir()) == []


def test_what_failed_before_it_had_learned_is_not_offered_again(points, dock, press, cache):  # noqa: F811
    dock.form.set_value(PatchSettings(size=126))
    press(dock.work.start_button, dock.work)
    assert dock.work.state is State.FAILED
    assert list(cache.iterdir()) == []


def test_cancel_forgets_the_training(viewer, points, dock, qtbot, cache):  # noqa: F811
    before, colors = points.features.copy(), points.face_color.copy()
    begun(qtbot, dock)
    qtbot.waitUntil(lambda: NAME in viewer.layers)
    assert dock.live.manifold.isVisible()
    assert len(list(cache.iterdir())) == 1
    live = viewer.layers[NAME]
    inner = points.features["flag"] == ""
    assert len(live.data) == inner.sum()  # those that are learned from
    assert len(np.unique(live.face_color, axis=0)) > 10
    ended(qtbot, dock, dock.work.cancel_button.click)
    qtbot.waitUntil(lambda: list(cache.iterdir()) == [])
    pd.testing.assert_frame_equal(points.features, before)
    np.testing.assert_array_equal(points.face_color, colors)
    assert [layer.name for layer in viewer.layers] == ["crystal", "crystal atoms"]
    assert dock.work.state is State.READY
    assert not dock.live.isVisible()


@pytest.mark.skipif(not hasattr(Points, "face_colorbar"), reason="napari 0.7.0 has no colour bar for points")
def test_first_look_and_colour_bar_are_prepared_unseen(viewer, points, dock, qtbot, request):  # noqa: F811
    request.addfinalizer(gc.freeze)
    gc.unfreeze()  # as in a program
    dock.form.set_value(QUICK)
    bar = points.face_colorbar
    dock.work.start_button.click()
    made = viewer.layers[-1]
    assert made is dock.live.layer
    assert (made.face_color[:, 3] == 0).all()  # nothing is to be seen yet
    assert viewer.layers.selection.active is not made
    assert bar.visible
    assert bar.opacity == 0  # drawn, but not seen
    qtbot.waitUntil(lambda: not bar.visible and bar.opacity == 1)
    with qtbot.waitSignal(dock.trained, timeout=120_000):
        qtbot.waitUntil(lambda: NAME in viewer.layers, timeout=60_000)
        assert viewer.layers[NAME] is made
        assert (made.face_color[:, 3] == 1).all()
    qtbot.waitUntil(lambda: bar.visible)
    assert made not in viewer.layers
    assert gc.get_freeze_count() > 0
    qtbot.waitUntil(lambda: gc.get_freeze_count() == 0)


def test_what_others_keep_from_the_search_for_garbage_stays_so(viewer, qtbot):
    gc.freeze()
    live = LiveLook(viewer)
    with qtbot.waitSignal(live.destroyed):
        live.deleteLater()
    assert gc.get_freeze_count() > 0


def test_cancelled_training_is_not_waited_for(points, dock, qtbot, cache, monkeypatch):  # noqa: F811
    from napari_rvae import averages

    averaging, go_on, average = Event(), Event(), averages.average

    def slow(*given, **options):
        averaging.set()
        go_on.wait(20)
        return average(*given, **options)

    monkeypatch.setattr(averages, "average", slow)
    dock.form.set_value(TrainSettings(epochs=2, hidden=16, threads=1))
    dock.work.start_button.click()
    qtbot.waitUntil(averaging.is_set, timeout=60_000)
    dock.work.cancel_button.click()
    assert dock.work.state is State.READY
    assert dock.work.label.text() == "Cancelled; nothing was changed."
    dock.form.set_value(QUICK)
    dock.work.start_button.click()  # the next one waits until the thread has ended
    qtbot.waitUntil(lambda: dock.work.label.text().startswith("Waiting for the training before"))
    assert len(list(cache.iterdir())) == 1
    ended(qtbot, dock, go_on.set)
    assert points.features["z1"].notna().all()
    assert list(cache.iterdir()) == []


def test_image_moved_and_exchanged(image, points, dock, qtbot):  # noqa: F811
    begun(qtbot, dock)
    image.translate = (3, 4)
    image.name = "moved"
    image.data = np.zeros_like(image.data)
    stopped(qtbot, dock)
    assert points.features["z1"].notna().all()
    assert "The image was changed meanwhile" in dock.work.label.text()


def test_edited_atoms_have_no_results(points, dock, qtbot):  # noqa: F811
    begun(qtbot, dock)
    points.add([60.5, 61.5])
    points._move({5}, points.data[5])
    points._move({5}, points.data[5] + 3.0)
    stopped(qtbot, dock)
    assert "120 of 122 atoms have results; 2 were added or moved meanwhile." in dock.work.label.text()
    assert points.features["flag"].iloc[[5, -1]].tolist() == ["moved", "added"]


def test_second_training_is_refused(dock, make_dock, qtbot, told):  # noqa: F811
    begun(qtbot, dock)
    second = make_dock()
    ended(qtbot, second, second.work.start_button.click)
    assert "Another training is running" in told()[-1]
    assert second.work.state is State.FAILED
    ended(qtbot, dock, dock.work.cancel_button.click)
    second.form.set_value(QUICK)
    ended(qtbot, second, second.work.start_button.click)
    assert second.work.state is State.DONE


def test_what_went_otherwise_is_said(points, dock, qtbot, told, monkeypatch):  # noqa: F811
    import torch

    from napari_rvae.training.loop import Trainer

    step = Trainer.step

    def greedy(self, rows, log_prior):
        if len(rows) > 10:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return step(self, rows, log_prior)

    monkeypatch.setattr(Trainer, "step", greedy)
    begun(qtbot, dock)
    assert dock.curve.notes.isVisible()  # at once
    assert dock.curve.notes.text() == "The memory was full: went on with 8 patches per step."
    stopped(qtbot, dock)
    assert points.features["z1"].notna().all()
    assert "The memory was full: went on with 8 patches per step." in dock.work.label.text()
    assert "The memory was full" in told()[-1]


@pytest.mark.parametrize("words", ["CUDA out of memory", "something else"])
def test_nothing_is_left_of_a_training_that_failed(points, dock, press, monkeypatch, words):  # noqa: F811
    import torch

    from napari_rvae.training import memory
    from napari_rvae.training.loop import Trainer

    left, released = [], []

    def broken(self, rows, log_prior):
        left.append(weakref.ref(self))
        raise (torch.OutOfMemoryError if "memory" in words else RuntimeError)(words)

    monkeypatch.setattr(Trainer, "step", broken)
    monkeypatch.setattr(memory, "release", lambda device: released.append(left[-1]() is None))
    if words == "something else":
        monkeypatch.setattr(
            "napari_rvae.widgets.work.notification_manager", SimpleNamespace(receive_error=lambda *_: None)
        )
    gc.disable()
    try:
        press(dock.work.start_button, dock.work)
    finally:
        gc.enable()
    assert dock.work.state is State.FAILED
    assert released[-1]  # after everything on the device was let go of


def test_wild_loss_is_said(points, dock, press, told, monkeypatch):  # noqa: F811
    from napari_rvae.training.loop import Trainer

    finite = iter([True])
    monkeypatch.setattr(Trainer, "is_finite", lambda self: next(finite, False))
    press(dock.work.start_button, dock.work)
    assert points.features["z1"].notna().all()
    assert "unstable in epoch 2: the model of epoch 1 was kept" in dock.work.label.text()
    assert "unstable in epoch 2" in dock.curve.notes.text()
    assert "unstable" in told()[-1]


def test_full_disk_is_said(points, dock, press, told, monkeypatch):  # noqa: F811
    def full(*_):
        raise OutputError("cannot write to cache: No space left on device; choose another place")

    with monkeypatch.context() as patch:
        patch.setattr("napari_rvae.workflows.interrupted.KeptTraining.begin", full)
        press(dock.work.start_button, dock.work)
    assert points.features["z1"].notna().all()
    for said in (told()[-1], dock.curve.notes.text(), dock.work.label.text(), *dock.analysis.recipe.used["notes"]):
        assert "not kept for a crash: cannot write to cache: No space left" in said


class ClosedByHand(QCloseEvent):
    """What the window system sends when somebody closes the window."""

    def spontaneous(self):
        return True


def test_closing_the_window_asks_and_keeps(make_napari_viewer, qtbot, pixels, cache, monkeypatch):
    viewer = make_napari_viewer()
    add_atoms(viewer, atoms(), viewer.add_image(pixels, name="crystal"))
    _, dock = viewer.window.add_plugin_dock_widget("napari-rvae", "Train rVAE")
    begun(qtbot, dock)
    asked, refused = [], [QDialog.DialogCode.Rejected]

    def dialog(*_, extra_info="", **options):
        asked.append(extra_info)
        return SimpleNamespace(exec_=lambda: refused.pop() if refused else QDialog.DialogCode.Accepted)

    monkeypatch.setattr("napari._qt.qt_main_window.ConfirmCloseDialog", dialog)
    window, event, known = viewer.window._qt_window, ClosedByHand(), len(dock.curve.epochs)
    window.closeEvent(event)
    assert not event.isAccepted()
    assert "Training" in asked[0]
    qtbot.waitUntil(lambda: len(dock.curve.epochs) > known, timeout=60_000)  # it goes on
    event = ClosedByHand()
    with qtbot.waitSignal(dock.work.done, timeout=60_000):
        window.closeEvent(event)
    assert event.isAccepted()
    assert "Training" in asked[1]
    (kept,) = interrupted_trainings(cache)
    assert kept.facts["epoch"] >= known  # it is offered again


@pytest.fixture
def crystal_file(viewer, tmp_path, pixels):
    """An image from a file, its scale set by hand, and atoms of which one was moved before."""
    np.save(tmp_path / "crystal.npy", pixels)
    [image] = add_image(viewer, load_image(tmp_path / "crystal.npy"))
    image.scale = (0.02, 0.02)
    image.units = ("nm", "nm")
    mine = add_atoms(viewer, atoms(), image)
    mine._move({5}, mine.data[5])
    mine._move({5}, mine.data[5] + 0.25)
    return mine


def saved(qtbot, dock, folder, monkeypatch):
    """Save results with the dock's button."""
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(folder))
    ended(qtbot, dock, refreshed(dock).files.save_button.click)
    return pd.read_csv(folder / "latent.csv")


def repeated(recipe, folder):
    """The table that the shell makes from a recipe."""
    assert cli.main(["repeat", str(recipe), "-o", str(folder)]) == 0
    return pd.read_csv(folder / "latent.csv")


def test_training_stopped_in_the_window_is_repeated_in_the_shell(crystal_file, make_dock, qtbot, tmp_path, monkeypatch):  # noqa: F811
    dock = make_dock()
    begun(qtbot, dock, epochs=3)
    stopped(qtbot, dock)
    assert dock.analysis.recipe.used["epochs"] >= 3
    table = saved(qtbot, dock, tmp_path / "out", monkeypatch)
    again = repeated(tmp_path / "out" / "recipe.json", tmp_path / "again")
    assert {"z1", "angle", "y_nm", "patch_mean"} <= set(table)
    pd.testing.assert_frame_equal(again[table.columns], table, check_exact=True)


def test_exchanged_pixels_are_saved_and_repeated(viewer, make_dock, press, qtbot, tmp_path, pixels, monkeypatch):  # noqa: F811
    np.save(tmp_path / "crystal.npy", pixels)
    with layer_source(path=str(tmp_path / "crystal.npy")):  # as napari's own reader leaves it
        image = viewer.add_image(pixels, name="crystal")
    image.data = pixels**2
    add_atoms(viewer, atoms(), image)
    dock = make_dock()
    press(dock.work.start_button, dock.work)
    table = saved(qtbot, dock, tmp_path / "out", monkeypatch)
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "image.npy"), image.data)
    again = repeated(tmp_path / "out" / "recipe.json", tmp_path / "again")
    pd.testing.assert_frame_equal(again[table.columns], table, check_exact=True)


def test_what_was_edited_later_is_marked_and_not_repeated(crystal_file, make_dock, press, qtbot, tmp_path, monkeypatch):  # noqa: F811
    dock = make_dock()
    press(dock.work.start_button, dock.work)
    crystal_file._move({7}, crystal_file.data[7])
    crystal_file._move({7}, crystal_file.data[7] + 2.0)
    crystal_file.add([60.5, 61.5])
    assert "; 2 were added or moved since: they have no results" in refreshed(dock).choice.count.text()
    table = saved(qtbot, dock, tmp_path / "out", monkeypatch)
    stale = table["z1"].isna()
    assert table["flag"][stale].tolist() == ["moved", "added"]
    again = repeated(tmp_path / "out" / "recipe.json", tmp_path / "again")
    assert again["z1"].notna().all()  # as it was trained
    assert again["y"][7] == table["y"][7] - 2.0
    pd.testing.assert_frame_equal(
        again.loc[~stale[:-1], table.columns], table[~stale], check_exact=True, check_dtype=False
    )
