"""Work in a thread: progress, time left, a way to stop, and one place for what goes wrong."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from threading import Event
from typing import Any

from napari.qt.threading import WorkerBase, WorkerBaseSignals, create_worker
from napari.utils import cancelable_progress
from napari.utils.notifications import notification_manager, show_error, show_warning
from qtpy.QtCore import QObject, Qt, QTimer, Signal
from qtpy.QtWidgets import QHBoxLayout, QLabel, QProgressBar, QPushButton, QVBoxLayout, QWidget

from napari_rvae.errors import RVAEError, Stopped

_STEPS = 1000  # of a progress bar
_BETWEEN_REPORTS = 0.4  # s; where no graphics card draws, each costs a tenth of a second of a processor
_SPINNER = 5  # % of its speed, for the same reason
_PATIENCE = 100  # ms without a new request before the work begins


class _Signals(WorkerBaseSignals):
    progressed = Signal(float, str, object)
    reported = Signal(object)
    aborted = Signal()


class Job(WorkerBase):
    """One call of a function in a thread.

    The function is given the job: it calls `progress`, polls `stop` (and `finishing_early`, where it can end early
    with a result) and may `report` anything to the window.
    """

    def __init__(self, function: Callable[[Job], Any], SignalsClass: type = _Signals) -> None:
        super().__init__(SignalsClass=SignalsClass)
        self._function = function
        self._keep = Event()
        self._bar: Any = None
        self._last = 0.0
        self.unwanted = False  # the user has cancelled it, not just closed the window

    def work(self) -> Any:
        """Run the function; called by Qt in the thread."""
        try:
            return self._function(self)
        except Stopped:
            self.quit()
            self.aborted.emit()
            return None

    def progress(self, fraction: float, text: str, seconds_left: float | None = None) -> None:
        """Say how far it is."""
        now = time.monotonic()
        if now - self._last > _BETWEEN_REPORTS or fraction >= 1:
            self._last = now
            self.progressed.emit(fraction, text, seconds_left)

    def stop(self) -> bool:
        """Whether the user has cancelled."""
        if self._bar is not None and self._bar.is_canceled:  # in napari's activity dock
            self.unwanted = True
            self.quit()
        return self.abort_requested

    def report(self, thing: Any) -> None:
        """Hand something to the window while the work goes on."""
        self.reported.emit(thing)

    def warn(self, text: str) -> None:
        """Say that something is not as it should be, while the work goes on."""
        show_warning(text)

    def finish_early(self) -> None:
        """Ask for what there is so far."""
        self._keep.set()

    def finishing_early(self) -> bool:
        """Whether the user wants what there is so far."""
        return self._keep.is_set() or self.stop()


@dataclass
class _Titled:
    """A function, called once, with the name by which napari asks whether to close its window in the middle of it."""

    title: str
    function: Callable[[Job], Any] | None

    def __call__(self, job: Job) -> Any:
        # napari remembers every worker as long as its window is open: not all that went in, too
        function, self.function = self.function, None
        assert function is not None
        return function(job)

    def __str__(self) -> str:
        return self.title


class State(Enum):
    """What a row of work is doing, or what became of it."""

    READY = "ready"
    PREPARING = "preparing"  # nothing to keep yet
    WORKING = "working"
    STOPPING = "stopping"
    DONE = "done"
    FAILED = "failed"


_BUSY = (State.PREPARING, State.WORKING, State.STOPPING)


class WorkRow(QWidget):
    """The button that starts the work, the ones that end it, a progress bar and a line of text.

    Parameters
    ----------
    start_text : str
        What the button does.
    keep_text : str
        Of a second button that ends the work early with a result; none when empty.
    """

    start_clicked = Signal()
    state_changed = Signal(object)
    failed = Signal(str)  # what went wrong
    done = Signal()  # succeeded, failed or cancelled: ready again

    def __init__(self, start_text: str, keep_text: str = "") -> None:
        super().__init__()
        self.state = State.READY
        self._job: Job | None = None
        self._bar: cancelable_progress | None = None
        self._result: Callable[[Any], None] = _ignore
        self._report: Callable[[Any], None] = _ignore
        self._started = 0.0
        self._outcome = State.DONE  # of the latest job
        self.start_button = QPushButton(start_text)
        self.start_button.clicked.connect(self.start_clicked)
        self.keep_button = QPushButton(keep_text, self)
        self.keep_button.setVisible(bool(keep_text))
        self.keep_button.clicked.connect(self.finish_early)
        self.cancel_button = QPushButton("Cancel")
        self.cancel_button.clicked.connect(self.cancel)
        self.progress_bar = QProgressBar()
        self.progress_bar.setRange(0, _STEPS)
        self.progress_bar.setTextVisible(False)
        self.progress_bar.setFixedHeight(8)
        self.label = QLabel()
        self.label.setWordWrap(True)
        self.label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        buttons = QHBoxLayout()
        buttons.addWidget(self.start_button, 2)
        if keep_text:
            buttons.addWidget(self.keep_button, 1)
        buttons.addWidget(self.cancel_button, 1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(buttons)
        layout.addWidget(self.progress_bar)
        layout.addWidget(self.label)
        self.label.hide()
        self._show(State.READY)

    @property
    def working(self) -> bool:
        """Whether a job is running."""
        return self._job is not None

    def run(
        self,
        title: str,
        function: Callable[[Job], Any],
        result: Callable[[Any], None],
        report: Callable[[Any], None] | None = None,
        prepares: bool = False,
    ) -> None:
        """Call a function in a thread, unless one is running.

        Parameters
        ----------
        title : str
            What is being done, for napari's activity dock.
        function : callable
            ``function(job)``, run in the thread: no Qt, no napari in it.
        result : callable
            Called in the main thread with what the function returned.
        report : callable, optional
            Called in the main thread with whatever the function reports.
        prepares : bool
            There is nothing to keep until `begin` is called.
        """
        if self.working:
            return
        self._outcome = State.DONE
        self._result, self._report = result, report or _ignore
        self._started = time.monotonic()
        job = create_worker(_Titled(title, function), _worker_class=Job, _start_thread=False, _ignore_errors=True)
        self._job = job
        self._bar = job._bar = cancelable_progress(total=_STEPS, desc=title)
        job.progressed.connect(self._on_progressed)
        job.reported.connect(self._on_reported)
        job.returned.connect(self._on_returned)
        job.errored.connect(self._on_errored)
        job.aborted.connect(self._on_aborted)
        job.finished.connect(self._bar.close)
        job.finished.connect(self._on_finished)
        self.destroyed.connect(job.quit)
        self.say(f"{title}...")
        self._show(State.PREPARING if prepares else State.WORKING)
        self._slow_spinner(_SPINNER)
        job.start()

    def _slow_spinner(self, percent: int) -> None:
        """Let the window's busy sign turn slowly: every turn has the whole window drawn, dozens of times a second."""
        window = self.window()
        for label in [] if window is None else window.findChildren(QLabel):
            if (movie := label.movie()) is not None:
                movie.setSpeed(percent)

    def begin(self) -> None:
        """From now on there is something to keep."""
        if self.state is State.PREPARING:
            self._show(State.WORKING)

    def cancel(self) -> None:
        """Give the work up."""
        if self._job is not None:
            self._job.unwanted = True
            self.leave()

    def leave(self) -> None:
        """End the work because its window goes; what can be gone on with is kept."""
        if self._job is not None:
            self._job.quit()
            self.say("Cancelling...")
            self._show(State.STOPPING)

    def finish_early(self) -> None:
        """Ask for what there is so far."""
        if self._job is not None:
            self._job.finish_early()
            self.say("Stopping; what was learned so far is kept...")
            self._show(State.STOPPING)

    def say(self, text: str) -> None:
        """Show a line of text."""
        self.label.setText(text)
        self.label.setVisible(bool(text))

    def fail(self, error: Exception) -> None:
        """Tell the user what is wrong, with a traceback only where it is our fault."""
        self._outcome = State.FAILED
        self.say(in_words(error))
        if not self.working:
            self._show(State.FAILED)
        self.failed.emit(in_words(error))
        if isinstance(error, (RVAEError, MemoryError)):
            show_error(in_words(error))
        else:
            notification_manager.receive_error(type(error), error, error.__traceback__)

    def _show(self, state: State) -> None:
        self.state = state
        self.start_button.setEnabled(state not in _BUSY)
        self.keep_button.setEnabled(state is State.WORKING)
        given_up = self._job is None or self._job.abort_requested
        self.cancel_button.setEnabled(state in _BUSY and not given_up)
        self.progress_bar.setVisible(state in _BUSY)
        self.state_changed.emit(state)

    def _on_progressed(self, fraction: float, text: str, seconds_left: float | None) -> None:
        if self._job is None or self._job.abort_requested or self._bar is None:
            return
        step = round(_STEPS * min(max(fraction, 0.0), 1.0))
        self.progress_bar.setValue(step)
        elapsed = time.monotonic() - self._started
        if seconds_left is None and elapsed > 1 and 0.02 < fraction < 1:
            seconds_left = elapsed * (1 - fraction) / fraction
        self.say(text if seconds_left is None else f"{text} · {duration(seconds_left)} left")
        self._bar.update(step - self._bar.n)  # handles events, so the result may be shown before it returns

    def _on_reported(self, thing: Any) -> None:
        if self.working:
            self._report(thing)

    def _on_returned(self, value: Any) -> None:
        self.say("")
        try:
            self._result(value)
        except Exception as error:  # shown to the user; the dock stays usable
            self.fail(error)

    def _on_errored(self, error: Exception) -> None:
        self.fail(error)

    def _on_aborted(self) -> None:
        self._outcome = State.READY
        self.say("Cancelled; nothing was changed.")

    def _on_finished(self) -> None:
        if self._job is not None:
            self.destroyed.disconnect(self._job.quit)
            self._job._bar = None
        self._job = self._bar = None
        self.progress_bar.setValue(0)
        self._slow_spinner(100)
        self._result = self._report = _ignore
        self._show(self._outcome)
        self.done.emit()


class Latest(QObject):
    """Runs only the latest of many requests, in a thread, after a moment without new ones."""

    failed = Signal(str)

    def __init__(self, parent: QObject) -> None:
        super().__init__(parent)
        self._wanted: tuple[Callable[[], Any], Callable[[Any], None]] | None = None
        self._result: Callable[[Any], None] | None = None
        self._job: Job | None = None
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(_PATIENCE)
        self._timer.timeout.connect(self._start)

    def request(self, function: Callable[[], Any], result: Callable[[Any], None]) -> None:
        """Ask for a function to be called in a thread and for its result, unless something newer comes."""
        self._wanted = function, result
        self._timer.start()

    def forget(self) -> None:
        """Ask for nothing any more."""
        self._wanted = self._result = None
        self._timer.stop()

    def _start(self) -> None:
        if self._job is not None or self._wanted is None:
            return
        function, self._result = self._wanted
        self._wanted = None
        self._job = create_worker(lambda _: function(), _worker_class=Job, _start_thread=False, _ignore_errors=True)
        self._job.returned.connect(self._on_returned)
        self._job.errored.connect(self._on_errored)
        self._job.finished.connect(self._on_finished)
        self._job.start()

    def _on_returned(self, value: Any) -> None:
        if self._result is not None and self._wanted is None:
            self._result(value)

    def _on_errored(self, error: Exception) -> None:
        self.failed.emit(in_words(error))

    def _on_finished(self) -> None:
        self._job = None
        if self._wanted is not None:
            self._timer.start()


def in_words(error: Exception) -> str:
    """Say what went wrong.

    Parameters
    ----------
    error : Exception
        Any error.

    Returns
    -------
    str
        A sentence.
    """
    if isinstance(error, MemoryError):
        return f"There is not enough memory: crop the image or close other programs. {error}".strip()
    return str(error) if isinstance(error, RVAEError) else f"Failed with {type(error).__name__}: {error}"


def duration(seconds: float) -> str:
    """Put a time into words.

    Parameters
    ----------
    seconds : float
        Any time.

    Returns
    -------
    str
        Such as "8 s", "3 min" or "2.5 h".
    """
    if seconds < 90:
        return f"{max(round(seconds), 1)} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _ignore(_: Any) -> None:
    return None
