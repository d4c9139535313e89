"""The choice of a device, once the devices of this machine are known."""

from __future__ import annotations

from typing import Any

from qtpy.QtWidgets import QComboBox, QSizePolicy

from napari_rvae.widgets.settings_form import Control

_SMALL_WORK = 2000
"""Patches below which batches are so small that a graphics card waits for its orders most of the time."""


class DeviceControl(Control):
    """The devices of this machine, once they are known."""

    def __init__(self) -> None:
        super().__init__()
        self._box = QComboBox()
        self._box.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self._box.setMinimumContentsLength(10)
        self._box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self._box.addItem("auto", "auto")
        self._box.currentIndexChanged.connect(self.changed)
        self.widget = self._box
        self.devices: list[Any] = []

    def set_devices(self, devices: list[Any]) -> None:
        """Offer devices, the fastest first."""
        if devices == self.devices:
            return
        chosen, self.devices = self.value(), devices
        while self._box.count() > 1:
            self._box.removeItem(1)
        for device in devices:
            self._box.addItem(f"{device.name}: {device.label}", device.name)
        self.set_value(chosen)
        self.changed.emit()

    def in_words(self, patches: int = 0) -> str:
        """Say what will be used, and what to know about it."""
        if not self.devices:
            return "Looking for graphics cards..."
        note = self.chosen.note
        if self.chosen.name != "cpu" and 0 < patches < _SMALL_WORK:
            note = "So few patches are trained as fast on the processor."
        return f"Will train on: {self.chosen.label}" + (f"<br><small>{note}</small>" if note else "")

    @property
    def chosen(self) -> Any:
        """The device that will be used, None before the devices are known."""
        best = self.devices[0] if self.devices else None
        return next((device for device in self.devices if device.name == self.value()), best)

    def value(self) -> Any:
        """Return the name of the device."""
        return self._box.currentData()

    def set_value(self, value: Any) -> None:
        """Choose a device by name."""
        self._box.setCurrentIndex(max(self._box.findData(value), 0))


def devices_here() -> list[Any]:
    """Look for devices; loads all that training needs later, which takes seconds.

    Returns
    -------
    list of Device
        The fastest first.
    """
    import pyqtgraph  # noqa: F401  it would be loaded by the window, which then stands still
    import torch

    from napari_rvae.training import available_devices

    torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)  # for the first optimiser half of PyTorch is loaded
    return available_devices()
