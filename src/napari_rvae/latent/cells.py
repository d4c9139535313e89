"""Cells: every pixel of an image belongs to its nearest atom, up to a radius.

The label of a cell is ``atom_id + 1``, so that a picked label leads back to the atom's row and 0 stays free for pixels
that belong to nobody (vacuum, the middle of a large hole).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_rvae.errors import InputDataError
from napari_rvae.patches import nearest_neighbor_distance

if TYPE_CHECKING:
    import pandas as pd

LabelImage = NDArray[np.int32]

# The corner of a square lattice's cell lies at .71 nearest-neighbour distances, a hexagonal one's at .58: .75 fills
# both, and leaves a hole where an atom is missing.
_RADIUS_IN_SPACINGS = 0.75
# Without a neighbour there is no spacing: this fraction of the shorter side of the image.
_RADIUS_OF_LONE_ATOM = 0.1
_OUTLINES = 400  # so many widths of an outline are as long as the shorter side of the image


def cell_labels(atoms: pd.DataFrame, shape: Sequence[int], radius: float | None = None) -> LabelImage:
    """Label every pixel with its nearest atom.

    Parameters
    ----------
    atoms : DataFrame
        Columns ``atom_id``, ``y``, ``x`` (pixels) and, for stacks, ``frame``.
    shape : sequence of int
        (y, x) of the image or (t, y, x) of the stack.
    radius : float, optional
        Pixels farther than this from their atom (in pixels) stay 0; .75 times the median distance between nearest
        neighbours when None.

    Returns
    -------
    ndarray of int32, of the given shape
        ``atom_id + 1`` of the nearest atom, 0 where none is within the radius. Where two atoms are equally near, the
        one that comes first in the table wins.

    Raises
    ------
    InputDataError
        If the table and the shape do not fit together, or a position or an ``atom_id`` is unusable.
    """
    positions, frames, labels_of_atoms = _checked(atoms, shape)
    if radius is None:
        radius = _default_radius(atoms, shape)
    elif not radius > 0:
        raise InputDataError(f"The radius of the cells must be above 0, not {radius}.")
    labels = np.zeros(tuple(shape), dtype=np.int32)
    for frame, image in enumerate(labels if len(shape) == 3 else labels[np.newaxis]):
        mine = frames == frame
        if mine.any():
            _painter()(image, positions[mine], labels_of_atoms[mine], float(radius))
    return labels


def cell_numbers(cells: LabelImage, atom_ids: ArrayLike, numbers: ArrayLike) -> NDArray[np.uint8]:
    """Give every cell its atom's number, such as that of its class.

    Parameters
    ----------
    cells : ndarray of int32
        From `cell_labels`.
    atom_ids : array-like of int, (n,)
        Some or all of the atoms.
    numbers : array-like of int, (n,)
        Theirs, 0 to 255.

    Returns
    -------
    ndarray of uint8, of the shape of `cells`
        0 outside of the cells and where an atom has no number.
    """
    of_label = np.zeros(int(cells.max(initial=0)) + 1, np.uint8)
    labels = np.asarray(atom_ids, np.int64) + 1
    painted = labels < len(of_label)  # the others have no cell
    of_label[labels[painted]] = np.asarray(numbers)[painted]
    return of_label[cells]


def cell_outlines(cells: LabelImage, atom_ids: ArrayLike) -> NDArray[np.uint8]:
    """Outline the area that the cells of some atoms cover together.

    Parameters
    ----------
    cells : ndarray of int32
        From `cell_labels`.
    atom_ids : array-like of int, (n,)
        The atoms.

    Returns
    -------
    ndarray of uint8, of the shape of `cells`
        1 on a line inside the area's border, about 1/400 of the image wide; 0 elsewhere.
    """
    from scipy.ndimage import minimum_filter

    ids = np.asarray(atom_ids, np.int64)
    area = cell_numbers(cells, ids, np.ones(len(ids), np.uint8))
    width = max(1, round(min(cells.shape[-2:]) / _OUTLINES))
    size = (*(1,) * (cells.ndim - 2), 2 * width + 1, 2 * width + 1)
    return area - minimum_filter(area, size, mode="nearest") if ids.size else area


def _checked(
    atoms: pd.DataFrame, shape: Sequence[int]
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int32]]:
    needed = ["atom_id", "y", "x"] + ["frame"] * (len(shape) == 3)
    if len(shape) not in (2, 3):
        raise InputDataError(f"Cells need the shape of an image (y, x) or a stack (t, y, x), not {tuple(shape)}.")
    missing = [name for name in needed if name not in atoms]
    if missing:
        raise InputDataError(f"The atoms table has no column {', '.join(missing)}; cells need {', '.join(needed)}.")
    positions = atoms[["y", "x"]].to_numpy(np.float64)
    ids = atoms["atom_id"].to_numpy(np.int64)
    if not np.isfinite(positions).all():
        raise InputDataError("Some atoms have no position (NaN); remove them from the table first.")
    if ids.size and (ids.min() < 0 or ids.max() >= np.iinfo(np.int32).max or np.unique(ids).size < ids.size):
        raise InputDataError("The column atom_id must hold different whole numbers from 0 to 2147483646.")
    if len(shape) == 3:
        return positions, atoms["frame"].to_numpy(np.int64), (ids + 1).astype(np.int32)
    if "frame" in atoms and atoms["frame"].nunique() > 1:
        raise InputDataError("The atoms come from several frames; give the shape of the stack, (t, y, x).")
    return positions, np.zeros(len(ids), np.int64), (ids + 1).astype(np.int32)


def _default_radius(atoms: pd.DataFrame, shape: Sequence[int]) -> float:
    spacing = nearest_neighbor_distance(atoms)
    if spacing > 0:
        return _RADIUS_IN_SPACINGS * spacing
    return max(1.0, _RADIUS_OF_LONE_ATOM * min(shape[-2:]))


@cache
def _painter() -> Any:
    """Compile the inner loop on first use, so that importing this module stays cheap."""
    from numba import njit

    @njit(nogil=True)
    def paint(image: Any, positions: Any, labels: Any, radius: float) -> None:
        # `image` holds the number of the nearest atom so far, which stands for its distance too: no second array as
        # large as the image is needed.
        height, width = image.shape
        for atom in range(len(positions)):
            y, x = positions[atom]
            reach_y = range(max(0, int(np.ceil(y - radius))), min(height - 1, int(np.floor(y + radius))) + 1)
            for row in reach_y:
                half = np.sqrt(max(0.0, radius**2 - (row - y) ** 2))
                first, last = max(0, int(np.ceil(x - half))), min(width - 1, int(np.floor(x + half)))
                for column in range(first, last + 1):
                    owner = image[row, column] - 1
                    if owner >= 0:
                        other_y, other_x = positions[owner]
                        theirs = (row - other_y) ** 2 + (column - other_x) ** 2
                        if theirs <= (row - y) ** 2 + (column - x) ** 2:
                            continue
                    image[row, column] = atom + 1
        for row in range(height):
            for column in range(width):
                if image[row, column] > 0:
                    image[row, column] = labels[image[row, column] - 1]

    return paint
