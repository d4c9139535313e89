"""Which part of an image is meant: atoms inside drawn shapes, pixels under shapes or labels, the frame looked at."""

from __future__ import annotations

from collections.abc import Sequence
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


def region_mask(region: Shapes | Labels, image: Image, frame: int | None = None) -> NDArray[np.bool_]:
    """Pixels of an image, or of the frames of a stack, that shapes or labels cover wherever they lie in the world.

    Parameters
    ----------
    region : napari.layers.Shapes or napari.layers.Labels
        Lines enclose nothing. A shape that is drawn on one frame holds for all frames; labels that have frames
        themselves hold each for its own.
    image : napari.layers.Image
        The image.
    frame : int, optional
        The one frame of a stack that is asked for.

    Returns
    -------
    numpy.ndarray
        bool (y, x), or (t, y, x) where labels and image have frames, and all are asked for.

    Raises
    ------
    InputDataError
        If the layer covers no pixel of the image, or of the frame.
    """
    from napari.layers import Labels

    mask = _labelled(region, image, frame) if isinstance(region, Labels) else _drawn(region, image)
    if not mask.any():
        here = "" if frame is None else f" in frame {frame}"
        raise InputDataError(f"'{region.name}' covers no pixel of '{image.name}'{here}: draw the region on the image.")
    return mask


def shown_frame(layer: Image, point: Sequence[float]) -> int | None:
    """Tell which frame of a stack is looked at.

    Parameters
    ----------
    layer : napari.layers.Image
        An image or stack.
    point : sequence of float
        Where the viewer is, in the world.

    Returns
    -------
    int or None
        Its number, the nearest one where the viewer is beyond the stack; None for an image without frames.
    """
    if layer.ndim != 3:
        return None
    frames = image_data(layer).shape[0]
    return int(np.clip(round(float(layer.world_to_data(point)[0])), 0, frames - 1))


def _drawn(shapes: Shapes, image: Image) -> NDArray[np.bool_]:
    place = np.linalg.solve(_plane(matrix(image)), _plane(matrix(shapes)))
    mask = np.zeros(image_data(image).shape[-2:], bool)
    for kind, corners in zip(shapes.shape_type, shapes.data, strict=True):
        outline = _ellipse(corners[:, -2:]) if kind == "ellipse" else corners[:, -2:]
        if kind != "line":
            mask |= _filled(outline @ place[:2, :2].T + place[:2, 2], mask.shape)
    return mask


def _filled(outline: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Pixels whose middle lies inside a polygon: each of its edges turns all that lies to the right."""
    height, width = shape
    turned = np.zeros((height, width + 1), bool)
    for one, other in zip(outline, np.roll(outline, -1, axis=0), strict=True):
        (top, left), (bottom, right) = sorted([one.tolist(), other.tolist()])
        rows = np.arange(*np.clip(np.ceil([top, bottom]), 0, height), dtype=int)
        if len(rows):
            columns = np.ceil(left + (rows - top) * (right - left) / (bottom - top)).clip(0, width)
            turned[rows, columns.astype(int)] ^= True
    return np.logical_xor.accumulate(turned[:, :-1], axis=1)


def _labelled(labels: Labels, image: Image, frame: int | None) -> NDArray[np.bool_]:
    pixels, shape = labels.data[0] if labels.multiscale else labels.data, image_data(image).shape
    if not (labels.ndim == image.ndim == 3 and len(pixels) > 1):
        drawn = np.asarray(pixels) != 0
        return _under(drawn.reshape(-1, *drawn.shape[-2:]).any(0), labels, image)
    along = [0, -1]
    step, first = np.linalg.solve(matrix(labels)[np.ix_(along, along)], matrix(image)[np.ix_(along, along)])[0]
    frames = range(shape[0]) if frame is None else [frame]
    mask = np.zeros((len(frames), *shape[-2:]), bool)
    for part, number in zip(mask, frames, strict=True):
        own = round(step * number + first)
        if 0 <= own < len(pixels):
            part[:] = _under(np.asarray(pixels[own]) != 0, labels, image)
    return mask if frame is None else mask[0]


def _under(drawn: NDArray[np.bool_], labels: Labels, image: Image) -> NDArray[np.bool_]:
    """Pixels of an image under those that are drawn."""
    from scipy.ndimage import affine_transform

    onto, shape = np.linalg.solve(_plane(matrix(labels)), _plane(matrix(image))), image_data(image).shape[-2:]
    if drawn.shape == shape and np.allclose(onto, np.eye(3)):
        return drawn
    small = drawn.astype(np.uint8)
    return np.asarray(affine_transform(small, onto, output_shape=shape, order=0, mode="grid-constant") > 0)


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
