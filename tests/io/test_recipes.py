"""A recipe holds what is needed, and notices when its inputs have changed."""

import json

import numpy as np
import pandas as pd
import pytest

from napari_rvae.errors import InputDataError
from napari_rvae.io import FileRecord, Recipe, RegionRecord, as_atoms, inline_atoms, load_image
from napari_rvae.settings import FindSettings, TrainSettings


@pytest.fixture
def image(tmp_path):
    np.save(tmp_path / "image.npy", np.eye(20))
    return load_image(tmp_path / "image.npy")


def recipe(image, **more):
    settings = {
        "find": FindSettings(spacing=7).model_dump(mode="json"),
        "train": TrainSettings().model_dump(mode="json"),
    }
    return Recipe(command="run", inputs={"image": FileRecord.of(image)}, settings=settings, **more)


def test_everything_comes_back(image, tmp_path):
    made = recipe(image, where="sublattice == 0", used={"epochs": 3, "device": "cpu"}, units={"y": "px"})
    made.save(tmp_path / "recipe.json")
    again = Recipe.load(tmp_path / "recipe.json")
    assert again == made
    assert FindSettings(**again.settings["find"]) == FindSettings(spacing=7)
    assert TrainSettings(**again.settings["train"]) == TrainSettings()
    assert {"system", "python", "torch", "numpy"} <= set(again.platform)
    assert again.version
    assert json.loads((tmp_path / "recipe.json").read_text())["inputs"]["image"]["sha256"] == image.sha256


def test_atoms_inside_a_recipe_are_exact(image, tmp_path):
    rng = np.random.default_rng(0)
    atoms = as_atoms(pd.DataFrame(rng.random((50, 2)) * 19, columns=["y", "x"]).assign(flag=""), "test")
    recipe(image, atoms=inline_atoms(atoms)).save(tmp_path / "recipe.json")
    pd.testing.assert_frame_equal(Recipe.load(tmp_path / "recipe.json").atoms_table(tmp_path), atoms, check_exact=True)


def test_input_is_found_where_it_was_or_beside_the_recipe(image, tmp_path):
    record = FileRecord.of(image)
    assert record.found(tmp_path / "elsewhere") == str(tmp_path / "image.npy")
    other = tmp_path / "moved"
    other.mkdir()
    (tmp_path / "image.npy").rename(other / "image.npy")
    assert record.found(other) == str(other / "image.npy")
    with pytest.raises(InputDataError, match=r"image\.npy is gone"):
        record.found(tmp_path)


def test_changed_input_is_noticed(image, tmp_path):
    record = FileRecord.of(image)
    np.save(tmp_path / "image.npy", np.eye(20) * 2)
    with pytest.raises(InputDataError, match="has changed since"):
        record.found(tmp_path)


def test_part_of_a_file_is_kept(tmp_path):
    np.savez(tmp_path / "two.npz", first=np.eye(20), second=np.ones((20, 20)))
    record = FileRecord.of(load_image(f"{tmp_path / 'two.npz'}::second"))
    assert record.found(tmp_path) == f"{tmp_path / 'two.npz'}::second"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "another version"),
        ({"command": "explode"}, "no recipe of napari-rvae: command"),
        ({"inputs": {"image": {"path": "a", "sha256": "x"}}}, "no recipe"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_other_recipes_are_refused(image, tmp_path, change, message):
    (tmp_path / "recipe.json").write_text(json.dumps(recipe(image).model_dump(mode="json") | change))
    with pytest.raises(InputDataError, match=message):
        Recipe.load(tmp_path / "recipe.json")


def test_no_recipe_at_all(tmp_path):
    with pytest.raises(InputDataError, match="there is no file"):
        Recipe.load(tmp_path / "recipe.json")
    (tmp_path / "recipe.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputDataError, match=r"recipe\.json"):
        Recipe.load(tmp_path / "recipe.json")


def test_regions_come_back_as_they_were():
    mask = np.random.default_rng(0).random((13, 17)) > 0.5
    for region in (mask, ~mask, np.ones_like(mask), np.stack([mask, ~mask, mask])):
        record = RegionRecord.of(region, "drawn")
        np.testing.assert_array_equal(RegionRecord(**json.loads(record.model_dump_json())).mask(region.shape), region)
    with pytest.raises(InputDataError, match="does not fit"):
        RegionRecord(shape=(13, 17), runs=(0, 3)).mask((13, 17))
    huge = 10**7
    with pytest.raises(InputDataError, match="does not fit"):  # before so much memory is asked for
        RegionRecord(shape=(huge, huge), runs=(huge**2,)).mask((13, 17))
