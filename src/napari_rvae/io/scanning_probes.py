"""Files of scanning probe microscopes: Igor waves of Asylum (.ibw), Nanonis (.sxm) and Gwyddion (.gwy).

Only Igor waves need a library, igor2, which is optional: it is not under this project's licence. Those for the others
stop at scans that go one way only (nanonispy2), or never come back from a file that was cut off (gwyfile). Images lie
as the microscope's program shows them: the first row is the upper edge of the scan, the first column its left edge.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from napari_rvae.errors import MissingReaderError
from napari_rvae.io.files import check_memory
from napari_rvae.io.formats import Found, distinct, with_scale

_LABEL = 32  # bytes of the name of an Igor wave's layer
_WAVE_HEADER = 64  # bytes of an Igor file before the wave
_GWY_NUMBERS = {"b": "<?", "c": "<c", "i": "<i", "q": "<q", "d": "<d"}
_GWY_ARRAYS = {"C": "S1", "I": "<i4", "Q": "<i8", "D": "<f8"}


def read_probe(path: Path) -> dict[str, Found]:
    """Read all images of a file.

    Parameters
    ----------
    path : Path
        The file, with one of `PROBE_SUFFIXES`.

    Returns
    -------
    dict
        Image by name, such as ``HeightRetrace`` or ``Z forward``; empty where the file holds a curve, say.

    Raises
    ------
    InputDataError
        If it does not fit into memory.
    MissingReaderError
        If the file is an Igor wave and igor2 is not installed.
    """
    check_memory(2 * path.stat().st_size, path.name)  # the file, and what is made of it
    return _READERS[path.suffix.lower()](path)


def _read_ibw(path: Path) -> dict[str, Found]:
    """Give the layers of a wave by their names; a wave whose layers have none is one image or stack."""
    try:
        igor = import_module("igor2.binarywave")
    except ImportError as error:
        raise MissingReaderError(
            f'{path.name} needs a reader that is not installed: pip install "napari-rvae[spm]"'
        ) from error
    wave = igor.load(str(path))["wave"]
    data, header = wave["wData"], wave["wave_header"]
    if data.ndim not in (2, 3) or data.dtype.kind not in "iuf":
        return {}
    # Igor counts x, y, layer, and y from the lower edge
    images = np.ascontiguousarray(data.T[..., ::-1, :], data.dtype.newbyteorder("="))
    x, y = (abs(float(step)) for step in header["sfA"][:2])
    units = {b"".join(unit.tolist()).decode("latin-1") for unit in header["dimUnits"][:2]}
    unit = units.pop() if len(units) == 1 else ""
    names = _layer_names(path, wave["bin_header"])
    if images.ndim == 2 or len(names) != len(images):
        return {path.stem: with_scale(images, (y, x), unit)}
    return {name: with_scale(image, (y, x), unit) for name, image in zip(names, images, strict=True)}


def _layer_names(path: Path, sizes: dict[str, Any]) -> list[str]:
    """Read the names from the file: igor2 appends to a name what a longer one has left in its 32 bytes."""
    rows, columns, layers, _ = map(int, sizes["dimLabelsSize"])
    before = ("wfmSize", "formulaSize", "noteSize", "dataEUnitsSize")
    start = _WAVE_HEADER + sum(int(sizes[name]) for name in before) + int(sum(sizes["dimEUnitsSize"])) + rows + columns
    with path.open("rb") as file:
        file.seek(start)
        labels = file.read(layers)
    names = [labels[at : at + _LABEL].partition(b"\0")[0] for at in range(_LABEL, len(labels), _LABEL)]  # first: of all
    return distinct([name.decode("latin-1") for name in names])


def _read_sxm(path: Path) -> dict[str, Found]:
    """Give every channel of a scan, forward and backward; lines that were not scanned are nan."""
    header, _, content = path.read_bytes().partition(b"\x1a\x04")
    entries = re.split(r"^:(.+):\s*?$", header.decode("utf8", "replace"), flags=re.MULTILINE)[1:]
    fields = dict(zip(entries[::2], entries[1::2], strict=True))
    columns, rows = map(int, fields["SCAN_PIXELS"].split())
    width, height = map(float, fields["SCAN_RANGE"].split())
    channels = [line.strip().split("\t") for line in fields["DATA_INFO"].strip().splitlines()[1:]]
    ways = [
        (name, way)
        for _, name, _, direction, *_ in channels
        for way in (("forward", "backward") if direction == "both" else (direction,))
    ]
    scans = np.frombuffer(content, ">f4", len(ways) * rows * columns).reshape(len(ways), rows, columns)
    if fields["SCAN_DIR"].strip() == "up":  # pixels are stored as they were scanned
        scans = scans[:, ::-1]
    images = [scan[:, ::-1] if way == "backward" else scan for scan, (_, way) in zip(scans, ways, strict=True)]
    names = distinct([f"{name} {way}" for name, way in ways])
    size = (height / rows, width / columns)
    return {name: with_scale(image.astype(np.float32), size, "m") for name, image in zip(names, images, strict=True)}


def _read_gwy(path: Path) -> dict[str, Found]:
    """Give the data fields by their titles; masks and presentations are left out."""
    content = path.read_bytes()
    if not content.startswith(b"GWYP"):
        raise ValueError("no file of Gwyddion")
    container, _ = _gwy_object(content, 4)
    numbers = sorted(int(found[1]) for found in map(re.compile(r"/(\d+)/data").fullmatch, container) if found)
    names = distinct([str(container.get(f"/{number}/data/title", f"channel {number}")) for number in numbers])
    images = {}
    for name, number in zip(names, numbers, strict=True):
        field = container[f"/{number}/data"]
        shape = field["yres"], field["xres"]
        size = (field.get("yreal", 0.0) / shape[0], field.get("xreal", 0.0) / shape[1])
        unit = field.get("si_unit_xy", {}).get("unitstr", "")
        images[name] = with_scale(field["data"].reshape(shape).astype(np.float64), size, unit)
    return images


def _gwy_object(content: bytes, at: int) -> tuple[dict[str, Any], int]:
    """Read the components of the object that starts there, and where it ends."""
    at = content.index(b"\0", at) + 1
    (size,) = struct.unpack_from("<I", content, at)
    at, end = at + 4, at + 4 + size
    if end > len(content):
        raise ValueError("its end is missing")
    components = {}
    while at < end:
        stop = content.index(b"\0", at)
        components[content[at:stop].decode("utf8")], at = _gwy_value(content, chr(content[stop + 1]), stop + 2)
    return components, end


def _gwy_value(content: bytes, kind: str, at: int) -> tuple[Any, int]:
    """Read a component of that kind, and where it ends: always further on, so that nothing can go round in circles."""
    if kind == "o":
        return _gwy_object(content, at)
    if kind == "s":
        end = content.index(b"\0", at)
        return content[at:end].decode("utf8"), end + 1
    if kind in _GWY_NUMBERS:
        return struct.unpack_from(_GWY_NUMBERS[kind], content, at)[0], at + struct.calcsize(_GWY_NUMBERS[kind])
    (count,) = struct.unpack_from("<I", content, at)
    at += 4
    if kind in "OS":
        values = []
        for _ in range(count):
            value, at = _gwy_value(content, kind.lower(), at)
            values.append(value)
        return values, at
    array = np.frombuffer(content, _GWY_ARRAYS[kind], count, at)
    return array, at + array.nbytes


_READERS: dict[str, Callable[[Path], dict[str, Found]]] = {".ibw": _read_ibw, ".sxm": _read_sxm, ".gwy": _read_gwy}
PROBE_SUFFIXES = tuple(_READERS)
