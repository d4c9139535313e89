"""A trained model applied to many images, one after the other; one that fails does not stop the rest."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from napari_rvae.errors import InputDataError, SeveralImagesError, Stopped, in_words
from napari_rvae.io import ImageData, check_outputs, load_atoms, load_image, replacing, save_table
from napari_rvae.io.images import IMAGE_SUFFIXES, file_and_part
from napari_rvae.settings import FindSettings
from napari_rvae.workflows.encoding import encode_image, misfit
from napari_rvae.workflows.steps import scaled

if TYPE_CHECKING:
    from napari_rvae.models import Model
    from napari_rvae.patches import Progress, Stop

SUMMARY = "summary.csv"


@dataclass(frozen=True)
class Applied:
    """What became of one image.

    Attributes
    ----------
    file : str
        The image.
    state : str
        ``done``, ``failed`` or ``not done``.
    atoms, encoded : int
        Atoms found, and those that have latents.
    table : str
        Name of the latent table.
    seconds : float
        It took so long.
    error : str
        Why it failed.
    reconstruction_error : float
        Median over the atoms, about 1 where the model explains them.
    note : str
        That it does not.
    """

    file: str
    state: str = "not done"
    atoms: int = 0
    encoded: int = 0
    table: str = ""
    seconds: float = 0.0
    error: str = ""
    reconstruction_error: float = float("nan")
    note: str = ""


def image_files(places: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """List images: files as they are given, and of folders the files in formats that can be read.

    Parameters
    ----------
    places : iterable of path-like
        Files and folders; ``::name`` chooses an image of a file, or of every file of a folder.

    Returns
    -------
    list of Path
        In the order given, those of a folder by name, each with what was chosen of it.

    Raises
    ------
    InputDataError
        If there is no image at all, or a place does not exist.
    """
    found: list[Path] = []
    for given in places:
        place, part = file_and_part(given)
        if not place.exists():
            raise InputDataError(f"there is no file or folder {place}")
        known = [file for file in sorted(place.iterdir()) if _is_image(file)] if place.is_dir() else [place]
        chosen = [Path(f"{file}::{part}") if part else file for file in known]
        found += [file for file in chosen if file not in found]
    if not found:
        raise InputDataError(f"no images were found; known formats are {', '.join(sorted(IMAGE_SUFFIXES))}")
    return found


def _is_image(file: Path) -> bool:
    return file.is_file() and file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith(".")


def apply_to_files(
    model: Model,
    files: Sequence[Path],
    output: str | os.PathLike[str],
    find: FindSettings | None = None,
    *,
    atoms: str | os.PathLike[str] | None = None,
    force: bool = False,
    progress: Progress | None = None,
    stop: Stop | None = None,
    report: Callable[[int, Applied], None] | None = None,
) -> pd.DataFrame:
    """Find the atoms of every image, encode them, and write one latent table per image and a summary.

    Parameters
    ----------
    model : Model
        A trained model.
    files : sequence of Path
        From `image_files`.
    output : path-like
        Folder for the tables and ``summary.csv``; made if it is not there.
    find : FindSettings, optional
        How atoms are found.
    atoms : path-like, optional
        Atoms to use instead, as conditional models need them: a table for a single image, or a folder with tables that
        are named after the images.
    force : bool
        Replace existing tables.
    progress, stop : callable, optional
        ``progress(fraction, text)`` is told how far it is; ``stop()`` is asked whether to end: what is done stays.
    report : callable, optional
        ``report(number, applied)`` after every image.

    Returns
    -------
    DataFrame
        One row per image, as in ``summary.csv``; see `Applied`.

    Raises
    ------
    InputDataError
        If there is one table of atoms for several images.
    OutputError
        If a table exists already, or nothing can be written there.
    """
    if atoms is not None and len(files) > 1 and not Path(atoms).is_dir():
        raise InputDataError("one table of atoms is for one image; give a folder with tables named after the images")
    folder, names = Path(output), _table_names(files)
    check_outputs([folder / name for name in (*names, SUMMARY)], force)
    done = [Applied(str(file)) for file in files]
    for number, (file, name) in enumerate(zip(files, names, strict=True)):
        told = scaled(progress, number / len(files), (number + 1) / len(files))
        if stop is not None and stop():
            break
        try:
            done[number] = _applied(model, file, folder / name, find, _atoms_of(file, atoms), told, stop)
        except Stopped:
            break
        if report is not None:
            report(number, done[number])
    summary = pd.DataFrame([asdict(one) for one in done])
    with replacing(folder / SUMMARY) as place:
        summary.to_csv(place, index=False)
    return summary


def _atoms_of(file: Path, place: str | os.PathLike[str] | None) -> Path | None:
    """The table with the atoms of an image, whether it is there or not."""
    if place is None or not Path(place).is_dir():
        return None if place is None else Path(place)
    image = file_and_part(file)[0]
    tables = [Path(place) / f"{name}.{kind}" for name in (image.stem, image.name) for kind in ("csv", "parquet")]
    return next((table for table in tables if table.exists()), tables[0])


def _applied(
    model: Model,
    file: Path,
    table: Path,
    find: FindSettings | None,
    atoms: Path | None,
    progress: Progress | None,
    stop: Stop | None,
) -> Applied:
    start = time.perf_counter()

    def named(fraction: float, text: str) -> None:
        if progress is not None:
            progress(fraction, f"{file.name}: {text}")

    try:
        places = None if atoms is None else load_atoms(atoms)
        latent = encode_image(model, _image(model, file), find, atoms=places, progress=named, stop=stop)
        save_table(latent, table)
    except Stopped:
        raise
    except Exception as error:  # whatever is wrong with one image, the others are waiting
        return Applied(str(file), "failed", error=in_words(error), seconds=round(time.perf_counter() - start, 1))
    encoded = int(latent["z1"].notna().sum())
    seconds, median = round(time.perf_counter() - start, 1), float(latent["reconstruction_error"].median())
    told: dict[str, Any] = {"reconstruction_error": round(median, 3), "note": misfit(model, latent)}
    return Applied(str(file), "done", len(latent), encoded, table.name, seconds, **told)


def _image(model: Model, file: Path) -> ImageData:
    """Read an image; of a file that holds several, those that the model learned from, by their names."""
    try:
        return load_image(file)
    except SeveralImagesError:
        trained = model.recipe.get("made_by", {}).get("inputs", {}).get("image", {}).get("path", "")
        part = file_and_part(trained)[1]
        if not part:
            raise
        return load_image(f"{file}::{part}")


def _table_names(files: Sequence[Path]) -> list[str]:
    """Name tables after their images, with the ending and a number where two would be called the same."""
    images = [file_and_part(file)[0] for file in files]
    stems = [image.stem for image in images]
    names = [image.name if stems.count(image.stem) > 1 else image.stem for image in images]
    return [f"{name}.{k}.csv" if names.count(name) > 1 else f"{name}.csv" for k, name in enumerate(names)]
