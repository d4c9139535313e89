import numpy as np
import pytest

from napari_rvae.atoms import find_atoms, refine_atoms
from napari_rvae.atoms.compounds import levelled
from napari_rvae.atoms.noise import estimate_noise
from napari_rvae.errors import InputDataError
from napari_rvae.settings import FindSettings
from tests.atoms.conftest import draw, f1, lattice, matched

SHAPES = ([(-5, 0), (5, 0), (0, -5), (0, 5)], [(-7, 0), (0, 0), (7, 0)], [(-5, -3), (5, -3), (0, 5)])


@pytest.fixture(scope="module")
def molecules():
    """Molecules of three kinds and any orientation on two terraces, and where their middles are."""
    rng = np.random.default_rng(1)
    shape, middles = (320, 320), [np.array([20.0, 20.0])]
    for place in rng.uniform(8, 312, (4000, 2)):
        if min(np.hypot(*(np.array(middles) - place).T)) > 29:
            middles.append(place)
    spots = []
    for place in middles:
        spot, turn = np.array(SHAPES[rng.integers(3)], float), rng.uniform(0, 2 * np.pi)
        rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        spots.append(place + (spot - spot.mean(0)) @ rotation)
    x, y = np.meshgrid(np.arange(320), np.arange(320))
    terraces = 1.5 / (1 + np.exp(-(x - 100 - 0.3 * y)))
    image = draw(shape, np.concatenate(spots), sigma=2.2) + terraces + 0.1 * rng.standard_normal(shape)
    return image + 0.1 * rng.standard_normal((320, 1)), np.array(middles)


def test_molecules_are_found_as_a_whole(molecules):
    image, true = molecules
    found = find_atoms(image)
    assert f1(found[["y", "x"]].to_numpy(), true, 7, image.shape) > 0.95
    assert found.attrs["napari_rvae"]["target"] == "molecules"
    assert found["background"].max() > found["background"].min() + 1, "the terraces' heights are told"


@pytest.mark.parametrize("turned", [False, True])
def test_scan_lines_shifted_by_as_much_as_molecules_are_high_hide_none(molecules, turned):
    image, true = molecules
    shifts = np.cumsum(np.random.default_rng(0).normal(0, 0.4, 320)) + np.random.default_rng(1).normal(0, 0.6, 320)
    lined = image + shifts[:, None]
    if turned:
        lined, true = lined.T, true[:, ::-1]
    assert f1(find_atoms(lined)[["y", "x"]].to_numpy(), true, 7, image.shape) > 0.95


def test_lines_are_made_level_only_where_they_are_shifted(molecules):
    rng = np.random.default_rng(2)
    plain = draw((320, 320), molecules[1], sigma=2.2) + rng.normal(0, 0.1, (320, 320))
    plain, shifts = plain.astype(np.float32), rng.normal(0, 0.5, (320, 1)).astype(np.float32)
    level, noise = levelled(plain + shifts, estimate_noise(plain + shifts))
    assert np.diff((level - plain).mean(1)).std() < 0.03 * np.diff(shifts[:, 0]).std()
    assert noise.rows[0] == 0
    assert levelled(plain, estimate_noise(plain))[0] is plain


def test_spots_of_molecules_are_found_when_they_are_wanted(molecules):
    image, true = molecules
    assert len(find_atoms(image, FindSettings(target="atoms"))) > 2 * len(true)


def test_a_molecule_that_was_moved_by_hand_finds_its_place_again(molecules):
    image, _ = molecules
    found = find_atoms(image)
    moved = found.copy()
    moved.loc[3, ["y", "x"]] += 1.0
    again = refine_atoms(image, moved, [found.loc[3, "atom_id"]])
    assert np.abs(again.loc[3, ["y", "x"]] - found.loc[3, ["y", "x"]]).max() < 0.5


def test_all_frames_look_for_the_same(molecules):
    image, true = molecules
    found = find_atoms(np.stack([image, image]))
    assert (found["frame"].value_counts() == (found["frame"] == 0).sum()).all()
    assert (matched(found.loc[found["frame"] == 1, ["y", "x"]].to_numpy(), true, 7) >= 0).mean() > 0.95


def test_pairs_of_columns_in_a_crystal_are_atoms():
    true, _ = lattice((256, 256), (20, 1.0), (-0.7, 28), ((0, 0), (0.32, 0), (0.5, 0.5), (0.82, 0.5)))
    image = draw((256, 256), true, sigma=1.8) + np.random.default_rng(0).normal(0, 0.1, (256, 256))
    found = find_atoms(image)
    assert found.attrs["napari_rvae"]["target"] == "atoms"
    assert f1(found[["y", "x"]].to_numpy(), true, 2, image.shape) > 0.98


def test_molecules_that_nothing_tells_of_need_a_width(perovskite):
    image, *_ = perovskite
    with pytest.raises(InputDataError, match="width"):
        find_atoms(image, FindSettings(target="molecules"))
    assert len(find_atoms(image, FindSettings(target="molecules", sigma=5.0)))
