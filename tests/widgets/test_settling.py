"""A training that was stopped and kept: the dock is free at once, and its results follow, whatever happens meanwhile.

| meanwhile | what happens | test |
|---|---|---|
| nothing | the colours of the last look stay until then | test_dock_is_free_before_the_results_are_there |
| cancelled | the model is kept, and can be applied | test_cancelled_results_leave_the_model |
| the dock is closed | kept, offered again | test_dock_closed_before_the_results_are_there |
| they cannot be had | said, offered again | test_results_that_cannot_be_had_are_offered_again |
| another training is started | waits, its results come later | test_next_training_waits |
| atoms are edited | grey and flagged, said | test_edited_atoms_have_no_results |
| the points are removed | results in a new layer | test_points_removed |
| another model is applied | results in a new layer | test_other_results_are_not_overwritten |
| a model is loaded | it stays, to be applied | test_model_loaded_meanwhile_stays |
| the dock shows other atoms | it goes on to do so | test_dock_does_not_turn_back |
"""

from threading import Event

import numpy as np
import pytest
from napari.layers import Points

from napari_rvae import latent
from napari_rvae.errors import Stopped
from napari_rvae.layers import add_atoms, model_of
from napari_rvae.widgets.live import NAME
from napari_rvae.widgets.work import State

from .test_train import QUICK, atoms, make_dock, points, refreshed  # noqa: F401  fixtures
from .test_training_faults import begun, dock, ended, often  # noqa: F401  fixtures


class Gate:
    """Holds encoding back until it is opened, or breaks it."""

    def __init__(self):
        self.opened, self.error, self.passes, self.encode = Event(), None, None, latent.encode

    def __call__(self, model, *given, stop=None, **options):
        while model is not self.passes and not self.opened.wait(0.01):
            if stop is not None and stop():
                raise Stopped("Stopped while encoding.")
        if self.error is not None:
            raise self.error
        return self.encode(model, *given, stop=stop, **options)


@pytest.fixture
def gate(monkeypatch):
    gate = Gate()
    monkeypatch.setattr(latent, "encode", gate)
    return gate


@pytest.fixture
def held(qtbot, dock, gate):  # noqa: F811
    """A dock whose training was stopped, and whose results are held back."""
    begun(qtbot, dock)
    qtbot.waitUntil(lambda: NAME in dock.viewer.layers)
    ended(qtbot, dock, dock.work.keep_button.click)
    return dock


def settled(qtbot, dock, action):  # noqa: F811
    with qtbot.waitSignal(dock.settling.done, timeout=60_000):
        action()


def test_dock_is_free_before_the_results_are_there(viewer, points, held, gate, qtbot, cache):  # noqa: F811
    assert held.work.state is State.DONE
    assert held.work.start_button.isEnabled()
    assert not held.work.cancel_button.isEnabled()
    assert held.settling.isVisible()
    assert held.settling.cancel_button.isEnabled()
    assert "the model is kept" in held.work.label.text()
    assert "z1" not in points.features
    assert len(np.unique(viewer.layers[NAME].face_color, axis=0)) > 10
    assert len(list(cache.iterdir())) == 1  # for a crash
    settled(qtbot, held, gate.opened.set)
    assert points.features["z1"].notna().all()
    assert NAME not in viewer.layers
    assert not held.settling.isVisible()
    assert "121 of 121 atoms have results" in held.work.label.text()
    assert list(cache.iterdir()) == []


def test_training_that_is_encoding_already_can_be_left_to_itself(points, dock, gate, qtbot):  # noqa: F811
    dock.work.start_button.click()
    qtbot.waitUntil(lambda: dock._run.model is not None, timeout=60_000)
    dock.work.keep_button.click()
    assert dock.work.state is State.DONE
    settled(qtbot, dock, gate.opened.set)
    assert points.features["z1"].notna().all()


def test_cancelled_results_leave_the_model(viewer, points, held, gate, qtbot, cache):  # noqa: F811
    before = points.features.copy()
    settled(qtbot, held, held.settling.cancel_button.click)
    assert held.work.label.text().startswith("The model is kept")
    assert points.features.equals(before)
    assert NAME not in viewer.layers
    qtbot.waitUntil(lambda: list(cache.iterdir()) == [])  # the dock may just be looking there
    gate.opened.set()
    ended(qtbot, refreshed(held), held.files.apply_action.trigger)
    assert points.features["z1"].notna().all()
    assert model_of(points) is held.files.loaded


def test_model_is_whole_though_its_results_were_cancelled_at_once(points, dock, qtbot, monkeypatch):  # noqa: F811
    from napari_rvae.training import finish

    finishing, go_on, settle = Event(), Event(), finish.finish
    monkeypatch.setattr(finish, "finish", lambda *given: (finishing.set(), go_on.wait(20), settle(*given)))
    begun(qtbot, dock)
    ended(qtbot, dock, dock.work.keep_button.click)
    qtbot.waitUntil(finishing.is_set)
    dock.settling.cancel_button.click()
    settled(qtbot, dock, go_on.set)
    ended(qtbot, refreshed(dock), dock.files.apply_action.trigger)
    assert points.features["z1"].notna().all()


def test_dock_closed_before_the_results_are_there(points, held, make_dock, qtbot):  # noqa: F811
    settled(qtbot, held, held.closed)
    assert "z1" not in points.features
    again = make_dock()
    qtbot.waitUntil(again.resume_row.isVisible, timeout=60_000)
    assert "interrupted after epoch" in again.resume_row.label.text()


def test_results_that_cannot_be_had_are_offered_again(held, gate, qtbot, told):
    gate.error = MemoryError("9 TiB")
    settled(qtbot, held, gate.opened.set)
    assert held.settling.state is State.FAILED
    assert "not enough memory" in told()[-1]
    assert "not enough memory" in held.settling.label.text()
    qtbot.waitUntil(held.resume_row.isVisible, timeout=60_000)


def test_next_training_waits(points, held, gate, qtbot):  # noqa: F811
    held.form.set_value(QUICK)
    with qtbot.waitSignals([held.settling.done, held.work.done], timeout=120_000, order="strict"):
        held.work.start_button.click()
        qtbot.waitUntil(lambda: held.work.label.text().startswith("Waiting for the training before"))
        assert held.work.state is State.PREPARING
        gate.opened.set()
    second = model_of(points)
    assert second is held.analysis.model
    assert second.recipe["epochs_done"] == QUICK.epochs
    refreshed(held).results.undo_button.click()
    assert "stopped_after" in model_of(points).recipe
    assert points.features["z1"].notna().all()


def test_waiting_training_can_be_cancelled(points, held, gate, qtbot):  # noqa: F811
    held.work.start_button.click()
    ended(qtbot, held, held.work.cancel_button.click)
    assert held.settling.working
    assert NAME in held.viewer.layers
    settled(qtbot, held, gate.opened.set)
    assert points.features["z1"].notna().all()


def test_edited_atoms_have_no_results(points, held, gate, qtbot):  # noqa: F811
    points.add([60.5, 61.5])
    points._move({5}, points.data[5])
    points._move({5}, points.data[5] + 3.0)
    settled(qtbot, held, gate.opened.set)
    assert "120 of 122 atoms have results; 2 were added or moved meanwhile." in held.work.label.text()
    assert points.features["flag"].iloc[[5, -1]].tolist() == ["moved", "added"]


def test_points_removed(viewer, points, held, gate, qtbot):  # noqa: F811
    viewer.layers.remove(points)
    settled(qtbot, held, gate.opened.set)
    (new,) = [layer for layer in viewer.layers if isinstance(layer, Points)]
    assert new.features["z1"].notna().all()
    assert "theirs was removed meanwhile" in held.work.label.text()


def test_other_results_are_not_overwritten(viewer, points, dock, press, qtbot, gate):  # noqa: F811
    gate.opened.set()
    press(dock.work.start_button, dock.work)
    first, model = points.features["z1"].copy(), model_of(points)
    gate.opened.clear()
    begun(qtbot, dock)
    ended(qtbot, dock, dock.work.keep_button.click)
    dock.files.loaded = gate.passes = model
    ended(qtbot, refreshed(dock), dock.files.apply_action.trigger)
    settled(qtbot, dock, gate.opened.set)
    np.testing.assert_allclose(points.features["z1"], first, atol=1e-4)
    new = dock.points_box.layer
    assert new is not points
    assert "stopped_after" in model_of(new).recipe
    assert new.features["z1"].notna().all()


def test_dock_does_not_turn_back(viewer, image, points, held, gate, qtbot):  # noqa: F811
    other = add_atoms(viewer, atoms(), image)
    held.points_box.choose(other)
    settled(qtbot, held, gate.opened.set)
    assert held.points_box.layer is other
    assert "z1" not in other.features
    assert points.features["z1"].notna().all()


def test_model_loaded_meanwhile_stays(points, held, gate, press, qtbot, tmp_path):  # noqa: F811
    settled(qtbot, held, gate.opened.set)
    model_of(points).save(tmp_path / "model.safetensors")
    gate.opened.clear()
    begun(qtbot, held)
    ended(qtbot, held, held.work.keep_button.click)
    ended(qtbot, held, lambda: held.files.load_model(tmp_path / "model.safetensors"))
    loaded = held.files.loaded
    settled(qtbot, held, gate.opened.set)
    assert held.files.model is loaded
    assert model_of(points) is held.analysis.model
