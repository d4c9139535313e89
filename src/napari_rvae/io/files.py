"""Files as a whole: their hash, and writing that leaves either the old or the new one, never half of it."""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from napari_rvae.errors import ExistsError, InputDataError, OutputError, RVAEError


def sha256(path: Path) -> str:
    """Hash a file, or all files in a folder with their names.

    Parameters
    ----------
    path : Path
        File or folder.

    Returns
    -------
    str
        64 hexadecimal digits.
    """
    if path.is_dir():
        total = hashlib.sha256()
        for file in sorted(file for file in path.rglob("*") if file.is_file()):
            total.update(f"{file.relative_to(path).as_posix()} {sha256(file)}\n".encode())
        return total.hexdigest()
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def reading(file: Path) -> Iterator[None]:
    """Turn whatever a reader does with a damaged file into one clear error.

    Parameters
    ----------
    file : Path
        What is read.

    Raises
    ------
    InputDataError
        If the file is missing, empty, larger than the memory, or the reader failed in any way.
    """
    try:
        if not file.exists():
            raise InputDataError(f"there is no file {file}")
        if not (file.is_file() or file.is_dir()):
            raise InputDataError(f"{file} is no file")
        if file.is_file() and file.stat().st_size == 0:
            raise InputDataError(f"{file} is empty")
        with warnings.catch_warnings(), _silent_logs():
            warnings.simplefilter("ignore")
            yield
    except RVAEError:
        raise
    except MemoryError as error:
        raise InputDataError(f"{file.name} does not fit into memory; crop or bin it first") from error
    except PermissionError as error:
        raise InputDataError(f"{file} may not be read: {error.strerror}") from error
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:150]
        raise InputDataError(f"{file.name} cannot be read, it may be damaged ({reason})") from error


@contextmanager
def _silent_logs() -> Iterator[None]:
    """Keep readers from logging about damaged files what the error says already."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


def check_memory(nbytes: int, name: str) -> None:
    """Refuse what is larger than the memory that is free.

    Parameters
    ----------
    nbytes : int
        Size once loaded.
    name : str
        What it is, for the message.

    Raises
    ------
    InputDataError
        If it does not fit. Where the system does not say how much is free, nothing is checked.
    """
    try:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return
    if nbytes > free:
        raise InputDataError(
            f"{name} takes {nbytes / 1e9:.1f} GB and only {free / 1e9:.1f} GB of memory are free; crop or bin it first"
        )


def check_outputs(targets: Sequence[Path], force: bool = False) -> None:
    """Make sure, before the work starts, that results can be written.

    Parameters
    ----------
    targets : sequence of Path
        Files to be written; missing folders are made when they are.
    force : bool
        Allow existing files to be replaced.

    Raises
    ------
    ExistsError
        If a file exists and `force` is not given.
    OutputError
        If nothing can be written there.
    """
    for target in targets:
        if target.is_dir():
            raise OutputError(f"{target} is a folder; give the name of a file")
        if target.exists() and not force:
            raise ExistsError(f"{target} exists already; choose another place or have it replaced")
    for folder in {_existing(target.parent) for target in targets}:
        if not folder.is_dir():
            raise OutputError(f"{folder} is a file; choose another place for the results")
        with _writing(folder), tempfile.TemporaryFile(dir=folder):
            pass


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Write a file so that it appears complete or not at all.

    Parameters
    ----------
    target : Path
        Where the file is to be.

    Yields
    ------
    Path
        Where to write it; moved over the target afterwards.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    with written_together(target.parent) as folder:
        yield folder / target.name


@contextmanager
def written_together(folder: Path) -> Iterator[Path]:
    """Write several files into a folder so that they appear when all of them are complete.

    Parameters
    ----------
    folder : Path
        Where the files are to be; made if it is not there.

    Yields
    ------
    Path
        A hidden folder to write them to; its files are moved afterwards, or deleted after an error.

    Raises
    ------
    OutputError
        If they cannot be written.
    """
    made = _existing(folder)
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with tempfile.TemporaryDirectory(prefix=".writing-", dir=folder, ignore_cleanup_errors=True) as hidden:
                yield Path(hidden)
                for file in sorted(Path(hidden).iterdir()):
                    file.replace(folder / file.name)
        except BaseException:
            _remove_empty(folder, made)
            raise


def _existing(folder: Path) -> Path:
    """Return the folder itself or the nearest one above that is there."""
    folder = folder.absolute()
    return next(place for place in (folder, *folder.parents) if place.exists())


def _remove_empty(folder: Path, above: Path) -> None:
    folder = folder.absolute()
    while folder != above and folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f"cannot write to {folder}: {error.strerror or error}; choose another place") from error
