"""Points put where a fit finds them, and back again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_rvae.layers.atoms import atoms_table, set_features
from napari_rvae.layers.images import matrix

if TYPE_CHECKING:
    import pandas as pd
    from napari.layers import Image, Points

FITTED = ("amplitude", "background", "sigma", "snr", "error")


@dataclass(frozen=True)
class Refined:
    """What `place_refined` has changed, so that it can be undone.

    Parameters
    ----------
    points : napari.layers.Points
        The layer.
    before : pandas.DataFrame
        The rows as they were, in pixels of the image.
    after : pandas.DataFrame
        As they are now.
    """

    points: Points
    before: pd.DataFrame
    after: pd.DataFrame


def place_refined(points: Points, image: Image, before: pd.DataFrame, after: pd.DataFrame) -> Refined:
    """Move points to where they were fitted; those that have been moved or deleted since stay as they are.

    Parameters
    ----------
    points : napari.layers.Points
        The layer.
    image : napari.layers.Image
        In whose pixels the tables are.
    before, after : pandas.DataFrame
        The same atoms before and after the fit, with ``atom_id``, ``y``, ``x``.

    Returns
    -------
    Refined
        What was changed; with the tables exchanged the change is undone.
    """
    now = atoms_table(points, image)
    row = {atom: k for k, atom in enumerate(now["atom_id"])}
    where = np.array([row.get(atom, -1) for atom in before["atom_id"]], int)
    place = now[["y", "x"]].to_numpy()
    same = where >= 0
    same[same] = np.all(np.abs(place[where[same]] - before.loc[same, ["y", "x"]].to_numpy()) < 1e-6, axis=1)
    where, before, after = where[same], before[same], after[same]
    data = points.data.astype(float)
    back = np.linalg.solve(matrix(points), matrix(image))
    pixels = np.column_stack([now.loc[where, ["frame"] if "frame" in now else []], after[["y", "x"]]]).astype(float)
    data[where] = pixels @ back[:-1, :-1].T + back[:-1, -1]
    points.data = data
    features = points.features.copy()
    for name in (*FITTED, "flag"):
        if name in features and name in after:
            column = features[name].to_numpy(copy=True)
            column[where] = after[name].to_numpy()
            features[name] = column
    set_features(points, features)
    return Refined(points, before, after)
