"""Training of the learned finder, on images whose atoms are known: corrected by hand, or simulated."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor, nn

from napari_rvae.atoms.find import prepare
from napari_rvae.atoms.refine import nearest_neighbor_distance
from napari_rvae.errors import InputDataError, Stopped
from napari_rvae.models.finder import SPACING, FinderNet, LearnedFinder, normalized, to_normalized
from napari_rvae.settings import FinderSettings, FindSettings
from napari_rvae.threads import threads

CROP, SIDE = 96, 64  # pixels cut out, and what is left of them when turned
SPOT = 0.13 * SPACING  # width of a target
HELD_OUT = 0.2  # part of every image, its last rows
REPORTS = 40  # in the course of a training
REACH = 0.3  # neighbour distances: further, an atom is not found


@dataclass(frozen=True)
class Example:
    """An image whose atoms are known.

    Parameters
    ----------
    image : array_like
        (y, x).
    positions : numpy.ndarray
        (n, 2) y, x of all its atoms, pixels.
    region : numpy.ndarray of bool, optional
        (y, x): where they are known; everywhere when None.
    """

    image: Any
    positions: NDArray[np.float64]
    region: NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class FinderReport:
    """How far the training is.

    Parameters
    ----------
    step, steps : int
        Done, and in all.
    loss, held_out : float
        Cross-entropy per pixel, of what is learned from and of what is not.
    seconds_left : float
        Estimated.
    finder : LearnedFinder or None
        The finder, in the last report.
    score : float
        F1 of the finder on what it was not shown; NaN before the last report.
    """

    step: int
    steps: int
    loss: float
    held_out: float
    seconds_left: float
    finder: LearnedFinder | None = None
    score: float = float("nan")


def examples_of(image: Any, atoms: pd.DataFrame, region: NDArray[np.bool_] | None = None) -> list[Example]:
    """An image whose atoms are known, or the frames of a stack in which they are.

    Parameters
    ----------
    image : array-like
        (y, x) or (frames, y, x), lazy or not.
    atoms : pandas.DataFrame
        Atoms table, ``y``, ``x`` and, of a stack, ``frame``. A frame with fewer than two atoms is not learned from.
    region : numpy.ndarray, optional
        (y, x), or (frames, y, x), of bool: where the atoms are known; others are left out.

    Returns
    -------
    list of Example
    """
    frame = atoms["frame"].to_numpy(int) if "frame" in atoms else np.zeros(len(atoms), int)
    places = atoms[["y", "x"]].to_numpy(float)
    if region is not None:
        at = np.column_stack([frame, np.round(places)]).astype(int)[:, -region.ndim :]
        inside = region[tuple(at.clip(0, np.array(region.shape) - 1).T)]
        frame, places = frame[inside], places[inside]
    if len(image.shape) == 2:
        return [Example(image, places, region)]
    known, count = np.unique(frame, return_counts=True)
    own = region if region is not None and region.ndim == 3 else None
    return [Example(image[k], places[frame == k], region if own is None else own[k]) for k in known[count > 1]]


@dataclass(frozen=True)
class _Prepared:
    """Normalised pixels, targets and weights (3, y, x), positions in them, rows learned from, scale."""

    stack: Tensor
    positions: NDArray[np.float64]
    rows: int
    per_period: float
    per_sigma: float


def train_finder(
    examples: Sequence[Example],
    settings: FinderSettings | None = None,
    *,
    stop: Callable[[], bool] | None = None,
    keep: Callable[[], bool] | None = None,
) -> Iterator[FinderReport]:
    """Train a finder on images whose atoms are known.

    Parameters
    ----------
    examples : sequence of Example
        May be empty where the settings ask for simulated images. The last fifth of the rows of each is not learned
        from: it tells the threshold and the error of positions.
    settings : FinderSettings, optional
        How long, and the seed.
    stop, keep : callable, optional
        Asked at every step whether to give up, or to end with what has been learned.

    Yields
    ------
    FinderReport
        The last one has the finder.

    Raises
    ------
    InputDataError
        If there is too little to learn from.
    Stopped
        If `stop` said so.
    """
    settings = settings or FinderSettings()
    prepared = []
    for example in chain(examples, _simulated(settings)):
        _give_up_if(stop)
        prepared.append(_prepared(example))
    if sum(len(example.positions) for example in prepared) < 20:
        raise InputDataError("A finder needs at least 20 known atoms to learn from: correct more points by hand.")
    random, draw = np.random.default_rng(settings.seed), torch.Generator().manual_seed(settings.seed)
    with torch.random.fork_rng(devices=[]), threads(settings.threads):
        torch.manual_seed(settings.seed)
        net = FinderNet()
        yield from _trained(net, prepared, settings, (random, draw), stop, keep)


def _give_up_if(stop: Callable[[], bool] | None) -> None:
    if stop is not None and stop():
        raise Stopped("Stopped while training the finder.")


def _simulated(settings: FinderSettings) -> Iterator[Example]:
    if settings.specimen == "none":
        return
    from napari_rvae.samples.varied import varied_scene

    for number in range(settings.images):
        scene = varied_scene(settings.specimen, settings.seed + number)
        yield Example(scene.image, scene.truth[["y", "x"]].to_numpy(float))


def _trained(
    net: FinderNet,
    prepared: list[_Prepared],
    settings: FinderSettings,
    chance: tuple[np.random.Generator, torch.Generator],
    stop: Callable[[], bool] | None,
    keep: Callable[[], bool] | None,
) -> Iterator[FinderReport]:
    optimizer = torch.optim.Adam(net.parameters(), lr=settings.learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.learning_rate, settings.steps)
    # always the same crops, so that the curve is smooth; of small images the last rows are what is left
    held_out, start, losses = _batch(prepared, 16, np.random.default_rng(0), chance[1], last=True), time.monotonic(), []
    for step in range(1, settings.steps + 1):
        _give_up_if(stop)
        net.train()
        loss = _loss(net, _batch(prepared, settings.batch_size, *chance))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(float(loss.detach()))
        ended = step == settings.steps or (keep is not None and keep())
        if ended:
            _give_up_if(stop)  # otherwise it would be kept although nobody wants it
        if ended or step % max(1, settings.steps // REPORTS) == 0:
            left = (time.monotonic() - start) / step * (settings.steps - step)
            net.eval()
            with torch.no_grad():
                other = float(_loss(net, held_out))
            finder, score = _finished(net, prepared, settings, step) if ended else (None, float("nan"))
            yield FinderReport(step, settings.steps, float(np.mean(losses)), other, left, finder, score)
            losses = []
        if ended:
            return


def _prepared(example: Example) -> _Prepared:
    """An image at the net's scale, with what it should answer."""
    positions = np.asarray(example.positions, np.float64).reshape(-1, 2)
    if len(positions) < 2:
        raise InputDataError("An image to learn from needs at least two known atoms.")
    spacing = nearest_neighbor_distance(positions)
    detection = prepare(example.image, FindSettings(target="atoms"))
    pixels = detection.frame.pixels
    small = normalized(pixels, spacing)
    places = to_normalized(positions, pixels.shape, small.shape)
    known = np.ones(pixels.shape, bool) if example.region is None else np.asarray(example.region, bool)
    if detection.frame.invalid is not None:
        known = known & ~detection.frame.invalid
    y, x = (np.arange(side) * full // side for side, full in zip(small.shape, known.shape, strict=True))
    target, weight = _targets(small.shape, places), known[np.ix_(y, x)].astype(np.float32)
    rows = max(min(CROP, small.shape[0]), int((1 - HELD_OUT) * small.shape[0]))
    per_period = spacing / detection.period if detection.period else 0.0
    stack = torch.from_numpy(np.stack([small, target, weight]))
    return _Prepared(stack, places, rows, per_period, spacing / detection.sigma)


def _targets(shape: tuple[int, ...], places: NDArray[np.float64]) -> NDArray[np.float32]:
    """1 at every atom's centre, falling off around it."""
    grid = np.indices(shape).reshape(2, -1).T
    distance = np.asarray(cKDTree(places).query(grid, distance_upper_bound=5 * SPOT)[0])
    return np.exp(-(distance**2) / (2 * SPOT**2)).reshape(shape).astype(np.float32)


def _batch(
    prepared: list[_Prepared], count: int, random: np.random.Generator, draw: torch.Generator, last: bool = False
) -> Tensor:
    """Crops (count, 3, y, x), turned, mirrored, scaled by up to 15 % and with more noise."""
    areas = np.array([example.stack[0].numel() for example in prepared], float)
    crops = []
    for index in random.choice(len(prepared), count, p=areas / areas.sum()):
        stack, rows = prepared[index].stack, prepared[index].rows
        _, height, width = stack.shape
        low, high = (min(rows, height - min(CROP, height)), height) if last else (0, rows)
        top = int(random.integers(low, max(high - CROP, low) + 1))
        left = int(random.integers(0, max(width - CROP, 0) + 1))
        crop = stack[:, top : min(top + CROP, high), left : left + CROP]
        crops.append(nn.functional.pad(crop, (0, CROP - crop.shape[2], 0, CROP - crop.shape[1])))
    batch = torch.stack(crops)
    angle, scale = random.uniform(0, 2 * np.pi, count), random.uniform(0.87, 1.15, count) * SIDE / CROP
    mirror = random.choice([-1.0, 1.0], count)
    cosine, sine = scale * np.cos(angle), scale * np.sin(angle)
    zero = np.zeros(count)
    turn = np.stack([np.stack([cosine * mirror, -sine, zero], 1), np.stack([sine * mirror, cosine, zero], 1)], 1)
    grid = nn.functional.affine_grid(
        torch.from_numpy(turn.astype(np.float32)), [count, 3, SIDE, SIDE], align_corners=False
    )
    batch = nn.functional.grid_sample(batch, grid, align_corners=False)  # beyond the crop weights are zero
    noise = torch.randn(count, 1, SIDE, SIDE, generator=draw) * torch.rand(count, 1, 1, 1, generator=draw) * 0.5
    return torch.cat([batch[:, :1] + noise, batch[:, 1:]], 1)


def _loss(net: FinderNet, batch: Tensor) -> Tensor:
    pixels, target, weight = batch[:, :1], batch[:, 1:2], batch[:, 2:]
    every = nn.functional.binary_cross_entropy_with_logits(net(pixels), target, reduction="none")
    return (every * weight).sum() / weight.sum().clamp(min=1)


def _finished(
    net: FinderNet, prepared: list[_Prepared], settings: FinderSettings, steps: int
) -> tuple[LearnedFinder, float]:
    """The finder with its threshold and the error of its positions, and its F1, on the rows not learned from."""
    finder = LearnedFinder(net.eval(), recipe={"settings": settings.model_dump(mode="json"), "steps": steps})
    for name in ("per_period", "per_sigma"):
        known = [value for example in prepared if (value := getattr(example, name))]
        setattr(finder, name, float(np.median(known)) if known else 0.0)
    certainties, hits, squares, total = [], [], [], 0
    for example in prepared:
        certainty, hit, square, count = _compared(finder, example)
        certainties.append(certainty)
        hits.append(hit)
        squares.append(square)
        total += count
    certainty, hit = np.concatenate(certainties), np.concatenate(hits)
    order = np.argsort(-certainty)
    f1 = 2 * np.cumsum(hit[order]) / (np.arange(1, len(order) + 1) + total)
    if not len(f1) or not hit.any():
        raise InputDataError(
            "The finder has learned nothing: it finds no atom of those it was not shown. Give it more steps, or more "
            "atoms that are right."
        )
    best = int(np.argmax(f1))
    finder.certainty = float(np.clip(certainty[order[best]], 5, 95))
    finder.error = max(float(np.sqrt(np.concatenate(squares).mean() / 2)) / SPACING, 0.005)
    return finder, float(f1[best])


def _compared(
    finder: LearnedFinder, example: _Prepared
) -> tuple[NDArray[Any], NDArray[np.bool_], NDArray[np.float64], int]:
    """Certainty of what is found in the rows not learned from, whether it is an atom, squared errors, atoms there."""
    pixels, weight = example.stack[0].numpy(), example.stack[2].numpy()
    found, certainty = finder.normalized_candidates(pixels)
    height = pixels.shape[0]
    first = example.rows if height - example.rows > SPACING else 0

    def inside(places: NDArray[np.float64]) -> NDArray[np.bool_]:
        y, x = np.round(places).astype(int).T
        weighed = weight[y.clip(0, height - 1), x.clip(0, weight.shape[1] - 1)] > 0.5
        return np.asarray(weighed & (places[:, 0] > first + 2) & (places[:, 0] < height - 2))

    known = inside(example.positions)
    if not len(found):
        return certainty, np.zeros(0, bool), np.zeros(0), int(known.sum())
    distance, nearest = (np.asarray(part) for part in cKDTree(example.positions).query(found))
    hit, seen = np.zeros(len(found), bool), set()
    for i in np.argsort(distance):
        if distance[i] < REACH * SPACING and nearest[i] not in seen:
            seen.add(nearest[i])
            hit[i] = True
    # a pair counts where its atom does, lest one be counted on one side of the border only
    counts = np.where(hit, known[nearest], inside(found))
    return certainty[counts], hit[counts], distance[hit & counts] ** 2, int(known.sum())
