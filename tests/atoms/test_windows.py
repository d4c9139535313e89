"""Windows on a grid, where an image shows no atoms."""

import numpy as np
import pytest

from napari_rvae.atoms import find_atoms
from napari_rvae.errors import InputDataError
from napari_rvae.settings import FindSettings

NOISE = np.random.default_rng(0).normal(size=(200, 300))


def windows(image, **settings):
    return find_atoms(image, FindSettings(search="grid", **settings))


def test_windows_lie_on_a_grid_in_the_middle_of_the_image():
    found = windows(NOISE, spacing=20)
    assert sorted(set(found["y"])) == pytest.approx(99.5 + 20 * np.arange(-4, 5))
    assert sorted(set(found["x"])) == pytest.approx(149.5 + 20 * np.arange(-6.5, 7))
    assert len(found) == 9 * 14
    assert found.attrs["napari_rvae"]["target"] == "windows"
    assert (found["flag"] == "").all()
    assert 2000 < len(windows(NOISE)) < 3000


def test_a_threshold_leaves_windows_out_in_which_only_noise_is_seen():
    image = NOISE.copy()
    image[:, 150:] += 4.0
    found = windows(image, spacing=10, threshold=1.3)
    assert found["x"].between(100, 200).all()
    assert len(found) > 100


def test_brightness_of_a_window_is_told():
    image = NOISE + 5.0
    image[:, 150:] += 4.0
    found = windows(image, spacing=20)
    mean = found["amplitude"] + found["background"]
    assert mean[found["x"] < 130].mean() == pytest.approx(5, abs=0.1)
    assert mean[found["x"] > 170].mean() == pytest.approx(9, abs=0.1)


def test_regions_and_stacks():
    mask = np.zeros(NOISE.shape, bool)
    mask[50:100, 60:120] = True
    inside = find_atoms(NOISE, FindSettings(search="grid", spacing=10), region=mask)
    assert inside["y"].between(50, 100).all()
    assert inside["x"].between(60, 120).all()
    assert len(inside) == pytest.approx(30, abs=10)
    stack = windows(np.stack([NOISE, 2 * NOISE]), spacing=20)
    assert stack["frame"].value_counts().tolist() == [126, 126]


def test_too_many_windows_are_refused():
    with pytest.raises(InputDataError, match="larger spacing"):
        windows(np.random.default_rng(0).normal(size=(2100, 2100)), spacing=1.01)
