"""Images and stacks: the atoms table of each frame, one frame in memory at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from napari_rvae.atoms.find import Detection, Finder, detect, prepare
from napari_rvae.atoms.frame import check_image, standard_frame
from napari_rvae.atoms.parallel import go_on
from napari_rvae.atoms.region import Area, areas
from napari_rvae.atoms.response import rare
from napari_rvae.atoms.windows import TARGET
from napari_rvae.errors import InputDataError
from napari_rvae.settings import FindSettings

if TYPE_CHECKING:
    from napari_rvae.atoms.complete import Columns

Progress = Callable[[float, str], None]
KNOWN = ("sigma", "contrast", "target")  # what some frames tell about all
LOOKED_AT = 5  # frames of a stack that tell it
COLUMNS = ["atom_id", "y", "x", "amplitude", "background", "sigma", "snr", "error", "sublattice", "flag"]


def find_atoms(
    image: Any,
    settings: FindSettings | None = None,
    *,
    region: Any = None,
    finder: Finder | None = None,
    progress: Progress | None = None,
    stop: Callable[[], bool] | None = None,
) -> pd.DataFrame:
    """Find all atoms of an image or a stack, below the pixel and without a parameter.

    Parameters
    ----------
    image : array_like
        (y, x), or a stack (t, y, x) that is read frame by frame (NumPy, dask, h5py, zarr...).
    settings : FindSettings, optional
        What is already known; everything is estimated by default, for a stack from a few of its frames.
    region : array_like of bool, optional
        (y, x), True where atoms are looked for, in every frame, or (t, y, x); only its surroundings are read.
    finder : LearnedFinder, optional
        From `napari_rvae.load_finder`, for a search as learned.
    progress : callable, optional
        Told the fraction done (0 to 1) and what is being done.
    stop : callable, optional
        Polled between steps.

    Returns
    -------
    pandas.DataFrame
        One row per atom: ``atom_id``, ``frame`` (stacks), ``y``, ``x`` (pixels), ``amplitude``, ``background`` (the
        image's units), ``sigma``, ``snr``, ``error`` (formal, pixels), ``sublattice`` (0 is the brightest), ``flag``
        ("", "edge", "unsupported"). Empty, with all columns, when there is no atom: the caller says so.
        ``attrs["napari_rvae"]`` holds ``spacing``, ``sigma``, ``contrast``, ``target``, ``threshold`` as estimated, and
        of a stack ``unusable``, the numbers of frames that are constant or mostly not finite, if there are any.

    Raises
    ------
    InputDataError
        If the image cannot be used, or no frame of a stack.
    Stopped
        If `stop` said so.
    """
    settings = settings or FindSettings()
    image = image if hasattr(image, "shape") and hasattr(image, "dtype") else np.asarray(image)
    if len(image.shape) != 3 or image.shape[-1] in (3, 4):
        check_image(image)
        area = Area(region, image.shape)
        return _inside(area, _frame_atoms(prepare(image[area.box], settings, finder, stop), settings, progress, stop))
    check_image(np.broadcast_to(np.zeros((), image.dtype), image.shape[1:]))
    return _stack_atoms(image, settings, areas(region, image.shape), finder, progress, stop)


def _stack_atoms(
    stack: Any,
    settings: FindSettings,
    where: dict[int, Area],
    finder: Finder | None,
    progress: Progress | None,
    stop: Callable[[], bool] | None,
) -> pd.DataFrame:
    """The atoms of all frames that can be used, one frame in memory at a time."""
    count = stack.shape[0]
    alone = len(where) < 2 or settings.search == "grid"
    known = settings if alone else _common_scale(stack, settings, where, progress, stop)
    tables: list[pd.DataFrame] = []
    unusable: dict[int, InputDataError] = {}
    for done, (index, area) in enumerate(where.items()):
        go_on(stop)
        if progress is not None:
            progress(done / len(where), f"frame {index + 1} of {count}")
        try:
            frame = standard_frame(np.asarray(stack[index])[area.box])
        except InputDataError as error:
            unusable[index] = error
            continue
        table = _inside(area, _frame_atoms(detect(frame, known, finder, stop), known, None, stop))
        table.insert(1, "frame", np.int64(index))
        tables.append(table)
    if not tables:
        raise next(iter(unusable.values()), InputDataError("The stack holds no frame."))
    attrs = next((t.attrs for t in tables if len(t)), tables[0].attrs)
    if unusable:
        attrs["napari_rvae"]["unusable"] = list(unusable)
    for table in tables:
        table.attrs = {}
    result = pd.concat(tables, ignore_index=True)
    result["atom_id"] = np.arange(len(result), dtype=np.int64)
    result.attrs.update(attrs)
    return result


def _common_scale(
    stack: Any,
    settings: FindSettings,
    where: dict[int, Area],
    progress: Progress | None,
    stop: Callable[[], bool] | None,
) -> FindSettings:
    """What the settings leave open, from a few frames all over the stack, so that none of them decides alone."""
    frames = list(where)
    target = "atoms" if settings.search == "learned" else settings.target
    plain = settings.model_copy(update={"search": "auto", "target": target, "threshold": None})
    seen: list[dict[str, Any]] = []
    for index in (frames[k] for k in np.unique(np.linspace(0, len(frames) - 1, LOOKED_AT).astype(int))):
        go_on(stop)
        if progress is not None:
            progress(0.0, "width and contrast of the atoms")
        try:
            detection = prepare(np.asarray(stack[index])[where[index].box], plain, stop=stop)
        except InputDataError:
            continue
        if len(detection.positions()):
            seen.append({"sigma": detection.sigma, "contrast": detection.contrast, "target": target_of(detection)})
    if not seen:
        return settings
    kinds = [(one["contrast"], one["target"]) for one in seen]
    alike = [one for one, kind in zip(seen, kinds, strict=True) if kind == max(kinds, key=kinds.count)]
    return replace_settings(settings, **sorted(alike, key=lambda one: one["sigma"])[(len(alike) - 1) // 2])


def _inside(area: Area, atoms: pd.DataFrame) -> pd.DataFrame:
    """The atoms of the area's box that lie in its region, in pixels of the whole image."""
    place, chosen = area.placed(atoms[["y", "x"]].to_numpy())
    if chosen.all():
        return atoms.assign(y=place[:, 0], x=place[:, 1])
    kept: pd.DataFrame = atoms.assign(y=place[:, 0], x=place[:, 1])[chosen].reset_index(drop=True)
    kept["atom_id"] = np.arange(len(kept), dtype=np.int64)
    return kept


def replace_settings(settings: FindSettings, **values: Any) -> FindSettings:
    """Settings with what is still open filled in."""
    return settings.model_copy(update={k: v for k, v in values.items() if getattr(settings, k) in (None, "auto")})


def _frame_atoms(
    detection: Detection, settings: FindSettings, progress: Progress | None, stop: Callable[[], bool] | None
) -> pd.DataFrame:
    from napari_rvae.atoms.complete import find_columns

    if progress is not None:
        progress(0.3, "fitting atoms")
    columns = find_columns(detection, settings.refine, stop=stop)
    if settings.threshold is not None and settings.search != "learned":
        columns = columns.select(columns.snr >= settings.threshold)
    return atoms_table(detection, columns, settings)


def target_of(detection: Detection) -> str:
    """What was looked for, as in `FindSettings`, or windows on a grid."""
    if detection.search == "grid":
        return TARGET
    return "molecules" if detection.compound else "atoms"


def atoms_table(detection: Detection, columns: Columns, settings: FindSettings) -> pd.DataFrame:
    """The atoms table from fitted columns, in the image's own units, in reading order."""
    from napari_rvae.atoms.refine import nearest_neighbor_distance
    from napari_rvae.atoms.sublattices import assign_sublattices

    values, variances = columns.fits.values, columns.fits.variances
    order = np.lexsort((values[:, 1], np.round(values[:, 0] / max(1.0, 2 * detection.sigma))))
    values, variances, snr, doubtful = values[order], variances[order], columns.snr[order], columns.doubtful[order]
    frame, height = detection.frame, np.array(detection.frame.pixels.shape)
    edge = np.any((values[:, :2] < 2 * detection.sigma) | (values[:, :2] > height - 1 - 2 * detection.sigma), axis=1)
    table = pd.DataFrame(
        {
            "atom_id": np.arange(len(values), dtype=np.int64),
            "y": values[:, 0],
            "x": values[:, 1],
            "amplitude": frame.sign * values[:, 2] * frame.unit,
            "background": frame.sign * values[:, 3] * frame.unit + frame.offset,
            "sigma": values[:, 4],
            "snr": snr,
            "error": np.sqrt((variances[:, 0] + variances[:, 1]) / 2),
            "sublattice": assign_sublattices(values[:, 2], 1 if detection.search == "grid" else settings.sublattices),
            "flag": np.where(edge, "edge", np.where(doubtful, "unsupported", "")),
        },
        columns=COLUMNS,
    )
    table["flag"] = table["flag"].astype(object)
    table.attrs["napari_rvae"] = {
        "spacing": settings.spacing or nearest_neighbor_distance(values[:, :2]),
        "sigma": detection.sigma,
        "contrast": detection.contrast,
        "target": target_of(detection),
        "threshold": rare(detection.sigma, True) if detection.search == "learned" else detection.threshold,
    }
    return table


def refine_atoms(
    image: Any,
    atoms: pd.DataFrame,
    ids: Any = None,
    settings: FindSettings | None = None,
    *,
    stop: Callable[[], bool] | None = None,
) -> pd.DataFrame:
    """Fit the atoms that were added or moved by hand, with all others where they are.

    Parameters
    ----------
    image : array_like
        (y, x), or (t, y, x) when the table has a ``frame`` column.
    atoms : pandas.DataFrame
        Needs ``atom_id``, ``y``, ``x``; other columns of the atoms table are filled in.
    ids : array_like of int, optional
        The atoms to fit; all when None.
    settings : FindSettings, optional
        As for `find_atoms`; the table's own estimates are used where it has them.
    stop : callable, optional
        Polled between steps.

    Returns
    -------
    pandas.DataFrame
        A copy with the chosen rows renewed.

    Raises
    ------
    InputDataError
        If the image cannot be used, the table has no positions, or some of the chosen lie outside.
    Stopped
        If `stop` said so.
    """
    from napari_rvae.atoms.refine import fit_atoms

    missing = {"atom_id", "y", "x"} - set(atoms.columns)
    if missing:
        raise InputDataError(
            f"The atoms table has no column {', '.join(sorted(missing))}; give a table made by find_atoms."
        )
    known = atoms.attrs.get("napari_rvae", {})
    settings = (settings or FindSettings()).model_copy(update={"search": "auto"})
    settings = replace_settings(settings, **{name: known[name] for name in KNOWN if name in known})
    chosen = np.ones(len(atoms), bool) if ids is None else atoms["atom_id"].isin(np.asarray(ids)).to_numpy()
    place = atoms.loc[chosen, ["y", "x"]].to_numpy(np.float64)
    outside = int((~np.all((place > -0.5) & (place < np.array(image.shape[-2:]) - 0.5), axis=1)).sum())
    if outside:
        raise InputDataError(f"{outside} of {len(place)} points lie outside the image; move or delete them first.")
    result = atoms.copy()
    frames = atoms["frame"].to_numpy() if "frame" in atoms else np.zeros(len(atoms), np.int64)
    for index in np.unique(frames[chosen]):
        detection = prepare(image[int(index)] if "frame" in atoms else image, settings, stop=stop)
        here = frames == index
        fits = fit_atoms(detection, atoms.loc[here, ["y", "x"]].to_numpy(np.float64), stop=stop)
        frame, keep = detection.frame, chosen[here]
        fitted = {
            "y": fits.values[:, 0],
            "x": fits.values[:, 1],
            "amplitude": frame.sign * fits.values[:, 2] * frame.unit,
            "background": frame.sign * fits.values[:, 3] * frame.unit + frame.offset,
            "sigma": fits.values[:, 4],
            "snr": fits.values[:, 2] / np.sqrt(fits.variances[:, 2] + 1e-30),
            "error": np.sqrt((fits.variances[:, 0] + fits.variances[:, 1]) / 2),
        }
        rows = result.index[here][keep]
        for name, column in fitted.items():
            result.loc[rows, name] = column[keep]
    return result
