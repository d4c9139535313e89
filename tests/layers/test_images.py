import hashlib

import dask.array as da
import numpy as np
import pytest
from napari.layers import Image

from napari_rvae.errors import InputDataError
from napari_rvae.io import FileRecord, load_image
from napari_rvae.layers import add_image, hashed, image_data, image_source, pixel_size


def test_multiscale_image_is_used_at_full_resolution():
    full = np.zeros((64, 64))
    assert image_data(Image([full, full[::2, ::2]], multiscale=True)) is full


def test_lazy_stack_stays_lazy():
    stack = da.zeros((5, 20, 30), chunks=(1, 20, 30))
    assert image_data(Image(stack)) is stack


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (Image(np.zeros((8, 8, 3)), rgb=True, name="photo"), "'photo' is a colour image"),
        (Image(np.zeros((2, 2, 8, 8)), name="tilts"), "'tilts' has 4 axes"),
    ],
)
def test_what_is_no_image_is_refused(layer, message):
    with pytest.raises(InputDataError, match=message):
        image_data(layer)


def test_size_of_a_pixel_counts_every_transformation():
    layer = Image(np.zeros((8, 8)), scale=(0.1, 0.2), rotate=40, affine=np.diag([2, 2, 1]), units=("nm", "nm"))
    (height, width), unit = pixel_size(layer)
    assert (height, width, unit) == (pytest.approx(0.2), pytest.approx(0.4), "nm")


def test_pixel_without_a_unit_still_has_a_shape():
    assert pixel_size(Image(np.zeros((8, 8)), scale=(1, 2))) == ((1.0, 2.0), "")


def test_axes_of_different_units_are_compared():
    (height, width), unit = pixel_size(Image(np.zeros((8, 8)), scale=(0.001, 1), units=("um", "nm")))
    assert (height, width, unit) == (pytest.approx(1.0), 1.0, "nm")


def test_lengths_reach_the_steps_in_nm():
    source = image_source(Image(np.zeros((8, 8)), scale=(0.5, 0.5), units=("angstrom", "angstrom")))
    assert source.pixel_size == (pytest.approx(0.05), pytest.approx(0.05))
    assert source.unit == "nm"
    diffraction = image_source(Image(np.zeros((8, 8)), scale=(0.5, 0.5), units=("1/nm", "1/nm")))
    assert diffraction.unit is None


def test_other_pixels_give_another_hash():
    pixels = np.zeros((3, 8, 8))
    first = hashed(image_source(Image(pixels)))
    lazy = hashed(image_source(Image(da.from_array(pixels, chunks=(1, 8, 8)))))
    other = hashed(image_source(Image(pixels + 1)))
    assert first.sha256 == lazy.sha256 != other.sha256
    assert FileRecord.of(first).sha256 == first.sha256


def test_image_from_a_file_is_known_by_the_file(tmp_path, viewer):
    path = tmp_path / "crystal.npy"
    np.save(path, np.eye(16))
    layer = add_image(viewer, load_image(path))
    source = hashed(image_source(layer))
    assert source.path == path
    assert source.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    layer.data = layer.data + 1  # no longer what is in the file
    assert hashed(image_source(layer)).sha256 != source.sha256
