"""Linear components of an image's patches, or of ready-made ones, in the columns of a latent table."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from napari_rvae.errors import InputDataError
from napari_rvae.io import ImageData, add_physical_positions
from napari_rvae.settings import BaselineSettings, FindSettings, PatchSettings
from napari_rvae.workflows.encoding import patch_settings
from napari_rvae.workflows.steps import atoms_of, check_channels, chosen_patches, scaled

if TYPE_CHECKING:
    from napari_rvae.models import Model
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


class Beside(NamedTuple):
    """A baseline of atoms that a model has encoded.

    Attributes
    ----------
    columns : pandas.DataFrame
        One row per atom that was described, by its ``atom_id``: ``pca1``, ..., ``pca_unexplained``, ``pca_gmm_class``
        and ``pca_gmm_class_probability``, with other methods in place of these; ``unaligned_pca1``, ... where patches
        were taken as they are.
    unexplained, by_model : float
        Means over the patches that lie whole in the image, or over all where none does; nan where there is no model.
    """

    columns: pd.DataFrame
    unexplained: float
    by_model: float


def baseline_beside(
    model: Model | None,
    image: ImageData,
    table: pd.DataFrame,
    settings: BaselineSettings | None = None,
    *,
    progress: Progress | None = None,
    stop: Stop | None = None,
) -> Beside:
    """Describe what a model has encoded once more without a network, to compare with it.

    Parameters
    ----------
    model : Model or None
        The trained model: the same patches are cut, and aligned by its angles and offsets. Without one they are cut and
        aligned as `napari_rvae.latent.baseline` does.
    image : ImageData
        Image or stack.
    table : DataFrame
        Its latent table by this model; rows without latents are left out. An atoms table where there is no model.
    settings : BaselineSettings, optional
        Which components.
    progress, stop : callable, optional
        ``progress(fraction, text)`` is told how far it is; ``stop()`` is asked whether to give up.

    Returns
    -------
    Beside
        The new columns, and what both leave unexplained.

    Raises
    ------
    InputDataError
        If table, image and model do not belong together, or there are too few patches.
    Stopped
        If `stop` said so.
    """
    from napari_rvae.latent import baseline

    settings = settings or BaselineSettings()
    if model is None:
        rows, patch = table, PatchSettings()
    elif "z1" not in table or table["z1"].isna().all():
        raise InputDataError("The table holds no latents of this model: encode the atoms with it first.")
    else:
        check_channels(model, image)
        rows, patch = table[table["z1"].notna()], patch_settings(model, image)
    patches = chosen_patches(image, rows, patch, None, scaled(progress, 0, 0.2), stop, settings.invariance)
    poses = rows if model is not None and {"angle", "dy", "scale", "strain_a"} & set(rows) else None
    found = baseline(patches, settings, poses=poses, progress=scaled(progress, 0.2, 1), stop=stop)
    stem = settings.method if settings.aligned else f"unaligned_{settings.method}"
    names = {
        **{f"z{i + 1}": f"{stem}{i + 1}" for i in range(settings.latent)},
        "unexplained": f"{stem}_unexplained",
        "class": f"{stem}_{settings.clusters}_class",
        "class_probability": f"{stem}_{settings.clusters}_class_probability",
    }
    columns = found.set_index("atom_id").reindex(columns=[name for name in names if name in found])
    inner = ~patches.edge if not patches.edge.all() else np.full(len(patches), True)
    known = model is not None and "unexplained" in rows
    return Beside(
        columns.rename(columns=names),
        float(found["unexplained"][inner].mean()),
        float(rows["unexplained"].to_numpy()[inner].mean()) if known else float("nan"),
    )
