"""The way between two latents; its ends are compared with what decodes them directly in the tests of the dock."""

import numpy as np
import pytest

from napari_rvae.errors import InputDataError
from napari_rvae.latent import decode, latent_path
from napari_rvae.models import Model
from napari_rvae.settings import TrainSettings


def test_goes_straight_from_one_latent_to_another_for_the_condition_asked_for():
    model = Model(TrainSettings(model="crvae", hidden=8), size=24, channels=2, k_max=0.3, conditions=1).eval()
    path = latent_path(model, [0, 1], [2, -1], steps=5, condition=[0.5])
    assert path.shape == (5, 2, 24, 24)
    expected = decode(model, [[0, 1], [1, 0], [2, -1]], condition=np.full(3, 0.5))
    np.testing.assert_allclose(path[[0, 2, 4]], expected, atol=1e-5)
    with pytest.raises(InputDataError, match="conditional"):
        latent_path(model, [0, 1], [2, -1])
    with pytest.raises(InputDataError, match="at least two"):
        latent_path(model, [0, 1], [2, -1], steps=1)
    with pytest.raises(InputDataError, match="finite"):
        latent_path(model, [0, np.nan], [2, -1], condition=[0.5])
