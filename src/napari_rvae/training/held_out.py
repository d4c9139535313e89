"""Which patches are held out, to tell when a model has learned enough."""

from __future__ import annotations

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from napari_rvae.patches import Patches

SHARE, MOST = 0.1, 1000
"""So many of the patches are held out."""
FEWEST = 200
"""Of fewer patches none is."""


def split(patches: Patches, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Rows held out, by blocks of the image with a gap around them, and rows to learn from.

    Neighbours share pixels: what is learned of one would tell of the other. Ready-made patches, whose places are not
    known, are held out at random.

    Parameters
    ----------
    patches : Patches
        All that there are.
    generator : torch.Generator
        Source of chance.

    Returns
    -------
    held_out, rest : torch.Tensor
        Rows, sorted; of few patches none is held out.
    """
    n = len(patches)
    if n < FEWEST:
        return torch.arange(0), torch.arange(n)
    wanted = min(SHARE * n, MOST)
    if not patches.centers.any():
        order, count = torch.randperm(n, generator=generator), int(wanted)
        return order[:count].sort().values, order[count:].sort().values
    square = patches.centers * [patches.step[1] / patches.step[0], 1]  # as `Patches.size`, in pixels along columns
    place = np.column_stack([patches.frame * 1e6, square])
    held = np.zeros(n, bool)
    tree = cKDTree(place)
    while held.sum() < wanted:  # blocks of about five patches' width
        seed = int(torch.randint(n, (1,), generator=generator))
        near = tree.query_ball_point(place[seed], 2.5 * patches.size)
        near = [row for row in near if not held[row]]
        held[near[: max(1, int(0.05 * n))]] = True
    distance, _ = cKDTree(place[held]).query(place[~held])
    rest = np.flatnonzero(~held)[distance > patches.size / 2]
    if len(rest) < n / 2:
        rest = np.flatnonzero(~held)
    return torch.as_tensor(np.flatnonzero(held)), torch.as_tensor(rest)
