"""Images of every format, with their scale, and what happens to files that are none."""

import gc
import hashlib
import sys
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_rvae.errors import InputDataError, MissingReaderError
from napari_rvae.io import (
    ImageData,
    get_reader,
    load_image,
    load_patches,
    load_vector,
    looks_like_patches,
    save_image,
)

DATA = Path(__file__).parents[3] / "shared" / "data" / "real"
GREY = np.arange(24 * 32, dtype=np.uint16).reshape(24, 32)


@pytest.fixture
def write(tmp_path):
    def writer(name: str, array: np.ndarray = GREY, **more) -> Path:
        path = tmp_path / name
        suffix = path.suffix
        if suffix == ".npy":
            np.save(path, array, **more)
        elif suffix == ".npz":
            np.savez(path, **(more or {"image": array}))
        elif suffix in (".tif", ".tiff"):
            tifffile.imwrite(path, array, **more)
        elif suffix in (".h5", ".hdf5"):
            with h5py.File(path, "w") as file:
                for key, value in (more or {"image": array}).items():
                    file[key] = value
        else:
            Image.fromarray(array).save(path, **more)
        return path

    return writer


# What is read ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.tif", "a.TIFF", "a.h5", "a.hdf5"])
def test_every_format_gives_the_same_numbers(write, name):
    image = load_image(write(name))
    np.testing.assert_array_equal(image.data, GREY)
    assert image.name == "a"
    assert image.pixel_size is None
    assert image.unit is None


@pytest.mark.parametrize("name", ["a.png", "a.bmp"])
def test_pictures(write, name):
    np.testing.assert_array_equal(load_image(write(name, GREY.astype(np.uint8))).data, GREY.astype(np.uint8))


def test_sixteen_bit_png(write):
    np.testing.assert_array_equal(load_image(write("a.png")).data, GREY)


def test_hash_is_that_of_the_file(write):
    path = write("a.npy")
    image = load_image(str(path))
    assert image.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert image.path == path


@pytest.mark.parametrize("name", ["a.npy", "a.tif", "a.h5"])
def test_stacks_stay_stacks_and_single_axes_go(write, name):
    assert load_image(write(f"s{name}", np.stack([GREY] * 5))).data.shape == (5, 24, 32)
    assert load_image(write(f"o{name}", GREY[None, :, :])).data.shape == (24, 32)


def test_axes_of_length_one_around_an_image(write):
    assert load_image(write("a.npy", GREY[None, :, :, None])).data.shape == (24, 32)
    assert load_image(write("b.npy", GREY[:, :1])).data.shape == (24, 1)


@pytest.mark.parametrize(("unit", "factor"), [("nm", 1.0), ("um", 1e3), ("\\u00B5m", 1e3), ("pm", 1e-3), ("Å", 0.1)])
def test_imagej_scale(write, unit, factor):
    image = load_image(write("a.tif", imagej=True, resolution=(10, 5), metadata={"unit": unit.replace("Å", "\\u00C5")}))
    assert image.pixel_size == pytest.approx((0.2 * factor, 0.1 * factor))
    assert image.unit == "nm"


def test_ome_scale_and_channels(write):
    metadata = {"axes": "CYX", "PhysicalSizeX": 0.02, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 0.03}
    image = load_image(write("a.ome.tif", np.stack([GREY, GREY]), ome=True, metadata=metadata))
    assert image.pixel_size == pytest.approx((0.03, 0.02))
    assert (image.channel_axis, image.channels) == (0, ())


@pytest.mark.parametrize(
    ("names", "kept"),
    [(("HAADF", "Amplitude µV"), ("HAADF", "Amplitude µV")), (("HAADF", "HAADF"), ()), (("HAADF", ""), ())],
)
@pytest.mark.parametrize("axes", ["CYX", "TCYX"])
def test_names_of_channels_in_ome_files(write, axes, names, kept):
    stack = np.stack([GREY, GREY * 2]) if axes == "CYX" else np.stack([[GREY, GREY * 2]] * 3)
    image = load_image(write("a.ome.tif", stack, ome=True, metadata={"axes": axes, "Channel": {"Name": names}}))
    assert (image.channel_axis, image.channels) == (0, kept)
    np.testing.assert_array_equal(image.data[1], stack[..., 1, :, :])


@pytest.mark.parametrize("kind", ["float64", "float16", "int64", "uint8", "bool"])
@pytest.mark.parametrize("shape", [(20, 30), (4, 20, 30)])
@pytest.mark.parametrize("channels", [None, 2, 3, 4])
def test_a_saved_image_is_read_back(tmp_path, kind, shape, channels):
    shape = shape if channels is None else (channels, *shape)
    data = (200 * np.random.default_rng(0).random(shape)).astype(kind)
    axis = None if channels is None else 0
    found = load_image(
        save_image(ImageData(data, "a", None, None, Path("none"), "", channel_axis=axis), tmp_path, "clean")
    )
    assert found.channel_axis == axis
    assert found.data.dtype == data.dtype
    np.testing.assert_array_equal(found.data, data)


def test_channels_come_first_whatever_the_file(write):
    stack = np.arange(2 * 3 * 20 * 30, dtype=np.uint16).reshape(2, 3, 20, 30)
    image = load_image(write("a.tif", stack, imagej=True, metadata={"axes": "TCYX"}))
    assert image.channel_axis == 0
    np.testing.assert_array_equal(image.data, stack.swapaxes(0, 1))


def test_printing_resolution_is_no_scale(write):
    assert load_image(write("a.tif", resolution=(72, 72), resolutionunit="INCH")).pixel_size is None


def test_grey_picture_saved_as_colour(write, tmp_path):
    rgb = np.repeat(GREY.astype(np.uint8)[..., None], 3, -1)
    np.testing.assert_array_equal(load_image(write("a.png", rgb)).data, GREY.astype(np.uint8))
    np.testing.assert_array_equal(load_image(write("a.tif", rgb, photometric="rgb")).data, GREY.astype(np.uint8))
    transparent = np.concatenate([rgb, np.full((24, 32, 1), 255, np.uint8)], -1)
    assert load_image(write("b.png", transparent)).data.shape == (24, 32)
    assert load_image(write("a.jpg", np.repeat(np.full((24, 32, 1), 90, np.uint8), 3, -1))).data.shape == (24, 32)


def test_npz_takes_image_or_the_only_array(write):
    np.testing.assert_array_equal(load_image(write("a.npz", image=GREY, other=GREY * 2)).data, GREY)
    np.testing.assert_array_equal(load_image(write("b.npz", only=GREY, positions=np.zeros(5))).data, GREY)
    np.testing.assert_array_equal(load_image(f"{write('c.npz', first=GREY, second=GREY * 2)}::second").data, GREY * 2)


def test_hdf5_takes_the_only_image_or_the_one_asked_for(write):
    path = write("a.h5", **{"scan/raw": GREY, "coords": np.zeros((40, 2)), "label": "text"})
    image = load_image(path)
    np.testing.assert_array_equal(image.data, GREY)
    two = write("b.h5", haadf=GREY, abf=GREY * 2)
    chosen = load_image(f"{two}::abf")
    np.testing.assert_array_equal(chosen.data, GREY * 2)
    assert chosen.name == "abf"
    assert chosen.part == "abf"
    with pytest.raises(InputDataError, match=r"holds 2 images; choose one: 'b.h5::(abf|haadf)'"):
        load_image(two)


@pytest.mark.parametrize("name", ["a.npz", "a.h5"])
def test_several_images_are_channels_of_one(write, name):
    path = write(name, amplitude=GREY, phase=GREY * 2, small=GREY[:20])
    chosen = load_image(f"{path}::phase::amplitude")
    np.testing.assert_array_equal(chosen.data, [GREY * 2, GREY])
    assert (chosen.channel_axis, chosen.channels, chosen.name) == (0, ("phase", "amplitude"), "a")
    with pytest.raises(
        InputDataError, match=r"small of a\.\w+ has 2 axes \(20, 32\), phase 2 axes \(24, 32\); channels"
    ):
        load_image(f"{path}::phase::small")


@pytest.mark.parametrize("name", ["a.npz", "a.h5"])
def test_missing_part(write, name):
    with pytest.raises(InputDataError, match="'other'"):
        load_image(f"{write(name)}::other")


def test_part_of_a_plain_image(write):
    with pytest.raises(InputDataError, match="holds one image"):
        load_image(f"{write('a.npy')}::other")


# What is refused ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((0, 5)), "empty"),
        (np.zeros(7), "1 axes"),
        (np.zeros((3, 4, 5, 6)), "4 axes"),
        (GREY * 1j, "complex"),
        (np.array([["a", "b"], ["c", "d"]]), "no numbers"),
        (np.random.default_rng(0).integers(0, 255, (40, 50, 3)), "colour"),
        (np.random.default_rng(0).integers(0, 255, (40, 50, 4)), "colour"),
        (np.zeros((4, 4), dtype=[("a", float)]), "no numbers"),
        (np.datetime64("2020") + np.zeros((4, 4), "timedelta64[D]"), "no numbers"),
    ],
)
def test_arrays_that_are_no_images(write, array, message):
    with pytest.raises(InputDataError, match=message):
        load_image(write("a.npy", array))


def test_colour_picture(write):
    rgb = np.random.default_rng(0).integers(0, 255, (24, 32, 3), dtype=np.uint8)
    for name in ("a.png", "a.jpg"):
        with pytest.raises(InputDataError, match="colour picture; save the one channel"):
            load_image(write(name, rgb))
    with pytest.raises(InputDataError, match="colour"):
        load_image(write("a.tif", rgb, photometric="rgb"))


def test_pickled_objects_are_never_opened(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (Path.write_text, (tmp_path / "exploded", "x"))

    objects = np.array([[Bomb(), Bomb()]], dtype=object)
    np.save(tmp_path / "a.npy", objects, allow_pickle=True)
    np.savez(tmp_path / "a.npz", image=objects)
    np.savez(tmp_path / "b.npz", other=objects)
    for name in ("a.npy", "a.npz", "b.npz"):
        with pytest.raises(InputDataError):
            load_image(tmp_path / name)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    "suffix",
    [".npy", ".npz", ".tif", ".png", ".jpg", ".h5", ".dm4", ".ser", ".emd", ".hspy", ".mrc", ".ibw", ".sxm", ".gwy"],
)
@pytest.mark.parametrize("content", [b"", b"\x00" * 300, b"not an image at all, " * 20])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # a reader leaves its file open
def test_not_a_file_of_its_kind(tmp_path, suffix, content):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    with pytest.raises(InputDataError, match=r"a\.") as caught:
        load_image(path)
    assert "\n" not in str(caught.value)
    del caught
    gc.collect()


def test_missing_file(tmp_path):
    with pytest.raises(InputDataError, match="there is no file"):
        load_image(tmp_path / "a.npy")


def test_unknown_format(tmp_path):
    (tmp_path / "a.xyz").write_text("hello")
    with pytest.raises(MissingReaderError, match=r"nothing here reads \.xyz"):
        load_image(tmp_path / "a.xyz")


def test_folder(tmp_path):
    (tmp_path / "a.npy").mkdir()
    with pytest.raises(InputDataError):
        load_image(tmp_path / "a.npy")


def test_array_far_larger_than_the_memory(tmp_path):
    header = str({"descr": "<f8", "fortran_order": False, "shape": (400000, 400000)}).ljust(117) + "\n"
    start = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()
    (tmp_path / "a.npy").write_bytes(start + b"\x00" * 64)
    with pytest.raises(InputDataError):
        load_image(tmp_path / "a.npy")
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("image.npy", start + b"\x00" * 64)
    with pytest.raises(InputDataError):
        load_image(tmp_path / "a.npz")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("image", (400000, 400000), "f8", chunks=(100, 100))
    with pytest.raises(InputDataError, match=r"of memory are free|does not fit into memory"):
        load_image(tmp_path / "a.h5")


# Patches --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "patches"),
    [
        ((20, 32, 32), True),
        ((20, 2, 32, 32), True),
        ((8, 128, 128), True),
        ((20, 130, 130), False),
        ((20, 32, 30), False),
        ((7, 32, 32), False),
        ((64, 64), False),
    ],
)
@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
def test_rule_that_tells_patches_from_images(write, name, shape, patches):
    assert looks_like_patches(write(name, np.zeros(shape, np.float32))) is patches


def test_other_formats_hold_images(write):
    assert not looks_like_patches(write("a.tif", np.zeros((20, 32, 32), np.float32)))


def test_patches_are_loaded_as_they_are(write):
    patches = np.random.default_rng(0).random((12, 3, 16, 16))
    loaded = load_patches(write("a.npy", patches))
    np.testing.assert_array_equal(loaded.data, patches)
    with pytest.raises(InputDataError, match=r"patches are \(n, h, w\)"):
        load_patches(write("b.npy", GREY))


def test_one_value_per_patch(write, tmp_path):
    assert load_vector(write("l.npy", np.arange(5)), 5, "labels").tolist() == [0, 1, 2, 3, 4]
    assert load_vector(write("l.npy", np.array(["a", "b"])), 2, "condition").tolist() == ["a", "b"]
    np.save(tmp_path / "objects.npy", np.array(["a", None]), allow_pickle=True)
    with pytest.raises(InputDataError, match="Python objects; save numbers, or texts"):
        load_vector(tmp_path / "objects.npy", 2, "condition")
    with pytest.raises(InputDataError, match="holds complex128"):
        load_vector(write("l.npy", np.ones(2, complex)), 2, "condition")
    with pytest.raises(InputDataError, match="one row for each of 6 patches"):
        load_vector(write("l.npy", np.arange(5)), 6, "labels")
    with pytest.raises(InputDataError, match="no numbers"):
        load_vector(write("l.npy", np.array([1.0, np.nan])), 2, "condition")


# Electron microscopes -------------------------------------------------------------------------------------------------


@pytest.fixture
def em_file(tmp_path):
    hspy = pytest.importorskip("rsciio.hspy")

    def writer(image: np.ndarray) -> Path:
        path = tmp_path / "a.hspy"
        axes = [
            {
                "_type": "UniformDataAxis",
                "name": "yx"[axis],
                "scale": scale,
                "units": "Å",
                "offset": 0.0,
                "size": image.shape[axis],
                "navigate": False,
                "is_binned": False,
                "index_in_array": axis,
            }
            for axis, scale in enumerate((0.3, 0.2))
        ]
        signal = {
            "data": image,
            "axes": [
                {**axis, "_type": "UniformDataAxis", "is_binned": False, "index_in_array": i}
                for i, axis in enumerate(axes)
            ],
            "metadata": {"General": {"title": "HAADF"}, "Signal": {"signal_type": ""}},
            "original_metadata": {},
            "attributes": {"_lazy": False},
            "package_info": {"package": "hyperspy", "package_version": "2"},
            "learning_results": {},
            "models": {},
            "tmp_parameters": {},
        }
        hspy.file_writer(str(path), signal)
        return path

    return writer


def test_em_file_with_scale(em_file):
    image = load_image(em_file(GREY.astype(np.float32)))
    np.testing.assert_array_equal(image.data, GREY)
    assert image.pixel_size == pytest.approx((0.03, 0.02))
    assert image.unit == "nm"


def test_napari_reader(em_file):
    path = em_file(GREY.astype(np.float32))
    ((data, shown, kind),) = get_reader(str(path))(str(path))
    assert kind == "image"
    np.testing.assert_array_equal(data, GREY)
    assert shown["scale"] == pytest.approx((0.03, 0.02))
    assert shown["units"] == ("nm", "nm")
    assert shown["visible"]
    assert get_reader("a.tif") is None
    assert get_reader([str(path), "b.tif"]) is None


def test_napari_reader_shows_every_image_of_an_hdf5_file(write):
    more = {"table": np.zeros((30, 3)), "spectrum": np.ones((20, 20), complex)}
    layers = get_reader("a.h5")(write("a.h5", raw=GREY[..., None], filtered=GREY * 2, **more))
    assert [shown["name"] for _, shown, _ in layers] == ["a filtered", "a raw"]
    assert [shown["visible"] for _, shown, _ in layers] == [True, False]
    np.testing.assert_array_equal([data for data, *_ in layers], [GREY * 2, GREY])
    with pytest.raises(InputDataError, match=r"b\.h5 holds 33 images, .*napari-rvae demo 'b\.h5::n0'"):
        get_reader("b.h5")(write("b.h5", **{f"n{number}": GREY for number in range(33)}))
    with pytest.raises(InputDataError, match=r"c\.h5 holds no image"):
        get_reader("c.h5")(write("c.h5", table=np.zeros((30, 3))))


def test_napari_reader_says_what_is_wrong(tmp_path):
    (tmp_path / "a.dm4").write_bytes(b"nothing")
    with pytest.raises(InputDataError, match=r"a\.dm4 cannot be read"):
        get_reader(str(tmp_path / "a.dm4"))(str(tmp_path / "a.dm4"))


def test_em_extra_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "rsciio.digitalmicrograph", None)
    (tmp_path / "a.dm4").write_bytes(b"nothing")
    with pytest.raises(MissingReaderError, match=r'pip install "napari-rvae\[em\]"'):
        load_image(tmp_path / "a.dm4")


@pytest.mark.skipif(not DATA.exists(), reason="no real images here")
@pytest.mark.parametrize(
    ("name", "shape", "size"),
    [
        ("bto/BTO_crystal_1.dm4", (413, 469), 0.02966),
        ("sto/16_STOimage_1.ser", (1024, 1024), 0.01001),
        ("pto_sro/Cropped_PTO-SRO_Aligned.hspy", (224, 1312), 0.0150),
        ("abf_stack/stem_abf_data_imagestack.hspy", (5, 512, 512), 0.0092),
        ("single_atoms_labelled/021_HAADF_15nm_Sample_PtNC_21Oct20.tif", (512, 512), 0.0293),
        ("graphene_si/Si1C3_83.hdf5", (256, 256), None),
        ("atomsegnet/Grain_boundry_gold_512px.png", (512, 512), None),
    ],
)
def test_real_files(name, shape, size):
    image = load_image(DATA / name)
    assert image.data.shape == shape
    assert image.pixel_size == (None if size is None else pytest.approx((size, size), rel=0.005))


# Readers of other plugins ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "size", "unit"),
    [
        ((GREY,), None, None),
        ((GREY, {"scale": (0.3, 0.2), "units": ("angstrom", "angstrom")}, "image"), (0.03, 0.02), "nm"),
        (([GREY, GREY[::2, ::2]], {"scale": (2.0, 2.0)}, "image"), None, None),
    ],
)
def test_reader_of_another_plugin(tmp_path, layer, size, unit):
    from npe2 import DynamicPlugin

    (tmp_path / "a.oddformat").write_text("anything")
    with DynamicPlugin("other-plugin") as plugin:

        @plugin.contribute.reader(filename_patterns=["*.oddformat"])
        def get_other(path):
            return lambda _: [(np.zeros((3, 2)), {}, "points"), layer]

        image = load_image(tmp_path / "a.oddformat")
    np.testing.assert_array_equal(image.data, GREY)
    assert image.pixel_size == (None if size is None else pytest.approx(size))
    assert image.unit == unit


def test_reader_of_another_plugin_without_an_image(tmp_path):
    from npe2 import DynamicPlugin

    (tmp_path / "a.oddformat").write_text("anything")
    with DynamicPlugin("other-plugin") as plugin:

        @plugin.contribute.reader(filename_patterns=["*.oddformat"])
        def get_other(path):
            return lambda _: [(np.zeros((3, 2)), {}, "points")]

        with pytest.raises(InputDataError, match="holds no image"):
            load_image(tmp_path / "a.oddformat")
