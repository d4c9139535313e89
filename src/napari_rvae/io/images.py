"""Images and patches of any format, with their scale where the file knows it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_rvae.errors import InputDataError
from napari_rvae.io import formats
from napari_rvae.io.files import reading, replacing, sha256
from napari_rvae.io.microscopes import EM_SUFFIXES, read_em
from napari_rvae.io.scanning_probes import PROBE_SUFFIXES, read_probe

IMAGE_FILES = {name: (f"{name}.npy", f"{name}.tif") for name in ("image", "clean")}
"""What `save_image` may write."""
_COLOUR_TOLERANCE = 2  # grey levels by which the channels of a grey JPEG may differ
_LARGEST_PATCH, _FEWEST_PATCHES = 128, 8

_READERS_OF_ALL: dict[str, Callable[[Path], dict[str, formats.Found]]] = {
    **dict.fromkeys(EM_SUFFIXES, read_em),
    **dict.fromkeys(PROBE_SUFFIXES, read_probe),
}
_HDF5_SUFFIXES = (".h5", ".hdf5", ".hdf")
_OPENED = {**_READERS_OF_ALL, **dict.fromkeys(_HDF5_SUFFIXES, formats.read_all_hdf5)}
_READERS: dict[str, Callable[[Path, str], formats.Found]] = {
    **dict.fromkeys((".tif", ".tiff"), formats.read_tiff),
    **dict.fromkeys((".png", ".jpg", ".jpeg", ".bmp"), formats.read_picture),
    ".npy": formats.read_npy,
    ".npz": formats.read_npz,
    **dict.fromkeys(_HDF5_SUFFIXES, formats.read_hdf5),
}
IMAGE_SUFFIXES = frozenset((*_READERS, *_READERS_OF_ALL))
"""Endings of the files that are read without another plugin."""
SOURCE = "napari_rvae_source"
"""Key of a layer's metadata under which the file it was read from lies."""
LayerData = tuple[Any, dict[str, Any], str]


@dataclass(frozen=True)
class ImageData:
    """An image, a stack or a set of patches, and where it came from.

    Parameters
    ----------
    data : array
        (y, x), (t, y, x) or, with a channel axis, (channel, [t,] y, x); patches (n, h, w) or (n, channels, h, w).
    name : str
        Name to show.
    pixel_size : tuple of float or None
        Size of a pixel along y and x; None where the file does not say.
    unit : str or None
        Unit of the pixel size: nm for every length.
    path : Path
        The file.
    sha256 : str
        Hash of the file.
    part : str
        Which image in the file, where it holds several: ``file.h5::part``; channels are joined by ``::``, too.
    channel_axis : int or None
        Axis of channels that belong to one image.
    channels : tuple of str
        Their names, where they are known.
    """

    data: Any
    name: str
    pixel_size: tuple[float, float] | None
    unit: str | None
    path: Path
    sha256: str
    part: str = ""
    channel_axis: int | None = None
    channels: tuple[str, ...] = ()


def load_image(path: str | os.PathLike[str]) -> ImageData:
    """Read an image or a stack.

    Parameters
    ----------
    path : str or path-like
        TIFF, PNG, JPG, NPY, NPZ, HDF5 or a format of electron or scanning probe microscopes; anything else is left to
        the readers of installed napari plugins. ``file.h5::name`` chooses one of several images,
        ``file.ibw::Amplitude1Retrace::Phase1Retrace`` those that are the channels of one.

    Returns
    -------
    ImageData
        Grey values, two or three axes, and before them the channels where the file says that it holds some, or several
        were chosen.

    Raises
    ------
    InputDataError
        If the file is missing, damaged or holds no image that can be analysed.
    MissingReaderError
        If its format needs a reader that is not installed.
    """
    file, part = file_and_part(path)
    names = tuple(part.split("::"))
    found, *more = (_read(file, name) for name in names)
    data, channels = _as_grey(found, file.name), found.channel_axis
    if more:
        data, channels = _as_channels(file, names, data, found, more), 0
    if data.ndim - (channels is not None) not in (2, 3):
        raise InputDataError(f"{file.name} has {_axes(data)}; an image has two axes, a stack three")
    if channels is not None:
        data, channels = np.moveaxis(data, channels, 0), 0
    _check_numbers(data, file.name)
    name = file.stem if more else part.rpartition("/")[2] or file.stem
    known = names if more else found.channels
    return ImageData(data, name, found.pixel_size, found.unit, file, sha256(file), part, channels, known)


def save_image(image: ImageData, folder: Path, name: str) -> Path:
    """Write an image so that `load_image` gives back the same pixels; their scale is left to the recipe.

    Parameters
    ----------
    image : ImageData
        Image or stack.
    folder : Path
        Where to.
    name : str
        ``image``, or ``clean`` for one without noise.

    Returns
    -------
    Path
        One of `IMAGE_FILES`: TIFF where there are channels, which NumPy's format does not tell from frames.

    Raises
    ------
    OutputError
        If it cannot be written there.
    """
    import tifffile

    pixels, several = np.asarray(image.data), image.channel_axis is not None
    path = folder / IMAGE_FILES[name][several]
    with replacing(path) as place:
        if several:  # plain TIFF: those of ImageJ and OME take not every kind of number
            axes = "CTYX" if pixels.ndim == 4 else "CYX"
            tifffile.imwrite(place, pixels, photometric="minisblack", metadata={"axes": axes})
        else:
            np.save(place, pixels)
    return path


def load_patches(path: str | os.PathLike[str]) -> ImageData:
    """Read ready-made patches.

    Parameters
    ----------
    path : str or path-like
        NPY or NPZ with an array (n, h, w) or (n, channels, h, w).

    Returns
    -------
    ImageData
        The array as it is.

    Raises
    ------
    InputDataError
        If the file is missing, damaged or holds no patches.
    """
    file, part = file_and_part(path)
    found = _read(file, part)
    if found.data.ndim not in (3, 4):
        raise InputDataError(f"{file.name} has {_axes(found.data)}; patches are (n, h, w) or (n, channels, h, w)")
    _check_numbers(found.data, file.name)
    return ImageData(found.data, file.stem, found.pixel_size, found.unit, file, sha256(file), part)


def load_vector(path: str | os.PathLike[str], length: int, what: str) -> NDArray[Any]:
    """Read one value, or one row of values, per patch.

    Parameters
    ----------
    path : str or path-like
        NPY file.
    length : int
        Number of patches.
    what : str
        What the values are, for messages.

    Returns
    -------
    ndarray
        (n,) or (n, k).

    Raises
    ------
    InputDataError
        If the file is missing or damaged or does not fit the patches.
    """
    file, part = file_and_part(path)
    values = np.asarray(_read(file, part).data)
    if values.ndim not in (1, 2) or len(values) != length:
        raise InputDataError(f"{file.name} has shape {values.shape}; {what} need one row for each of {length} patches")
    if values.dtype.kind == "U":  # names of classes
        return values
    if values.dtype.kind not in "biuf":
        raise InputDataError(f"{file.name} holds {values.dtype}; give the {what} as numbers, truth values or texts")
    unknown = what == "labels" and values.ndim == 1  # nan: a quantity that is not known
    if np.isinf(values).any() or (np.isnan(values).any() and not unknown):
        raise InputDataError(f"{file.name} holds values that are no numbers; every patch needs its {what}")
    return values


def looks_like_patches(path: str | os.PathLike[str]) -> bool:
    """Tell patches from an image or a stack by the shape of the array alone.

    Parameters
    ----------
    path : str or path-like
        Any input of the command line.

    Returns
    -------
    bool
        True for NPY and NPZ files with three or four axes, at least 8 frames, and square frames of at most 128 pixels.

    Raises
    ------
    InputDataError
        If the file is missing or damaged.
    """
    file, part = file_and_part(path)
    if file.suffix.lower() not in (".npy", ".npz") or "::" in part:  # channels are chosen of images
        return False
    shape = _read(file, part).data.shape
    return len(shape) in (3, 4) and shape[-1] == shape[-2] <= _LARGEST_PATCH and shape[0] >= _FEWEST_PATCHES


def get_reader(path: str | os.PathLike[str] | Sequence[str]) -> Callable[[Any], list[LayerData]] | None:
    """Offer napari a reader for files of microscopes, and for HDF5.

    Parameters
    ----------
    path : str, path-like or sequence of str
        What the user opens.

    Returns
    -------
    callable or None
        Function of the path that returns layer data tuples; None for other files.
    """
    paths = [path] if isinstance(path, (str, os.PathLike)) else list(path)
    if not paths or any(Path(one).suffix.lower() not in _OPENED for one in paths):
        return None
    return _read_layers


def _read_layers(path: str | os.PathLike[str] | Sequence[str]) -> list[LayerData]:
    paths = [path] if isinstance(path, (str, os.PathLike)) else path
    return [layer for one in paths for layer in _layers(Path(one))]


def _layers(path: Path) -> list[LayerData]:
    """Every image of a file; the first is shown, the others may cover it."""
    with reading(path):
        images = _OPENED[path.suffix.lower()](path)
    if not images:
        raise InputDataError(f"{path.name} holds no image")
    layers = []
    for number, (title, found) in enumerate(images.items()):
        name, part = (path.stem, "") if len(images) == 1 else (f"{path.stem} {title}", title)
        data = _as_grey(found, path.name)
        source = ImageData(data, name, found.pixel_size, found.unit, path, "", part)
        shown = {"name": name, "metadata": {SOURCE: source, "title": title, "path": str(path)}, "visible": number == 0}
        if found.pixel_size is not None:
            frames = data.ndim - 2
            shown["scale"] = (*(1.0,) * frames, *found.pixel_size)
            shown["units"] = (*("pixel",) * frames, *(found.unit,) * 2)
        layers.append((data, shown, "image"))
    return layers


def file_and_part(path: str | os.PathLike[str]) -> tuple[Path, str]:
    """Separate ``file::part``; a file whose own name holds ``::`` is a file.

    Parameters
    ----------
    path : str or path-like
        File, or some images of it.

    Returns
    -------
    tuple
        The file, and which images; empty where it does not say.
    """
    text = os.fspath(path)
    file, _, part = text.partition("::")
    return (Path(text), "") if not part or Path(text).exists() else (Path(file), part)


def _read(file: Path, part: str) -> formats.Found:
    suffix = file.suffix.lower()
    with reading(file):
        if suffix not in _READERS_OF_ALL:
            return _READERS.get(suffix, formats.read_with_plugins)(file, part)
        images = _READERS_OF_ALL[suffix](file)
        names = list(images)
        if not images:
            raise InputDataError(f"{file.name} holds no image")
        if not part and len(images) > 1:
            raise formats.several(file, names)
        if part and part not in images and not (part.isdigit() and int(part) < len(names)):
            raise InputDataError(f"{file.name} holds no image {part!r}, only {', '.join(names)}")
        return images[part if part in images else names[int(part or 0)]]


def _as_channels(
    file: Path, names: Sequence[str], first: Any, found: formats.Found, more: Sequence[formats.Found]
) -> NDArray[Any]:
    """Put images of one file together, which must show the same place."""
    images = [first, *(_as_grey(one, file.name) for one in more)]
    for name, image, one in zip(names[1:], images[1:], more, strict=True):
        if image.shape != first.shape or one.pixel_size != found.pixel_size:
            raise InputDataError(
                f"{name} of {file.name} has {_axes(image)}, {names[0]} {_axes(first)}; "
                "channels of one image have the same number of pixels, of the same size"
            )
    return np.stack(images)


def _as_grey(found: formats.Found, name: str) -> Any:
    """Drop axes of length one; make one channel of equal colour channels, refuse different ones."""
    data = found.data
    if 0 in data.shape:
        raise InputDataError(f"{name} holds an empty image {data.shape}")
    if found.color or (data.ndim == 3 and data.shape[-1] in (3, 4) and min(data.shape[:2]) >= formats.SMALLEST_IMAGE):
        colors = np.asarray(data[..., : 3 if data.shape[-1] > 2 else 1])
        difference = max(np.ptp(block.astype(np.float64), axis=-1).max() for block in colors)
        if difference > _COLOUR_TOLERANCE:
            raise InputDataError(f"{name} is a colour picture; save the one channel with the atoms as a grey image")
        data = colors[..., 0]
    single = [axis for axis, length in enumerate(data.shape) if length == 1]
    return data.squeeze(axis=tuple(single[: max(data.ndim - 2, 0)]))


def _check_numbers(data: Any, name: str) -> None:
    if data.dtype.kind == "c":
        raise InputDataError(f"{name} holds complex numbers; save their magnitude, phase or real part")
    if data.dtype.kind not in "buif":
        raise InputDataError(f"{name} holds no numbers but {data.dtype}")


def _axes(data: Any) -> str:
    return f"{data.ndim} axes {tuple(map(int, data.shape))}"
