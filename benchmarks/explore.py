"""How fast the Explore dock answers: CPU time, median and 95th percentile, for 100 000 and 1 000 000 atoms.

    xvfb-run -a python benchmarks/explore.py [ATOMS ...]

The viewer has no canvas, so the drawing of the image by OpenGL (or by a software renderer) is not in the figures; the
drawing of the plot is.
"""

import sys
import time

import numpy as np
import pandas as pd
from napari.components import ViewerModel
from qtpy.QtWidgets import QApplication

from napari_rvae.latent import cell_outlines
from napari_rvae.layers import add_atoms, attach_model
from napari_rvae.widgets.atoms_link import AtomsLink
from napari_rvae.widgets.columns import color_scale
from napari_rvae.widgets.explore import ExploreWidget
from napari_rvae.widgets.explore_image import atom_at
from napari_rvae.widgets.plot_canvas import PyQtGraphCanvas
from napari_rvae.widgets.scatter import Scatter
from napari_rvae.widgets.selection import Selection

# What a hand does not feel as waiting, in ms, for 100 000 and 1 000 000 atoms.
GOALS = {
    "show": (500, 3000),
    "lasso to lit-up plot": (150, 500),
    "lasso to lit-up image": (250, 2000),
    "pan and zoom, per frame": (50, 50),
    "picture sharp again after pan and zoom": (None, None),
    "change of colour feature": (300, 2000),
    "decoded patch under the cursor": (20, 20),
    "atom under the cursor in the image": (None, None),
    "selection with its mean patch and histograms": (None, None),
    "outlines of cells, 4 Mpx, in a thread": (None, None),
}


def table(n):
    rng = np.random.default_rng(0)
    kind = rng.integers(0, 4, n)
    z = np.array([[0, 0], [3, 1], [1, 3], [-2, 2]])[kind] + rng.normal(0, 0.6, (n, 2))
    side = int(np.ceil(np.sqrt(n)))
    return pd.DataFrame(
        {
            "atom_id": np.arange(n),
            "y": 10.0 * (np.arange(n) // side),
            "x": 10.0 * (np.arange(n) % side),
            "z1": z[:, 0],
            "z2": z[:, 1],
            "angle": rng.uniform(0, np.pi / 2, n),
            "symmetry": 4,
            "class": kind,
        }
    )


def measured(action, repeats):
    """CPU time of an action in ms, once to warm up and then so many times."""
    times = []
    for repeat in range(repeats + 1):
        start = time.process_time()
        action(repeat)
        times.append(1000 * (time.process_time() - start))
    return np.percentile(times[1:], (50, 95))


def lasso(repeat):
    """Half of the atoms, and each time others."""
    angle = np.linspace(0, 2 * np.pi, 120)
    return np.column_stack([0.5 + 0.3 * repeat + 2.2 * np.cos(angle), 1.3 + 2.2 * np.sin(angle)])


def decoding(model_of_size):
    from napari_rvae.models import Model
    from napari_rvae.settings import TrainSettings

    return Model(TrainSettings(), size=model_of_size, channels=1, k_max=0.3).eval()


def run(n, repeats):
    viewer = ViewerModel()
    image = viewer.add_image(np.random.default_rng(0).normal(size=(512, 512)).astype(np.float32))
    layer = add_atoms(viewer, table(n), image)
    attach_model(layer, decoding(48))
    explore = ExploreWidget(viewer)
    explore.resize(400, 900)
    explore.show()
    QApplication.processEvents()
    canvas, view = explore.canvas, explore.canvas.view

    def drawn():
        canvas.widget.viewport().repaint()

    def show(repeat):
        explore.link.x, explore.link.y = ("z1", "z2") if repeat % 2 else ("z2", "z1")
        explore._refresh()
        drawn()

    yield "show", measured(show, repeats)

    plain, selection = PyQtGraphCanvas(), Selection(np.arange(n))
    scatter, features = Scatter(plain, selection), layer.features
    plain.widget.resize(400, 500)
    plain.widget.show()
    colors = color_scale(features, explore_coloring(layer))
    scatter.show(selection, features["z1"], features["z2"], ("z1", "z2"), colors, fit=True)
    QApplication.processEvents()

    def light_up_plot(repeat):
        plain.region_drawn.emit(lasso(repeat), "replace")
        plain.widget.viewport().repaint()

    yield "lasso to lit-up plot", measured(light_up_plot, repeats)

    link = AtomsLink(layer)
    selections = [np.random.default_rng(seed).random(n) < 0.5 for seed in range(repeats + 1)]
    yield "lasso to lit-up image", measured(lambda repeat: link.selection.combine(selections[repeat]), repeats)
    link.close()

    def zoom(repeat):
        shift = 0.02 * (repeat + 1)
        canvas.set_view(view.left + shift, view.right - shift, view.bottom + shift, view.top)
        drawn()

    yield "pan and zoom, per frame", measured(zoom, repeats)

    def rest(_):
        canvas.view_rested.emit()
        drawn()

    yield "picture sharp again after pan and zoom", measured(rest, repeats)

    def recolor(repeat):
        explore.color_by(("angle", "class")[repeat % 2])
        drawn()

    yield "change of colour feature", measured(recolor, repeats)

    QApplication.processEvents()  # what the change of colour has put off; before that, nothing is shown

    def hover(repeat):
        canvas.hovered.emit(0.01 * repeat, 0.5)

    yield "decoded patch under the cursor", measured(hover, 5 * repeats)

    def move(repeat):
        atom_at(layer, layer.data[repeat])

    yield "atom under the cursor in the image", measured(move, repeats)

    def select(repeat):
        explore.link.selection.combine(selections[repeat])
        drawn()

    yield "selection with its mean patch and histograms", measured(select, repeats)
    cells = np.random.default_rng(0).integers(0, n, (2048, 2048), dtype=np.int32)

    def outline(repeat):
        cell_outlines(cells, np.flatnonzero(selections[repeat]))

    yield "outlines of cells, 4 Mpx, in a thread", measured(outline, repeats)
    for widget in (explore, plain.widget):
        widget.close()


def explore_coloring(layer):
    from napari_rvae.layers import Coloring

    return Coloring.of(layer.features, "class")


if __name__ == "__main__":
    app = QApplication(sys.argv[:1])
    for n in map(int, sys.argv[1:] or ("100000", "1000000")):
        print(f"\n{n:,} atoms, CPU time in ms{'':23} p50     p95    goal")
        for name, (p50, p95) in run(n, repeats=8 if n <= 100_000 else 4):
            goal = GOALS[name][n > 100_000]
            print(f"{name:45} {p50:8.1f}{p95:8.1f}{goal or '':>8}")
