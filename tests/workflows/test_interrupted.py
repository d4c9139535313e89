"""A training that was interrupted is offered again, with all that went in, and only when nobody is at it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from napari_rvae.errors import InputDataError, OutputError
from napari_rvae.io import ImageData, load_image
from napari_rvae.settings import FindSettings, PatchSettings
from napari_rvae.workflows import analyze_image
from napari_rvae.workflows.interrupted import Inputs, KeptTraining, interrupted_trainings

from .conftest import QUICK


class Crash(BaseException):
    pass


@pytest.fixture
def inputs(image, analysis):
    return Inputs(image, analysis.atoms, "sublattice == 0", FindSettings(), PatchSettings(), QUICK)


def interrupt(inputs, cache):
    """Train and crash after the first epoch."""
    kept = KeptTraining.begin(inputs, cache)
    kept.checkpoint._every = kept.checkpoint._next = 0.0

    def report(one):
        if one.epoch == 1:
            raise Crash

    with pytest.raises(Crash):
        analyze(inputs, kept, report=report)
    return kept


def analyze(inputs, kept, **more):
    return analyze_image(
        inputs.image, inputs.find, inputs.patch, inputs.training, atoms=inputs.atoms, where=inputs.where,
        checkpoint=kept.checkpoint, **more,
    )  # fmt: skip


@pytest.mark.parametrize("in_memory", [False, True])
def test_what_was_interrupted_is_offered_and_gone_on_with(inputs, tmp_path, in_memory):
    if in_memory:
        image = replace(inputs.image, path=tmp_path / "made up", sha256="1" * 64, pixel_size=(0.5, 0.25), unit="nm")
        inputs = replace(inputs, image=image)
    running = interrupt(inputs, tmp_path)
    assert interrupted_trainings(tmp_path) == []  # it is still at it
    running.release()
    (kept,) = interrupted_trainings(tmp_path)
    assert kept.in_words().startswith(f"A training of {inputs.image.name} from ")
    assert kept.in_words().endswith("was interrupted after epoch 0.")
    assert kept.claim()
    given = kept.inputs()
    np.testing.assert_array_equal(given.image.data, inputs.image.data)
    assert replace(given.image, data=None) == replace(inputs.image, data=None)
    pd.testing.assert_frame_equal(given.atoms[inputs.atoms.columns], inputs.atoms, check_exact=True, check_dtype=False)
    assert (given.where, given.training, given.patch) == (inputs.where, inputs.training, inputs.patch)
    again = analyze(given, kept)
    whole = analyze_image(inputs.image, inputs.find, inputs.patch, QUICK, atoms=inputs.atoms, where="sublattice == 0")
    pd.testing.assert_frame_equal(again.table, whole.table, check_exact=True, check_dtype=False)
    pd.testing.assert_frame_equal(again.losses, whole.losses, check_exact=True)
    kept.remove()
    assert list(tmp_path.iterdir()) == []


def test_those_that_had_learned_nothing_begin_anew(inputs, tmp_path):
    KeptTraining.begin(inputs, tmp_path).release()
    damaged = KeptTraining.begin(inputs, tmp_path)
    damaged.checkpoint.file.write_bytes(b"nothing")
    damaged.release()
    found = interrupted_trainings(tmp_path)
    assert len(found) == 2
    for kept in found:
        assert kept.in_words().endswith("was interrupted before it had learned anything; it begins anew.")
        assert kept.claim()
        pd.testing.assert_frame_equal(
            kept.inputs().atoms[inputs.atoms.columns], inputs.atoms, check_exact=True, check_dtype=False
        )
        kept.remove()


def test_those_of_which_not_even_the_inputs_were_kept_are_forgotten(inputs, tmp_path):
    KeptTraining.begin(inputs, tmp_path).release()
    half = KeptTraining.begin(inputs, tmp_path)
    (half.folder / "recipe.json").unlink()
    assert len(interrupted_trainings(tmp_path)) == 1  # it may just be at it
    half.release()
    (half.folder / "lock").touch()
    (tmp_path / "of somebody else").mkdir()
    (kept,) = interrupted_trainings(tmp_path)
    assert {place.name for place in tmp_path.iterdir()} == {"of somebody else", kept.folder.name}
    assert interrupted_trainings(tmp_path / "nowhere") == []


def test_clean_image_is_kept_too(scene, inputs, tmp_path):
    calm = ImageData(scene.image + 1, "calm", None, None, Path("calm"), "2" * 64)
    kept = KeptTraining.begin(replace(inputs, clean=calm), tmp_path)
    again = kept.inputs().clean
    assert (again.name, again.path, again.sha256) == (calm.name, calm.path.absolute(), calm.sha256)
    np.testing.assert_array_equal(again.data, calm.data)
    kept.remove()


def test_changed_image_is_noticed(scene, inputs, tmp_path):
    np.save(tmp_path / "image.npy", scene.image)
    kept = KeptTraining.begin(replace(inputs, image=load_image(tmp_path / "image.npy")), tmp_path / "cache")
    np.save(tmp_path / "image.npy", scene.image + 1)
    with pytest.raises(InputDataError, match="has changed"):
        kept.inputs()
    kept.remove()


def test_what_cannot_be_kept_is_said(inputs, tmp_path, monkeypatch):
    monkeypatch.setattr("napari_rvae.workflows.interrupted._LARGEST", 100)
    with pytest.raises(OutputError, match="too large to be copied"):
        KeptTraining.begin(replace(inputs, image=replace(inputs.image, path=Path("made up"))), tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(OutputError):
        KeptTraining.begin(inputs, tmp_path / "file")
