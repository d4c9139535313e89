"""Parts of the benchmark on cost: speed beside the peers, memory, growth with the number and the size of patches."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import peers
import torch
from scoring import Row

from napari_rvae import TrainSettings, encode, train
from napari_rvae.patches import patches_from_array
from napari_rvae.samples import cards, draw_cards

SIZE = 48
STRAINED = ("rotation", "translation", "strain")
HELD_OUT = 0.1  # share of the patches that an epoch does not learn from while it is held out


def timed(patches, **settings):
    """Train; patches learned from times epochs, seconds of the loop, seconds before it, seconds after it, epochs."""
    begin = time.perf_counter()
    start = end = None
    learned = epochs = 0
    for report in train(patches, TrainSettings(**settings)):
        if report.phase != "training":
            continue
        end = time.perf_counter()
        count = len(patches) * (1 - HELD_OUT * (report.held_out is not None))
        if start is None:
            start = end - count / report.rate
        learned, epochs = learned + count, report.epoch
    return learned, end - start, start - begin, time.perf_counter() - end, epochs


SETS = {"rotation, translation": ({}, 150, 3), "and strain": ({"invariance": STRAINED}, 75, 4)}
"""What is trained, how many times faster than AtomAI it shall be, and on which cards."""


def _one_round(data, threads, few):
    """Patches per second of everyone in turn; of ours also seconds before and after the loop, and epochs."""
    rates, aside = {}, {}
    theirs = data[3].data[:few, 0]
    for peer in peers.NAMES if peers.installed() else ():
        rates[peer] = few / float(peers.trained(peer, theirs, theirs[:100], 1, threads)["seconds"])
    for name, (settings, _, kind) in SETS.items():
        learned, seconds, *aside[name] = timed(data[kind], latent=2, threads=threads, **settings)
        rates[name] = learned / seconds
    return rates, aside


def speed(options):
    """Patches x epochs per second of the training loop, 48 px, batch 100, 128 hidden units: ours with the settings of
    cards 3 and cards 4, in turn with AtomAI's own fit (rotation and translation, batch 100) and pyroVED's, the median
    of five rounds. Before: class averages and transform; after: last poses, noise and frames. 5000 cards, since fewer
    are learned from in smaller batches.
    """
    n, few = (2000, 200) if options.quick else (5000, 1000)
    data = {kind: patches_from_array(cards(kind, n, SIZE)[0]) for kind in (3, 4)}
    for threads in (1, 2):
        rounds = [_one_round(data, threads, few) for _ in range(1 if options.quick else 5)]
        rates = {name: np.array([one[name] for one, _ in rounds]) for name in rounds[0][0]}
        suffix = f", threads: {threads}"
        for name, values in rates.items():
            note = _range(values)
            if name in SETS:
                before, after, epochs = np.median([aside[name] for _, aside in rounds], 0)
                note += f"; before {before:.1f} s, {epochs:.0f} epochs, after {after:.1f} s"
            yield Row(peers.NAMES.get(name, f"ours, {name}") + suffix, "", f"{np.median(values):.0f} patches/s", note)
        for name, (_, bar, _) in SETS.items() if "atomai" in rates else ():
            ratios = rates[name] / rates["atomai"]
            passed = bool(np.median(ratios) >= bar) if threads == 1 else None
            yield Row(f"{name}, times AtomAI{suffix}", f">= {bar}" * (threads == 1), f"{np.median(ratios):.0f}",
                      _range(ratios), passed)  # fmt: skip


def _range(values):
    return f"{min(values):.0f} to {max(values):.0f}"


def card(options):
    """A graphics card beside the processor of its machine, which uses as many threads as it does by itself: patches x
    epochs per second of the training loop, poses included, cards of 48 px with default settings, strain for cards 4;
    whether a seed gives the same table twice, and how far angles are from those of the processor. Nothing without one.
    """
    if not torch.cuda.is_available():
        return
    few, many = (1000, 5000) if options.quick else (5000, 50_000)
    _learned(patches_from_array(cards(3, 200, SIZE)[0]), "cuda")  # loads what is compiled
    for kind, n, devices in ((3, few, ("cuda", "cuda", "cpu")), (4, few, ("cuda", "cpu")), (3, many, ("cuda",))):
        patches = patches_from_array(many_cards(n) if n == many else cards(kind, n, SIZE)[0])
        rates, tables = {}, []
        for device in devices:
            start = time.perf_counter()
            model, rates[device] = _learned(patches, device, STRAINED if kind == 4 else ("rotation", "translation"))
            between = time.perf_counter()
            tables.append(encode(model, patches))
            took = f"training {between - start:.1f} s in all, encoding {time.perf_counter() - between:.1f} s"
            yield Row(f"{n} cards {kind}, {device}", "", f"{rates[device]:.0f} patches/s", took)
        if "cpu" not in rates:
            continue
        off = tables[0]["angle"] - tables[-1]["angle"]
        off = np.angle(np.exp(1j * off * tables[0]["symmetry"])) / tables[0]["symmetry"]
        difference = f"angles differ by {np.degrees(np.median(np.abs(off - np.median(off)))):.2f} deg"
        ratio = rates["cuda"] / rates["cpu"]
        yield Row(f"{n} cards {kind}, times the processor", ">= 5", f"{ratio:.1f}", difference, bool(ratio >= 5))
        if len(tables) == 3:
            same = tables[0].equals(tables[1])
            yield Row(f"{n} cards {kind}, same seed", "same table", "same" if same else "other", "", same)


def _learned(patches, device, invariance=("rotation", "translation")):
    """The model, and patches x epochs per second."""
    reports = list(train(patches, TrainSettings(latent=2, device=device, invariance=invariance)))
    return reports[-1].model, [report.rate for report in reports if report.phase == "training"][-1]


def many_cards(n, size=SIZE, path=None):
    """Cards 3 in any number: 5000 motifs again and again under new noise, float32; kept in a file if one is named."""
    rng, base = np.random.default_rng(0), min(n, 5000)
    turned = np.deg2rad(rng.uniform(-120, 120, base))
    motifs = draw_cards(rng.integers(0, 4, base), turned, size=size).astype(np.float32)
    shape = (n, size, size)
    out = np.empty(shape, np.float32) if path is None else np.lib.format.open_memmap(path, "w+", np.float32, shape)
    for start in range(0, n, base):
        part = motifs[: n - start]
        out[start : start + len(part)] = part + 0.05 * rng.standard_normal(part.shape, np.float32)
    return out


def memory(options):
    """Largest memory of `napari-rvae train` on 200 000 patches of 48 px (1.8 GB), three epochs, everything included:
    reading, class averages, training, encoding, writing.
    """
    n = 20_000 if options.quick else 200_000
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "patches.npy"
        many_cards(n, path=path).flush()
        script = Path(sys.executable).with_name("napari-rvae")
        start = time.perf_counter()
        child = subprocess.Popen([script, "train", path, "-o", Path(folder) / "result", "--epochs", "3"])
        _, status, usage = os.wait4(child.pid, 0)
        if status:
            raise SystemExit("napari-rvae train failed")
        gigabytes, seconds = usage.ru_maxrss / 1e6, time.perf_counter() - start
    yield Row(f"{n} patches of 48 px, peak", "<= 6 GB", f"{gigabytes:.2f} GB", f"{seconds:.0f} s", bool(gigabytes <= 6))


def growth(options):
    """Seconds per epoch (mean of four, poses estimated in three of them, which is more than later on), one thread."""
    numbers = (1000, 10_000, 20_000) if options.quick else (1000, 3000, 10_000, 30_000, 100_000, 200_000)
    each = {}
    for n in numbers:
        learned, seconds, before, _, epochs = timed(patches_from_array(many_cards(n)), epochs=4, threads=1)
        each[n] = seconds / learned
        yield Row(f"{n} patches of 48 px", "", f"{seconds / epochs:.2f} s per epoch",
                  f"{1e6 * each[n]:.0f} us per patch; before {before:.0f} s")  # fmt: skip
    ratio = each[numbers[-1]] / each[10_000]
    yield Row("time per patch, largest set / 10 000", "<= 1.2", f"{ratio:.2f}", "", bool(ratio <= 1.2))
    for size in (16, 32, 48, 64, 96, 128):
        patches = patches_from_array(many_cards(1000 if options.quick else 5000, size))
        learned, seconds, before, _, epochs = timed(patches, epochs=4, threads=1)
        yield Row(f"{len(patches)} patches of {size} px", "", f"{seconds / epochs:.2f} s per epoch",
                  f"worked on at {patches.data.shape[-1]} px; before {before:.0f} s")  # fmt: skip
