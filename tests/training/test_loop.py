"""One step of training."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from napari_rvae.models import Model
from napari_rvae.patches import patches_from_array
from napari_rvae.samples import cards
from napari_rvae.settings import TrainSettings
from napari_rvae.training.loop import Trainer

from .conftest import MODELS


def moved_to(trainer, device):
    """What a trainer keeps, on another device."""
    trainer.model.to(device)
    for name, value in vars(trainer).items():
        if isinstance(value, torch.Tensor):
            setattr(trainer, name, value.to(device))
    trainer.device, trainer.chance = torch.device(device), None  # there are no random numbers on the meta device
    trainer.optimizer = torch.optim.Adam(trainer.model.parameters())


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *MODELS,
        ("shiftvae", {"physics": "symmetry-3"}),
        ("rvae", {"physics": "smooth"}),
    ],
)
def test_a_whole_step_stays_on_its_device_and_waits_for_nothing(name, options):
    """On the meta device there is nothing to look at: to read a number there, which waits for it, is an error."""
    patches, label = patches_from_array(cards(1, 60, 16)[0]), np.arange(60) % 2
    patches = replace(patches, centers=np.random.default_rng(0).uniform(0, 100, (60, 2)))
    model = Model(TrainSettings(model=name, hidden=16, **options), 16, 1, 0.3, 2 if name == "crvae" else 0)
    condition = np.eye(2, dtype=np.float32)[label] if name == "crvae" else None
    trainer = Trainer(model, patches, label if name == "ssrvae" else None, condition)
    moved_to(trainer, "meta")
    rows = torch.empty(20, dtype=torch.int64, device="meta")
    for _ in range(4):  # the fourth learns the noise, too
        terms = trainer.step(rows, trainer.log_prior(rows if options.get("angle_prior") else rows[:1]))
    assert terms.is_meta
    assert all(p.grad is not None and p.grad.is_meta for p in model.parameters())
