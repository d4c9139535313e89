"""Steps of the optimiser recorded once and played again: a graphics card then waits for none of their small kernels."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor

from napari_rvae.training.memory import is_out_of_memory

_KEPT = 6
"""Recordings, of full and of short batches, with and without noise being followed."""


class Replay:
    """Functions whose kernels a CUDA device records as a graph at the second call and starts all at once from then on.

    Everything that a function reads and changes has to stay where it is in memory, apart from what is handed to it;
    nothing in it may wait for the device. Where that cannot be recorded, the function is called each time.

    Parameters
    ----------
    chance : torch.Generator
        The random numbers that are drawn, on the device.

    Attributes
    ----------
    works : bool
        Whether anything is recorded here.
    records : bool
        Whether it is, at present.
    """

    def __init__(self, chance: torch.Generator) -> None:
        self._chance = chance
        self._called: set[Hashable] = set()
        self._recorded: dict[Hashable, tuple[torch.cuda.CUDAGraph, tuple[Tensor, ...], Tensor]] = {}
        self._pool: Any = None
        self.works = chance.device.type == "cuda" and torch.version.cuda is not None  # AMD's graphs are untried
        self.records = False

    def __call__(self, key: Hashable, function: Callable[..., Tensor], *given: Tensor) -> Tensor:
        """Call a function.

        Parameters
        ----------
        key : hashable
            All that decides what it does, apart from what is in `given`: shapes, numbers, tensors that were replaced.
        function : callable
            Takes tensors and returns one.
        *given : torch.Tensor
            Handed to it.

        Returns
        -------
        torch.Tensor
            What it returned; the next call may change it.
        """
        if not self.works or key not in self._called:
            self._called.add(key)  # what is set up at a first call cannot be recorded
            return function(*given)
        if key not in self._recorded and not self._record(key, function, given):
            return function(*given)
        graph, inputs, result = self._recorded[key]
        for mine, new in zip(inputs, given, strict=True):
            mine.copy_(new)
        graph.replay()
        return result

    def _record(self, key: Hashable, function: Callable[..., Tensor], given: tuple[Tensor, ...]) -> bool:
        """Whether it could be recorded, which changes nothing yet."""
        while len(self._recorded) >= _KEPT:
            self._recorded.pop(next(iter(self._recorded)))
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        inputs = tuple(one.clone() for one in given)
        self.records = True
        try:
            graph, result = self._graph(lambda: function(*inputs), self._pool)
        except RuntimeError as error:
            self._graph(lambda: torch.zeros_like(inputs[0]))  # else random numbers stay held for it
            if is_out_of_memory(error):
                raise
            self.works = False
            return False
        finally:
            self.records = False
        self._recorded[key] = graph, inputs, result
        return True

    def _graph(self, function: Callable[[], Tensor], pool: Any = None) -> tuple[torch.cuda.CUDAGraph, Tensor]:
        """The kernels of a function, which do not run, and where its result will be."""
        device, graph = self._chance.device, torch.cuda.CUDAGraph()
        graph.register_generator_state(self._chance)
        recording = torch.cuda.graph(graph, pool, torch.cuda.Stream(device), capture_error_mode="thread_local")
        with torch.cuda.device(device), recording:
            return graph, function()
