"""Members of an ensemble: trained from the settings, stopped half-way, interrupted, kept in one file, made again."""

import json

import numpy as np
import pandas as pd
import pytest

from napari_rvae.errors import InputDataError, SettingsError, Stopped
from napari_rvae.io import load_patches
from napari_rvae.models import load_model
from napari_rvae.samples import cards
from napari_rvae.settings import TrainSettings
from napari_rvae.training.checkpoints import Checkpoint
from napari_rvae.workflows import analyze_patches, encode_patches, repeat, train_ensemble

SETTINGS = TrainSettings(model="jvae", classes=4, epochs=2, hidden=16, threads=1, start="scratch", members=3, seed=5)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    file = tmp_path_factory.mktemp("cards") / "cards.npy"
    np.save(file, cards(1, 80, 16)[0])
    return load_patches(file)


@pytest.fixture(scope="module")
def saved(source, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ensemble") / "result"
    told = []
    done = analyze_patches(source, None, SETTINGS, progress=lambda *one: told.append(one))
    done.save(folder)
    return done, folder, told


def test_members_learn_from_different_patches_and_speak_together(saved):
    done, _, told = saved
    members = [done.model, *done.model.members]
    assert [one.settings.seed for one in members] == [5, 6, 7]
    assert [one.recipe["patches"] for one in members] == [80, 40, 40]
    assert {"class_dispersion", "z1_dispersion", "z2_dispersion"} <= set(done.table)
    assert done.table["class_dispersion"].between(0, 1).all()
    assert done.table["z1_dispersion"].max() > 0
    assert [fraction for fraction, _ in told] == sorted(fraction for fraction, _ in told)
    assert any(text.startswith("Member 2 of 3: Epoch") for _, text in told)


def test_one_file_holds_all_members_and_applies_them_together(saved, source):
    done, folder, _ = saved
    model = load_model(folder / "model.safetensors")
    assert len(model.members) == 2
    again = encode_patches(model, source)
    np.testing.assert_array_equal(again, done.table)


def test_an_ensemble_is_made_again(saved):
    done, folder, _ = saved
    recipe = json.loads((folder / "recipe.json").read_text())
    assert recipe["settings"]["train"]["members"] == 3
    assert len(recipe["used"]["members"]) == 2
    np.testing.assert_array_equal(repeat(folder / "recipe.json").table, done.table)


def test_stopped_half_way_the_members_that_are_done_are_used(saved):
    patches, told = saved[0].patches, []
    more = {"progress": lambda _, text: told.append(text)}

    def second_learns():
        return told[-1:] > ["Member 2 of 3: Epoch"]

    model, _ = train_ensemble(patches, SETTINGS, keep=second_learns, **more)
    assert len(model.members) == 0
    assert model.recipe["notes"] == ["Stopped: 1 of 3 members are used."]
    with pytest.raises(Stopped):
        train_ensemble(patches, SETTINGS, stop=second_learns, **more)


def test_stopped_while_it_averages_the_members_that_are_done_are_used(saved):
    now = []

    def report(one):
        if one.member == 2 and one.phase == "averages":
            now.append(one)

    settings = SETTINGS.model_copy(update={"model": "jrvae", "start": "averages"})
    model, _ = train_ensemble(saved[0].patches, settings, keep=lambda: bool(now), report=report)
    assert model.recipe["notes"] == ["Stopped: 1 of 3 members are used."]
    now.clear()
    with pytest.raises(Stopped):
        train_ensemble(saved[0].patches, settings, stop=lambda: bool(now), report=report)


def test_more_classes_than_a_member_has_patches_are_refused_before_any_is_trained(saved):
    told, settings = [], SETTINGS.model_copy(update={"classes": 41})
    with pytest.raises(SettingsError, match="at most 40 classes"):
        train_ensemble(saved[0].patches, settings, progress=lambda *one: told.append(one))
    assert not told


def test_interrupted_it_goes_on_with_the_members_that_are_done(source, saved, tmp_path):
    told = []

    def interrupted(_, text):
        told.append(text)
        if text.startswith("Member 3 of 3: Epoch 1"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        analyze_patches(source, None, SETTINGS, checkpoint=Checkpoint(tmp_path), progress=interrupted)
    assert Checkpoint(tmp_path).facts()["member"] == 3
    told.clear()
    more = {"checkpoint": Checkpoint(tmp_path), "progress": lambda _, text: told.append(text)}
    done = analyze_patches(source, None, SETTINGS, **more)
    assert not any(text.startswith(("Member 1", "Member 2")) for text in told)
    np.testing.assert_array_equal(done.table, saved[0].table)
    assert done.losses["epoch"].tolist() == [1, 2]
    pd.testing.assert_frame_equal(done.losses, saved[0].losses)
    other = SETTINGS.model_copy(update={"latent": 3})
    with pytest.raises(InputDataError, match="other settings"):
        analyze_patches(source, None, other, checkpoint=Checkpoint(tmp_path))
    Checkpoint(tmp_path).remove()
    assert not list(tmp_path.iterdir())
