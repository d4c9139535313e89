"""Encoding gives every atom its row, in image pixels and radian, and decoding gives the patch back."""

import numpy as np
import pandas as pd
import pytest
import torch

from napari_rvae.errors import InputDataError, Stopped
from napari_rvae.latent import decode, encode, manifold, reconstruct
from napari_rvae.models import load_model
from napari_rvae.patches import extract_patches, patches_from_array
from napari_rvae.polar import radial_taper
from napari_rvae.samples import cards
from napari_rvae.samples.playing_cards import draw_cards
from napari_rvae.settings import PatchSettings, TrainSettings
from napari_rvae.training import trained

TINY = {"hidden": 64, "device": "cpu", "threads": 1}
SPACING = 12.0


def sampled(images):
    """Cards at half their pixels, smoothly, as a microscope would show them."""
    return patches_from_array(images, PatchSettings(working_size=24))


@pytest.fixture(scope="module")
def suits():
    """Cards in any pose, the truth, and an rVAE that has learned them."""
    images, truth = cards(3, 240, 48, noise=0.06)
    patches = sampled(images)
    return patches, truth, trained(patches, TrainSettings(epochs=45, early_stopping=False, **TINY))


@pytest.fixture(scope="module")
def table(suits):
    return encode(suits[2], suits[0])


def lattice(shift=(0.0, 0.0), shape=(240, 240)):
    """A noise-free crystal and where its atoms are said to be; they really sit `shift` (dy, dx) further."""
    image = np.zeros(shape)
    places = np.arange(SPACING / 2, shape[0], SPACING)
    for number, offset in enumerate(((0, 0), (SPACING / 2, SPACING / 2))):
        down, right = (
            np.exp(-((np.arange(shape[axis])[:, None] - places - offset[axis] - shift[axis]) ** 2) / 8).sum(1)
            for axis in (0, 1)
        )
        image += (1.0, 0.5)[number] * down[:, None] * right
    inner = places[3:-3]
    rows, columns = np.meshgrid(inner, inner, indexing="ij")
    return image, pd.DataFrame({"y": rows.ravel(), "x": columns.ravel()})


@pytest.fixture(scope="module")
def crystal():
    """A model that has learned a lattice with its atoms where they are said to be, up to a small jitter."""
    image, atoms = lattice()
    rng = np.random.default_rng(0)
    jittered = atoms + rng.normal(0, 0.15, atoms.shape)
    patches = extract_patches(image + rng.normal(0, 0.02, image.shape), jittered, PatchSettings(size=30))
    settings = TrainSettings(model="shiftvae", epochs=25, early_stopping=False, latent=1, **TINY)
    return trained(patches, settings)


def test_columns_of_an_rvae(table):
    assert list(table) == [
        "atom_id", "z1", "z2", "z1_error", "z2_error", "angle", "angle_error", "symmetry",
        "dy", "dx", "dy_error", "dx_error", "reconstruction_error", "unexplained", "patch_mean",
    ]  # fmt: skip
    assert np.isfinite(table).all(axis=None)
    assert table["atom_id"].dtype == table["symmetry"].dtype == np.int64
    assert (table["angle"].abs() <= np.pi / table["symmetry"] + 1e-6).all()


def test_scale_and_strain_have_their_columns(suits):
    settings = TrainSettings(epochs=2, invariance="rotation,scale,strain", start="scratch", **TINY)
    found = encode(trained(suits[0], settings), suits[0])
    assert {"scale", "strain_a", "strain_b", "strain_xx", "strain_yy", "strain_xy"} <= set(found)
    assert not {"dy", "dx"} & set(found)
    np.testing.assert_allclose(found["strain_xx"], -found["strain_yy"])
    in_image = (found["strain_a"] + 1j * found["strain_b"]) * np.exp(2j * found["angle"])  # relative to all atoms
    for name, part in (("strain_xx", np.real(in_image)), ("strain_xy", np.imag(in_image))):
        np.testing.assert_allclose(found[name], part - np.median(part), atol=1e-5)


def test_every_part_of_a_pose_has_its_size_and_sign():
    """Four blobs without symmetry, turned, moved, strained and scaled as the conventions say."""
    rng, n = np.random.default_rng(0), 400
    theta = rng.uniform(-np.pi, np.pi, n)
    moved, strain = 0.5 * rng.standard_normal((n, 2)), 0.06 * rng.standard_normal((n, 2))
    scale = 0.06 * rng.standard_normal(n)
    y, x = np.mgrid[:32, :32] - 15.5
    images = 0.03 * rng.standard_normal((n, 32, 32))
    for image, angle, (dx, dy), (a, b), s in zip(images, theta, moved, strain, scale, strict=True):
        value, axes = np.linalg.eigh([[a, b], [b, -a]])
        upright = axes * np.exp(-value - s) @ axes.T
        upright = upright @ [[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]
        u, v = np.einsum("ij,jyx->iyx", upright, np.stack([x - dx, y - dy]))
        for row, column, height in ((0, 0, 1.0), (1, 5, 0.8), (4, -1, 0.5), (-2, -3, 0.3)):
            image += height * np.exp(-((u - column) ** 2 + (v - row) ** 2) / 5)
    patches = patches_from_array(images.astype(np.float32))
    settings = TrainSettings(invariance="rotation,translation,scale,strain", latent=1, epochs=20, **TINY)
    found = encode(trained(patches, settings), patches)
    turn = np.exp(1j * (found["angle"] - theta))
    assert np.abs(turn.mean()) > 0.99
    own = (found["strain_a"] + 1j * found["strain_b"]).to_numpy() * np.exp(2j * np.angle(turn.mean()))
    true = strain @ [1, 1j]
    there, in_image = true * np.exp(2j * theta), (found["strain_xx"] + 1j * found["strain_xy"]).to_numpy()
    pairs = [(found["dx"], moved[:, 0]), (found["dy"], moved[:, 1]), (np.log(found["scale"]), scale)]
    pairs += [(part(own), part(true)) for part in (np.real, np.imag)]
    pairs += [(part(in_image), part(there)) for part in (np.real, np.imag)]
    for mine, right in pairs:
        slope, _ = np.polyfit(right, mine, 1)
        assert slope == pytest.approx(1, abs=0.05)
        assert np.corrcoef(mine, right)[0, 1] > 0.97


def test_patches_come_back_when_decoded_in_their_pose(suits, table):
    """decode(encode(x)) is x: not turned, not moved, not scaled."""
    patches, _, model = suits
    found = reconstruct(model, patches, table)
    taper = radial_taper(24)
    seen, known = found - found.mean((2, 3), keepdims=True), patches.data * taper
    known = known - taper * (known.sum((2, 3)) / taper.sum())[..., None, None]
    seen = seen - taper * ((seen * taper).sum((2, 3)) / (taper * taper).sum())[..., None, None]
    inner = (slice(None), 0, slice(4, -4), slice(4, -4))
    correlations = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(seen[inner], known[inner], strict=True)]
    assert np.median(correlations) > 0.97
    assert np.quantile(correlations, 0.05) > 0.9
    weight = taper / taper.sum()
    np.testing.assert_allclose((found * weight).sum((2, 3)), (patches.data * weight).sum((2, 3)), atol=0.05)


def test_patches_divided_by_their_own_contrast_are_painted_in_their_own_intensities():
    images, _ = cards(1, 120, 24)
    strong = np.where(np.arange(120) % 2, 5.0, 1.0)[:, None, None]
    two = np.stack([images * strong, 300 + 2 * images * strong], 1)  # channels on levels of their own
    patches = patches_from_array(two, PatchSettings(normalization="patch"))
    settings = TrainSettings(model="vae", latent=3, start="scratch", epochs=40, early_stopping=False, **TINY)
    model = trained(patches, settings)
    found = reconstruct(model, patches, encode(model, patches))
    taper = radial_taper(24)
    truth, found = ((part - part.mean((2, 3), keepdims=True)) * taper for part in (patches.data, found))
    slope = (truth * found).sum((1, 2, 3)) / (truth * truth).sum((1, 2, 3))
    for rows in (strong.ravel() == 1, strong.ravel() == 5):
        assert 0.6 < np.median(slope[rows]) < 1.1


def test_a_column_class_of_the_users_does_not_matter(suits, table):
    patches, _, model = suits
    found, known = (reconstruct(model, patches, one) for one in (table.assign(**{"class": 3}), table))
    np.testing.assert_array_equal(found, known)


def test_misfit_is_one_where_only_noise_is_left(table):
    assert 0.7 < table["reconstruction_error"].median() < 1.4


@pytest.mark.parametrize("theta", [0.5, -1.1])
def test_turning_a_patch_turns_its_angle_and_leaves_z(suits, theta):
    _, truth, model = suits
    label, angle = (truth[name][truth["label"] != 2].to_numpy()[:60] for name in ("label", "angle"))
    before = encode(model, sampled(draw_cards(label, angle, size=48)))
    after = encode(model, sampled(draw_cards(label, angle + theta, size=48)))
    period = 2 * np.pi / before["symmetry"]
    change = (after["angle"] - before["angle"] - theta + period / 2) % period - period / 2
    assert np.median(np.abs(change)) < 0.02
    assert (np.abs(change) < 0.1).mean() > 0.9
    moved = (after[["z1", "z2"]] - before[["z1", "z2"]]).abs().median()
    told = before[["z1_error", "z2_error"]].median().to_numpy()
    assert (moved < np.maximum(0.2 * before[["z1", "z2"]].std(), 0.5 * told)).all()


@pytest.mark.parametrize("suit", [0, 1, 2, 3])
def test_angles_follow_the_truth(suits, table, suit):
    rows = suits[1]["label"] == suit
    order = table["symmetry"][rows].mode()[0]
    assert abs(np.exp(1j * order * (table["angle"] - suits[1]["angle"])[rows]).mean()) > 0.95
    assert order == (2 if suit == 2 else 1)


@pytest.mark.parametrize("axis", ["dy", "dx"])
def test_offsets_are_image_pixels_with_the_right_sign(crystal, axis):
    shifts, seen = [0.2, 0.5, 0.8, 1.2, -0.6], []
    for shift in shifts:
        image, atoms = lattice((shift, 0) if axis == "dy" else (0, shift))
        patches = extract_patches(image, atoms, PatchSettings(size=30))
        found = encode(crystal, patches)
        seen.append(found[axis].median())
        assert abs(found["dx" if axis == "dy" else "dy"].median()) < 0.05
    slope, start = np.polyfit(shifts, seen, 1)
    assert slope == pytest.approx(1, abs=0.02)
    assert abs(start) < 0.05


@pytest.mark.parametrize("width", [2.0, 3.0])
def test_offsets_as_large_as_their_prior_says_are_found(width):
    image = np.zeros((400, 400))
    places = np.stack(np.meshgrid(*[np.arange(20.0, 390, 40)] * 2, indexing="ij"), -1).reshape(-1, 2)
    y, x = np.indices(image.shape)
    for row, column in places:  # two blobs, no symmetry but one
        image += np.exp(-((y - row) ** 2 + (x - column) ** 2) / 18) + 0.6 * np.exp(
            -((y - row - 5) ** 2 + (x - column - 4) ** 2) / 10
        )
    image += 0.03 * np.random.default_rng(0).standard_normal(image.shape)
    off = width * np.random.default_rng(1).standard_normal(places.shape).clip(-1.5, 1.5)
    atoms = pd.DataFrame(places - off, columns=["y", "x"])
    settings = TrainSettings(offset_prior=width, epochs=10, latent=1, early_stopping=False, **TINY)
    patches = extract_patches(image, atoms, PatchSettings(size=32))
    found = encode(trained(patches, settings), patches)[["dy", "dx"]].to_numpy()
    apart = found - off
    assert np.sqrt(((apart - np.median(apart, 0)) ** 2).mean()) < 0.1


def test_a_prior_on_the_angle_steadies_it():
    rng = np.random.default_rng(0)
    theta = np.deg2rad(40 + 3 * rng.standard_normal(400))  # about any orientation
    images = draw_cards([1] * len(theta), theta, size=24) + 0.5 * rng.standard_normal((len(theta), 24, 24))
    patches, rms = patches_from_array(images.astype(np.float32)), {}
    for width in (None, 3.0):
        settings = TrainSettings(angle_prior=width, epochs=10, latent=1, early_stopping=False, **TINY)
        found = encode(trained(patches, settings), patches)
        apart = np.rad2deg(found["angle"] - theta)
        rms[width] = np.sqrt(((apart - np.median(apart)) ** 2).mean())
        assert 0.6 < rms[width] / np.rad2deg(found["angle_error"]).mean() < 1.4
    assert rms[3.0] < 0.8 * rms[None]


def test_offsets_are_true_whichever_of_its_equivalent_angles_a_motif_takes():
    image, atoms = lattice()
    moved = np.random.default_rng(0).uniform(-0.9, 0.9, atoms.shape)
    patches = extract_patches(image, atoms + moved, PatchSettings(size=30))
    table = encode(trained(patches, TrainSettings(epochs=8, early_stopping=False, **TINY)), patches)
    assert (table["symmetry"] == 4).all()
    left = table[["dy", "dx"]].to_numpy() + moved
    np.testing.assert_allclose((table[["dy", "dx"]].to_numpy() * -moved).sum() / (moved**2).sum(), 1, atol=0.02)
    assert np.sqrt((left**2).mean()) < 0.03


def test_offsets_of_resampled_patches_are_image_pixels_too(crystal):
    from scipy.ndimage import zoom

    small, known = lattice((0.0, 0.7))
    large = zoom(small, 2, order=3, mode="grid-wrap", grid_mode=True)
    places = (known + 0.5) * 2 - 0.5
    found = encode(crystal, extract_patches(large, places, PatchSettings(size=60, working_size=30)))
    assert found["dx"].median() == pytest.approx(1.4, abs=0.1)


def test_every_atom_keeps_its_row(suits):
    patches, _, model = suits
    some = patches.select(np.array([5, 3, 8]))
    atoms = pd.DataFrame({"atom_id": [8, 1, 3, 5], "y": [1.0, 2, 3, 4], "x": 0.0, "z1": "old", "flag": "edge"})
    atoms.attrs["napari_rvae"] = {"spacing": 3}
    joined = encode(model, some, atoms=atoms)
    assert joined["atom_id"].tolist() == [8, 1, 3, 5]
    assert joined["y"].tolist() == [1, 2, 3, 4]
    assert joined["z1"].isna().tolist() == [False, True, False, False]
    assert joined.attrs == atoms.attrs
    alone = encode(model, some)
    np.testing.assert_allclose(joined.set_index("atom_id").loc[[5, 3, 8], "z1"], alone["z1"], rtol=1e-6)


def test_no_patch_at_all_is_said(suits):
    with pytest.raises(InputDataError, match="no patches"):
        encode(suits[2], suits[0].select(np.zeros(0, int)))


def test_encoding_changes_nothing_in_the_model_and_repeats(suits, table):
    patches, _, model = suits
    before = {name: value.clone() for name, value in model.state_dict().items()}
    again = encode(model, patches)
    pd.testing.assert_frame_equal(again, table)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_patch_is_encoded_the_same_in_any_company(suits, table):
    patches, _, model = suits
    alone = encode(model, patches.select(np.arange(7)))
    np.testing.assert_allclose(alone[["z1", "z2", "angle", "dy"]], table[["z1", "z2", "angle", "dy"]][:7], atol=2e-3)


def test_a_loaded_model_encodes_identically(suits, table, tmp_path):
    patches, _, model = suits
    model.save(tmp_path / "model.safetensors")
    again = encode(load_model(tmp_path / "model.safetensors"), patches)
    pd.testing.assert_frame_equal(again, table)


def test_errors_are_standard_deviations(suits):
    """Not variances, not logarithms: as large as the scatter of what is found over draws of the noise."""
    _, _, model = suits
    rng = np.random.default_rng(5)
    clean = draw_cards([1] * 150, 0.4, size=48)
    found = encode(model, sampled(clean + 0.06 * rng.standard_normal(clean.shape)))
    told = [name for name in ("z1", "z2") if found[f"{name}_error"].median() < 0.5]  # the prior shrinks the others
    assert told
    for name in (*told, "angle", "dy", "dx"):
        scatter = 1.48 * (found[name] - found[name].median()).abs().median()
        assert 0.5 < found[f"{name}_error"].median() / scatter < 4, name


def test_progress_and_stop(suits):
    patches, _, model = suits
    told = []
    encode(model, patches, progress=lambda *a: told.append(a))
    assert told[-1][0] == 1.0
    with pytest.raises(Stopped):
        encode(model, patches, stop=lambda: True)


def test_decoding_is_upright_in_the_common_frame(suits, table):
    _, truth, model = suits
    rows = np.flatnonzero(truth["label"] == 1)[:20]
    z = table.loc[rows, ["z1", "z2"]].to_numpy()
    images = decode(model, z)
    assert images.shape == (20, 1, 24, 24)
    together = np.corrcoef(images.reshape(20, -1))
    assert np.median(together) > 0.95  # whatever the angle of the patch was
    assert decode(model, z[0]).shape == (1, 1, 24, 24)


def test_manifold(suits):
    model = suits[2]
    grid = manifold(model, steps=3, extent=1.0)
    assert grid.shape == (1, 72, 72)
    np.testing.assert_allclose(grid[:, 24:48, 24:48], decode(model, [[0.0, 0.0]])[0], atol=1e-5)
    np.testing.assert_allclose(grid[:, 24:48, 48:], decode(model, [[1.0, 0.0]])[0], atol=1e-5)
    np.testing.assert_allclose(grid[:, 48:, 24:48], decode(model, [[0.0, 1.0]])[0], atol=1e-5)
    np.testing.assert_allclose(manifold(model, 1, center=[1, 0]), decode(model, [[1.0, 0.0]])[0], atol=1e-5)


def test_manifolds_of_other_models(crystal, suits):
    assert manifold(crystal, steps=4).shape == (1, 30, 120)
    for axes in ((0, 2), (-1, 0)):
        with pytest.raises(InputDataError, match="2 latents"):
            manifold(suits[2], axes=axes)


@pytest.mark.parametrize(
    ("z", "classes", "words"),
    [
        ([[0.0]], None, "2 latents"),
        ([[0.0, np.nan]], None, "finite"),
        ([[0, 0]], [1], "Classes"),
        ([[0, 0]], [0, 0], "Classes"),
    ],
)
def test_numbers_that_do_not_fit_the_model(suits, z, classes, words):
    with pytest.raises(InputDataError, match=words):
        decode(suits[2], z, classes)


def test_patches_that_do_not_fit_the_model(suits, table):
    patches, _, model = suits
    with pytest.raises(InputDataError, match="24 pixels"):
        encode(model, patches_from_array(np.random.default_rng(0).random((3, 20, 20))))
    with pytest.raises(InputDataError, match="channel"):
        encode(model, patches_from_array(np.random.default_rng(0).random((3, 2, 24, 24))))
    with pytest.raises(InputDataError, match="240 patches but 3"):
        reconstruct(model, patches, table[:3])


def test_conditions():
    images, truth = cards(1, 60, 24)
    patches, label = patches_from_array(images), truth["label"].to_numpy()
    model = trained(patches, TrainSettings(model="cvae", epochs=3, **TINY), condition=label)
    found = encode(model, patches, condition=label)
    other = encode(model, patches, condition=(label + 1) % 4)
    assert other["reconstruction_error"].mean() > found["reconstruction_error"].mean()
    np.testing.assert_allclose(encode(model, patches, condition=np.eye(4)[label])["z1"], found["z1"])
    assert decode(model, [[0.0, 0.0]], condition=[2]).shape == (1, 1, 24, 24)
    for wrong in (None, label[:7], np.zeros((60, 3)), np.full(60, 4), np.full((60, 4), np.nan), np.full(60, "a")):
        with pytest.raises(InputDataError, match="condition"):
            encode(model, patches, condition=wrong)


def test_latents_do_not_tell_the_class_that_was_given_but_decode_to_the_patches():
    x, truth = cards(1, 80, 24)
    patches, label = patches_from_array(x), truth["label"].to_numpy()
    model = trained(patches, TrainSettings(model="cvae", epochs=3, **TINY), condition=label)
    table = encode(model, patches, condition=label)
    z = table[["z1", "z2"]].to_numpy()
    for suit in range(4):
        np.testing.assert_allclose(np.cov(z[label == suit].T, bias=True), np.eye(2), atol=0.05)
    decoded = decode(model, z, condition=label)
    understood = reconstruct(model, patches, table, condition=label)
    understood -= understood.mean((2, 3), keepdims=True)
    assert np.corrcoef(understood.ravel(), decoded.ravel())[0, 1] > 0.99


@pytest.mark.parametrize("given", [np.array(["b", "a", "c", "a"]), np.array([True, False, False, True]), [7, 3, 5, 3]])
def test_classes_are_told_by_name_whatever_their_kind(given):
    patches, given = patches_from_array(cards(1, 40, 24)[0]), np.tile(given, 10)
    model = trained(patches, TrainSettings(model="cvae", epochs=1, **TINY), condition=given)
    assert model.conditions == len(np.unique(given))
    codes = np.eye(model.conditions)[np.unique(given, return_inverse=True)[1]]
    expected = encode(model, patches, condition=codes)
    np.testing.assert_array_equal(encode(model, patches, condition=given)["z1"], expected["z1"])


def test_a_quantity_trains_alike_in_every_unit_and_is_scaled_again(tmp_path):
    patches = patches_from_array(cards(1, 40, 24)[0])
    celsius = np.random.default_rng(0).integers(20, 320, 40)  # whole numbers, but too many to be classes
    tables = []
    for given in (celsius, (celsius + 273.0)[:, None], celsius / 100 - 2):
        model = trained(patches, TrainSettings(model="cvae", epochs=1, **TINY), condition=given)
        assert model.conditions == 1
        model.save(tmp_path / "model.safetensors")
        tables.append(encode(load_model(tmp_path / "model.safetensors"), patches, condition=given))
    for other in tables[1:]:
        np.testing.assert_allclose(other["z1"], tables[0]["z1"], atol=1e-2)


def test_a_number_as_condition_is_not_a_class():
    images, _ = cards(1, 40, 24)
    patches = patches_from_array(images)
    model = trained(patches, TrainSettings(model="cvae", epochs=1, **TINY), condition=np.linspace(0, 1, 40))
    one = encode(model, patches, condition=np.zeros(40, int))
    np.testing.assert_allclose(one["z1"], encode(model, patches, condition=np.zeros(40))["z1"])
    np.testing.assert_allclose(decode(model, [[0, 0]], condition=[0]), decode(model, [[0, 0]], condition=[0.0]))
