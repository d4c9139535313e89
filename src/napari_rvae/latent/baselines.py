"""What a model without a network sees: principal components or parts of patches, and clusters of them.

Beside an rVAE's table they show whether the network tells more than linear algebra does: ``unexplained`` means the same
in both, as patches are compared within the same band of spatial frequencies, and in the same units.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from napari_rvae.errors import InputDataError, Stopped
from napari_rvae.latent.clusters import find_clusters
from napari_rvae.patches import Patches, Progress, Stop
from napari_rvae.polar import radial_taper
from napari_rvae.settings import AverageSettings, BaselineSettings, ClusterSettings

_SAMPLE = 10_000
"""Most patches from which components are found; the others are projected."""
_BLOCK = 1000
_POSE = ("angle", "dy", "dx", "strain_a", "strain_b", "scale")


def baseline(
    patches: Patches,
    settings: BaselineSettings | None = None,
    *,
    atoms: pd.DataFrame | None = None,
    poses: pd.DataFrame | None = None,
    progress: Progress | None = None,
    stop: Stop | None = None,
) -> pd.DataFrame:
    """Describe patches by a few linear components, and sort them by these.

    Parameters
    ----------
    patches : Patches
        All are described; components are found from those that do not reach over the edge.
    settings : BaselineSettings, optional
        Which components, of patches as they are or aligned.
    atoms : DataFrame, optional
        Atoms table, all rows of which are kept; joined on ``atom_id``.
    poses : DataFrame, optional
        Latent table of a model, one row per patch, in order: patches are aligned by its angles, offsets, strains and
        scales instead of by class averages.
    progress, stop : callable, optional
        ``progress(fraction, text)`` is told how far it is; ``stop()`` is asked whether to give up.

    Returns
    -------
    DataFrame
        The latent table: ``z1`` ... in units of their spread, ``unexplained`` (the part of the patches' mean square
        that is left, as a model has it, too), ``class`` and ``class_probability``; of aligned patches also ``angle``,
        ``symmetry``, ``dy``, ``dx`` and what else was taken out. There is no ``reconstruction_error``: the noise is
        not known here.

    Raises
    ------
    InputDataError
        If there are fewer patches than components, or all are alike.
    Stopped
        If `stop` said so.
    """
    settings = settings or BaselineSettings()
    inner = np.flatnonzero(~patches.edge) if (~patches.edge).sum() > settings.latent else np.arange(len(patches))
    if len(inner) <= settings.latent:
        raise InputDataError(f"{len(patches)} patches are too few for {settings.latent} components.")

    def tell(fraction: float, text: str) -> None:
        if stop is not None and stop():
            raise Stopped("Stopped; nothing was kept.")
        if progress is not None:
            progress(fraction, text)

    if not settings.aligned or (poses is None and not settings.invariance):
        poses = pd.DataFrame({"atom_id": patches.atom_id})
    elif poses is not None:
        poses = poses[["atom_id", *[name for name in (*_POSE, "symmetry") if name in poses]]].reset_index(drop=True)
    else:
        poses = _poses(patches, settings, lambda fraction, text: tell(0.6 * fraction, text), stop)
    rows, square = _flat(patches, poses, settings.method == "nmf", lambda part: tell(0.6 + 0.1 * part, "Aligning"))
    tell(0.7, "Finding components")
    z, left = _components(rows, inner, settings)
    columns = {f"z{i + 1}": z[:, i] for i in range(settings.latent)}
    table = poses.assign(**columns, unexplained=left / square[inner].mean())
    table = table[["atom_id", *columns, *[name for name in table if name != "atom_id" and name not in columns]]]
    if settings.clusters != "none":
        how = ClusterSettings(method=settings.clusters, count=settings.classes, seed=settings.seed)
        tell(0.8, "Sorting")
        found = find_clusters(table, list(columns), how, stop=stop)
        table["class"] = found["cluster"].astype(np.int64)
        table["class_probability"] = found["cluster_probability"]
    tell(1.0, "Finding components")
    if atoms is None:
        return table
    kept = atoms.drop(columns=[name for name in table if name in atoms and name != "atom_id"])
    return kept.merge(table, on="atom_id", how="left", validate="one_to_one")


def _poses(patches: Patches, settings: BaselineSettings, progress: Progress, stop: Stop | None) -> pd.DataFrame:
    """Pose of every patch, from class averages; only what was free."""
    from napari_rvae.averages import average

    wanted = AverageSettings(invariance=settings.invariance, kinds=settings.classes, seed=settings.seed)
    found = average(patches, wanted, progress=progress, stop=stop)
    free = {
        "rotation": ["angle"], "translation": ["dy", "dx"], "strain": ["strain_a", "strain_b"], "scale": ["scale"]
    }  # fmt: skip
    table = found.table[["atom_id", *[name for kind in settings.invariance for name in free[kind]]]]
    return table.assign(symmetry=found.symmetry[found.table["class"]]) if "angle" in table else table


def _flat(
    patches: Patches, poses: pd.DataFrame, positive: bool, tell: Callable[[float], None]
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Patches with their poses taken out, within the band and under the taper, as rows; and their mean squares.

    The rows are harmonics, which a model compares, too; or pixels that are nowhere negative, with their mean.
    """
    import torch

    from napari_rvae.averages.band import signal_band
    from napari_rvae.polar import PolarSpace
    from napari_rvae.poses import Resampler, turned_shape

    def column(name: str, missing: float = 0.0) -> torch.Tensor:
        values = poses[name].to_numpy(np.float32) if name in poses else np.full(len(patches), missing, np.float32)
        return torch.as_tensor(values.copy())

    size = patches.data.shape[-1]
    space, resample, taper = PolarSpace(size, signal_band(patches), angles=1), Resampler(size), radial_taper(size)
    spread = patches.data.std((0, 2, 3))[:, None, None]
    spread = np.where(spread > 0, spread, 1)
    theta = column("angle")
    own = torch.stack([0 * theta, 0 * theta, column("strain_a"), column("strain_b"), column("scale", 1).log()], 1)
    shape = turned_shape(own, theta)
    shape[:, 0], shape[:, 1] = column("dx") / patches.step[1], column("dy") / patches.step[0]
    if patches.cut is not None and {"dy", "dx"} <= set(poses):  # windows follow their motifs, as they do for a model
        patches = patches.moved(poses[["dy", "dx"]].to_numpy(float))
        shape[:, :2] = 0
    parts, squares, darkest = [], [], np.inf
    for start in range(0, len(patches), _BLOCK):
        tell(start / len(patches))
        some = slice(start, start + _BLOCK)
        x = patches.data[some] / spread
        if patches.settings.normalization == "patch":
            x = x / np.maximum(x.std((1, 2, 3), keepdims=True), 1e-6)
        moved = torch.as_tensor(x) if len(poses.columns) == 1 else resample(torch.as_tensor(x), shape[some])
        found = space.turn(space.analyse(moved), -theta[some])
        if positive:
            found = space.synthesise(found)
        found = found.flatten(1)
        squares.append(found.double().square().sum(1).numpy())
        if positive:
            level = (x * taper).sum((2, 3), keepdims=True) / taper.sum()
            found = found + torch.as_tensor(level * taper, dtype=found.dtype).flatten(1)
            darkest = min(darkest, float(x.min()))
        parts.append(found.numpy())
    rows = np.concatenate(parts)
    if positive:
        rows = np.maximum(rows - darkest * np.tile(taper.ravel(), len(spread)).astype(np.float32), 0)
    return rows, np.concatenate(squares)


def _components(
    rows: NDArray[np.float32], inner: NDArray[np.int64], settings: BaselineSettings
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Amplitudes of the components in units of their spread, and the sum of squares that is left of every patch."""
    from sklearn.decomposition import NMF, PCA
    from threadpoolctl import threadpool_limits

    if not rows.std() > 1e-5:  # of what all patches differ by; rounding leaves less
        raise InputDataError("All patches are the same, constant image: there is nothing to tell apart.")
    chosen = np.random.default_rng(settings.seed).permutation(inner)[:_SAMPLE]
    unit = np.sqrt(np.mean(rows**2))
    rows = rows / unit
    if settings.method == "nmf":
        model = NMF(settings.latent, init="nndsvda", random_state=settings.seed, max_iter=400, tol=1e-3)
    else:
        model = PCA(settings.latent, svd_solver="auto", random_state=settings.seed)
    with threadpool_limits(1):
        model.fit(rows[chosen])
        z = model.transform(rows)
        left = np.sum((rows - model.inverse_transform(z)) ** 2, axis=1, dtype=float) * unit**2
    spread = z.std(0)
    return z / np.where(spread > 0, spread, 1), left
