"""Tables on disk: CSV that gives back every number to the last digit, or Parquet."""

from __future__ import annotations

import os
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from napari_rvae.errors import InputDataError, OutputError
from napari_rvae.io.files import reading, replacing

_PIXELS = ("y", "x", "sigma", "error", "dy", "dx", "dy_error", "dx_error", "dy_dispersion", "dx_dispersion")
_NUMBERS_OF_ATOMS = ("amplitude", "background", "sigma", "snr", "error")
_LARGEST_WHOLE = 2**53  # beyond it a float skips numbers


def save_table(table: pd.DataFrame, path: str | os.PathLike[str]) -> None:
    """Write a table; it appears complete or not at all.

    Parameters
    ----------
    table : DataFrame
        Any table; the index is not written.
    path : str or path-like
        ``.csv``, or ``.parquet`` where pyarrow is installed.

    Raises
    ------
    OutputError
        If it cannot be written there.
    """
    target = Path(path)
    check_table_name(target)
    with replacing(target) as file:
        if target.suffix.lower() == ".parquet":
            plain = table.copy()
            plain.attrs = {}
            plain.to_parquet(file, index=False)
        else:
            table.to_csv(file, index=False)


def check_table_name(path: Path) -> None:
    """Refuse formats that cannot be written, before the work starts.

    Parameters
    ----------
    path : Path
        Where a table is to be written.

    Raises
    ------
    OutputError
        If the ending is neither ``.csv`` nor ``.parquet``, or Parquet needs pyarrow.
    """
    suffix = path.suffix.lower()
    if suffix not in (".csv", ".parquet"):
        raise OutputError(f"{path.name} does not say what kind of table it is; end it in .csv or .parquet")
    if suffix == ".parquet" and find_spec("pyarrow") is None:
        raise OutputError("Parquet needs pyarrow: pip install pyarrow, or write .csv")


def load_table(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Read a table that `save_table` wrote, or one made by hand.

    Parameters
    ----------
    path : str or path-like
        ``.csv`` or ``.parquet``.

    Returns
    -------
    DataFrame
        Every number as it was written; an empty ``flag`` is an empty text.

    Raises
    ------
    InputDataError
        If the file is missing or no table.
    """
    file = Path(path)
    with reading(file):
        if file.suffix.lower() == ".parquet":
            table = pd.read_parquet(file)
        else:
            table = pd.read_csv(file, float_precision="round_trip", encoding="utf-8-sig", skipinitialspace=True)
    if "flag" in table:
        table["flag"] = _text(table["flag"])
    return table


def load_atoms(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Read an atoms table; one made by hand needs nothing but ``y`` and ``x``.

    Parameters
    ----------
    path : str or path-like
        CSV or Parquet with ``y`` (row) and ``x`` (column) in pixels; every other column is kept.

    Returns
    -------
    DataFrame
        An atoms table: what was missing is numbered, empty or zero.

    Raises
    ------
    InputDataError
        If the file is missing or no such table.
    """
    table = load_table(path)
    return as_atoms(table, Path(path).name)


def as_atoms(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """Check a table of atoms and fill what is missing.

    Parameters
    ----------
    table : DataFrame
        With ``y`` and ``x``.
    name : str
        What to call it in messages.

    Returns
    -------
    DataFrame
        A complete atoms table, its own columns kept.

    Raises
    ------
    InputDataError
        If positions are missing, no numbers, or identities are not unique whole numbers.
    """
    table = table.rename(columns={c: str(c).strip().lower() for c in table if str(c).strip().lower() in ("y", "x")})
    missing = [axis for axis in ("y", "x") if axis not in table]
    if missing:
        raise InputDataError(
            f"{name} has no column {' and '.join(missing)}; atoms need y (row) and x (column) in pixels"
        )
    twice = table.columns[table.columns.duplicated()]
    if len(twice):
        raise InputDataError(f"{name} has two columns named {twice[0]}; rename one")
    if table.empty:
        raise InputDataError(f"{name} holds no atoms")
    atoms = pd.DataFrame({"atom_id": _whole(table, "atom_id", name, pd.RangeIndex(len(table)))})
    if atoms["atom_id"].duplicated().any():
        raise InputDataError(f"{name} gives two atoms the same atom_id; leave the column out to have them numbered")
    if "frame" in table:
        atoms["frame"] = _whole(table, "frame", name, None)
    for column in ("y", "x", *_NUMBERS_OF_ATOMS):
        atoms[column] = _number(table, column, name)
    bad = np.flatnonzero(~np.isfinite(atoms[["y", "x"]].to_numpy()).all(1))
    if len(bad):
        raise InputDataError(f"{name} has no position in row {bad[0] + 1} ({len(bad)} such rows); fill or delete it")
    atoms["sublattice"] = _whole(table, "sublattice", name, np.zeros(len(table)))
    atoms["flag"] = _text(table["flag"]) if "flag" in table else ""
    others = [column for column in table if column not in atoms]
    return pd.concat([atoms, table[others]], axis=1)


def _text(column: pd.Series[Any]) -> pd.Series[str]:
    """Write missing texts as empty ones; a column of nothing else is read as numbers."""
    return column.astype(object).where(column.notna(), "").astype(str)


def _number(table: pd.DataFrame, column: str, name: str) -> pd.Series[float]:
    if column not in table:
        return pd.Series(np.nan, index=table.index, dtype=float)
    try:
        return pd.to_numeric(table[column]).astype(float)
    except (ValueError, TypeError) as error:
        raise InputDataError(f"{name} holds what is no number in column {column}: {str(error)[:80]}") from error


def _whole(table: pd.DataFrame, column: str, name: str, default: object) -> pd.Series[int]:
    if column not in table:
        return pd.Series(default, index=table.index).astype(np.int64)
    values = _number(table, column, name)
    if not values.between(0, _LARGEST_WHOLE).all() or (values % 1 != 0).any():
        raise InputDataError(f"{name} needs whole numbers from 0 in column {column}")
    return values.astype(np.int64)


def add_physical_positions(
    table: pd.DataFrame, pixel_size: tuple[float, float] | None, unit: str | None
) -> pd.DataFrame:
    """Add positions in the image's unit, ``y_nm`` and ``x_nm`` for nm, beside those in pixels.

    Parameters
    ----------
    table : DataFrame
        With ``y`` and ``x``.
    pixel_size : tuple of float or None
        Along y and x.
    unit : str or None
        Its unit.

    Returns
    -------
    DataFrame
        A new table; the same where there is no unit.
    """
    if pixel_size is None or unit is None:
        return table
    suffix = re.sub(r"\W+", "_", unit)
    result = table.drop(columns=[f"{axis}_{suffix}" for axis in "yx"], errors="ignore")
    place = int(result.columns.get_indexer(pd.Index(["x"]))[0]) + 1
    for axis, size in zip("xy", reversed(pixel_size), strict=True):
        result.insert(place, f"{axis}_{suffix}", result[axis] * size)
    return result


def column_units(table: pd.DataFrame, unit: str | None = None) -> dict[str, str]:
    """Tell the unit of each column that has one.

    Parameters
    ----------
    table : DataFrame
        Atoms or latent table.
    unit : str or None
        Unit of the physical positions.

    Returns
    -------
    dict
        ``{"y": "px", "angle": "rad", ...}``.
    """
    units = dict.fromkeys(_PIXELS, "px") | dict.fromkeys(("angle", "angle_error", "angle_dispersion"), "rad")
    if unit is not None:
        suffix = re.sub(r"\W+", "_", unit)
        units |= {f"y_{suffix}": unit, f"x_{suffix}": unit}
    return {str(column): units[column] for column in table if column in units}
