"""The offer to go on with a training that was interrupted."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from napari_rvae.widgets.jobs import Latest
from napari_rvae.widgets.work import WorkRow

if TYPE_CHECKING:
    from napari_rvae.workflows.interrupted import KeptTraining


class ResumeRow(QWidget):
    """One line for the latest training that was interrupted, with what can be done about it; hidden without one.

    Parameters
    ----------
    work : WorkRow
        While it works, nothing is offered.
    """

    resumed = Signal(object)  # the KeptTraining

    def __init__(self, work: WorkRow) -> None:
        super().__init__()
        self.kept: KeptTraining | None = None
        self._work = work
        work.state_changed.connect(self._offer)
        self.label = QLabel()
        self.label.setWordWrap(True)
        self.resume_button = QPushButton("Resume")
        self.resume_button.setToolTip("<p>Open its image and atoms, and train on to the same end.</p>")
        self.resume_button.clicked.connect(self._resume)
        self.discard_button = QPushButton("Discard")
        self.discard_button.setToolTip("<p>Forget what was learned.</p>")
        self.discard_button.clicked.connect(self._discard)
        self.latest = Latest(self)
        buttons = QHBoxLayout()
        buttons.addWidget(self.resume_button)
        buttons.addWidget(self.discard_button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.label)
        layout.addLayout(buttons)
        self.hide()

    def look(self, cache: Path | None = None) -> None:
        """Look for interrupted trainings; the answer comes later.

        Parameters
        ----------
        cache : Path, optional
            Where they are kept; by default the user's cache.
        """
        self.latest.request(partial(_found, cache), self._show)

    def _show(self, found: tuple[KeptTraining, str] | None) -> None:
        self.kept, words = found or (None, "")
        self.label.setText(words)
        self._offer()

    def _offer(self, _: Any = None) -> None:
        self.setVisible(self.kept is not None and not self._work.working)

    def _resume(self) -> None:
        if self.kept is not None:
            kept, self.kept = self.kept, None
            self.resumed.emit(kept)

    def _discard(self) -> None:
        if self.kept is not None:
            self.latest.request(partial(_discarded, self.kept), self._show)


def _found(cache: Path | None) -> tuple[Any, str] | None:
    from napari_rvae.workflows.interrupted import cache_folder, interrupted_trainings

    trainings = interrupted_trainings(cache or cache_folder())
    return (trainings[0], trainings[0].in_words()) if trainings else None


def _discarded(kept: KeptTraining) -> tuple[Any, str] | None:
    if kept.claim():
        kept.remove()
    return _found(kept.folder.parent)
