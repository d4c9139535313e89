"""Patches in the common frame: a motif that was turned and moved by a known pose comes out as it was."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from napari_rvae.errors import InputDataError
from napari_rvae.latent.common_frame import patches_in_common_frame


def motif(x, y):
    """Three blobs without any symmetry, around the origin."""
    blobs = ((0, 0, 1.0), (7, 0, 0.7), (0, 4, 0.4))
    return sum(height * np.exp(-((x - bx) ** 2 + (y - by) ** 2) / 8) for bx, by, height in blobs)


def image_of(y, x, angle, shape=(80, 90)):
    rows, columns = np.indices(shape)
    dx, dy = columns - x, rows - y
    return motif(dx * np.cos(angle) + dy * np.sin(angle), -dx * np.sin(angle) + dy * np.cos(angle))


@pytest.mark.parametrize("angle", [0.0, 0.6, -2.5])
def test_pose_is_undone(angle):
    atoms = pd.DataFrame({"y": [39.0], "x": [46.5], "angle": [angle], "dy": [1.3], "dx": [-0.8]})
    patch = patches_in_common_frame(image_of(40.3, 45.7, angle), atoms, step=(1, 1), pixels=24)[0]
    grid = np.arange(24) - 11.5
    np.testing.assert_allclose(patch, motif(grid[np.newaxis], grid[:, np.newaxis]), atol=0.06)


def test_pixels_that_are_not_square_give_the_same_patch():
    tall = image_of(40, 45, 0.7)[::2]  # a pixel is twice as high as it is wide
    atoms = pd.DataFrame({"y": [20.0], "x": [45.0], "angle": [0.7]})
    patch = patches_in_common_frame(tall, atoms, step=(0.5, 1), pixels=24)[0]
    grid = np.arange(24) - 11.5
    np.testing.assert_allclose(patch, motif(grid[np.newaxis], grid[:, np.newaxis]), atol=0.15)


def test_stacks_missing_poses_and_the_edge():
    stack = np.stack([image_of(20, 20, 0), image_of(60, 70, 0)])
    atoms = pd.DataFrame({"frame": [1, 0, 0], "y": [60.0, 20.0, 0.0], "x": [70.0, 20.0, 0.0], "angle": [np.nan, 0, 0]})
    patches = patches_in_common_frame(stack, atoms, step=(0.5, 0.5), pixels=40)
    np.testing.assert_allclose(patches[0], patches[1], atol=1e-5)
    assert patches[0].max() > 0.9
    assert np.isfinite(patches[2]).all()
    with pytest.raises(InputDataError, match="2 axes"):
        patches_in_common_frame(stack[0], atoms, step=(1, 1))
