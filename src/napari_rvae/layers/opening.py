"""Saved results opened in napari: image, atoms and cells as they were, and linked to each other."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import ref

import numpy as np
import pandas as pd
from napari.layers import Image, Labels, Points
from napari.utils.notifications import show_warning

from napari_rvae.errors import RVAEError
from napari_rvae.layers.atoms import RECIPE, color_points, identify, is_result, known_of
from napari_rvae.layers.coloring import Coloring
from napari_rvae.layers.images import channel_layers
from napari_rvae.layers.maps import cell_colormap, link_cells
from napari_rvae.layers.models import MODEL, attach_model, model_of

if TYPE_CHECKING:
    from napari.layers import Layer

    from napari_rvae.io import Recipe

LayerData = tuple[Any, dict[str, Any], str]
_LINK, _CHANNEL, _SHOWN = "napari_rvae_link", "napari_rvae_channel", "napari_rvae_shown"


def get_result_reader(path: str | os.PathLike[str] | Sequence[str]) -> Callable[[Any], list[LayerData]] | None:
    """Offer napari a reader for a folder with results, or for the recipe in it.

    Parameters
    ----------
    path : str, path-like or sequence of str
        What the user opens.

    Returns
    -------
    callable or None
        Function of the path that returns layer data tuples; None for anything else.
    """
    if not isinstance(path, (str, os.PathLike)):
        return None
    folder = _folder(path)
    there = all((folder / name).is_file() for name in ("recipe.json", "latent.csv"))
    return open_results if there else None


def open_results(path: str | os.PathLike[str]) -> list[LayerData]:
    """Read the results of an image that ``Analysis.save`` wrote.

    Parameters
    ----------
    path : str or path-like
        The folder, or the recipe in it.

    Returns
    -------
    list of tuple
        Image, cells and points as napari takes them; what is not there any more is left out, and said.

    Raises
    ------
    RVAEError
        If table or recipe are damaged, or they are results of patches.
    """
    from napari_rvae.errors import InputDataError
    from napari_rvae.io import Recipe, load_table

    folder = _folder(path)
    recipe, table = Recipe.load(folder / "recipe.json"), load_table(folder / "latent.csv")
    if recipe.command not in ("run", "encode") or not {"atom_id", "y", "x"} <= set(table):
        raise InputDataError(f"{folder.name} holds no results of an image")
    link, name = uuid.uuid4().hex, Path(recipe.inputs["image"].path.partition("::")[0]).stem
    placed = _placement(recipe, 3 if "frame" in table else 2)
    layers = [*_image(folder, recipe, name, placed, link), *_cells(folder, table, name, placed, link)]
    return [*layers, _points(folder, recipe, table, f"{name} atoms", placed, link)]


def link_layers(layers: Iterable[Layer]) -> None:
    """Tell image, atoms and cells that were opened together of each other.

    Parameters
    ----------
    layers : iterable of Layer
        Those of the viewer.
    """
    together: dict[str, dict[tuple[type, int], Layer]] = {}
    for layer in layers:
        if _LINK in layer.metadata:
            together.setdefault(layer.metadata[_LINK], {})[type(layer), layer.metadata.get(_CHANNEL, 0)] = layer
    for found in together.values():
        points, image, cells = (found.get((kind, 0)) for kind in (Points, Image, Labels))
        if not isinstance(points, Points):
            continue
        shown = points.metadata.get(_SHOWN)
        if shown is not None:
            points.metadata = {key: value for key, value in points.metadata.items() if key != _SHOWN}
            identify(points)
            color_points(points, shown)
            images = [found[key] for key in sorted(key for key in found if key[0] is Image)]
            if len(images) > 1:
                attach_model(points, model_of(points), images)
        if isinstance(image, Image):
            identify(points)
            known_of(points).image = ref(image)
        if isinstance(cells, Labels):
            link_cells(cells, points)


def _folder(path: str | os.PathLike[str]) -> Path:
    place = Path(path)
    return place.parent if place.name == "recipe.json" else place


def _placement(recipe: Recipe, ndim: int) -> dict[str, Any]:
    size, unit = recipe.used.get("pixel_size"), recipe.used.get("unit") or "pixel"
    if not size:
        return {}
    frames = ndim - 2
    return {
        "scale": (*(1.0,) * frames, *map(float, size)),
        "units": (*("pixel",) * frames, unit, unit),
    }


def _image(folder: Path, recipe: Recipe, name: str, placed: dict[str, Any], link: str) -> list[LayerData]:
    from napari_rvae.io import load_image

    try:
        image = load_image(recipe.inputs["image"].found(folder))
        image = replace(image, channels=tuple(map(str, recipe.used.get("channels", ()))))
    except RVAEError as error:
        show_warning(f"The image is not shown: {error}")
        return []
    return [
        (pixels, {**shown, **placed, "metadata": {**shown["metadata"], _LINK: link, _CHANNEL: number}}, "image")
        for number, (pixels, shown) in enumerate(channel_layers(image, name))
    ]


def _cells(folder: Path, table: pd.DataFrame, name: str, placed: dict[str, Any], link: str) -> list[LayerData]:
    import tifffile

    from napari_rvae.io.files import reading

    file = folder / "cells.ome.tif"
    if not file.is_file():
        return []
    try:
        with reading(file):
            cells = tifffile.imread(file)
            if cells.dtype.kind not in "iu":
                raise ValueError("it holds no whole numbers")
    except RVAEError as error:
        show_warning(f"The cells are not shown: {error}")
        return []
    shown = {"name": f"{name} atoms cells", "opacity": 0.5, "visible": False, "metadata": {_LINK: link}, **placed}
    column = _first_result(table)
    if column is not None:
        shown["colormap"] = cell_colormap(table, Coloring.of(table, column))
    return [(cells, shown, "labels")]


def _points(
    folder: Path, recipe: Recipe, table: pd.DataFrame, name: str, placed: dict[str, Any], link: str
) -> LayerData:
    from napari_rvae.patches import nearest_neighbor_distance

    spacing = nearest_neighbor_distance(table)
    column = _first_result(table)
    metadata: dict[str, Any] = {RECIPE: recipe.model_dump(mode="json"), _LINK: link, _SHOWN: column}
    try:
        from napari_rvae.models import load_model

        metadata[MODEL] = load_model(folder / "model.safetensors")
    except RVAEError as error:
        show_warning(f"The model is not there: {error}")
    shown = {
        "name": name,
        "features": table.drop(columns=[name for name in table if str(name).startswith(("y_", "x_"))]),
        "size": max(0.5 * spacing, 1.5) if np.isfinite(spacing) else 5.0,
        "border_width": 0.1,
        "border_color": "#909090",
        "metadata": metadata,
        **placed,
    }
    if column is not None:  # until a dock is open, which knows the feature behind the colours
        shown["face_color"] = Coloring.of(table, column).colors(table[column])
    axes = ["frame", "y", "x"] if "frame" in table else ["y", "x"]
    return table[axes].to_numpy(float), shown, "points"


def _first_result(table: pd.DataFrame) -> str | None:
    """What is shown first: classes where there are some, else the first latent."""
    if "class" in table and table["class"].nunique() > 1:
        return "class"
    return next((str(name) for name in table if is_result(name)), None)
