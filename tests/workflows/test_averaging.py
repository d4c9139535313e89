"""Class averages of images and patches, and making them again."""

import numpy as np
import pandas as pd
import pytest
import tifffile
import torch
from PIL import Image

from napari_rvae.errors import InputDataError
from napari_rvae.io import as_atoms, load_image, load_patches, load_table
from napari_rvae.models.finder import FinderNet, LearnedFinder
from napari_rvae.settings import AverageSettings, FindSettings
from napari_rvae.workflows import average_image, average_patches, repeat

FEW = AverageSettings(kinds=3, exemplars=4, rounds=2)


def test_patches(cards_file, tmp_path):
    done = average_patches(load_patches(cards_file), settings=FEW)
    assert len(done.table) == 60
    assert done.recipe.units["angle"] == "rad"
    done.save(tmp_path)
    images = tifffile.imread(tmp_path / "averages.tif")
    np.testing.assert_allclose(images.reshape(done.averages.images.shape), done.averages.images)
    assert images.dtype == np.float32
    pd.testing.assert_frame_equal(repeat(tmp_path / "recipe.json").table, done.table, check_exact=True)


def test_image(image, scene, tmp_path):
    truth = as_atoms(scene.truth[["y", "x"]], "truth")
    done = average_image(image, settings=FEW, atoms=truth, where="x > 60")
    assert done.table["x"].min() > 60
    assert done.table["atom_id"].is_unique
    np.testing.assert_allclose(done.table["x_nm"], done.table["x"] * scene.pixel_size)
    done.save(tmp_path)
    assert len(load_table(tmp_path / "classes.csv")) == len(done.table)
    pd.testing.assert_frame_equal(repeat(tmp_path / "recipe.json").table, done.table, check_exact=True)


def test_the_finder_that_was_used_is_noted_and_found_again(image, tmp_path):
    torch.manual_seed(0)
    file = tmp_path / "mine.safetensors"
    LearnedFinder(FinderNet(), per_sigma=5.0, certainty=10.0).save(file)
    done = average_image(image, FindSettings(search="learned", finder=str(file)), settings=FEW)
    done.save(tmp_path / "out")
    moved = file.rename(tmp_path / "out" / file.name)
    pd.testing.assert_frame_equal(repeat(tmp_path / "out" / "recipe.json").table, done.table, check_exact=True)
    LearnedFinder(FinderNet(), per_sigma=6.0).save(moved)
    with pytest.raises(InputDataError, match="has changed"):
        repeat(tmp_path / "out" / "recipe.json")


@pytest.mark.parametrize("shape", [(200, 70), (70, 200)])
def test_summary_of_tall_and_wide_images(scene, tmp_path, shape):
    np.save(tmp_path / "part.npy", scene.image[: shape[0], : shape[1]])
    average_image(load_image(tmp_path / "part.npy"), settings=FEW).save(tmp_path / "out")
    with Image.open(tmp_path / "out" / "summary.png") as picture:
        assert (picture.width > 1900) == (shape[1] > shape[0])
