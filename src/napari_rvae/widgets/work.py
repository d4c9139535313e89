"""A row that shows work in a thread: progress, time left, a way to stop, and one place for what goes wrong."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from typing import Any

from napari.qt.threading import create_worker
from napari.utils import cancelable_progress
from napari.utils.notifications import notification_manager, show_error
from qtpy.QtCore import Qt, QTimer, Signal
from qtpy.QtWidgets import QHBoxLayout, QLabel, QProgressBar, QPushButton, QVBoxLayout, QWidget

from napari_rvae.errors import RVAEError, in_words
from napari_rvae.widgets.jobs import Job

_STEPS = 1000  # of a progress bar
_SPINNER = 5  # % of its speed: where no graphics card draws, each turn costs a tenth of a second of a processor
_BREATH = 20  # ms between two things that are told, in which the window answers


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


@dataclass
class _Running:
    """A job, and the row that shows it: another one, once it was handed over."""

    title: str
    job: Job
    row: WorkRow | None
    bar: Any  # in napari's activity dock
    result: Callable[[Any], Any]
    report: Callable[[Any], None]
    waits: bool  # for its end when it is cancelled
    started: float
    origin: float | None = 0.0  # of its fraction, where the row began with it
    _told: deque[tuple[str, Any]] = field(default_factory=deque)
    _turn: QTimer = field(default_factory=QTimer)
    _telling: bool = False

    def __post_init__(self) -> None:
        self._turn.setSingleShot(True)
        self._turn.timeout.connect(self._tell_next)

    def tell(self, slot: str, *values: Any, first: bool = False) -> None:
        """Pass on what the job tells, one thing at a time: in between the window draws and answers."""
        if self.row is None:  # nobody listens any more
            return
        (self._told.appendleft if first else self._told.append)((slot, values))
        if not self._telling:
            self._turn.start(_BREATH)

    def _tell_next(self) -> None:
        slot, values = self._told.popleft()
        self._telling = True  # napari's progress handles events
        try:
            getattr(self.row, slot)(*values)
        finally:
            self._telling = False
            if self._told:
                self._turn.start(_BREATH)

    def forget_row(self, _: Any = None) -> None:
        """Stop telling."""
        self.row = None
        self._told.clear()
        self._turn.stop()


class WorkRow(QWidget):
    """The button that starts the work, the ones that end it, a progress bar and a line of text.

    Parameters
    ----------
    start_text : str
        What the button does; none when empty, where only what others hand over is shown.
    keep_text : str
        Of a second button that ends the work early with a result; none when empty.
    heir : WorkRow, optional
        Sees a job to its end that was told to end early and only works out what is kept, see `settles`.
    """

    start_clicked = Signal()
    state_changed = Signal(object)
    failed = Signal(str)  # what went wrong
    handed_over = Signal()  # comes before `done`
    done = Signal()  # succeeded, failed, cancelled or handed over: ready again

    def __init__(self, start_text: str, keep_text: str = "", heir: WorkRow | None = None) -> None:
        super().__init__()
        self.state = State.READY
        self._heir, self._settles = heir, False
        self._running: _Running | None = None
        self._outcome = State.DONE  # of the latest job
        self._of_atoms = False  # what the line of text is about
        self.start_button = QPushButton(start_text, self)
        self.start_button.setVisible(bool(start_text))
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
        if start_text:
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
        return self._running is not None

    def run(
        self,
        title: str,
        function: Callable[[Job], Any],
        result: Callable[[Any], Any],
        report: Callable[[Any], None] | None = None,
        prepares: bool = False,
        waits: bool = True,
    ) -> None:
        """Call a function in a thread, unless one is running.

        Parameters
        ----------
        title : str
            What is being done, for napari's activity dock.
        function : callable
            ``function(job)``, run in the thread: no Qt, no napari in it.
        result : callable
            Called in the main thread with what the function returned; a function that it returns itself is called
            after the window has answered.
        report : callable, optional
            Called in the main thread with whatever the function reports.
        prepares : bool
            There is nothing to keep until `begin` is called.
        waits : bool
            For the end of the job when it is cancelled; else it ends unseen, at its next chance.
        """
        if self.working:
            return
        job = create_worker(_Titled(title, function), _worker_class=Job, _start_thread=False, _ignore_errors=True)
        job._bar = cancelable_progress(total=_STEPS, desc=title)
        running = _Running(title, job, None, job._bar, result, report or _ignore, waits, time.monotonic())
        for signal in ("progressed", "reported", "returned", "errored", "aborted"):
            getattr(job, signal).connect(partial(running.tell, f"_on_{signal}"))
        for slot in ("_close_bar", "_on_finished"):
            job.finished.connect(partial(running.tell, slot))
        self._take(running)
        self.say(f"{title}...")
        self._show(State.PREPARING if prepares else State.WORKING)
        self._slow_spinner(_SPINNER)
        job.start()

    def hand_over(self, row: WorkRow) -> None:
        """Let another row see the job to its end; this one is ready for new work at once.

        Parameters
        ----------
        row : WorkRow
            One that is not working.
        """
        running = self._running
        if running is None or row.working:
            return
        self._let_go()
        running.job.handed_over = True
        running.waits, running.origin, running.started = True, None, time.monotonic()
        row._take(running)
        row._show(State.WORKING)
        self._show(State.DONE)
        self.handed_over.emit()
        self.done.emit()

    def settles(self, yes: bool = True) -> None:
        """Tell whether the job only works out what was learned: who ends it early need not wait for that.

        Parameters
        ----------
        yes : bool
            It does, for now.
        """
        self._settles, running = yes, self._running
        if yes and self._heir is not None and running is not None and running.job.kept:
            self.hand_over(self._heir)

    def _take(self, running: _Running) -> None:
        self._running, running.row = running, self
        self._outcome, self._settles = State.DONE, False
        self.destroyed.connect(running.job.quit)
        self.destroyed.connect(running.forget_row)
        self.progress_bar.setValue(0)

    def _let_go(self) -> None:
        if self._running is not None:
            self.destroyed.disconnect(self._running.job.quit)
            self.destroyed.disconnect(self._running.forget_row)
        self._running = None

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
        running = self._running
        if running is None:
            return
        running.job.unwanted = True
        self.leave()
        if not running.waits:
            self._let_go()
            running.forget_row()
            self._on_aborted()
            running.bar.close()
            self._end(running)

    def leave(self) -> None:
        """End the work because its window goes; what can be gone on with is kept."""
        if self._running is not None:
            self._running.job.quit()
            self.say("Cancelling...")
            self._show(State.STOPPING)

    def finish_early(self) -> None:
        """Ask for what there is so far."""
        if self._running is not None:
            self._running.job.finish_early()
            self.say("Stopping; what was learned so far is kept...")
            self._show(State.STOPPING)
            self.settles(self._settles)

    def say(self, text: str, of_atoms: bool = False) -> None:
        """Show a line of text; what is said of the chosen atoms goes when others are chosen."""
        self._of_atoms = of_atoms
        self.label.setText(text)
        self.label.setVisible(bool(text))

    def turn_away(self, _: Any = None) -> None:
        """Say no more what was said of the atoms that were chosen before."""
        if self._of_atoms:
            self.say("")

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
        given_up = self._running is None or self._running.job.abort_requested
        self.cancel_button.setEnabled(state in _BUSY and not given_up)
        self.progress_bar.setVisible(state in _BUSY)
        self.state_changed.emit(state)

    def _on_progressed(self, fraction: float, text: str, seconds_left: float | None) -> None:
        running = self._running
        if running is None or running.job.abort_requested:
            return
        if running.origin is None:
            running.origin = min(fraction, 0.99)
        step = round(_STEPS * min(max(fraction, 0.0), 1.0))
        fraction = (fraction - running.origin) / (1 - running.origin)
        self.progress_bar.setValue(round(_STEPS * min(max(fraction, 0.0), 1.0)))
        elapsed = time.monotonic() - running.started
        if seconds_left is None and elapsed > 1 and 0.02 < fraction < 1:
            seconds_left = elapsed * (1 - fraction) / fraction
        text = text if seconds_left is None else f"{text} · {duration(seconds_left)} left"
        self.say(text)
        running.bar.set_description(f"{running.title}: {text}")  # handles events: the job may be over when it returns
        if self._running is running:
            running.bar.update(step - running.bar.n)  # so does this

    def _on_reported(self, thing: Any) -> None:
        if self._running is not None:
            self._running.report(thing)

    def _on_returned(self, value: Any) -> None:
        self.say("")
        assert self._running is not None
        self._call(partial(self._running.result, value))

    def _call(self, function: Callable[[], Any]) -> None:
        try:
            more = function()
        except Exception as error:  # shown to the user; the dock stays usable
            self.fail(error)
        else:
            if callable(more) and self._running is not None:
                self._running.tell("_call", more, first=True)

    def _on_errored(self, error: Exception) -> None:
        self.fail(error)

    def _on_aborted(self) -> None:
        self._outcome = State.READY
        self.say("Cancelled; nothing was changed.")

    def _close_bar(self) -> None:
        if self._running is not None:
            self._running.bar.close()  # handles events

    def _on_finished(self) -> None:
        running = self._running
        if running is not None:
            self._let_go()
            running.job._bar = None
            if running.job.abort_requested and self._outcome is State.DONE:
                self.say("Cancelled when it was over already.")
            self._end(running)

    def _end(self, running: _Running) -> None:
        running.forget_row()
        running.result = running.report = _ignore  # napari remembers the job
        self.progress_bar.setValue(0)
        self._slow_spinner(100)
        self._show(self._outcome)
        self.done.emit()


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
