"""A function in a thread: how far it is, how it is stopped, what became of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Event
from typing import Any

from napari.qt.threading import WorkerBase, WorkerBaseSignals, create_worker
from qtpy.QtCore import QObject, QTimer, Signal

from napari_rvae.errors import Stopped, in_words, let_go

_BETWEEN_REPORTS = 0.4  # s; where no graphics card draws, each costs a tenth of a second of a processor
_PATIENCE = 100  # ms without a new request before the work begins
_LONG = 5.0  # s after which work is given up for newer work; sooner, little would be seen while a slider moves


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
        self.handed_over = False  # what is kept is worked out while the user does something else

    def run(self) -> None:
        """Run as superqt's workers do, but leave it to the window what the program does with warnings.

        They exchange that for all threads, and whoever of two ends last brings back what the other one has set.
        """
        self.started.emit()
        self._running = True
        try:
            result = self.work()
            if not self.abort_requested:
                self.returned.emit(result)
        except Exception as error:
            self.errored.emit(error)
        self._running = False
        self.finished.emit()
        self._finished.emit(self)

    def work(self) -> Any:
        """Run the function; called by `run`, in the thread."""
        try:
            return self._function(self)
        except Stopped:
            self.quit()
            self.aborted.emit()
            return None
        except Exception as error:
            let_go(error)  # napari remembers it
            raise

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

    def finish_early(self) -> None:
        """Ask for what there is so far."""
        self._keep.set()

    @property
    def kept(self) -> bool:
        """Whether the user wants what there is so far, and has not given it up since."""
        return self._keep.is_set() and not self.abort_requested

    def finishing_early(self) -> bool:
        """Whether the user wants what there is so far."""
        return self._keep.is_set() or self.stop()


class Latest(QObject):
    """Runs only the latest of many requests, in a thread, after a moment without new ones.

    Parameters
    ----------
    parent : QObject
        Whose life it shares.
    live : bool
        Begin at once, and give results even where something newer is asked for already: for what follows a slider.
    """

    failed = Signal(str)

    def __init__(self, parent: QObject, live: bool = False) -> None:
        super().__init__(parent)
        self._live = live
        self._wanted: tuple[Callable[[], Any], Callable[[Any], None]] | None = None
        self._result: Callable[[Any], None] | None = None
        self._job: Job | None = None
        self._started = 0.0
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(0 if live else _PATIENCE)
        self._timer.timeout.connect(self._start)

    def request(self, function: Callable[[], Any], result: Callable[[Any], None]) -> None:
        """Ask for a function to be called in a thread and for its result, unless something newer comes."""
        self._wanted = function, result
        self._timer.start()

    def forget(self) -> None:
        """Ask for nothing any more."""
        self._wanted = self._result = None
        self._timer.stop()

    def outdated(self) -> bool:
        """Whether the function need not go on: nobody waits for it, or something newer while it takes long."""
        newer = self._wanted is not None and time.monotonic() - self._started > _LONG
        return self._result is None or newer

    def _start(self) -> None:
        if self._job is not None or self._wanted is None:
            return
        function, self._result = self._wanted
        self._wanted = None
        self._started = time.monotonic()
        self._job = create_worker(lambda _: function(), _worker_class=Job, _start_thread=False, _ignore_errors=True)
        self._job.returned.connect(self._on_returned)
        self._job.errored.connect(self._on_errored)
        self._job.finished.connect(self._on_finished)
        self._job.start()

    def _on_returned(self, value: Any) -> None:
        if self._result is not None and (self._live or self._wanted is None):
            self._result(value)

    def _on_errored(self, error: Exception) -> None:
        if self._result is not None and self._wanted is None:
            self.failed.emit(in_words(error))

    def _on_finished(self) -> None:
        self._job = None
        if self._wanted is not None:
            self._timer.start()
