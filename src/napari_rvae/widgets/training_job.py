"""What the Train dock does in a thread: train with everything kept for a crash."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import pandas as pd
from napari.layers import Image, Points

from napari_rvae.errors import InputDataError, OutputError, Stopped, let_go
from napari_rvae.io import ImageData
from napari_rvae.layers import RECIPE, atoms_table, hashed
from napari_rvae.settings import FindSettings, PatchSettings, TrainSettings
from napari_rvae.widgets.jobs import Job

if TYPE_CHECKING:
    from napari_rvae.models import Model
    from napari_rvae.workflows import Analysis
    from napari_rvae.workflows.interrupted import Inputs, KeptTraining

_PATIENCE = 0.1  # s between two looks at a training that is ending
LOOK_EVERY = 3.0
"""Seconds between two looks at a model that learns, at least."""


class _Turns:
    """One training at a time: another one waits for one that is ending, and is refused beside one that goes on."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._job: Job | None = None

    @contextmanager
    def turn(self, job: Job) -> Iterator[None]:
        while not self._lock.acquire(timeout=_PATIENCE):
            before = self._job
            if before is not None and not before.finishing_early():
                raise InputDataError("Another training is running in this program: wait until it is done, or stop it.")
            if job.stop():
                raise Stopped("Stopped while waiting.")
            job.progress(0.0, "Waiting for the training before to end")
        self._job = job
        try:
            yield
        finally:
            self._job = None
            self._lock.release()


_turns = _Turns()


@dataclass(frozen=True)
class TrainingInputs:
    """The layers that a training is about, and what it takes from them.

    Parameters
    ----------
    image, points : layer
        They may be renamed, moved, edited and removed while it trains.
    source : ImageData
        The image.
    atoms : DataFrame
        Atoms table.
    where : str or None
        Which atoms are chosen.
    find, patch, training : settings
        Of each step.
    clean : ImageData or None
        The image without noise.
    more : sequence of layers
        Further channels of the image.
    """

    image: Image
    points: Points
    source: ImageData
    atoms: pd.DataFrame
    where: str | None
    find: FindSettings = field(default_factory=FindSettings)
    patch: PatchSettings = field(default_factory=PatchSettings)
    training: TrainSettings = field(default_factory=TrainSettings)
    clean: ImageData | None = None
    more: Sequence[Image] = ()
    places: pd.DataFrame = field(init=False)
    _pixels: Any = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "places", atoms_table(self.points))
        object.__setattr__(self, "_pixels", [layer.data for layer in self.channels])

    @property
    def channels(self) -> list[Image]:
        """All layers with pixels that are learned from."""
        return [self.image, *self.more]

    def image_is_same(self) -> bool:
        """Whether the image, and its channels, still show the arrays that were trained on."""
        return all(layer.data is pixels for layer, pixels in zip(self.channels, self._pixels, strict=True))

    def unmoved(self) -> pd.Series:
        """Atoms that are where they were when the training began."""
        axes = [name for name in ("atom_id", "frame", "y", "x") if name in self.places]
        return atoms_table(self.points)[axes].merge(self.places[axes], on=axes)["atom_id"]


def found_with(points: Points) -> FindSettings:
    """Read the settings with which atoms were found.

    Parameters
    ----------
    points : napari.layers.Points
        The atoms.

    Returns
    -------
    FindSettings
        The defaults where they came otherwise.
    """
    recipe = points.metadata.get(RECIPE)
    found = recipe.get("settings", {}).get("find", {}) if isinstance(recipe, dict) else {}
    return FindSettings(**{name: value for name, value in found.items() if name in FindSettings.model_fields})


def trained_in_thread(
    given: TrainingInputs | None, kept: KeptTraining | None, cache: Path | None, job: Job
) -> Analysis:
    """Train, or go on with a training that was interrupted.

    Parameters
    ----------
    given : TrainingInputs or None
        What to train; None to go on.
    kept : KeptTraining or None
        The interrupted training.
    cache : Path or None
        Where trainings are kept; the user's cache when None.
    job : Job
        Is told how far it is and asked whether to stop. It is handed the inputs of an interrupted training, reports,
        and the model once it can be used.

    Returns
    -------
    Analysis

    Raises
    ------
    InputDataError
        If another training is running in this program.
    RVAEError
        Whatever the steps raise.
    """
    try:
        with _turns.turn(job):
            return _trained(given, kept, cache, job)
    except BaseException as error:
        let_go(error)
        _release()
        raise


def _release() -> None:
    """Give back the memory of what has just been let go of."""
    from napari_rvae.training import available_devices
    from napari_rvae.training.memory import release

    for device in available_devices():
        release(device.name)


def _trained(given: TrainingInputs | None, kept: KeptTraining | None, cache: Path | None, job: Job) -> Analysis:
    from napari_rvae.workflows import analyze_image

    inputs, kept, problems = _kept(given, cache) if given is not None else (*_resumed(kept, job), ())
    last: list[Any] = []
    models: list[Model] = []

    def report(one: Any) -> None:
        last[:] = [one]
        job.report(replace(one, notes=(*problems, *one.notes)))

    def progress(fraction: float, text: str) -> None:
        one = last[0] if last and last[0].phase == "training" else None
        left = one.time_left if one and one.members == 1 else None
        job.progress(fraction, _in_words(one) if one else text, left)

    def trained(model: Model) -> None:
        models.append(model)
        job.report(model)

    def stop() -> bool:
        wait = job.handed_over and job.unwanted and not models  # a model that is kept is not given up half done
        return job.stop() and not wait

    try:
        analysis = analyze_image(
            inputs.image, inputs.find, inputs.patch, inputs.training, atoms=inputs.atoms, where=inputs.where,
            clean=inputs.clean,
            progress=progress, stop=stop, keep=job.finishing_early, report=report, trained=trained,
            checkpoint=None if kept is None else kept.checkpoint, look_every=LOOK_EVERY,
        )  # fmt: skip
    except BaseException as error:
        if kept is not None:
            failed = isinstance(error, Exception) and not isinstance(error, Stopped)
            in_vain = failed and kept.facts is None  # it would fail again
            (kept.remove if in_vain or job.unwanted else kept.release)()
        raise
    if kept is not None:
        kept.remove()
    used = analysis.recipe.used
    told = {"used": used | {"notes": [*problems, *used.get("notes", ())]}} if problems else {}
    return replace(analysis, recipe=analysis.recipe.model_copy(update=told))


def _kept(given: TrainingInputs, cache: Path | None) -> tuple[Inputs, KeptTraining | None, Sequence[str]]:
    """Keep what goes in, for a crash; and say why that cannot be."""
    from napari_rvae.workflows.interrupted import Inputs, KeptTraining, cache_folder

    source, clean = hashed(given.source), None if given.clean is None else hashed(given.clean)
    inputs = Inputs(source, given.atoms, given.where, given.find, given.patch, given.training, clean)
    try:
        return inputs, KeptTraining.begin(inputs, cache or cache_folder()), ()
    except OutputError as error:
        return inputs, None, [f"The training is not kept for a crash: {error}."]


def _resumed(kept: KeptTraining | None, job: Job) -> tuple[Inputs, KeptTraining]:
    """Take over what was interrupted."""
    if kept is None or not kept.claim():
        raise InputDataError("The training is running elsewhere by now, or was discarded.")
    inputs = kept.inputs()
    job.report(inputs)
    return inputs, kept


def _in_words(report: Any) -> str:
    rate = f" · {report.rate:,.0f} patches/s" if report.rate else ""
    which = f"Member {report.member} of {report.members}: epoch" if report.members > 1 else "Epoch"
    return f"{which} {report.epoch} of {report.epochs}{rate}"


@dataclass
class Run:
    """What the dock remembers of a training until its results are there.

    Attributes
    ----------
    inputs : TrainingInputs or None
        Known later where it is one that was interrupted.
    model : Model or None
        Once it can be used.
    recipe : object
        Of the results that the atoms had when the user went on with something else.
    """

    inputs: TrainingInputs | None
    model: Model | None = None
    recipe: Any = None
