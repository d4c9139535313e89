"""Where a model is trained."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from napari_rvae.errors import DeviceError
from napari_rvae.threads import default_threads

_DRIVERS = ("/proc/driver/nvidia", "/dev/kfd")  # of NVIDIA and AMD


@dataclass(frozen=True)
class Device:
    """A device that can be chosen.

    Attributes
    ----------
    name : str
        As in settings: ``cpu``, ``cuda:0``, ``mps``.
    label : str
        What people read: its model and free memory.
    note : str
        A hint, or empty.
    """

    name: str
    label: str
    note: str = ""


def available_devices() -> list[Device]:
    """Devices of this machine, the fastest first.

    Returns
    -------
    list of Device
        The processor is always among them.
    """
    import torch

    devices = []
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            free, _ = torch.cuda.mem_get_info(number)
            label = f"{torch.cuda.get_device_name(number)}, {free / 2**30:.0f} GB free"
            devices.append(Device(f"cuda:{number}", label))
    if torch.backends.mps.is_available():
        devices.append(Device("mps", "Apple GPU"))
    note = "" if devices else _why_none(torch.version.cuda is not None or torch.version.hip is not None)
    threads = default_threads()
    devices.append(Device("cpu", f"processor, {threads} thread{'s' * (threads > 1)}", note))
    return devices


def _why_none(can_use: bool) -> str:
    """Say why no graphics card is used, where one might be; `can_use` is whether this PyTorch is made for them."""
    there = shutil.which("nvidia-smi") is not None or any(Path(place).exists() for place in _DRIVERS)
    if can_use:
        return "This PyTorch can use a graphics card but sees none: check the driver, with nvidia-smi for instance."
    if there:
        return (
            "There is a graphics card, but this PyTorch is built for the processor only: install the one for your "
            "card, with the command that pytorch.org/get-started/locally shows."
        )
    return "No graphics card was found, and this PyTorch is built for the processor only."


def choose_device(name: str = "auto") -> str:
    """The device that will be used.

    Parameters
    ----------
    name : str
        ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``.

    Returns
    -------
    str
        Name of a device that is there.

    Raises
    ------
    DeviceError
        If it is not there.
    """
    names = [device.name for device in available_devices()]
    if name == "auto":
        return names[0]
    wanted = "cuda:0" if name == "cuda" else name
    if wanted not in names:
        raise DeviceError(f"There is no device {name} here: choose {' or '.join(['auto', *names])}.")
    return wanted
