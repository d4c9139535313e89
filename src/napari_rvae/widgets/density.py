"""Pictures of how densely points lie, for more points than symbols can be drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from napari_rvae.widgets.scatter import ColorScale, Floats, Picture, View
    from napari_rvae.widgets.selection import Mask


def inside_view(x: Floats, y: Floats, view: View) -> Mask:
    """Tell which points the view shows; NaN is never shown."""
    return (x >= view.left) & (x <= view.right) & (y >= view.bottom) & (y <= view.top)


def counts_in_pixels(x: Floats, y: Floats, view: View, pixel: float, *weights: Floats) -> list[Floats]:
    """Count the points in every pixel of a picture of the view, and add up what they weigh."""
    columns = max(8, round(view.width / pixel))
    rows = max(8, round(view.height / pixel))
    inside = np.flatnonzero(inside_view(x, y, view))
    column = ((x[inside] - view.left) * (columns / (view.right - view.left))).astype(np.int32).clip(0, columns - 1)
    row = ((y[inside] - view.bottom) * (rows / (view.top - view.bottom))).astype(np.int32).clip(0, rows - 1)
    flat = row * columns + column
    sums: list[Any] = [np.bincount(flat, minlength=rows * columns)]
    sums += [np.bincount(flat, weight[inside], minlength=rows * columns) for weight in weights]
    return [each.reshape(rows, columns) for each in sums]


def density_picture(x: Floats, y: Floats, scale: ColorScale, view: View, pixel: float) -> Picture:
    """Paint every pixel in the mean colour of its atoms, the more opaque the more there are."""
    channels = scale.lut[:, :3].astype(np.float64)
    counts, *colors = counts_in_pixels(x, y, view, pixel, *(channels[scale.index, channel] for channel in range(3)))
    mean = np.stack(colors, axis=-1) / np.maximum(counts, 1)[..., np.newaxis]
    return np.concatenate([mean, 255 * brightness(counts)[..., np.newaxis]], axis=-1).astype(np.uint8)


def brightness(counts: Floats) -> Floats:
    """0 for no atom, .35 for one, 1 for the most, logarithmic between."""
    most = np.log1p(counts.max()) or 1.0
    return np.where(counts > 0, 0.35 + 0.65 * np.log1p(counts) / most, 0.0)
