"""A folder with results opened in napari shows what was saved."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from napari.components import ViewerModel
from npe2 import PluginManager

from napari_rvae.errors import RVAEError
from napari_rvae.io import load_image
from napari_rvae.layers import RECIPE, atoms_of, coloring_of, hashed, image_of, image_source, model_of
from napari_rvae.layers.opening import get_result_reader, link_layers
from napari_rvae.settings import TrainSettings
from napari_rvae.workflows import analyze_image

from ..widgets.conftest import crystal


@pytest.fixture(scope="module")
def analysis(tmp_path_factory):
    folder = tmp_path_factory.mktemp("image")
    np.save(folder / "crystal.npy", crystal())
    image = replace(load_image(folder / "crystal.npy"), pixel_size=(0.02, 0.03), unit="nm")
    return analyze_image(image, training=TrainSettings(epochs=1, hidden=16, start="scratch", threads=1))


@pytest.fixture
def saved(analysis, tmp_path):
    analysis.save(tmp_path / "results")
    return tmp_path / "results"


def opened(path, linked=True):
    PluginManager.instance().discover()
    viewer = ViewerModel()
    viewer.open(path, plugin="napari-rvae")
    if linked:
        link_layers(viewer.layers)
    return viewer.layers


def test_atoms_have_their_colours_before_any_dock_is_open(saved):
    _, cells, points = opened(saved, linked=False)
    assert len(np.unique(points.face_color, axis=0)) > 10
    colors = points.face_color.copy()
    np.testing.assert_allclose(cells.colormap.map(points.features["atom_id"][7] + 1), colors[7], atol=0.02)
    link_layers([cells, points])
    np.testing.assert_allclose(points.face_color, colors, atol=0.02)


@pytest.mark.parametrize("name", ["", "recipe.json"])
def test_layers_come_back_linked(analysis, saved, name):
    image, cells, points = opened(saved / name)
    np.testing.assert_array_equal(image.data, analysis.source.data)
    np.testing.assert_allclose(points.data, analysis.table[["y", "x"]], rtol=1e-6)
    for column in ("z1", "angle", "sublattice"):
        np.testing.assert_allclose(points.features[column], analysis.table[column], rtol=1e-6)
    assert set(points.features) == set(analysis.table) - {"y_nm", "x_nm"}
    for layer in (image, cells, points):
        np.testing.assert_allclose(layer.scale, [0.02, 0.03])
        assert [f"{unit:~}" for unit in layer.units] == ["nm", "nm"]
    assert coloring_of(points).column == "z1"
    assert len(np.unique(points.face_color, axis=0)) > 10
    assert image_of(points) is image
    assert atoms_of(cells) is points
    first = points.features.iloc[7]
    assert cells.data[round(points.data[7, 0]), round(points.data[7, 1])] == first["atom_id"] + 1
    np.testing.assert_allclose(cells.colormap.map(first["atom_id"] + 1), points.face_color[7], atol=0.02)
    source = hashed(image_source(image))  # what is trained on it can be repeated
    assert replace(source, data=None) == replace(analysis.source, data=None)
    assert points.metadata[RECIPE]["command"] == "run"
    for ours, theirs in zip(model_of(points).parameters(), analysis.model.parameters(), strict=True):
        np.testing.assert_array_equal(ours.detach(), theirs.detach())


def test_what_is_gone_is_said_and_the_rest_shown(saved, tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr("napari_rvae.layers.opening.show_warning", told.append)
    (saved / "model.safetensors").write_bytes(b"nothing")
    (saved / "cells.ome.tif").write_bytes(b"II*")
    recipe = (saved / "recipe.json").read_text()
    (saved / "recipe.json").write_text(recipe.replace("crystal.npy", "elsewhere.npy"))
    (points,) = opened(saved)
    assert model_of(points) is None
    assert [words.partition(":")[0] for words in told] == [
        "The image is not shown", "The cells are not shown", "The model is not there",
    ]  # fmt: skip
    (saved / "cells.ome.tif").unlink()
    assert len(opened(saved)) == 1


def test_folders_without_results_are_left_to_others(saved, tmp_path):
    assert get_result_reader(str(tmp_path)) is None
    assert get_result_reader([str(saved)]) is None
    assert get_result_reader(saved / "latent.csv") is None
    pd.DataFrame({"z1": [1.0]}).to_csv(saved / "latent.csv", index=False)
    with pytest.raises(RVAEError):
        get_result_reader(saved)(saved)
    (saved / "recipe.json").write_text("{}")
    with pytest.raises(RVAEError, match="no recipe"):
        get_result_reader(saved)(saved)
