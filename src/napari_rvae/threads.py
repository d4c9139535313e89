"""How torch shares work out: a busy core takes a hundred times as long, a card for few patches as for many."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

MOST_THREADS = 4
"""More threads do not help with batches this small."""
WIDE = 8
"""How many times more patches a graphics card, which waits for its calls, works on at once than a processor."""


def default_threads() -> int:
    """Processor threads that training uses: one core stays free for the window; the same at every start."""
    return max(1, min(MOST_THREADS, (os.cpu_count() or 2) - 1))


@contextmanager
def threads(count: int | None) -> Iterator[int]:
    """Use so many threads of the processor, and give them back.

    Parameters
    ----------
    count : int or None
        How many; `default_threads` when None.

    Yields
    ------
    int
        How many it is.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count or default_threads())
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


def at_once(few: int, device: str | torch.device) -> int:
    """How many patches are worked on at once.

    Parameters
    ----------
    few : int
        On a processor, whose caches they fit.
    device : str or torch.device
        Where it is done.

    Returns
    -------
    int
    """
    return few if str(device).startswith("cpu") else WIDE * few
