"""Cards in known poses."""

import hashlib

import numpy as np
import pytest

from napari_rvae.errors import SettingsError
from napari_rvae.samples import SUITS, cards, draw_cards


def similarity(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def test_first_card_is_the_same_everywhere():
    patches, truth = cards(3, n=3000, seed=0)
    rounded = np.round(patches[0].astype(float) * 1000).astype("<i4")
    assert hashlib.sha256(rounded.tobytes()).hexdigest()[:16] == "3a67120647ebb37e"
    assert patches.shape == (3000, 48, 48)
    assert patches.dtype == np.float32
    assert list(truth.columns) == ["label", "angle", "strain_a", "strain_b"]


@pytest.mark.parametrize(("kind", "rotation", "strain"), [(1, 12, 1), (2, 12, 20), (3, 120, 1), (4, 120, 20)])
def test_poses_fill_their_range(kind, rotation, strain):
    _, truth = cards(kind, n=2000, seed=5)
    size = np.hypot(truth["strain_a"], truth["strain_b"])
    assert np.rad2deg(truth["angle"].abs().max()) == pytest.approx(rotation, rel=0.02)
    assert np.rad2deg(size.max()) == pytest.approx(strain, rel=0.02)
    assert size.max() <= 0.35
    assert set(truth["label"]) == {0, 1, 2, 3}


def test_seed_decides():
    again, other = cards(2, n=20, seed=7)[0], cards(2, n=20, seed=8)[0]
    np.testing.assert_array_equal(cards(2, n=20, seed=7)[0], again)
    assert not np.allclose(again, other)


def test_noise_is_as_asked():
    noisy, truth = cards(4, n=200, seed=1, noise=0.05)
    clean = draw_cards(truth["label"], truth["angle"], truth["strain_a"], truth["strain_b"])
    assert np.std(noisy - clean) == pytest.approx(0.05, rel=0.01)


def test_positive_angle_turns_x_toward_y():
    upright, turned = draw_cards([1, 1], angle=[0, np.pi / 2])
    # +x toward +y, rows downwards: a quarter turn clockwise as seen on the screen
    np.testing.assert_allclose(turned, np.rot90(upright, -1), atol=1e-6)


def test_positive_a_stretches_along_x_and_b_along_the_diagonal():
    y, x = np.mgrid[:48, :48] - 23.5
    plain, stretched, sheared = draw_cards([2, 2, 2], strain_a=[0, 0.3, 0], strain_b=[0, 0, 0.3])

    def second_moment(card: np.ndarray, axis: np.ndarray) -> float:
        return float((card * axis**2).sum() / card.sum())

    assert second_moment(stretched, x) / second_moment(plain, x) == pytest.approx(np.exp(0.6), rel=0.03)
    assert second_moment(stretched, y) / second_moment(plain, y) == pytest.approx(np.exp(-0.6), rel=0.03)
    assert second_moment(sheared, x + y) > 1.2 * second_moment(sheared, x - y)
    assert stretched.sum() == pytest.approx(plain.sum(), rel=0.01)  # pure strain keeps the area


def test_strain_acts_in_the_suits_own_frame():
    straight, turned = draw_cards([1, 1], angle=[0, np.pi / 2], strain_a=0.3, strain_b=0.1)
    np.testing.assert_allclose(turned, np.rot90(straight, -1), atol=1e-6)


@pytest.mark.parametrize("fold", [2, 3, 4, 5, 6])
@pytest.mark.parametrize("suit", SUITS)
def test_only_the_diamond_is_symmetric(suit, fold):
    one, turned = draw_cards([SUITS.index(suit)] * 2, angle=[0.2, 0.2 + 2 * np.pi / fold], size=96)
    if suit == "diamond" and fold == 2:
        assert similarity(one, turned) > 0.9999
    else:
        assert similarity(one, turned) < 0.92


@pytest.mark.parametrize("suit", range(4))
def test_suits_are_centred(suit):
    y, x = np.mgrid[:48, :48] - 23.5
    (card,) = draw_cards([suit])
    assert abs((card * y).sum() / card.sum()) < 0.05
    assert abs((card * x).sum() / card.sum()) < 0.05


def test_unknown_set_is_refused():
    with pytest.raises(SettingsError, match="choose 1, 2, 3 or 4"):
        cards(5)
