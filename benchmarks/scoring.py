"""What the parts of the benchmark share: a user's way through the pipeline, figures of merit, rows of the report."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree
from sklearn.neighbors import NearestNeighbors

from napari_rvae import PatchSettings, TrainSettings, analyze_image, load_image

DATA = Path(__file__).parents[2] / "shared" / "data" / "sim"


@dataclass
class Row:
    """One line of the report; `passed` is None where there is no bar."""

    what: str
    bar: str
    measured: str
    spread: str = ""
    passed: bool | None = None

    def __str__(self):
        verdict = {True: "pass", False: "SHORT", None: ""}[self.passed]
        return f"  {self.what:44} {self.bar:>14}   {self.measured:28} {self.spread:24} {verdict}"


def analyzed(image, atoms=None, patch=None, **training):
    """Image to latent table as `napari-rvae run` does it; positions in `atoms` (n, 2) instead of finding them."""
    table = None
    if atoms is not None:
        table = pd.DataFrame({"atom_id": np.arange(len(atoms)), "y": atoms[:, 0], "x": atoms[:, 1]})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "image.npy"
        np.save(path, image)
        settings = TrainSettings(**training), PatchSettings(size=patch)
        return analyze_image(load_image(path), training=settings[0], patch=settings[1], atoms=table)


def simulated(name):
    """Image, truth (arrays by name) and metadata of a stored scene; None where the scenes are not there."""
    path = DATA / f"{name}.npz"
    if not path.exists():
        return None
    with np.load(path) as scene:
        return {key: scene[key] for key in scene.files if key != "meta"} | {"meta": json.loads(str(scene["meta"]))}


def spacing(positions):
    return float(np.median(cKDTree(positions).query(positions, 2)[0][:, 1]))


def matched(table, true):
    """Rows of the table with latents, and of the truth, that belong together: one to one, within .3 spacings."""
    rows = np.flatnonzero(table["z1"].notna())
    distance, nearest = cKDTree(true).query(table[["y", "x"]].to_numpy()[rows])
    order = np.argsort(distance, kind="stable")
    order = order[distance[order] < 0.3 * spacing(true)]
    _, first = np.unique(nearest[order], return_index=True)
    return rows[order[first]], nearest[order[first]]


def latents(table):
    """z of each row, each latent in units of its spread."""
    z = table[[c for c in table if c[0] == "z" and c[1:].isdigit()]].to_numpy()
    return (z - z.mean(0)) / z.std(0).clip(1e-9)


def neighbor_vote(z, kind, neighbors=5):
    """Kind of each atom as most of its nearest neighbours in z have it, itself left out; a tie goes to the nearest."""
    others = kind[NearestNeighbors(n_neighbors=neighbors + 1).fit(z).kneighbors(z)[1][:, 1:]]
    votes = (others[:, :, None] == np.arange(kind.max() + 1)).sum(1)
    tied = votes == votes.max(1, keepdims=True)
    first = np.argmax(tied[np.arange(len(z))[:, None], others], 1)
    return others[np.arange(len(z)), first]


def balanced(hits, counts, draws=20_000):
    """Mean over classes of the share that is right, and its 95 % interval (Jeffreys' prior)."""
    hits, counts = np.asarray(hits, float), np.asarray(counts, float)
    rng = np.random.default_rng(0)
    shares = rng.beta(hits + 0.5, counts - hits + 0.5, (draws, len(hits))).mean(1)
    return float((hits / counts).mean()), np.percentile(shares, (2.5, 97.5))


def spread(values, digits=3):
    """Smallest and largest of the seeds."""
    return f"{min(values):.{digits}f} to {max(values):.{digits}f}" if len(values) > 1 else ""


def pure_angle(angle, fold):
    """Angle modulo a symmetry, between -pi / fold and pi / fold."""
    period = 2 * np.pi / fold
    return (angle + period / 2) % period - period / 2


def covered(error, claimed):
    """Share of errors within the claimed 68 and 95 % intervals."""
    return float(np.mean(abs(error) < claimed)), float(np.mean(abs(error) < 1.96 * claimed))


def calibration_row(what, shares):
    """Row of the shares that are covered, one pair for every seed."""
    mean, least, most = (reduce(shares, 0) for reduce in (np.mean, np.min, np.max))
    passed = bool(0.58 <= mean[0] <= 0.78 and 0.9 <= mean[1] <= 0.99)
    text = f"{least[0]:.1%} to {most[0]:.1%}, {least[1]:.1%} to {most[1]:.1%}" if len(shares) > 1 else ""
    return Row(what, "58-78, 90-99 %", f"{mean[0]:.1%}, {mean[1]:.1%}", text, passed)
