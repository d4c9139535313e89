"""Figures of joint and semi-supervised models against known truth; every part runs alone.

    python benchmarks/family.py                    all parts at full size, 3 seeds
    python benchmarks/family.py joint --seeds 5
    python benchmarks/family.py --quick            small sizes, one seed

A run at full size writes its parts into ``docs/benchmarks.md``, as ``benchmarks/rvae.py`` does.
"""

from __future__ import annotations

import os
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import rvae
from playing_cards import SIZE, STRAINED
from scipy.optimize import linear_sum_assignment
from scoring import Row, spread

from napari_rvae import TrainSettings, encode, train
from napari_rvae.patches import patches_from_array
from napari_rvae.samples import cards


def _classed(kind, x, seed, labels=None, **settings):
    """Most probable class of each card and how long training and encoding took."""
    if kind == 4:
        settings["invariance"] = STRAINED
    patches = patches_from_array(x)
    start = time.perf_counter()
    *_, last = train(patches, TrainSettings(classes=4, seed=seed, **settings), labels=labels)
    found = encode(last.model, patches)["class"].to_numpy()
    return found, time.perf_counter() - start


def _matched(found, label):
    """Share of cards whose suit their class tells, classes matched to suits one to one."""
    table = np.zeros((4, 4))
    np.add.at(table, (found, label), 1)
    return table[linear_sum_assignment(-table)].sum() / len(label)


def _rows(what, bar, shares, seconds):
    passed = None if bar is None else bool(min(shares) >= bar)
    yield Row(what, "" if bar is None else f">= {bar}", f"{min(shares):.4f}", spread(shares, 4), passed)
    yield Row(f"{what}, time", "", f"{max(seconds):.0f} s", spread(seconds, 0))


def joint(options):
    """jrVAE, 4 classes, 2 latents, started from the class averages, 3000 cards of 48 px of which no suit is known:
    share of cards whose most probable class is their suit, classes matched to suits one to one, the worst seed. Cards 4
    with strain.
    """
    n = 1000 if options.quick else 3000
    for kind, bar in ((3, 0.99), (4, 0.98)):
        shares, seconds = [], []
        for seed in options.seeds:
            x, truth = cards(kind, n, SIZE, seed=seed)
            found, took = _classed(kind, x, seed, model="jrvae")
            shares.append(_matched(found, truth["label"].to_numpy()))
            seconds.append(took)
        yield from _rows(f"cards {kind}", bar, shares, seconds)


def semi(options):
    """ss-rVAE, 4 classes, 2 latents: cards 1 with their suit and cards 3 or 4 without, learned from together; share of
    the latter whose most probable class is their suit, the worst seed. 3000 cards per suit without labels.
    """
    unknown = 1000 if options.quick else 12_000
    for known in (200, 10):
        for kind, bar in ((3, 0.995), (4, 0.98)):
            shares, seconds = [], []
            for seed in options.seeds:
                shown, told = cards(1, 4 * known, SIZE, seed=seed + 2000)
                x, truth = cards(kind, unknown, SIZE, seed=seed)
                labels = np.concatenate([told["label"].to_numpy(), np.full(unknown, -1)])
                found, took = _classed(kind, np.concatenate([shown, x]), seed, labels, model="ssrvae")
                shares.append(float((found[4 * known :] == truth["label"].to_numpy()).mean()))
                seconds.append(took)
            yield from _rows(f"{known} labels per suit, cards {kind}", bar if known == 200 else None, shares, seconds)


PARTS = {"joint": joint, "semi": semi}

if __name__ == "__main__":
    rvae.main(PARTS, "family.py", __doc__)
