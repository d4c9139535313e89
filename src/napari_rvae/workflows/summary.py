"""The summary picture: what a result looks like at a glance, drawn without a display."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from napari_rvae.workflows.drawing import PANEL, curve_panel, image_panel, page, scatter_panel, tile_panel, wide
from napari_rvae.workflows.steps import first_channel

if TYPE_CHECKING:
    from PIL.Image import Image

    from napari_rvae.io import ImageData
    from napari_rvae.workflows.averaging import AverageResult
    from napari_rvae.workflows.pipeline import Analysis

_TILES = 8  # patches or averages along a side
_MAPPED = 6  # latents that get a map of their own
_STEPS = 7  # of the manifold along each latent


def analysis_summary(analysis: Analysis) -> Image:
    """Draw atoms in the image (or patches and their reconstructions), the manifold, the latents and the loss.

    Parameters
    ----------
    analysis : Analysis
        A result.

    Returns
    -------
    PIL.Image.Image
        RGB.
    """
    table, used, settings = analysis.table, analysis.recipe.used, analysis.recipe.settings["train"]
    encoded = table.dropna(subset=["z1"])
    turned = "angle" in encoded and float(encoded["angle"].std()) > 0
    color = "class" if "class" in encoded else "angle" if turned else "reconstruction_error"
    if analysis.atoms is not None:
        rows = _maps(analysis.source, table, _shown(encoded, turned))
    else:
        first = np.arange(min(_TILES**2, len(analysis.patches)))
        rows = [
            [
                tile_panel(analysis.patches.data[first, 0], "the first patches"),
                tile_panel(_reconstructed(analysis, first), "the same, decoded from latents and pose"),
            ]
        ]
    second = "z2" if "z2" in encoded else color
    bottom = [
        tile_panel(_manifold(analysis, encoded), "decoded: z1 to the right, z2 upwards"),
        scatter_panel(encoded, "z1", second, color),
    ]
    if len(analysis.losses):
        bottom.append(curve_panel(analysis.losses))
    title = f"{analysis.source.name}: {settings['model']}, {len(encoded)} of {len(table)} encoded"
    detail = f"{used.get('epochs', '?')} epochs on {used.get('device', '?')}, seed {settings['seed']}"
    return page(title, f"{detail}, napari-rvae {analysis.recipe.version}", [*rows, bottom])


def average_summary(result: AverageResult) -> Image:
    """Draw the class averages and, where there is one, the image with its classes.

    Parameters
    ----------
    result : AverageResult
        A result.

    Returns
    -------
    PIL.Image.Image
        RGB.
    """
    averages, table = result.averages, result.table
    labels = [f"{kind}: {count}" for kind, count in enumerate(averages.counts)][: _TILES**2]
    rows = [[tile_panel(np.asarray(averages.images)[: _TILES**2, 0], "class: number of patches", labels)]]
    if {"y", "x"} <= set(table):
        [[picture]] = _maps(result.source, table, ["class"])
        rows = [*rows, [picture]] if picture.width > 2 * PANEL else [[*rows[0], picture]]
    title = f"{result.source.name}: {len(averages.counts)} class averages of {len(table)} patches"
    return page(title, f"napari-rvae {result.recipe.version}", rows)


def _shown(encoded: pd.DataFrame, turned: bool) -> list[str]:
    """Name the columns that get a map: what a model says about an atom, the angle and strains where they are free."""
    latents = _latents(encoded)
    known = [name for name in ("class", "predicted", *latents[:_MAPPED]) if name in encoded]
    free = [name for name in ("strain_xx", "strain_xy", "scale") if name in encoded]
    return [*known, "angle" if turned else "reconstruction_error", *free]


def _maps(source: ImageData, table: pd.DataFrame, columns: list[str]) -> list[list[Image]]:
    """Draw a map of each column, on the first frame and the first channel: three to a row, wide ones alone."""
    pixels, shown = first_channel(source), table
    if pixels.ndim == 3:
        pixels, shown = pixels[0], table[table["frame"] == 0]
    pixels = np.asarray(pixels)
    width = None if source.pixel_size is None else source.pixel_size[-1]
    panels = [image_panel(pixels, shown, column, width, source.unit) for column in columns]
    across = 1 if wide(pixels) else 3
    return [panels[first : first + across] for first in range(0, len(panels), across)]


def _latents(table: pd.DataFrame) -> list[str]:
    return [name for name in map(str, table) if name[0] == "z" and name[1:].isdigit()]


def _manifold(analysis: Analysis, encoded: pd.DataFrame) -> NDArray[np.float32]:
    """Decode a square of latents, (steps * steps, D, D), as wide as the data; the rest as in the middle of the data."""
    from napari_rvae.latent import decode

    names = _latents(encoded)
    latents = encoded[names].to_numpy(float)
    low, high = np.percentile(latents, [2, 98], axis=0)
    steps = np.linspace(0, 1, _STEPS)
    rows, columns = (axis.ravel() for axis in np.meshgrid(steps, steps, indexing="ij"))
    grid = np.tile(np.median(latents, 0), (len(rows), 1))
    grid[:, 0] = low[0] + (high[0] - low[0]) * columns
    if len(names) > 1:
        grid[:, 1] = high[1] - (high[1] - low[1]) * rows
    condition = None if analysis.condition is None else analysis.condition[np.zeros(len(grid), int)]
    return np.asarray(decode(analysis.model, grid, condition=condition)[:, 0])


def _reconstructed(analysis: Analysis, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    from napari_rvae.latent import reconstruct

    patches, table = analysis.patches.select(rows), analysis.table.iloc[rows]
    condition = None if analysis.condition is None else analysis.condition[rows]
    return np.asarray(reconstruct(analysis.model, patches, table, condition))[:, 0]
