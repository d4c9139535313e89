"""Kinds are turned to each other, called symmetric for what their members show, and have one zero."""

import numpy as np
import pytest
import torch

from napari_rvae.averages.frames import aligned, common_zeros, symmetry_of
from napari_rvae.polar import PolarSpace


@pytest.fixture(scope="module")
def space():
    return PolarSpace(24, 0.3)


def noise(space, count, seed=0):
    return torch.randn(count, 1, 2 * space.terms, generator=torch.Generator().manual_seed(seed))


def two_fold(space):
    harmonics = 3 * noise(space, 1, 1)
    return (harmonics + space.turn(harmonics, torch.full((1,), torch.pi)))[0]


def test_kinds_are_turned_to_the_one_they_resemble(space):
    motif = noise(space, 1)
    angles = torch.tensor([0.0, 1.0, -2.0])
    spectra = space.turn(motif.expand(3, -1, -1), angles) + 0.1 * noise(space, 3, 2)
    zero = aligned(space, spectra, torch.ones(1, 2 * space.terms))
    apart = np.angle(np.exp(1j * (zero + angles.numpy())))
    np.testing.assert_allclose(apart, 0, atol=np.deg2rad(0.5))


@pytest.mark.parametrize(("common", "order"), [(True, 1), (False, 2)])
def test_an_asymmetry_counts_if_the_members_have_it_in_common(space, common, order):
    motif = two_fold(space)
    odd = noise(space, 1, 3)[0]
    odd = odd - space.turn(odd[None], torch.full((1,), torch.pi))[0]
    imperfect = motif + 0.3 * odd
    weight = torch.ones(1, 2 * space.terms)
    members = (imperfect if common else motif) + noise(space, 60, 4)
    sign = 1 if common else torch.sign((members * odd).sum((1, 2), keepdim=True))
    members = motif + (members - motif) * sign  # each at the better of its two angles
    assert symmetry_of(space, imperfect, weight, torch.zeros(5), members).order == order
    assert symmetry_of(space, motif, weight, torch.zeros(5), members).order == 2


def test_patches_whose_mean_is_symmetric_are_so_only_if_each_of_them_is(space):
    weight = torch.ones(1, 2 * space.terms)
    quarter = torch.full((50,), torch.pi / 2)
    two = torch.stack([two_fold(space)] * 50)  # at half a turn alike
    templates = torch.cat([two, space.turn(two, quarter)])  # their mean even at a quarter
    members = templates + noise(space, 100, 4)
    mean, still = templates.mean(0), torch.zeros(5)
    assert symmetry_of(space, mean, weight, still, members).order == 4
    assert symmetry_of(space, mean, weight, still, members, templates).order == 2
    four = (two + space.turn(two, quarter)).repeat(2, 1, 1)
    imperfect = four + 0.1 * noise(space, 100, 5)
    members = four + noise(space, 100, 4)
    assert symmetry_of(space, imperfect.mean(0), weight, still, members, imperfect).order == 4


def test_a_motif_off_its_middle_and_strained_is_as_symmetric(space):
    motif = noise(space, 1) * (space.ring.repeat(2) < 4) * (space.order.repeat(2) < 5)
    quarters = [space.turn(motif, torch.full((1,), k * torch.pi / 2)) for k in range(4)]
    shape = torch.tensor([0.2, -0.1, 0.02, 0.01, 0.0])
    seen = space.moved(torch.stack(quarters).sum(0)[0], shape)
    weight = torch.full((1, 2 * space.terms), 300.0)
    found = symmetry_of(space, seen, weight, torch.tensor([1, 1, 0.2, 0.2, 0]))
    assert found.order == 4
    np.testing.assert_allclose(found.shape[:4], shape[:4], atol=0.01)
    assert not found.shape[4].isfinite()
    assert symmetry_of(space, seen, weight, torch.zeros(5)).order == 1


@pytest.mark.parametrize("start", [0.0, 0.7])
def test_zero_is_that_of_all_kinds_together_whatever_their_frames(space, start):
    motif = two_fold(space)
    weight = torch.ones(1, 2 * space.terms)
    rng = np.random.default_rng(0)
    kind, truth = rng.integers(0, 2, 300), rng.normal(0.4, 0.3, 300)
    own = np.array([start, start - 1.2])  # the angles of their templates
    spectra = space.turn(motif.expand(2, -1, -1), torch.tensor(own, dtype=torch.float32)) + 0.1 * noise(space, 2, 2)
    theta = truth - own[kind] + np.pi * rng.integers(0, 2, 300)  # two-fold: half a turn is free
    zero = common_zeros(space, spectra, weight, theta, kind, np.array([2, 2]))
    left = (theta - zero[kind] - (truth - np.angle(np.exp(2j * truth).mean()) / 2)) * 2
    np.testing.assert_allclose(np.angle(np.exp(1j * left)), 0, atol=0.06)


def test_a_kind_with_less_symmetry_chooses_among_the_turns_that_are_free(space):
    motif = two_fold(space)
    weight = torch.ones(1, 2 * space.terms)
    spectra = torch.stack([motif, motif + noise(space, 1, 3)[0]])
    kind = np.array([0] * 60 + [1] * 40)
    theta = np.where(kind == 1, np.pi, 0.0) + np.random.default_rng(0).normal(0, 0.1, 100)
    zero = common_zeros(space, spectra, weight, theta, kind, np.array([2, 1]))
    assert abs(np.angle(np.exp(1j * (theta[kind == 1] - zero[1])).mean())) < 0.2


@pytest.mark.parametrize("turned", [0.0, 0.4, -1.1])
def test_without_a_common_direction_the_motif_tells_zero_whatever_its_frame(space, turned):
    motif = noise(space, 1)
    truth = np.linspace(0, 2 * np.pi, 200, endpoint=False)
    weight = torch.ones(1, 2 * space.terms)
    zeros = []
    for start in (0.0, turned):
        spectra = space.turn(motif, torch.tensor([start]))
        kind = np.zeros(200, np.int64)
        zeros.append(common_zeros(space, spectra, weight, truth - start, kind, np.array([1]))[0] + start)
    assert abs(np.angle(np.exp(1j * (zeros[0] - zeros[1])))) < 1e-4
