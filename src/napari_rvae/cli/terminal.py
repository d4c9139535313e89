"""What a person at a terminal sees: a bar while it works, one line where it fails."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from napari_rvae.errors import ExistsError, RVAEError

Progress = Callable[[float, str], None]


@contextmanager
def show_progress() -> Iterator[Progress | None]:
    """Show a bar with the time left on a terminal, nothing elsewhere."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("starting", total=1.0)
        yield lambda fraction, text: bar.update(task, completed=fraction, description=text)


def keep_libraries_quiet() -> None:
    """Hide from users what libraries tell their developers."""
    import logging
    import warnings

    warnings.simplefilter("ignore")
    logging.getLogger().addHandler(logging.NullHandler())


def in_one_line(error: Exception) -> str:
    """Say what went wrong and what to do."""
    if isinstance(error, RVAEError):
        text = f"{error} with --force" if isinstance(error, ExistsError) else str(error)
    elif hasattr(error, "format_message"):  # a usage error of typer, whichever parser it brings
        text = f"{error.format_message().rstrip('.')}; see --help"
    elif isinstance(error, MemoryError) or re.search("out of memory|allocate memory", str(error)):  # torch's own words
        text = "not enough memory; use a smaller image, smaller patches or a smaller batch"
    elif isinstance(error, OSError) and error.strerror:
        text = f"{error.filename or 'a file'}: {error.strerror}"
    else:
        first = (str(error).strip().splitlines() or [""])[0][:200]
        text = f"this is a defect, please report it with what --debug shows ({type(error).__name__}: {first})"
    return " ".join(text.split())


def complain(text: str, status: int) -> int:
    """Write a line for whoever waits at the terminal, and pass the exit status on."""
    sys.stderr.write(f"napari-rvae: {text}\n")
    return status
