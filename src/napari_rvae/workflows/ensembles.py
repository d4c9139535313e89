"""The models of a workflow: a single one, or an ensemble whose members learn from different parts of the patches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from napari_rvae.errors import InputDataError, SettingsError, Stopped
from napari_rvae.models.conditions import Condition
from napari_rvae.settings import TrainSettings
from napari_rvae.training.reports import Earlier
from napari_rvae.workflows.steps import scaled

if TYPE_CHECKING:
    from napari_rvae.models import Model
    from napari_rvae.patches import Patches, Progress, Stop
    from napari_rvae.training import TrainingReport
    from napari_rvae.training.checkpoints import Checkpoint

SHARE = 0.5
"""Of the patches, from which every member but the first learns: what it learns depends on which ones as much as if as
many as there are had been drawn with replacement (Buja & Stuetzle, Statistica Sinica 16, 323 (2006))."""
_CURVE = ["epoch", "loss", "held_out"]


def train_ensemble(
    patches: Patches,
    settings: TrainSettings | None = None,
    *,
    labels: NDArray[Any] | None = None,
    condition: Any = None,
    clean: Patches | None = None,
    progress: Progress | None = None,
    stop: Stop | None = None,
    keep: Stop | None = None,
    report: Callable[[TrainingReport], None] | None = None,
    checkpoint: Checkpoint | None = None,
    earlier: Earlier | None = None,
    look_every: float | None = None,
) -> tuple[Model, pd.DataFrame]:
    """Train as many members as the settings say, one after the other.

    The first learns from all patches, as a single model does; the others learn from a random half each. They start from
    the kinds of the first, averaged anew from their own patches: they may disagree on who belongs to which kind, not on
    which kinds there are.

    Parameters
    ----------
    patches : Patches
        What is learned from; leave out patches that reach over the edge.
    settings : TrainSettings, optional
        Of every member; its seed is that of the first one, the others follow.
    labels, condition : ndarray, optional
        As for `napari_rvae.training.train`, one per patch.
    clean : Patches, optional
        As for `napari_rvae.training.train`.
    progress, stop : callable, optional
        ``progress(fraction, text)`` is told how far it is; ``stop()`` is asked whether to give up.
    keep : callable, optional
        Asked whether to end early: the members that are done are used, or what the first one has learned so far.
    report : callable, optional
        Handed every report of the training.
    checkpoint, earlier, look_every : optional
        As for `napari_rvae.training.train`.

    Returns
    -------
    model : Model
        The first member, with the others in ``model.members``.
    losses : DataFrame
        ``epoch``, ``loss``, ``held_out`` of the first member.

    Raises
    ------
    RVAEError
        Whatever training raises.
    Stopped
        If `stop` said so.
    """
    settings, earlier = settings or TrainSettings(), earlier or Earlier()
    before = [earlier, *(earlier.members or ())]
    labels = None if labels is None else np.asarray(labels)
    known = None if condition is None else Condition.of(condition, len(patches))
    count = settings.members if earlier.members is None else len(before)
    parts = _parts(settings, count, len(patches), labels)
    models: list[Model] = []
    curve = pd.DataFrame(columns=_CURVE)
    for number, rows in enumerate(parts):
        if models and keep is not None and keep():
            break
        one = settings.model_copy(update={"seed": settings.seed + number, "members": 1})
        part = patches if number == 0 else patches.select(rows)
        labeled = None if labels is None else labels[rows]
        told_of = None if known is None else known[rows]
        given = [labeled, None if told_of is None else told_of.values]
        copies = clean if clean is None or number == 0 else clean.select(rows)
        made_from = [*given, None if copies is None else copies.data]
        done = None if checkpoint is None else checkpoint.begin(number + 1, part, one, *made_from)
        if done is not None:
            model, losses = done
        else:
            options: dict[str, Any] = {"labels": labeled, "condition": told_of, "checkpoint": checkpoint}
            options |= {
                "clean": copies,
                "look_every": look_every,
                "earlier": dict(enumerate(before)).get(number),
                "like": models[0] if models else None,
            }
            told = scaled(progress, number / count, (number + 1) / count)
            try:
                model, losses = _trained(part, one, (number + 1, count), told, stop, keep, report, **options)
            except Stopped:
                if not models or (stop is not None and stop()):
                    raise
                break  # before the next one had begun to learn
            if number > 0 and "stopped_after" in model.recipe:
                break  # half trained, it would differ from the others for no good reason
            if checkpoint is not None and count > 1:
                checkpoint.finish(model, losses, part, *made_from)
        if number == 0:
            curve = pd.DataFrame(losses, columns=_CURVE)
            model.recipe["losses"] = [list(one) for one in losses]
        models.append(model)
    first, *others = models
    first.members.extend(others)
    notes = [note for model in models for note in model.recipe.get("notes", ())]
    if len(models) < settings.members:
        notes.append(f"Stopped: {len(models)} of {settings.members} members are used.")
    if notes:
        first.recipe["notes"] = list(dict.fromkeys(notes))
    return first, curve


def _parts(settings: TrainSettings, members: int, count: int, labels: NDArray[Any] | None) -> list[NDArray[np.int64]]:
    """What each member learns from: the first from all, the others from a part, with all that is labelled."""
    from napari_rvae.training import FEWEST_PATCHES

    told = np.zeros(count, bool)
    if labels is not None and labels.shape == (count,) and labels.dtype.kind in "iuf":
        told = np.isfinite(labels) if labels.dtype.kind == "f" else labels >= 0
    parts = [np.arange(count)]
    for number in range(1, members):
        order = np.random.default_rng(settings.seed + number).permutation(count)
        chosen = np.zeros(count, bool)
        chosen[order[: max(round(SHARE * count), FEWEST_PATCHES)]] = True
        parts.append(np.flatnonzero(chosen | told))
    fewest = min(map(len, parts))
    if settings.family in ("joint", "semi") and fewest < (settings.classes or 0) <= count:
        raise SettingsError(
            f"Members of an ensemble learn from half of the patches each, {fewest} at the fewest: set at most {fewest} "
            f"classes, not {settings.classes} (--classes), or 1 member."
        )
    return parts


def _trained(
    patches: Patches,
    settings: TrainSettings,
    which: tuple[int, int],
    progress: Progress | None,
    stop: Stop | None,
    keep: Stop | None,
    report: Callable[[TrainingReport], None] | None,
    **options: Any,
) -> tuple[Model, Sequence[Any]]:
    from napari_rvae.training import train

    def ends() -> bool:
        return (stop is not None and stop()) or (keep is not None and keep())

    model: Model | None = None
    losses: Sequence[Any] = ()
    words = f"Member {which[0]} of {which[1]}: " if which[1] > 1 else ""
    with closing(train(patches, settings, stop=ends, **options)) as reports:
        for one in reports:
            if stop is not None and stop():
                raise Stopped("Stopped while training; nothing was kept.")
            model, losses = one.model, one.losses
            if which[0] > 1 and one.phase == "finishing" and model is not None and "stopped_after" in model.recipe:
                break  # it is not used
            if report is not None:
                report(replace(one, member=which[0], members=which[1]))
            if progress is not None:
                share = 0.1 + 0.8 * one.epoch / max(one.epochs, 1)
                share = {"averages": 0.0, "finishing": 0.9, "done": 1.0}.get(one.phase, share)
                progress(share, words + one.message)
    if model is None:
        raise InputDataError("the training gave no model")
    return model, losses
