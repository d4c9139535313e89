"""Parts of the benchmark on trust in classes: what an ensemble knows of its errors, how many classes there are."""

from __future__ import annotations

import resource
import time

import numpy as np
import pandas as pd
from playing_cards import SIZE, STRAINED
from scipy.optimize import linear_sum_assignment
from scoring import Row, simulated, spread
from sklearn.metrics import roc_auc_score

from napari_rvae import TrainSettings, encode, train_ensemble
from napari_rvae.averages.counting import class_stability, stable_count
from napari_rvae.patches import extract_patches, patches_from_array
from napari_rvae.samples import cards


def right(found, label):
    """Mask of the cards whose class means their suit, classes matched to suits one to one."""
    table = np.zeros((4, 4))
    np.add.at(table, (found, label), 1)
    return linear_sum_assignment(-table)[1][found] == label


def ensemble(options):
    """jrVAE, 4 classes, on 1000 cards 4 of 48 px with strain, whose noise is raised until one member tells 85 to 95 per
    cent of the suits, or at the noise where it comes nearest to 90: how well the dispersion of 8 members finds the
    cards that they class wrongly (area under the receiver operating characteristic), and what they cost beside one:
    time of the processor, training and encoding, and largest memory of the process; the worst seed. Two suits
    may be lost to each other at once, by all members: with seed 1 one of them tells 95.3 per cent at a noise of 1.325
    and 72.8 at 1.3375, no more than 75.9 up to 1.6.
    """
    members = 4 if options.quick else 8
    rows = {name: [] for name in ("noise", "alone", "together", "found", "time", "memory")}
    for seed in options.seeds:
        tried = []
        for noise in np.arange(1.1, 1.6, 0.1):
            _, good, one = _trained(*_hard_cards(noise, seed), seed, 1)
            tried.append((abs(good.mean() - 0.9), noise, good.mean(), one))
            if tried[-1][0] <= 0.05:
                break
        _, noise, alone, one = min(tried)
        rows["noise"].append(noise)
        rows["alone"].append(alone)
        table, good, all_of_them = _trained(*_hard_cards(noise, seed), seed, members)
        rows["together"].append(good.mean())
        rows["found"].append(roc_auc_score(~good, table["class_dispersion"]))
        for name, mine, single in zip(("time", "memory"), all_of_them, one, strict=True):
            rows[name].append(mine / single)
    yield Row("noise, a suit is 1 on 0", "", f"{max(rows['noise']):.3f}", spread(rows["noise"], 3))
    low, high = min(rows["alone"]), max(rows["alone"])
    yield Row(
        "accuracy of one member", ".85 to .95", f"{low:.3f}", spread(rows["alone"], 3), low >= 0.85 and high <= 0.95
    )
    yield Row(f"accuracy of {members} members", "", f"{min(rows['together']):.3f}", spread(rows["together"], 3))
    worst = min(rows["found"])
    yield Row("dispersion finds the wrong ones", ">= 0.85", f"{worst:.3f}", spread(rows["found"], 3), worst >= 0.85)
    for name, most in (("time", members), ("memory", 3)):
        worst = max(rows[name])
        yield Row(f"{name}, in units of one", f"<= {most}", f"{worst:.2f}", spread(rows[name], 2), worst <= most)


def classes(options):
    """Number of classes that is found again in resamples of patches, and how stable all numbers are, with default
    settings: 1000 cards 3 of 48 px (four suits) without and with noise, and stored scenes with atoms at their true
    places: an interface of two oxides (3 kinds of column), MoS2 (5 kinds, three of them with 22 to 30 of 1531 atoms).
    """
    for noise in (0.05, 0.6):
        found, curves = [], []
        for seed in options.seeds:
            curve = class_stability(patches_from_array(cards(3, 1000, SIZE, noise=noise, seed=seed)[0]))
            found.append(stable_count(curve))
            curves.append(curve)
        yield Row(f"cards 3, noise {noise}, classes", "4", str(found), _curve(curves), set(found) == {4})
    for name, kinds in (("interface_mid", 3), ("mos2_mid", None)):
        scene = simulated(name)
        if scene is None:
            continue
        y, x = scene["coords"].T
        atoms = pd.DataFrame({"atom_id": np.arange(len(y)), "y": y, "x": x})
        curve = class_stability(extract_patches(scene["image"], atoms))
        count = stable_count(curve)
        yield Row(f"sim/{name}, classes", str(kinds or ""), str(count), _curve([curve]), kinds and count == kinds)


def _curve(curves):
    """Mean stability of 2, 3, ... classes."""
    means = np.mean([curve["stability"] for curve in curves], 0)
    return "stability of 2, 3, ...: " + ", ".join(f"{value:.2f}" for value in means)


def _hard_cards(noise, seed):
    """Patches of noisy cards, and their suits."""
    x, truth = cards(4, 1000, SIZE, noise=noise, seed=seed)
    return patches_from_array(x), truth["label"].to_numpy()


def _trained(patches, label, seed, members):
    """Table of a jrVAE, which of its cards are classed rightly, and seconds of the processor and kilobytes it took."""
    settings = TrainSettings(model="jrvae", classes=4, invariance=STRAINED, threads=1, seed=seed, members=members)
    start = time.process_time()
    table = encode(train_ensemble(patches, settings)[0], patches)
    costs = time.process_time() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return table, right(table["class"].to_numpy(), label), costs
