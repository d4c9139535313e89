"""Several models of the same patches: what they agree on, and how far they disagree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from napari_rvae.errors import InputDataError

_SURE, _SCATTER = 0.8, 0.5
_FEWEST = 10
"""Fewer atoms would be turned onto each other whether members agree or not; per latent a third of that."""
_MEANS = ("dy", "dx", "scale", "strain_a", "strain_b", "strain_xx", "strain_yy", "strain_xy", "predicted")


def combine(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Align the latent tables of an ensemble's members, and give mean and dispersion.

    Classes are matched to those of the first member one to one; angles are turned into its frame, class by class;
    latents are rotated and mirrored onto its latents. A class of few atoms goes with all the others.

    Parameters
    ----------
    tables : sequence of DataFrame
        Latent tables of the same atoms or patches in the same order, one per member.

    Returns
    -------
    DataFrame
        The first table with means over the members in its columns, and besides ``class_dispersion`` (entropy of the
        members' mean probabilities: 0 where they are sure and agree, 1 where every class is as likely),
        ``symmetry`` (an order at which the angles of all members can be compared: the least common multiple),
        ``angle_dispersion`` (rad), ``z1_dispersion`` ..., ``dy_dispersion`` ...: standard deviations over the members.

    Raises
    ------
    InputDataError
        If there is no table, or they do not belong together.
    """
    if not tables:
        raise InputDataError("An ensemble needs at least one trained member.")
    first = tables[0]
    if any(list(table) != list(first) or not table["atom_id"].equals(first["atom_id"]) for table in tables):
        raise InputDataError("The tables are not of the same atoms and the same kind of model.")
    known = first["z1"].notna().to_numpy()
    rows = [table[known] for table in tables]
    columns: dict[str, NDArray[Any]] = {}
    which = np.zeros(known.sum(), np.int64)
    if "class" in first:
        columns |= _classes(rows)
        which = rows[0]["class"].to_numpy(np.int64)
    columns |= _latents(rows, which)
    if "angle" in first:
        columns |= _angles(rows, which)
    for name in [name for name in _MEANS if name in first]:
        columns |= _moments(name, np.stack([row[name].to_numpy(float) for row in rows]))
    for name in ("reconstruction_error", "unexplained"):
        if name in first:
            columns[name] = np.mean([row[name] for row in rows], 0)
    result = first.copy()
    for name, values in columns.items():
        whole = np.full(len(first), np.nan)
        whole[known] = values
        result[name] = whole.astype(np.int64) if name in ("class", "symmetry") and known.all() else whole
    return result


def unstable_atoms(table: pd.DataFrame) -> NDArray[np.bool_]:
    """Tell the atoms of which the members of an ensemble say different things.

    Parameters
    ----------
    table : DataFrame
        From `combine`, or the features of atoms with its columns.

    Returns
    -------
    ndarray of bool
        Where there are classes: less than .8 of the members' belief goes to the most probable one. Else: over the
        members a latent scatters more than half as much as over the atoms, or the angle half as much as any angle does.

    Raises
    ------
    InputDataError
        If no ensemble was trained.
    """
    names = [str(name).removesuffix("_dispersion") for name in table if str(name).endswith("_dispersion")]
    if not names:
        raise InputDataError("No ensemble has seen these atoms: train with more than one member.")
    if "class" in names:
        return table["class_probability"].to_numpy(float) < _SURE
    unstable = np.zeros(len(table), bool)
    for name in names:
        if name == "angle":
            most = _SCATTER * 2 * np.pi / table["symmetry"].to_numpy(float) / 12**0.5
        elif _is_latent(name):
            most = np.full(len(table), _SCATTER * float(table[name].std()))
        else:
            continue
        unstable |= table[f"{name}_dispersion"].to_numpy(float) > most
    return unstable


def _is_latent(name: str) -> bool:
    return name[:1] == "z" and name[1:].isdigit()


def _moments(name: str, values: NDArray[np.float64]) -> dict[str, NDArray[Any]]:
    return {name: values.mean(0), f"{name}_dispersion": values.std(0)}


def _classes(rows: list[pd.DataFrame]) -> dict[str, NDArray[Any]]:
    """Mean probabilities, where a member shares out what it does not give to its own class evenly."""
    from scipy.optimize import linear_sum_assignment

    found = np.stack([row["class"].to_numpy(np.int64) for row in rows])
    sure = np.stack([row["class_probability"].to_numpy(float) for row in rows])
    count = max(int(found.max()) + 1, 2)
    mean = np.zeros((found.shape[1], count))
    for member, probability in zip(found, sure, strict=True):
        together = np.zeros((count, count))
        np.add.at(together, (member, found[0]), 1)
        member = linear_sum_assignment(-together)[1][member]
        share = np.repeat((1 - probability)[:, None] / (count - 1), count, 1)
        share[np.arange(len(member)), member] = probability
        mean += share / len(found)
    entropy = -(mean * np.log(mean.clip(1e-12))).sum(1) / np.log(count)
    return {"class": mean.argmax(1), "class_probability": mean.max(1), "class_dispersion": entropy.clip(0, 1)}


def _latents(rows: list[pd.DataFrame], which: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
    """Latents in the first member's frame: rotated and mirrored, class by class, about their means."""
    names = [name for name in rows[0] if _is_latent(str(name))]
    values = np.stack([row[names].to_numpy(float) for row in rows])
    found = values.copy()
    for kind in np.unique(which):
        mine = which == kind
        like = mine if mine.sum() >= max(_FEWEST, _FEWEST * len(names) // 3) else np.full(len(which), True)
        middle = values[0, like].mean(0)
        for member, aligned in zip(values[1:], found[1:], strict=True):
            own = member[like].mean(0)
            left, _, right = np.linalg.svd((member[like] - own).T @ (values[0, like] - middle))
            aligned[mine] = (member[mine] - own) @ left @ right + middle
    columns: dict[str, NDArray[Any]] = {}
    for number, name in enumerate(names):
        columns |= _moments(str(name), found[:, :, number])
    return columns


def _angles(rows: list[pd.DataFrame], which: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
    """Angles in the first member's frame, modulo the motif's symmetry."""
    fold = np.lcm.reduce([row["symmetry"].to_numpy(np.int64) for row in rows])
    angle = np.stack([row["angle"].to_numpy(float) for row in rows])
    phase = np.exp(1j * fold * angle)
    for kind, order in np.unique(np.stack([which, fold]), axis=1).T:
        mine = (which == kind) & (fold == order)
        like = mine if mine.sum() >= _FEWEST else order % fold == 0
        if like.sum() < _FEWEST:
            continue  # nobody to go with: models have a common frame of their own
        turned = np.exp(1j * order * (angle[:, like] - angle[0, like])).mean(1)
        phase[:, mine] *= np.exp(-1j * np.angle(turned))[:, None]
    mean = phase.mean(0)
    length = np.abs(mean).clip(1e-6, 1 - 1e-15)
    return {
        "angle": np.angle(mean) / fold,
        "angle_dispersion": np.sqrt(-2 * np.log(length)) / fold,
        "symmetry": fold,
    }
