"""How many classes there are among the patches of an image, or among ready-made ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from napari_rvae.io import ImageData
from napari_rvae.settings import CountSettings, FindSettings, PatchSettings
from napari_rvae.workflows.steps import atoms_of, chosen_patches, scaled

if TYPE_CHECKING:
    from napari_rvae.patches import Progress, Stop


def count_image(
    image: ImageData,
    find: FindSettings | None = None,
    patch: PatchSettings | None = None,
    settings: CountSettings | None = None,
    *,
    atoms: pd.DataFrame | None = None,
    where: str | None = None,
    progress: Progress | None = None,
    stop: Stop | None = None,
) -> pd.DataFrame:
    """Find atoms, cut patches and see how many classes of them are found again.

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
        One row per number of classes, see `napari_rvae.averages.counting.class_stability`.

    Raises
    ------
    RVAEError
        A child of it that says what is wrong with image, atoms or settings.
    Stopped
        If `stop` said so.
    """
    from napari_rvae.averages.counting import class_stability

    patch, settings = patch or PatchSettings(), settings or CountSettings()
    found = atoms_of(image, find or FindSettings(), atoms, scaled(progress, 0, 0.3), stop)
    patches = chosen_patches(image, found, patch, where, scaled(progress, 0.3, 0.4), stop, settings.invariance)
    return class_stability(patches, settings, progress=scaled(progress, 0.4, 1), stop=stop)


def count_patches(
    source: ImageData,
    patch: PatchSettings | None = None,
    settings: CountSettings | None = None,
    *,
    progress: Progress | None = None,
    stop: Stop | None = None,
) -> pd.DataFrame:
    """See how many classes of ready-made patches are found again.

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
        One row per number of classes, see `napari_rvae.averages.counting.class_stability`.

    Raises
    ------
    RVAEError
        A child of it that says what is wrong with patches or settings.
    Stopped
        If `stop` said so.
    """
    from napari_rvae.averages.counting import class_stability
    from napari_rvae.patches import patches_from_array

    patches = patches_from_array(source.data, patch or PatchSettings())
    return class_stability(patches, settings, progress=progress, stop=stop)
