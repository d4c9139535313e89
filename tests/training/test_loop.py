import numpy as np
import pytest
import torch

from napari_rvae.models import Model
from napari_rvae.patches import patches_from_array
from napari_rvae.samples import cards
from napari_rvae.settings import TrainSettings
from napari_rvae.training.loop import HARDER, Trainer, oddness, shares


def test_rare_kinds_have_a_component_of_their_own():
    """Beside two wide spreads of all patches and one impurity that is far off."""
    generator = torch.Generator().manual_seed(0)
    rest = 0.1 * torch.randn(2000, 30, generator=generator)
    rest[:, :2] += torch.randn(2000, 2, generator=generator)
    rest[:20, 2] += 3  # the rare kind
    rest[20:23, 3] += 20
    rest -= rest.mean(0)
    share = shares(rest)
    assert torch.isclose(share.sum(), torch.tensor(1.0))
    told = [torch.linalg.eigh((rest.T * one) @ rest)[1][2, -3:].norm() for one in (share, torch.ones(2000))]
    assert told[0] > 0.9
    assert told[1] < 0.3


def test_what_is_usual_counts_once_and_nothing_counts_without_end():
    distance = torch.cat([torch.linspace(0, 1, 99), torch.tensor([1e6])])
    weight = oddness(distance)
    assert weight[:80].unique().tolist() == [1.0]
    assert float(weight[-1]) == 1 + HARDER
    assert oddness(torch.zeros(5)).tolist() == [1.0] * 5


def moved_to(trainer, device):
    """What a trainer keeps, on another device."""
    trainer.model.to(device)
    for name, value in vars(trainer).items():
        if isinstance(value, torch.Tensor):
            setattr(trainer, name, value.to(device))
    trainer.left = [value.to(device) for value in trainer.left]
    trainer.device = torch.device(device)
    trainer.optimizer = torch.optim.Adam(trainer.model.parameters())


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("vae", {}),
        ("rvae", {"invariance": "rotation,translation,strain,scale", "angle_prior": 20.0}),
        ("rvae", {"decoder": "coordinate"}),
        ("jrvae", {"classes": 2, "class_capacity": 0.5, "latent_capacity": 3.0}),
        ("ssrvae", {"classes": 2}),
        ("crvae", {}),
    ],
)
def test_a_whole_step_stays_on_its_device(name, options):
    patches, label = patches_from_array(cards(1, 60, 16)[0]), np.arange(60) % 2
    model = Model(TrainSettings(model=name, hidden=16, **options), 16, 1, 0.3, 2 if name == "crvae" else 0)
    condition = np.eye(2, dtype=np.float32)[label] if name == "crvae" else None
    trainer = Trainer(model, patches, label if name == "ssrvae" else None, condition)
    moved_to(trainer, "meta")
    rows = torch.empty(20, dtype=torch.int64, device="meta")
    for _ in range(4):  # the fourth learns the noise, too
        terms = trainer.step(rows, trainer.log_prior(rows if options.get("angle_prior") else rows[:1]))
    assert terms.is_meta
    assert all(p.grad is not None and p.grad.is_meta for p in model.parameters())
