"""What a model has learned, as pictures: laid out as a plot, in the class and under the condition asked for."""

import numpy as np
import pytest

from napari_rvae.errors import RVAEError
from napari_rvae.io import load_patches, load_vector
from napari_rvae.latent import decode
from napari_rvae.latent.paths import AMOUNTS
from napari_rvae.settings import TrainSettings
from napari_rvae.workflows import analyze_patches
from napari_rvae.workflows.decoding import attribute_picture, manifold_picture, save_picture


@pytest.fixture(scope="module")
def analyses(cards_file):
    """Tiny models of cards by name: with classes, a condition, or neither."""
    told = {"ssrvae": "labels", "crvae": "condition"}
    found = {}
    for name in ("rvae", "ssrvae", "crvae"):
        training = TrainSettings(model=name, epochs=2, hidden=16, start="scratch", threads=1)
        given = {told[name]: load_vector(cards_file.with_name(f"{told[name]}.npy"), 60, "")} if name in told else {}
        found[name] = analyze_patches(load_patches(cards_file), training=training, **given)
    return found


def test_a_manifold_grows_to_the_right_and_upward(analyses):
    model = analyses["rvae"].model
    picture = manifold_picture(model, (1, 0), 3, 1.5)
    assert picture.shape == (1, 60, 60)
    for row, column, z in ((2, 0, [-1.5, -1.5]), (2, 2, [-1.5, 1.5]), (0, 0, [1.5, -1.5]), (1, 1, [0, 0])):
        tile = picture[0, 20 * row : 20 * row + 20, 20 * column : 20 * column + 20]
        np.testing.assert_allclose(tile, decode(model, z)[0, 0], atol=1e-5)


def test_classes_are_side_by_side_or_chosen(analyses):
    model = analyses["ssrvae"].model
    model.recipe["class_names"] = ["hearts", "spades"]
    whole = manifold_picture(model, steps=2)
    assert whole.shape == (1, 40, 40 * model.classes)
    for name in ("spades", "1"):
        np.testing.assert_array_equal(manifold_picture(model, steps=2, kind=name), whole[:, :, 40:80])


def test_an_attribute_is_added_to_the_patch_of_some_atoms(analyses):
    table, model = analyses["ssrvae"].table, analyses["ssrvae"].model
    picture, direction = attribute_picture(model, table, "z1 > 0", "z1 <= 0", "atom_id == 7")
    names, right = ["z1", "z2"], table["z1"] > 0
    np.testing.assert_allclose(direction, table[right][names].mean() - table[~right][names].mean(), rtol=1e-5)
    row = table.set_index("atom_id").loc[7]
    for number, amount in enumerate(AMOUNTS):
        patch = decode(model, row[names].to_numpy(float) + amount * direction, [int(row["class"])])
        np.testing.assert_allclose(picture[:, :, 20 * number : 20 * number + 20], patch[0], atol=1e-4)


def test_a_condition_is_given_or_that_of_the_atoms(analyses):
    model, table = analyses["crvae"].model, analyses["crvae"].table
    first, second = (manifold_picture(model, condition=text) for text in "02")
    assert np.abs(first - second).max() > 0
    known = table.assign(condition=np.where(np.arange(60) % 3, 2, 0))
    own, _ = attribute_picture(model, known, "z1 > 0", "z1 <= 0")
    told, _ = attribute_picture(model, table, "z1 > 0", "z1 <= 0", condition="2")
    np.testing.assert_array_equal(own, told)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("rvae", {"axes": (0, 2)}, "has 2 latents"),
        ("rvae", {"axes": (1, 1)}, "two different ones"),
        ("rvae", {"kind": "1"}, "rvae has no classes: leave --class out"),
        ("rvae", {"condition": "1"}, "takes no condition: leave --condition out"),
        ("ssrvae", {"kind": "joker"}, "no class joker; there are"),
        ("crvae", {}, "with --condition CONDITION"),
        ("crvae", {"condition": "1,2"}, "with --condition CONDITION"),
        ("crvae", {"condition": "9"}, "does not know the condition 9"),
    ],
)
def test_what_a_model_does_not_have_is_refused(analyses, name, options, message):
    with pytest.raises(RVAEError, match=message):
        manifold_picture(analyses[name].model, **options)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (("z1 > 0", "z1 > 0"), "same atoms"),
        (("z1 > 1e9", "z1 > 0"), "at least one atom"),
        (("z1 > 0", "z1 < 0", "atom_id == -5"), "no atom that was encoded"),
        (("z1 > 0", "zeta < 0"), "no column 'zeta'"),
    ],
)
def test_groups_without_a_difference_are_refused(analyses, groups, message):
    with pytest.raises(RVAEError, match=message):
        attribute_picture(analyses["rvae"].model, analyses["rvae"].table, *groups)
    with pytest.raises(RVAEError, match="the table has 1 latents, the model 2"):
        attribute_picture(analyses["rvae"].model, analyses["rvae"].table.drop(columns="z2"), "z1 > 0", "z1 < 0")


def test_pictures_keep_intensities_or_are_large_enough_to_look_at(analyses, tmp_path):
    import tifffile
    from PIL import Image

    model = analyses["rvae"].model
    picture = manifold_picture(model, steps=3)
    save_picture(picture, model, tmp_path / "manifold.tif")
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "manifold.tif"), picture[0])
    save_picture(picture, model, tmp_path / "manifold.png")
    with Image.open(tmp_path / "manifold.png") as seen:
        assert (seen.mode, seen.size) == ("L", (300, 300))
        assert np.corrcoef(np.asarray(seen)[2::5, 2::5].ravel(), picture[0].ravel())[0, 1] > 0.9
