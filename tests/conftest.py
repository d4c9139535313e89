"""What every test obeys: the user's settings are not touched, and nothing of ours outlives a test that used Qt."""

import gc
import os
import sys
import weakref

import hypothesis
import pytest

os.environ["NAPARI_CONFIG"] = ""  # neither read nor write the user's preferences
os.environ["NAPARI_STRICT_QT"] = "raise"  # make_napari_viewer then fails on top-level widgets that are left over

_ALLOWED = [hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.function_scoped_fixture]
hypothesis.settings.register_profile("busy machine", deadline=None, suppress_health_check=_ALLOWED)
hypothesis.settings.load_profile("busy machine")


def _workers():
    module = sys.modules.get("superqt.utils._qthreading")
    return list(module.WorkerBase._worker_set) if module else []


def pytest_collection_finish():
    """Let no garbage be looked for among all that was imported; napari has it collected whenever a layer goes."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_teardown():
    """End workers before the viewer goes: one that runs at the end of the session aborts the interpreter."""
    for worker in _workers():
        worker.quit()


@pytest.fixture(autouse=True)
def nothing_survives(request, monkeypatch):
    """Fail a test that leaves a running worker, a running timer or a widget of this package behind."""
    if not {"qapp", "qtbot"} & set(request.fixturenames):
        yield
        return
    from qtpy.QtCore import QCoreApplication, QEvent, QThreadPool, QTimer
    from qtpy.QtWidgets import QApplication

    def widgets():
        return [w for w in QApplication.allWidgets() if type(w).__module__.startswith("napari_rvae")]

    known = widgets()
    timers = weakref.WeakSet()
    start = QTimer.start

    def remembered_start(timer, *args):
        if sys._getframe(1).f_globals.get("__name__", "").startswith("napari_rvae"):
            timers.add(timer)
        start(timer, *args)

    monkeypatch.setattr(QTimer, "start", remembered_start)
    yield
    assert QThreadPool.globalInstance().waitForDone(15_000), "a worker is still running"
    QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete.value)
    gc.collect(1)
    if getattr(request.node, "rep_call", None) is None or request.node.rep_call.failed:
        return  # the traceback keeps widgets alive
    running = [timer.objectName() or timer for timer in timers if _alive(timer) and timer.isActive()]
    assert not running, f"timers are still running: {running}"
    left = [widget for widget in widgets() if widget not in known]
    assert not left, f"widgets are still there: {left}"


def _alive(thing):
    try:
        thing.objectName()
    except RuntimeError:  # its C++ half is gone
        return False
    return True
