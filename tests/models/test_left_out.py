"""Errors hold what a model leaves out: strain that is not free, atoms off their place, noise that rises with counts."""

import numpy as np
import pytest
import torch

from napari_rvae.models.inference import decoder_slope
from napari_rvae.models.left_out import estimated, widened
from napari_rvae.polar import radial_taper
from napari_rvae.poses import slopes

COUNT = 500


@pytest.fixture(scope="module")
def seen(make_model):
    """A model with some structure, its templates, their derivatives, and noise."""
    model = make_model(size=24, k_max=0.3)
    model.noise.fill_(0.02)
    generator = torch.Generator().manual_seed(1)
    z = torch.randn(COUNT, model.settings.latent, generator=generator)
    templates = model.decode(z)[:, 0].detach()
    content = decoder_slope(model, z, torch.zeros(COUNT, dtype=torch.int64), None).detach()
    noise = 0.02**0.5 * model.space.analyse(torch.randn(COUNT, 1, 24, 24, generator=generator))
    return model, templates, content, noise


def scatter(model, templates, content, x):
    """Least-squares estimates of pose and content, and their covariance."""
    free = (model.pose_prior > 0).nonzero()[:, 0]
    own = slopes(model.space, templates, free, model.turns, content)
    weighted = own * model.weight.flatten()
    covariance = torch.linalg.inv(weighted @ own.transpose(1, 2))
    return (covariance @ weighted @ (x - templates).flatten(1)[:, :, None])[..., 0], covariance


def test_of_noise_alone_errors_are_right(seen):
    model, templates, content, noise = seen
    theta = torch.zeros(COUNT)
    model.left_out = estimated(model, templates + noise, templates, content, theta)
    assert model.left_out[:3].max() < 0.003
    found, covariance = scatter(model, templates, content, templates + noise)
    wide = widened(model, covariance, templates, content, theta)
    wide = wide.diagonal(dim1=1, dim2=2)
    np.testing.assert_allclose((found / wide.sqrt())[:, 2:].std(0), 1, rtol=0.1)
    assert (wide.mean(0) - found.var(0))[:2].max() < 0.015**2  # px: lines out of place are told from noise up to that


def test_strain_that_is_not_free_widens_errors_by_what_it_does(seen):
    model, templates, content, noise = seen
    strain = 0.12 * torch.randn(COUNT, 2, generator=torch.Generator().manual_seed(2))
    bent = torch.einsum("np,pij,ncj->nci", strain, model.space.generators[2:4], templates)
    x, theta = templates + bent + noise, torch.zeros(COUNT)
    model.left_out = estimated(model, x, templates, content, theta)
    assert float(model.left_out[1]) == pytest.approx(0.12, rel=0.15)
    found, covariance = scatter(model, templates, content, x)
    wide = widened(model, covariance, templates, content, theta)
    normal = found / wide.diagonal(dim1=1, dim2=2).sqrt()
    too_sure = found / covariance.diagonal(dim1=1, dim2=2).sqrt()
    turn = int((model.pose_prior > 0).sum())
    assert too_sure[:, turn].std() > 1.5
    np.testing.assert_allclose(normal.std(0), 1, atol=0.25)


def test_counts_make_bright_places_noisier(seen):
    model, templates, content, _ = seen
    bright = model.space.synthesise(templates)
    bright = bright / bright.abs().amax()
    white = torch.randn(bright.shape, generator=torch.Generator().manual_seed(3))
    noise = 0.02**0.5 * model.space.analyse(white * (1 + bright).clamp_min(0).sqrt())
    found = estimated(model, templates + noise, templates, content, torch.zeros(COUNT))
    assert float(found[5]) == pytest.approx(1 / float(model.space.synthesise(templates).abs().amax()), rel=0.2)


def test_shifted_lines_widen_errors_along_them_only(seen):
    model, templates, content, noise = seen
    generator = torch.Generator().manual_seed(4)
    lines = 0.4 * torch.randn(COUNT, 1, 5, 1, generator=generator)[:, :, torch.arange(24) * 5 // 24]
    steep = torch.einsum("ij,ncj->nci", model.space.generators[0], templates)  # x of the patch is that of the image
    taper = torch.as_tensor(radial_taper(24), dtype=torch.float32).clamp_min(0.2)
    x = templates + model.space.analyse(model.space.synthesise(steep) * lines / taper) + noise
    theta = torch.zeros(COUNT)
    model.left_out = estimated(model, x, templates, content, theta)
    along_x, along_y = model.left_out[3:5].tolist()
    assert along_x == pytest.approx(0.4, rel=0.3)
    assert along_y < 0.1
    found, covariance = scatter(model, templates, content, x)
    wide = widened(model, covariance, templates, content, theta)
    wide, narrow = (matrix.diagonal(dim1=1, dim2=2)[:, :2].sqrt() for matrix in (wide, covariance))
    np.testing.assert_allclose((found[:, :2] / wide).std(0), 1, atol=0.25)
    assert (found[:, 0] / narrow[:, 0]).std() > 1.5
