"""Memory that is full, and random numbers."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch

from napari_rvae.errors import DeviceError

T = TypeVar("T")
_FEWEST = 8
"""Smaller blocks are not tried."""


def is_out_of_memory(error: BaseException) -> bool:
    """Tell a full memory from other failures, on any device.

    Parameters
    ----------
    error : BaseException
        Any error.

    Returns
    -------
    bool
        Whether memory was asked for in vain.
    """
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    words = str(error).lower()
    return isinstance(error, RuntimeError) and ("out of memory" in words or "allocate memory" in words)


@contextmanager
def explained(device: str | torch.device) -> Iterator[None]:
    """Say what to do where the memory is full, whatever was being done.

    Parameters
    ----------
    device : str or torch.device
        Where it is done.

    Raises
    ------
    DeviceError
        In place of the device's own error.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        where = "cpu" if isinstance(error, MemoryError) or "cpu" in str(error).lower() else str(device)
        other = "" if where == "cpu" else "choose the processor (cpu) as device, "
        raise DeviceError(
            f"There is not enough memory on {where}: {other}take smaller patches or fewer atoms, or close other "
            "programs."
        ) from error


def by_halves(function: Callable[[Any], T], rows: Any, device: str | torch.device) -> list[T]:
    """Call a function with a block of rows, or with half of them each time where the memory is full.

    Parameters
    ----------
    function : callable
        Called once more with rows where it has failed.
    rows : array
        Of any kind.
    device : str or torch.device
        Whose memory may be full.

    Returns
    -------
    list
        What it returned for one part after the other.
    """
    try:
        return [function(rows)]
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error) or len(rows) < 2 * _FEWEST:
            raise
    release(device)
    middle = len(rows) // 2
    return [*by_halves(function, rows[:middle], device), *by_halves(function, rows[middle:], device)]


def random_state(device: torch.device) -> torch.Tensor:
    """State of the random numbers that PyTorch draws on a device.

    Parameters
    ----------
    device : torch.device
        A device that is there.

    Returns
    -------
    torch.Tensor
        For a generator of one's own.
    """
    if device.type == "cuda":
        return torch.cuda.get_rng_state(device)
    return torch.mps.get_rng_state() if device.type == "mps" else torch.get_rng_state()


def release(device: str | torch.device) -> None:
    """Give memory that is no longer used back to other programs, that of a graphics card and the computer's.

    Parameters
    ----------
    device : str or torch.device
        Where was trained.
    """
    kind: Any = torch.device(device).type
    if kind == "cuda":
        torch.cuda.empty_cache()
    elif kind == "mps":
        torch.mps.empty_cache()
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)  # glibc keeps what is free between pieces in use: hundreds of megabytes
