"""A look at a model that is still learning: latents of its patches, and the manifold."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import torch

from napari_rvae.training.reports import Look

if TYPE_CHECKING:
    from napari_rvae.training.loop import Trainer

_BLOCK = 2000
_STEPS = 7
_REACH = 2.0  # standard deviations of the latents
_SHARE = 0.02  # of the time that looking may take


class Looker:
    """Looks every few seconds, and less often where looking takes long.

    Parameters
    ----------
    every : float
        Seconds between two looks, at least.
    """

    def __init__(self, every: float) -> None:
        self.every = every
        self._next = time.perf_counter()

    def look(self, trainer: Trainer) -> Look | None:
        """Look, if it is time to.

        Parameters
        ----------
        trainer : Trainer
            Between two epochs.

        Returns
        -------
        Look or None
            None when the last look was a moment ago.
        """
        start = time.perf_counter()
        if start < self._next:
            return None
        seen = _look(trainer)
        now = time.perf_counter()
        self._next = now + max(self.every, (now - start) / _SHARE)
        return seen


@torch.no_grad()
def _look(trainer: Trainer) -> Look:
    model = trainer.model
    z = torch.cat([model.encode(block)[0] for block in trainer.harmonics.split(_BLOCK)])
    center, reach = z.mean(0), _REACH * z.std(0)
    along = torch.linspace(-1, 1, _STEPS, device=z.device)
    down = along if z.shape[1] > 1 else along[:1] * 0
    grid = center.repeat(len(down), _STEPS, 1)
    grid[:, :, 0] += reach[0] * along
    if z.shape[1] > 1:
        grid[:, :, 1] += reach[1] * down[:, None]
    condition = None
    if trainer.condition is not None:
        condition = trainer.condition.mean(0).expand(len(down) * _STEPS, -1)
    images = model.space.synthesise(model.decode(grid.flatten(0, 1), condition)[:, 0])
    rows = images.unflatten(0, (len(down), _STEPS)).permute(0, 3, 2, 1, 4)  # (down, y, channels, along, x)
    tiles = rows.flatten(2).flatten(0, 1)
    return Look(trainer.patches.atom_id, z.cpu().numpy(), tiles.cpu().numpy())
