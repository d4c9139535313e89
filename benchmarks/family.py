"""Figures of joint, semi-supervised and conditional models against known truth; every part runs alone.

    python benchmarks/family.py                    all parts at full size, 3 seeds
    python benchmarks/family.py joint --seeds 5
    python benchmarks/family.py --quick            small sizes, one seed

A run at full size writes its parts into ``docs/benchmarks.md``, as ``benchmarks/rvae.py`` does.
"""

from __future__ import annotations

import os
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import costs
import digits
import numpy as np
import peers
import rvae
from ensembles import classes, ensemble
from playing_cards import SIZE, STRAINED
from scoring import Row, analyzed, matched, simulated, spread
from sklearn.metrics import adjusted_rand_score

from napari_rvae import BaselineSettings, TrainSettings, baseline, encode, train
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
            shares.append(digits.matched(found, truth["label"].to_numpy()))
            seconds.append(took)
        yield from _rows(f"cards {kind}", bar, shares, seconds)


def semi(options):
    """ss-rVAE, 4 classes, 2 latents: cards 1 with their suit and cards 3 or 4 without, learned from together; share of
    the latter whose most probable class is their suit, the worst seed. 3000 cards per suit without labels; pyroVED's
    ssiVAE (rotation, translation) learns from 250 per suit, ten epochs.
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
    epochs = min(options.peer_epochs, 1 if options.quick else 10)
    for kind in (3, 4) if peers.installed() and epochs else ():
        shown, told = cards(1, 800, SIZE, seed=2000)
        x, truth = cards(kind, 1000, SIZE, seed=0)
        labels = np.concatenate([told["label"].to_numpy(), np.full(1000, -1)])
        found = peers.trained("ssivae", np.concatenate([shown, x]), x[:1], epochs, labels=labels)
        share = float((found["class"][800:] == truth["label"].to_numpy()).mean())
        yield Row(f"200 labels per suit, cards {kind}, pyroVED", "", f"{share:.4f}", f"{float(found['seconds']):.0f} s")


def scenes(options):
    """jrVAE of simulated crystals, as many classes as there are kinds of atoms (graphene 6, MoS2 5), 2 latents:
    adjusted Rand index of class and kind, beside as many Gaussians on 2 principal components of the same patches as
    they are.
    """
    for name in ("graphene_mid", "mos2_mid"):
        if (scene := simulated(name)) is None:
            continue
        kinds, ours, theirs = len(np.unique(scene["cls"])), [], []
        for seed in options.seeds:
            result = analyzed(scene["image"], model="jrvae", classes=kinds, seed=seed)
            settings = BaselineSettings(classes=kinds, aligned=False, seed=seed)
            other = baseline(result.patches, settings, atoms=result.atoms)
            rows, atoms = matched(result.table, scene["coords"])
            for table, shares in ((result.table, ours), (other, theirs)):
                shares.append(float(adjusted_rand_score(scene["cls"][atoms], table["class"].iloc[rows])))
        yield Row(f"sim/{name}, GMM on PCA", "", f"{np.mean(theirs):.3f}", spread(theirs))
        yield Row(
            f"sim/{name}, jrVAE", "> GMM's", f"{np.mean(ours):.3f}", spread(ours), np.mean(ours) > np.mean(theirs)
        )


def speed(options):
    """Patches x epochs per second of the training loop of jrVAE, 4 classes, cards 3, 48 px, batch 100, one thread,
    beside pyroVED's jiVAE (rotation).
    """
    n, few = (1000, 100) if options.quick else (5000, 300)
    x = cards(3, n, SIZE)[0]
    learned, seconds, before, after, epochs = costs.timed(patches_from_array(x), model="jrvae", classes=4, threads=1)
    rate, note = learned / seconds, f"before {before:.1f} s, {epochs} epochs, after {after:.1f} s"
    yield Row("ours", "", f"{rate:.0f} patches/s", note)
    if peers.installed() and options.peer_epochs:
        theirs = few / float(peers.trained("jivae", x[:few], x[:1], 1, classes=4, turned=True)["seconds"])
        yield Row("pyroVED", "", f"{theirs:.1f} patches/s")
        yield Row("ours over pyroVED's", ">= 100", f"{rate / theirs:.0f}", "", rate >= 100 * theirs)


PARTS = {
    "joint": joint,
    "semi": semi,
    "ensemble": ensemble,
    "classes": classes,
    "digits": digits.joint_digits,
    "style": digits.style,
    "scenes": scenes,
    "joint_speed": speed,
}

if __name__ == "__main__":
    rvae.main(PARTS, "family.py", __doc__)
