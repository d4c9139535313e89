"""Parts of the benchmark on simulated crystals: kinds, offsets, displacements, strain, grains, molecules."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
from scenes import graphene, mos2, noise_free, strain_of_neighbors, strained
from scoring import (
    Row,
    analyzed,
    balanced,
    calibration_row,
    covered,
    latents,
    matched,
    neighbor_vote,
    pure_angle,
    simulated,
    spread,
)
from sklearn.linear_model import RidgeCV
from sklearn.metrics import adjusted_rand_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

from napari_rvae import AverageSettings, PatchSettings, average, extract_patches, find_atoms
from napari_rvae.latent.clusters import find_clusters
from napari_rvae.patches import automatic_size
from napari_rvae.polar import radial_taper


def _votes(image, true, kind, count, seed):
    """Atoms of every class that are told right, and how many there are; the share of atoms that were found."""
    table = analyzed(image, latent=3, seed=seed).table
    rows, atoms = matched(table, true)
    own = kind[atoms]
    right = neighbor_vote(latents(table.iloc[rows]), own) == own
    hits, counts = (np.bincount(own, weights, count) for weights in (right, None))
    return hits, counts, len(atoms) / len(true)


def _stored(name, seeds, bar=None):
    scene = simulated(name)
    if scene is None:
        return
    count = int(scene["cls"].max()) + 1
    votes = [_votes(scene["image"], scene["coords"], scene["cls"], count, seed) for seed in seeds]
    hits, counts, found = (np.mean(part, 0) for part in zip(*votes, strict=True))
    values = [balanced(one, number)[0] for one, number, _ in votes]
    low, high = balanced(hits, counts)[1]
    measured = f"{np.mean(values):.3f} ({low:.3f} to {high:.3f})"
    passed = None if bar is None else bool(np.mean(values) >= bar)
    yield Row(f"sim/{name}, {found:.1%} found", "" if bar is None else f">= {bar}", measured, spread(values), passed)


def _own(make, bar, seeds, scenes, **smaller):
    """Balanced accuracy pooled over scenes: the classes' hits and atoms are added up."""
    values, pooled, classes = [], 0, ()
    for seed in seeds:
        total = 0
        for number in scenes:
            scene = make(number, **smaller)
            classes = scene.classes
            true = scene.truth[["y", "x"]].to_numpy()
            votes = _votes(scene.image, true, scene.truth["class"].to_numpy(), len(classes), seed)
            total = total + np.stack(votes[:2])
            print(f"    {make.__name__} {number}, seed {seed}: {balanced(*votes[:2])[0]:.3f}", flush=True)
        values.append(balanced(*total)[0])
        pooled = pooled + total / len(seeds)
    low, high = balanced(*pooled)[1]
    measured = f"{np.mean(values):.3f} ({low:.3f} to {high:.3f})"
    what = f"{make.__name__}, {len(scenes)} own scenes"
    yield Row(what, f">= {bar}", measured, spread(values), bool(np.mean(values) >= bar))
    for name, hit, count in zip(classes, *pooled, strict=True):
        yield Row(f"  {name}, {count:.0f} atoms", "", f"{hit / count:.3f}")


def kinds(options):
    """Kinds told by the 5 nearest neighbours in z (3 latents), leaving the atom itself out: balanced accuracy, and its
    95 % interval.
    """
    seeds, scenes = options.seeds, range(1 if options.quick else 5)
    yield from _stored("interface_mid", seeds, 0.995)
    yield from _own(graphene, 0.90, seeds, scenes, **({"size": 512, "defects": 20} if options.quick else {}))
    yield from _own(mos2, 0.95, seeds, scenes)
    if not options.quick:
        yield from _stored("graphene_mid", seeds)
        yield from _stored("mos2_mid", seeds)


def _inner(positions, shape, margin):
    """Whether positions lie a patch from the edge."""
    return np.all((positions > margin) & (positions < np.array(shape) - 1 - margin), 1)


def _without_class_means(values, kind):
    return values - np.stack([values[kind == k].mean(0) for k in range(kind.max() + 1)])[kind]


def _offsets(image, true, kind, given, seed):
    """True and estimated offsets of inner atoms (n, 2), one mean per class taken out of both, and claimed errors."""
    result = analyzed(image, given, seed=seed)
    table = result.table
    inner = _inner(true, image.shape, result.patches.size)
    estimate = _without_class_means(table[["dy", "dx"]].to_numpy()[inner], kind[inner])
    moved = _without_class_means((true - given)[inner], kind[inner])
    return moved, estimate, table[["dy_error", "dx_error"]].to_numpy()[inner]


def _slope(moved, estimate):
    return float((moved * estimate).sum() / (moved**2).sum())


def _jittered(name, seed):
    scene = simulated(name)
    true, image = scene["coords"], scene["image"]
    given = true + 0.8 * np.random.default_rng(seed).standard_normal(true.shape)
    given = given.clip(0, np.array(image.shape) - 1)
    return _offsets(image, true, scene["cls"], given, seed)


def offsets(options):
    """Offsets of atoms a patch from the edge when true positions are jittered by .8 px per axis, one mean per class
    taken out; and of a noise-free lattice whose positions are shifted by .2 to 1.2 px in all directions.
    """
    if simulated("interface_mid") is not None:
        runs = [_jittered("interface_mid", seed) for seed in options.seeds]
        errors = [float(np.sqrt(np.mean((estimate - moved) ** 2))) for moved, estimate, _ in runs]
        slopes = [_slope(moved, estimate) for moved, estimate, _ in runs]
        yield Row("interface_mid, rms per axis", "<= 0.18 px", f"{max(errors):.3f} px", spread(errors),
                  bool(max(errors) <= 0.18))  # fmt: skip
        yield Row("interface_mid, slope", "1.00 +- 0.03", f"{np.mean(slopes):.3f}", spread(slopes),
                  bool(np.abs(np.subtract(slopes, 1)).max() <= 0.03))  # fmt: skip
    slopes = []
    for seed in options.seeds:
        image, true = noise_free()
        rng = np.random.default_rng(seed)
        length, direction = rng.uniform(0.2, 1.2, len(true)), rng.uniform(0, 2 * np.pi, len(true))
        given = true + (length * np.stack([np.sin(direction), np.cos(direction)])).T
        moved, estimate, _ = _offsets(image, true, np.zeros(len(true), int), given, seed)
        slopes.append(_slope(moved, estimate))
    yield Row("noise-free lattice, slope", "1.00 +- 0.02", f"{np.mean(slopes):.4f}", spread(slopes, 4),
              bool(np.abs(np.subtract(slopes, 1)).max() <= 0.02))  # fmt: skip


def offset_calibration(options):
    """Offsets of interfaces at three doses."""
    for name in ("interface_low", "interface_mid", "interface_high"):
        if simulated(name) is not None:
            runs = [_jittered(name, seed) for seed in options.seeds]
            yield calibration_row(f"offset, {name}", [covered(e - m, claimed) for m, e, claimed in runs])


def _blocks(positions, shape, across=5):
    place = np.floor(positions / np.array(shape) * across).astype(int).clip(0, across - 1)
    return place[:, 0] * across + place[:, 1]


def _explained(table, target, groups):
    """R2 of both components of displacement: ridge on z, cos and sin of the angle, and their products to order 2."""
    angle = table["angle"].to_numpy()
    features = np.column_stack([latents(table), np.cos(angle), np.sin(angle)])
    model = make_pipeline(PolynomialFeatures(2), StandardScaler(), RidgeCV(np.logspace(-3, 3, 13)))
    return _predicted(model, features, target, groups)


def _explained_by_pixels(patches, target, groups):
    """The same of a ridge on all pixels: the most that anything linear gets out of so many patches."""
    taper = radial_taper(patches.data.shape[-1])
    pixels = patches.data[:, 0] - (patches.data[:, 0] * taper).sum((1, 2), keepdims=True) / taper.sum()
    pixels = (pixels * taper).reshape(len(pixels), -1)
    return _predicted(RidgeCV(pixels.var(0).mean() * np.logspace(-1, 6, 15)), pixels, target, groups)


def _predicted(model, features, target, groups):
    folds = GroupKFold(5, shuffle=True, random_state=0)
    left = cross_val_predict(model, features, target, groups=groups, cv=folds) - target
    return float(1 - (left**2).sum() / ((target - target.mean(0)) ** 2).sum())


def polar(options):
    """Polar displacement of the A sites of ferroelectrics from z (2 latents) and angle, without the offsets: ridge on
    z, cos and sin of the angle and their products to order 2, five folds by spatial block, both components pooled, true
    positions, patches within the image. All atoms are learned from; beside it, the A sites alone, and 6 latents.
    """
    for name in ("ferro180_mid", "ferro90_mid"):
        scene = simulated(name)
        if scene is None:
            return
        image, true, a_site = scene["image"], scene["coords"], scene["cls"] == 0
        groups = _blocks(true, image.shape)
        every = np.ones(len(true), bool)
        parts = ("", every, 2), ("  of A sites alone", a_site, 2), ("  with 6 latents", every, 6)
        for what, learned, latent in parts:
            values = []
            for seed in options.seeds:
                result = analyzed(image, true[learned], seed=seed, latent=latent)
                used = a_site[learned] & ~result.patches.edge
                rows = np.flatnonzero(learned)[used]
                values.append(_explained(result.table[used], scene["polar_px"][rows], groups[rows]))
            passed = None if what else bool(np.mean(values) >= 0.9)
            yield Row(
                what or f"{name}, R2", "" if what else ">= 0.90", f"{np.mean(values):.3f}", spread(values), passed
            )
        used = a_site & ~(patches := extract_patches(image, pd.DataFrame(true, columns=["y", "x"]))).edge
        limit = _explained_by_pixels(patches.select(used), scene["polar_px"][used], groups[used])
        yield Row("  from all pixels", "", f"{limit:.3f}", "")


def strain(options):
    """Strain of a simulated perovskite (0 to 3 %, mid dose): rms per component of atoms a patch from the edge, relative
    to the median; beside it a least-squares fit to the neighbours' found positions, which is told the ideal lattice.
    """
    ours, theirs = [], []
    for seed in options.seeds:
        scene = strained(seed)
        result = analyzed(scene.image, invariance=("rotation", "translation", "strain"), seed=seed)
        table = result.table
        table[["fit_xx", "fit_xy"]] = strain_of_neighbors(table[["y", "x"]].to_numpy(), scene.metadata["vectors"])
        rows, atoms = matched(table, scene.truth[["y", "x"]].to_numpy())
        inner = _inner(table[["y", "x"]].to_numpy()[rows], scene.image.shape, result.patches.size)
        table, truth = table.iloc[rows[inner]], scene.truth.iloc[atoms[inner]]
        for kept, columns in ((ours, ["strain_xx", "strain_xy"]), (theirs, ["fit_xx", "fit_xy"])):
            left = table[columns].to_numpy() - truth[["strain_xx", "strain_xy"]].to_numpy()
            left -= np.nanmedian(left, 0)
            kept.append(100 * np.sqrt(np.nanmean(left**2, 0)))
    for component, name in enumerate(("xx", "xy")):
        mine, other = ([float(one[component]) for one in kept] for kept in (ours, theirs))
        yield Row(f"strain_{name}, rms", "<= 0.3 %", f"{max(mine):.3f} %", spread(mine), bool(max(mine) <= 0.3))
        yield Row("  from neighbours' positions", "", f"{max(other):.3f} %", spread(other))


def _grains(seed):
    scene = simulated("poly_mid")
    table = analyzed(scene["image"], seed=seed).table
    rows, atoms = matched(table, scene["coords"])
    return table.iloc[rows].reset_index(drop=True), atoms, scene


def poly(options):
    """Orientation of a polycrystal's inner atoms modulo the lattice's 60 degrees, one constant removed; clusters by
    angle and position, their number found, against the true grains.
    """
    if simulated("poly_mid") is None:
        return
    errors, agreements, counts = [], [], []
    for seed in options.seeds:
        table, atoms, scene = _grains(seed)
        grain, inner = scene["grain"][atoms], scene["cls"][atoms] == 0
        true = -np.array(scene["meta"]["grain_angles_rad"])[grain]  # the truth turns +y toward +x
        left = pure_angle(table["angle"].to_numpy() - true, 6)[inner]
        left = pure_angle(left - np.angle(np.exp(6j * left).mean()) / 6, 6)
        errors.append(float(np.rad2deg(np.median(abs(left)))))
        clusters = find_clusters(table[inner], ["angle", "y", "x"])["cluster"]
        agreements.append(adjusted_rand_score(grain[inner], clusters))
        counts.append(int(clusters.max()) + 1)
    yield Row("poly_mid, median error of orientation", "<= 0.5 deg", f"{max(errors):.2f} deg", spread(errors, 2),
              bool(max(errors) <= 0.5))  # fmt: skip
    yield Row("poly_mid, grains, adjusted Rand", ">= 0.95", f"{min(agreements):.3f}", f"{counts} clusters of 7",
              bool(min(agreements) >= 0.95))  # fmt: skip


def grain_frame(options):
    """Angles of the same atoms of a polycrystal with models trained from different seeds."""
    if simulated("poly_mid") is None:
        return
    tables = []
    for seed in range(max(3, len(options.seeds))):
        table, atoms, _ = _grains(seed)
        tables.append(table.set_index(atoms)["angle"])
    apart = [(one - other).dropna().to_numpy() for one, other in combinations(tables, 2)]
    medians = [float(np.rad2deg(np.median(abs(pure_angle(one, 6))))) for one in apart]
    yield Row("poly_mid, same atoms, median difference", "<= 1 deg", f"{max(medians):.2f} deg", spread(medians, 2),
              bool(max(medians) <= 1))  # fmt: skip


MOLECULE_FOLD = np.array([3, 2, 2, 2, 2])  # trimer, porphyrin (wider than high), rod, and two mirror images


def molecules(options):
    """Molecules of five kinds, two of them mirror images, at their true centres, in patches as large as they are cut by
    themselves around molecules that are found, sorted by class averages without labels; angles modulo each kind's
    symmetry with one constant per kind removed, from the averages and from a trained model.
    """
    scene = simulated("molecules_mid")
    if scene is None:
        return
    kind, runs = scene["cls"], []
    atoms = pd.DataFrame(scene["coords"], columns=["y", "x"])
    size = automatic_size(find_atoms(scene["image"]), scene["image"].shape)
    patches = extract_patches(scene["image"], atoms, PatchSettings(size=size))
    for seed in options.seeds:
        averages = average(patches, AverageSettings(seed=seed))
        trained = analyzed(scene["image"], scene["coords"], size, seed=seed).table
        tables = averages.table, trained
        errors = [_molecule_error(table["angle"].to_numpy(), kind, -scene["angle"]) for table in tables]
        runs.append((adjusted_rand_score(kind, averages.table["class"]), len(averages.counts), *errors))
    agreement, counts, error, trained_error = (list(one) for one in zip(*runs, strict=True))
    yield Row("molecules_mid, kinds, adjusted Rand", ">= 0.95", f"{min(agreement):.3f}", spread(agreement),
              bool(min(agreement) >= 0.95))  # fmt: skip
    yield Row("molecules_mid, kinds found", "5", str(counts), "", all(count == 5 for count in counts))
    for what, values in (("averages", error), ("trained", trained_error)):
        yield Row(f"molecules_mid, angle, {what}", "<= 2 deg", f"{max(values):.2f} deg", spread(values, 2),
                  bool(max(values) <= 2))  # fmt: skip


def _molecule_error(angle, kind, true):
    """Median error in degrees."""
    left = np.zeros(len(angle))
    for k, m in enumerate(MOLECULE_FOLD):
        mine = kind == k
        apart = (angle - true)[mine]
        left[mine] = pure_angle(apart - np.angle(np.exp(1j * m * apart).mean()) / m, m)
    return float(np.rad2deg(np.median(abs(left))))
