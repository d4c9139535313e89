import numpy as np
import pandas as pd
import pytest

from napari_rvae.atoms import find_atoms, link_atoms
from napari_rvae.errors import InputDataError
from tests.atoms.conftest import draw, lattice


def test_atoms_keep_their_number_over_the_frames():
    true, _ = lattice((96, 96), (14, 1), (6, 13), origin=(8, 8))
    true = true[np.all((true > 6) & (true < 86), axis=1)]
    drift = np.array([[0.0, 0.0], [1.5, 1.0], [3.0, 2.0]])
    rng = np.random.default_rng(0)
    atoms = find_atoms(np.stack([rng.poisson(3 + 60 * draw((96, 96), true + move)) for move in drift]))
    linked = link_atoms(atoms)
    assert linked["track"].dtype == np.int64
    ways = linked.groupby("track")
    whole = [way for _, way in ways if len(way) == 3]
    assert len(whole) >= 0.95 * len(true)
    for way in whole:
        moved = way[["y", "x"]].to_numpy() - way[["y", "x"]].to_numpy()[0]
        np.testing.assert_allclose(moved, drift, atol=0.6)
    assert not linked.duplicated(["track", "frame"]).any()


def test_an_atom_may_be_missed_once():
    table = pd.DataFrame({"atom_id": range(4), "frame": [2, 0, 0, 1], "y": [5.0, 5, 40, 40], "x": [5.0, 5, 40, 41]})
    assert link_atoms(table, reach=3)["track"].tolist() == [0, 0, 1, 1]
    assert link_atoms(table, reach=3, memory=0)["track"].nunique() == 3


def test_one_image_has_no_tracks():
    with pytest.raises(InputDataError, match="frame"):
        link_atoms(pd.DataFrame({"atom_id": [0], "y": [1.0], "x": [1.0]}))
