"""Members that say the same in other words agree; where they differ, the dispersion shows it."""

import numpy as np
import pandas as pd
import pytest

from napari_rvae.errors import InputDataError
from napari_rvae.latent import combine, unstable_atoms


@pytest.fixture
def member():
    rng = np.random.default_rng(0)
    kind = np.arange(90) % 3
    return pd.DataFrame(
        {
            "atom_id": np.arange(90), "z1": rng.standard_normal(90), "z2": 3 + rng.standard_normal(90),
            "angle": rng.uniform(-0.5, 0.5, 90), "symmetry": 1 + kind, "dy": rng.standard_normal(90),
            "reconstruction_error": 1.0, "class": kind, "class_probability": 0.98,
        }
    )  # fmt: skip


def otherwise(member):
    """The same with classes renumbered, another zero of the angle in each, and latents turned and mirrored."""
    kind = member["class"].to_numpy()
    c, s = np.cos(0.7), np.sin(0.7)
    return member.assign(
        z1=c * member["z1"] + s * member["z2"],
        z2=s * member["z1"] - c * member["z2"],
        angle=member["angle"] + np.array([0.2, -0.3, 0.1])[kind],
        **{"class": np.array([2, 0, 1])[kind]},
    )


def test_members_that_differ_in_frames_only_agree(member):
    together = combine([member, otherwise(member), otherwise(otherwise(member))])
    for name in ("z1", "z2", "angle", "dy", "class"):
        np.testing.assert_allclose(together[name], member[name], atol=1e-9)
    for name in ("z1_dispersion", "z2_dispersion", "angle_dispersion", "dy_dispersion"):
        assert together[name].max() < 1e-6
    assert together["class_dispersion"].max() < 0.15
    np.testing.assert_allclose(together["class_probability"], 0.98)


def test_a_predicted_quantity_is_averaged(member):
    together = combine([member.assign(predicted=value) for value in (1.0, 3.0)])
    assert (together["predicted"] == 2).all()
    assert (together["predicted_dispersion"] == 1).all()


def test_dispersion_finds_the_atoms_on_which_members_differ(member):
    other = otherwise(member)
    other.loc[7, "class"] = (other.loc[7, "class"] + 1) % 3
    other.loc[7, "angle"] += 0.4
    together = combine([member, other, other])
    assert together["class"].iloc[7] != member["class"].iloc[7]  # two against one
    assert together["class_dispersion"].idxmax() == 7
    assert together["angle_dispersion"].idxmax() == 7
    assert 0.1 < together["angle_dispersion"].max() < 0.3


def test_classes_of_few_atoms_are_not_turned_onto_each_other(member):
    few = member.assign(symmetry=1, **{"class": np.r_[np.zeros(87), 1, 2, 2].astype(int)})
    rng = np.random.default_rng(1)
    others = [
        few.assign(z1=rng.standard_normal(90), z2=rng.standard_normal(90), angle=rng.uniform(-np.pi, np.pi, 90))
        for _ in range(7)
    ]
    together = combine([few, *others])
    assert together["z1_dispersion"].iloc[87:].min() > 0.3
    assert together["angle_dispersion"].iloc[87:].min() > 0.5
    agreed = combine([few, otherwise(few).assign(angle=few["angle"], **{"class": few["class"]})])
    assert agreed[["z1_dispersion", "angle_dispersion"]].to_numpy().max() < 1e-6


def test_angles_are_compared_at_an_order_that_all_members_have(member):
    angle = np.random.default_rng(2).uniform(-np.pi, np.pi, 90)
    plain = member.drop(columns=["class", "class_probability"]).assign(symmetry=1, angle=angle)
    twofold = plain.assign(symmetry=2, angle=(angle + np.pi / 2) % np.pi - np.pi / 2)
    for members in ([plain, twofold], [twofold, plain]):
        together = combine(members)
        assert (together["symmetry"] == 2).all()
        assert together["angle_dispersion"].max() < 1e-6


def test_atoms_without_latents_stay_empty_and_foreign_tables_are_refused(member):
    gap = member.astype({"class": float})
    gap.loc[3, ["z1", "z2", "angle", "class", "class_probability"]] = np.nan
    together = combine([gap, gap])
    assert together.loc[3, ["z1", "class", "class_dispersion"]].isna().all()
    assert together["z1"].notna().sum() == 89
    with pytest.raises(InputDataError, match="at least one"):
        combine([])
    with pytest.raises(InputDataError, match="same atoms"):
        combine([member, member.iloc[::-1]])


def test_unstable_atoms_are_those_on_which_members_differ(member):
    other = otherwise(member)
    other.loc[7, "class"] = (other.loc[7, "class"] + 1) % 3
    assert np.flatnonzero(unstable_atoms(combine([member, other, other]))).tolist() == [7]
    plain = member.drop(columns=["class", "class_probability"]).assign(symmetry=1)
    apart = plain.assign(
        angle=plain["angle"] + 2.0 * (plain["atom_id"] == 5), z2=plain["z2"] + 3.0 * (plain.index == 9)
    )
    assert np.flatnonzero(unstable_atoms(combine([plain, apart]))).tolist() == [5, 9]
    with pytest.raises(InputDataError, match="more than one member"):
        unstable_atoms(member)
