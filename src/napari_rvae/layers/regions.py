"""Atoms inside drawn shapes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_rvae.layers.images import matrix

if TYPE_CHECKING:
    from napari.layers import Points, Shapes
    from numpy.typing import NDArray


def inside(points: Points, shapes: Shapes) -> NDArray[np.bool_]:
    """Tell which points lie inside any shape, wherever both layers lie in the world.

    Parameters
    ----------
    points : napari.layers.Points
        The atoms.
    shapes : napari.layers.Shapes
        Polygons, rectangles, ellipses and closed paths; a shape drawn on one frame of a stack holds for all frames.

    Returns
    -------
    numpy.ndarray
        bool, one per point.
    """
    from skimage.measure import points_in_poly

    place = _in_plane(matrix(points), points.data) if len(points.data) else np.zeros((0, 2))
    found = np.zeros(len(place), bool)
    for kind, corners in zip(shapes.shape_type, shapes.data, strict=True):
        outline = _in_plane(matrix(shapes), corners)
        if kind == "ellipse":
            center, (down, across) = outline.mean(0), (outline[1] - outline[0], outline[3] - outline[0])
            axes = np.column_stack([down, across]) / 2
            if np.linalg.det(axes):  # not a line or a point, as it begins under the mouse
                found |= (np.linalg.solve(axes, (place - center).T) ** 2).sum(0) <= 1
        elif kind != "line" and len(outline) > 2:
            found |= points_in_poly(place, outline)  # type: ignore[no-untyped-call]
    return found


def _in_plane(to_world: NDArray[np.float64], positions: NDArray[np.float64]) -> NDArray[np.float64]:
    """World coordinates in the plane of the image."""
    world: NDArray[np.float64] = positions @ to_world[:-1, :-1].T + to_world[:-1, -1]
    return world[:, -2:]
