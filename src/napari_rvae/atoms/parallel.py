"""Work on parts of an image by all processor cores; the compiled loops and SciPy's filters hold no lock."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from napari_rvae.errors import Stopped

PARTS_PER_CORE = 4  # so that a core that is slowed down is waited for briefly


def go_on(stop: Callable[[], bool] | None) -> None:
    """Raise `Stopped` if `stop` says so."""
    if stop is not None and stop():
        raise Stopped("Stopped while finding atoms.")


def in_parts(work: Callable[[int, int], Any], count: int, smallest: int) -> list[Any]:
    """Results of `work(first, last)` over ranges that make up `count` things, in order.

    Parameters
    ----------
    work : callable
        Called from several threads at once, where it pays.
    count : int
        How many things there are.
    smallest : int
        A part is not smaller: a thread costs some 50 us.
    """
    cores = os.cpu_count() or 1
    parts = min(cores * PARTS_PER_CORE, count // max(smallest, 1))
    if parts < 2 or cores == 1:
        return [work(0, count)]
    cuts = np.linspace(0, count, parts + 1).astype(int)
    with ThreadPoolExecutor(cores) as pool:
        return list(pool.map(work, cuts[:-1], cuts[1:]))
