"""Atoms of a stack linked over its frames."""

from __future__ import annotations

import numpy as np
import pandas as pd

from napari_rvae.atoms.refine import nearest_neighbor_distance
from napari_rvae.errors import InputDataError, RVAEError

REACH = 0.45  # neighbour distances: further, an atom may be taken for its neighbour


def link_atoms(atoms: pd.DataFrame, reach: float | None = None, memory: int = 1) -> pd.DataFrame:
    """Give the same number to the same atom in all frames, with trackpy (Crocker and Grier, 1996).

    Parameters
    ----------
    atoms : pandas.DataFrame
        Needs ``frame``, ``y``, ``x``.
    reach : float, optional
        How far an atom may move from frame to frame, pixels; .45 neighbour distances when None.
    memory : int
        So many frames may miss an atom in between.

    Returns
    -------
    pandas.DataFrame
        A copy with the column ``track``, an int64.

    Raises
    ------
    InputDataError
        If the table is not that of a stack.
    RVAEError
        If trackpy is not installed.
    """
    if "frame" not in atoms:
        raise InputDataError("Only atoms of a stack can be linked over its frames; this table has no column frame.")
    try:
        import trackpy
    except ImportError as error:
        raise RVAEError('Tracks need trackpy: pip install "napari-rvae[tracks]"') from error
    if reach is None:
        distances = [nearest_neighbor_distance(part[["y", "x"]].to_numpy()) for _, part in atoms.groupby("frame")]
        known = [distance for distance in distances if np.isfinite(distance)]
        reach = REACH * float(np.median(known)) if known else 5.0
    trackpy.quiet()
    frames = atoms["frame"].to_numpy()
    order = np.argsort(frames, kind="stable")
    present = np.arange(frames.min(), frames.max() + 1) if len(frames) else np.zeros(0, int)
    cuts = np.searchsorted(frames[order], present[1:])
    places = np.split(atoms[["y", "x"]].to_numpy(float)[order], cuts) if len(frames) else []
    track = np.zeros(len(atoms), np.int64)
    numbers = [part for _, part in trackpy.link_iter(iter(places), reach, memory=memory)] if places else []
    track[order] = np.concatenate([*numbers, []]).astype(np.int64)
    return atoms.assign(track=track)
