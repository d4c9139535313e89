"""Averages are joined, turned to each other, and called symmetric for what their members show."""

import numpy as np
import pytest
import torch

from napari_rvae.averages.joining import _few_join_nearest, aligned, symmetry_of
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


def test_an_average_of_few_members_is_no_bridge():
    distance = np.array([[0, 90, 5.0], [90, 0, 6], [5, 6, 0]])
    found = _few_join_nearest(distance, np.array([True, True, False]))
    assert found[0, 1] == 90
    assert found[0, 2] == found[2, 0] == 5
    assert found[1, 2] == found[2, 1] > 90


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
