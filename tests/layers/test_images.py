import gc
import hashlib

import dask.array as da
import h5py
import numpy as np
import pytest
import tifffile
from napari.layers import Image
from napari.layers._source import layer_source

from napari_rvae.errors import InputDataError
from napari_rvae.io import FileRecord, get_reader, load_image
from napari_rvae.io.files import sha256
from napari_rvae.layers import (
    add_image,
    attach_model,
    hashed,
    image_data,
    image_source,
    pixel_size,
    showing,
    shows,
    source_of,
)


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


@pytest.mark.parametrize(
    ("size", "unit", "shown"), [(2e-11, "m", (0.02, "nm")), (2e-5, "um", (0.02, "nm")), (0.005, "um", (0.005, "µm"))]
)
def test_pixel_is_told_in_a_unit_that_can_be_read(size, unit, shown):
    (height, width), name = pixel_size(Image(np.zeros((8, 8)), scale=(2 * size, size), units=(unit, unit)))
    assert (width, name) == (pytest.approx(shown[0]), shown[1])
    assert height == pytest.approx(2 * width)


def test_pixel_without_a_unit_still_has_a_shape():
    assert pixel_size(Image(np.zeros((8, 8)), scale=(1, 2))) == ((1.0, 2.0), "")


def test_axes_of_different_units_are_compared():
    (height, width), unit = pixel_size(Image(np.zeros((8, 8)), scale=(0.001, 1), units=("um", "nm")))
    assert (height, width, unit) == (pytest.approx(1.0), 1.0, "nm")


def test_axes_of_units_that_cannot_be_compared_have_none():
    scan = Image(np.zeros((8, 8)), scale=(0.5, 0.1), units=("s", "nm"))
    assert pixel_size(scan) == ((0.5, 0.1), "")
    assert image_source(scan).unit is None


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
    [layer] = add_image(viewer, load_image(path))
    source = hashed(image_source(layer))
    assert source.path == path
    assert source.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    layer.data = layer.data + 1  # no longer what is in the file
    assert hashed(image_source(layer)).sha256 != source.sha256


def test_scale_set_by_hand_counts(tmp_path, viewer):
    np.save(tmp_path / "crystal.npy", np.eye(16))
    [layer] = add_image(viewer, load_image(tmp_path / "crystal.npy"))
    assert image_source(layer).pixel_size is None
    layer.scale, layer.units = (0.2, 0.3), ("angstrom", "angstrom")
    source = image_source(layer)
    assert source.pixel_size == pytest.approx((0.02, 0.03))
    assert (source.unit, source.path) == ("nm", tmp_path / "crystal.npy")


def test_pixels_exchanged_since_the_file_was_opened_are_in_no_file(tmp_path, viewer):
    path = tmp_path / "crystal.npy"
    np.save(path, np.eye(16))
    with layer_source(path=str(path)):  # as napari's own reader leaves it
        layer = viewer.add_image(np.load(path))
    assert hashed(image_source(layer)).path == path
    layer.data = layer.data + 1
    source = hashed(image_source(layer))
    assert not source.path.exists()
    assert source.sha256 == hashed(image_source(Image(layer.data))).sha256
    assert not shows(layer, load_image(path))


def test_channels_are_one_image(viewer):
    pixels = np.random.default_rng(0).normal(size=(2, 3, 8, 9)).astype(np.float32)
    first, second = (viewer.add_image(one, name=f"detector {k}", scale=(1, 2, 2)) for k, one in enumerate(pixels))
    source = image_source(first, [second])
    np.testing.assert_array_equal(source.data, pixels)
    assert (source.channel_axis, source.pixel_size, source.name) == (0, (2, 2), "detector 0")
    lazy = image_source(first, [Image(da.from_array(pixels[1], chunks=(1, 8, 9)), scale=(1, 2, 2))])
    assert isinstance(lazy.data, da.Array)
    assert not hashed(lazy).path.exists()
    assert hashed(lazy).sha256 == hashed(source).sha256 != hashed(image_source(second, [first])).sha256
    assert showing(source, viewer.layers) == [first, second]
    viewer.layers.remove(second)
    assert showing(source, viewer.layers) == []


@pytest.mark.parametrize(
    "other",
    [
        Image(np.zeros((8, 9)), name="other"),
        Image(np.zeros((8, 8)), scale=(2e-9, 2e-9), name="other"),
        Image(np.zeros((8, 8)), scale=(1e-9, 1e-9), translate=(1e-9, 0), name="other"),
        Image(np.zeros((8, 8)), scale=(1e-9, 1e-9), units=("nm", "nm"), name="other"),
        Image(np.zeros((8, 8, 3)), rgb=True, name="other"),
    ],
)
def test_what_lies_elsewhere_is_no_channel(other):
    with pytest.raises(InputDataError, match="'other' is no channel of 'first'"):
        image_source(Image(np.zeros((8, 8)), scale=(1e-9, 1e-9), name="first"), [other])


def test_results_whose_channel_is_gone_say_so(viewer):
    first, second = Image(np.zeros((8, 8)), name="first"), Image(np.ones((8, 8)), name="second")
    points = viewer.add_points(np.zeros((1, 2)), name="atoms")
    attach_model(points, None, [first, second])
    assert np.asarray(source_of(points, second).data[:, 0, 0]).tolist() == [0, 1]
    del second
    gc.collect()
    with pytest.raises(InputDataError, match="'second', a channel of the results of 'atoms', was removed"):
        source_of(points, first)


def test_a_file_of_channels_is_a_layer_for_each(viewer, tmp_path):
    channels = np.random.default_rng(0).normal(size=(3, 20, 30))
    tifffile.imwrite(tmp_path / "a.tif", channels, photometric="minisblack", metadata={"axes": "CYX"})
    layers = add_image(viewer, load_image(tmp_path / "a.tif"))
    assert [layer.name for layer in layers] == ["a", "a channel 2", "a channel 3"]
    assert [layer.visible for layer in layers] == [True, False, False]
    assert viewer.layers.selection.active is layers[0]
    assert not hashed(image_source(layers[0])).path.exists(), "the file holds more than this layer"
    np.testing.assert_array_equal(image_source(layers[0], layers[1:]).data, channels)


def test_channels_of_a_file_have_their_own_names(viewer, tmp_path):
    named = {"axes": "CYX", "Channel": {"Name": ["HAADF", "ABF"]}}
    tifffile.imwrite(tmp_path / "a.ome.tif", np.random.default_rng(0).random((2, 20, 30)), metadata=named)
    layers = add_image(viewer, load_image(tmp_path / "a.ome.tif"))
    assert [layer.name for layer in layers] == ["HAADF", "ABF"]
    source = hashed(image_source(layers[0], layers[1:]))
    assert (source.channels, source.path) == (("HAADF", "ABF"), tmp_path / "a.ome.tif")


def test_images_of_one_file_are_known_by_their_names(viewer, tmp_path):
    """So that what was made of them in napari can be made again from the file."""
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        for name in ("scan/amplitude", "scan/phase"):
            file[name] = np.random.default_rng(len(name)).normal(size=(20, 30))
    first, second = (viewer.add_image(data, **shown) for data, shown, _ in get_reader(path)(path))
    one, both = hashed(image_source(first)), hashed(image_source(second, [first]))
    assert (one.part, one.sha256) == ("scan/amplitude", sha256(path))
    assert (both.part, both.sha256) == ("scan/phase::scan/amplitude", sha256(path))
    for source in (one, both):
        np.testing.assert_array_equal(load_image(f"{source.path}::{source.part}").data, source.data)
    second.data = second.data + 1
    assert hashed(image_source(second)).part == ""
    assert not hashed(image_source(first, [second])).path.exists(), "the file holds other pixels"
