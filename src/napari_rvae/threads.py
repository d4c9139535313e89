"""How many processor threads torch uses: two threads on a busy core are a hundred times slower than one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

MOST_THREADS = 4
"""More threads do not help with batches this small."""


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
