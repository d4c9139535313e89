"""Files of scanning probe microscopes: every channel, the right way up, with the size of its pixels."""

import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_rvae.errors import InputDataError, MissingReaderError, RVAEError
from napari_rvae.io import get_reader, load_image

DATA = Path(__file__).parents[3] / "shared" / "data" / "real"
HEIGHT, PHASE = np.random.default_rng(0).normal(size=(2, 20, 24)).astype(np.float32)
WIDE, HIGH = 48e-9, 60e-9  # metres: pixels of 2 x 3 nm


def ibw(images: dict[str, np.ndarray], order: str = "<", units: tuple[bytes, bytes] = (b"m", b"m")) -> bytes:
    """An Igor wave of version 5: x counts fastest, y from the lower edge, names in 32 bytes that were used before."""
    rows, columns = next(iter(images.values())).shape
    data = b"".join(image[::-1].astype(f"{order}f4").tobytes() for image in images.values())
    labels = bytes(32) + b"".join((name.encode() + b"\0ace").ljust(32, b"\0") for name in images)
    note, layers = b"ScanAngle: 0\r", len(images) if any(images) else 0
    labels = labels if layers else b""
    shape = (columns, rows, layers, 0)
    sizes = (320 + len(data), 0, len(note), 0, 0, 0, 0, 0, 0, 0, len(labels), 0, 0, 0, 0)
    wave = struct.pack(
        f"{order}6xIi2h6xh32siI4i4d4d4s4s4s4s4s40x",
        *(0, rows * columns * max(layers, 1), 2, 0, 0, b"wave", 0, 0, *shape),
        *(WIDE / columns, HIGH / rows, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, b"m", *units, b"", b""),
    )
    wave = (bytes(2) + wave).ljust(320, b"\0")
    start = struct.pack(f"{order}2h15i", 5, 0, *sizes)
    missing = -int(np.frombuffer(start + wave, f"{order}i2").sum()) % 65536
    start = start[:2] + struct.pack(f"{order}H", missing) + start[4:]
    return start + wave + data + note + labels


def sxm(images: dict[str, np.ndarray], direction: str = "both", scan: str = "down") -> bytes:
    """A scan of Nanonis: pixels in the order in which they were scanned."""
    rows, columns = next(iter(images.values())).shape
    lines = [f"\t{14 + i}\t{name}\tm\t{direction}\t1.0E+0\t0.0E+0" for i, name in enumerate(images)]
    header = [
        *(":NANONIS_VERSION:", "2", ":SCANIT_TYPE:", "              FLOAT            MSBFIRST"),
        *(":SCAN_PIXELS:", f"       {columns}       {rows}", ":SCAN_RANGE:", f"  {WIDE:.6E}  {HIGH:.6E}"),
        *(":SCAN_DIR:", scan, ":COMMENT:", "cold: 4.2 K", "", ":DATA_INFO:"),
        "\tChannel\tName\tUnit\tDirection\tCalibration\tOffset",
        *(*lines, "", ":SCANIT_END:", "", ""),
    ]
    pixels = b""
    for image in images.values():
        scanned = (image if scan == "down" else image[::-1]).astype(">f4")
        pixels += scanned.tobytes() if direction != "backward" else b""
        pixels += scanned[:, ::-1].tobytes() if direction != "forward" else b""
    return "\n".join(header).encode() + b"\x1a\x04" + pixels


def component(name: str, kind: str, value: bytes) -> bytes:
    return name.encode() + b"\0" + kind.encode() + value


def gwy_object(name: str, *components: bytes) -> bytes:
    content = b"".join(components)
    return name.encode() + b"\0" + struct.pack("<I", len(content)) + content


def gwy(images: dict[str, np.ndarray]) -> bytes:
    """A file of Gwyddion with all kinds of components."""
    meter = gwy_object("GwySIUnit", component("unitstr", "s", b"m\0"))
    found = [component("/filename", "s", b"/a.gwy\0")]
    for number, (title, image) in enumerate(images.items()):
        field = gwy_object(
            "GwyDataField",
            *(component(key, "i", struct.pack("<i", n)) for key, n in zip(("yres", "xres"), image.shape, strict=True)),
            component("yreal", "d", struct.pack("<d", HIGH)),
            component("xreal", "d", struct.pack("<d", WIDE)),
            component("si_unit_xy", "o", meter),
            component("data", "D", struct.pack("<I", image.size) + image.astype("<f8").tobytes()),
        )
        found += [
            component(f"/{number}/data", "o", field),
            component(f"/{number}/data/title", "s", title.encode() + b"\0"),
        ]
        found += [component(f"/{number}/data/visible", "b", b"\1"), component(f"/{number}/mask", "o", field)]
    names = struct.pack("<I", 2) + b"a\0b\0"
    found += [
        component("/names", "S", names),
        component("/units", "O", struct.pack("<I", 2) + 2 * meter),
        component("/more", "q", bytes(8)),
    ]
    return b"GWYP" + gwy_object("GwyContainer", *found)


CHANNELS = {"Height": HEIGHT, "Phase": PHASE}
FILES = {
    "a.ibw": (ibw(CHANNELS), "Height", "Phase"),
    "b.ibw": (ibw(CHANNELS, ">"), "Height", "Phase"),
    "a.sxm": (sxm(CHANNELS), "Height forward", "Phase backward"),
    "b.sxm": (sxm(CHANNELS, scan="up"), "Height backward", "Phase forward"),
    "c.sxm": (sxm(CHANNELS, "forward"), "Height forward", "Phase forward"),
    "d.SXM": (sxm(CHANNELS, "backward", "up"), "Height backward", "Phase backward"),
    "a.gwy": (gwy(CHANNELS), "Height", "Phase"),
}


@pytest.fixture(params=FILES)
def probe(request, tmp_path):
    """A file of each kind, and the names of two of its images."""
    if request.param.endswith("ibw"):
        pytest.importorskip("igor2")
    content, *names = FILES[request.param]
    path = tmp_path / request.param
    path.write_bytes(content)
    return path, *names


def test_every_channel_lies_as_the_microscope_shows_it(probe):
    path, *names = probe
    for name, expected in zip(names, (HEIGHT, PHASE), strict=True):
        image = load_image(f"{path}::{name}")
        np.testing.assert_array_equal(image.data, expected)
        assert image.pixel_size == pytest.approx((3.0, 2.0), rel=1e-6)
        assert (image.unit, image.name, image.part) == ("nm", name, name)
        assert image.data.dtype.isnative
        assert image.data.flags.writeable


def test_one_of_several_images_is_asked_for(probe):
    path, *_ = probe
    with pytest.raises(InputDataError, match=rf"holds \d images; choose one: '{path.name}::Height"):
        load_image(path)
    with pytest.raises(InputDataError, match=r"holds no image 'Deflection', only Height"):
        load_image(f"{path}::Deflection")
    np.testing.assert_array_equal(load_image(f"{path}::0").data, HEIGHT)


def test_several_images_are_channels_of_one(probe):
    path, first, second = probe
    image = load_image(f"{path}::{second}::{first}")
    np.testing.assert_array_equal(image.data, [PHASE, HEIGHT])
    assert (image.channel_axis, image.channels, image.name) == (0, (second, first), path.stem)
    assert image.pixel_size == pytest.approx((3.0, 2.0), rel=1e-6)


def test_napari_opens_every_channel_as_a_layer(probe):
    path, *names = probe
    layers = get_reader(str(path))(str(path))
    assert [shown["visible"] for _, shown, _ in layers] == [True] + [False] * (len(layers) - 1)
    found = {shown["name"]: (data, shown) for data, shown, _ in layers}
    for name, expected in zip(names, (HEIGHT, PHASE), strict=True):
        data, shown = found[f"{path.stem} {name}"]
        np.testing.assert_array_equal(data, expected)
        assert shown["scale"] == pytest.approx((3.0, 2.0), rel=1e-6)
        assert shown["units"] == ("nm", "nm")


def test_names_that_come_twice_are_told_apart(tmp_path):
    (tmp_path / "a.gwy").write_bytes(gwy({"Height": HEIGHT}).replace(b"Height", b"Signal"))
    assert load_image(tmp_path / "a.gwy").name == "a"
    content = gwy({"Height": HEIGHT, "Weight": PHASE}).replace(b"Weight", b"Height")
    (tmp_path / "b.gwy").write_bytes(content)
    np.testing.assert_array_equal(load_image(f"{tmp_path / 'b.gwy'}::Height 1").data, PHASE)


def test_lines_that_were_not_scanned(tmp_path):
    """A scan that was stopped is filled up with nan."""
    stopped = HEIGHT.copy()
    stopped[12:] = np.nan
    (tmp_path / "a.sxm").write_bytes(sxm({"Z": stopped}, "forward"))
    np.testing.assert_array_equal(load_image(tmp_path / "a.sxm").data, stopped)


def test_a_plain_igor_image(tmp_path):
    pytest.importorskip("igor2")
    (tmp_path / "a.ibw").write_bytes(ibw({"": HEIGHT}, units=(b"s", b"m")))
    image = load_image(tmp_path / "a.ibw")
    np.testing.assert_array_equal(image.data, HEIGHT)
    assert (image.name, image.pixel_size) == ("a", None)


def test_channels_of_different_size(tmp_path):
    (tmp_path / "a.gwy").write_bytes(gwy({"Height": HEIGHT, "Phase": PHASE[:10]}))
    with pytest.raises(InputDataError, match=r"Phase of a\.gwy has 2 axes \(10, 24\), Height 2 axes \(20, 24\)"):
        load_image(f"{tmp_path / 'a.gwy'}::Height::Phase")


def test_spm_extra_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "igor2.binarywave", None)
    (tmp_path / "a.ibw").write_bytes(b"nothing")
    with pytest.raises(MissingReaderError, match=r'pip install "napari-rvae\[spm\]"'):
        load_image(tmp_path / "a.ibw")


@settings(derandomize=True, max_examples=60)
@given(
    cut=st.sampled_from([1.0, 1.0, 0.99, 0.7, 0.3, 0.01]),
    changes=st.lists(st.tuples(st.floats(0, 1) | st.floats(0, 0.1), st.integers(0, 255)), max_size=20),
)
def test_damaged_file(probe, cut, changes):
    path, first, second = probe
    content = bytearray(FILES[path.name][0])
    del content[int(cut * len(content)) :]
    for place, value in changes:
        content[int(place * (len(content) - 1))] = value
    path.write_bytes(content)
    try:
        told = load_image(f"{path}::{first}::{second}").data.ndim
    except RVAEError as error:
        told = str(error)
    assert told in (3, 4) or (told and "\n" not in told)


@pytest.mark.parametrize("place", [b"si_unit_xy", b"unitstr", b"m\0data"])
def test_gwyddion_file_that_was_cut_off(tmp_path, place):
    content = gwy(CHANNELS)
    (tmp_path / "a.gwy").write_bytes(content[: content.index(place) + 1])
    with pytest.raises(InputDataError, match=r"a\.gwy cannot be read, it may be damaged"):
        load_image(tmp_path / "a.gwy")


@pytest.mark.skipif(not DATA.exists(), reason="no real images here")
def test_real_igor_file():
    pytest.importorskip("igor2")
    path = DATA / "pfm" / "scan_0001.ibw"
    names = ["HeightRetrace", "Amplitude1Retrace", "Amplitude2Retrace", "Phase1Retrace", "Phase2Retrace"]
    layers = get_reader(path)(path)
    assert [shown["metadata"]["title"] for _, shown, _ in layers] == [*names, "FrequencyRetrace"]
    image = load_image(f"{path}::Amplitude1Retrace::Phase1Retrace")
    assert image.data.shape == (2, 256, 256)
    assert image.pixel_size == pytest.approx((5000 / 255, 5000 / 255))
    assert 0 < image.data[0].mean() < 1e-8  # metres
    assert -180 <= image.data[1].min() < image.data[1].max() <= 360  # degrees
