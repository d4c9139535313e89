"""Pose and content that are found do not depend on where a search began."""

import numpy as np
import torch

from napari_rvae.models.inference import from_rival, infer
from napari_rvae.patches import patches_from_array
from napari_rvae.settings import TrainSettings
from napari_rvae.training import trained


def dumbbells(theta, width):
    """Two like spots beside each other; the second is as wide as told."""
    y, x = np.mgrid[:24, :24] - 11.5
    c, s = (part(theta)[:, None, None] for part in (np.cos, np.sin))
    along, across = c * x + s * y, c * y - s * x
    spots = ((-4, 1.5), (4, width[:, None, None]))
    return sum(np.exp(-0.5 * ((along - side) ** 2 + across**2) / wide**2) for side, wide in spots)


def test_the_better_of_two_nearly_equal_angles_is_taken():
    rng = np.random.default_rng(0)
    images = dumbbells(rng.uniform(-np.pi, np.pi, 200), rng.uniform(1.2, 1.8, 200))
    images = images + 0.05 * rng.standard_normal(images.shape)
    settings = TrainSettings(hidden=32, latent=1, epochs=20, early_stopping=False, device="cpu", threads=1)
    model = trained(patches_from_array(images), settings)
    x = torch.as_tensor(images[:, None], dtype=torch.float32)
    still = torch.zeros(len(x), 5)
    one = infer(model, x, still, steps=5, content=True)
    turned = infer(model, x, still, theta=one.theta + torch.pi, window=0.3, steps=5, content=True)
    least = torch.minimum(one.cost, turned.cost)
    for found in (one, turned):
        assert (found.cost > least + 3).float().mean() > 0.1
        again = from_rival(model, x, found, base=still)
        assert (again.cost < least + 0.5).all()
        assert torch.equal(from_rival(model, x, again, base=still).theta, again.theta)
