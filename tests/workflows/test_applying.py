"""A model applied to many images: every file gets its table or its reason."""

import shutil

import h5py
import numpy as np
import pandas as pd
import pytest

from napari_rvae.errors import InputDataError, OutputError
from napari_rvae.io import load_image
from napari_rvae.settings import TrainSettings
from napari_rvae.workflows import analyze_image
from napari_rvae.workflows.applying import apply_to_files, image_files


@pytest.fixture
def series(scene, image_file, tmp_path):
    """A good image, one without atoms, a damaged one, another good one, and what is no image."""
    folder = tmp_path / "series"
    folder.mkdir()
    shutil.copy(image_file, folder / "a.tif")
    np.save(folder / "b.npy", np.zeros((64, 64)))
    (folder / "c.tif").write_bytes(b"nothing")
    np.save(folder / "d.npy", scene.image[::-1])
    (folder / "notes.txt").write_text("about them")
    (folder / ".hidden.npy").touch()
    return folder


def test_one_that_fails_does_not_stop_the_rest(analysis, series, tmp_path):
    told, fractions = [], []
    files = image_files([series])
    assert [file.name for file in files] == ["a.tif", "b.npy", "c.tif", "d.npy"]
    summary = apply_to_files(
        analysis.model, files, tmp_path / "out",
        progress=lambda fraction, text: fractions.append(fraction), report=lambda number, one: told.append(number),
    )  # fmt: skip
    assert summary["state"].tolist() == ["done", "failed", "failed", "done"]
    assert "constant" in summary["error"][1]
    assert "c.tif cannot be read" in summary["error"][2]
    assert told == [0, 1, 2, 3]
    assert fractions == sorted(fractions)
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["a.csv", "d.csv", "summary.csv"]
    table = pd.read_csv(tmp_path / "out" / "a.csv")
    np.testing.assert_allclose(table["z1"], analysis.table["z1"], rtol=1e-6)
    assert summary["encoded"].tolist() == [len(table), 0, 0, pd.read_csv(tmp_path / "out" / "d.csv")["z1"].count()]
    assert summary["reconstruction_error"][0] == pytest.approx(table["reconstruction_error"].median(), abs=1e-3)
    assert summary["note"].tolist() == ["", "", "", ""]
    with pytest.raises(OutputError, match="exists already"):
        apply_to_files(analysis.model, files, tmp_path / "out")


def test_images_that_the_model_does_not_explain_are_told(analysis, image_file, scene, tmp_path):
    np.save(tmp_path / "bright.npy", 20 * scene.image)
    files = [image_file, tmp_path / "bright.npy"]
    summary = apply_to_files(analysis.model, files, tmp_path / "out")
    assert summary["state"].tolist() == ["done", "done"]
    assert summary["note"].str.startswith("The model does not explain these atoms").tolist() == [False, True]
    assert summary["reconstruction_error"][1] > 10 * summary["reconstruction_error"][0]


def test_a_reader_that_fails_in_any_way_is_told(analysis, series, tmp_path, monkeypatch):
    from napari_rvae.workflows import applying

    load = applying.load_image

    def strange(path):
        if path.stem == "a":
            raise ZeroDivisionError("no rows")
        return load(path)

    monkeypatch.setattr(applying, "load_image", strange)
    summary = apply_to_files(analysis.model, image_files([series]), tmp_path / "out")
    assert summary["state"].tolist() == ["failed", "failed", "failed", "done"]
    assert summary["error"][0] == "Failed with ZeroDivisionError: no rows"


def test_files_of_several_images_are_read_as_in_training(scene, tmp_path):
    for name in ("a.h5", "b.h5"):
        with h5py.File(tmp_path / name, "w") as file:
            file["signal/abf"], file["signal/haadf"] = scene.image[::-1], scene.image
    quick = TrainSettings(epochs=2, hidden=16, start="scratch", seed=1, threads=1)
    trained = analyze_image(load_image(f"{tmp_path / 'a.h5'}::signal/haadf"), training=quick)
    summary = apply_to_files(trained.model, image_files([tmp_path]), tmp_path / "out")
    assert summary["table"].tolist() == ["a.csv", "b.csv"]
    for name in summary["table"]:
        np.testing.assert_allclose(pd.read_csv(tmp_path / "out" / name)["z1"], trained.table["z1"], rtol=1e-6)
    others = image_files([f"{tmp_path}::signal/abf"])
    summary = apply_to_files(trained.model, others, tmp_path / "other")
    assert summary["table"].tolist() == ["a.csv", "b.csv"]
    table = pd.read_csv(tmp_path / "other" / "b.csv")
    assert table["y"].mean() == pytest.approx(len(scene.image) - 1 - trained.table["y"].mean(), abs=1.0)


def test_a_file_of_several_images_where_nobody_says_which(analysis, tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["abf"] = file["haadf"] = np.ones((20, 20))
    summary = apply_to_files(analysis.model, [tmp_path / "a.h5"], tmp_path / "out")
    assert "choose one: 'a.h5::abf'" in summary["error"][0]


def test_what_was_done_before_a_stop_stays(analysis, series, tmp_path):
    done = []
    summary = apply_to_files(
        analysis.model, image_files([series]), tmp_path / "out",
        stop=lambda: len(done) == 2, report=lambda number, one: done.append(one),
    )  # fmt: skip
    assert summary["state"].tolist() == ["done", "failed", "not done", "not done"]
    assert (tmp_path / "out" / "a.csv").exists()
    assert len(pd.read_csv(tmp_path / "out" / "summary.csv")) == 4


def test_tables_of_images_of_one_name_are_told_apart(series, tmp_path):
    from napari_rvae.workflows.applying import _table_names

    (tmp_path / "other").mkdir()
    files = [series / "a.tif", series / "a.npy", tmp_path / "other" / "a.tif"]
    assert len(set(_table_names(files))) == 3
    with pytest.raises(InputDataError, match="no images"):
        image_files([tmp_path / "other"])
    with pytest.raises(InputDataError, match="no file or folder"):
        image_files([tmp_path / "nowhere"])
