"""Class averages find the kinds and poses of cards that were drawn with known ones."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from napari_rvae.averages import average
from napari_rvae.averages.exemplars import add_exemplars
from napari_rvae.errors import InputDataError, Stopped
from napari_rvae.patches import patches_from_array
from napari_rvae.samples import cards
from napari_rvae.samples.playing_cards import draw_cards
from napari_rvae.settings import AverageSettings, PatchSettings

STRAINED = AverageSettings(invariance="rotation,translation,strain", exemplars=16)


@pytest.fixture(scope="module")
def turned_cards():
    data, truth = cards(3, 400, 32)
    return patches_from_array(data), truth


@pytest.fixture(scope="module")
def averages(turned_cards):
    return average(turned_cards[0])


def purity(found, label):
    return sum(label[found == kind].value_counts().max() for kind in np.unique(found)) / len(label)


def resultant(difference):
    return abs(np.exp(1j * np.asarray(difference)).mean())


def apart(angle, other):
    return (np.asarray(angle) - np.asarray(other) + np.pi) % (2 * np.pi) - np.pi


def test_kinds_are_the_suits(turned_cards, averages):
    patches, truth = turned_cards
    table = averages.table
    assert len(averages.counts) == len(averages.images) == len(averages.symmetry) == 4
    assert averages.images.shape == (4, 1, 32, 32)
    assert averages.counts.sum() == len(patches)
    assert list(averages.counts) == sorted(averages.counts, reverse=True)
    assert purity(table["class"], truth["label"]) > 0.99
    assert table["atom_id"].tolist() == patches.atom_id.tolist()
    assert list(table) == ["atom_id", "class", "angle", "dy", "dx", "strain_a", "strain_b", "scale", "distance"]


def test_angles_agree_with_those_drawn(turned_cards, averages):
    _, truth = turned_cards
    table = averages.table
    for suit in range(4):
        rows = truth["label"] == suit
        order = averages.symmetry[table["class"][rows].mode()[0]]
        assert resultant(order * (table["angle"] - truth["angle"])[rows]) > 0.99
    diamonds = table["class"][truth["label"] == 2].mode()[0]
    assert averages.symmetry[diamonds] == 2
    assert set(np.delete(averages.symmetry, diamonds)) == {1}


def test_the_misfit_of_pure_noise_is_one(averages):
    assert averages.table["distance"].median() == pytest.approx(1, abs=0.3)
    assert averages.table[["dy", "dx"]].abs().median().max() < 0.1


def test_averages_are_sharper_than_a_mean_of_all(turned_cards, averages):
    assert averages.images.std() > 2 * turned_cards[0].data.mean(0).std()


def test_the_same_seed_gives_the_same_averages(turned_cards, averages):
    again = average(turned_cards[0])
    np.testing.assert_array_equal(again.images, averages.images)
    assert again.table.equals(averages.table)


def test_the_zero_of_the_angle_is_the_same_for_every_seed(turned_cards, averages):
    other = average(turned_cards[0], AverageSettings(seed=5))
    assert not np.array_equal(other.images, averages.images)
    label = turned_cards[1]["label"]
    for suit in range(4):
        rows = label == suit
        order = averages.symmetry[averages.table["class"][rows].mode()[0]]
        difference = order * (other.table["angle"] - averages.table["angle"])[rows]
        assert resultant(difference) > 0.99
        assert abs(np.angle(np.exp(1j * difference).mean())) / order < 0.2


@pytest.mark.parametrize("kinds", [1, 2, 6])
def test_the_number_of_kinds_can_be_given(turned_cards, kinds):
    found = average(turned_cards[0], AverageSettings(kinds=kinds))
    assert len(found.counts) == kinds
    assert (found.counts > 0).all()


@pytest.mark.parametrize(("odd", "kinds"), [(3, 4), (8, 4), (3, 6), (8, 6)])
def test_odd_patches_make_no_kinds_one_where_the_number_is_given(turned_cards, odd, kinds):
    patches, truth = turned_cards
    spots = gaussian_filter(np.random.default_rng(1).standard_normal((odd, 1, 32, 32)), (0, 0, 2, 2))
    spoilt = np.concatenate([patches.data, (3 * patches.data.std() / spots.std() * spots).astype(np.float32)])
    found = average(patches_from_array(spoilt[:, 0]), AverageSettings(kinds=kinds)).table["class"][: len(truth)]
    assert purity(found, truth["label"]) > 0.99


@pytest.mark.parametrize(("count", "kinds"), [(12, 4), (24, 18), (24, 24)])
def test_there_may_be_nearly_as_many_kinds_as_patches(turned_cards, count, kinds):
    found = average(turned_cards[0].select(np.arange(count)), AverageSettings(kinds=kinds))
    assert len(found.counts) == kinds
    assert np.isfinite(found.table.drop(columns="atom_id")).all(axis=None)


def test_copies_of_a_few_patches_are_as_many_kinds():
    data, _ = cards(1, 5, 24)
    found = average(patches_from_array(np.repeat(data, 8, 0)), AverageSettings(kinds=10))
    assert all(found.table["class"].to_numpy().reshape(-1, 8).std(1) == 0)
    assert np.isfinite(found.images).all()


def test_kinds_may_start_from_those_of_other_patches(turned_cards, averages):
    patches = turned_cards[0]
    some = np.arange(0, 400, 3)
    again = average(patches.select(some), start=averages.finder)
    assert (again.table["class"].to_numpy() == averages.table["class"].to_numpy()[some]).mean() > 0.98
    assert not np.array_equal(again.finder.images, averages.finder.images)


def test_offsets_are_found_in_image_pixels():
    from scipy.ndimage import shift

    data, truth = cards(1, 120, 64, noise=0.02)
    moves = np.random.default_rng(1).uniform(-2, 2, (120, 2))
    moved = np.stack([shift(one, move, order=3, mode="nearest") for one, move in zip(data, moves, strict=True)])
    patches = patches_from_array(moved, PatchSettings(working_size=32))
    table = average(patches, AverageSettings(kinds=4)).table
    for name, known in (("dy", moves[:, 0]), ("dx", moves[:, 1])):
        for suit in (0, 1, 3):  # the diamond, alike after half a turn, takes the turn that makes its offset smaller
            rows = (truth["label"] == suit).to_numpy()
            if rows.sum() > 10 and table["class"][rows].nunique() == 1:
                slope = np.polyfit(known[rows], table[name][rows], 1)[0]
                assert slope == pytest.approx(1, abs=0.1)


def test_strains_are_found():
    data, truth = cards(4, 500, 32, noise=0.03)
    found = average(patches_from_array(data), STRAINED)
    assert purity(found.table["class"], truth["label"]) > 0.95
    hearts = (truth["label"] == 1).to_numpy()
    heart = found.table["class"] == found.table["class"][hearts].mode()[0]
    rows = heart.to_numpy() & hearts
    turn = np.angle(np.exp(1j * (found.table["angle"] - truth["angle"])[rows]).mean())
    seen = (found.table["strain_a"] + 1j * found.table["strain_b"])[rows] * np.exp(2j * turn)
    known = (truth["strain_a"] + 1j * truth["strain_b"])[rows]
    assert np.corrcoef(seen.to_numpy().real, known.to_numpy().real)[0, 1] > 0.95
    assert np.corrcoef(seen.to_numpy().imag, known.to_numpy().imag)[0, 1] > 0.95


@pytest.mark.parametrize("invariance", ["translation", "none"])
def test_without_rotation_turned_motifs_are_other_kinds(invariance):
    data = draw_cards([1] * 120, np.repeat([0, np.pi / 2], 60), size=32)
    data += 0.05 * np.random.default_rng(0).standard_normal(data.shape)
    found = average(patches_from_array(data), AverageSettings(invariance=invariance)).table
    assert (found["angle"] == 0).all()
    assert found["class"][:60].nunique() == found["class"][60:].nunique() == 1
    assert found["class"][0] != found["class"][60]


def test_patches_over_the_edge_are_sorted_but_not_averaged(turned_cards):
    from dataclasses import replace

    patches = turned_cards[0].select(np.arange(150))
    spoilt = patches.data.copy()
    spoilt[:5] = 40
    edge = np.arange(150) < 5
    found = average(replace(patches, data=spoilt, edge=edge), AverageSettings(kinds=4))
    assert len(found.table) == 150
    assert found.images.max() < 10


def test_the_finder_finds_the_same_again(turned_cards, averages):
    patches, _ = turned_cards
    data = (patches.data - patches.data.mean()) / patches.data.std()
    with torch.no_grad():
        found = averages.finder.find(torch.as_tensor(data[:50]))
    assert found.which.tolist() == averages.table["class"][:50].tolist()


def test_progress_grows_and_ends_at_one(turned_cards):
    told = []
    average(turned_cards[0].select(np.arange(40)), AverageSettings(kinds=2), progress=lambda *a: told.append(a))
    fractions = [fraction for fraction, _ in told]
    assert fractions == sorted(fractions)
    assert (fractions[0], fractions[-1]) == (0, 1)
    assert all(text for _, text in told)


@pytest.mark.parametrize("calls", [0, 3])
def test_stop(turned_cards, calls):
    asked = []
    with pytest.raises(Stopped):
        average(turned_cards[0].select(np.arange(40)), stop=lambda: asked.append(0) or len(asked) > calls)
    assert len(asked) == calls + 1


def test_too_few_and_empty_patches_are_refused(turned_cards):
    with pytest.raises(InputDataError, match="too few"):
        average(turned_cards[0].select(np.arange(9)))
    with pytest.raises(InputDataError, match="constant"):
        average(patches_from_array(np.ones((20, 16, 16))))


def test_other_exemplars_are_tried_where_one_takes_all_patches(turned_cards, monkeypatch):
    patches, truth = turned_cards
    settings, chosen = AverageSettings(kinds=4), []

    def one_at_first(search, x, harmonics, weight, count, *others):
        chosen.append(count)
        return add_exemplars(search, x, harmonics, weight, 1 if len(chosen) <= settings.rounds else count, *others)

    monkeypatch.setattr("napari_rvae.averages.exemplars.add_exemplars", one_at_first)
    told = []
    found = average(patches, settings, progress=lambda fraction, text: told.append(fraction))
    assert told == sorted(told)
    assert len(chosen) == 2 * settings.rounds
    assert len(found.counts) == 4
    assert purity(found.table["class"], truth["label"]) > 0.95


def test_threads_are_given_back(turned_cards):
    before = torch.get_num_threads()
    average(turned_cards[0].select(np.arange(40)), AverageSettings(kinds=1))
    assert torch.get_num_threads() == before


def test_odd_patches_belong_to_the_kinds_they_show():
    data, truth = cards(3, 300, 32, noise=0.1)
    y, x = np.mgrid[:32, :32] - 15.5
    rng = np.random.default_rng(2)
    for one in data[:7]:  # a terrace ends in the window, each time elsewhere
        angle, place = rng.uniform(0, 2 * np.pi), rng.uniform(3, 9)
        one += np.where(np.cos(angle) * x + np.sin(angle) * y > place, 1.0, 0.0)
    for seed in range(2):
        found = average(patches_from_array(data), AverageSettings(seed=seed))
        assert len(found.counts) == 4
        assert purity(found.table["class"][7:], truth["label"][7:]) > 0.99
