"""One small simulated image, analysed once."""

from dataclasses import replace

import numpy as np
import pytest

from napari_rvae.io import load_image
from napari_rvae.samples import Microscope, interface
from napari_rvae.settings import TrainSettings
from napari_rvae.workflows import analyze_image

QUICK = TrainSettings(epochs=2, hidden=16, start="scratch", seed=1, threads=1)


@pytest.fixture(scope="session")
def scene():
    return interface(replace(Microscope(), size=200, dose=400))


@pytest.fixture(scope="session")
def image_file(scene, tmp_path_factory):
    import tifffile

    path = tmp_path_factory.mktemp("image") / "interface.tif"
    per_unit = 1 / scene.pixel_size
    tifffile.imwrite(path, scene.image, imagej=True, resolution=(per_unit, per_unit), metadata={"unit": "nm"})
    return path


@pytest.fixture(scope="session")
def image(image_file):
    return load_image(image_file)


@pytest.fixture(scope="session")
def analysis(image):
    return analyze_image(image, training=QUICK)


@pytest.fixture(scope="session")
def cards_file(tmp_path_factory):
    from napari_rvae.samples import cards

    folder = tmp_path_factory.mktemp("cards")
    patches, truth = cards(1, n=60, size=20)
    np.save(folder / "cards.npy", patches)
    np.save(folder / "labels.npy", np.where(np.arange(60) < 30, truth["label"], -1))
    np.save(folder / "condition.npy", truth["label"])
    return folder / "cards.npy"
