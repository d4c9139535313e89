"""The table of a layer as files."""

import json

import pandas as pd
import pytest

from napari_rvae.errors import OutputError
from napari_rvae.io import Recipe
from napari_rvae.layers import add_atoms, join_results, save_features


def test_units_and_the_recipe_lie_beside_the_table(viewer, image, atoms, results, tmp_path):
    record = {"path": "/there/crystal.tif", "sha256": "0" * 64}
    recipe = Recipe(command="run", inputs={"image": record}, settings={"find": {}})
    points = add_atoms(viewer, atoms, image)
    join_results(points, results, recipe.model_dump(mode="json", exclude={"atoms"}))
    beside = save_features(points, tmp_path / "atoms.csv")
    table = pd.read_csv(tmp_path / "atoms.csv")
    read = Recipe.load(beside)  # the one that `repeat` reads
    assert beside.name == "atoms.recipe.json"
    assert read.units["y_nm"] == "nm"
    assert table["x_nm"].notna().all()
    assert read.inputs["image"].path == "/there/crystal.tif"
    again = read.atoms_table(tmp_path)
    assert again["atom_id"].tolist() == atoms["atom_id"].tolist()
    assert again["y"].tolist() == atoms["y"].tolist()
    assert "z1" in table
    assert "z1" not in again


def test_points_of_unknown_origin_are_saved_too_and_an_odd_name_is_refused(viewer, tmp_path):
    points = viewer.add_points([[1.0, 2.0]], features=pd.DataFrame({"a": [1.0]}))
    beside = save_features(points, tmp_path / "points.csv")
    assert json.loads(beside.read_text())["units"] == {"y": "px", "x": "px"}
    with pytest.raises(OutputError, match=r"end it in \.csv"):
        save_features(points, tmp_path / "points.txt")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["points.csv", "points.recipe.json"]
