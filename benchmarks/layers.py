"""How fast 100 000 points and cells are shown and recoloured.

    python benchmarks/layers.py [--count ATOMS] [--window]

Without a window the drawing is not in the figures. Cells get their colours in a thread first, then in the window.
"""

from __future__ import annotations

import argparse
import time

import napari
import numpy as np
import pandas as pd
from napari.components import ViewerModel

from napari_rvae.latent import cell_labels
from napari_rvae.layers import Coloring, add_atoms, add_cells, cell_colormap, color_points, join_results

COLUMNS = ("z1", "angle", "class")


def atoms_and_results(count: int, spacing: float) -> tuple[pd.DataFrame, pd.DataFrame, tuple[int, int]]:
    side = int(np.ceil(np.sqrt(count)))
    row, column = np.divmod(np.arange(count), side)
    atoms = pd.DataFrame({"atom_id": np.arange(count), "y": spacing * (row + 0.5), "x": spacing * (column + 0.5)})
    atoms.attrs["napari_rvae"] = {"spacing": spacing}
    rng = np.random.default_rng(0)
    results = pd.DataFrame(
        {
            "atom_id": atoms["atom_id"],
            "z1": rng.normal(size=count),
            "angle": rng.uniform(0, 2 * np.pi, count),
            "class": rng.integers(0, 5, count),
        }
    )
    return atoms, results, (round(side * spacing),) * 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--spacing", type=float, default=6.5)
    parser.add_argument("--window", action="store_true", help="with a canvas; needs a display")
    arguments = parser.parse_args()
    atoms, results, shape = atoms_and_results(arguments.count, arguments.spacing)
    viewer = napari.Viewer() if arguments.window else ViewerModel()
    image = viewer.add_image(np.zeros(shape, np.uint8), name="image")

    def report(what: str, start: float, cpu: float) -> None:
        print(f"{what:34} {time.perf_counter() - start:6.2f} s, processor {time.process_time() - cpu:6.2f} s")

    def timed(what: str, function, *values):
        start, cpu = time.perf_counter(), time.process_time()
        result = function(*values)
        report(what, start, cpu)
        return result

    points = timed("show atoms", add_atoms, viewer, atoms, image)
    timed("join results", join_results, points, results)
    cells = add_cells(viewer, timed("label cells", cell_labels, atoms, shape), points, image)
    for column in COLUMNS * 2:  # the second round without compilation
        timed(f"colour points by {column}", color_points, points, column)
        coloring = Coloring.of(points.features, column)

        def prepare(coloring=coloring):
            colormap = cell_colormap(points.features, coloring)
            colormap.map(np.zeros((1, 1), np.int32))
            return colormap

        start, cpu = time.perf_counter(), time.process_time()
        colormap = timed("  cells: in the thread", prepare)
        timed("  cells: in the window", setattr, cells, "colormap", colormap)
        report(f"colour cells by {column}, both", start, cpu)
    if arguments.window:
        viewer.close()


if __name__ == "__main__":
    main()
