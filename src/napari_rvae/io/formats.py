"""One function per file format: it returns the array and what the file says about its pixels, or raises anything."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from napari_rvae.errors import InputDataError, MissingReaderError, SeveralImagesError
from napari_rvae.io.files import check_memory

SMALLEST_IMAGE = 16  # narrower data sets in an HDF5 file are tables
_MOST_LAYERS = 32  # that opening an HDF5 file in napari makes
_LENGTHS_IN_NM = {"m": 1e9, "mm": 1e6, "um": 1e3, "nm": 1.0, "pm": 1e-3, "a": 0.1, "å": 0.1, "angstrom": 0.1}
_SPELLINGS = {"µm": "um", "μm": "um", "micron": "um", "microns": "um", "meter": "m", "nanometer": "nm", "ångström": "å"}


@dataclass(frozen=True)
class Found:
    """What a reader found; the fields are those of `ImageData`."""

    data: Any
    pixel_size: tuple[float, float] | None = None
    unit: str | None = None
    color: bool = False  # the last axis holds colour channels
    channel_axis: int | None = None
    channels: tuple[str, ...] = ()


def with_scale(data: Any, pixel_size: tuple[float, float], unit: str, **more: Any) -> Found:
    """Note the size of a pixel, lengths in nm, if it makes sense.

    Parameters
    ----------
    data : array
        The image.
    pixel_size : tuple of float
        Along y and x.
    unit : str
        Its unit as the file spells it.
    **more
        Further fields of `Found`.

    Returns
    -------
    Found
        Without a scale where it has no unit, is not finite or not positive.
    """
    unit = unit.strip()
    spelled = _SPELLINGS.get(unit.lower(), unit.lower())
    known = spelled not in ("", "pixel", "pixels", "px", "inch", "<undefined>", "none")
    if not known or not np.all(np.isfinite(pixel_size)) or min(pixel_size) <= 0:
        return Found(data, **more)
    if spelled in _LENGTHS_IN_NM:
        factor = _LENGTHS_IN_NM[spelled]
        return Found(data, (float(pixel_size[0]) * factor, float(pixel_size[1]) * factor), "nm", **more)
    return Found(data, (float(pixel_size[0]), float(pixel_size[1])), unit, **more)


def read_npy(path: Path, part: str) -> Found:
    """Read a NumPy array, never a pickled object."""
    _no_part(path, part)
    try:
        return Found(np.load(path, mmap_mode="c", allow_pickle=False))  # what is not changed takes no memory
    except ValueError as error:
        if "Python objects" in str(error):
            raise InputDataError(
                f"{path.name} cannot be read, it holds Python objects; save numbers, or texts by np.array(texts, str)"
            ) from error
        raise


def read_npz(path: Path, part: str) -> Found:
    """Read the array ``image``, the one that was asked for, or the only one that can be an image."""
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:  # a damaged one is closed, too
        sizes = {info.filename.removesuffix(".npy"): info.file_size for info in arrays.zip.infolist()}
        if not part and "image" in sizes:
            part = "image"
        if part and part not in sizes:
            raise InputDataError(f"{path.name} holds no array {part!r}, only {', '.join(sizes)}")
        check_memory(sum(sizes.values()) if not part else sizes[part], path.name)
        if part:
            return Found(arrays[part])
        loaded = {name: _numeric(arrays, name) for name in sizes}
        shapes = {name: array.shape for name, array in loaded.items() if array is not None}
        name = _only_image(path, {name: shape for name, shape in shapes.items() if len(shape) in (2, 3, 4)})
        return Found(loaded[name])


def _numeric(arrays: Any, name: str) -> Any:
    """Give an array of numbers, None for anything else in the archive (pickled objects are not opened)."""
    try:
        array = arrays[name]
    except ValueError:
        return None
    return array if isinstance(array, np.ndarray) and array.dtype.kind in "buifc" else None


def read_hdf5(path: Path, part: str) -> Found:
    """Read the data set that was asked for, or the only one that can be an image."""
    import h5py

    with h5py.File(path, "r") as file:
        part = part or _only_image(path, _shapes(file))
        dataset = file.get(part)
        if not isinstance(dataset, h5py.Dataset):
            raise InputDataError(f"{path.name} holds no data set {part!r}")
        check_memory(dataset.size * dataset.dtype.itemsize, path.name)
        return Found(dataset[()])


def read_all_hdf5(path: Path) -> dict[str, Found]:
    """Read every data set that napari can show as an image, by its path in the file."""
    import h5py

    with h5py.File(path, "r") as file:
        names = [name for name in _shapes(file) if file[name].dtype.kind != "c"]
        if len(names) > _MOST_LAYERS:
            raise InputDataError(
                f"{path.name} holds {len(names)} images, too many for as many layers; open one of them from a shell: "
                f"napari-rvae demo '{path.name}::{names[0]}'"
            )
        check_memory(sum(file[name].nbytes for name in names), path.name)
        return {name: Found(file[name][()]) for name in names}


def _shapes(file: Any) -> dict[str, tuple[int, ...]]:
    """Shapes of the data sets that can be images, by their paths."""
    import h5py

    shapes: dict[str, tuple[int, ...]] = {}

    def note(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and item.dtype.kind in "uifc":
            longer = tuple(length for length in item.shape if length > 1)
            if len(longer) in (2, 3) and min(longer[-2:]) >= SMALLEST_IMAGE:
                shapes[name] = item.shape

    file.visititems(note)
    return shapes


def _only_image(path: Path, shapes: dict[str, tuple[int, ...]]) -> str:
    if len(shapes) == 1:
        return next(iter(shapes))
    if not shapes:
        raise InputDataError(f"{path.name} holds no image")
    raise several(path, list(shapes))


def several(path: Path, names: list[str]) -> SeveralImagesError:
    """Say how to choose one image of a file.

    Parameters
    ----------
    path : Path
        The file.
    names : list of str
        What it holds.

    Returns
    -------
    SeveralImagesError
        To be raised.
    """
    others = ", ".join(names[1:6]) + (", ..." if len(names) > 6 else "")
    return SeveralImagesError(
        f"{path.name} holds {len(names)} images; choose one: '{path.name}::{names[0]}' (or {others}), "
        f"or channels of one image: '{path.name}::{names[0]}::{names[1]}'"
    )


def distinct(names: list[str]) -> list[str]:
    """Number the images of a file that have the same name.

    Parameters
    ----------
    names : list of str
        As the file spells them.

    Returns
    -------
    list of str
        Each once; those that came more often with their place in the list, from 0.
    """
    return [name if names.count(name) == 1 else f"{name} {number}" for number, name in enumerate(names)]


def read_tiff(path: Path, part: str) -> Found:
    """Read the first series; the scale of ImageJ and OME files, and the names of channels in the latter."""
    import tifffile

    _no_part(path, part)
    with tifffile.TiffFile(path) as file:
        series = file.series[0]
        check_memory(series.size * series.dtype.itemsize, path.name)
        data, axes = series.asarray(), series.axes
        kept = [index for index, length in enumerate(data.shape) if length > 1 or axes[index] in "YX"]
        data, axes = data.reshape([data.shape[i] for i in kept]), "".join(axes[i] for i in kept)
        color = "S" in axes
        if color:
            data = np.moveaxis(data, axes.index("S"), -1)
        channels = axes.index("C") if "C" in axes and not color else None
        names = () if channels is None else _ome_channels(file, data.shape[channels])
        size, unit = _tiff_scale(file)
        return with_scale(data, size, unit, color=color, channel_axis=channels, channels=names)


def _ome_pixels(file: Any) -> Any:
    """Give what OME says of the first image, None where it says nothing."""
    from xml.etree import ElementTree

    return ElementTree.fromstring(file.ome_metadata).find(".//{*}Pixels") if file.is_ome else None


def _ome_channels(file: Any, count: int) -> tuple[str, ...]:
    """Give the names of the channels, where all have one of their own."""
    pixels = _ome_pixels(file)
    names = [] if pixels is None else [channel.get("Name", "").strip() for channel in pixels.findall("{*}Channel")]
    return tuple(names) if len(set(names) - {""}) == len(names) == count else ()


def _tiff_scale(file: Any) -> tuple[tuple[float, float], str]:
    """Give y and x size of a pixel and its unit, empty where neither ImageJ nor OME wrote it."""
    pixels = _ome_pixels(file)
    if pixels is not None and "PhysicalSizeX" in pixels.attrib:
        x = float(pixels.attrib["PhysicalSizeX"])
        y = float(pixels.attrib.get("PhysicalSizeY", x))
        return (y, x), pixels.attrib.get("PhysicalSizeXUnit", "µm")
    tags = file.pages[0].tags
    if file.is_imagej and "XResolution" in tags:
        unit = str((file.imagej_metadata or {}).get("unit", "")).replace("\\u00B5", "µ").replace("\\u00C5", "Å")
        x = tags["XResolution"].value
        y = tags["YResolution"].value if "YResolution" in tags else x
        if x[0] and y[0]:
            return (y[1] / y[0], x[1] / x[0]), unit
    return (1.0, 1.0), ""


def read_picture(path: Path, part: str) -> Found:
    """Read PNG, JPG and BMP."""
    from PIL import Image

    _no_part(path, part)
    with Image.open(path) as picture:
        check_memory(8 * picture.width * picture.height, path.name)
        indexed = picture.mode in ("P", "CMYK", "YCbCr", "HSV", "LAB")
        data = np.asarray(picture.convert("RGB") if indexed else picture)
    return Found(data, color=data.ndim == 3)


def read_with_plugins(path: Path, part: str) -> Found:
    """Ask the readers of installed napari plugins."""
    import npe2

    _no_part(path, part)
    plugins = npe2.PluginManager.instance()
    plugins.discover()
    if not list(plugins.iter_compatible_readers([str(path)])):
        raise MissingReaderError(
            f"nothing here reads {path.suffix or 'files without an ending'} ({path.name}); "
            "install a napari plugin that does, or convert it to TIFF"
        )
    layers: Any = npe2.read([str(path)], stack=False)
    for data, *rest in layers:
        shown = rest[0] if rest else {}
        if (rest[1] if len(rest) > 1 else "image") != "image":
            continue
        data = data[0] if isinstance(data, (list, tuple)) else data
        color, scale, units = bool(shown.get("rgb", False)), shown.get("scale"), shown.get("units")
        if scale is None or units is None:
            return Found(data, color=color)
        unit = units if isinstance(units, str) else str(units[-1])
        return with_scale(data, (float(scale[-2]), float(scale[-1])), unit, color=color)
    raise InputDataError(f"{path.name} holds no image")


def _no_part(path: Path, part: str) -> None:
    if part:
        raise InputDataError(f"{path.name} holds one image; leave out ::{part}")
