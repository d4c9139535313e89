"""The course of a training: epoch after epoch, with what may come between: a stop, a full memory, a kill."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from napari_rvae.errors import DeviceError, InputDataError
from napari_rvae.training.capacity import capacity_at, growing_until
from napari_rvae.training.memory import is_out_of_memory, release
from napari_rvae.training.reports import Earlier, TrainingReport

if TYPE_CHECKING:
    from napari_rvae.averages import Averages
    from napari_rvae.patches import Stop
    from napari_rvae.training.checkpoints import Checkpoint
    from napari_rvae.training.looking import Looker
    from napari_rvae.training.loop import Trainer

WARM_EPOCHS = 2
"""Epochs in which angles stay near those of the class averages."""
WORTH_WHILE = 0.6
"""What counts as an improvement: nats per patch."""
FEWEST_STEPS, FEWEST_EPOCHS = 700, 18
"""Steps of the optimiser, or epochs, before that is asked: rare kinds are told apart long after losses have settled."""
FEWEST_IN_BATCH = 4
"""Smaller batches are not tried when the memory is full."""
_CROWDED = "The memory was full: poses were found for fewer patches at a time."
_POSE_EPOCHS, _CUT_EPOCHS = (2, 6, 18, 54, 162), (2, 6)
"""After which epochs poses are estimated, and before which of these the windows are cut again."""


@dataclass
class Place:
    """How far a training is: from here it goes on after it was interrupted.

    Attributes
    ----------
    epoch : int
        The present one, from 1.
    part : str
        ``learning`` or ``posing``.
    done : int
        Rows of the present part that are done.
    asked : int
        How often it was asked whether to stop: the same number at the same place in every training.
    batch_size : int
        Patches per step now.
    batches : list of (int, int)
        From which step on there were how many patches per step.
    best, since : float, int
        Lowest loss so far, and how many epochs ago it was.
    fallen : bool
        Whether the step size has fallen.
    end : int
        Last epoch.
    seconds : float
        Spent so far.
    terms : dict
        Parts of the loss of the present epoch, once it is learned.
    losses : list of (int, float, float or None)
        Epoch, loss and that of what was held out, of every epoch that is done.
    """

    end: int
    batch_size: int
    epoch: int = 1
    part: Literal["learning", "posing"] = "learning"
    done: int = 0
    asked: int = 0
    batches: list[tuple[int, int]] = field(default_factory=list)
    best: float = math.inf
    since: int = 0
    fallen: bool = False
    seconds: float = 0.0
    terms: dict[str, float] = field(default_factory=dict)
    losses: list[tuple[int, float, float | None]] = field(default_factory=list)

    def facts(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return asdict(self)


class Course:
    """One run of a trainer, which can be stopped, interrupted and repeated.

    Parameters
    ----------
    trainer : Trainer
        Ready to learn.
    stop : callable, optional
        Asked at every batch whether to stop and keep what was learned so far.
    checkpoint : Checkpoint, optional
        Where the state is kept; what is there already is gone on with.
    looker : Looker, optional
        Looks at the model now and then.
    earlier : Earlier, optional
        To be repeated.
    """

    def __init__(
        self,
        trainer: Trainer,
        stop: Stop | None = None,
        checkpoint: Checkpoint | None = None,
        looker: Looker | None = None,
        earlier: Earlier | None = None,
    ) -> None:
        self.trainer, self.settings = trainer, trainer.settings
        self.earlier = earlier or Earlier()
        batches = list(self.earlier.batches) or [(0, trainer.batch_size)]
        self.at = Place(self.settings.epochs, batches[0][1], batches=batches[:1])
        self.order: Tensor | None = None  # rows of the present epoch
        self.sums = torch.zeros(5, device=trainer.device)  # of the terms, and how many batches
        self.notes: list[str] = []
        self.stopped = False
        self._stop, self._checkpoint, self._looker = stop, checkpoint, looker
        self._good: tuple[int, dict[str, Tensor]] | None = None

    def run(self, averages: Averages | None = None) -> Iterator[TrainingReport]:
        """Train until nothing improves, the epochs are over, or somebody says so.

        Parameters
        ----------
        averages : Averages or None
            Passed on in the reports.

        Yields
        ------
        TrainingReport
            After every epoch.

        Raises
        ------
        InputDataError
            If it becomes unstable before anything is learned.
        DeviceError
            If the memory is full even with the smallest batches.
        """
        trainer, at = self.trainer, self.at
        if self._checkpoint is not None:
            self._checkpoint.restore(self)
            at = self.at
            if at.epoch > 1:
                self._remember(at.epoch - 1)
        while at.epoch <= at.end and not self.stopped:
            start = time.perf_counter()
            if at.epoch > WARM_EPOCHS:
                trainer.window, trainer.labels = None, trainer.known
            trainer.capacity = capacity_at(self.settings, at.epoch)
            if at.part == "learning":
                if not self._learned():
                    break
                at.terms = trainer.epoch_terms(self.sums[:-1] / self.sums[-1])
                at.part, at.done = "posing", 0
            loss = at.terms["data"] + self.settings.beta * at.terms["divergence"] + at.terms["supervised"]
            loss += at.terms.get("physics", 0.0)
            if not (math.isfinite(loss) and trainer.is_finite()):
                self._go_back()
                break
            self._pose()
            held_out = None if at.fallen else trainer.held_out_loss()  # in the end all patches are learned from
            self._judge(loss if held_out is None else held_out)
            self._remember(at.epoch)
            at.losses.append((at.epoch, loss, held_out))
            look = None if self._looker is None else self._looker.look(trainer)
            at.seconds += time.perf_counter() - start
            report = TrainingReport(
                "training", at.epoch, self.settings.epochs, loss, held_out, at.terms,
                at.epoch * len(trainer.train_rows) / at.seconds, (at.end - at.epoch) * at.seconds / at.epoch,
                f"Epoch {at.epoch}", trainer.model, averages, tuple(self.notes), look,
                losses=tuple(at.losses),  # the list goes on to grow
            )  # fmt: skip
            at.epoch, at.part, at.done = at.epoch + 1, "learning", 0
            yield report
        self.note_in_recipe()

    def _ends(self) -> bool:
        """Between two steps: keep what is due, and tell whether training ends here."""
        if self.stopped:
            return True
        asked = self._stop is not None and self._stop()
        self.stopped = asked or self.at.asked + 1 == self.earlier.stopped_after
        if self._checkpoint is not None and (problem := self._checkpoint.keep(self, at_once=asked)):
            self.notes.append(problem)
        self.at.asked += 1
        return self.stopped

    def _learned(self) -> bool:
        """Learn from the rest of the rows of this epoch; False when it was stopped before the end."""
        trainer, at = self.trainer, self.at
        if self.order is None:
            self.order, self.sums = trainer.drawn().to(trainer.device), torch.zeros_like(self.sums)
        whole = trainer.log_prior(self.order) if self.settings.angle_prior else None
        same = trainer.log_prior(self.order[:1])
        while left := len(self.order) - at.done:
            if at.done and left < at.batch_size / 2:
                break  # what a short last batch holds comes first in another epoch's order
            if self._ends():
                return False
            self._resize()
            some = slice(at.done, at.done + at.batch_size)
            terms = self._step(self.order[some], same if whole is None else whole[some])
            if terms is None:
                at.asked -= 1  # a repetition does not try this in vain
            else:
                self.sums[:-1] += terms
                self.sums[-1] += 1
                at.done += len(self.order[some])
        self.order = None
        return True

    def _step(self, rows: Tensor, log_prior: Tensor) -> Tensor | None:
        """One step; None, and smaller batches from now on, where the memory is full."""
        trainer, at = self.trainer, self.at
        chance = trainer.chance.get_state()
        try:
            return trainer.step(rows, log_prior)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            if at.batch_size // 2 < FEWEST_IN_BATCH:
                raise DeviceError(
                    f"The memory of {trainer.device} is full even with {at.batch_size} patches per step: "
                    "choose smaller patches or the processor, or close other programs."
                ) from error
        trainer.optimizer.zero_grad(set_to_none=True)
        release(trainer.device)
        trainer.chance.set_state(chance)
        at.batch_size //= 2
        at.batches.append((trainer.steps, at.batch_size))
        self.notes.append(f"The memory was full: went on with {at.batch_size} patches per step.")
        return None

    def _resize(self) -> None:
        """Take the batches of the training that is repeated."""
        for step, size in self.earlier.batches[1:]:
            if step == self.trainer.steps and (step, size) not in self.at.batches:
                self.at.batch_size = size
                self.at.batches.append((step, size))

    def _pose(self) -> None:
        at = self.at
        if at.epoch not in _POSE_EPOCHS:
            return
        if at.epoch in _CUT_EPOCHS and at.done == 0:
            self.trainer.cut_again()
            at.best = math.inf  # of other pixels

        def ends(done: int) -> bool:
            at.done = done
            return self._ends()

        self.trainer.update_poses(ends, at.done)
        self._note_crowded()

    def _judge(self, loss: float) -> None:
        """See whether it still improves, and else when it is to end."""
        trainer, at = self.trainer, self.at
        if loss < at.best - WORTH_WHILE:
            at.best, at.since = loss, 0
        else:
            at.since += 1
        enough = trainer.steps >= FEWEST_STEPS or at.epoch >= FEWEST_EPOCHS
        enough = enough and self.settings.early_stopping and at.epoch >= growing_until(self.settings)
        if enough and not at.fallen and (at.since >= self.settings.patience or at.epoch > 0.75 * self.settings.epochs):
            # what was held out has told when to stop: the rest is learned from everything
            at.fallen, at.end = True, min(self.settings.epochs, at.epoch + max(4, at.epoch // 3))
            trainer.slow_down()

    def _remember(self, epoch: int) -> None:
        """Keep what is good, for the case that the next epoch is not."""
        self._good = epoch, self.trainer.snapshot()

    def _go_back(self) -> None:
        if self._good is None:
            advice = "lower the learning rate, or check the patches for outliers."
            raise InputDataError(f"Training became unstable: {advice}")
        self.notes.append(
            f"Training became unstable in epoch {self.at.epoch}: the model of epoch {self._good[0]} was kept. "
            "Lower the learning rate, or check the patches for outliers."
        )
        self.trainer.go_back(self._good[1])

    def _note_crowded(self) -> None:
        if self.trainer.crowded and _CROWDED not in self.notes:
            self.notes.append(_CROWDED)

    def note_in_recipe(self) -> None:
        """Let the model say how it was trained; once more when it is finished, for what happened until then."""
        self._note_crowded()
        recipe, at = self.trainer.model.recipe, self.at
        recipe["epochs_done"] = self._good[0] if self._good is not None else 0
        recipe["batch_size"] = at.batch_size
        recipe["batches"] = [list(pair) for pair in at.batches]
        if self.stopped:
            recipe["stopped_after"] = at.asked
        if self.notes:
            recipe["notes"] = list(self.notes)
