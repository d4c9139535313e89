"""Classes of some atoms and conditions of all of them, from columns to the model and back from the recipe."""

import numpy as np
import pandas as pd
import pytest

from napari_rvae.errors import InputDataError, RVAEError
from napari_rvae.workflows import analyze_image, apply_to_image, encode_image, repeat
from napari_rvae.workflows.applying import apply_to_files
from napari_rvae.workflows.given import given_by

from .conftest import QUICK

SEMI = QUICK.model_copy(update={"model": "ssrvae"})
CONDITIONAL = QUICK.model_copy(update={"model": "crvae"})


@pytest.fixture
def known(analysis):
    """The atoms with what a user may have added to them."""
    atoms = analysis.atoms.copy()
    bright = atoms["amplitude"] > atoms["amplitude"].median()
    atoms["annotation"] = pd.Categorical(np.where(bright, "heavy", "light"), categories=["light", "heavy"])
    atoms.loc[atoms.index % 3 > 0, "annotation"] = None
    atoms["depth"] = atoms["y"] / 10
    return atoms


def test_labels_in_the_table_are_learned_and_repeated(image, known, tmp_path):
    done = analyze_image(image, training=SEMI, atoms=known)
    assert done.model.classes == 2
    assert done.recipe.used["class_names"] == ["heavy", "light"]
    assert done.table["class"].notna().all()
    done.save(tmp_path)
    pd.testing.assert_frame_equal(repeat(tmp_path / "recipe.json").table[["z1", "class"]], done.table[["z1", "class"]])


def test_conditions_in_the_table_are_learned_repeated_and_asked_for_again(image, known, tmp_path):
    training = CONDITIONAL.model_copy(update={"condition_columns": ("depth", "sublattice")})
    done = analyze_image(image, training=training, atoms=known)
    kinds = known["sublattice"].nunique()
    assert done.model.conditions == 1 + kinds
    done.save(tmp_path)
    pd.testing.assert_series_equal(repeat(tmp_path / "recipe.json").table["z1"], done.table["z1"])
    again = encode_image(done.model, image, atoms=known)
    np.testing.assert_array_equal(again["z1"], done.table["z1"])
    apply_to_image(done.model, image, atoms=known).save(tmp_path / "applied")
    pd.testing.assert_series_equal(repeat(tmp_path / "applied" / "recipe.json").table["z1"], done.table["z1"])
    values = known[["depth", "sublattice"]].to_numpy()
    told = encode_image(done.model, image, atoms=known.drop(columns="depth"), condition=values)
    np.testing.assert_array_equal(told["z1"], done.table["z1"])
    with pytest.raises(InputDataError, match=r"every one of \d+ patches \(depth, sublattice\)"):
        encode_image(done.model, image, atoms=known, condition=values[:5])
    with pytest.raises(InputDataError, match=r"no column depth.*--atoms"):
        encode_image(done.model, image)
    np.save(tmp_path / "one.npy", image.data)
    known.to_csv(tmp_path / "one.csv", index=False)
    for place in (tmp_path / "one.csv", tmp_path):
        summary = apply_to_files(done.model, [tmp_path / "one.npy"], tmp_path / "out", atoms=place, force=True)
        assert summary["state"].tolist() == ["done"], summary["error"].tolist()
    with pytest.raises(InputDataError, match="one table of atoms is for one image"):
        apply_to_files(done.model, [tmp_path / "one.npy"] * 2, tmp_path / "out2", atoms=tmp_path / "one.csv")
    with pytest.raises(InputDataError, match="no column depth"):
        encode_image(done.model, image, atoms=known.drop(columns="depth"))
    with pytest.raises(InputDataError, match="does not know the sublattice 9"):
        encode_image(done.model, image, atoms=known.assign(sublattice=9))


def test_classes_mean_the_same_as_text_as_categories_and_as_numbers():
    names = ["b", "a", None, "b"]
    for column in (names, pd.Categorical(names), ["b", "a", "", "b"]):
        given = given_by(SEMI, pd.DataFrame({"annotation": column}))
        assert given.labels.tolist() == [1, 0, -1, 1]
    numbers = given_by(SEMI, pd.DataFrame({"annotation": [10.0, 2.0, np.nan, -1.0]}))
    assert numbers.labels.tolist() == [1, 0, -1, -1]
    assert numbers.noted == {"class_names": ["2", "10"]}


def test_more_classes_than_labelled_ones_may_be_looked_for():
    labels = pd.DataFrame({"annotation": ["a", "b", None]})
    assert given_by(SEMI, labels).settings.classes == 2
    assert given_by(SEMI.model_copy(update={"classes": 3}), labels).settings.classes == 3


def test_quantities_are_scaled_and_classes_are_not():
    table = pd.DataFrame({"t": [1.0, 2, 3, 4], "phase": ["a", "b", "b", "a"], "dose": [5.0] * 4})
    given = given_by(CONDITIONAL.model_copy(update={"condition_columns": ("t", "phase", "dose")}), table)
    told = given.condition.values
    assert told.shape == (4, 4)
    np.testing.assert_allclose(told[:, 0].std(), 1, rtol=1e-6)
    np.testing.assert_array_equal(told[:, 1:3], [[1, 0], [0, 1], [0, 1], [1, 0]])
    np.testing.assert_array_equal(told[:, 3], 0)


@pytest.mark.parametrize(
    ("settings", "columns", "message"),
    [
        ({"model": "ssrvae"}, {}, "no column annotation"),
        ({"model": "ssrvae"}, {"annotation": ["a", None, "a"]}, "1 of at least 2 classes"),
        ({"model": "ssrvae"}, {"annotation": [None, None, None]}, "0 of at least 2 classes"),
        ({"model": "ssrvae", "classes": 2}, {"annotation": ["a", "b", "c"]}, "3 classes, the model has 2"),
        ({"model": "crvae"}, {}, "name the columns"),
        ({"model": "crvae", "condition_columns": ("t",)}, {"t": [1.0, np.nan, 2.0]}, "no value for 1 of the atoms"),
        ({"model": "crvae", "condition_columns": ("t",)}, {"t": [1.0, np.inf, 2.0]}, "no finite number"),
        ({"model": "crvae", "condition_columns": ("p",)}, {"p": ["a", "", "b"]}, "no value for 1 of the atoms"),
        ({"model": "crvae", "condition_columns": ("t",)}, {}, "no column t"),
    ],
)
def test_what_is_missing_or_wrong_is_named(settings, columns, message):
    table = pd.DataFrame(columns or {"x": [1.0, 2.0]})
    with pytest.raises(RVAEError, match=message):
        given_by(QUICK.model_copy(update=settings), table)


def test_atoms_at_one_place_of_different_classes_are_named():
    table = pd.DataFrame({"atom_id": [7, 8, 9], "y": [5.0, 5.3, 30], "x": [4.0, 4.3, 4]})
    table["annotation"] = [" a", "b", "a "]
    with pytest.raises(InputDataError, match=r"atoms 7 and 8 lie at one place .* one is a and the other b"):
        given_by(SEMI, table)
    assert given_by(SEMI, table.assign(frame=[0, 1, 0])).labels.tolist() == [0, 1, 0]
    assert given_by(SEMI, table.assign(y=[5.0, 6, 30])).noted == {"class_names": ["a", "b"]}


def test_labelled_atoms_of_another_class_are_told(image, known):
    wrong = known["annotation"].notna() & (known["atom_id"] % 2 == 0)
    other = known["annotation"].map({"light": "heavy", "heavy": "light"})
    done = analyze_image(image, training=SEMI, atoms=known.assign(annotation=known["annotation"].mask(wrong, other)))
    names = np.array(done.recipe.used["class_names"])[done.table["class"]]
    told = known["annotation"].mask(wrong, other)
    count = int((told.notna() & (told != names)).sum())
    assert count > 0
    assert f"gives {count} of {told.notna().sum()} labelled atoms another class" in done.recipe.used["notes"][-1]


def test_a_class_that_is_labelled_at_the_edge_only_is_named(image, known):
    height = image.data.shape[-2]
    edge = (known["y"] < 3) | (known["y"] > height - 3) | (known["x"] < 3)
    inner = known[["y", "x"]].sub(height / 2).abs().max(axis=1) < height / 5
    labels = pd.Series(None, index=known.index, dtype=object).mask(edge, "rim").mask(inner, "core")
    assert edge.any()
    assert inner.any()
    with pytest.raises(InputDataError, match="rim: labelled only on atoms at the edge"):
        analyze_image(image, training=SEMI, atoms=known.assign(annotation=labels))
