"""A model with weights that have learned nothing in particular, made without training."""

import pytest
import torch

from napari_rvae.models import Model
from napari_rvae.settings import TrainSettings


@pytest.fixture(scope="session")
def make_model():
    def make(name="rvae", size=24, channels=1, conditions=0, seed=0, k_max=0.25, **options):
        torch.manual_seed(seed)
        options = {"hidden": 16, **options}
        model = Model(TrainSettings(model=name, **options), size, channels, k_max, conditions)
        with torch.no_grad():
            model.decoder.start_from(torch.randn(channels, 2 * model.space.terms))
            for parameter in model.decoder.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
            model.noise.copy_(torch.rand_like(model.noise) + 0.5)
        return model.eval()

    return make
