"""The atoms of a points layer as files: the table, and beside it what its numbers mean and where they come from."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from napari_rvae.io import add_physical_positions, column_units, inline_atoms, save_table
from napari_rvae.io.files import replacing
from napari_rvae.layers.atoms import RECIPE, atoms_table, image_of, is_result
from napari_rvae.layers.images import image_source

if TYPE_CHECKING:
    from napari.layers import Points


def save_features(points: Points, path: str | os.PathLike[str]) -> Path:
    """Write the atoms as they are now, and beside them ``NAME.recipe.json`` with units and recipe.

    Parameters
    ----------
    points : napari.layers.Points
        The atoms.
    path : str or path-like
        ``.csv`` or ``.parquet``; what is there is replaced.

    Returns
    -------
    pathlib.Path
        The recipe's file: the recipe from which the layer was made, with the unit of every column that has one and
        the atoms as they went in. ``napari-rvae repeat`` reads it where the atoms were analysed from a file.

    Raises
    ------
    OutputError
        If they cannot be written there.
    """
    image = image_of(points)
    table, unit = atoms_table(points, image), None
    if image is not None:
        source = image_source(image)
        table, unit = add_physical_positions(table, source.pixel_size, source.unit), source.unit
    recipe = points.metadata.get(RECIPE)
    recipe = dict(recipe) if isinstance(recipe, dict) else {}
    if "atoms" not in recipe.get("inputs", {}):
        measured = [name for name in table if not is_result(name)]
        recipe["atoms"] = inline_atoms(table[measured])
    recipe["units"] = column_units(table, unit)
    save_table(table, path)
    beside = Path(path).with_suffix(".recipe.json")
    with replacing(beside) as file:
        file.write_text(json.dumps(recipe, indent=2, default=str) + "\n", encoding="utf-8")
    return beside
