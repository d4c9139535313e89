"""The demonstration: napari on a sample or on one's own image, the pipeline run, the docks open."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import QEventLoop, QObject, Qt, QThreadPool, QTimer, Signal

from napari_rvae.errors import RVAEError

if TYPE_CHECKING:
    from napari.viewer import Viewer

_SIZE = 1600, 1000
_PLUGIN = "napari-rvae"
_ARRANGED, _DRAWN = 100, 500  # ms in which docks find their places, and the window is drawn completely


class Demo(QObject):
    """Presses the buttons of the docks, one after the other.

    Parameters
    ----------
    viewer : Viewer
        With an image.
    """

    finished = Signal(str)  # empty, or what went wrong

    def __init__(self, viewer: Viewer) -> None:
        super().__init__()
        self.viewer = viewer
        window = viewer.window
        window.resize(*_SIZE)
        explore_dock, self.explore = window.add_plugin_dock_widget(_PLUGIN, "Explore latent space")
        self._find_dock, self.find = window.add_plugin_dock_widget(_PLUGIN, "Find atoms")
        self._train_dock, self.train = window.add_plugin_dock_widget(_PLUGIN, "Train rVAE")
        main = self._find_dock.window()
        main.splitDockWidget(explore_dock, self._find_dock, Qt.Orientation.Horizontal)
        main.tabifyDockWidget(self._find_dock, self._train_dock)
        main.resizeDocks([explore_dock, self._find_dock], [420, 330], Qt.Orientation.Horizontal)
        self._find_dock.raise_()
        for dock in (self.explore, self.find, self.train):
            dock.placed = True
        self._failure = ""
        for dock, next_step in ((self.find, self._on_found), (self.train, self._on_trained)):
            dock.work.failed.connect(self._on_failed)
            dock.work.done.connect(next_step)

    def start(self) -> None:
        """Find atoms, once the docks have found their places; the rest follows."""
        QTimer.singleShot(_ARRANGED, self._start)

    def _start(self) -> None:
        self._find_dock.raise_()
        self.viewer.reset_view()
        self.find.find_atoms()

    def _on_failed(self, message: str) -> None:
        self._failure = message

    def _on_found(self) -> None:
        self.find.work.done.disconnect(self._on_found)
        if self._failure:
            self.finished.emit(self._failure)
            return
        self._train_dock.raise_()
        self.train.train()

    def _on_trained(self) -> None:
        self.train.work.done.disconnect(self._on_trained)
        self.finished.emit(self._failure)

    def save(self, folder: Path) -> None:
        """Save table, model and recipe, then a picture of the window.

        Parameters
        ----------
        folder : Path
            Where to; what is there is replaced.
        """
        loop = QEventLoop()
        self.train.work.done.connect(loop.quit)
        self.train.files.save_results(folder, force=True)
        loop.exec()
        QTimer.singleShot(_DRAWN, loop.quit)
        loop.exec()
        self.viewer.screenshot(str(folder / "window.png"), canvas_only=False, flash=False)


def run_demo(
    image: str | os.PathLike[str] | None = None,
    *,
    screenshot: bool = False,
    output: str | os.PathLike[str] = "demo-output",
) -> list[Path]:
    """Open napari, find atoms, train, and show the results in all docks.

    Parameters
    ----------
    image : str or path-like, optional
        Your own image or stack; by default a simulated interface of two oxides.
    screenshot : bool
        Do not stay open: save a picture of the window and the results, and close. So it is done where there is no
        display, too.
    output : str or path-like
        Folder for picture and results.

    Returns
    -------
    list of Path
        What was saved.

    Raises
    ------
    RVAEError
        If the image cannot be read or analysed, or there is no display, not even a virtual one.
    """
    if not _has_display():
        _continue_on_virtual_display(image, output)
    import napari

    from napari_rvae.io import load_image
    from napari_rvae.layers import add_image

    loaded = None if image is None else load_image(image)
    viewer = napari.Viewer(title="napari-rvae")
    try:
        if loaded is None:
            viewer.open_sample(_PLUGIN, "oxide_interface")
        else:
            add_image(viewer, loaded)
        demo = Demo(viewer)
        if not screenshot:
            demo.start()
            napari.run()
            return []
        said: list[str] = []
        loop = QEventLoop()
        demo.finished.connect(said.append)
        demo.finished.connect(loop.quit)
        demo.start()
        loop.exec()
        if said[0]:
            raise RVAEError(said[0])
        folder = Path(output)
        demo.save(folder)
        return sorted(folder.iterdir())
    finally:
        if screenshot:
            QThreadPool.globalInstance().waitForDone()
            viewer.close()


def _has_display() -> bool:
    return sys.platform != "linux" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _continue_on_virtual_display(image: str | os.PathLike[str] | None, output: str | os.PathLike[str]) -> None:
    """Become a process that runs the same under Xvfb; does not return."""
    if shutil.which("xvfb-run") is None:
        raise RVAEError("There is no display: run this on a desktop, or install Xvfb (Debian: apt install xvfb xauth).")
    program = "import sys; from napari_rvae.cli import main; sys.exit(main())"
    own = [sys.executable, "-c", program, "demo", "--screenshot", "--output", str(output)]
    screen = f"-screen 0 {_SIZE[0]}x{_SIZE[1]}x24"
    os.execvp("xvfb-run", ["xvfb-run", "-a", "-s", screen, *own, *([] if image is None else [str(image)])])
