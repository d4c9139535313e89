"""Decoded patches back in the image: less noise, the right place, honest gaps."""

import numpy as np
import pandas as pd
import pytest

from napari_rvae.errors import InputDataError, Stopped
from napari_rvae.io import ImageData, load_image
from napari_rvae.patches import extract_patches
from napari_rvae.settings import PatchSettings, TrainSettings
from napari_rvae.workflows import analyze_image, reconstruct_image
from napari_rvae.workflows.reconstruction import _Canvas

NOISE = 0.3


@pytest.fixture(scope="module")
def crystal(tmp_path_factory):
    """Truth, noisy image and atoms: heavy and light columns in turn, one of them missing."""
    y, x = np.mgrid[:120, :120]
    places = np.stack(np.meshgrid(np.arange(6, 120, 12), np.arange(6, 120, 12), indexing="ij"), -1).reshape(-1, 2)
    clean = 3.0 + np.zeros((120, 120))
    for number, (top, left) in enumerate(places):
        height = 0.0 if number == 44 else 1.0 + (top + left) // 12 % 2
        clean += height * np.exp(-((y - top) ** 2 + (x - left) ** 2) / (2 * 2.0**2))
    path = tmp_path_factory.mktemp("crystal") / "noisy.npy"
    np.save(path, clean + NOISE * np.random.default_rng(0).standard_normal(clean.shape))
    atoms = pd.DataFrame({"atom_id": np.arange(len(places)), "y": places[:, 0] + 0.0, "x": places[:, 1] + 0.0})
    return clean, load_image(path), atoms


@pytest.fixture(scope="module")
def learned(crystal):
    training = TrainSettings(epochs=30, hidden=32, threads=1)
    return analyze_image(crystal[1], patch=PatchSettings(size=28), training=training, atoms=crystal[2])


def test_reconstruction_is_nearer_to_the_truth_than_any_smoothing(crystal, learned):
    from scipy.ndimage import gaussian_filter

    clean, image, _ = crystal
    told = []
    decoded = reconstruct_image(learned.model, image, learned.table, progress=lambda *one: told.append(one))
    assert decoded.shape == clean.shape
    assert decoded.dtype == np.float32
    inner = (slice(12, -12),) * 2
    smoothed = min(np.std((gaussian_filter(image.data, width) - clean)[inner]) for width in np.arange(0.5, 3, 0.25))
    assert np.std((decoded - clean)[inner]) < 0.8 * smoothed
    assert abs((decoded - clean)[inner].mean()) < 0.05
    assert told[-1][0] == 1


def test_free_scale_spoils_no_reconstruction(crystal, learned):
    clean, image, atoms = crystal
    training = learned.model.settings.model_copy(update={"invariance": ("rotation", "translation", "scale")})
    scaled = analyze_image(image, patch=PatchSettings(size=28), training=training, atoms=atoms)
    inner = (slice(12, -12),) * 2
    without, with_it = (
        np.std((reconstruct_image(one.model, image, one.table) - clean)[inner]) for one in (learned, scaled)
    )
    assert with_it < 1.1 * without


def test_patches_laid_where_they_were_cut_give_the_image_back(crystal):
    clean, _, atoms = crystal
    for size, working in ((28, 28), (21, 32)):
        moved = atoms.assign(y=atoms["y"] + 0.3, x=atoms["x"] - 0.4)
        patches = extract_patches(clean, moved, PatchSettings(size=size, working_size=working))
        canvas = _Canvas(clean.shape, patches)
        taper = canvas._taper
        level = (patches.data * taper).sum((2, 3), keepdims=True) / taper.sum()
        canvas.add(patches, (patches.data - level) * taper + level)
        again = canvas.blended()[0]
        assert np.abs(again - clean)[3:-3, 3:-3].max() < 0.02


def test_pixels_without_a_patch_stay_empty_and_stacks_keep_their_frames(crystal, learned):
    _, image, _ = crystal
    few = learned.table.iloc[[55]]
    decoded = reconstruct_image(learned.model, image, few)
    assert np.isfinite(decoded[int(few["y"].iloc[0]), int(few["x"].iloc[0])])
    assert 0.9 < np.isnan(decoded).mean() < 1
    stack = ImageData(np.stack([image.data] * 2), "stack", image.pixel_size, image.unit, image.path, image.sha256)
    second = reconstruct_image(learned.model, stack, few.assign(frame=1))
    assert np.isnan(second[0]).all()
    np.testing.assert_allclose(second[1], decoded)


def test_foreign_tables_and_a_stop_are_noticed(crystal, learned):
    _, image, atoms = crystal
    with pytest.raises(InputDataError, match="no latents of this model"):
        reconstruct_image(learned.model, image, atoms)
    with pytest.raises(InputDataError, match="no latents of this model"):
        reconstruct_image(learned.model, image, learned.table.assign(z1=np.nan))
    with pytest.raises(Stopped):
        reconstruct_image(learned.model, image, learned.table, stop=lambda: True)
