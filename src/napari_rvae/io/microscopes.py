"""Files of electron microscopes through RosettaSciIO, which is optional: it is not under this project's licence."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from napari_rvae.errors import MissingReaderError
from napari_rvae.io.formats import Found, distinct, with_scale

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


def read_em(path: Path) -> dict[str, Found]:
    """Read all images of a file.

    Parameters
    ----------
    path : Path
        The file, with one of `EM_SUFFIXES`.

    Returns
    -------
    dict
        Images and stacks by their titles, or numbers where they have none; with scale and unit.

    Raises
    ------
    MissingReaderError
        If RosettaSciIO is not installed.
    """
    try:
        module = import_module(f"rsciio.{_MODULES[path.suffix.lower()]}")
    except ImportError as error:
        raise MissingReaderError(
            f'{path.name} needs a reader that is not installed: pip install "napari-rvae[em]"'
        ) from error
    found = module.file_reader(str(path))
    images = [one for one in found if one["data"].ndim in (2, 3) and min(one["data"].shape[-2:]) > 1]
    titles = [image["metadata"].get("General", {}).get("title") for image in images]
    names = distinct([str(title or number) for number, title in enumerate(titles)])
    return dict(zip(names, map(_found, images), strict=True))


def _found(image: dict[str, Any]) -> Found:
    axes = sorted(image["axes"], key=lambda axis: int(axis.get("index_in_array", 0)))[-2:]
    size = tuple(abs(float(axis.get("scale", 1.0))) for axis in axes)
    units = [str(axis.get("units") or "") for axis in axes]
    data = np.asarray(image["data"])
    if units[0] != units[1]:
        return Found(data)
    return with_scale(data, (size[0], size[1]), units[0])
