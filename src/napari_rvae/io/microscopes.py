"""Files of electron microscopes through RosettaSciIO, which is optional: it is not under this project's licence."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from napari_rvae.errors import InputDataError, MissingReaderError
from napari_rvae.io.files import reading
from napari_rvae.io.formats import Found, several, with_scale

_MODULES = {
    ".dm3": "digitalmicrograph",
    ".dm4": "digitalmicrograph",
    ".emd": "emd",
    ".ser": "tia",
    ".emi": "tia",
    ".hspy": "hspy",
    ".mrc": "mrc",
}
EM_SUFFIXES = tuple(_MODULES)

LayerData = tuple[Any, dict[str, Any], str]


def read_em(path: Path, part: str) -> Found:
    """Read the image of that title, or the only one.

    Parameters
    ----------
    path : Path
        The file.
    part : str
        Title or number (from 0) of an image, empty for the only one.

    Returns
    -------
    Found
        Image or stack with scale and unit.

    Raises
    ------
    InputDataError
        If there is no image, or none of that title, or more than one and no title.
    MissingReaderError
        If RosettaSciIO is not installed.
    """
    images = _images(path)
    if not images:
        raise InputDataError(f"{path.name} holds no image")
    titles = _titles(images)
    if part:
        if part not in titles and not (part.isdigit() and int(part) < len(images)):
            raise InputDataError(f"{path.name} holds no image {part!r}, only {', '.join(titles)}")
        return _found(images[titles.index(part) if part in titles else int(part)])
    if len(images) > 1:
        raise several(path, titles)
    return _found(images[0])


def get_reader(path: str | os.PathLike[str] | Sequence[str]) -> Callable[[Any], list[LayerData]] | None:
    """Offer napari a reader for files of electron microscopes.

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
    if not paths or any(Path(one).suffix.lower() not in EM_SUFFIXES for one in paths):
        return None
    return _read_layers


def _read_layers(path: str | os.PathLike[str] | Sequence[str]) -> list[LayerData]:
    paths = [path] if isinstance(path, (str, os.PathLike)) else path
    return [layer for one in paths for layer in _layers(Path(one))]


def _layers(path: Path) -> list[LayerData]:
    with reading(path):
        images = _images(path)
        if not images:
            raise InputDataError(f"{path.name} holds no image")
        layers = []
        for title, image in zip(_titles(images), images, strict=True):
            found = _found(image)
            shown: dict[str, Any] = {"name": path.stem if len(images) == 1 else f"{path.stem} {title}"}
            if found.pixel_size is not None:
                frames = found.data.ndim - 2
                shown["scale"] = (*(1.0,) * frames, *found.pixel_size)
                shown["units"] = (*("pixel",) * frames, *(found.unit,) * 2)
            shown["metadata"] = {"title": title, "path": str(path)}
            layers.append((found.data, shown, "image"))
        return layers


def _images(path: Path) -> list[dict[str, Any]]:
    """Every data set with two or three axes, numbers, and an image in the last two."""
    try:
        module = import_module(f"rsciio.{_MODULES[path.suffix.lower()]}")
    except ImportError as error:
        raise MissingReaderError(
            f'{path.name} needs a reader that is not installed: pip install "napari-rvae[em]"'
        ) from error
    found = module.file_reader(str(path))
    return [one for one in found if one["data"].ndim in (2, 3) and min(one["data"].shape[-2:]) > 1]


def _titles(images: list[dict[str, Any]]) -> list[str]:
    titles = [str(image["metadata"].get("General", {}).get("title") or number) for number, image in enumerate(images)]
    return [title if titles.count(title) == 1 else f"{title} {number}" for number, title in enumerate(titles)]


def _found(image: dict[str, Any]) -> Found:
    axes = sorted(image["axes"], key=lambda axis: int(axis.get("index_in_array", 0)))[-2:]
    size = tuple(abs(float(axis.get("scale", 1.0))) for axis in axes)
    units = [str(axis.get("units") or "") for axis in axes]
    data = np.asarray(image["data"])
    if units[0] != units[1]:
        return Found(data)
    return with_scale(data, (size[0], size[1]), units[0])
