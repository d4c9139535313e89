"""Components without a network: what they tell, and that poses taken out tell more."""

import numpy as np
import pytest
import torch
from sklearn.metrics import adjusted_rand_score

from napari_rvae.errors import InputDataError, Stopped
from napari_rvae.latent import baseline, encode
from napari_rvae.patches import PatchSettings, patches_from_array
from napari_rvae.polar import PolarSpace
from napari_rvae.samples import cards
from napari_rvae.settings import BaselineSettings, TrainSettings
from napari_rvae.training import train


@pytest.fixture(scope="module")
def deck():
    images, truth = cards(3, 200, 32)
    return patches_from_array(images), truth


def told(table, truth):
    return adjusted_rand_score(truth["label"], table["class"])


def test_aligned_components_tell_turned_suits_and_others_do_not(deck):
    patches, truth = deck
    aligned = baseline(patches, BaselineSettings(classes=4))
    assert told(aligned, truth) > 0.95
    heart = (truth["label"] == 1).to_numpy()
    turn = np.exp(1j * (aligned["angle"] - truth["angle"]))[heart]
    assert abs(turn.mean()) > 0.98
    assert list(aligned)[:3] == ["atom_id", "z1", "z2"]
    assert {"symmetry", "dy", "dx", "unexplained", "class", "class_probability"} <= set(aligned)
    np.testing.assert_allclose(aligned[["z1", "z2"]].std(ddof=0), 1, rtol=1e-4)
    turned = baseline(patches, BaselineSettings(classes=4, aligned=False))
    assert told(turned, truth) < told(aligned, truth) - 0.3
    assert not {"angle", "dy"} & set(turned)


def test_parts_are_positive_and_tell_upright_suits():
    images, truth = cards(1, 200, 24)
    patches = patches_from_array(images)
    table = baseline(patches, BaselineSettings(method="nmf", latent=4, aligned=False, clusters="kmeans", classes=4))
    assert (table[["z1", "z2", "z3", "z4"]] >= 0).all(axis=None)
    assert told(table, truth) > 0.5


def test_more_components_leave_less(deck):
    patches, _ = deck
    one, many = (baseline(patches, BaselineSettings(latent=k, aligned=False, clusters="none")) for k in (1, 8))
    assert "class" not in many
    assert 1 > one["unexplained"].mean() > 2 * many["unexplained"].mean() > 0


@pytest.mark.parametrize("normalization", ["dataset", "patch"])
def test_components_and_a_model_leave_the_same_of_what_two_parts_make(normalization):
    """Two parts in any amounts, and noise: neither can tell more than the amounts, so the noise is what both leave."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:24, :24] - 11.5
    parts = [np.exp(-((y - a) ** 2 + (x - b) ** 2) / 18) for a, b in ((-4, 0), (4, 3))]
    clean = 50 * np.tensordot(rng.uniform(0.5, 1.5, (300, 2)), parts, 1)
    noise = 15 * rng.standard_normal(clean.shape)
    patches = patches_from_array(clean + noise, PatchSettings(normalization=normalization))
    space = PolarSpace(24, 0.25, angles=1)
    squares = [space.analyse(torch.tensor(some[:, None]).float()).square().sum() for some in (noise, clean + noise)]
    noise_part = float(squares[0] / squares[1])
    *_, report = train(patches, TrainSettings(model="vae", epochs=60, hidden=32))
    settings = [BaselineSettings(method=method, aligned=False, clusters="none") for method in ("pca", "nmf")]
    for table in [encode(report.model, patches), *(baseline(patches, some) for some in settings)]:
        assert table["unexplained"].mean() == pytest.approx(noise_part, rel=0.08)


def test_patches_are_aligned_by_the_poses_of_a_model(deck):
    patches, truth = deck
    known = truth.assign(atom_id=patches.atom_id)[["atom_id", "angle"]]
    settings = BaselineSettings(latent=4, clusters="none")
    given, own, turned = (
        baseline(patches, settings, poses=known),
        baseline(patches, settings),
        baseline(patches, settings.model_copy(update={"aligned": False}), poses=known),
    )
    assert given["unexplained"].mean() < 1.1 * own["unexplained"].mean() < 0.5 * turned["unexplained"].mean()
    np.testing.assert_array_equal(given["angle"], known["angle"])
    assert "angle" not in turned


def test_too_few_patches_constant_ones_and_a_stop(deck):
    patches, truth = deck
    truth = truth.assign(atom_id=patches.atom_id)
    with pytest.raises(InputDataError, match="too few for 64 components"):
        baseline(patches.select(np.arange(30)), BaselineSettings(latent=64))
    with pytest.raises(InputDataError, match="constant"):
        baseline(patches_from_array(np.ones((20, 16, 16))), BaselineSettings(aligned=False))
    with pytest.raises(Stopped):
        baseline(patches, stop=lambda: True)
    told = []
    with pytest.raises(Stopped):  # while patches are turned back, block by block
        baseline(patches, poses=truth, progress=lambda *now: told.append(now), stop=lambda: len(told) == 1)
    assert told == [(0.6, "Aligning")]
