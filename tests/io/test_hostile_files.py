"""Whatever a file holds, reading it gives an image or one clear error."""

import gc
import io
import os

import h5py
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from napari_rvae.errors import RVAEError
from napari_rvae.io import Recipe, load_atoms, load_image, load_patches, looks_like_patches
from napari_rvae.settings import FindSettings

PROFILE = settings(derandomize=True)
GREY = np.random.default_rng(0).integers(0, 255, (20, 24), dtype=np.uint8)


def _good(suffix: str) -> bytes:
    stream = io.BytesIO()
    if suffix == ".npy":
        np.save(stream, GREY)
    elif suffix == ".npz":
        np.savez_compressed(stream, image=GREY, other=GREY[0])
    elif suffix == ".tif":
        tifffile.imwrite(stream, GREY, compression="zlib", imagej=False)
    elif suffix == ".png":
        Image.fromarray(GREY).save(stream, "png")
    elif suffix == ".jpg":
        Image.fromarray(GREY).save(stream, "jpeg")
    elif suffix == ".h5":
        with h5py.File(stream, "w") as file:
            file["image"] = GREY
    elif suffix == ".csv":
        stream.write(b"atom_id,y,x,amplitude,flag\n" + b"".join(b"%d,%d.5,3.25,1e3,\n" % (i, i) for i in range(20)))
    return stream.getvalue()


def _damaged(content: bytes, cut: float, changes: list[tuple[float, int]]) -> bytes:
    mutable = bytearray(content[: max(1, int(cut * len(content)))])
    for place, value in changes:
        mutable[int(place * (len(mutable) - 1))] = value
    return bytes(mutable)


def outcome(call, *arguments):
    """What comes of it: a result, or an error meant for users; anything else fails the test."""
    try:
        return call(*arguments)
    except RVAEError as error:
        return error


def clear(result) -> bool:
    return isinstance(result, RVAEError) and str(result) != "" and "\n" not in str(result)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # readers that leave their file open
@pytest.mark.parametrize("suffix", [".npy", ".npz", ".tif", ".png", ".jpg", ".h5"])
@settings(PROFILE, max_examples=60)
@given(
    cut=st.sampled_from([1.0, 1.0, 0.99, 0.7, 0.3, 0.05]),
    changes=st.lists(st.tuples(st.floats(0, 1) | st.floats(0, 0.1), st.integers(0, 255)), max_size=20),
)
def test_damaged_image(tmp_path, suffix, cut, changes):
    path = tmp_path / f"damaged{suffix}"
    path.write_bytes(_damaged(_good(suffix), cut, changes))
    for read in (load_image, load_patches):
        image = outcome(read, path)
        if not clear(image):
            assert image.data.dtype.kind in "buif"
            assert image.data.ndim in (2, 3, 4)
            assert np.asarray(image.data).shape == image.data.shape
    assert clear(told := outcome(looks_like_patches, path)) or told in (True, False)
    gc.collect(0)


@settings(PROFILE, max_examples=150)
@given(
    cut=st.sampled_from([1.0, 0.9, 0.3, 0.02]),
    changes=st.lists(st.tuples(st.floats(0, 1), st.sampled_from(list(b'",\n\x00\xff-e.9a'))), max_size=30),
)
def test_damaged_atoms(tmp_path, cut, changes):
    path = tmp_path / "damaged.csv"
    path.write_bytes(_damaged(_good(".csv"), cut, changes))
    atoms = outcome(load_atoms, path)
    if not clear(atoms):
        assert np.isfinite(atoms[["y", "x"]].to_numpy()).all()
        assert atoms["atom_id"].is_unique


@settings(PROFILE, max_examples=100)
@given(
    cut=st.sampled_from([1.0, 1.0, 0.9, 0.1]),
    changes=st.lists(st.tuples(st.floats(0, 1), st.sampled_from(list(b'",\n\x00\xff{}[]:9a'))), max_size=10),
)
def test_damaged_recipe(tmp_path, cut, changes):
    recipe = Recipe(
        command="run",
        inputs={"image": {"path": "/a.npy", "sha256": "0" * 64}},
        settings={"find": FindSettings().model_dump()},
        atoms={"y": [1.0, 2.0], "x": [3.0, None]},
    )
    path = tmp_path / "recipe.json"
    path.write_bytes(_damaged(recipe.model_dump_json().encode(), cut, changes))
    loaded = outcome(Recipe.load, path)
    if not clear(loaded):
        atoms = outcome(loaded.atoms_table, tmp_path)
        assert clear(atoms) or atoms is None or list(atoms["atom_id"]) == [0, 1]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_what_is_no_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "a.npy")
    with pytest.raises(RVAEError, match="is no file"):
        load_image(tmp_path / "a.npy")
