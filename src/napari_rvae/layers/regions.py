"""Atoms inside drawn shapes, and the pixels of an image inside shapes or labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_rvae.errors import InputDataError
from napari_rvae.layers.images import image_data, matrix

if TYPE_CHECKING:
    from napari.layers import Image, Labels, Points, Shapes
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


def region_mask(region: Shapes | Labels, image: Image) -> NDArray[np.bool_]:
    """Pixels of an image, or of the frames of a stack, that shapes or labels cover wherever they lie in the world.

    Parameters
    ----------
    region : napari.layers.Shapes or napari.layers.Labels
        Lines enclose nothing; what is drawn on one frame holds for all frames.
    image : napari.layers.Image
        The image.

    Returns
    -------
    numpy.ndarray
        bool (y, x).

    Raises
    ------
    InputDataError
        If the layer covers no pixel of the image.
    """
    from napari.layers import Labels
    from scipy.ndimage import affine_transform
    from skimage.draw import polygon

    height, width = image_data(image).shape[-2:]
    place = np.linalg.inv(_plane(matrix(image))) @ _plane(matrix(region))
    mask = np.zeros((height, width), bool)
    if isinstance(region, Labels):
        drawn = np.asarray(region.data[0] if region.multiscale else region.data) != 0
        drawn = drawn.reshape(-1, *drawn.shape[-2:]).any(0)
        if drawn.shape == mask.shape and np.allclose(place, np.eye(3)):
            mask = drawn
        else:
            onto, small = np.linalg.inv(place), drawn.astype(np.uint8)
            mask = affine_transform(small, onto, output_shape=mask.shape, order=0, mode="grid-constant") > 0
    else:
        for kind, corners in zip(region.shape_type, region.data, strict=True):
            outline = _ellipse(corners[:, -2:]) if kind == "ellipse" else corners[:, -2:]
            if kind != "line":
                y, x = place[:2, :2] @ outline.T + place[:2, 2:]
                mask[polygon(y, x, mask.shape)] = True  # type: ignore[no-untyped-call]
    if not mask.any():
        raise InputDataError(f"'{region.name}' covers no pixel of '{image.name}': draw the region on the image.")
    return mask


def _plane(whole: NDArray[np.float64]) -> NDArray[np.float64]:
    """The part of a homogeneous matrix that acts in the plane of the image."""
    kept = [-3, -2, -1]
    return np.asarray(whole[np.ix_(kept, kept)])


def _ellipse(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """An ellipse inside four corners, as a polygon."""
    turn = np.linspace(0, 2 * np.pi, 128, endpoint=False)[:, None]
    down, across = (corners[1] - corners[0]) / 2, (corners[3] - corners[0]) / 2
    return np.asarray(corners.mean(0) + np.cos(turn) * down + np.sin(turn) * across)


def _in_plane(to_world: NDArray[np.float64], positions: NDArray[np.float64]) -> NDArray[np.float64]:
    """World coordinates in the plane of the image."""
    world: NDArray[np.float64] = positions @ to_world[:-1, :-1].T + to_world[:-1, -1]
    return world[:, -2:]
