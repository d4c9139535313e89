"""The state of a training on disk, from which it goes on after a crash as if nothing had happened."""

from __future__ import annotations

import hashlib
import json
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from napari_rvae.errors import InputDataError, ModelFileError, OutputError
from napari_rvae.io.files import replacing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_rvae.models import Model
    from napari_rvae.patches import Patches
    from napari_rvae.settings import TrainSettings
    from napari_rvae.training.course import Course
    from napari_rvae.training.loop import Trainer

EVERY = 25.0
"""Seconds between two checkpoints, a little less than the half minute of work that may be lost."""
FILE = "state.safetensors"
_FORMAT = 2
_MADE_FROM, _LOSSES = "made_from", "losses"
_WORDS = "The training that was interrupted"
_POSES = ("theta", "shape", "base", "harmonics", "misfit", "often", "noise")


class Checkpoint:
    """Keeps the state of one training in a file that is whole at every moment; of an ensemble, one member's.

    The models of the members that are done lie beside it.

    Parameters
    ----------
    folder : Path
        Where the file is, or will be.
    every : float, optional
        Seconds between two states; `EVERY` by default.
    """

    def __init__(self, folder: Path, every: float | None = None) -> None:
        self.file, self._member = folder / FILE, 1
        self._every = EVERY if every is None else every
        self._failed, self._made_from = False, ""
        self._next = time.perf_counter() + self._every

    def facts(self) -> dict[str, Any] | None:
        """Read how far the training is that is kept here.

        Returns
        -------
        dict or None
            ``epoch``, ``epochs``, ``member``, ``device``, ``threads`` and what only `restore` needs; None where there
            is nothing that can be read.
        """
        state = _header(self.file)
        if state is not None:
            return state
        done = [number for number in range(1, 101) if self._model_file(number).is_file()]
        if not done:
            return None
        file = self._model_file(done[-1])
        return {"epoch": 0, "epochs": 0, "member": done[-1] + 1, "time": file.stat().st_mtime}

    def begin(
        self, member: int, patches: Patches, settings: TrainSettings, *given: Any
    ) -> tuple[Model, Sequence[Any]] | None:
        """Turn to a member of an ensemble.

        Parameters
        ----------
        member : int
            From 1.
        patches, settings, *given
            What it is made from.

        Returns
        -------
        tuple or None
            The member and its losses, as in a report, if it was done before the interruption.

        Raises
        ------
        InputDataError
            If it was made from other patches or settings, or its file is damaged.
        """
        from napari_rvae.models import load_model

        self._member, self._made_from = member, ""
        file = self._model_file(member)
        if not file.is_file():
            return None
        try:
            model = load_model(file)
        except ModelFileError as error:
            raise InputDataError(f"{_WORDS} cannot be gone on with, its file is damaged: start anew.") from error
        if model.recipe.pop(_MADE_FROM, "") != _digest(patches.data, settings, *given):
            raise InputDataError(f"{_WORDS} was made from other patches or with other settings: start anew.")
        return model, model.recipe.pop(_LOSSES, [])

    def finish(self, model: Model, losses: Sequence[Any], patches: Patches, *given: Any) -> None:
        """Keep a member that is done; where that fails it would have to be trained again.

        Parameters
        ----------
        model : Model
            The member to which `begin` has turned.
        losses
            Of its epochs, as in a report.
        patches, *given
            What it is made from.
        """
        model.recipe |= {_MADE_FROM: _digest(patches.data, model.settings, *given), _LOSSES: list(losses)}
        with suppress(OutputError):
            model.save(self._model_file(self._member))
        del model.recipe[_MADE_FROM], model.recipe[_LOSSES]

    def _model_file(self, member: int) -> Path:
        return self.file.with_name(f"member-{member}.safetensors")

    def keep(self, course: Course, at_once: bool = False) -> str:
        """Write the state, if it is time to.

        Parameters
        ----------
        course : Course
            Between two steps.
        at_once : bool
            Whether or not it is time.

        Returns
        -------
        str
            What is wrong where it cannot be written; empty else, and the second time.
        """
        start = time.perf_counter()
        if start < self._next and not at_once:
            return ""
        problem = ""
        try:
            self._write(course)
        except OutputError as error:
            problem = "" if self._failed else f"The training is not kept for a crash: {error}."
            self._failed = True
        took = time.perf_counter() - start
        self._next = start + max(self._every, 2 * took if took > 1 else 0)  # however slow the disk, half is for work
        return problem

    def _write(self, course: Course) -> None:
        from safetensors.torch import save

        trainer = course.trainer
        self._made_from = self._made_from or _fingerprint(trainer)
        facts = {
            "format": _FORMAT,
            "time": time.time(),
            "epoch": course.at.epoch - 1,
            "epochs": course.settings.epochs,
            "member": self._member,
            "device": trainer.model.recipe.get("device", "auto"),
            "threads": trainer.model.recipe.get("threads"),
            "made_from": self._made_from,
            "place": asdict(course.at),
            "steps": trainer.steps,
            "lefts": trainer.lefts,
            "rates": [group["lr"] for group in trainer.optimizer.param_groups],
            "notes": course.notes,
        }
        tensors = {name: value.detach().cpu().contiguous() for name, value in _tensors(course).items()}
        with replacing(self.file) as place:
            place.write_bytes(save(tensors, {"napari_rvae": json.dumps(facts)}))

    def restore(self, course: Course) -> None:
        """Go on where the training that is kept here was, if there is one.

        Parameters
        ----------
        course : Course
            At its very beginning, made from the same patches and settings.

        Raises
        ------
        InputDataError
            If it was made from other patches or settings, or the file is damaged.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        facts = _header(self.file)
        if facts is None:
            return
        if facts.get("member", 1) != self._member:
            return  # the state of one that is done
        trainer = course.trainer
        if facts.get("made_from") != _fingerprint(trainer):
            raise InputDataError(f"{_WORDS} was made from other patches or with other settings: start anew.")
        try:
            tensors = {name: value.to(trainer.device) for name, value in load_file(self.file).items()}
            _restore(course, tensors, facts)
        except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise InputDataError(f"{_WORDS} cannot be gone on with, its file is damaged: start anew.") from error
        moved = trainer.base[:, :2].ne(0).any(1).nonzero()[:, 0]
        if trainer.patches.cut is not None and len(moved):
            trainer.cut_windows(moved)

    def remove(self) -> None:
        """Forget the training; it is over, or not wanted."""
        for file in (self.file, *self.file.parent.glob("member-*.safetensors")):
            file.unlink(missing_ok=True)


def _header(file: Path) -> dict[str, Any] | None:
    """What a state says of itself; None where there is none that can be read."""
    from safetensors import SafetensorError, safe_open

    if not file.is_file():
        return None
    try:
        with safe_open(file, framework="pt") as opened:
            facts = json.loads(opened.metadata()["napari_rvae"])
    except (SafetensorError, OSError, ValueError, KeyError, TypeError):
        return None
    return facts if isinstance(facts, dict) and facts.get("format") == _FORMAT else None


def _tensors(course: Course) -> dict[str, Tensor]:
    trainer = course.trainer
    model = trainer.model.state_dict()
    tensors = {f"model.{name}": value for name, value in model.items() if not name.startswith("_finder.")}
    for number, state in trainer.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{number}.{name}": torch.as_tensor(value) for name, value in state.items()}
    tensors |= {f"trainer.{name}": getattr(trainer, name) for name in _POSES}
    if trainer.clean is not None:
        tensors["clean"] = trainer.clean.harmonics
    tensors |= {"generator": trainer.generator.get_state(), "chance": trainer.chance.get_state()}
    tensors |= {"left": trainer.left, "sums": course.sums}
    return tensors if course.order is None else {**tensors, "order": course.order}


def _restore(course: Course, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
    trainer = course.trainer

    def part(name: str) -> dict[str, Tensor]:
        return {key.removeprefix(name): value for key, value in tensors.items() if key.startswith(name)}

    missing, unexpected = trainer.model.load_state_dict(part("model."), strict=False)
    if unexpected or any(not name.startswith("_finder.") for name in missing):
        raise ValueError("model")
    optimizer = trainer.optimizer.state_dict()
    states: dict[int, dict[str, Tensor]] = {}
    for key, value in part("optimizer.").items():
        number, _, name = key.partition(".")
        states.setdefault(int(number), {})[name] = value
    for group, rate in zip(optimizer["param_groups"], facts["rates"], strict=True):
        group["lr"] = rate
    trainer.optimizer.load_state_dict({**optimizer, "state": states})
    for name, value in part("trainer.").items():
        if value.shape != getattr(trainer, name).shape:
            raise ValueError(name)
        setattr(trainer, name, value)
    if trainer.clean is not None:
        trainer.clean.harmonics = tensors["clean"]
    trainer.left, trainer.lefts, trainer.steps = tensors["left"], int(facts["lefts"]), int(facts["steps"])
    trainer.generator.set_state(tensors["generator"].cpu())
    trainer.chance.set_state(tensors["chance"].cpu())
    place = {**facts["place"], "batches": [tuple(pair) for pair in facts["place"]["batches"]]}
    course.at = type(course.at)(**place)
    course.order, course.sums, course.notes = tensors.get("order"), tensors["sums"], list(facts["notes"])
    if course.at.fallen:
        trainer.train_rows = torch.arange(len(trainer.patches))


def _fingerprint(trainer: Trainer) -> str:
    """What went in: the patches, and the settings but for the machine's part in them."""
    told = (trainer.known, trainer.values, trainer.condition)
    known = [None if given is None else given.cpu().numpy() for given in told]
    known.append(None if trainer.clean is None else trainer.clean.data)
    return _digest(trainer.patches.data, trainer.settings, *known)


def _digest(data: Any, settings: TrainSettings, *given: Any) -> str:
    digest = hashlib.sha256(np.ascontiguousarray(data).data)
    digest.update(json.dumps(settings.model_dump(mode="json", exclude={"device", "threads"}), sort_keys=True).encode())
    for values in given:
        if values is not None:
            digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()
