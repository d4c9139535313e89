"""Work in a thread: order of what is told, ways to end it, what goes wrong."""

import warnings
from threading import Event

import pytest
from napari.utils.progress import progress
from qtpy.QtCore import QObject, QThreadPool
from qtpy.QtWidgets import QApplication

from napari_rvae.errors import InputDataError, Stopped
from napari_rvae.widgets.jobs import Latest
from napari_rvae.widgets.work import State, WorkRow, duration


@pytest.fixture
def row(qtbot):
    widget = WorkRow("Begin", "Stop and keep")
    qtbot.addWidget(widget)
    widget.show()
    return widget


def run(qtbot, row, function, result=lambda value: None, report=None):
    with qtbot.waitSignal(row.done, timeout=10_000):
        row.run("Working", function, result, report)


def test_result_and_reports_arrive_in_order_in_the_main_thread(qtbot, row):
    told = []

    def function(job):
        job.report("half")
        job.progress(1.0, "all")
        return "result"

    run(
        qtbot,
        row,
        function,
        lambda value: told.append((value, QApplication.instance().thread().isCurrentThread())),
        told.append,
    )
    assert told == ["half", ("result", True)]
    assert row.state is State.DONE


def test_work_leaves_alone_what_the_program_does_with_warnings(qtbot, row):
    begun, go_on = Event(), Event()
    before = warnings.showwarning, list(warnings.filters)

    def function(job):
        begun.set()
        go_on.wait(10)

    with qtbot.waitSignal(row.done, timeout=10_000):
        row.run("Working", function, lambda value: None)
        qtbot.waitUntil(begun.is_set)
        assert (warnings.showwarning, list(warnings.filters)) == before
        go_on.set()
    assert (warnings.showwarning, list(warnings.filters)) == before


def test_buttons_say_what_can_be_done(qtbot, row):
    go_on = Event()
    assert (row.start_button.isEnabled(), row.keep_button.isEnabled(), row.cancel_button.isEnabled()) == (1, 0, 0)
    with qtbot.waitSignal(row.done, timeout=10_000):
        row.run("Working", lambda job: go_on.wait(10), lambda value: None)
        assert (row.start_button.isEnabled(), row.keep_button.isEnabled(), row.cancel_button.isEnabled()) == (0, 1, 1)
        assert row.progress_bar.isVisible()
        go_on.set()
    assert (row.start_button.isEnabled(), row.keep_button.isEnabled(), row.cancel_button.isEnabled()) == (1, 0, 0)
    assert not row.progress_bar.isVisible()


def test_nothing_can_be_kept_while_it_prepares(qtbot, row):
    go_on, states = Event(), []
    row.state_changed.connect(states.append)
    with qtbot.waitSignal(row.done, timeout=10_000):
        row.run("Working", lambda job: go_on.wait(10), lambda value: None, prepares=True)
        assert (row.start_button.isEnabled(), row.keep_button.isEnabled(), row.cancel_button.isEnabled()) == (0, 0, 1)
        row.begin()
        assert row.keep_button.isEnabled()
        go_on.set()
    assert states == [State.PREPARING, State.WORKING, State.DONE]


def until(job, asked):
    """Work on until asked to stop."""
    while not asked():
        job.progress(0.5, "half")
        Event().wait(0.001)


def test_cancel_gives_no_result(qtbot, row):
    results = []

    def function(job):
        until(job, job.stop)
        raise Stopped("stopped")

    with qtbot.waitSignal(row.done, timeout=10_000):
        row.run("Working", function, results.append)
        qtbot.waitUntil(lambda: row.progress_bar.value() == 500)
        row.cancel_button.click()
        assert row.state is State.STOPPING
        assert not row.cancel_button.isEnabled()
    assert results == []
    assert "nothing was changed" in row.label.text()


def test_what_cannot_be_stopped_is_waited_for(qtbot, row):
    go_on, results = Event(), []
    with qtbot.waitSignal(row.done, timeout=10_000):
        row.run("Working", lambda job: go_on.wait(10), results.append)
        row.cancel_button.click()
        assert row.working
        go_on.set()
    assert results == []
    assert row.label.text() == "Cancelled when it was over already."


def test_what_is_not_waited_for_ends_unseen(qtbot, row):
    go_on, ended, results = Event(), Event(), []

    def function(job):
        go_on.wait(10)
        job.progress(1.0, "late")
        ended.set()
        return "late"

    row.run("Working", function, results.append, waits=False)
    with qtbot.waitSignal(row.done):
        row.cancel_button.click()
    assert row.state is State.READY
    assert working_bars() == []
    run(qtbot, row, lambda job: "mine", results.append)
    go_on.set()
    qtbot.waitUntil(ended.is_set)
    run(qtbot, row, lambda job: "again", results.append)
    assert results == ["mine", "again"]


def test_stop_and_keep_gives_what_there_is(qtbot, row):
    results = []

    def function(job):
        until(job, job.finishing_early)
        return "so far"

    with qtbot.waitSignal(row.done, timeout=10_000):
        row.run("Working", function, results.append)
        qtbot.waitUntil(lambda: row.progress_bar.value() == 500)
        row.keep_button.click()
    assert results == ["so far"]


def test_cancel_in_the_activity_dock_cancels(qtbot, row):
    def function(job):
        until(job, job.stop)
        raise Stopped("stopped")

    with qtbot.waitSignal(row.done, timeout=10_000):
        row.run("Working", function, lambda value: None)
        (bar,) = working_bars()
        bar.cancel()
    assert working_bars() == []


def working_bars():
    """In the activity dock."""
    return [one for one in progress._all_instances if one.desc.startswith("Working")]


def test_activity_dock_says_how_far_it_is(qtbot, row):
    def function(job):
        until(job, job.stop)
        raise Stopped("stopped")

    with qtbot.waitSignal(row.done, timeout=10_000):
        row.run("Working", function, lambda value: None)
        qtbot.waitUntil(lambda: [bar.desc for bar in working_bars()] == ["Working: half: "])
        row.cancel_button.click()


# Handed over to another row -------------------------------------------------------------------------------------------


@pytest.fixture
def other(qtbot):
    widget = WorkRow("")
    qtbot.addWidget(widget)
    widget.show()
    return widget


def test_job_that_is_handed_over_ends_in_the_other_row(qtbot, row, other):
    go_on, told = Event(), []

    def function(job):
        job.progress(0.6, "much")
        go_on.wait(10)
        job._last = 0.0
        job.progress(0.8, "more")
        job.report("reported")
        return "result"

    row.run("Working", function, told.append, told.append)
    qtbot.waitUntil(lambda: row.progress_bar.value() == 600)
    with qtbot.waitSignal(row.done):
        row.hand_over(other)
    assert (row.state, other.state) == (State.DONE, State.WORKING)
    assert row.start_button.isEnabled()
    assert other.cancel_button.isEnabled()
    run(qtbot, row, lambda job: "mine", told.append)
    assert told == ["mine"]
    with qtbot.waitSignal(other.done, timeout=10_000):
        go_on.set()
    assert told == ["mine", "reported", "result"]
    assert (row.state, other.state) == (State.DONE, State.DONE)
    assert working_bars() == []


def test_job_that_is_handed_over_is_cancelled_in_the_other_row(qtbot, row, other):
    def function(job):
        until(job, job.stop)
        raise Stopped("stopped")

    results = []
    row.run("Working", function, results.append)
    row.hand_over(other)
    row.cancel_button.click()
    row.cancel()
    assert other.state is State.WORKING
    with qtbot.waitSignal(other.done, timeout=10_000):
        other.cancel_button.click()
    assert results == []
    assert (row.state, other.state) == (State.DONE, State.READY)


def test_row_that_works_takes_no_other_job(qtbot, row, other):
    go_on = Event()
    with qtbot.waitSignals([row.done, other.done], timeout=10_000):
        row.run("Working", lambda job: go_on.wait(10), lambda value: None)
        other.run("Working", lambda job: go_on.wait(10), lambda value: None)
        row.hand_over(other)
        assert row.working
        go_on.set()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (InputDataError("The image is empty: open another."), "The image is empty: open another."),
        (MemoryError("Unable to allocate 9 TiB"), "There is not enough memory"),
        (RuntimeError("boom"), "Failed with RuntimeError: boom"),
        (ValueError("boom"), "Failed with ValueError: boom"),
    ],
)
def test_what_goes_wrong_is_told_and_the_row_stays_usable(qtbot, row, told, error, words):
    def function(job):
        raise error

    run(qtbot, row, function)
    assert row.label.text().startswith(words)
    assert row.label.isVisible()
    assert len(told()) == 1
    assert str(error) in told()[0]
    results = []
    run(qtbot, row, lambda job: 1, results.append)
    assert results == [1]


def test_result_that_cannot_be_shown_is_told_too(qtbot, row, told):
    def show(value):
        raise InputDataError("There is no room.")

    run(qtbot, row, lambda job: 1, show)
    assert told() == ["There is no room."]
    assert row.state is State.FAILED


def test_second_start_while_working_is_ignored(qtbot, row):
    go_on, started = Event(), []
    with qtbot.waitSignal(row.done, timeout=10_000):
        row.run("Working", lambda job: go_on.wait(10), lambda value: None)
        row.run("Working", lambda job: started.append(1), lambda value: None)
        go_on.set()
    assert started == []


def test_row_that_goes_away_ends_its_work(qtbot):
    row, ended = WorkRow("Begin"), Event()

    def function(job):
        until(job, job.stop)
        ended.set()

    row.run("Working", function, lambda value: None)
    row.deleteLater()
    qtbot.waitUntil(ended.is_set, timeout=10_000)


def test_only_the_latest_request_is_answered(qtbot, row):
    latest, answers = Latest(row), []
    for number in range(5):
        latest.request(lambda number=number: number, answers.append)
    qtbot.waitUntil(lambda: bool(answers))
    latest.request(lambda: "next", answers.append)
    qtbot.waitUntil(lambda: len(answers) == 2)
    assert answers == [4, "next"]


def test_request_that_fails_is_said_and_the_next_one_answered(qtbot, row):
    latest, answers, failures = Latest(row), [], []
    latest.failed.connect(failures.append)

    def bad():
        raise InputDataError("No.")

    latest.request(bad, answers.append)
    qtbot.waitUntil(lambda: failures == ["No."])
    latest.request(lambda: 1, answers.append)
    qtbot.waitUntil(lambda: answers == [1])


@pytest.mark.parametrize(("seconds", "words"), [(0.2, "1 s"), (75, "75 s"), (600, "10 min"), (9000, "2.5 h")])
def test_time_in_words(seconds, words):
    assert duration(seconds) == words


@pytest.mark.parametrize(("live", "expected"), [(True, ["first", "last"]), (False, ["last"])])
def test_of_many_requests_the_latest_counts_and_what_takes_long_learns_that_it_is_outdated(
    qtbot, monkeypatch, live, expected
):
    parent, results, outdated = QObject(), [], []
    latest, started, go_on = Latest(parent, live=live), Event(), Event()
    monkeypatch.setattr("napari_rvae.widgets.jobs._LONG", 0)

    def first():
        outdated.append(latest.outdated())
        started.set()
        assert go_on.wait(30)
        outdated.append(latest.outdated())
        return "first"

    latest.request(first, results.append)
    qtbot.waitUntil(started.is_set, timeout=20_000)
    for name in ("second", "third", "last"):
        latest.request(lambda name=name: name, results.append)
    go_on.set()
    qtbot.waitUntil(lambda: results == expected, timeout=20_000)
    assert outdated == [False, True]
    started.clear()
    go_on.clear()
    latest.request(first, results.append)
    qtbot.waitUntil(started.is_set, timeout=20_000)
    latest.forget()
    go_on.set()
    assert QThreadPool.globalInstance().waitForDone(20_000)
    assert outdated[-1]
    assert results == expected
