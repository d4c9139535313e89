"""What a training tells those who watch it, and is told of an earlier one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from napari_rvae.averages import Averages
    from napari_rvae.models import Model


@dataclass(frozen=True)
class Look:
    """What the model says while it is still learning.

    Attributes
    ----------
    atom_id : numpy.ndarray
        (n,) the atoms whose patches are learned from.
    latents : numpy.ndarray
        (n, latent) their latents.
    manifold : numpy.ndarray
        (rows * D, channels * columns * D) patches decoded on a grid over the first two latents, channels side by side.
    """

    atom_id: NDArray[np.int64]
    latents: NDArray[np.float32]
    manifold: NDArray[np.float32]


@dataclass(frozen=True)
class TrainingReport:
    """How far training is.

    Attributes
    ----------
    phase : str
        ``averages``, ``training``, ``finishing`` or ``done``.
    epoch, epochs : int
        Epochs done, and at most to be done.
    loss : float or None
        Negative evidence lower bound per patch, nats.
    held_out : float or None
        The same for the patches that were held out.
    terms : dict
        Parts of the loss by name.
    rate : float or None
        Patches per second.
    time_left : float or None
        Seconds, at most.
    message : str
        For people.
    model : Model or None
        The model so far; trained in the last report.
    averages : Averages or None
        The class averages that training starts from, once they are there.
    notes : tuple of str
        What went otherwise than was asked for, so far.
    look : Look or None
        Now and then, where it was asked for.
    member, members : int
        Which one of how many, where an ensemble is trained.
    losses : sequence of (int, float, float or None)
        Epoch, loss and that of what was held out, of all epochs so far; of those before an interruption, too.
    """

    phase: Literal["averages", "training", "finishing", "done"]
    epoch: int = 0
    epochs: int = 0
    loss: float | None = None
    held_out: float | None = None
    terms: dict[str, float] = field(default_factory=dict)
    rate: float | None = None
    time_left: float | None = None
    message: str = ""
    model: Model | None = None
    averages: Averages | None = None
    notes: tuple[str, ...] = ()
    look: Look | None = None
    member: int = 1
    members: int = 1
    losses: Sequence[tuple[int, float, float | None]] = ()


@dataclass(frozen=True)
class Earlier:
    """How an earlier training went, which is to be repeated.

    Attributes
    ----------
    stopped_after : int or None
        How often it had asked whether to stop when the user stopped it.
    batches : list of (int, int)
        From which step on there were how many patches per step.
    members : tuple of Earlier or None
        Of the other members of an ensemble, as many as were used; None where as many as the settings say.
    """

    stopped_after: int | None = None
    batches: tuple[tuple[int, int], ...] = ()
    members: tuple[Earlier, ...] | None = None
