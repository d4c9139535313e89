"""Classes to start from, found by what is connected."""

import numpy as np
import pytest

from napari_rvae.training.connected import connected_classes


@pytest.mark.parametrize("n", [400, 5000])
def test_follows_curved_classes(n):
    """Two arcs around each other, which k-means would cut across."""
    rng = np.random.default_rng(0)
    which, along = rng.integers(0, 2, n), rng.uniform(0, np.pi, n)
    arc = np.stack([np.cos(along), np.sin(along)], 1) * np.where(which, -1, 1)[:, None] + np.outer(which, [1, 0.4])
    found = connected_classes(arc + 0.04 * rng.standard_normal((n, 2)), 2, seed=0)
    share = float((found == which).mean())
    assert max(share, 1 - share) > 0.99


@pytest.mark.parametrize("points", [np.zeros((20, 3)), np.arange(4.0)[:, None]])
def test_takes_what_has_no_classes(points):
    found = connected_classes(points, 2, seed=0)
    assert found.shape == (len(points),)
    assert set(found) <= {0, 1}
