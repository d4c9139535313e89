"""A small crystal, docks that are let go of afterwards, and what the user was told."""

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.utils.notifications import notification_manager


def crystal(size=128, spacing=12, seed=0):
    """Heavy and light columns in turn, with noise."""
    y, x = np.mgrid[:size, :size]
    image = 0.02 * np.random.default_rng(seed).standard_normal((size, size))
    for row, top in enumerate(np.arange(spacing / 2, size, spacing)):
        for column, left in enumerate(np.arange(spacing / 2, size, spacing)):
            height = 1.0 if (row + column) % 2 else 0.5
            image += height * np.exp(-((y - top) ** 2 + (x - left) ** 2) / (2 * 2.0**2))
    return image.astype(np.float32)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Trainings are kept where the test ends, not in the user's cache."""
    monkeypatch.setattr("platformdirs.user_cache_path", lambda name: tmp_path / "cache")
    return tmp_path / "cache" / "trainings"


@pytest.fixture(scope="session")
def pixels():
    return crystal()


@pytest.fixture
def viewer():
    """A viewer without a window, where the window does not matter."""
    return ViewerModel()


@pytest.fixture
def image(viewer, pixels):
    return viewer.add_image(pixels, name="crystal", scale=(0.02, 0.02), units=("nm", "nm"))


@pytest.fixture
def told():
    """What napari's notifications said since the test began."""
    start = len(notification_manager.records)
    return lambda: [record.message for record in list(notification_manager.records)[start:]]


@pytest.fixture
def opened(qtbot):
    """Open docks, and close them as napari does when the user closes them."""
    docks = []

    def show(dock):
        qtbot.addWidget(dock)
        docks.append(dock)
        dock.show()
        return dock

    yield show
    for dock in docks:
        dock.closed()


@pytest.fixture
def press(qtbot):
    """Press a button and wait until the work is done."""

    def click(button, work):
        assert button.isEnabled()
        with qtbot.waitSignal(work.done, timeout=120_000):
            button.click()

    return click
