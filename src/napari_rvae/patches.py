"""Patches: what is seen around every atom, cut at its exact sub-pixel position."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from napari_rvae.errors import InputDataError, Stopped
from napari_rvae.settings import PatchSettings

NEIGHBOR_DISTANCES = 3.0
"""Side of an automatic patch in nearest-neighbour distances: the first shell, whole, inside the inscribed circle."""
STRAIN_DISTANCES = 5.0
"""The same where strain is looked for: it shows in far neighbours more than in near ones."""
WIDTHS = {"molecules": 5.5, "windows": 32.0}
"""The same in their sigma: a molecule without neighbours; eight spacings of a grid, at most a quarter of the image."""
SMALLEST_WORKING_SIZE, LARGEST_WORKING_SIZE = 24, 64
_BLOCK = 512

Progress = Callable[[float, str], None]
Stop = Callable[[], bool]


@dataclass(frozen=True)
class Patches:
    """Patches and where they come from.

    Attributes
    ----------
    data : numpy.ndarray
        float32, (n, channels, D, D): intensities as in the image, D the working size.
    atom_id : numpy.ndarray
        int64, (n,): the atoms the patches are cut around.
    centers : numpy.ndarray
        float64, (n, 2): row and column of the exact centres in image pixels.
    frame : numpy.ndarray
        int64, (n,): frame in a stack, else 0.
    edge : numpy.ndarray
        bool, (n,): the patch reaches beyond the image or over missing pixels (filled by reflection).
    step : tuple of float
        Image pixels per patch pixel along rows and columns.
    settings : PatchSettings
        How the patches were cut, with the sizes really used.
    cut : callable or None
        ``cut(frame, centers)`` gives the data at other centres; None for patches that came ready-made.
    """

    data: NDArray[np.float32]
    atom_id: NDArray[np.int64]
    centers: NDArray[np.float64]
    frame: NDArray[np.int64]
    edge: NDArray[np.bool_]
    step: tuple[float, float]
    settings: PatchSettings
    cut: Callable[[NDArray[np.int64], NDArray[np.float64]], NDArray[np.float32]] | None = field(
        default=None, repr=False, compare=False
    )

    def __len__(self) -> int:
        return len(self.data)

    @property
    def size(self) -> int:
        """Side in image pixels (columns)."""
        return int(np.rint(self.data.shape[-1] * self.step[1]))

    @property
    def scale(self) -> float:
        """Image pixels (columns) per patch pixel."""
        return self.step[1]

    def select(self, rows: NDArray[Any]) -> Patches:
        """Some of the patches.

        Parameters
        ----------
        rows : numpy.ndarray
            Boolean mask or positions.

        Returns
        -------
        Patches
            The chosen patches, in that order.
        """
        return replace(
            self,
            data=self.data[rows],
            atom_id=self.atom_id[rows],
            centers=self.centers[rows],
            frame=self.frame[rows],
            edge=self.edge[rows],
        )

    def missing(self, offsets: NDArray[np.float64] | float = 0.0) -> NDArray[np.bool_]:
        """Pixels that the image does not hold, and that were filled when the patches were cut.

        Parameters
        ----------
        offsets : numpy.ndarray
            (n, 2) image pixels, if the patches were moved since.

        Returns
        -------
        numpy.ndarray
            bool, (n, D, D); all False for ready-made patches.
        """
        if not isinstance(self.cut, _Cutter):
            return np.zeros((len(self), *self.data.shape[2:]), bool)
        return self.cut.missing(self.frame, self.centers + offsets)

    def moved(self, offsets: NDArray[np.float64]) -> Patches:
        """Cut again at other centres: the window follows the motif.

        Parameters
        ----------
        offsets : numpy.ndarray
            (n, 2) row and column offsets in image pixels, added to the centres.

        Returns
        -------
        Patches
            New data at new centres; the patches themselves when they came ready-made.
        """
        if self.cut is None:
            return self
        centers = self.centers + offsets
        return replace(self, data=self.cut(self.frame, centers), centers=centers)


def nearest_neighbor_distance(atoms: pd.DataFrame) -> float:
    """Median distance of an atom to its nearest neighbour in the same frame.

    Parameters
    ----------
    atoms : pandas.DataFrame
        Atoms table with ``y``, ``x`` and, for stacks, ``frame``.

    Returns
    -------
    float
        Pixels; nan for fewer than two atoms.
    """
    from scipy.spatial import cKDTree

    groups = [group for _, group in atoms.groupby("frame")] if "frame" in atoms else [atoms]
    distances = [
        np.asarray(cKDTree(points).query(points, k=2)[0])[:, 1]
        for group in groups
        if len(points := group[["y", "x"]].to_numpy(float)) > 1
    ]
    return float(np.median(np.concatenate(distances))) if distances else float("nan")


def extract_patches(
    image: Any,
    atoms: pd.DataFrame,
    settings: PatchSettings | None = None,
    *,
    channel_axis: int | None = None,
    pixel_size: tuple[float, float] | None = None,
    strained: bool = False,
    progress: Progress | None = None,
    stop: Stop | None = None,
) -> Patches:
    """Cut a square patch around every atom by cubic spline interpolation.

    Parameters
    ----------
    image : array-like
        (y, x), or (t, y, x) when the table has ``frame``, with one more axis where `channel_axis` is given. Lazy
        arrays are read frame by frame.
    atoms : pandas.DataFrame
        Atoms table: ``y``, ``x`` in pixels, optionally ``atom_id`` and ``frame``.
    settings : PatchSettings, optional
        Sizes; what is empty is chosen from the distance between atoms.
    channel_axis : int, optional
        The axis of `image` that holds channels (layers, detectors), which share a pose.
    pixel_size : tuple of float, optional
        Physical size of a pixel along rows and columns. Where they differ by more than 1 %, patches are cut on a
        square physical grid.
    strained : bool
        Whether strain is to be found from the patches: an automatic size is larger then.
    progress, stop : callable, optional
        ``progress(fraction, text)`` is told how far it is; ``stop()`` is asked whether to give up.

    Returns
    -------
    Patches
        One patch per row of `atoms`, in that order.

    Raises
    ------
    InputDataError
        If the image, the table and the size do not fit together.
    Stopped
        If `stop` said so.
    """
    settings = settings or PatchSettings()
    stacked = "frame" in atoms
    _check(image, atoms, stacked, channel_axis)
    spatial = _frame(image, 0, stacked, channel_axis).shape[1:]
    size = settings.size or automatic_size(atoms, spatial, strained)
    if not 8 <= size <= min(spatial):
        raise InputDataError(
            f"Patches of {max(size, 8)} pixels do not fit into an image of {spatial[0]} x {spatial[1]} pixels: "
            "choose a smaller patch size, or a larger image."
        )
    working = settings.working_size or int(np.clip(size, SMALLEST_WORKING_SIZE, LARGEST_WORKING_SIZE))
    step = _step(size / working, pixel_size)
    centers = atoms[["y", "x"]].to_numpy(float)
    frame = atoms["frame"].to_numpy(np.int64) if stacked else np.zeros(len(atoms), np.int64)
    atom_id = atoms["atom_id"].to_numpy(np.int64) if "atom_id" in atoms else np.arange(len(atoms))
    if settings.delay and (not stacked or frame.max() + settings.delay >= image.shape[_time(channel_axis)]):
        raise InputDataError(f"A delay of {settings.delay} needs a stack with later frames: leave it out, or take one.")
    cutter = _Cutter(image, stacked, channel_axis, working, step, settings.delay)
    data = cutter(frame, centers, progress, stop)
    reach = (working - 1) / 2 * np.array(step)
    edge = ((centers < reach) | (centers > np.array(spatial) - 1 - reach)).any(1) | cutter.over_missing(frame, centers)
    used = PatchSettings(**{**settings.model_dump(), "size": size, "working_size": working})
    return Patches(data, atom_id, centers, frame, edge, step, used, cutter)


def patches_from_array(array: Any, settings: PatchSettings | None = None) -> Patches:
    """Take ready-made patches.

    Parameters
    ----------
    array : array-like
        Real numbers, (n, h, w) or (n, channels, h, w), h = w; not copied where they are float32 of the working size.
    settings : PatchSettings, optional
        Only the working size and normalisation are used.

    Returns
    -------
    Patches
        Resampled to the working size where that differs; centres are zero.

    Raises
    ------
    InputDataError
        If the array is not a set of square, finite patches.
    """
    settings = settings or PatchSettings()
    data = np.asarray(array)
    if settings.delay:
        raise InputDataError("Ready-made patches have no frames: leave the delay out.")
    if data.dtype.kind not in "uif":
        raise InputDataError(
            f"Patches must be real numbers, not {data.dtype}: save amplitudes or one channel per part."
        )
    if data.ndim == 3:
        data = data[:, None]
    if data.ndim != 4 or data.shape[-1] != data.shape[-2] or not 8 <= data.shape[-1] <= 512 or 0 in data.shape:
        raise InputDataError(
            f"Patches must have the shape (n, h, h) or (n, channels, h, h), 8 <= h <= 512, not {np.shape(array)}."
        )
    with np.errstate(over="ignore"):  # what is too large becomes infinite and is refused
        data = np.require(data, np.float32, ["C", "W"])  # as torch takes it
    if not all(np.isfinite(some).all() for some in data):
        raise InputDataError("Some patches hold missing or infinite values: remove or fill them first.")
    size = data.shape[-1]
    working = settings.working_size or min(size, LARGEST_WORKING_SIZE)
    n = len(data)
    frames = data.reshape(-1, size, size)
    if working != size:
        middle = np.full((len(frames), 2), (size - 1) / 2)
        cutter = _Cutter(frames, True, None, working, (size / working, size / working))
        frames = cutter(np.arange(len(frames)), middle)[:, 0]
    used = PatchSettings(**{**settings.model_dump(), "size": size, "working_size": working})
    return Patches(
        frames.reshape(n, -1, working, working),
        np.arange(n),
        np.zeros((n, 2)),
        np.zeros(n, np.int64),
        np.zeros(n, bool),
        (size / working, size / working),
        used,
    )


def _check(image: Any, atoms: pd.DataFrame, stacked: bool, channel_axis: int | None) -> None:
    missing = {"y", "x"} - set(atoms.columns)
    if missing:
        raise InputDataError(
            f"The atoms table has no column {' or '.join(sorted(missing))}: it needs y and x in pixels."
        )
    if len(atoms) == 0:
        raise InputDataError("There are no atoms to cut patches around: find atoms first, or lower the threshold.")
    expected = 2 + stacked + (channel_axis is not None)
    if image.ndim != expected:
        raise InputDataError(
            f"The image has {image.ndim} axes where {expected} are expected: "
            "choose one frame or channel, or give the atoms a frame column."
        )
    if np.dtype(image.dtype).kind not in "uifb":
        raise InputDataError(f"The image holds {image.dtype} values: show its amplitude or another real part instead.")
    if not np.isfinite(atoms[["y", "x"]].to_numpy(float)).all():
        raise InputDataError("Some atoms have no position: remove the rows without y or x.")
    if stacked:
        frames, last = atoms["frame"].to_numpy(), image.shape[_time(channel_axis)] - 1
        if frames.min() < 0 or frames.max() > last:
            raise InputDataError(f"The atoms table names frames outside 0 to {last}: it belongs to another stack.")


def automatic_size(atoms: pd.DataFrame, spatial: tuple[int, ...], strained: bool = False) -> int:
    """Side of a patch where none is given.

    Parameters
    ----------
    atoms : pandas.DataFrame
        Atoms table; molecules and windows on a grid are known by what `find_atoms` tells in ``attrs``.
    spatial : tuple of int
        Height and width of the image.
    strained : bool
        Whether strain is to be found from the patches.

    Returns
    -------
    int
        Image pixels.

    Raises
    ------
    InputDataError
        If there are fewer than two atoms.
    """
    found = atoms.attrs.get("napari_rvae", {})
    if found.get("target") in WIDTHS and found.get("sigma"):
        side = WIDTHS[found["target"]] * float(found["sigma"])
    else:
        side = (STRAIN_DISTANCES if strained else NEIGHBOR_DISTANCES) * nearest_neighbor_distance(atoms)
    if not np.isfinite(side):
        raise InputDataError("One atom alone does not tell how large a patch should be: give the patch size in pixels.")
    return int(min(np.clip(round(side), 8, 512), min(spatial) // (4 if found.get("target") == "windows" else 1)))


def _step(step: float, pixel_size: tuple[float, float] | None) -> tuple[float, float]:
    if pixel_size is None or abs(pixel_size[0] / pixel_size[1] - 1) <= 0.01:
        return step, step
    return step * pixel_size[1] / pixel_size[0], step


def _time(channel_axis: int | None) -> int:
    """Axis of the frames of a stack."""
    return 1 if channel_axis in (0, -4) else 0


def _frame(image: Any, frame: int, stacked: bool, channel_axis: int | None) -> Any:
    """One frame as a lazy (channels, y, x) array."""
    if stacked:
        axis = _time(channel_axis)
        image = image[(slice(None),) * axis + (frame,)]
        channel_axis = (
            None if channel_axis is None else 0 if axis else (channel_axis - 1 if channel_axis > 0 else channel_axis)
        )
    if not hasattr(image, "__array_function__"):  # a data set in a file
        image = np.asarray(image)
    return image[None] if channel_axis is None else np.moveaxis(image, channel_axis, 0)


def smoothing(step: float) -> float:
    """Width by which an image is smoothed before every so many of its pixels become one of a patch."""
    return float(0.5 * np.sqrt(max(step**2 - 1, 0)))


class _Cutter:
    """Cuts patches at any centres; keeps the spline coefficients of the last frame."""

    def __init__(
        self, image: Any, stacked: bool, channel_axis: int | None, working: int, step: tuple[float, float],
        delay: int | None = None,
    ) -> None:  # fmt: skip
        self.image, self.stacked, self.channel_axis = image, stacked, channel_axis
        self.step, self.frames = step, (0, delay) if delay else (0,)  # that a patch shows, counted from its own
        grid = np.arange(working) - (working - 1) / 2
        self.grid = np.stack(np.meshgrid(grid * step[0], grid * step[1], indexing="ij"))
        self._kept: tuple[int, NDArray[np.float32]] | None = None
        self._masks: dict[int, NDArray[np.bool_]] = {}
        self._spatial = _frame(image, 0, stacked, channel_axis).shape[1:]

    def __call__(
        self,
        frame: NDArray[np.int64],
        centers: NDArray[np.float64],
        progress: Progress | None = None,
        stop: Stop | None = None,
    ) -> NDArray[np.float32]:
        from scipy.ndimage import map_coordinates

        data: NDArray[np.float32] | None = None
        done = 0
        for number in np.unique(frame):
            coefficients = self._coefficients(int(number))
            rows = np.flatnonzero(frame == number)
            if data is None:
                data = np.empty((len(frame), len(coefficients), *self.grid.shape[1:]), np.float32)
            for block in np.split(rows, range(_BLOCK, len(rows), _BLOCK)):
                if stop is not None and stop():
                    raise Stopped("Stopped while cutting patches.")
                where = (centers[block][:, :, None, None] + self.grid).transpose(1, 0, 2, 3)
                for channel, values in enumerate(coefficients):
                    data[block, channel] = map_coordinates(values, where, order=3, mode="mirror", prefilter=False)
                done += len(block)
                if progress is not None:
                    progress(done / len(frame), "Cutting patches")
        assert data is not None  # the border has refused empty tables
        return data

    def _coefficients(self, number: int) -> NDArray[np.float32]:
        """Cubic spline coefficients of a frame, smoothed where patches have larger pixels than the image."""
        from scipy.ndimage import distance_transform_edt, gaussian_filter, spline_filter

        if self._kept is None or self._kept[0] != number:
            shown = [_frame(self.image, number + later, self.stacked, self.channel_axis) for later in self.frames]
            frame = np.concatenate([np.asarray(one, np.float32) for one in shown])
            missing = np.asarray(~np.isfinite(frame).all(0))
            if missing.all():
                raise InputDataError(f"Frame {number} holds no finite values: leave it out.")
            if missing.any():
                self._masks[number] = missing
                nearest = distance_transform_edt(missing, return_distances=False, return_indices=True)
                frame = frame[:, nearest[0], nearest[1]]
            smooth = [smoothing(step) for step in self.step]
            if max(smooth) > 0.1:
                frame = gaussian_filter(frame, (0, *smooth), mode="mirror")
            self._kept = number, np.stack([spline_filter(channel, 3, np.float32, mode="mirror") for channel in frame])
        return self._kept[1]

    def missing(self, frame: NDArray[np.int64], centers: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Whether each pixel of the squares around centres lies outside the image or is not finite there."""
        where = np.rint(centers[:, :, None, None] + self.grid).astype(int)
        last = np.array(self._spatial)[:, None, None] - 1
        outside = ((where < 0) | (where > last)).any(1)
        row, column = np.clip(where, 0, last).transpose(1, 0, 2, 3)
        for number, mask in self._masks.items():
            rows = frame == number
            outside[rows] |= mask[row[rows], column[rows]]
        return np.asarray(outside)

    def over_missing(self, frame: NDArray[np.int64], centers: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Whether pixels that are not finite lie in the square around each centre."""
        rows = np.isin(frame, list(self._masks))
        over = np.zeros(len(frame), bool)
        over[rows] = self.missing(frame[rows], centers[rows]).any((1, 2))
        return over
