import numpy as np
import pytest

from napari_rvae.atoms import find_atoms, refine_atoms
from napari_rvae.errors import InputDataError
from tests.atoms.conftest import draw, matched


@pytest.mark.parametrize("counts", [6, 40, 600])
def test_positions_reach_the_cramer_rao_bound(counts):
    rng = np.random.default_rng(counts)
    sigma, shape, background = 2.3, (480, 480), 0.05 * counts
    true = np.mgrid[24:470:32, 24:470:32].reshape(2, -1).T + rng.uniform(-3, 3, (196, 2))
    image = rng.poisson(background + counts * draw(shape, true, sigma=sigma))
    atoms = find_atoms(image)
    index = matched(atoms[["y", "x"]].to_numpy(), true, 4)
    assert (index >= 0).sum() == len(true)
    error = (atoms[["y", "x"]].to_numpy() - true[index])[index >= 0]
    y, x = np.mgrid[-14:15, -14:15]
    column = counts * np.exp(-(y**2 + x**2) / (2 * sigma**2))
    bound = 1 / np.sqrt(np.sum((column * y / sigma**2) ** 2 / (column + background)))
    assert np.sqrt(np.mean(error**2)) < 1.15 * bound
    assert np.median(atoms["error"]) == pytest.approx(bound, rel=0.2)


def test_overlapping_neighbours_do_not_pull():
    left = np.mgrid[30:230:40, 30:230:40].reshape(2, -1).T + 0.3
    true = np.concatenate([left, left + np.array([0.4, 7.6])])
    height = np.repeat([10.0, 4.0], len(left))
    image = draw((240, 240), true, height) + np.random.default_rng(0).normal(0, 0.5, (240, 240))
    atoms = find_atoms(image)
    index = matched(atoms[["y", "x"]].to_numpy(), true, 1.2)
    hit = index >= 0
    assert hit.sum() == len(true)
    assert len(atoms) <= len(true) + 1
    assert np.abs((atoms[["y", "x"]].to_numpy() - true[index])[hit].mean(0)).max() < 0.05
    assert atoms["amplitude"].to_numpy()[hit].mean() == pytest.approx(height.mean(), rel=0.05)


def test_moved_and_added_points_find_their_atom(perovskite):
    image, *_ = perovskite
    atoms = find_atoms(image)
    inner = atoms.index[atoms["flag"] == ""][7]
    moved = atoms.copy()
    moved.loc[inner, ["y", "x"]] += [1.2, -0.8]
    refined = refine_atoms(image, moved, [atoms.loc[inner, "atom_id"]])
    assert np.abs(refined.loc[inner, ["y", "x"]] - atoms.loc[inner, ["y", "x"]]).max() < 0.05
    others = atoms.index.drop(inner)
    assert (refined.loc[others] == moved.loc[others]).all(axis=None)
    bare = refine_atoms(image, moved[["atom_id", "y", "x"]])
    assert bare.loc[inner, "amplitude"] == pytest.approx(atoms.loc[inner, "amplitude"], rel=0.1)


def test_a_table_without_positions_is_refused(perovskite):
    image, *_ = perovskite
    with pytest.raises(InputDataError, match="no column"):
        refine_atoms(image, find_atoms(image)[["atom_id", "y"]])


def test_points_outside_the_image_are_refused(perovskite):
    image, *_ = perovskite
    atoms = find_atoms(image)
    astray = atoms.copy()
    astray.loc[[3, 5], "x"] = [-40.0, 900.0]
    with pytest.raises(InputDataError, match="2 of 4 points lie outside"):
        refine_atoms(image, astray, astray["atom_id"][2:6])
    assert len(refine_atoms(image, astray, astray["atom_id"][:3])) == len(atoms)
