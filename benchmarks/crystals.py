"""Parts of the benchmark on simulated crystals: kinds."""

from __future__ import annotations

import numpy as np
from scenes import graphene, mos2
from scoring import Row, analyzed, balanced, latents, matched, neighbor_vote, simulated, spread


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
