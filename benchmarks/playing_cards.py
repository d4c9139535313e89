"""Parts of the benchmark on playing cards: angles, suits, strain, one frame, calibration, invariance."""

from __future__ import annotations

import time

import numpy as np
import peers
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.optimize import linear_sum_assignment
from scoring import Row, calibration_row, covered, spread
from sklearn.mixture import GaussianMixture

from napari_rvae import AverageSettings, TrainSettings, average, encode, reconstruct, train
from napari_rvae.patches import patches_from_array
from napari_rvae.polar import radial_taper
from napari_rvae.samples import SUITS, cards, draw_cards

FOLD = np.array([1, 1, 2, 1])  # a diamond turned by half a turn is the same
STRAINED = ("rotation", "translation", "strain")
SIZE = 48


def learned(patches, **settings):
    """Model of ready-made patches and how long it took."""
    start = time.perf_counter()
    *_, last = train(patches, TrainSettings(**settings))
    return last.model, time.perf_counter() - start


def turned_by(angle, truth, label):
    """Per suit: how far estimates and truth turn together, the mean difference, and what is left of each card's."""
    resultants, zeros, left = [], [], np.zeros(len(angle))
    for suit, m in enumerate(FOLD):
        mine = label == suit
        mean = np.exp(1j * m * (angle - truth)[mine]).mean()
        resultants.append(abs(mean))
        zeros.append(np.angle(mean) / m)
        left[mine] = np.angle(np.exp(1j * m * ((angle - truth)[mine] - zeros[-1]))) / m
    return np.array(resultants), np.array(zeros), left


def suits_told(z, label):
    """Share of cards whose suit a mixture of four Gaussians on z tells."""
    cluster = GaussianMixture(4, n_init=5, random_state=0).fit_predict(z)
    table = np.zeros((4, 4))
    np.add.at(table, (cluster, label), 1)
    return table[linear_sum_assignment(-table)].sum() / len(label)


def strain_explained(table, truth, zeros):
    """R2 of both components of strain over all cards, in each suit's own frame, whose mean strain is taken out."""
    label, squares, total = truth["label"].to_numpy(), 0.0, 0.0
    for suit in range(4):
        mine = label == suit
        turn = np.exp(2j * zeros[suit])  # a frame turned by g turns strain by -2 g
        found = (table["strain_a"] + 1j * table["strain_b"]).to_numpy()[mine] * turn
        true = (truth["strain_a"] + 1j * truth["strain_b"]).to_numpy()[mine]
        left = found - true
        squares += (abs(left - left.mean()) ** 2).sum()
        total += (abs(true - true.mean()) ** 2).sum()
    return 1 - squares / total


def misfit(understood, x):
    """Mean squared difference per pixel in the inner circle, where the taper leaves patches as they are."""
    inner = radial_taper(SIZE) > 0.99
    return float(((understood - x) ** 2)[:, inner].mean())


def _played(kind, seed, n):
    """One training on a card set: resultants, median error (deg), suits, strain R2, misfit of other cards, seconds."""
    x, truth = cards(kind, n, SIZE, seed=seed)
    label, angle = truth["label"].to_numpy(), truth["angle"].to_numpy()
    patches = patches_from_array(x)
    invariance = {"invariance": STRAINED} if kind in (2, 4) else {}
    start = time.perf_counter()
    model, _ = learned(patches, latent=2, seed=seed, **invariance)
    table = encode(model, patches)
    seconds = time.perf_counter() - start
    resultants, zeros, left = turned_by(table["angle"].to_numpy(), angle, label)
    other = patches_from_array(cards(kind, 500, SIZE, seed=seed + 1000)[0])
    understood = reconstruct(model, other, encode(model, other))
    return {
        "R": resultants,
        "error": np.rad2deg(np.median(abs(left))),
        "suits": suits_told(table[["z1", "z2"]].to_numpy(), label),
        "strain": strain_explained(table, truth, zeros) if invariance else np.nan,
        "misfit": misfit(understood[:, 0], other.data[:, 0]),
        "seconds": seconds,
    }


def _resultant_rows(name, runs, bar, free):
    for suit, title in enumerate(SUITS):
        values = [run["R"][suit] for run in runs]
        passed = None if suit in free else bool(min(values) >= bar)
        yield Row(f"{name}, R of {title}", "" if suit in free else f">= {bar}", f"{min(values):.4f}",
                  spread(values, 4), passed)  # fmt: skip


def cards123(options):
    """Card sets 1 to 3, 3000 cards of 48 px, trained from nothing but the cards. R: |mean exp(i m (estimate - truth))|
    per suit, sense of rotation fixed, one constant per suit removed, m = 2 for the diamond, the worst seed; suits by a
    mixture of four Gaussians on z (2 latents); squared error per pixel of cards not trained on, in the inner circle
    that holds the suit (the noise alone is .0025).
    """
    n = 1000 if options.quick else 3000
    for kind in (1, 2, 3):
        runs = [_played(kind, seed, n) for seed in options.seeds]
        yield from _resultant_rows(f"cards {kind}", runs, 0.99, (2,) if kind == 2 else ())
        errors, told, seconds, ours = ([run[key] for run in runs] for key in ("error", "suits", "seconds", "misfit"))
        name = f"cards {kind}, "
        yield Row(name + "median error of angle", "<= 0.5 deg", f"{max(errors):.2f} deg", spread(errors, 2),
                  bool(max(errors) <= 0.5))  # fmt: skip
        yield Row(name + "suits", ">= 0.99", f"{min(told):.4f}", spread(told, 4), bool(min(told) >= 0.99))
        yield Row(name + "time", "<= 90 s", f"{max(seconds):.0f} s", spread(seconds, 0), bool(max(seconds) <= 90))
        theirs = {}
        for peer in ("atomai", "pyroved"):
            found = peers.played(peer, kind, n, options.peer_epochs)
            if found is None:
                continue
            theirs[peer] = misfit(found["understood"], cards(kind, 500, SIZE, seed=1000)[0])
            truth = cards(kind, 500, SIZE, seed=1000)[1]
            senses = [turned_by(sense * found["angle"], truth["angle"].to_numpy(), truth["label"].to_numpy())
                      for sense in (1, -1)]  # fmt: skip
            best = max(senses, key=lambda one: one[0].sum())
            yield Row(f"  {found['name']}, {options.peer_epochs} epochs", "", f"R {np.round(best[0], 2).tolist()}",
                      f"error {np.rad2deg(np.median(abs(best[2]))):.0f} deg, {found['seconds']:.0f} s")  # fmt: skip
        beside = ", ".join(f"{peer} {value:.4f}" for peer, value in theirs.items())
        passed = bool(max(ours) < min(theirs.values())) if theirs else None
        yield Row(name + "squared error", "below peers'", f"{max(ours):.5f}", beside, passed)


def cards4(options):
    """Card set 4, turned by up to 120 and strained by up to 20 degrees; measured as cards 1 to 3. The diamond, nearly
    square when strained, has no bar. R2 of strain over both components, in each suit's frame. Averages: class averages
    alone, with the same invariances.
    """
    n, seeds = (1000, options.seeds) if options.quick else (3000, range(max(5, len(options.seeds))))
    runs = [_played(4, seed, n) for seed in seeds]
    yield from _resultant_rows("cards 4", runs, 0.98, (2,))
    told, strain, seconds = ([run[key] for run in runs] for key in ("suits", "strain", "seconds"))
    yield Row("cards 4, suits", ">= 0.99", f"{min(told):.4f}", spread(told, 4), bool(min(told) >= 0.99))
    yield Row("cards 4, R2 of strain", ">= 0.97", f"{min(strain):.4f}", spread(strain, 4), bool(min(strain) >= 0.97))
    yield Row("cards 4, time", "<= 90 s", f"{max(seconds):.0f} s", spread(seconds, 0), bool(max(seconds) <= 90))
    times, kinds, purity = [], [], []
    for seed in seeds:
        x, truth = cards(4, n, SIZE, seed=seed)
        patches = patches_from_array(x)
        start = time.perf_counter()
        found = average(patches, AverageSettings(invariance=STRAINED, seed=seed))
        times.append(time.perf_counter() - start)
        kinds.append(len(found.counts))
        own, label = found.table["class"].to_numpy(), truth["label"].to_numpy()
        purity.append(sum(np.bincount(label[own == k]).max() for k in np.unique(own)) / n)
    yield Row("averages alone, time", "<= 5 s", f"{max(times):.1f} s", spread(times, 1), bool(max(times) <= 5))
    yield Row("averages alone, kinds", "4", str(kinds), "", all(count == 4 for count in kinds))
    yield Row("averages alone, purity", "", f"{min(purity):.4f}", spread(purity, 4))


def cards_frame(options):
    """Zero of every suit with models trained from different seeds on the same cards."""
    x, truth = cards(3, 1000 if options.quick else 3000, SIZE, seed=0)
    label, patches = truth["label"].to_numpy(), patches_from_array(x)
    models = [learned(patches, latent=2, seed=seed)[0] for seed in range(max(3, len(options.seeds)))]
    angles = [encode(model, patches)["angle"].to_numpy() for model in models]
    zeros = np.array([turned_by(angle, truth["angle"].to_numpy(), label)[1] for angle in angles])
    apart = np.rad2deg(np.angle(np.exp(1j * FOLD * (zeros[:, None] - zeros[None]))) / FOLD)
    for suit, title in enumerate(SUITS):
        worst = abs(apart[..., suit]).max()
        yield Row(f"cards 3, zero of {title}", "<= 2 deg", f"{worst:.2f} deg", "", bool(worst <= 2))
    fold = FOLD[label]
    pairs = [(i, j) for i in range(len(angles)) for j in range(i)]
    medians = [np.median(abs(np.angle(np.exp(1j * fold * (angles[i] - angles[j]))) / fold)) for i, j in pairs]
    medians = np.rad2deg(medians)
    yield Row("cards 3, same cards, median difference", "<= 1 deg", f"{max(medians):.2f} deg", spread(medians, 2),
              bool(max(medians) <= 1))  # fmt: skip


def cards_calibration(options):
    """Angles of cards 3 at three noises, and latents, which are the same for all cards of a suit."""
    for noise in (0.05, 0.2, 0.5):
        shares, of_latents = [], []
        for seed in options.seeds:
            x, truth = cards(3, 1000 if options.quick else 3000, SIZE, noise, seed)
            patches = patches_from_array(x)
            table = encode(learned(patches, latent=2, seed=seed)[0], patches)
            left = turned_by(table["angle"].to_numpy(), truth["angle"].to_numpy(), truth["label"].to_numpy())[2]
            shares.append(covered(left, table["angle_error"].to_numpy()))
            z = table[["z1", "z2"]] - table[["z1", "z2"]].groupby(truth["label"].to_numpy()).transform("mean")
            of_latents.append(covered(z.to_numpy(), table[["z1_error", "z2_error"]].to_numpy()))
        yield calibration_row(f"angle, cards 3, noise {noise}", shares)
        yield calibration_row(f"latents, cards 3, noise {noise}", of_latents)


def invariance(options):
    """Cards turned to 36 angles from an image four times as fine, noise included: largest change of z in units of its
    spread over the cards, largest change of the angle beyond the turn, over all cards and angles.
    """
    patches = patches_from_array(cards(3, 1000 if options.quick else 3000, SIZE, seed=0)[0])
    label = np.arange(20) % 4
    for seed in options.seeds:
        model, _ = learned(patches, latent=2, seed=seed)
        center = latents_of(model, patches).std(0)
        rng = np.random.default_rng(seed)
        noise = gaussian_filter(rng.standard_normal((len(label), 4 * SIZE, 4 * SIZE)), (0, 3, 3))
        fine = draw_cards(label, rng.uniform(-np.pi, np.pi, len(label)), size=4 * SIZE) + 0.05 * noise / noise.std()
        turns = np.deg2rad(np.arange(0, 360, 10) + rng.uniform(0, 10, 36))
        tables = [encode(model, patches_from_array(_turned(fine, turn))) for turn in turns]
        z = np.stack([table[["z1", "z2"]].to_numpy() for table in tables])
        angle = np.stack([table["angle"].to_numpy() for table in tables]) - turns[:, None]
        fold = FOLD[label]
        mean = np.angle(np.exp(1j * fold * angle).mean(0)) / fold
        moved = abs(np.angle(np.exp(1j * fold * (angle - mean))) / fold)
        change, beyond = abs(z - z.mean(0)) / center, np.rad2deg(moved)
        for what, values, bar, unit in (("z", change, 0.01, ""), ("angle", beyond, 0.5, " deg")):
            yield Row(f"seed {seed}: change of {what}", f"<= {bar}{unit}", f"{values.max():.4f}{unit}",
                      f"rms {np.sqrt(np.mean(values**2)):.4f}", bool(values.max() <= bar))  # fmt: skip


def latents_of(model, patches):
    return encode(model, patches)[["z1", "z2"]].to_numpy()


def _turned(fine, turn):
    """Fine images turned by an angle (+x toward +y), low-passed and sampled at every fourth pixel."""
    side = fine.shape[-1]
    y, x = (np.arange(SIZE) - (SIZE - 1) / 2) * 4, (np.arange(SIZE) - (SIZE - 1) / 2) * 4
    y, x = np.meshgrid(y, x, indexing="ij")
    c, s = np.cos(turn), np.sin(turn)
    middle = (side - 1) / 2
    where = [-s * x + c * y + middle, c * x + s * y + middle]
    smooth = gaussian_filter(fine, (0, 3, 3))  # nothing beyond half a cycle per pixel, which would fold back
    return np.stack([map_coordinates(one, where, order=3, mode="nearest") for one in smooth])
