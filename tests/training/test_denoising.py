"""Trained on noisy and clean pairs: less error against the truth, the units of the noisy patches, honest errors."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from napari_rvae.errors import InputDataError
from napari_rvae.latent import encode, reconstruct
from napari_rvae.patches import extract_patches, patches_from_array
from napari_rvae.polar import radial_taper
from napari_rvae.samples import Microscope, interface
from napari_rvae.settings import PatchSettings, TrainSettings
from napari_rvae.training import train, trained
from napari_rvae.training.checkpoints import Checkpoint
from napari_rvae.training.denoising import added_noise
from napari_rvae.training.loop import Trainer

LOW, HIGH = 4.0, 20_000.0
SHORT = TrainSettings(epochs=4, hidden=8, early_stopping=False, start="scratch", device="cpu", threads=1)


@pytest.fixture(scope="module")
def pairs():
    """Patches of the same columns with little and with much dose, and the truth in the units of the former."""
    still = Microscope(size=300, jitter=0.0, readout=0.5)
    low, high = (interface(replace(still, dose=dose)) for dose in (LOW, HIGH))
    atoms = low.truth[["atom_id", "y", "x"]]
    noisy, clean = (extract_patches(scene.image, atoms) for scene in (low, high))
    inner = np.flatnonzero(~noisy.edge)
    noisy, clean = noisy.select(inner), clean.select(inner)
    return noisy, clean, clean.data * (LOW / HIGH)


def noise(shape):
    return np.random.default_rng(0).random(shape, np.float32)


def misfit(model, patches, truth):
    """Root mean square difference of decoded patches from the truth, mean apart, under the taper."""
    found, taper = reconstruct(model, patches, encode(model, patches)), radial_taper(patches.data.shape[-1])
    level = (truth * taper).sum((2, 3), keepdims=True) / taper.sum()
    own = (patches.data * taper).sum((2, 3), keepdims=True) / taper.sum()
    return float(np.sqrt(np.square((found - own) - (truth - level) * taper).mean()))


@pytest.mark.parametrize("name", ["ae", "vae"])
def test_pairs_bring_the_reconstruction_nearer_to_the_truth(pairs, name):
    noisy, clean, truth = pairs
    settings = TrainSettings(model=name, latent=3, device="cpu", threads=1)
    alone = misfit(trained(noisy, settings), noisy, truth)
    paired = misfit(trained(noisy, settings, clean=clean), noisy, truth)
    assert paired < 0.9 * alone


@pytest.mark.parametrize("normalization", ["dataset", "patch"])
def test_clean_patches_on_another_scale_teach_the_same(pairs, normalization):
    noisy, clean, truth = pairs
    noisy = replace(noisy, settings=noisy.settings.model_copy(update={"normalization": normalization}))
    settings = TrainSettings(model="vae", latent=3, epochs=8, early_stopping=False, device="cpu", threads=1)
    scaled = replace(clean, data=3.0 * clean.data + 1000, cut=None)
    errors = [misfit(trained(noisy, settings, clean=one), noisy, truth) for one in (clean, scaled)]
    assert errors[0] == pytest.approx(errors[1], rel=0.02)
    assert errors[0] < 0.4 * np.std(truth - truth.mean((2, 3), keepdims=True))


def test_clean_copies_lose_the_pose_of_the_noisy_ones(pairs):
    noisy, clean, _ = pairs
    same = replace(clean, data=2 * noisy.data + 1, cut=lambda *where: 2 * noisy.cut(*where) + 1)
    (report, *_) = train(noisy, SHORT.model_copy(update={"epochs": 1}))
    trainer = Trainer(report.model, noisy, clean=same)
    torch.testing.assert_close(trainer.target, trainer.harmonics, atol=1e-3, rtol=1e-3)
    before = trainer.target.clone()
    trainer.shape[:, :2], trainer.theta = torch.tensor([0.8, -0.5]), torch.full_like(trainer.theta, 0.4)
    trainer.cut_again()
    torch.testing.assert_close(trainer.target, trainer.harmonics, atol=1e-3, rtol=1e-3)
    assert (trainer.target - before).abs().max() > 0.1
    trainer.update_poses()
    torch.testing.assert_close(trainer.target, trainer.harmonics, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda clean: clean.select(np.arange(50)), "a clean copy of every patch"),
        (lambda clean: replace(clean, centers=clean.centers + 1), "around other places"),
        (lambda clean: replace(clean, data=np.where(clean.data == clean.data[3], np.nan, clean.data)), "missing"),
        (lambda clean: replace(clean, data=noise(clean.data.shape)), "does not show"),
        (lambda clean: replace(clean, data=-clean.data), "does not show"),
    ],
)
def test_what_is_no_clean_copy_is_refused(pairs, change, message):
    noisy, clean, _ = pairs
    with pytest.raises(InputDataError, match=message):
        trained(noisy, SHORT, clean=change(clean))


def test_the_noisy_patches_themselves_are_refused(pairs):
    with pytest.raises(InputDataError, match="are the noisy ones"):
        trained(pairs[0], SHORT, clean=pairs[0])


@pytest.mark.parametrize("name", ["jrvae", "crvae", "ssrvae", "shiftvae"])
def test_every_model_learns_from_pairs(pairs, name):
    noisy, clean, _ = pairs
    settings = SHORT.model_copy(update={"model": name, "epochs": 1, "added_noise": 0.5})
    options = {"clean": clean}
    if settings.family in ("joint", "semi"):
        settings = settings.model_copy(update={"classes": 2})
    if settings.family in ("conditional", "semi"):
        options["condition" if settings.family == "conditional" else "labels"] = np.arange(len(noisy)) % 2
    table = encode(trained(noisy, settings, **options), noisy, condition=options.get("condition"))
    assert np.isfinite(table["z1"]).all()


def test_noise_is_as_strong_as_asked_for_and_fresh():
    images = np.random.default_rng(0).standard_normal((20, 2, 24, 24))
    patches = patches_from_array(images, PatchSettings(normalization="dataset"))
    model = trained(patches, SHORT.model_copy(update={"model": "vae", "added_noise": 0.5, "epochs": 1}))
    nothing = torch.zeros(500, 2, 2 * model.space.terms)
    one, other = (added_noise(model, nothing) for _ in range(2))
    unit = model.space.analyse(torch.randn(2000, 2, 24, 24, generator=torch.Generator().manual_seed(1)))
    assert float(one.std() / unit.std()) == pytest.approx(0.5, rel=0.03)
    assert not torch.equal(one, other)
    model.to("meta")
    assert added_noise(model, nothing.to("meta")).is_meta


@pytest.mark.parametrize("asked", [3, 14])
def test_interrupted_denoising_ends_with_the_same_weights(pairs, tmp_path, asked):
    noisy, clean, _ = pairs
    settings = SHORT.model_copy(update={"added_noise": 0.5})
    whole = trained(noisy, settings, clean=clean)
    again = trained(noisy, settings, clean=clean)
    count = iter(range(10_000))

    def stop():
        if next(count) == asked:
            raise KeyboardInterrupt
        return False

    with pytest.raises(KeyboardInterrupt):
        trained(noisy, settings, clean=clean, stop=stop, checkpoint=Checkpoint(tmp_path, every=0))
    with pytest.raises(InputDataError, match="made from other patches"):
        trained(noisy, settings, checkpoint=Checkpoint(tmp_path))
    resumed = trained(noisy, settings, clean=clean, checkpoint=Checkpoint(tmp_path))
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
        assert torch.equal(value, again.state_dict()[name]), name
