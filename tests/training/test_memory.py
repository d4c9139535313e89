"""Memory that a training no longer needs."""

import sys
from pathlib import Path

import numpy as np
import pytest

from napari_rvae.training.memory import release


@pytest.mark.skipif(sys.platform != "linux", reason="others give memory back by themselves")
def test_memory_in_pieces_is_given_back():
    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    arrays = [np.ones(8000) for _ in range(4000)]  # too small to be mapped one by one
    full = resident()
    kept = arrays[-1]  # without it, the C library would give all the others back
    del arrays
    release("cpu")
    assert full - resident() > 200e6
    assert kept.sum() == 8000
