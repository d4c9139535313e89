"""An ensemble: the same model trained from several seeds."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from napari_rvae.errors import SettingsError, Stopped
from napari_rvae.settings import TrainSettings
from napari_rvae.workflows.steps import scaled

if TYPE_CHECKING:
    from napari_rvae.models import Model
    from napari_rvae.patches import Patches, Progress, Stop


@dataclass(frozen=True)
class Ensemble:
    """Members, and what they say together.

    Attributes
    ----------
    models : tuple of Model
        The trained members.
    table : DataFrame
        Mean and dispersion, see `napari_rvae.latent.combine`.
    notes : tuple of str
        What went otherwise than was asked for: members that were not trained.
    """

    models: tuple[Model, ...]
    table: pd.DataFrame
    notes: tuple[str, ...] = ()


def train_ensemble(
    patches: Patches,
    settings: TrainSettings | None = None,
    members: int = 8,
    *,
    labels: Any = None,
    condition: Any = None,
    atoms: pd.DataFrame | None = None,
    progress: Progress | None = None,
    stop: Stop | None = None,
) -> Ensemble:
    """Train the same model from several seeds, one after the other, and combine what they say.

    Parameters
    ----------
    patches : Patches
        All are encoded; those that reach over the edge are not learned from.
    settings : TrainSettings, optional
        Of every member; its seed is that of the first one, the others follow.
    members : int
        How many.
    labels, condition : array-like, optional
        As for `napari_rvae.training.train`, one per patch.
    atoms : DataFrame, optional
        Atoms table, all rows of which are kept.
    progress, stop : callable, optional
        ``progress(fraction, text)`` is told how far it is; ``stop()`` is asked whether to end: the members that are
        done are used, and the notes say so.

    Returns
    -------
    Ensemble

    Raises
    ------
    SettingsError
        If there are fewer than two members.
    RVAEError
        Whatever training raises.
    Stopped
        If `stop` said so before the first member was done.
    """
    from napari_rvae.latent import combine, encode
    from napari_rvae.training import train

    if members < 2:
        raise SettingsError("An ensemble has at least two members: raise their number, or train a single model.")
    settings = settings or TrainSettings()
    inner = ~patches.edge
    chosen = patches if inner.all() else patches.select(inner)
    given = {name: one if one is None else one[inner] for name, one in (("labels", labels), ("condition", condition))}
    models: list[Model] = []
    model: Model | None = None
    tables = []
    for number in range(members):
        told = scaled(progress, number / members, (number + 1) / members)
        try:
            one = settings.model_copy(update={"seed": settings.seed + number})
            with closing(train(chosen, one, stop=stop, **given)) as reports:
                for report in reports:
                    if stop is not None and stop():
                        raise Stopped("Stopped before the first member was trained.")
                    model = report.model
                    if told is not None:
                        share = 0.9 * report.epoch / max(report.epochs, 1)
                        told(share, f"Member {number + 1} of {members}: {report.message}")
            assert model is not None  # train has raised otherwise
            tables.append(encode(model, patches, atoms=atoms, condition=condition, stop=stop))
        except Stopped:
            if not models:
                raise
            break
        models.append(model)
    notes = () if len(models) == members else (f"Stopped: {len(models)} of {members} members are used.",)
    return Ensemble(tuple(models), combine(tables), notes)
