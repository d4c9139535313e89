"""Linear components of an image's patches, or of ready-made ones, in the columns of a latent table."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from napari_rvae.io import ImageData, add_physical_positions
from napari_rvae.settings import BaselineSettings, FindSettings, PatchSettings
from napari_rvae.workflows.steps import atoms_of, chosen_patches, scaled

if TYPE_CHECKING:
    from napari_rvae.patches import Progress, Stop


def baseline_image(
    image: ImageData,
    find: FindSettings | None = None,
    patch: PatchSettings | None = None,
    settings: BaselineSettings | None = None,
    *,
    atoms: pd.DataFrame | None = None,
    where: str | None = None,
    progress: Progress | None = None,
    stop: Stop | None = None,
) -> pd.DataFrame:
    """Find atoms, cut patches and describe them without a network.

    Parameters
    ----------
    image : ImageData
        Image or stack.
    find, patch, settings : settings, optional
        Of each step.
    atoms : DataFrame, optional
        Atoms table to use instead of finding atoms.
    where : str, optional
        Expression that chooses the atoms.
    progress, stop : callable, optional
        ``progress(fraction, text)`` is told how far it is; ``stop()`` is asked whether to give up.

    Returns
    -------
    DataFrame
        Latent table, see `napari_rvae.latent.baseline`.

    Raises
    ------
    RVAEError
        A child of it that says what is wrong with image, atoms or settings.
    Stopped
        If `stop` said so.
    """
    from napari_rvae.latent import baseline

    patch, settings = patch or PatchSettings(), settings or BaselineSettings()
    found = atoms_of(image, find or FindSettings(), atoms, scaled(progress, 0, 0.3), stop)
    patches = chosen_patches(image, found, patch, where, scaled(progress, 0.3, 0.4), stop, settings.invariance)
    table = baseline(patches, settings, atoms=found, progress=scaled(progress, 0.4, 1), stop=stop)
    return add_physical_positions(table, image.pixel_size, image.unit)


def baseline_patches(
    source: ImageData,
    patch: PatchSettings | None = None,
    settings: BaselineSettings | None = None,
    *,
    progress: Progress | None = None,
    stop: Stop | None = None,
) -> pd.DataFrame:
    """Describe ready-made patches without a network.

    Parameters
    ----------
    source : ImageData
        (n, h, w) or (n, channels, h, w).
    patch, settings : settings, optional
        Of each step.
    progress, stop : callable, optional
        ``progress(fraction, text)`` is told how far it is; ``stop()`` is asked whether to give up.

    Returns
    -------
    DataFrame
        One row per patch, in order.

    Raises
    ------
    RVAEError
        A child of it that says what is wrong with patches or settings.
    Stopped
        If `stop` said so.
    """
    from napari_rvae.latent import baseline
    from napari_rvae.patches import patches_from_array

    patches = patches_from_array(source.data, patch or PatchSettings())
    table: pd.DataFrame = baseline(patches, settings, progress=progress, stop=stop)
    return table
