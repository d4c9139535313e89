"""Shares of work."""

import pytest
import torch

from napari_rvae.threads import WIDE, at_once, default_threads, threads


def test_threads_are_given_back():
    before = torch.get_num_threads()
    with threads(1) as count:
        assert count == torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
    assert default_threads() >= 1


@pytest.mark.parametrize(
    ("device", "count"), [("cpu", 5), (torch.device("cpu"), 5), ("cuda:1", 5 * WIDE), (torch.device("mps"), 5 * WIDE)]
)
def test_a_graphics_card_works_on_more_at_once(device, count):
    assert at_once(5, device) == count
