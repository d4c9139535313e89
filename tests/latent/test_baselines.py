"""Components without a network: what they tell, and that poses taken out tell more."""

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from napari_rvae.errors import InputDataError, Stopped
from napari_rvae.latent import baseline
from napari_rvae.patches import patches_from_array
from napari_rvae.samples import cards
from napari_rvae.settings import BaselineSettings


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
    assert {"symmetry", "dy", "dx", "reconstruction_error", "class", "class_probability"} <= set(aligned)
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
    assert 1 > one["reconstruction_error"].mean() > 2 * many["reconstruction_error"].mean() > 0


def test_too_few_patches_constant_ones_and_a_stop(deck):
    patches, _ = deck
    with pytest.raises(InputDataError, match="too few for 64 components"):
        baseline(patches.select(np.arange(30)), BaselineSettings(latent=64))
    with pytest.raises(InputDataError, match="constant"):
        baseline(patches_from_array(np.ones((20, 16, 16))), BaselineSettings(aligned=False))
    with pytest.raises(Stopped):
        baseline(patches, stop=lambda: True)
