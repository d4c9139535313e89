"""The functions behind File > Open Sample."""

import subprocess
import sys

import numpy as np
import pytest

from napari_rvae.samples import layer_data


@pytest.mark.parametrize("opened", [layer_data.oxide_interface, layer_data.graphene_with_defects])
def test_scene_in_nanometres_with_truth(opened):
    ((image, shown, kind),) = opened()
    assert kind == "image"
    assert image.ndim == 2
    assert shown["units"] == ("nm", "nm")
    assert 0.01 < shown["scale"][0] < 0.02
    assert {"y", "x", "class"} <= set(shown["metadata"]["truth"].columns)


@pytest.mark.parametrize("kind", [1, 2, 3, 4])
def test_cards_lie_under_their_points(kind):
    (image, shown, _), (centers, points, layer) = getattr(layer_data, f"cards_{kind}")()
    truth = shown["metadata"]["truth"]
    assert layer == "points"
    assert len(centers) == len(truth) == len(points["features"]) == 1024
    half = shown["metadata"]["patch_size"] / 2
    assert np.all(centers - half >= 0)
    assert np.all(centers + half <= image.shape)
    corner = np.round(centers[37] - half + 0.5).astype(int)
    card = image[corner[0] : corner[0] + 48, corner[1] : corner[1] + 48]
    expected, _ = layer_data.cards(kind, n=1024)
    np.testing.assert_array_equal(card, expected[37])


def test_samples_load_without_napari_and_torch():
    code = (
        "import sys, napari_rvae.samples.layer_data as s; s.oxide_interface();"
        "print({'napari', 'torch', 'qtpy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
