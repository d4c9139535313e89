"""The objective is the sum that its formula says, and it can be learned from."""

import math

import numpy as np
import pytest
import torch

from napari_rvae.errors import SettingsError
from napari_rvae.models.inference import decoder_slope, infer, log_angle_prior


def harmonics_of(model, n=6, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, model.channels, 2 * model.space.terms, generator=generator)


def uniform(model):
    return log_angle_prior(model, torch.zeros(1))


@pytest.mark.parametrize("name", ["rvae", "jrvae", "vae"])
def test_the_angle_posterior_is_that_of_trying_every_angle(make_model, name):
    model = make_model(name, classes=3, channels=2)
    x = harmonics_of(model)
    with torch.no_grad():
        found = model.objective(x, uniform(model), sample=False)
        z, _ = model.encode(x)
        templates = model.decode(z)
    log_joint = torch.empty(len(x), model.classes, model.space.angles)
    for c in range(model.classes):
        for j, theta in enumerate(model.space.theta.tolist()):
            turned = model.space.turn(templates[:, c], torch.full((len(x),), theta))
            log_joint[:, c, j] = -0.5 * ((x - turned).square() * model.weight).sum((1, 2))
    log_joint -= math.log(model.classes * model.space.angles)
    expected = log_joint.flatten(1).logsumexp(1)
    np.testing.assert_allclose(found.data, expected, rtol=1e-4)
    np.testing.assert_allclose(found.posterior, (log_joint - expected[:, None, None]).exp(), atol=2e-3)
    np.testing.assert_allclose(found.posterior.sum((1, 2)), 1, atol=1e-4)
    assert found.posterior.shape[1] == (3 if name == "jrvae" else 1)


def test_the_divergence_is_that_of_normal_distributions(make_model):
    model = make_model()
    x = harmonics_of(model)
    with torch.no_grad():
        mean, log_deviation = model.encode(x)
        found = model.objective(x, uniform(model))
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(normal(mean, log_deviation.exp()), normal(0, 1)).sum(1)
    np.testing.assert_allclose(found.divergence, expected, rtol=1e-4, atol=1e-5)


def test_an_autoencoder_samples_nothing_and_has_no_divergence(make_model):
    model = make_model("ae")
    x = harmonics_of(model)
    one, other = (model.objective(x, uniform(model)) for _ in range(2))
    assert torch.equal(one.data, other.data)
    assert float(one.divergence.abs().max()) == 0
    variational = make_model("vae")
    one, other = (variational.objective(x, uniform(variational)) for _ in range(2))
    assert not torch.equal(one.data, other.data)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("rvae", {}),
        ("jrvae", {"classes": 2}),
        ("vae", {"skip": True}),
        ("vae", {"encoder": "convolutional"}),
        ("rvae", {"decoder": "coordinate"}),
    ],
)
def test_gradients_are_the_slopes_of_the_objective(make_model, name, options):
    model = make_model(name, **options, hidden=8).double()
    x, prior = harmonics_of(model).double(), uniform(model)

    def loss():
        found = model.objective(x, prior, sample=False)
        return (found.divergence - found.data).mean()

    loss().backward()
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        direction = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        slope = float((parameter.grad * direction).sum())
        step = 1e-6
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                parameter.add_(direction, alpha=sign * step)
                values.append(float(loss()))
                parameter.sub_(direction, alpha=sign * step)
        assert slope == pytest.approx((values[0] - values[1]) / (2 * step), rel=2e-3, abs=1e-4)


@pytest.mark.parametrize("theta", [0.37, -2.1])
def test_what_the_encoder_says_does_not_depend_on_the_angle(make_model, theta):
    model = make_model(hidden=64)
    x = harmonics_of(model, 20)
    with torch.no_grad():
        z, deviation = model.encode(x)
        turned, also = model.encode(model.space.turn(x, torch.full((20,), theta)))
        plain = make_model("vae", hidden=64)
        before = plain.encode(x)[0]
        different = plain.encode(model.space.turn(x, torch.full((20,), theta)))[0] - before
    assert float((turned - z).std() / z.std()) < 0.02
    assert float((also - deviation).abs().max()) < 0.05
    assert float(different.std() / before.std()) > 0.1


def test_labels_leave_one_class_and_teach_it(make_model):
    model = make_model("ssrvae", classes=3)
    x = harmonics_of(model)
    labels = torch.tensor([0, 2, -1, 1, -1, 2])
    with torch.no_grad():
        free = model.objective(x, uniform(model), sample=False)
        found = model.objective(x, uniform(model), labels, sample=False)
    log_class = free.posterior.sum(2).log()
    for row, label in enumerate(labels.tolist()):
        if label < 0:
            assert float(found.supervised[row]) == 0
            assert float(found.data[row]) == pytest.approx(float(free.data[row]))
        else:
            assert found.posterior[row].sum(1).argmax() == label
            assert float(found.posterior[row, label].sum()) == pytest.approx(1, abs=1e-5)
            if float(log_class[row, label]) > -50:
                assert float(found.supervised[row]) == pytest.approx(float(log_class[row, label]), rel=0.01, abs=0.01)
            assert float(found.data[row]) <= float(free.data[row]) + 1e-4


def test_a_condition_changes_what_is_decoded(make_model):
    model = make_model("crvae", conditions=3)
    z = torch.zeros(2, 2)
    with torch.no_grad():
        one, other = model.decode(z, torch.eye(3)[:2])
    assert one.shape == (1, 1, 2 * model.space.terms)
    assert float((one - other).abs().max()) > 1e-3


@pytest.mark.parametrize("decoder", ["spectrum", "coordinate"])
def test_decoded_slopes_are_finite_differences(make_model, decoder):
    model = make_model("jrvae", classes=2, decoder=decoder).double()
    z, which, step = torch.randn(3, 2, dtype=torch.float64), torch.tensor([0, 1, 1]), 1e-6
    slope = decoder_slope(model, z, which, None).detach()
    rows = torch.arange(3)
    for axis in range(2):
        move = step * torch.eye(2, dtype=torch.float64)[axis]
        numeric = (model.decode(z + move)[rows, which] - model.decode(z - move)[rows, which]).detach() / (2 * step)
        np.testing.assert_allclose(slope[:, axis], numeric, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["rvae", "shiftvae", "jrvae", "crvae"])
def test_a_step_stays_on_the_models_device(make_model, name):
    """On the meta device nothing is computed, but a tensor made elsewhere is an error."""
    model = make_model(name, classes=2, conditions=2 if name == "crvae" else 0).to("meta")
    n = 4
    x = torch.empty(n, 1, 2 * model.space.terms, device="meta")
    condition = torch.empty(n, 2, device="meta") if name == "crvae" else None
    prior = torch.empty(1, 1, model.space.angles, device="meta")
    found = model.objective(x, prior, torch.empty(n, dtype=torch.int64, device="meta"), condition)
    (found.divergence - found.data - found.supervised).mean().backward()
    residual = model.residual(x, found.templates.detach(), found.posterior)
    assert residual.device.type == "meta"
    assert residual.shape == model.noise.shape
    assert all(p.grad is not None and p.grad.device.type == "meta" for p in model.parameters())
    assert model.resample(torch.empty(n, 1, 24, 24, device="meta"), torch.empty(n, 5, device="meta")).is_meta
    assert model.resample.moved(torch.empty(n, 1, 24, 24, device="meta"), torch.empty(n, 2, device="meta")).is_meta


@pytest.mark.parametrize("theta", [0.0, 1.3, -2.8])
def test_pose_and_content_are_inferred_from_what_the_model_itself_draws(make_model, theta):
    model = make_model(size=32, hidden=32)
    with torch.no_grad():
        model.noise.fill_(1e-3)
        start = torch.randn(2 * model.space.terms) * torch.exp(-0.5 * (model.space.ring.repeat(2) / 2.0) ** 2)
        model.decoder.start_from(start[None])
        z, _ = model.encode(torch.zeros(1, 1, 2 * model.space.terms))
        drawn = model.space.turn(model.decode(z)[:, 0], torch.tensor([theta]))
        x = model.space.synthesise(drawn)
        found = infer(model, x, torch.zeros(1, 5), steps=4)
    assert abs(math.remainder(float(found.theta) - theta, 2 * math.pi)) < 0.1
    assert float(found.shape[:, :2].abs().max()) < 0.3
    assert float(found.log_angles.exp().sum()) == pytest.approx(1, abs=1e-4)


def test_a_prior_on_the_angle_is_a_normal_distribution(make_model):
    model = make_model(angle_prior=20.0)
    log_prior = log_angle_prior(model, torch.zeros(1))[0, 0]
    assert float(log_prior.exp().sum()) == pytest.approx(1, abs=1e-5)
    theta = (model.space.theta + np.pi) % (2 * np.pi) - np.pi
    spread = float((log_prior.exp() * theta**2).sum().sqrt())
    assert math.degrees(spread) == pytest.approx(20, rel=0.02)
    flat = log_angle_prior(make_model(), torch.zeros(1))
    assert float(flat.exp().sum()) == pytest.approx(1, abs=1e-5)
    assert float(flat.max() - flat.min()) == 0


def test_the_misfit_of_each_ring_is_the_mean_over_the_posterior(make_model):
    model = make_model("jrvae", classes=2)
    x = harmonics_of(model)
    with torch.no_grad():
        found = model.objective(x, uniform(model), sample=False)
        residual = model.residual(x, found.templates, found.posterior)
    expected = torch.zeros_like(x)
    for c in range(2):
        for j, theta in enumerate(model.space.theta.tolist()):
            turned = model.space.turn(found.templates[:, c], torch.full((len(x),), theta))
            expected += found.posterior[:, c, j, None, None] * (x - turned).square()
    total = torch.zeros_like(model.noise).index_add_(1, model.space.ring.repeat(2), expected.mean(0))
    np.testing.assert_allclose(residual, total / model.space.degrees_of_freedom, rtol=1e-3)


def test_priors_are_there_for_what_is_free(make_model):
    model = make_model("rvae", offset_prior=1.2, invariance="rotation,translation,scale")
    model.recipe["step"] = [0.5, 0.5]
    np.testing.assert_allclose(model.pose_prior, [2.4, 2.4, 0, 0, 0.2])
    model.recipe["step"] = [0.5, 2.0]  # not square in the image, but in the patch
    np.testing.assert_allclose(model.pose_prior[:2], [1.2, 1.2])
    model.recipe["step"] = [0.2, 0.2]
    with pytest.raises(SettingsError, match="6 pixels of the patches wide; 3 can be searched"):
        _ = model.pose_prior
    assert make_model("vae").pose_prior.tolist() == [0] * 5
    assert make_model("vae").space.angles == 1


def test_the_kind_of_a_patch_is_the_one_that_looks_most_alike(make_model):
    model = make_model()
    kinds = model.decode(torch.tensor([[0.0, 0.0], [2.0, 0.0]])).detach()[:, 0]
    model.set_frames(kinds, torch.zeros(2), torch.zeros(2, 5), torch.ones(2, dtype=torch.int64))
    assert model.kind_of(kinds[[1, 0, 1]]).tolist() == [1, 0, 1]
    assert model.kind_of(kinds[[0, 1]] * 0.6 + kinds[[1, 0]] * 0.4).tolist() == [0, 1]


def test_what_is_known_is_taken_out_of_the_latents(make_model):
    model = make_model("crvae", conditions=3)
    torch.manual_seed(0)
    which = torch.arange(300) % 3
    known = torch.nn.functional.one_hot(which, 3).float()
    z = torch.randn(300, 2) * torch.tensor([0.5, 1.0, 2.0])[which, None] + which[:, None]
    model.set_given(z, known)
    alike, change = model.apart(z, known)
    assert torch.allclose(model.together(alike, known), z, atol=1e-4)
    assert torch.allclose(model.together(alike + change @ torch.ones(2), known), z + 1, atol=1e-4)
    each = torch.stack([torch.cat([alike[which == k].mean(0), alike[which == k].std(0)]) for k in range(3)])
    assert torch.allclose(each, torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(3, -1), atol=0.05)


def test_what_grows_with_a_known_quantity_is_taken_out_of_the_latents(make_model):
    model = make_model("crvae", conditions=1)
    known = torch.linspace(300, 500, 80)[:, None]
    z = 0.01 * (known - 400) + torch.randn(80, 2, generator=torch.Generator().manual_seed(0))
    model.set_given(z, known)
    own, _ = model.apart(z, known)
    assert abs(np.corrcoef(own[:, 0], known[:, 0])[0, 1]) < 1e-3
    assert model.given_stretch.abs().sum() == 2
