"""From an image to a table and back from its recipe."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
from PIL import Image

from napari_rvae.errors import InputDataError, OutputError, Stopped
from napari_rvae.io import ImageData, as_atoms, load_image, load_patches, load_table
from napari_rvae.models import load_model
from napari_rvae.samples import Microscope, interface
from napari_rvae.settings import FindSettings, PatchSettings
from napari_rvae.workflows import (
    analyze_image,
    analyze_patches,
    apply_to_image,
    encode_image,
    encode_patches,
    reconstruct_image,
    repeat,
)

from .conftest import QUICK


def test_every_atom_has_its_values(analysis):
    table = analysis.table
    assert len(table) == len(analysis.atoms)
    assert table[["z1", "z2", "angle", "dy", "dx", "reconstruction_error"]].notna().to_numpy().all()
    assert table["atom_id"].tolist() == analysis.atoms["atom_id"].tolist()
    np.testing.assert_array_equal(table["y"], analysis.atoms["y"])


def test_positions_in_nanometres(analysis, scene):
    np.testing.assert_allclose(analysis.table["y_nm"], analysis.table["y"] * scene.pixel_size)
    assert analysis.recipe.units["x_nm"] == "nm"
    assert analysis.recipe.units["angle"] == "rad"


def test_edge_atoms_are_encoded_but_not_learned_from(image, monkeypatch):
    import napari_rvae.training

    seen = []
    real = napari_rvae.training.train

    def watched(patches, *arguments, **more):
        seen.append(patches)
        return real(patches, *arguments, **more)

    monkeypatch.setattr(napari_rvae.training, "train", watched)
    done = analyze_image(image, training=QUICK)
    assert not seen[0].edge.any()
    doubtful = done.atoms.loc[done.atoms["flag"].isin(["edge", "unsupported"]), "atom_id"]
    assert not np.isin(seen[0].atom_id, doubtful).any()
    assert done.patches.edge.any()
    assert len(seen[0]) < len(done.patches) == len(done.atoms)


def test_recipe_says_what_was_used(analysis, image):
    recipe = analysis.recipe
    assert recipe.command == "run"
    assert recipe.inputs["image"].sha256 == image.sha256
    assert recipe.used["epochs"] == 2
    assert recipe.used["batch_size"] >= 2
    assert recipe.used["device"]
    assert recipe.used["threads"] == 1
    assert recipe.used["patch"]["size"] == analysis.patches.size
    assert recipe.settings["train"]["seed"] == 1
    assert recipe.atoms is None


def test_only_chosen_atoms_are_encoded(image):
    done = analyze_image(image, training=QUICK, where="sublattice == 0")
    chosen = done.atoms["sublattice"] == 0
    assert 0 < chosen.sum() < len(chosen)
    assert done.table.loc[chosen, "z1"].notna().all()
    assert done.table.loc[~chosen, "z1"].isna().all()


def test_atoms_of_ones_own(image, scene):
    truth = as_atoms(scene.truth[["y", "x"]], "truth")
    done = analyze_image(image, training=QUICK, atoms=truth)
    assert done.table["y"].tolist() == truth["y"].tolist()
    assert done.recipe.atoms["y"] == truth["y"].tolist()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": 10_000.0}, "outside the image"),
        ({"x": -5.0}, "outside the image"),
        ({"frame": 0}, "column frame"),
    ],
)
def test_atoms_that_do_not_fit_the_image(image, scene, change, message):
    atoms = as_atoms(scene.truth[["y", "x"]].assign(**change), "truth")
    with pytest.raises(InputDataError, match=message):
        analyze_image(image, training=QUICK, atoms=atoms)


def test_impossible_choices(image):
    with pytest.raises(InputDataError, match="no atom satisfies"):
        analyze_image(image, training=QUICK, where="y < -5")
    with pytest.raises(InputDataError, match="too few to learn from"):
        analyze_image(image, patch=PatchSettings(size=190), training=QUICK)


def test_progress_rises_and_stop_is_heard(image):
    seen = []
    analyze_image(image, training=QUICK, progress=lambda fraction, text: seen.append((fraction, text)))
    fractions = [fraction for fraction, _ in seen]
    assert fractions == sorted(fractions)
    assert fractions[-1] == pytest.approx(1)
    assert all(text for _, text in seen)
    with pytest.raises(Stopped):
        analyze_image(image, training=QUICK, stop=lambda: True)


# Files ----------------------------------------------------------------------------------------------------------------


def test_saved_files_are_complete(analysis, tmp_path):
    analysis.save(tmp_path / "result")
    assert sorted(file.name for file in (tmp_path / "result").iterdir()) == [
        "cells.ome.tif",
        "latent.csv",
        "model.safetensors",
        "recipe.json",
        "summary.png",
    ]
    again = load_table(tmp_path / "result" / "latent.csv")
    pd.testing.assert_frame_equal(again, analysis.table, check_dtype=False, rtol=1e-7)
    with Image.open(tmp_path / "result" / "summary.png") as picture:
        assert picture.width > 1500
        colors = picture.convert("RGB").getcolors(picture.width * picture.height)
        assert colors is not None
        assert len(colors) > 500
    with pytest.raises(OutputError, match="exists already"):
        analysis.save(tmp_path / "result")
    analysis.save(tmp_path / "result", force=True)


def test_summary_maps_everything_that_the_model_tells(analysis, monkeypatch):
    from dataclasses import replace

    from napari_rvae.workflows import summary

    drawn = []
    panel = summary.image_panel
    monkeypatch.setattr(summary, "image_panel", lambda *given: drawn.append(given[2:]) or panel(*given))
    strained = analysis.table.assign(z3=0.0, **{"class": 0, "strain_xx": 0.01, "strain_xy": 0.0})
    monkeypatch.setattr(summary, "_manifold", lambda *_: np.zeros((1, 4, 4)))  # of a model with two latents
    summary.analysis_summary(replace(analysis, table=strained))
    scale = (analysis.source.pixel_size[1], "nm")
    assert drawn == [(name, *scale) for name in ("class", "z1", "z2", "z3", "angle", "strain_xx", "strain_xy")]


def test_repeat_gives_the_same_table_to_the_last_digit(analysis, tmp_path):
    analysis.save(tmp_path)
    again = repeat(tmp_path / "recipe.json")
    pd.testing.assert_frame_equal(again.table, analysis.table, check_exact=True)


def test_stopped_training_is_repeated_to_the_last_digit(image, tmp_path):
    epochs = []
    training = QUICK.model_copy(update={"epochs": 50, "early_stopping": False})
    done = analyze_image(image, training=training, report=epochs.append, keep=lambda: len(epochs) >= 3)
    assert done.recipe.used["epochs"] == 3
    done.save(tmp_path)
    pd.testing.assert_frame_equal(repeat(tmp_path / "recipe.json").table, done.table, check_exact=True)


def test_image_that_is_in_no_file_is_saved_with_its_result(scene, tmp_path):
    source = ImageData(scene.image, "made up", (0.02, 0.02), "nm", Path("made up"), "0" * 64)
    done = analyze_image(source, training=QUICK)
    done.save(tmp_path)
    assert (np.load(tmp_path / "image.npy") == scene.image).all()
    again = repeat(tmp_path / "recipe.json")
    pd.testing.assert_frame_equal(again.table, done.table, check_exact=True)  # those in nm, too
    recipe = json.loads((tmp_path / "recipe.json").read_text())
    recipe["used"]["batches"] = [["many"]]
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    with pytest.raises(InputDataError, match="does not say clearly"):
        repeat(tmp_path / "recipe.json")


def test_cells_have_the_scale_of_the_image(analysis, scene, tmp_path):
    analysis.save(tmp_path)
    with tifffile.TiffFile(tmp_path / "cells.ome.tif") as file:
        cells, described = file.asarray(), file.ome_metadata
    assert cells.shape == scene.image.shape
    first = analysis.table.iloc[0]
    assert cells[round(first["y"]), round(first["x"])] == first["atom_id"] + 1
    assert f'PhysicalSizeX="{scene.pixel_size}"' in described
    assert 'PhysicalSizeXUnit="nm"' in described


def test_repeat_with_atoms_inside_the_recipe(image, scene, tmp_path):
    truth = as_atoms(scene.truth[["y", "x"]], "truth")
    done = analyze_image(image, training=QUICK, atoms=truth, where="y > 40")
    done.recipe.save(tmp_path / "recipe.json")
    pd.testing.assert_frame_equal(repeat(tmp_path / "recipe.json").table, done.table, check_exact=True)


def test_repeat_notices_a_changed_image(tmp_path, scene):
    np.save(tmp_path / "image.npy", scene.image)
    done = analyze_image(load_image(tmp_path / "image.npy"), training=QUICK)
    done.recipe.save(tmp_path / "recipe.json")
    np.save(tmp_path / "image.npy", scene.image + 1)
    with pytest.raises(InputDataError, match="has changed since"):
        repeat(tmp_path / "recipe.json")


# Clean images ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clean_image(scene):
    """The same columns with much more dose, which no file holds."""
    calm = interface(replace(Microscope(), size=200, dose=40_000))
    np.testing.assert_array_equal(calm.truth[["y", "x"]], scene.truth[["y", "x"]])
    return ImageData(calm.image, "calm", None, None, Path("calm"), "1" * 64)


def test_clean_image_is_learned_from_kept_and_found_again(analysis, image, clean_image, tmp_path):
    done = analyze_image(image, training=QUICK, clean=clean_image)
    assert not np.allclose(done.table["z1"], analysis.table["z1"])
    done.save(tmp_path)
    assert not (tmp_path / "image.npy").exists()  # it is in its file
    np.testing.assert_array_equal(np.load(tmp_path / "clean.npy"), clean_image.data)
    pd.testing.assert_frame_equal(repeat(tmp_path / "recipe.json").table, done.table, check_exact=True)
    (tmp_path / "clean.npy").unlink()
    with pytest.raises(InputDataError, match=r"clean.npy is gone; put it back"):
        repeat(tmp_path / "recipe.json")


def test_what_a_clean_image_lacks_is_not_learned_from(image, clean_image):
    holes = clean_image.data.astype(np.float32)
    holes[:, :100] = np.nan
    done = analyze_image(image, training=QUICK, clean=replace(clean_image, data=holes))
    whole = analyze_image(image, training=QUICK, clean=clean_image)
    assert done.table["z1"].notna().all()
    assert 0.3 < done.model.recipe["patches"] / whole.model.recipe["patches"] < 0.6


def test_clean_image_that_is_none_is_refused(image, clean_image):
    with pytest.raises(InputDataError, match=r"calm has 190 x 200 pixels, interface 200 x 200"):
        analyze_image(image, training=QUICK, clean=replace(clean_image, data=clean_image.data[:190]))
    with pytest.raises(InputDataError, match="are the noisy ones"):
        analyze_image(image, training=QUICK, clean=image)
    with pytest.raises(InputDataError, match="no finite values"):
        analyze_image(image, training=QUICK, clean=replace(clean_image, data=np.full((200, 200), np.nan)))


def test_members_learn_from_clean_patches_of_their_own(cards_file, tmp_path):
    cards = load_patches(cards_file)
    np.save(tmp_path / "calm.npy", cards.data + 1.0)
    calm, training = load_patches(tmp_path / "calm.npy"), QUICK.model_copy(update={"members": 2})
    done = analyze_patches(cards, training=training, clean=calm)
    assert len(done.model.members) == 1
    done.recipe.save(tmp_path / "recipe.json")
    pd.testing.assert_frame_equal(repeat(tmp_path / "recipe.json").table, done.table, check_exact=True)


# Models applied to other data -----------------------------------------------------------------------------------------


def test_same_image_encodes_to_the_same_table(analysis, image, tmp_path):
    analysis.save(tmp_path)
    table = encode_image(load_model(tmp_path / "model.safetensors"), image)
    pd.testing.assert_frame_equal(table, analysis.table, check_exact=True)


def test_patches_cover_the_same_nanometres(analysis, image, monkeypatch):
    from dataclasses import replace

    import napari_rvae.patches

    sizes = []
    real = napari_rvae.patches.extract_patches

    def watched(*arguments, **more):
        patches = real(*arguments, **more)
        sizes.append(patches.size)
        return patches

    monkeypatch.setattr(napari_rvae.patches, "extract_patches", watched)
    encode_image(analysis.model, replace(image, pixel_size=tuple(2 * size for size in image.pixel_size)))
    assert sizes[0] == pytest.approx(analysis.patches.size / 2, abs=1)


def test_model_of_one_sublattice_is_applied_to_it(image):
    model = analyze_image(image, training=QUICK, where="sublattice == 0").model
    table = encode_image(model, image)
    assert table.loc[table["sublattice"] != 0, "z1"].isna().all()
    assert encode_image(model, image, where="")["z1"].notna().all()


def test_patches_from_a_file(cards_file):
    source = load_patches(cards_file)
    done = analyze_patches(source, training=QUICK)
    assert len(done.table) == 60
    assert done.table["z1"].notna().all()
    pd.testing.assert_frame_equal(encode_patches(done.model, source), done.table, check_exact=True)


def test_stack(scene, tmp_path):
    np.save(tmp_path / "stack.npy", np.stack([scene.image, scene.image[::-1]]))
    done = analyze_image(load_image(tmp_path / "stack.npy"), FindSettings(), training=QUICK)
    assert set(done.table["frame"]) == {0, 1}
    assert done.table["z1"].notna().all()
    done.save(tmp_path / "result")
    with pytest.raises(InputDataError, match="column frame"):
        analyze_image(load_image(tmp_path / "stack.npy"), atoms=as_atoms(scene.truth[["y", "x"]], "truth"))


def test_windows_without_atoms_tell_the_direction_of_stripes():
    """Two grains of stripes, 50 degrees apart; every window that lies in one of them tells which."""
    y, x = np.mgrid[:160, :160]
    turned = np.radians(np.where(x < 80, 15, 65))
    stripes = np.sin((y * np.cos(turned) + x * np.sin(turned)) * 2 * np.pi / 12)
    pixels = stripes + np.random.default_rng(0).normal(0, 0.3, y.shape)
    find, train = FindSettings(search="grid", spacing=5), QUICK.model_copy(update={"start": "averages"})
    source = ImageData(pixels, "stripes", None, None, Path("stripes"), "3" * 64)
    analysis = analyze_image(source, find=find, training=train)
    assert analysis.model.recipe["patch"]["size"] == 40, "eight spacings"
    table = analysis.table[~analysis.patches.edge & (np.abs(analysis.table["x"] - 80) > 30)]
    direction = np.exp(2j * table["angle"])  # stripes are the same after half a turn
    left, right = (np.angle(direction[side].mean()) / 2 for side in (table["x"] < 80, table["x"] > 80))
    assert abs((np.degrees(right - left) + 90) % 180 - 90) == pytest.approx(50, abs=3)
    spread = [np.abs(direction[side].mean()) for side in (table["x"] < 80, table["x"] > 80)]
    assert min(spread) > 0.95
    other = apply_to_image(analysis.model, replace(source, data=pixels[:, ::-1]))
    assert len(other.table) == len(analysis.table), "windows again, although nobody said so"
    assert other.recipe.settings["find"]["search"] == "grid"


@pytest.fixture(scope="module")
def stepping():
    """A stack in which every spot lies at its place in even frames, and to the left or right of it in odd ones."""
    rng, places = np.random.default_rng(0), np.mgrid[20:160:20, 20:160:20].reshape(2, -1).T
    y, x = np.mgrid[:180, :180]
    side, stack = rng.choice([-1, 1], len(places)), rng.normal(0, 0.1, (8, 180, 180))
    for frame in range(8):
        for (top, left), to in zip(places, side, strict=True):
            stack[frame] += np.exp(-((y - top) ** 2 + (x - left - 4 * to * (frame % 2)) ** 2) / 8)
    atoms = [pd.DataFrame(places, columns=["y", "x"]).assign(frame=frame, side=side) for frame in (0, 2, 4, 6)]
    table = as_atoms(pd.concat(atoms, ignore_index=True), "places")
    return ImageData(stack, "stepping", None, None, Path("stepping"), "4" * 64), table


def test_with_a_delay_patches_tell_where_things_go(stepping):
    source, atoms = stepping
    train = QUICK.model_copy(update={"model": "vae", "latent": 1, "epochs": 8})
    patch = PatchSettings(size=20, delay=1)
    analysis = analyze_image(source, patch=patch, training=train, atoms=atoms)
    assert analysis.model.channels == 2
    told = np.abs(np.corrcoef(analysis.table["z1"], analysis.table["side"])[0, 1])
    assert told > 0.95
    again = encode_image(analysis.model, source, atoms=atoms)
    assert again["z1"].tolist() == analysis.table["z1"].tolist(), "a model applies its own delay"
    shown = reconstruct_image(analysis.model, source, analysis.table)
    assert shown.shape == source.data.shape, "of the frames themselves"
    alone = analyze_image(source, patch=PatchSettings(size=20), training=train, atoms=atoms)
    assert np.abs(np.corrcoef(alone.table["z1"], alone.table["side"])[0, 1]) < 0.5


def test_last_frames_have_no_later_ones(stepping):
    source, atoms = stepping
    analysis = analyze_image(source, patch=PatchSettings(size=20, delay=4), training=QUICK, atoms=atoms)
    encoded = analysis.table["z1"].notna()
    assert encoded.equals(analysis.table["frame"] < 4)
    with pytest.raises(InputDataError, match="delay of 9"):
        analyze_image(source, patch=PatchSettings(size=20, delay=9), training=QUICK, atoms=atoms)
    still = replace(source, data=source.data[0])
    with pytest.raises(InputDataError, match="needs a stack with later frames"):
        analyze_image(still, FindSettings(search="grid"), PatchSettings(delay=1), QUICK)
