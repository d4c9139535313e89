"""Whether the window stays alive while it trains, what watching costs, and how fast a preview follows its sliders.

    xvfb-run -a -s "-screen 0 1600x1000x24" python benchmarks/window.py [IMAGE] [--trainings N] [--out FILE]
    xvfb-run -a -s "-screen 0 1600x1000x24" python benchmarks/window.py --preview [IMAGE] [--out FILE]

Without an image it makes a simulated interface, for the preview one of 1024 px. With 100 trainings or more the figures
are written into ``docs/benchmarks.md``, or where ``--out`` says.
"""

import argparse
import gc
import tempfile
import time
from pathlib import Path

import napari
import numpy as np
import psutil
from qtpy.QtCore import QEventLoop, Qt, QTimer
from rvae import PARTS, ROOT, section, write
from scoring import Row

from napari_rvae.settings import FindSettings, TrainSettings

PLUGIN = "napari-rvae"
DOCKS = ("Train rVAE", "Find atoms", "Explore latent space")
TICK = 16  # ms
STARTED = 1.0  # s of a training that may be less smooth
COMMAND = 'xvfb-run -a -s "-screen 0 1600x1000x24" python benchmarks/window.py --trainings {}'
WORDS = """Training in the window, on a simulated interface of two oxides with {atoms} atoms, one thread of the
processor, drawn by a software renderer on the same cores. Ticks are those of a timer of 16 ms; in brackets the time of
the processor that the window's own thread used in between, which other work hardly changes. *At rest*: the same window
before it trains. The longest ticks are those in which results appear. The first dock that needs PyTorch has it loaded
in a thread; a dock opened in that second takes longer than those below. Cost: time that the training spends on looks,
on states for a crash and on the last good model, and the window on showing the looks, as a share of the training."""

PREVIEW_WORDS = """The live preview of *Find atoms*, on a simulated interface of {shape} pixels, drawn by a software
renderer on the same cores: from a change of a slider until the rings are placed, and in brackets the time of the
processor that this took, which other work hardly changes. Median of {times} changes and the longest."""
TIMES = 12  # that each slider is moved


def waited(*signals, action=lambda: None, seconds=None):
    """Seconds until one of the signals comes."""
    loop = QEventLoop()
    for signal in signals:
        signal.connect(loop.quit)
    if seconds is not None:
        QTimer.singleShot(int(1000 * seconds), loop.quit)
    start = time.perf_counter()
    QTimer.singleShot(0, action)  # within the loop, for it may be over at once
    loop.exec()
    for signal in signals:
        signal.disconnect(loop.quit)
    return time.perf_counter() - start


def until(true):
    while not true():
        waited(seconds=0.02)


class Ticks:
    """Gaps between the ticks of a timer: how long the window does not answer, and how long it is at work itself."""

    def __init__(self):
        self.times = []
        self.timer = QTimer()
        self.timer.setTimerType(Qt.TimerType.PreciseTimer)
        self.timer.timeout.connect(lambda: self.times.append((time.perf_counter(), time.thread_time())))
        self.timer.start(TICK)

    def gaps(self, start, end):
        """When each begins, and (n, 2) milliseconds of time and of the processor."""
        times = np.array([t for t in self.times if start <= t[0] <= end])
        return times[:-1, 0], 1000 * np.diff(times, axis=0)


def epochs(number, **more):
    return TrainSettings(epochs=number, early_stopping=False, threads=1, **more)


def row(what, value, bar=None, unit="", digits=2, spread=""):
    verdict = None if bar is None else bool(value <= bar)
    return Row(what, "" if bar is None else f"<= {bar:g}{unit}", f"{value:.{digits}f}{unit}", spread, verdict)


def source_of(path, side=512):
    from napari_rvae.io import ImageData, load_image
    from napari_rvae.samples import Microscope, interface

    if path:
        return load_image(path)
    scene = interface(Microscope(size=side))
    return ImageData(scene.image, "interface", (scene.pixel_size,) * 2, "nm", Path("none"), "")


class Window:
    """A viewer with an image, its atoms, and the dock."""

    def __init__(self, source):
        from napari_rvae.atoms import find_atoms
        from napari_rvae.layers import add_atoms, add_image

        self.source, self.atoms = source, find_atoms(source.data, FindSettings())
        self.viewer = napari.Viewer()
        self.image, *_ = add_image(self.viewer, source)
        self.points = add_atoms(self.viewer, self.atoms, self.image)
        self.phases, self.shown = [], 0.0
        waited(seconds=2)

    def opening(self):
        """How long each dock takes to open, for the first time and again."""
        for name in DOCKS:
            times = []
            for _ in range(2):
                start, used = time.perf_counter(), time.thread_time()
                area, dock = self.viewer.window.add_plugin_dock_widget(PLUGIN, name)
                waited(seconds=0)
                times.append((time.perf_counter() - start, time.thread_time() - used))
                if name != DOCKS[0] or len(times) == 1:
                    area.destroyOnClose()
                    waited(seconds=0.5)
                else:
                    self.dock = dock
                    until(lambda dock=dock: dock.device.devices)
            for (took, used), when, bar in zip(times, ("first", "again"), (1.0, 0.2), strict=True):
                yield row(f"{name} opens, {when}", took, bar, " s", spread=f"({used:.2f} s)")
        self.dock.cache = Path(tempfile.mkdtemp())
        follow, show = self.dock._on_report, self.dock.live.show_look
        self.dock._on_report = lambda run, report: (self._note(report), follow(run, report))
        self.dock.live.show_look = lambda *look: self._timed(show, *look)

    def _note(self, report):
        self.phases.append((time.perf_counter(), getattr(report, "phase", "encoding")))

    def _timed(self, show, *look):
        start = time.thread_time()
        show(*look)
        self.shown += time.thread_time() - start

    def smoothness(self):
        """Ticks at rest and while it trains."""
        ticks, start = Ticks(), time.perf_counter()
        waited(seconds=3)
        _, rest = ticks.gaps(start, time.perf_counter())
        self.dock.form.set_value(epochs(12))
        start = time.perf_counter()
        waited(self.dock.work.done, action=self.dock.train)
        waited(seconds=0.5)  # until the results are drawn
        end = time.perf_counter()
        ticks.timer.stop()
        when, gaps = ticks.gaps(start + STARTED, end)
        print("  largest gaps:", self._largest(when, gaps, start))
        yield row("training and encoding", end - start, None, " s", 1)
        rest95, all95 = np.percentile(rest, 95, axis=0), np.percentile(gaps, 95, axis=0)
        yield row("ticks, 95 %", all95[0], 30, " ms", 1, f"({all95[1]:.0f} ms), at rest {rest95[0]:.1f} ms")
        worst = gaps[gaps[:, 0].argmax()]
        text = f"({worst[1]:.0f} ms), at rest {rest[:, 0].max():.0f} ms"
        yield row("longest tick after the first second", worst[0], 150, " ms", 0, text)
        yield row("longest work of the window itself", gaps[:, 1].max(), None, " ms", 0)

    def _largest(self, when, gaps, start):
        text = []
        for k in np.argsort(gaps[:, 0])[::-1][:6]:
            phase = ["starting", *(name for moment, name in self.phases if moment <= when[k])]
            text.append(f"{gaps[k, 0]:.0f} ({gaps[k, 1]:.0f}) ms at {when[k] - start:.1f} s, {phase[-1]}")
        return "; ".join(text)

    def ending(self):
        """From click to idle, in every phase; and when the results of a stopped training are there."""
        dock, took, results = self.dock, {"cancel": {}, "keep": {}}, []
        for ending, phase, after in (
            ("cancel", "averages", 0.5), ("cancel", "averages", 3.0), ("cancel", "training", 0.1),
            ("cancel", "training", 1.5), ("cancel", "finishing", 0.1), ("cancel", "encoding", 0.7),
            ("keep", "training", 0.1), ("keep", "training", 1.0), ("keep", "training", 3.3), ("keep", "encoding", 0.5),
        ):  # fmt: skip
            dock.form.set_value(epochs(2 if phase in ("finishing", "encoding") else 100_000))
            self.phases.clear()
            dock.train()
            until(lambda phase=phase: any(name == phase for _, name in self.phases))
            waited(seconds=after)
            button = dock.work.cancel_button if ending == "cancel" else dock.work.keep_button
            seconds = waited(dock.work.done, action=button.click)
            took[ending].setdefault(phase, []).append(seconds)
            if ending == "keep":
                results.append(seconds + waited(dock.settling.done))
        for ending, name in (("cancel", "Cancel"), ("keep", "Stop and keep")):
            text = ", ".join(f"{phase} {max(seconds):.2f}" for phase, seconds in took[ending].items())
            yield row(f"{name}, from click to idle", max(map(max, took[ending].values())), 1.0, " s", spread=text)
        yield row("results on all atoms after Stop and keep", max(results), None, " s", 1)

    def cost(self):
        """Share of the training time that looks and checkpoints take."""
        from napari_rvae.training import checkpoints, course, looking

        spent, kept = [], []

        def timed(function):
            def call(*arguments, **more):
                start = time.perf_counter()
                try:
                    return function(*arguments, **more)
                finally:
                    spent.append(time.perf_counter() - start)

            return call

        kept = [(checkpoints.Checkpoint, "keep"), (looking.Looker, "look"), (course.Course, "_remember")]
        kept = [(where, name, getattr(where, name)) for where, name in kept]
        for where, name, function in kept:
            setattr(where, name, timed(function))
        self.dock.form.set_value(epochs(150))
        self.shown = 0.0
        self.phases.clear()
        waited(self.dock.work.done, action=self.dock.train)
        for where, name, function in kept:
            setattr(where, name, function)
        during = [moment for moment, name in self.phases if name == "training"]
        whole = max(during) - min(during)
        text = f"{100 * sum(spent) / whole:.1f} % in the training, {100 * self.shown / whole:.1f} % in the window"
        yield row("cost of looks and states", 100 * (sum(spent) + self.shown) / whole, 5, " %", 1, text)

    def growth(self, trainings):
        """Memory, and what is left, after many short trainings on a corner of the image."""
        from superqt.utils._qthreading import WorkerBase

        from napari_rvae.layers import add_atoms

        if not trainings:
            return
        process, side, dock = psutil.Process(), 160, self.dock
        placed = {"scale": self.image.scale, "units": self.image.units}
        corner = self.viewer.add_image(np.array(self.source.data[:side, :side]), name="corner", **placed)
        inside = (self.atoms[["y", "x"]] < side - 1).all(axis=1)
        points = add_atoms(self.viewer, self.atoms[inside].reset_index(drop=True), corner)
        dock.form.set_value(epochs(1, hidden=16, start="scratch"))

        def left():
            gc.collect()
            emitters = [
                getattr(one, name) for one in (self.viewer.layers.events, points.events) for name in one.emitters
            ]
            timers = [timer for timer in dock.findChildren(QTimer) if timer.isActive()]
            handlers = sum(len(emitter.callbacks) for emitter in emitters)
            return np.array([process.num_threads(), len(WorkerBase._worker_set), len(timers), handlers])

        for number in range(trainings + 5):
            if number == 5:  # caches are filled
                waited(seconds=2)
                before, memory = left(), process.memory_info().rss
            waited(dock.work.done, action=dock.train)
        waited(seconds=2)
        after = left()
        grown = (process.memory_info().rss - memory) / 2**20
        yield row(f"memory after {trainings} trainings", grown, 50, " MB", 0)
        text = "more threads, workers, timers, handlers: " + ", ".join(str(n) for n in after - before)
        yield row("left over", float((after - before).clip(0).sum()), 0, "", 0, text)


def previews(source):
    """How fast the preview follows each slider, in the whole image and in regions of it."""
    from napari_rvae.layers import add_image

    viewer = napari.Viewer()
    image, *_ = add_image(viewer, source)
    _, dock = viewer.window.add_plugin_dock_widget(PLUGIN, DOCKS[1])
    height, width = source.data.shape
    inner = np.zeros((height // 2, width // 2), np.uint8)
    inner[height // 10 : -height // 10, width // 10 : -width // 10] = 1
    corners = np.array([[0.1, 0.2], [0.1, 0.8], [0.9, 0.9], [0.7, 0.1]]) * (height, width)
    placed = {"scale": image.scale, "units": image.units}
    coarse = {"scale": 2 * image.scale, "translate": image.scale / 2, "units": image.units}
    regions = {
        "whole image": None,
        "in shapes": viewer.add_shapes([corners, corners[::-1] / 2], shape_type=["polygon", "polygon"], **placed),
        "in labels of half the resolution": viewer.add_labels(inner, **coarse),
    }
    for where, region in regions.items():
        dock.preview_box.setChecked(False)
        dock.region_box.setCurrentIndex(dock.region_box.findText("the whole image" if region is None else region.name))
        waited(dock.preview.shown, action=lambda: dock.preview_box.setChecked(True))
        for name, of_all, bar in (("threshold", time.thread_time, 100), ("sigma", time.process_time, None),
                                  ("spacing", time.process_time, None)):  # fmt: skip
            control, took = dock.form.controls[name], []
            start = control.slider.value()
            for k in range(TIMES):
                moved = start + 15 * (-1) ** k * (1 + k // 2)
                before, used = time.perf_counter(), of_all()
                if bar is not None:  # at once
                    control.slider.setValue(moved)
                else:
                    waited(dock.preview.shown, action=lambda moved=moved, one=control: one.slider.setValue(moved))
                took.append(1000 * np.array([time.perf_counter() - before, of_all() - used]))
                waited(seconds=0.02)
            (middle, work), (longest, most) = np.median(took, axis=0), np.max(took, axis=0)
            yield row(f"{name}, {where}", middle, bar, " ms", 0, f"({work:.0f} ms), {longest:.0f} ms ({most:.0f} ms)")
            waited(dock.preview.shown, action=control.auto_button.click)
    viewer.close()


def told(rows):
    """All rows, each printed when it is known."""
    known = []
    for one in rows:
        known.append(one)
        print(one, flush=True)
    return known


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image", nargs="?")
    parser.add_argument("--trainings", type=int, default=0, help="how many in one viewer, for its memory")
    parser.add_argument("--out", type=Path, help="Markdown page (default: docs/benchmarks.md)")
    parser.add_argument("--preview", action="store_true", help="only the preview of Find atoms")
    options = parser.parse_args()
    out = options.out or (ROOT / "docs" / "benchmarks.md" if options.trainings >= 100 else None)
    start = time.perf_counter()
    if options.preview:
        source = source_of(options.image, 1024)
        rows = told(previews(source))
        if out is not None:
            words = " ".join(PREVIEW_WORDS.format(shape=" x ".join(map(str, source.data.shape)), times=TIMES).split())
            command = COMMAND.removesuffix(" --trainings {}") + " --preview"
            write(out, "preview", section("preview", words, command, rows, time.perf_counter() - start), list(PARTS))
        return
    window = Window(source_of(options.image))
    parts = (window.opening, window.smoothness, window.ending, window.cost, lambda: window.growth(options.trainings))
    rows = told(one for part in parts for one in part())
    if out is not None:
        words = " ".join(WORDS.format(atoms=len(window.atoms)).split())
        text = section("window", words, COMMAND.format(options.trainings), rows, time.perf_counter() - start)
        write(out, "window", text, list(PARTS))
    window.viewer.close()


if __name__ == "__main__":
    main()
