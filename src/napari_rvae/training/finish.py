"""What is settled after the last epoch: noise, poses, and one frame for every kind."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_rvae.averages.frames import common_zeros, symmetry_of
from napari_rvae.models.inference import decoder_slope, infer
from napari_rvae.models.left_out import estimated
from napari_rvae.poses import turned_shape
from napari_rvae.threads import at_once
from napari_rvae.training.loop import LEAST_NOISE
from napari_rvae.training.memory import by_halves

if TYPE_CHECKING:
    from napari_rvae.averages import Averages
    from napari_rvae.training.loop import Trainer

_MOST, _EACH = 10_000, 100
"""So many patches tell noise and frames, and at least so many of every kind."""
_SAMPLE = 600
"""Patches from which is estimated how large it is that the model leaves out."""


@torch.no_grad()
def finish(trainer: Trainer, averages: Averages | None) -> None:
    """Estimate poses and noise once more; store each kind's zero angle, shape and symmetry in the model.

    Of very many patches some of every kind tell that.

    Parameters
    ----------
    trainer : Trainer
        After its last epoch.
    averages : Averages or None
        The kinds; without them all patches are one kind.
    """
    model = trainer.model
    trainer.cut_again()
    kind = np.zeros(len(trainer.x), np.int64) if averages is None else averages.table["class"].to_numpy()
    every = _representative(kind)
    kind, values = kind[every], trainer.values
    condition: Tensor | None = trainer.condition

    def settled(rows: Tensor) -> tuple[Tensor, ...]:
        one = infer(
            model,
            trainer.x[rows],
            trainer.shape[rows],
            base=trainer.base[rows],
            theta=trainer.theta[rows],
            window=trainer.window,
            condition=None if condition is None else condition[rows],
            steps=2,
            content=True,  # z as the table will hold it
        )
        return one.theta, one.shape, one.harmonics, one.log_class.argmax(1), one.templates, one.z

    blocks = torch.as_tensor(every, device=trainer.device).split(at_once(500, trainer.device))
    found = [part for rows in blocks for part in by_halves(settled, rows, trainer.device)]
    trainer.crowded |= len(found) > len(blocks)
    theta, shape, harmonics, which_class, templates, z = (torch.cat(part) for part in zip(*found, strict=True))
    if values is not None:
        off = (z[:, -1] - values[every])[values[every].isfinite()]
        model.recipe["value"]["scatter"] = float(off.square().mean().sqrt())
    each = (harmonics - templates).square().mean(0)
    model.noise.copy_(model.space.by_ring(each) / model.space.degrees_of_freedom)
    model.noise.clamp_min_(LEAST_NOISE)
    if condition is not None:  # latents as they will be found, with this noise
        again = [part[-1] for rows in blocks for part in by_halves(settled, rows, trainer.device)]
        model.set_given(torch.cat(again), condition[every])
    some = torch.linspace(0, len(z) - 1, min(len(z), _SAMPLE), device=z.device).long().unique()
    given = None if condition is None else condition[every][some]
    slope = decoder_slope(model, z[some], which_class[some], given)
    model.left_out = estimated(model, harmonics[some], templates[some], slope, theta[some])
    if model.classes > 1:
        kind = which_class.cpu().numpy()
    kinds = max(int(kind.max()) + 1, model.classes)
    own = turned_shape(shape, -theta)
    motif, order, form = [], [], []
    for number in range(kinds):
        rows = torch.as_tensor(np.flatnonzero(kind == number), device=theta.device)
        motif.append(templates[rows if len(rows) else slice(None)].mean(0))
        symmetry = symmetry_of(model.space, motif[-1], model.weight, model.pose_prior, harmonics[rows], templates[rows])
        middle = own[rows].mean(0) if len(rows) else torch.zeros(5, device=theta.device)
        order.append(symmetry.order)
        form.append(torch.where(symmetry.shape.isfinite(), -symmetry.shape, middle))
    angles = theta.cpu().double().numpy()
    zero = common_zeros(model.space, torch.stack(motif), model.weight, angles, kind, np.array(order))
    model.set_frames(
        torch.stack(motif),
        torch.as_tensor(zero, dtype=theta.dtype, device=theta.device),
        torch.stack(form),
        torch.tensor(order, device=theta.device),
    )


def _representative(kind: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows of all patches, or of so many spread over all, and of some of every kind."""
    if len(kind) <= _MOST:
        return np.arange(len(kind))
    spread = np.linspace(0, len(kind) - 1, _MOST).astype(np.int64)
    each = [np.flatnonzero(kind == number)[:_EACH] for number in np.unique(kind)]
    return np.unique(np.concatenate([spread, *each]))
