"""Capacities grow as they are told, and draw what latents and classes say after them."""

import math

import pytest
import torch

from napari_rvae.patches import patches_from_array
from napari_rvae.samples import cards
from napari_rvae.settings import TrainSettings
from napari_rvae.training import train
from napari_rvae.training.capacity import capacity_at, growing_until

JOINT = TrainSettings(model="jvae", classes=4, hidden=32, epochs=40, device="cpu", threads=1, seed=1)


@pytest.fixture(scope="module")
def patches():
    return patches_from_array(cards(1, 160, 16)[0])


def test_schedule():
    settings = JOINT.model_copy(update={"latent_capacity": 6.0, "latent_capacity_epochs": 10, "class_capacity": 5.0})
    assert [capacity_at(settings, epoch).latents for epoch in (1, 5, 10, 30)] == pytest.approx([0.6, 3, 6, 6])
    assert capacity_at(settings, 1).classes == pytest.approx(0.25)
    assert capacity_at(settings, 20).classes == pytest.approx(math.log(4))  # four classes have no more to say
    assert growing_until(settings) == 20
    assert capacity_at(JOINT, 3) == (None, None, 1.0)
    assert growing_until(JOINT) == 0
    plain = settings.model_copy(update={"model": "rvae", "beta": 4.0, "beta_epochs": 8})
    assert capacity_at(plain, 2) == (pytest.approx(1.2), None, 1.0)
    assert capacity_at(plain, 9).beta == 4.0
    assert growing_until(plain) == 10
    assert growing_until(JOINT.model_copy(update={"beta_epochs": 8})) == 8


def ended(patches, **update):
    """Epochs, and what latents and classes say in the end, in nats."""
    *_, last = train(patches, JOINT.model_copy(update=update))
    model = last.model
    with torch.no_grad():
        prior = torch.full((len(model.space.theta),), -math.log(len(model.space.theta)))
        harmonics = model.harmonics(torch.as_tensor(patches.data))
        found = model.objective(harmonics, prior, sample=False)
        share = found.posterior.sum(2)
        said = (share * share.clamp_min(1e-9).log()).sum(1) + math.log(4)
    return last.epoch, float(found.divergence.mean()), float(said.mean())


def test_latents_say_as_much_as_they_are_to(patches):
    epochs, divergence, _ = ended(patches, beta=30.0, latent_capacity=4.0, latent_capacity_epochs=24)
    assert epochs >= 24
    assert abs(divergence - 4) < 1
    assert ended(patches, beta=30.0)[1] < 3


def test_classes_say_no_more_than_they_are_to(patches):
    assert ended(patches)[2] > 1.2
    assert ended(patches, beta=100.0, class_capacity=0.5, class_capacity_epochs=5)[2] < 0.9
    assert ended(patches, class_capacity=1.4, class_capacity_epochs=10)[2] > 1.2


def test_plain_models_have_schedules_too(patches):
    """Latents say what they are to; and more of a patch while beta still grows than when it has grown."""

    def said(**update):
        reports = list(train(patches, JOINT.model_copy(update={"model": "vae", "classes": None, **update})))
        learned = [report for report in reports if report.phase == "training"]
        return learned[-1].terms["divergence"], learned[-1].epoch

    assert abs(said(beta=30.0, latent_capacity=4.0, latent_capacity_epochs=24)[0] - 4) < 1
    growing, epochs = said(beta=100.0, beta_epochs=1000)
    assert epochs == 40
    assert growing > 2 * said(beta=100.0)[0]
