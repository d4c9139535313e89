"""Whether the window stays alive while it trains, and what watching costs.

    xvfb-run -a -s "-screen 0 1600x1000x24" python benchmarks/window.py [IMAGE] [TRAININGS]

Without an image it makes a simulated interface. Every figure is wall time with whatever else the machine does.
"""

import gc
import sys
import tempfile
import time
from pathlib import Path

import napari
import numpy as np
import psutil
from qtpy.QtCore import QEventLoop, Qt, QTimer

from napari_rvae.settings import FindSettings, TrainSettings

PLUGIN = "napari-rvae"
TICK = 16  # ms
GOALS = {
    "dock opens, first": 1.0, "dock opens, then": 0.2, "tick p95 (ms)": 30, "tick max after 1 s (ms)": 150,
    "cancel": 1.0, "stop and keep": 1.0, "cost of watching (%)": 5, "memory growth (MB)": 50,
}  # fmt: skip


def waited(*signals, action=lambda: None, seconds=None):
    """Seconds until one of the signals comes."""
    loop = QEventLoop()
    for signal in signals:
        signal.connect(loop.quit)
    if seconds is not None:
        QTimer.singleShot(int(1000 * seconds), loop.quit)
    start = time.perf_counter()
    action()
    loop.exec()
    return time.perf_counter() - start


class Ticks:
    """Gaps between the ticks of a timer: how long the window does not answer."""

    def __init__(self):
        self.times = []
        self.timer = QTimer()
        self.timer.setTimerType(Qt.TimerType.PreciseTimer)
        self.timer.timeout.connect(lambda: self.times.append(time.perf_counter()))
        self.timer.start(TICK)

    def gaps(self, start, end):
        times = np.array([t for t in self.times if start <= t <= end])
        return 1000 * np.diff(times)


def epochs(number, **more):
    return TrainSettings(epochs=number, early_stopping=False, threads=1, **more)


def told(name, value):
    goal = GOALS.get(name)
    verdict = "" if goal is None else f"   goal {goal}   {'met' if value <= goal else 'MISSED'}"
    print(f"{name:32}{value:10.2f}{verdict}", flush=True)


def source_of(path):
    from napari_rvae.io import ImageData, load_image
    from napari_rvae.samples import interface

    if path:
        return load_image(path)
    scene = interface()
    return ImageData(scene.image, "interface", (scene.pixel_size,) * 2, "nm", Path("none"), "")


def main(path=None, trainings=0):
    from napari_rvae.atoms import find_atoms
    from napari_rvae.layers import add_atoms, add_image

    source = source_of(path)
    atoms = find_atoms(source.data, FindSettings())
    viewer = napari.Viewer()
    image = add_image(viewer, source)
    add_atoms(viewer, atoms, image)
    waited(seconds=2)
    opened = []
    for _ in range(2):
        start = time.perf_counter()
        area, dock = viewer.window.add_plugin_dock_widget(PLUGIN, "Train rVAE")
        waited(seconds=0)
        opened.append(time.perf_counter() - start)
        if not opened[1:]:
            area.destroyOnClose()
            waited(seconds=0.5)
    dock.cache = Path(tempfile.mkdtemp())
    told("dock opens, first", opened[0])
    told("dock opens, then", opened[1])
    waited(seconds=8)  # PyTorch is loaded in a thread
    ticks = Ticks()
    start = time.perf_counter()
    waited(seconds=3)
    idle = ticks.gaps(start, time.perf_counter())
    told("idle tick p95 (ms)", np.percentile(idle, 95))

    dock.form.set_value(epochs(12))
    phases = []
    follow = dock._on_report
    dock._on_report = lambda run, report: (
        phases.append((time.perf_counter(), getattr(report, "phase", "encoding"))),
        follow(run, report),
    )
    start = time.perf_counter()
    waited(dock.work.done, action=dock.train)
    end = time.perf_counter()
    gaps = ticks.gaps(start, end)
    told("training (s)", end - start)
    told("tick p95 (ms)", np.percentile(gaps, 95))
    told("tick max after 1 s (ms)", ticks.gaps(start + 1, end).max())
    print("  largest gaps:", worst(ticks, start, end, phases))

    for name, button in (("cancel", dock.work.cancel_button), ("stop and keep", dock.work.keep_button)):
        dock.form.set_value(epochs(100_000))
        phases.clear()
        dock.train()
        while not any(phase == "training" for _, phase in phases):
            waited(seconds=0.1)
        waited(seconds=1)
        told(name, waited(dock.work.done, action=button.click))
    ticks.timer.stop()
    growth(viewer, dock, source, atoms, trainings)
    viewer.close()
    cost(source, atoms)


def worst(ticks, start, end, phases):
    """The five largest gaps, when they were and in which phase."""
    times = np.array([t for t in ticks.times if start <= t <= end])
    gaps = 1000 * np.diff(times)
    shown = []
    for k in np.argsort(gaps)[::-1][:5]:
        phase = [name for when, name in phases if when <= times[k]]
        shown.append(f"{gaps[k]:.0f} ms at {times[k] - start:.1f} s ({phase[-1] if phase else 'cutting'})")
    return ", ".join(shown)


def growth(viewer, dock, source, atoms, trainings):
    """Memory after many short trainings in one viewer, on a corner of the image."""
    from napari_rvae.layers import add_atoms

    if not trainings:
        return
    process, side = psutil.Process(), 200
    corner = viewer.add_image(np.array(source.data[:side, :side]), name="corner")
    inside = (atoms[["y", "x"]] < side - 1).all(axis=1)
    add_atoms(viewer, atoms[inside].reset_index(drop=True), corner)
    dock.form.set_value(epochs(1, hidden=16, start="scratch"))
    for number in range(trainings + 5):
        if number == 5:  # caches are filled
            gc.collect()
            before, threads = process.memory_info().rss, process.num_threads()
        waited(dock.work.done, action=dock.train)
    gc.collect()
    told("memory growth (MB)", (process.memory_info().rss - before) / 2**20)
    print(f"  of {trainings} trainings; threads more: {process.num_threads() - threads}")


def cost(source, atoms):
    """Share of the training time that looks and checkpoints take."""
    from napari_rvae.patches import extract_patches
    from napari_rvae.settings import PatchSettings
    from napari_rvae.training import checkpoints, course, looking, train

    spent = []

    def timed(function):
        def call(*arguments, **more):
            start = time.perf_counter()
            try:
                return function(*arguments, **more)
            finally:
                spent.append(time.perf_counter() - start)

        return call

    patches = extract_patches(source.data, atoms, PatchSettings())
    checkpoints.Checkpoint.keep = timed(checkpoints.Checkpoint.keep)
    looking.Looker.look = timed(looking.Looker.look)
    course.Course._remember = timed(course.Course._remember)
    settings = epochs(20, start="scratch")
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        for _ in train(patches, settings, checkpoint=checkpoints.Checkpoint(Path(folder), 5.0), look_every=3.0):
            pass
        told("cost of watching (%)", 100 * sum(spent) / (time.perf_counter() - start))


if __name__ == "__main__":
    given = sys.argv[1:]
    main(given[0] if given and not given[0].isdigit() else None, int(given[-1]) if given and given[-1].isdigit() else 0)
