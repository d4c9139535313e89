"""How much patches count that are unlike others: rare kinds are to be learned, too."""

from __future__ import annotations

import torch
from torch import Tensor

HARDER = 16.0
"""How much more, at most, a patch counts that is unlike others, or is drawn while it is not understood."""


def oddness(distance: Tensor) -> Tensor:
    """How much more than others each patch counts, from its distance, (n,); 1 where that is not unusual."""
    middle = distance.median()
    scatter = 1.48 * (distance - middle).abs().median().clamp_min(1e-6)
    return 1 + ((distance - middle) / scatter - 1.5).clamp(0, HARDER)


def shares(rest: Tensor) -> Tensor:
    """What each patch, (n, k), counts among the components to start from, (n,), one in all: rare kinds show in them.

    The odder a patch is in the strongest components, the more it counts; but not the more, the farther off it is.
    """
    scores, strength, _ = torch.svd_lowrank(rest, min(20, *rest.shape))
    energy = (scores * strength).square().sum(1).clamp_min(1e-12)
    share = oddness(energy) / energy.clamp_min(float(energy.median()))
    return share / share.sum()
