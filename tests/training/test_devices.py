"""Which devices are offered, and what is said where no graphics card is seen."""

import pytest
import torch

from napari_rvae.errors import DeviceError
from napari_rvae.training import available_devices, choose_device, devices


@pytest.fixture
def no_card(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.mark.parametrize(
    ("cuda", "tool", "words"),
    [
        ("12.8", None, "sees none: check the driver"),
        (None, "/usr/bin/nvidia-smi", "install the one for your card"),
        (None, None, "No graphics card was found"),
    ],
    ids=["no driver", "built for the processor", "no card"],
)
def test_why_no_card_is_seen_is_said(no_card, monkeypatch, cuda, tool, words):
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(devices.shutil, "which", lambda name: tool)
    monkeypatch.setattr(devices, "_DRIVERS", ())
    (processor,) = available_devices()
    assert processor.name == "cpu"
    assert words in processor.note


def test_driver_tells_of_a_card(no_card, monkeypatch, tmp_path):
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(devices.shutil, "which", lambda name: None)
    monkeypatch.setattr(devices, "_DRIVERS", (str(tmp_path),))
    assert "pytorch.org/get-started/locally" in available_devices()[0].note


def test_cards_come_first_with_name_and_free_memory(no_card, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda number: ((7 + number) * 2**30, 80 * 2**30))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda number: f"Card {number}")
    found = available_devices()
    assert [device.name for device in found] == ["cuda:0", "cuda:1", "cpu"]
    assert [device.label for device in found[:2]] == ["Card 0, 7 GB free", "Card 1, 8 GB free"]
    assert found[-1].note == ""
    assert choose_device() == "cuda:0"
    assert choose_device("cuda") == "cuda:0"


def test_device_that_is_not_there_is_explained(no_card):
    with pytest.raises(DeviceError, match=r"no device cuda here: choose auto or cpu"):
        choose_device("cuda")
