"""Simulated images and their truth."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.spatial import cKDTree

from napari_rvae.samples import Columns, Microscope, graphene, interface, lattice

QUIET = Microscope(size=128, dose=2000, contamination=0, background=0, drift=0, wobble=0, jitter=0, readout=0)


@pytest.mark.parametrize("scene", [interface, graphene])
def test_scene_is_complete_and_seeded(scene):
    made, again, other = scene(seed=3), scene(seed=3), scene(seed=4)
    assert made.image.shape == (512, 512)
    assert made.image.dtype == np.uint16
    np.testing.assert_array_equal(made.image, again.image)
    assert made.truth.equals(again.truth)
    assert not np.array_equal(made.image, other.image)
    assert list(made.truth.columns[:4]) == ["atom_id", "y", "x", "class"]
    assert made.truth["atom_id"].is_unique
    assert made.truth["class"].max() == len(made.classes) - 1
    assert made.truth[["y", "x"]].to_numpy().min() >= -0.5
    assert made.truth[["y", "x"]].to_numpy().max() < 511.5


@pytest.mark.parametrize(("scene", "spacing"), [(interface, 11.4), (graphene, 10.1)])
def test_atoms_are_where_the_truth_says(scene, spacing):
    made = scene(seed=1)
    places = made.truth[["y", "x"]].to_numpy()
    assert np.median(cKDTree(places).query(places, k=2)[0][:, 1]) == pytest.approx(spacing, abs=0.2)
    smooth = gaussian_filter(made.image.astype(float), 1.5)
    inner = places[np.all((places > 20) & (places < 491), 1)]
    between = inner + spacing / 2 * np.array([np.sin(1.0), np.cos(1.0)])
    here, there = (map_coordinates(smooth, points.T, order=1) for points in (inner, between))
    assert np.mean(here > there) > 0.85


def test_position_and_strength_of_a_single_column():
    places = np.array([[1.0, 1.2], [1.6, 0.7]])
    columns = Columns(places, np.array([1.0, 0.5]), pd.DataFrame({"class": [0, 1]}), ("a", "b"))
    scene = QUIET.record("two", columns)
    for (y, x), strength in zip(columns.positions / QUIET.pixel_size, columns.strength, strict=True):
        row, column = round(y), round(x)
        window = scene.image[row - 6 : row + 7, column - 6 : column + 7].astype(float)
        rows, cols = np.mgrid[row - 6 : row + 7, column - 6 : column + 7]
        weight = window * np.exp(-((rows - y) ** 2 + (cols - x) ** 2) / 8)
        assert (weight * rows).sum() / weight.sum() == pytest.approx(y, abs=0.1)
        assert (weight * cols).sum() / weight.sum() == pytest.approx(x, abs=0.1)
        assert window.max() == pytest.approx(2000 * strength, rel=0.12)
    np.testing.assert_allclose(scene.truth[["y", "x"]], columns.positions / QUIET.pixel_size)


def test_signal_reaches_in_from_outside():
    columns = Columns(np.array([[-0.02, 1.0]]), np.array([1.0]), pd.DataFrame({"class": [0]}), ("a",))
    scene = QUIET.record("outside", columns)
    assert len(scene.truth) == 0
    assert scene.image[0, 56] > 500


def test_truth_moves_with_drift_but_not_with_jitter():
    still, jittering = (interface(replace(Microscope(), drift=0, wobble=0, jitter=jitter)) for jitter in (0, 0.5))
    drifting = interface(replace(Microscope(), drift=8, wobble=0, jitter=0))
    assert still.truth.equals(jittering.truth)
    places, moved = still.truth[["y", "x"]].to_numpy(), drifting.truth[["y", "x"]].to_numpy()
    assert cKDTree(moved).query(places)[0][places[:, 0] > 400].mean() > 0.3


def test_defects_of_every_kind():
    scene = graphene(seed=0)
    assert set(scene.truth["class"]) == {0, 1, 2, 3, 4, 5}
    places, kind = scene.truth[["y", "x"]].to_numpy(), scene.truth["class"].to_numpy()
    tree = cKDTree(places)
    inner = np.all((places > 30) & (places < 480), 1)

    def neighbors(of: int, within: float) -> set[int]:
        return {len(near) - 1 for near in tree.query_ball_point(places[(kind == of) & inner], within)}

    assert neighbors(0, 13) == {3}
    assert neighbors(4, 14.5) == {3}
    assert neighbors(5, 14.5) == {4}
    silicon = scene.image[tuple(np.round(places[(kind >= 4) & inner]).astype(int).T)]
    assert silicon.min() > 2 * np.median(scene.image)


def test_lattice_has_the_density_and_direction_asked_for():
    positions, site = lattice([[0.4, 0], [0, 0.3]], [[0, 0], [0.5, 0.5]], field=10.0)
    inside = np.all((positions >= 0) & (positions < 10), 1)
    assert np.ptp(np.bincount(site[inside])) < 100
    assert inside.sum() == pytest.approx(2 * 100 / 0.12, rel=0.03)
    turned, _ = lattice([[0.4, 0], [0, 0.3]], [[0, 0]], field=10.0, rotation=0.2)
    middle = turned[np.argmin(np.linalg.norm(turned - 5, axis=1))]
    along_x = middle + 0.3 * np.array([np.sin(0.2), np.cos(0.2)])  # +x turned toward +y
    assert cKDTree(turned).query(along_x)[0] < 1e-9
