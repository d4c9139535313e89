import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.ndimage import binary_dilation, gaussian_filter, map_coordinates, zoom
from skimage.feature import peak_local_max

from napari_rvae.atoms import find_atoms, prepare
from napari_rvae.errors import InputDataError, Stopped
from napari_rvae.settings import FindSettings
from tests.atoms.conftest import draw, f1, lattice, matched

COLUMNS = ["atom_id", "y", "x", "amplitude", "background", "sigma", "snr", "error", "sublattice", "flag"]


def positions_of(table):
    return table[["y", "x"]].to_numpy()


def test_a_crystal_needs_no_parameter(perovskite):
    image, true, kind = perovskite
    atoms = find_atoms(image)
    assert list(atoms) == COLUMNS
    assert f1(positions_of(atoms), true, 3, image.shape) >= 0.99
    found = atoms.attrs["napari_rvae"]
    assert found["contrast"] == "bright"
    assert found["sigma"] == pytest.approx(2.3, rel=0.1)
    assert found["spacing"] == pytest.approx(np.hypot(20.6, 2.1) / np.sqrt(2), rel=0.03)
    index = matched(positions_of(atoms), true, 3)
    same = (atoms["sublattice"].to_numpy() == kind[index])[index >= 0]
    assert same.mean() > 0.99, "the brighter sublattice is 0"
    heavy = atoms[(atoms["sublattice"] == 0) & (atoms["flag"] == "")]
    assert heavy["amplitude"].median() == pytest.approx(40, rel=0.05)
    assert heavy["background"].median() == pytest.approx(2, abs=0.7)


def test_atoms_that_noise_hides_are_found_by_their_lattice():
    shape = (256, 256)
    true, kind = lattice(shape, (21, 2), (-2, 21), ((0, 0), (0.5, 0.5)))
    image = np.random.default_rng(1).normal(0, 1, shape) + draw(shape, true, np.where(kind == 0, 3, 0.75))
    heavy_only = prepare(image).positions()
    assert len(heavy_only) < 0.7 * len(true), "the light ones must not stand out by themselves"
    assert f1(positions_of(find_atoms(image)), true, 5, shape) > 0.93


def test_a_vacancy_is_not_filled_in():
    shape = (200, 200)
    true, _ = lattice(shape, (14, 1), (6, 13))
    missing = np.argmin(np.hypot(*(true - [100, 100]).T))
    image = np.random.default_rng(2).poisson(3 + 40 * draw(shape, np.delete(true, missing, 0)))
    found = positions_of(find_atoms(image))
    assert np.hypot(*(found - true[missing]).T).min() > 4
    assert f1(found, np.delete(true, missing, 0), 3, shape) > 0.99


def test_grains_of_any_orientation():
    shape = (256, 256)
    left, _ = lattice(shape, (13, 0), (6.5, 11.3))
    right, _ = lattice(shape, (12.2, 4.4), (2.3, 12.8))
    true = np.concatenate([left[left[:, 1] < 122], right[right[:, 1] > 132]])
    image = np.random.default_rng(3).poisson(1 + 8 * draw(shape, true))
    assert f1(positions_of(find_atoms(image)), true, 3.5, shape) > 0.98


def test_a_bent_lattice_of_few_periods_is_seen():
    rng = np.random.default_rng(1)
    bend = gaussian_filter(rng.standard_normal((2, 192, 192)), (0, 30, 30))
    down, across = np.mgrid[:192, :192] + 6 * bend / bend.std()
    waves = (np.cos(2 * np.pi / 19 * (np.sin(k) * down + np.cos(k) * across)) for k in np.deg2rad([34, 94, 154]))
    image = np.exp(0.8 * sum(waves)) / 3
    true = peak_local_max(image, min_distance=8)
    noisy = image + 3 * rng.standard_normal(image.shape)
    assert f1(positions_of(find_atoms(noisy)), true, 6, image.shape) > 0.8


@pytest.mark.parametrize("shape", [(16, 16), (24, 24), (50, 50), (32, 300), (300, 40)])
def test_small_images_of_noise_hold_no_atoms(shape):
    assert len(find_atoms(np.random.default_rng(0).normal(size=shape))) == 0


def test_atoms_of_a_blurred_honeycomb_are_not_taken_for_its_holes():
    shape = (256, 256)
    bright, _ = lattice(shape, (0, 20.8), (18, 10.4), ((0, 0), (1 / 3, 1 / 3)))
    image = np.random.default_rng(1).poisson(1.5 * (1 + draw(shape, bright, sigma=3.6)))
    assert f1(positions_of(find_atoms(image)), bright, 5, shape) > 0.95
    dark, _ = lattice(shape, (0, 20.8), (18, 10.4))
    image = np.random.default_rng(1).poisson(8 * (1.2 - draw(shape, dark, sigma=3.6)))
    atoms = find_atoms(image)
    assert atoms.attrs["napari_rvae"]["contrast"] == "dark"
    assert f1(positions_of(atoms), dark, 5, shape) > 0.95


@pytest.mark.parametrize("factor", [1e-9, 1e9, -1])
def test_units_and_contrast_do_not_matter(perovskite, factor):
    image, *_ = perovskite
    plain, other = find_atoms(image), find_atoms(image * float(factor))
    assert np.abs(positions_of(plain) - positions_of(other)).max() < 0.01
    np.testing.assert_allclose(other["amplitude"], plain["amplitude"] * factor, rtol=0.01, atol=abs(factor) * 0.1)
    assert other.attrs["napari_rvae"]["contrast"] == ("dark" if factor < 0 else "bright")


@pytest.mark.parametrize("dtype", ["uint8", "int32", "float16", "float32", ">f8"])
def test_types_do_not_matter(perovskite, dtype):
    image, *_ = perovskite
    plain, other = find_atoms(image.astype(float)), find_atoms(image.astype(dtype))
    assert len(plain) == len(other)
    assert np.abs(positions_of(plain) - positions_of(other)).max() < 0.05


def test_the_same_image_gives_the_same_table(perovskite):
    image, *_ = perovskite
    pd.testing.assert_frame_equal(find_atoms(image), find_atoms(image), check_exact=True)


@pytest.mark.parametrize("sigma", [1.2, 3.0, 7.0])
def test_few_atoms_without_a_lattice(sigma):
    true = np.array([[60.3, 70.8], [130.6, 160.1], [180.2, 60.7]])
    image = draw((240, 240), true, sigma=sigma) + np.random.default_rng(4).normal(0, 0.05, (240, 240))
    atoms = find_atoms(image)
    assert len(atoms) == 3
    assert (matched(positions_of(atoms), true, 0.3) >= 0).all()
    np.testing.assert_allclose(atoms["sigma"], sigma, rtol=0.15)
    assert (atoms["flag"] == "").all()


@pytest.mark.parametrize(("spacing", "sigma"), [(3.5, 0.9), (4.4, 1.0), (60, 9), (110, 20)])
def test_spacings_from_a_few_pixels_to_a_quarter_of_the_image(spacing, sigma):
    shape = (256, 256) if spacing < 100 else (600, 600)
    true, _ = lattice(shape, (spacing, 0.3), (-0.3, spacing), origin=(spacing / 2, spacing / 2))
    image = draw(shape, true, sigma=sigma) + np.random.default_rng(5).normal(0, 0.05, shape)
    assert f1(positions_of(find_atoms(image)), true, spacing / 4, shape) > 0.98


def noises(rng, side=384):
    from scipy.ndimage import gaussian_filter1d

    white = rng.normal(size=(side, side))
    yield "white", white
    yield "Poisson", rng.poisson(3, (side, side))
    yield "offset lines", white + 2 * rng.normal(size=(side, 1))
    yield "drifting lines", white + 0.3 * np.cumsum(rng.normal(size=(side, 1)), 0)
    yield "smeared lines", white + 3 * gaussian_filter1d(rng.normal(size=(side, side)), 5, axis=1)
    yield "smeared columns", white + 3 * gaussian_filter1d(rng.normal(size=(side, side)), 5, axis=0)


def test_noise_is_not_taken_for_atoms():
    counts = {}
    for seed in range(2):
        for name, image in noises(np.random.default_rng(seed)):
            atoms = find_atoms(image)
            assert list(atoms) == COLUMNS
            assert set(atoms.attrs["napari_rvae"]) == {"spacing", "sigma", "contrast", "target", "threshold"}
            counts[name, seed] = len(atoms)
    assert sum(counts.values()) <= 2, counts


@pytest.mark.parametrize("factor", [2, 3])
def test_images_that_were_enlarged_hold_no_more_and_no_fewer_atoms(factor):
    rng = np.random.default_rng(factor)
    for image in (rng.normal(size=(300, 300)), rng.poisson(20, (300, 300)).astype(float)):
        assert len(find_atoms(zoom(image, factor, order=3))) <= 1
    frequency = np.fft.fftfreq(400)
    sharp = np.hypot(frequency[:, None], frequency) < 0.5 / factor
    assert len(find_atoms(np.fft.ifft2(np.fft.fft2(rng.normal(size=(400, 400))) * sharp).real)) <= 1
    true, _ = lattice((160, 160), (14, 1), (6, 13))
    image = rng.poisson(2 + 6 * draw((160, 160), true)).astype(float)
    large = zoom(image, factor, order=3)
    before, after = find_atoms(image), find_atoms(large)
    assert f1(positions_of(after), true * (160 * factor - 1) / 159, 3 * factor, large.shape, 5 * factor) > 0.98
    assert after["snr"].median() == pytest.approx(before["snr"].median(), rel=0.3)


def test_scan_lines_of_a_filtered_crystal_cost_no_atoms():
    rng, side = np.random.default_rng(0), 300
    true, _ = lattice((side, side), (9.3, 0.3), (-0.3, 9.3))
    signal = 20 * draw((side, side), true, 1.8) + 8 * draw((side, side), true + 4.65, 1.8)
    y, x = np.mgrid[:side, :side].astype(float)
    signal = map_coordinates(signal, [y, x + rng.normal(0, 0.5, (side, 1))], order=3, mode="reflect")
    frequency = np.fft.fftfreq(side)
    sharp = np.hypot(frequency[:, None], frequency) < 0.26
    image = np.fft.ifft2(np.fft.fft2(rng.poisson(20 * np.maximum(signal, 0) + 40)) * sharp).real
    inner = true[np.all((true > 12) & (true < side - 12), axis=1)]
    assert (matched(inner, positions_of(find_atoms(image)), 2) >= 0).all()


def test_smooth_backgrounds_have_no_atoms():
    y, x = np.mgrid[:256, :256] / 255
    for image in (x, x + 2 * y, x * y, np.exp(3 * x), np.sin(3 * x) * np.cos(2 * y), 1 / (1 + np.exp(10 - 20 * x))):
        assert len(find_atoms(image)) == 0
        eight_bits = 255 * (image - image.min()) / np.ptp(image)
        assert len(find_atoms(eight_bits.astype(np.uint8))) == 0
        assert len(find_atoms((eight_bits / 12).astype(np.uint8))) == 0, "contours are no atoms"


def test_dead_lines_and_missing_pixels_cost_only_what_they_hide(perovskite):
    image, true, _ = perovskite
    damaged = image.astype(float)
    damaged[60:75, 90:110] = np.nan
    damaged[10, 10] = np.inf
    damaged[:, 150] = 0
    found = positions_of(find_atoms(damaged))
    hidden = np.all((true > [59, 89]) & (true < [76, 111]), axis=1)
    assert f1(found, true[~hidden], 3, image.shape) > 0.97


@pytest.fixture(scope="module")
def crystal():
    """A plain crystal: signal without noise, counts, positions."""
    true, _ = lattice((256, 256), (14, 1), (6, 13))
    signal = 3 + 40 * draw((256, 256), true)
    return signal, np.random.default_rng(0).poisson(signal).astype(float), true


def _bar(value):
    def draw_bar(image):
        image[236:242, 130:230] = value

    return draw_bar


def _disc(image):
    y, x = np.mgrid[:256, :256]
    image[np.hypot(y - 128, x - 100) < 22] = 3 * image.max()


def _dead_lines(image):
    lines = np.random.default_rng(0).permutation(256)
    image[lines[:20]] = 0
    image[:, lines[100:120]] = 0


def _margin(image):
    image[:40] = image[:, :30] = 0


@pytest.mark.parametrize("burn", [_bar(65535), _bar(0), _bar(400), _disc, _dead_lines, _margin])
@pytest.mark.parametrize("offset", [0, 100])
def test_what_measured_nothing_changes_nothing_elsewhere(crystal, burn, offset):
    _, image, true = crystal
    burned = (image + offset).astype(np.uint16)
    burn(burned)
    empty = ~np.isclose(burned, image + offset) if burn is not _dead_lines else np.zeros(image.shape, bool)
    seen = ~binary_dilation(empty, iterations=5)
    atoms = find_atoms(burned)
    found, plain = positions_of(atoms), find_atoms(image)
    kept = [at[seen[tuple(np.round(at).astype(int).clip(0, 255).T)]] for at in (found, true)]
    assert f1(*kept, 3, image.shape) > 0.995
    assert (atoms.attrs["napari_rvae"]["contrast"], plain.attrs["napari_rvae"]["contrast"]) == ("bright", "bright")
    assert atoms.attrs["napari_rvae"]["sigma"] == pytest.approx(plain.attrs["napari_rvae"]["sigma"], rel=0.02)


@pytest.mark.parametrize("value", [65535, 400])
def test_a_bar_hides_no_lone_atom(value):
    true = np.array([[60.0, 60], [130, 180], [200, 80]])
    image = np.random.default_rng(0).poisson(5 + 100 * draw((256, 256), true))
    image[240:246, 130:230] = value
    found = positions_of(find_atoms(image))
    assert len(found) == 3
    assert (matched(found, true, 1) >= 0).all()


@pytest.mark.parametrize("angle", [0.1, 0.4, 0.8])
@pytest.mark.parametrize("height", [10, 40])
def test_slanted_steps_make_no_atoms(crystal, angle, height):
    signal, _, true = crystal
    y, x = np.mgrid[:256, :256]
    step = height * (x * np.cos(angle) + y * np.sin(angle) > 150)
    rng = np.random.default_rng(7)
    assert f1(positions_of(find_atoms(rng.poisson(signal + step))), true, 3.5, step.shape) > 0.95
    assert len(find_atoms(rng.poisson(3 + step))) <= 1


@pytest.mark.parametrize(
    ("angle", "width", "profile", "height"),
    [(17, 2, "step", 20), (3, 2, "line", 20), (45, 5, "step", 20), (80, 5, "line", 20), (45, 0.6, "line", 3)],
)
def test_a_step_or_a_line_is_neither_a_lattice_nor_a_row_of_atoms(angle, width, profile, height):
    y, x = np.mgrid[-256:256, -256:256]
    off = y * np.cos(np.radians(angle)) + x * np.sin(np.radians(angle))
    shape = 1 / (1 + np.exp(-off / width)) if profile == "step" else np.exp(-((off / width) ** 2) / 2)
    assert len(find_atoms(np.random.default_rng(0).normal(size=off.shape) + height * shape)) <= 1


def test_a_scale_bar_with_its_label_is_no_row_of_atoms(crystal):
    _, image, true = crystal
    burned = image.copy()
    burned[218:250, 10:110], burned[238:241, 20:100] = 0, image.max()
    for left in range(30, 90, 9):
        burned[224:232, left : left + 2] = burned[224:226, left : left + 6] = image.max()
    found = positions_of(find_atoms(burned))

    def outside(places):
        return places[~np.all((places > [214, 6]) & (places < [254, 114]), axis=1)]

    assert f1(outside(found), outside(true), 3, image.shape) > 0.98
    assert len(found) < len(true) + 20, "a few at its edges, not thousands"


def test_saturated_atoms_and_areas_do_no_harm(crystal):
    _, image, true = crystal
    assert f1(positions_of(find_atoms(np.minimum(image, 22))), true, 3, image.shape) > 0.98
    burned = image.copy()
    burned[60:150, 70:160] = 60
    atoms = find_atoms(burned)
    found = positions_of(atoms)
    inside = np.all((found > [66, 76]) & (found < [144, 154]), axis=1)
    assert inside.sum() <= 25, "a few at its edges"
    hidden = np.all((true > [54, 64]) & (true < [156, 166]), axis=1)
    around = np.all((found > [54, 64]) & (found < [156, 166]), axis=1)
    assert f1(found[~around], true[~hidden], 3, image.shape) > 0.98


def test_weak_atoms_count_from_the_threshold_on(perovskite):
    image, true, kind = perovskite
    threshold = 32.0
    atoms = find_atoms(image, FindSettings(threshold=threshold))
    assert (atoms["snr"] >= threshold).all()
    index = matched(positions_of(atoms), true, 3)
    assert (kind[index[index >= 0]] == 0).all()
    assert len(prepare(image).positions(threshold)) == len(
        prepare(image, FindSettings(threshold=threshold)).positions()
    )


def test_a_threshold_means_the_same_in_preview_and_search():
    rng = np.random.default_rng(0)
    texture = gaussian_filter(rng.normal(size=(256, 256)), 3)
    true = np.array([[60.0, 60], [130, 180], [200, 80], [30, 220]])
    image = rng.poisson(30 + 6 * (texture / texture.std()).clip(-4) + 60 * draw((256, 256), true))
    seen = prepare(image)
    assert not seen.lattice
    for threshold in (seen.threshold, 1.5 * seen.threshold):
        given = FindSettings(threshold=threshold)
        np.testing.assert_array_equal(seen.positions(threshold), prepare(image, given).positions())
        assert len(find_atoms(image, given)) == len(seen.positions(threshold)) == len(true)
    np.testing.assert_array_equal(seen.positions(), seen.positions(seen.threshold))


def test_a_whole_sublattice_on_the_slopes_of_a_brighter_one_is_found():
    """It is too dense to stand out from what it leaves itself; that it repeats tells it from texture."""
    shape = (200, 200)
    true, kind = lattice(shape, (13.3, 0), (0, 13.3), ((0, 0), (0.5, 0.5)))
    image = draw(shape, true, np.array([1, 0.4])[kind], sigma=2.93)
    image += 0.01 * np.random.default_rng(0).standard_normal(shape)
    assert f1(positions_of(find_atoms(image)), true, 2, shape) > 0.98


def test_what_is_known_is_used(perovskite):
    image, *_ = perovskite
    atoms = find_atoms(image, FindSettings(sigma=2.0, spacing=14.0, contrast="bright", sublattices=1))
    assert atoms.attrs["napari_rvae"]["sigma"] == 2.0
    assert atoms.attrs["napari_rvae"]["spacing"] == 14.0
    assert (atoms["sublattice"] == 0).all()
    rough = find_atoms(image, FindSettings(refine=False))
    assert (positions_of(rough) == np.round(positions_of(rough))).all()


def test_atoms_at_the_border_are_flagged(perovskite):
    image, *_ = perovskite
    atoms = find_atoms(image)
    border = np.minimum(positions_of(atoms), np.array(image.shape) - 1 - positions_of(atoms)).min(1)
    assert set(atoms.loc[border < 3, "flag"]) == {"edge"}
    assert "edge" not in set(atoms.loc[border > 6, "flag"])


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (np.zeros((0, 0)), "empty"),
        (np.ones((64, 64)), "constant"),
        (np.full((64, 64), np.nan), "not numbers"),
        (np.zeros((64, 64, 3), np.uint8), "colour"),
        (np.zeros((64, 64), bool), "mask"),
        (np.zeros((64, 64), complex), "amplitude"),
        (np.zeros((64, 1)), "only 64 x 1"),
        (np.zeros((5, 5)), "only 5 x 5"),
        (np.zeros(64), "shape"),
        (np.zeros((2, 2, 64, 64)), "shape"),
        (np.zeros((0, 64, 64)), "no frame"),
        (np.full((64, 64), "a"), "numbers"),
    ],
)
def test_what_cannot_be_used_is_refused_with_a_reason(image, words):
    with pytest.raises(InputDataError, match=words):
        find_atoms(image)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"spacing": 2}, "at least 3 px"),
        ({"spacing": 1e4}, "spacing given.* at most 192 px"),
        ({"sigma": 1e4}, "sigma given.* at most 32 px"),
    ],
)
def test_lengths_that_do_not_suit_the_image_are_refused(perovskite, given, words):
    with pytest.raises(InputDataError, match=words):
        find_atoms(perovskite[0], FindSettings(**given))


def test_a_lazy_stack_is_read_frame_by_frame(perovskite):
    image, true, _ = perovskite
    read = []

    class Stack:
        shape, dtype, ndim = (3, *image.shape), image.dtype, 3

        def __getitem__(self, index):
            read.append(index)
            return image

    heard = []
    atoms = find_atoms(Stack(), progress=lambda fraction, text: heard.append((fraction, text)))
    assert list(atoms) == ["atom_id", "frame", *COLUMNS[1:]]
    assert read == [0, 1, 2, 0, 1, 2], "for what all have in common, then one by one"
    assert [fraction for fraction, _ in heard] == sorted(fraction for fraction, _ in heard)
    assert atoms["atom_id"].tolist() == list(range(len(atoms)))
    for _, frame in atoms.groupby("frame"):
        assert f1(positions_of(frame), true, 3, image.shape) > 0.98
    assert atoms.attrs["napari_rvae"]["sigma"] == pytest.approx(2.3, rel=0.1)


def test_frames_that_measured_nothing_cost_no_other(perovskite):
    image, true, _ = perovskite
    stack = np.stack([image.astype(float)] * 5)
    stack[0], stack[3] = np.nan, 7
    atoms = find_atoms(stack)
    assert atoms.attrs["napari_rvae"]["unusable"] == [0, 3]
    assert sorted(atoms["frame"].unique()) == [1, 2, 4]
    for _, frame in atoms.groupby("frame"):
        assert f1(positions_of(frame), true, 3, image.shape) > 0.98
    assert "unusable" not in find_atoms(stack[1:3]).attrs["napari_rvae"]
    with pytest.raises(InputDataError, match="constant"):
        find_atoms(np.full((3, 64, 64), 7.0))


def test_no_single_frame_tells_the_width_of_all(perovskite):
    image, true, _ = perovskite
    blob = np.random.default_rng(0).poisson(5 + 60 * draw(image.shape, [(90.0, 100.0)], sigma=9))
    defocused = np.random.default_rng(1).poisson(gaussian_filter(image.astype(float), 4))
    atoms = find_atoms(np.stack([blob, *[image] * 5, defocused]))
    assert atoms.attrs["napari_rvae"]["sigma"] == pytest.approx(2.3, rel=0.1)
    for _, frame in atoms[atoms["frame"].between(1, 5)].groupby("frame"):
        assert f1(positions_of(frame), true, 3, image.shape) > 0.98


def test_work_can_be_stopped(perovskite):
    image, *_ = perovskite
    with pytest.raises(Stopped):
        find_atoms(image, stop=lambda: True)
    with pytest.raises(Stopped):
        find_atoms(np.stack([image, image]), stop=lambda: True)


def test_importing_the_package_compiles_nothing():
    heavy = "{'numba', 'sklearn', 'scipy.ndimage'}"
    code = f"import sys, napari_rvae, napari_rvae.settings; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


SCENES = Path(__file__).parents[3] / "shared" / "data" / "sim"


@pytest.mark.skipif(not SCENES.is_dir(), reason="the scenes are not here")
@pytest.mark.parametrize(
    ("name", "spacing", "least"),
    [("ferro180_low", 14.6, 0.92), ("mos2_high", 11.3, 0.99), ("graphene_low", 10.1, 0.985)],
)
def test_scenes_with_known_truth(name, spacing, least):
    with np.load(SCENES / f"{name}.npz") as scene:
        image, true = scene["image"], scene["coords"]
    assert f1(positions_of(find_atoms(image)), true, spacing / 4, image.shape) > least


def test_only_a_region_is_searched(perovskite):
    image, *_ = perovskite
    region = np.zeros(image.shape, bool)
    region[80:170, 60:150] = True
    whole, part = find_atoms(image), find_atoms(image, region=region)
    y, x = np.round(positions_of(whole)).astype(int).T
    expected = whole[region[y.clip(0, 191), x.clip(0, 207)]]
    assert len(part) == len(expected)
    assert (matched(positions_of(part), positions_of(expected), 0.3) >= 0).all()
    assert part["atom_id"].tolist() == list(range(len(part)))
    frames = find_atoms(np.stack([image, image]), region=region)
    assert frames["frame"].value_counts().tolist() == [len(part)] * 2
    for wrong, words in ((region[:50], "shape"), (region & False, "no pixel")):
        with pytest.raises(InputDataError, match=words):
            find_atoms(image, region=wrong)
