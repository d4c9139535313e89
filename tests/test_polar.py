"""Polar Fourier space keeps what the band holds, and every pose has the sign that the documents say."""

import numpy as np
import pytest
import torch
from scipy.linalg import expm

from napari_rvae.polar import GENERATORS, PolarSpace, radial_taper
from napari_rvae.poses import Resampler, gauss_newton, strain_matrix, turned_shape

SIZE = 32


@pytest.fixture(scope="module")
def space():
    return PolarSpace(SIZE, 0.35)


def motif(u, v):
    """Blobs without any symmetry around the origin; u along the motif's x (columns), v along its y (rows, down)."""
    blobs = ((0.0, 0.0, 1.0), (5.0, 1.0, 0.8), (-1.0, 4.0, 0.5), (-3.0, -2.0, 0.3))
    return sum(height * np.exp(-((u - x) ** 2 + (v - y) ** 2) / (2 * 1.6**2)) for x, y, height in blobs)


def patch(theta=0.0, dx=0.0, dy=0.0, a=0.0, b=0.0, scale=0.0, size=SIZE):
    """x(r) = C(exp(-s - E) R(-theta) (r - d)), drawn from the formula; strain in the motif's own frame."""
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    rotation = np.array([[np.cos(theta), np.sin(theta)], [-np.sin(theta), np.cos(theta)]])
    values, vectors = np.linalg.eigh(np.array([[a, b], [b, -a]]))
    shrink = vectors @ np.diag(np.exp(-values - scale)) @ vectors.T
    u, v = np.einsum("ij,jyx->iyx", shrink @ rotation, np.stack([x - dx, y - dy]))
    return torch.as_tensor(motif(u, v), dtype=torch.float32)[None, None]


def harmonics(space, **pose):
    return space.analyse(patch(**pose))


def angles(*values):
    return torch.tensor(values, dtype=torch.float32)


def relative(one, other):
    return float((one - other).norm() / other.norm())


def inside_the_band(x, k_max):
    """The part of a tapered patch below k_max, by the FFT."""
    tapered = x * radial_taper(SIZE)
    tapered = tapered - radial_taper(SIZE) * tapered.sum() / radial_taper(SIZE).sum()
    spectrum = np.fft.fft2(tapered, s=(256, 256))
    k = np.hypot(np.fft.fftfreq(256)[:, None], np.fft.fftfreq(256))
    return (np.abs(spectrum[k < k_max]) ** 2).sum() / 256**2


def test_energy_within_the_band_is_kept(space):
    rng = np.random.default_rng(0)
    for x in rng.standard_normal((5, SIZE, SIZE)):
        kept = float(space.analyse(torch.as_tensor(x, dtype=torch.float32)[None, None]).square().sum())
        assert kept == pytest.approx(inside_the_band(x, space.rings / SIZE), rel=0.03)


def test_scalar_products_are_kept(space):
    one, other = patch(), patch(theta=0.8, dx=1.0)
    taper = torch.as_tensor(radial_taper(SIZE), dtype=torch.float32)

    def tapered(x):
        return x * taper - taper * (x * taper).sum() / taper.sum()

    pixels = float((tapered(one) * tapered(other)).sum())
    assert float((space.analyse(one) * space.analyse(other)).sum()) == pytest.approx(pixels, rel=0.02)


def test_analysis_and_synthesis_undo_each_other(space):
    taper = torch.as_tensor(radial_taper(SIZE), dtype=torch.float32)
    x = patch(theta=0.4, dx=0.6)
    expected = x * taper - taper * (x * taper).sum() / taper.sum()
    found = space.synthesise(space.analyse(x))
    inside = taper == 1
    np.testing.assert_allclose(found[0, 0][inside], expected[0, 0][inside], atol=0.03)
    assert relative(found, expected) < 0.12  # rings a whole 1 / D apart repeat themselves beyond the circle
    assert relative(space.analyse(found / taper.clamp_min(0.3)), space.analyse(x)) < 0.12


def test_a_constant_is_nothing(space):
    assert float(space.analyse(torch.full((1, 1, SIZE, SIZE), 7.0)).abs().max()) < 1e-3
    np.testing.assert_allclose(space.analyse(patch() + 100), space.analyse(patch()), atol=1e-3)


def test_white_noise_has_as_many_independent_coefficients_as_stated(space):
    noise = torch.randn(400, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    each = space.analyse(noise).square().mean((0, 1))
    rings = torch.zeros(space.rings).index_add_(0, space.ring.repeat(2), each)
    np.testing.assert_allclose(rings, space.degrees_of_freedom, rtol=0.15)
    assert float(rings.sum()) == pytest.approx(float(space.degrees_of_freedom.sum()), rel=0.01)


@pytest.mark.parametrize("theta", [0.3, -1.2, np.pi / 2, 2.9])
def test_turning_is_turning_the_image_from_x_toward_y(space, theta):
    assert relative(space.turn(harmonics(space), angles(theta)), harmonics(space, theta=theta)) < 0.01
    quarter = patch(theta=np.pi / 2)
    np.testing.assert_allclose(quarter[0, 0], np.rot90(patch()[0, 0], -1), atol=1e-6)  # clockwise where rows go down


def test_turning_for_each_patch_of_many_channels(space):
    both = torch.cat([harmonics(space), harmonics(space, dx=2.0)], 1).expand(3, -1, -1)
    turned = space.turn(both, angles(0.0, 0.5, -1.0))
    for row, theta in enumerate((0.0, 0.5, -1.0)):
        for channel in (0, 1):
            alone = space.turn(both[:1, channel : channel + 1], angles(theta))
            np.testing.assert_allclose(turned[row, channel], alone[0, 0], atol=1e-5)


def test_turning_has_a_derivative(space):
    h, step = harmonics(space), 1e-3
    numeric = (space.turn(h, angles(step)) - space.turn(h, angles(-step))) / (2 * step)
    assert relative(space.turning(h), numeric) < 1e-3


def test_correlations_are_those_of_templates_turned_one_by_one(space):
    generator = torch.Generator().manual_seed(0)
    x, c = torch.randn(2, 3, 2, 2 * space.terms, generator=generator)
    everything = space.correlate_all(x, c)
    assert everything.shape == (3, 3, space.angles)
    for j, theta in enumerate(space.theta.tolist()):
        turned = space.turn(c, angles(theta).expand(3))
        expected = torch.einsum("nct,sct->ns", x, turned)
        np.testing.assert_allclose(everything[:, :, j], expected, rtol=1e-3, atol=2e-3)
    np.testing.assert_allclose(space.correlate(x[:, None], c), everything, rtol=1e-3, atol=2e-3)


def test_the_highest_correlation_is_at_the_true_angle(space):
    truth = torch.linspace(-3, 3, 7)
    x = torch.cat([harmonics(space, theta=t) for t in truth.tolist()])
    best = space.theta[space.correlate(x, harmonics(space)).argmax(-1)]
    off = (best - truth + np.pi) % (2 * np.pi) - np.pi
    assert float(off.abs().max()) <= np.pi / space.angles + 1e-3


@pytest.mark.parametrize("name", GENERATORS)
def test_generators_are_the_slopes_of_moved_patterns(space, name):
    """Positive: toward +x, toward +y, longer along x, longer along the diagonal, larger."""
    pose, step = {"strain_a": "a", "strain_b": "b"}.get(name, name), 0.02
    numeric = (harmonics(space, **{pose: step}) - harmonics(space, **{pose: -step})) / (2 * step)
    generator = space.generators[GENERATORS.index(name)]
    assert relative(harmonics(space) @ generator.T, numeric) < 0.1


@pytest.mark.parametrize("size", [24, 25])
def test_slopes_are_products_with_the_generators(size):
    space = PolarSpace(size)
    few = torch.randn(3, 2, 2 * space.terms)
    which = torch.tensor([1, 3, 4])
    expected = torch.einsum("pij,ncj->npci", space.generators[which], few)
    torch.testing.assert_close(space.slopes(few, which), expected, rtol=1e-4, atol=1e-4)


def test_positive_strain_stretches_along_the_motifs_own_x():
    y, x = torch.meshgrid(torch.arange(SIZE) - 15.5, torch.arange(SIZE) - 15.5, indexing="ij")

    def width(image):
        weight = image[0, 0] / image.sum()
        return float((weight * x**2).sum() / (weight * y**2).sum())

    assert width(patch(a=0.1)) > 1.3 * width(patch())
    assert width(patch(a=0.1, theta=np.pi / 2)) < width(patch(theta=np.pi / 2)) / 1.3


POSES = [
    {"dx": 1.7, "dy": -0.6},
    {"a": 0.15, "b": -0.1},
    {"scale": 0.2},
    {"theta": 1.1, "dx": -1.2, "dy": 0.8, "a": 0.1, "b": 0.12, "scale": -0.1},
]


def image_frame(theta=0.0, dx=0.0, dy=0.0, a=0.0, b=0.0, scale=0.0):
    own = turned_shape(torch.tensor([[0, 0, a, b, 0]], dtype=torch.float32), angles(theta))
    return own + torch.tensor([[dx, dy, 0, 0, scale]], dtype=torch.float32)


@pytest.mark.parametrize("pose", POSES)
def test_the_resampler_takes_a_known_pose_out(pose):
    theta = pose.get("theta", 0.0)
    middle = slice(6, -6)
    upright = Resampler(SIZE)(patch(**pose), image_frame(**pose), angles(theta))
    np.testing.assert_allclose(upright[0, 0, middle, middle], patch()[0, 0, middle, middle], atol=0.02)
    turned = Resampler(SIZE)(patch(**pose), image_frame(**pose))
    np.testing.assert_allclose(turned[0, 0, middle, middle], patch(theta=theta)[0, 0, middle, middle], atol=0.02)


def test_the_resampler_moves_patches_by_what_is_asked_for():
    """Not by more or less within a pixel: the scatter of offsets would not be the stated one."""
    moves = torch.linspace(-0.6, 0.6, 25)
    shape = torch.nn.functional.pad(moves[:, None], (0, 4))
    axis = torch.arange(SIZE) - 15.5
    blob = torch.exp(-(axis[:, None] ** 2 + axis**2) / (2 * 2.0**2))
    moved = Resampler(SIZE)(blob[None, None].expand(len(moves), -1, -1, -1), shape)[:, 0]
    place = (moved * axis).sum((1, 2)) / moved.sum((1, 2))
    np.testing.assert_allclose(place, -moves, atol=0.003)


def test_offsets_alone_are_taken_out_by_exact_splines():
    from scipy.ndimage import map_coordinates

    images = torch.as_tensor(np.random.default_rng(0).standard_normal((3, 2, SIZE, SIZE)).astype(np.float32))
    offset = torch.tensor([[0.0, 0.0], [0.4, -0.7], [-1.3, 0.2]])
    moved = Resampler(SIZE).moved(images, offset)
    y, x = np.mgrid[:SIZE, :SIZE]
    inner = slice(2, -2)
    for image, (dx, dy), found in zip(images, offset.tolist(), moved, strict=True):
        for channel in (0, 1):
            expected = map_coordinates(image[channel].numpy(), [y + dy, x + dx], order=3, mode="mirror")
            np.testing.assert_allclose(found[channel, inner, inner], expected[inner, inner], atol=1e-5)


def test_strains_turn_twice_as_fast_as_offsets():
    shape = torch.tensor([[1.0, 0.0, 0.1, 0.0, 0.3]])
    quarter = turned_shape(shape, angles(np.pi / 2))
    np.testing.assert_allclose(quarter, [[0.0, 1.0, -0.1, 0.0, 0.3]], atol=1e-6)
    theta, shape = angles(0.7), torch.tensor([[0.3, -0.2, 0.1, 0.07, 0.05]])
    c, s = np.cos(0.7), np.sin(0.7)
    turn = torch.tensor([[c, -s], [s, c]], dtype=torch.float32)
    inside = strain_matrix(turned_shape(shape, theta))[0]
    np.testing.assert_allclose(inside, turn @ strain_matrix(shape)[0] @ turn.T, atol=1e-6)
    np.testing.assert_allclose(turned_shape(turned_shape(shape, theta), -theta), shape, atol=1e-6)


def test_strain_matrix_is_the_matrix_exponential():
    shape = torch.tensor([[0, 0, 0.2, -0.1, 0.15], [0, 0, 0, 0, 0], [0, 0, 0, 0, -0.3]])
    for row, (_, _, a, b, s) in zip(strain_matrix(shape), shape.tolist(), strict=True):
        np.testing.assert_allclose(row, expm([[s + a, b], [b, s - a]]), atol=1e-6)


def fitted(space, x, start, prior, weight, rounds=8):
    resample, template = Resampler(SIZE), harmonics(space)
    theta, shape = start
    covariance = None
    for _ in range(rounds):
        current = space.analyse(resample(x, shape))
        theta, shape, z, covariance, _ = gauss_newton(
            space, current, template.expand(len(x), -1, -1), theta, shape, weight, prior, True
        )
        assert z is None
    return theta, shape, covariance


def test_gauss_newton_converges_to_a_known_pose(space):
    pose = {"theta": 0.4, "dx": 0.9, "dy": -0.5, "a": 0.06, "b": -0.05, "scale": 0.07}
    weight, prior = torch.full((1, 2 * space.terms), 1e4), torch.tensor([5.0, 5.0, 1.0, 1.0, 1.0])
    theta, shape, _ = fitted(space, patch(**pose), (angles(0.25), torch.zeros(1, 5)), prior, weight)
    assert float(theta) == pytest.approx(0.4, abs=0.01)
    np.testing.assert_allclose(shape, image_frame(**pose), atol=0.02)


def test_what_is_not_free_stays(space):
    weight, prior = torch.full((1, 2 * space.terms), 1e4), torch.tensor([5.0, 5.0, 0.0, 0.0, 0.0])
    start = angles(0.0), torch.tensor([[0.0, 0.0, 0.03, 0.0, 0.02]])
    x = patch(dx=0.5)
    theta, shape, _, covariance, _ = gauss_newton(
        space, space.analyse(x), harmonics(space), *start, weight, prior, False
    )
    assert covariance.shape == (1, 2, 2)
    assert float(theta) == 0
    np.testing.assert_allclose(shape[0, 2:], [0.03, 0.0, 0.02], atol=1e-7)
    assert float(shape[0, 0]) == pytest.approx(0.5, abs=0.15)


def test_content_is_found_together_with_the_pose(space):
    """z adds so much of another blob; the template's derivative is that blob."""
    y, x = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    blob = torch.as_tensor(np.exp(-((x + 5) ** 2 + (y - 4) ** 2) / 6), dtype=torch.float32)[None, None]
    data = space.analyse(patch() + 0.4 * blob)
    content = torch.zeros(1, 1), torch.ones(1), space.analyse(blob)[:, None]
    weight, prior = torch.full((1, 2 * space.terms), 1e4), torch.tensor([5.0, 5.0, 0.0, 0.0, 0.0])
    *_, z, covariance, _ = gauss_newton(
        space, data, harmonics(space), angles(0.0), torch.zeros(1, 5), weight, prior, True, content
    )
    assert float(z) == pytest.approx(0.4, abs=0.01)
    assert covariance.shape == (1, 4, 4)


def test_the_stated_covariance_is_the_scatter_over_noise(space):
    sigma, n = 0.05, 400
    generator = torch.Generator().manual_seed(1)
    x = patch().expand(n, -1, -1, -1) + sigma * torch.randn(n, 1, SIZE, SIZE, generator=generator)
    weight = torch.full((1, 2 * space.terms), 1 / sigma**2)
    prior = torch.tensor([5.0, 5.0, 0.0, 0.0, 0.0])
    theta, shape, covariance = fitted(space, x, (torch.zeros(n), torch.zeros(n, 5)), prior, weight, rounds=4)
    scatter = torch.stack([shape[:, 0], shape[:, 1], theta]).std(1)
    stated = covariance.diagonal(dim1=1, dim2=2).sqrt().mean(0)
    np.testing.assert_allclose(stated, scatter, rtol=0.1)


def test_models_without_rotation_compare_one_angle():
    space = PolarSpace(SIZE, 0.25, angles=1)
    assert space.theta.tolist() == [0.0]
    x, c = harmonics(space), harmonics(space, dx=1.0)
    np.testing.assert_allclose(space.correlate(x, c), (x * c).sum((1, 2))[:, None], rtol=1e-5)


def test_no_matrix_holds_numbers_that_slow_a_product_down():
    space = PolarSpace(48)
    for matrix in (space.analysis, space.synthesis):
        assert not ((matrix != 0) & (matrix.abs() < torch.finfo(matrix.dtype).tiny)).any()


def test_sums_over_rings():
    space = PolarSpace(32, 0.3)
    each = torch.randn(3, 2 * space.terms, generator=torch.Generator().manual_seed(0))
    expected = torch.zeros(3, space.rings).index_add_(1, space.ring.repeat(2), each)
    torch.testing.assert_close(space.by_ring(each), expected)
