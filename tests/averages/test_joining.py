"""Averages are joined where they show one kind."""

import numpy as np
import pytest
import torch

from napari_rvae.averages.joining import Between, _few_join_nearest, _is_odd
from napari_rvae.averages.search import Distances


def test_an_average_of_few_members_is_no_bridge():
    distance = np.array([[0, 90, 5.0], [90, 0, 6], [5, 6, 0]])
    found = _few_join_nearest(distance, np.array([True, True, False]))
    assert found[0, 1] == 90
    assert found[0, 2] == found[2, 0] == 5
    assert found[1, 2] == found[2, 1] > 90


@pytest.mark.parametrize(("few", "scatter", "odd"), [(6, 200.0, True), (6, 20.0, False), (12, 200.0, False)])
def test_few_patches_that_differ_as_much_as_kinds_do_are_odd(few, scatter, odd):
    noise, apart = 500.0, 400.0
    which = np.repeat([0, 1], [few, 40])
    cost = torch.full((len(which), 2), noise + apart)
    own = np.where(which == 0, (noise + scatter) * (few - 1) / few, noise)
    cost[np.arange(len(which)), which] = torch.as_tensor(own, dtype=torch.float32)
    distances = Distances(cost, torch.zeros_like(cost), torch.zeros(*cost.shape, 5))
    between = Between(np.array([[0, apart], [apart, 0]]), None, np.array([few, 40]))
    assert _is_odd(np.array([True, False]), between, distances, noise) is odd
    assert not _is_odd(np.array([False, True]), between, distances, noise)
