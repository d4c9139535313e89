"""Training: a generator of reports that knows nothing of who shows them."""

from __future__ import annotations

from collections.abc import Callable, Generator
from copy import deepcopy
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_rvae.errors import InputDataError, SettingsError, Stopped
from napari_rvae.patches import Patches, Stop
from napari_rvae.settings import TrainSettings
from napari_rvae.threads import threads
from napari_rvae.training.devices import Device, available_devices, choose_device
from napari_rvae.training.physics import physics_term, register_physics
from napari_rvae.training.reports import Earlier, TrainingReport

if TYPE_CHECKING:
    from napari_rvae.averages import Averages
    from napari_rvae.models import Model
    from napari_rvae.models.conditions import Condition
    from napari_rvae.training.checkpoints import Checkpoint
    from napari_rvae.training.course import Course
    from napari_rvae.training.loop import Trainer

__all__ = ["Device", "Earlier", "TrainingReport", "available_devices", "choose_device", "register_physics", "train"]

FEWEST_PATCHES = 10
FEWEST_VALUES = 5


def train(
    patches: Patches,
    settings: TrainSettings | None = None,
    *,
    labels: Any = None,
    condition: Any = None,
    clean: Patches | None = None,
    stop: Stop | None = None,
    checkpoint: Checkpoint | None = None,
    earlier: Earlier | None = None,
    look_every: float | None = None,
    like: Model | None = None,
) -> Generator[TrainingReport, None, None]:
    """Train a model.

    Parameters
    ----------
    patches : Patches
        What it learns from; leave out patches that reach over the edge.
    settings : TrainSettings, optional
        Which model, and how.
    labels : array-like, optional
        For semi-supervised models: (n,) integers, the class of each patch, -1 where it is not known; or (n,) decimal
        numbers, a quantity of each patch, nan where it is not known, which the last latent then tells.
    condition : array-like, DataFrame or Condition, optional
        (n,) or (n, k), known of each patch: for conditional models. Texts, truth values and whole numbers of at most 10
        different values are classes; other numbers are quantities, in any unit.
    clean : Patches, optional
        A copy of each patch without noise, cut at the same place: the encoder sees `patches`, the decoder learns to
        make these. They may be on another scale; what is decoded is on that of `patches`.
    stop : callable, optional
        Asked at every batch whether to stop and keep what was learned so far.
    checkpoint : Checkpoint, optional
        Where the state is kept every half minute. What is kept there already is gone on with, on the same device and
        number of threads, and ends as it would have without the interruption.
    earlier : Earlier, optional
        How a training went that is to be repeated.
    look_every : float, optional
        Seconds between reports with latents and manifold; none by default.
    like : Model, optional
        Trained on patches of the same size: this one starts from the same kinds.

    Yields
    ------
    TrainingReport
        The last one, of the phase ``done``, holds the trained model.

    Raises
    ------
    InputDataError
        If there are too few patches, or they and the settings do not fit together.
    SettingsError
        If the settings lack something.
    DeviceError
        If the device is not there, or its memory is full.
    """
    settings = settings or TrainSettings()
    if len(patches) < FEWEST_PATCHES:
        raise InputDataError(
            f"{len(patches)} patches are too few to learn from: at least {FEWEST_PATCHES} are needed. "
            "Find more atoms, or choose smaller patches so that fewer reach over the edge."
        )
    kind = "" if labels is None else np.asarray(labels).dtype.kind
    measured = settings.family == "semi" and kind == "f"
    if settings.family == "semi" and not settings.classes and kind in ("i", "u"):
        settings = settings.model_copy(update={"classes": max(int(np.max(labels, initial=0)) + 1, 2)})
    if settings.family == "semi" and labels is None:
        raise SettingsError(f"{settings.model} needs labels: give the class of some patches, and -1 for the others.")
    if settings.decoder == "coordinate" and settings.skip:
        raise SettingsError("The coordinate decoder has no residual connections: leave skip out, or decode spectra.")
    if settings.encoder == "dense" and "rotation" in settings.invariances:
        raise SettingsError("A dense encoder tells turned patches apart: leave encoder at auto where angles are free.")
    if settings.family in ("joint", "semi") and not settings.classes and not measured:
        raise SettingsError(f"{settings.model} needs the number of classes: set classes (--classes).")
    if measured:
        settings = settings.model_copy(update={"classes": None})  # the quantity takes the place of classes
    elif settings.family in ("joint", "semi"):
        _check_classes(settings.classes or 0, len(patches))
    if settings.physics:
        physics_term(settings.physics)  # a wrong name is told before patches are averaged
    if clean is not None:
        from napari_rvae.training.denoising import check_clean

        check_clean(patches, clean)
    known, given = _labels(patches, settings, labels), _condition(patches, settings, condition)
    kept = (checkpoint.facts() if checkpoint is not None else None) or {}
    device = choose_device(kept.get("device", settings.device))
    with threads(kept.get("threads", settings.threads)) as count:
        from napari_rvae.training.course import Course
        from napari_rvae.training.looking import Looker
        from napari_rvae.training.memory import explained, release

        def course(trainer: Trainer) -> Course:
            return Course(trainer, stop, checkpoint, None if look_every is None else Looker(look_every), earlier)

        try:
            with explained(device):
                yield from _train(patches, settings, known, given, clean, device, count, stop, course, like)
        finally:
            release(device)


def _train(
    patches: Patches,
    settings: TrainSettings,
    labels: Any,
    condition: Condition | None,
    clean: Patches | None,
    device: str,
    count: int,
    stop: Stop | None,
    course_of: Callable[[Trainer], Course],
    like: Model | None,
) -> Generator[TrainingReport, None, None]:
    from napari_rvae.averages import average, first_step_of
    from napari_rvae.training.finish import finish

    averages = None
    if settings.start == "averages" and settings.invariances and settings.invariances != ("translation",):
        yield TrainingReport("averages", 0, settings.epochs, message="Averaging alike patches")
        start = None if like is None else deepcopy(like.finder)
        try:
            averages = average(
                patches, first_step_of(settings), start=None if start is None else start.cpu(), device=device, stop=stop
            )
        except Stopped:
            raise Stopped("Stopped before there was anything to keep.") from None
        message = f"{len(averages.counts)} kind{'s' * (len(averages.counts) > 1)} of patch"
        yield TrainingReport("averages", 0, settings.epochs, message=message, averages=averages)
    band = None if like is None else like.k_max
    trainer = _started(patches, settings, labels, condition, clean, device, count, band, averages)
    model, course = trainer.model, course_of(trainer)
    yield from course.run(averages)
    yield TrainingReport(
        "finishing", message="Settling poses and frames", model=model, averages=averages, notes=tuple(course.notes)
    )
    finish(trainer, averages)
    course.note_in_recipe()
    done = model.recipe["epochs_done"]
    yield TrainingReport(
        "done", done, settings.epochs, message=f"Trained for {done} epochs", model=model, averages=averages,
        notes=tuple(course.notes), losses=tuple(course.at.losses),
    )  # fmt: skip


def _started(
    patches: Patches,
    settings: TrainSettings,
    labels: Any,
    condition: Condition | None,
    clean: Patches | None,
    device: str,
    count: int,
    band: float | None,
    averages: Averages | None,
) -> Trainer:
    """Model and trainer, ready to learn; their random numbers are their own, and the user's stay as they were."""
    import torch

    from napari_rvae.averages import mean_and_spread
    from napari_rvae.averages.band import signal_band
    from napari_rvae.models import Model
    from napari_rvae.training.loop import Trainer
    from napari_rvae.training.memory import random_state

    channels, size = patches.data.shape[1], patches.data.shape[-1]
    conditions = 0 if condition is None else condition.values.shape[1]
    band = signal_band(patches) if band is None else band
    with torch.random.fork_rng([device] if device.startswith("cuda") else []):
        torch.manual_seed(settings.seed)
        model = Model(settings, size, channels, band, conditions)
        model.recipe = _recipe(patches, settings, device, count)
        if condition is not None:
            model.recipe["condition_columns"] = condition.columns
        if labels is not None and labels.dtype.kind == "f":
            told = labels[np.isfinite(labels)]
            model.recipe["value"] = {"mean": float(told.mean()), "spread": float(told.std())}
            labels = (labels - model.recipe["value"]["mean"]) / model.recipe["value"]["spread"]
        with torch.no_grad():
            mean, spread = mean_and_spread(torch.as_tensor(patches.data))
            model.mean.copy_(mean)
            model.spread.copy_(spread)
        if averages is not None:
            model.set_finder(averages.finder.images, averages.finder.weight)
        model.to(device)
        trainer = Trainer(model, patches, labels, None if condition is None else condition.values, clean)
        if averages is not None:
            trainer.start_from(averages)
        trainer.chance.set_state(random_state(trainer.device))
    return trainer


def _recipe(patches: Patches, settings: TrainSettings, device: str, count: int) -> dict[str, Any]:
    import torch

    try:
        ours = version("napari-rvae")
    except PackageNotFoundError:  # run from a folder that was not installed
        ours = "unknown"
    return {
        "version": ours,
        "torch": torch.__version__,
        "device": device,
        "threads": count,
        "patches": len(patches),
        "patch": patches.settings.model_dump(),
        "step": list(patches.step),
        "normalization": patches.settings.normalization,
        "training": settings.model_dump(),
        **({"physics": physics_term(settings.physics)[1]} if settings.physics else {}),
    }


def _check_classes(classes: int, count: int) -> None:
    if classes == 1:
        raise SettingsError("One class is no choice: set classes to 2 or more, or choose a model without classes.")
    if classes > count:
        raise SettingsError(f"There are {classes} classes for {count} patches: set fewer classes (--classes).")


def _labels(patches: Patches, settings: TrainSettings, labels: Any) -> Any:
    if settings.family != "semi":
        if labels is not None:
            raise SettingsError(f"{settings.model} takes no labels: choose ssvae or ssrvae, or leave the labels out.")
        return None
    known = np.asarray(labels)
    if known.shape == (len(patches),) and known.dtype.kind == "f":
        return _quantity(known)
    if known.shape != (len(patches),) or known.dtype.kind not in "iu":
        raise InputDataError(
            f"Labels must be {len(patches)} integers, one per patch, not {known.dtype} of shape {known.shape}."
        )
    if known.max() >= (settings.classes or 0) or known.min() < -1:
        raise InputDataError(f"Labels must lie between -1 (unknown) and {(settings.classes or 0) - 1}.")
    if (known >= 0).sum() == 0:
        raise InputDataError("All labels are -1: label at least one patch per class, or choose a joint model.")
    if len(np.unique(known[known >= 0])) < 2:
        raise InputDataError("All labels are of one class: label at least one patch of another class, too.")
    _check_copies(patches, known)
    return known.astype(np.int64)


def _check_copies(patches: Patches, labels: Any) -> None:
    """Raise an InputDataError if a patch is said to be of two classes."""
    first: dict[bytes, int] = {}
    for row in np.flatnonzero(labels >= 0):
        same = first.setdefault(patches.data[row].tobytes(), int(row))
        if labels[same] != labels[row]:
            raise InputDataError(
                f"Patches {patches.atom_id[same]} and {patches.atom_id[row]} are the same, but are labelled "
                f"{labels[same]} and {labels[row]}: leave one of them out, or correct its label."
            )


def _quantity(known: Any) -> Any:
    """A quantity, checked."""
    told = known[np.isfinite(known)]
    if len(told) == len(known) and told.min() == -1 and not (told % 1).any():
        raise InputDataError(
            "Labels are decimal numbers, but look like classes with -1 where they are not known: give classes as "
            "integers, or a quantity with nan where it is not known."
        )
    if np.isinf(known).any() or len(told) < FEWEST_VALUES or not told.std() > 0:
        raise InputDataError(
            f"Decimal labels are a quantity: give it for at least {FEWEST_VALUES} patches, not always the same, and "
            "nan where it is not known; give classes as integers."
        )
    return known.astype(np.float32)


def _condition(patches: Patches, settings: TrainSettings, condition: Any) -> Condition | None:
    from napari_rvae.models.conditions import Condition

    if settings.family != "conditional":
        if condition is not None:
            raise SettingsError(f"{settings.model} takes no condition: choose cvae or crvae, or leave it out.")
        return None
    if condition is None:
        raise SettingsError(f"{settings.model} needs a condition: what is known of every patch.")
    return Condition.of(condition, len(patches))


def trained(patches: Patches, settings: TrainSettings | None = None, **options: Any) -> Model:
    """Train to the end and return the model; see `train`.

    Parameters
    ----------
    patches : Patches
        What it learns from.
    settings : TrainSettings, optional
        Which model, and how.
    **options
        As for `train`.

    Returns
    -------
    Model
        Trained.
    """
    report = None
    for report in train(patches, settings, **options):  # noqa: B007
        pass
    assert report is not None  # train has raised otherwise
    assert report.model is not None
    return report.model
