"""Clusters on clouds that were drawn from known mixtures."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import adjusted_rand_score

from napari_rvae.errors import InputDataError, Stopped
from napari_rvae.latent import cluster_agreement, find_clusters
from napari_rvae.settings import ClusterSettings

CENTERS = np.array([[0, 0], [6, 0], [0, 6]])


@pytest.fixture
def clouds():
    rng = np.random.default_rng(1)
    truth = np.repeat([0, 1, 2], [300, 200, 100])
    points = CENTERS[truth] + rng.normal(0, 0.7, (600, 2))
    return pd.DataFrame({"z1": points[:, 0], "z2": 100 * points[:, 1], "truth": truth}, index=np.arange(1000, 1600))


@pytest.mark.parametrize("method", ["gmm", "kmeans", "hdbscan"])
def test_finds_the_clouds_and_their_number(clouds, method):
    clouds.iloc[5, 0] = np.nan
    found = find_clusters(clouds, ["z1", "z2"], ClusterSettings(method=method))
    assert found.index.equals(clouds.index)
    assert found["cluster"].iloc[5] == -1
    assert np.isnan(found["cluster_probability"].iloc[5])
    assigned = found["cluster"] >= 0
    assert assigned.mean() > 0.9
    assert adjusted_rand_score(clouds["truth"][assigned], found["cluster"][assigned]) > 0.98
    # Numbered by size, so here the numbers themselves are known.
    assert found["cluster"][assigned].value_counts().index.tolist() == [0, 1, 2]
    assert found["cluster_probability"][assigned].between(0, 1).all()


def test_a_point_between_two_clouds_is_uncertain_and_the_same_seed_repeats():
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(-3, 1, 200), rng.normal(3, 1, 200), [0.0, -3.0]])
    table = pd.DataFrame({"z1": values})
    for method in ("gmm", "kmeans"):
        settings = ClusterSettings(method=method, count=2, seed=4)
        first, second = (find_clusters(table, ["z1"], settings) for _ in range(2))
        pd.testing.assert_frame_equal(first, second)
        assert first["cluster_probability"].iloc[-2] < 0.75 < 0.8 < first["cluster_probability"].iloc[-1]


def test_more_atoms_than_the_sample_are_all_assigned(clouds):
    for method in ("gmm", "kmeans", "hdbscan"):
        found = find_clusters(clouds, ["z1", "z2"], ClusterSettings(method=method, sample=150, smallest=10))
        assigned = found["cluster"] >= 0
        assert assigned.mean() > 0.85
        assert adjusted_rand_score(clouds["truth"][assigned], found["cluster"][assigned]) > 0.95


def test_angles_have_no_seam():
    rng = np.random.default_rng(2)
    truth = np.repeat([0, 1], 150)
    # Four-fold: 0 and 90 degrees are the same angle.
    angle = np.mod(np.where(truth == 0, 0.0, np.pi / 4) + rng.normal(0, 0.05, 300), np.pi / 2)
    table = pd.DataFrame({"angle": angle, "symmetry": 4})
    found = find_clusters(table, ["angle"], ClusterSettings(count=2))
    assert adjusted_rand_score(truth, found["cluster"]) == 1


def test_one_atom_one_value_and_wrong_columns_are_named(clouds):
    same = pd.DataFrame({"z1": np.ones(20)})
    assert set(find_clusters(same, ["z1"], ClusterSettings(method="kmeans", count=1))["cluster"]) == {0}
    with pytest.raises(InputDataError, match="Only 1 atoms"):
        find_clusters(clouds.iloc[:1], ["z1"])
    with pytest.raises(InputDataError, match="fewer clusters"):
        find_clusters(clouds.iloc[:3], ["z1"], ClusterSettings(count=4))
    with pytest.raises(InputDataError, match="named z9"):
        find_clusters(clouds, ["z9"])
    with pytest.raises(InputDataError, match="at least one"):
        find_clusters(clouds, [])


def test_reports_progress_and_stops_between_fits(clouds):
    seen = []
    with pytest.raises(Stopped):
        find_clusters(
            clouds, ["z1"], progress=lambda fraction, what: seen.append((fraction, what)), stop=lambda: len(seen) == 3
        )
    assert seen == [(0.0, "1 cluster"), (0.1, "2 clusters"), (0.2, "3 clusters")]


def test_agreement_counts_pairs_and_ignores_names():
    first = pd.Series(["a", "a", "b", "b", None], name="human")
    second = pd.Series([1.0, 1.0, 0.0, 0.0, np.nan], name="cluster")
    counts, score = cluster_agreement(first, second)
    assert counts.loc["a", "1"] == 2
    assert counts.loc["b", "1"] == 0
    assert counts.to_numpy().sum() == 4
    assert score == 1
    assert np.isnan(cluster_agreement(first.iloc[4:], second.iloc[4:])[1])


def grains(frames=1):
    """Three grains of a four-fold lattice, two of them only 3 degrees apart; a fourth as the first, not in contact."""
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:30, :40].reshape(2, -1)
    truth = np.select([(x < 15) & (y < 20), x < 15, x < 32], [0, 1, 2], 3)
    angle = np.deg2rad(np.array([10, 13, 44, 10]))[truth] + np.deg2rad(0.7) * rng.standard_normal(len(x))
    angle = np.mod(angle + np.pi / 4, np.pi / 2) - np.pi / 4
    angle[rng.choice(len(x), 10, replace=False)] = 0.7  # some were not understood
    table = pd.DataFrame({"y": 8.0 * y, "x": 8.0 * x, "angle": angle, "symmetry": 4})
    stack = pd.concat([table.assign(frame=frame) for frame in range(frames)], ignore_index=True)
    return (table if frames == 1 else stack), np.tile(truth, frames)


def test_grains_are_found_by_angle_and_position():
    table, truth = grains()
    found = find_clusters(table, ["angle", "y", "x"])
    assert adjusted_rand_score(truth, found["cluster"]) > 0.98
    assert found["cluster"].nunique() == 4
    assert found["cluster_probability"].mean() > 0.9
    few = find_clusters(table, ["angle", "y", "x"], ClusterSettings(method="regions", count=2))
    assert few["cluster"].nunique() == 2


def test_one_grain_is_one_region():
    table, _ = grains()
    table["angle"] = 0.012 * np.random.default_rng(5).standard_normal(len(table))
    assert find_clusters(table, ["angle", "y", "x"])["cluster"].nunique() == 1


def test_regions_of_a_large_table_and_of_frames():
    table, truth = grains(frames=2)
    found = find_clusters(table, ["angle", "y", "x"], ClusterSettings(sample=1500))
    for frame in (0, 1):
        own = table["frame"] == frame
        assert adjusted_rand_score(truth[own], found["cluster"][own]) > 0.95


def test_regions_need_positions(clouds):
    with pytest.raises(InputDataError, match="Regions need"):
        find_clusters(clouds, ["z1", "z2"], ClusterSettings(method="regions"))
