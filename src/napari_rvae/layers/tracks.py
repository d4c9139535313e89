"""Linked atoms as a tracks layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_rvae.errors import InputDataError
from napari_rvae.layers.images import transformation

if TYPE_CHECKING:
    import pandas as pd
    from napari.components import ViewerModel
    from napari.layers import Image, Tracks

SHORTEST = 2  # frames


def add_tracks(viewer: ViewerModel, atoms: pd.DataFrame, image: Image) -> Tracks:
    """Show the ways of atoms through a stack, coloured by how far each is from the middle of its way.

    Parameters
    ----------
    viewer : napari.components.ViewerModel
        Where the layer is added.
    atoms : pandas.DataFrame
        With the columns ``track``, ``frame``, ``y``, ``x``; atoms seen only once are left out.
    image : napari.layers.Image
        The stack they lie in.

    Returns
    -------
    napari.layers.Tracks
        The layer; its features are ``atom_id`` and ``displacement`` (pixels).

    Raises
    ------
    InputDataError
        If no atom is seen twice.
    """
    ways = atoms.sort_values(["track", "frame"], kind="stable")
    ways = ways[ways.groupby("track")["track"].transform("size") >= SHORTEST]
    if ways.empty:
        raise InputDataError("No atom was found in two frames; are they frames of the same place?")
    middle = ways.groupby("track")[["y", "x"]].transform("mean")
    displacement = np.hypot(*(ways[["y", "x"]].to_numpy() - middle.to_numpy()).T)
    return viewer.add_tracks(
        ways[["track", "frame", "y", "x"]].to_numpy(float),
        features={"atom_id": ways["atom_id"].to_numpy(), "displacement": displacement},
        name=f"{image.name} tracks",
        color_by="displacement",
        colormap="viridis",
        **transformation(image),
    )
