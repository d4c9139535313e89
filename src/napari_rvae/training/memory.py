"""Memory that is full, and random numbers as they were before it was."""

from __future__ import annotations

import ctypes
import sys
from typing import Any

import torch


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


def random_state(device: torch.device) -> dict[str, torch.Tensor]:
    """State of the random numbers that training draws.

    Parameters
    ----------
    device : torch.device
        Where it trains.

    Returns
    -------
    dict of torch.Tensor
        For `set_random_state`.
    """
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    elif device.type == "mps":
        states["mps"] = torch.mps.get_rng_state()
    return states


def set_random_state(states: dict[str, torch.Tensor], device: torch.device) -> None:
    """Draw the same random numbers again.

    Parameters
    ----------
    states : dict of torch.Tensor
        From `random_state`.
    device : torch.device
        The same device.
    """
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)
    elif device.type == "mps" and "mps" in states:
        torch.mps.set_rng_state(states["mps"])


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
