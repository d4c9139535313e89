"""Figures of finding atoms against known truth, in one run, beside the peers that are installed.

    python benchmarks/atoms.py            scenes, Cramer-Rao bound, false atoms, speed up to 2048 px
    python benchmarks/atoms.py --large    also 4096 and 8192 px, with the peak memory

Scenes and real images are read from ``../shared/data`` beside the repository and left out where that is absent. The
peers are told the true spacing, ours nothing; atomap and HyperSpy run in ``.venv-bench``.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import tifffile
from scenes import molecules
from scipy.ndimage import gaussian_filter, gaussian_filter1d, maximum_filter
from scipy.spatial import cKDTree

from napari_rvae.atoms import find_atoms, prepare
from napari_rvae.atoms.refine import fit_atoms
from napari_rvae.io import load_image
from napari_rvae.samples.varied import varied_scene
from napari_rvae.settings import FinderSettings, FindSettings
from napari_rvae.training.finder import Example, train_finder

DATA = Path(__file__).parents[2] / "shared" / "data"
PEERS = Path(__file__).parents[1] / ".venv-bench" / "bin" / "python"
LATTICES = ("interface", "graphene", "mos2", "ferro180", "poly")
SIGMA = 2.3


def matches(found, true, tolerance):
    """Index pairs (found, true), one to one, nearest first."""
    if not len(found):
        return np.zeros((0, 2), int)
    distance, nearest = cKDTree(true).query(found)
    seen, pairs = set(), []
    for i in np.argsort(distance, kind="stable"):
        if distance[i] <= tolerance and nearest[i] not in seen:
            seen.add(nearest[i])
            pairs.append((i, nearest[i]))
    return np.array(pairs, int).reshape(-1, 2)


def f1(found, true, tolerance, shape, margin=4):
    def inner(positions):
        return np.all((positions > margin) & (positions < np.array(shape) - 1 - margin), axis=1).sum()

    hits = inner(true[matches(found, true, tolerance)[:, 1]])
    return min(1.0, 2 * hits / (inner(found) + inner(true)))  # a pair may lie on both sides of the margin


def positions(image):
    return find_atoms(image)[["y", "x"]].to_numpy()


def peers_positions(image, spacing):
    """What the peers find, by name, told the true spacing; those that are not installed are left out."""
    from skimage.feature import blob_log

    high = (image - np.median(image)) / np.ptp(np.percentile(image, [1, 99]))
    found = {"blob_log": blob_log(high, 0.14 * spacing, 0.28 * spacing, 4, threshold=0.05)[:, :2]}
    try:
        import trackpy

        trackpy.quiet()
        diameter = 2 * int(spacing / 2) - 1
        located = trackpy.locate(image, diameter, separation=0.7 * spacing, preprocess=True)
        found["trackpy"] = located[["y", "x"]].to_numpy()
    except ImportError:
        pass
    found |= _by_peers(image, spacing)
    return {who: places[np.isfinite(places).all(1)] for who, places in found.items()}


def _by_peers(image, spacing, places=None):
    """What `atom_peers.py` answers; nothing where the peers are not installed."""
    if not PEERS.exists():
        return {}
    with tempfile.TemporaryDirectory() as folder:
        given, taken, fitted = (Path(folder) / name for name in ("image.npy", "found.npz", "places.npy"))
        np.save(given, image)
        command = [PEERS, Path(__file__).with_name("atom_peers.py"), given, str(spacing), taken]
        if places is not None:
            np.save(fitted, places)
            command.append(fitted)
        done = subprocess.run(command, capture_output=True, text=True)
        return dict(np.load(taken)) if done.returncode == 0 else {}


def scenes(names):
    for path in sorted((DATA / "sim").glob("*.npz")):
        with np.load(path) as scene:
            if path.stem.startswith(names) and scene["image"].ndim == 2:
                yield path.stem, scene["image"], scene["coords"], json.loads(str(scene["meta"])).get("nn_px")


def score_scenes():
    scores = {}
    for name, image, true, spacing in scenes(LATTICES):
        for who, found in {"ours": positions(image), **peers_positions(image, spacing)}.items():
            scores.setdefault(who, []).append(f1(found, true, spacing / 4, image.shape))
        print(f"  {name:16s} " + "  ".join(f"{who} {values[-1]:.3f}" for who, values in scores.items()))
        sys.stdout.flush()
    for who, values in scores.items():
        print(f"  {who:16s} mean {np.mean(values):.3f}, worst {min(values):.3f}")
    for name, image, true, spacing in scenes(("molecules",)):
        print(f"  {name:24s} F1 {f1(positions(image), true, spacing / 4, image.shape):.3f}")


def labelled():
    """Name, image and positions of single atoms labelled by hand."""
    for path in sorted((DATA / "real" / "single_atoms_labelled").glob("*.tif")):
        bpy = path.stem.startswith("bpy")
        labels = pd.read_csv(path.with_suffix(".csv") if bpy else path.with_name(f"{path.stem[:3]}_Results.csv"))
        yield path.stem[:10], tifffile.imread(path), labels[["Y", "X"]].to_numpy(float)


def best(places, heights, true):
    """F1 within 6 px of as many places as there are labels, the highest."""
    chosen = places[np.argsort(-heights, kind="stable")[: len(true)]]
    return 2 * len(matches(chosen, true, 6)) / (len(chosen) + len(true))


def score_labelled():
    """The automatic search, and what plain differences of Gaussians reach whose settings the labels choose."""
    scores, plain = [], {}
    for name, image, true in labelled():
        both = [find_atoms(image, FindSettings(threshold=threshold)) for threshold in (None, 5)]
        scores.append([best(found[["y", "x"]].to_numpy(), found["snr"].to_numpy(), true) for found in both])
        few, many = scores[-1]
        print(f"  {name:12s} top-{len(true)} F1 {few:.3f}, {many:.3f} of all that stand 5 deviations high")
        counts = image.astype(float)
        for width, ratio, apart in product((1.8, 2.0, 2.2, 2.5, 2.8, 3.2), (1.4, 2, 3, 5), (4, 6)):
            response = gaussian_filter(counts, width) - gaussian_filter(counts, ratio * width)
            response /= np.sqrt(np.maximum(gaussian_filter(counts, 4 * width), 1))
            places = np.argwhere(maximum_filter(response, 2 * apart + 1) == response)
            plain.setdefault((width, ratio, apart), []).append(best(places, response[tuple(places.T)], true))
    if scores:
        means = [float(np.mean(values)) for values in plain.values()]
        few, many = np.mean(scores, 0)
        print(f"  mean {few:.3f}, {many:.3f}; the best of {len(means)} differences of Gaussians {max(means):.3f}")


def score_learned_labelled():
    """A finder learned from the other images of single atoms of a kind: on thin carbon, on steps of thickness."""
    kinds = {}
    for name, image, true in labelled():
        kinds.setdefault(name.startswith("bpy"), []).append((name, image, true))
    for images in kinds.values():
        for name, image, true in images:
            known = [Example(*other) for title, *other in images if title != name]
            *_, last = train_finder(known, FinderSettings())
            found = prepare(image, FindSettings(search="learned", threshold=3), last.finder)
            score = best(found.maxima, found.heights, true)
            print(f"  {name:12s} learned from {sum(len(one.positions) for one in known)} atoms: F1 {score:.3f}")
            sys.stdout.flush()


def score_lead_titanate():
    """Published positions are whole pixels: how they scatter about their neighbours is their own error."""
    folder = DATA / "real" / "pto_sro"
    if not folder.exists():
        return
    true = np.load(folder / "atom_positions1.npy")[:, ::-1]
    found = positions(np.asarray(load_image(folder / "Cropped_PTO-SRO_Aligned.hspy").data))
    pairs = matches(found, true, 4)
    mine, theirs = found[pairs[:, 0]], true[pairs[:, 1]]
    error = mine - theirs
    print(f"  {len(pairs)} of {len(true)}, mean {error.mean(0).round(2)}, rms {np.sqrt((error**2).mean(0)).round(2)}")
    distance, nearest = cKDTree(theirs).query(theirs, k=5)
    inner = distance[:, 4] < 1.25 * np.median(distance[:, 1])
    for who, places in (("theirs", theirs), ("ours", mine)):
        rough = (places - places[nearest[:, 1:]].mean(1))[inner]
        print(f"  {who}: {np.sqrt((rough**2).mean(0)).round(2)} px off the middle of the four neighbours, rms (y, x)")


def score_graphene(search=positions):
    path = DATA / "real" / "graphene_si" / "G-GrainBoundary-6nm.npy"
    if not path.exists():
        return
    found, labels = search(np.load(path)), pd.read_csv(Path(__file__).with_name("graphene_labels.csv"))
    for number, (top, left) in enumerate(((280, 96), (150, 240)), 1):
        true = labels.loc[labels["window"] == number, ["y", "x"]].to_numpy() - (top, left)
        near = found[np.all((found > (top - 5, left - 5)) & (found < (top + 132, left + 132)), axis=1)] - (top, left)
        scores = " ".join(f"{f1(near, true, tolerance, (128, 128)):.3f}" for tolerance in (3, 4, 5))
        print(f"  window {number}: F1 within 3, 4, 5 px {scores}, {len(found)} atoms in the whole image")


def score_learned():
    """Finders trained in this run on simulated images, beside the automatic search, on images that they do not know."""
    graphene = trained(FinderSettings(specimen="graphene"), [])
    for level, dose in (("seen by nobody one by one", 1.2), ("faint", 2.5), ("plain", 8.0)):
        found = []
        for seed in range(1000, 1005):
            scene = varied_scene("graphene", seed, dose)
            true, spacing = scene.truth[["y", "x"]].to_numpy(), 0.142 / scene.pixel_size
            found.append(
                [f1(search(scene.image), true, spacing / 4, scene.image.shape) for search in (positions, graphene)]
            )
        tell(f"graphene, dose {dose}, {level}", found)
    score_graphene(graphene)
    known = [Example(*molecules(seed, dose=dose)) for seed, dose in enumerate((4, 6, 10, 20, 40, 6, 4, 8))]
    whole = trained(FinderSettings(), known)
    for dose in (4.0, 6.0, 40.0):
        found = []
        for image, true in (molecules(seed, dose=dose) for seed in range(1000, 1005)):
            found.append([f1(search(image), true, 5, image.shape) for search in (positions, whole)])
        tell(f"molecules, dose {dose}", found)
    for name, image, true, spacing in scenes(("molecules",)):
        half = image.shape[1] // 2
        left = np.broadcast_to(np.arange(image.shape[1]) < half, image.shape)
        mine = trained(FinderSettings(), [Example(image, true[true[:, 1] < half], left)])
        right = true[true[:, 1] > half] - (0, half)
        found = [at[at[:, 1] > half] - (0, half) for at in (positions(image), mine(image))]
        tell(f"{name}, one half corrected", [[f1(at, right, spacing / 4, (len(image), half)) for at in found]])


def trained(settings, examples):
    start = time.perf_counter()
    *_, last = train_finder(examples, settings)
    print(f"  trained in {time.perf_counter() - start:.0f} s, F1 {last.score:.3f} on what was held out")
    learned = FindSettings(search="learned")
    return lambda image: find_atoms(image, learned, finder=last.finder)[["y", "x"]].to_numpy()


def tell(name, found):
    automatic, learned = np.transpose(found)
    print(f"  {name:44s} automatic {automatic.mean():.3f} ({automatic.min():.3f} at worst), ", end="")
    print(f"learned {learned.mean():.3f} ({learned.min():.3f})")
    sys.stdout.flush()


def columns(shape, true, sigma=SIGMA):
    image = np.zeros(shape, np.float32)
    offset = np.arange(-14, 15)
    for y, x in true:
        rows, across = offset + round(y), offset + round(x)
        spot = np.exp(-((rows[:, None] - y) ** 2 + (across - x) ** 2) / (2 * sigma**2))
        image[rows[0] : rows[-1] + 1, across[0] : across[-1] + 1] += spot
    return image


def score_bound():
    for counts, readout in ((6, 0.8), (40, 1.5), (600, 3.0)):
        squares = []
        for seed in range(3):
            rng = np.random.default_rng(seed)
            true = np.mgrid[24:490:34, 24:490:34].reshape(2, -1).T + rng.uniform(-3, 3, (196, 2))
            image = rng.poisson(counts * (0.05 + columns((512, 512), true))) + rng.normal(0, readout, (512, 512))
            found = positions(image)
            pairs = matches(found, true, 4)
            squares.append(np.mean((found[pairs[:, 0]] - true[pairs[:, 1]]) ** 2))
        y, x = np.mgrid[-14:15, -14:15]
        spot = counts * np.exp(-(y**2 + x**2) / (2 * SIGMA**2))
        bound = 1 / np.sum((spot * y / SIGMA**2) ** 2 / (spot + 0.05 * counts + readout**2))
        print(f"  peak counts {counts:3d}: error {np.sqrt(np.mean(squares) / bound):.3f} x Cramer-Rao bound")


def score_noise():
    counts = {}
    for seed in range(7):
        rng = np.random.default_rng(seed)
        white = rng.normal(size=(512, 512))
        lines = white + 3 * gaussian_filter1d(rng.normal(size=(512, 512)), 5, axis=1) + rng.normal(size=(512, 1))
        for name, image in (("white", white), ("Poisson", rng.poisson(3, (512, 512))), ("lines", lines)):
            counts.setdefault(name, []).append(len(find_atoms(image)) / 0.262)
    print("  false atoms per megapixel:", {name: round(float(np.mean(values)), 2) for name, values in counts.items()})


def score_gradients():
    y, x = np.mgrid[:512, :512] / 511
    smooth = [x, x + 2 * y, x * y, np.exp(3 * x), np.sin(3 * x) * np.cos(2 * y)]
    smooth += [np.exp(-2 * ((x - 0.5) ** 2 + (y - 0.5) ** 2)), 1 / (1 + np.exp(10 - 20 * x))]
    unit = [(image - image.min()) / np.ptp(image) for image in smooth]
    images = [*unit, *((255 * u).astype(np.uint8) for u in unit), *((20 * u).astype(np.uint8) for u in unit[:6])]
    print(f"  false atoms on {len(images)} noiseless gradients: {sum(len(find_atoms(image)) for image in images)}")


def score_steps():
    """Noise with one step or one line of any angle, sharp or wide, weak or strong: there are no atoms."""
    y, x = np.mgrid[-256:256, -256:256]
    rng, counts = np.random.default_rng(0), {"step": [], "line": []}
    for angle, width, height in product((0, 3, 17, 45, 80), (0.6, 2, 5), (3, 20)):
        off = y * np.cos(np.radians(angle)) + x * np.sin(np.radians(angle))
        for name, shape in (("step", 1 / (1 + np.exp(-off / width))), ("line", np.exp(-((off / width) ** 2) / 2))):
            counts[name].append(len(find_atoms(rng.normal(size=off.shape) + height * shape)))
    for name, found in counts.items():
        print(f"  false atoms on {len(found)} images with a {name}: {sum(found)}, {max(found)} at most in one")


def score_speed(sides):
    for side in sides:
        rng = np.random.default_rng(0)
        grid = np.mgrid[20 : side - 20 : 12, 20 : side - 20 : 12].reshape(2, -1).T
        image = rng.poisson(2 + 40 * columns((side, side), grid + rng.uniform(-0.5, 0.5, grid.shape))).astype(np.uint16)
        start, cpu = time.perf_counter(), time.process_time()
        found = len(find_atoms(image))
        wall, cpu = time.perf_counter() - start, time.process_time() - cpu
        area = side * side / 1e6
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        speed = f"{wall / area:.2f} s ({cpu / area:.2f} s CPU) per megapixel"
        print(f"  {side} px: {speed}, {found} atoms, peak {peak:.1f} GB")


def score_fit(side=512):
    """Fit alone of the same atoms, started up to .3 px off; ours is the median of five."""
    rng = np.random.default_rng(0)
    grid = np.mgrid[20 : side - 20 : 12, 20 : side - 20 : 12].reshape(2, -1).T
    image = rng.poisson(2 + 40 * columns((side, side), grid)).astype(np.uint16)
    start, detection, took = grid + rng.uniform(-0.3, 0.3, grid.shape), prepare(image, FindSettings()), []
    for _ in range(6):  # the first one loads what is compiled
        begun = time.perf_counter()
        fit_atoms(detection, start)
        took.append(time.perf_counter() - begun)
    ours = np.median(took[1:])
    print(f"  ours {1e6 * ours / len(start):.0f} us per atom")
    if theirs := _by_peers(image, 12, start):
        seconds = float(theirs["seconds"])
        print(f"  atomap {1e6 * seconds / len(start):.0f} us per atom, {seconds / ours:.0f} times ours")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--large", action="store_true", help="also 4096 and 8192 px")
    parser.add_argument("--only", help="only the part whose title begins so")
    options = parser.parse_args()
    large, only = options.large, (options.only or "").lower()
    find_atoms(
        np.random.default_rng(0).poisson(40 * columns((128, 128), np.mgrid[20:110:14, 20:110:14].reshape(2, -1).T))
    )
    for title, score in (
        ("Scenes with known truth", score_scenes),
        ("Isolated atoms labelled by hand", score_labelled),
        ("PbTiO3 on SrRuO3, published positions", score_lead_titanate),
        ("Graphene with a grain boundary, labelled by eye", score_graphene),
        ("Learned finders", score_learned),
        ("Single atoms, learned", score_learned_labelled),
        ("Precision", score_bound),
        ("Noise", score_noise),
        ("Gradients", score_gradients),
        ("Steps and lines", score_steps),
        ("Fit", score_fit),
        ("Speed", lambda: score_speed([512, 1024, 2048] + [4096, 8192] * large)),
    ):
        if title.lower().startswith(only):
            print(title)
            score()
        sys.stdout.flush()


if __name__ == "__main__":
    main()
