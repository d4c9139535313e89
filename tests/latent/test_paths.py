"""The way between two latents; its ends are compared with what decodes them directly in the tests of the dock."""

import numpy as np
import pandas as pd
import pytest
import torch

from napari_rvae.errors import InputDataError
from napari_rvae.latent import attribute_direction, changed_attribute, decode, latent_path
from napari_rvae.models import Model
from napari_rvae.settings import TrainSettings


def test_goes_straight_from_one_latent_to_another_for_the_condition_asked_for():
    model = Model(TrainSettings(model="crvae", hidden=8), size=24, channels=2, k_max=0.3, conditions=1).eval()
    path = latent_path(model, [0, 1], [2, -1], steps=5, condition=[0.5])
    assert path.shape == (5, 2, 24, 24)
    expected = decode(model, [[0, 1], [1, 0], [2, -1]], condition=np.full(3, 0.5))
    np.testing.assert_allclose(path[[0, 2, 4]], expected, atol=1e-5)
    path = latent_path(model, [0, 1], [2, -1], steps=5, condition=[[0.5], [-1.5]])
    expected = decode(model, [[0, 1], [1, 0], [2, -1]], condition=[0.5, -0.5, -1.5])
    np.testing.assert_allclose(path[[0, 2, 4]], expected, atol=1e-5)
    with pytest.raises(InputDataError, match="conditional"):
        latent_path(model, [0, 1], [2, -1])
    with pytest.raises(InputDataError, match="at least two"):
        latent_path(model, [0, 1], [2, -1], steps=1)
    with pytest.raises(InputDataError, match="finite"):
        latent_path(model, [0, np.nan], [2, -1], condition=[0.5])


def test_an_attribute_is_what_one_group_has_and_another_lacks():
    table = pd.DataFrame({"z1": [0.0, 2, 1, np.nan, 9], "z2": [1.0, 1, 4, 4, 9], "zone": 1.0})
    having, lacking = np.array([0, 0, 1, 1, 0], bool), np.array([1, 1, 0, 0, 0], bool)
    direction = attribute_direction(table, having, lacking)
    np.testing.assert_allclose(direction, [0, 3])
    model = Model(TrainSettings(model="jrvae", classes=2, hidden=8), size=24, channels=1, k_max=0.3).eval()
    nothing = torch.zeros(2, 1, 2 * model.space.terms)
    model.set_frames(nothing, torch.zeros(2), torch.zeros(2, 5), torch.ones(2, dtype=torch.int64))
    strip = changed_attribute(model, [0.5, 1], direction, [0, 1, -2], classes=1)
    np.testing.assert_allclose(strip, decode(model, [[0.5, 1], [0.5, 4], [0.5, -5]], [1, 1, 1]), atol=1e-5)
    with pytest.raises(InputDataError, match="at least one atom"):
        attribute_direction(table, table["z1"].isna(), lacking)
    with pytest.raises(InputDataError, match="no latents"):
        attribute_direction(table[["zone"]], having, lacking)
    with pytest.raises(InputDataError, match="direction of as many"):
        changed_attribute(model, [0, 0, 0], direction)
