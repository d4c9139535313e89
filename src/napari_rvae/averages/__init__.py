"""Class averages: which kinds of motif there are, found in seconds and without a network.

A result in itself, the first look at the data, and the start of every training.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from napari_rvae.errors import InputDataError, Stopped
from napari_rvae.patches import Patches, Progress, Stop
from napari_rvae.settings import AverageSettings, TrainSettings
from napari_rvae.threads import at_once, threads

if TYPE_CHECKING:
    import torch

    from napari_rvae.averages.exemplars import PoseFinder
    from napari_rvae.averages.search import Assignment, Distances, PoseSearch

FEWEST_PATCHES = 10
_TRIES = 4
"""How often other exemplars are chosen if fewer kinds come out than are asked for."""
_KIND_ROUNDS = 3
_BLOCK = 1000
"""Patches that are worked on at a time."""


@dataclass(frozen=True)
class Averages:
    """Kinds of motif and who belongs to them.

    Attributes
    ----------
    images : numpy.ndarray
        (kinds, channels, D, D) mean patch of every kind, members turned and shaped alike; the largest kind first.
    counts : numpy.ndarray
        (kinds,) members.
    symmetry : numpy.ndarray
        (kinds,) order of the rotational symmetry.
    table : pandas.DataFrame
        One row per patch, in order: ``atom_id``, ``class``, ``angle`` (rad), ``dy``, ``dx`` (image pixels),
        ``strain_a``, ``strain_b`` (motif's frame), ``scale``, ``distance`` (mean squared misfit in noise variances).
    finder : PoseFinder
        Finds class and pose of other patches.
    """

    images: NDArray[np.float32]
    counts: NDArray[np.int64]
    symmetry: NDArray[np.int64]
    table: pd.DataFrame
    finder: PoseFinder = field(repr=False, compare=False)


def average(
    patches: Patches,
    settings: AverageSettings | None = None,
    *,
    start: PoseFinder | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
    stop: Stop | None = None,
) -> Averages:
    """Sort patches into kinds and average each kind, whatever the pose of its members.

    Parameters
    ----------
    patches : Patches
        All are sorted; averages are made of those that do not reach over the edge.
    settings : AverageSettings, optional
        Which poses make no difference, and how many kinds.
    start : PoseFinder, optional
        The finder of other averages: kinds are these, in their order, averaged from these patches.
    device : str
        Where all patches are sorted into the kinds, which are made of some of them by the processor.
    progress, stop : callable, optional
        ``progress(fraction, text)`` is told how far it is; ``stop()`` is asked whether to give up.

    Returns
    -------
    Averages
        Kinds, with one frame each.

    Raises
    ------
    InputDataError
        If there are too few patches, or all are alike.
    Stopped
        If `stop` said so.
    """
    import torch

    from napari_rvae.averages.band import signal_band
    from napari_rvae.averages.exemplars import PoseFinder, average_round
    from napari_rvae.averages.frames import common_zeros, symmetry_of
    from napari_rvae.averages.joining import kinds_of
    from napari_rvae.poses import pose_prior, turned_shape

    settings = settings or AverageSettings()
    inner = np.flatnonzero(~patches.edge) if (~patches.edge).sum() >= FEWEST_PATCHES else np.arange(len(patches))
    if len(inner) < FEWEST_PATCHES:
        raise InputDataError(f"{len(patches)} patches are too few for averages: at least {FEWEST_PATCHES} are needed.")

    def tell(fraction: float, text: str) -> None:
        if stop is not None and stop():
            raise Stopped("Stopped while averaging.")
        if progress is not None:
            progress(fraction, text)

    generator = torch.Generator().manual_seed(settings.seed)
    with torch.no_grad(), threads(None):
        normalised = _normalization(patches)
        prior = pose_prior(settings.invariance, settings.offset_prior / float(np.sqrt(np.prod(patches.step))))
        band = signal_band(patches) if start is None else start.k_max
        finder = PoseFinder(settings.invariance, prior, patches.data.shape[-1], band)
        search, space = finder.search, finder.search.space
        chosen = torch.as_tensor(inner)[torch.randperm(len(inner), generator=generator)[: settings.sample]]
        some = finder.reduce(normalised(chosen))
        harmonics = space.analyse(some)
        if start is None:
            images, distances, weight = _sorted(search, some, harmonics, settings, generator, tell)
        else:
            distances = search.distances(harmonics, start.images, start.weight)
            for number in range(settings.rounds):
                tell(0.7 * number / settings.rounds, "Averaging")
                images, distances, weight = average_round(search, some, harmonics, distances)
        tell(0.7, "Joining kinds")
        for number in range(_KIND_ROUNDS):
            # joined again after each round: averages made of more members, their strains centred, agree better
            if start is None:
                exactly = number == _KIND_ROUNDS - 1
                joined = kinds_of(search, some, images, distances, weight, settings.kinds, exactly=exactly)
                distances = distances.among(joined)
            tell(0.8 + 0.03 * number, "Averaging kinds")
            images, distances, weight = average_round(search, some, harmonics, distances)
        finder.images, finder.weight = images, weight
        found = _found(finder, normalised, len(patches), device, tell)
        spectra = space.analyse(images)
        which, theta = found.which.numpy(), found.theta.double().numpy()
        small = found.shape[chosen] / found.shape.new_tensor([finder.reduction, finder.reduction, 1, 1, 1])
        upright = space.analyse(search.upright(some, found.theta[chosen], small))
        symmetry = np.array(
            [
                symmetry_of(space, one, weight, search.prior, upright[found.which[chosen] == k]).order
                for k, one in enumerate(spectra)
            ]
        )
        zero = common_zeros(space, spectra, weight, theta, which, symmetry)
        period = 2 * np.pi / symmetry[which]
        angle = (theta - zero[which] + period / 2) % period - period / 2
        turn = torch.as_tensor(angle, dtype=torch.float32)
        pictures = _mean_images(normalised, which, turn, found.shape, inner, len(images))
        shape, own = found.shape.numpy(), turned_shape(found.shape, -turn).numpy()
        freedom = float(space.degrees_of_freedom.sum()) * some.shape[1]
    tell(1.0, "Averaging")
    table = pd.DataFrame(
        {
            "atom_id": patches.atom_id,
            "class": which.astype(np.int64),
            "angle": angle,
            "dy": shape[:, 1] * patches.step[0],
            "dx": shape[:, 0] * patches.step[1],
            "strain_a": own[:, 2],
            "strain_b": own[:, 3],
            "scale": np.exp(own[:, 4]),
            "distance": found.residual.numpy() / freedom,
        }
    )
    counts = np.bincount(which, minlength=len(images))
    return Averages(pictures, counts, symmetry, table, finder)


def first_step_of(training: TrainSettings) -> AverageSettings:
    """How patches are averaged that a model then learns from."""
    return AverageSettings(
        invariance=training.invariances,
        kinds=training.classes if training.family in ("joint", "semi") else None,
        offset_prior=training.offset_prior,
        seed=training.seed,
    )


def average_space(patches: Patches, invariance: tuple[str, ...]) -> tuple[PoseSearch, torch.Tensor]:
    """Where patches are compared, and the patches there, (n, channels, d, d).

    Parameters
    ----------
    patches : Patches
        To be averaged.
    invariance : tuple of str
        Poses that make no difference.

    Returns
    -------
    search : PoseSearch
        The distance.
    x : torch.Tensor
        Normalised and reduced.
    """
    from napari_rvae.averages.band import signal_band
    from napari_rvae.averages.exemplars import PoseFinder
    from napari_rvae.poses import pose_prior

    prior = pose_prior(invariance, AverageSettings().offset_prior / float(np.sqrt(np.prod(patches.step))))
    finder = PoseFinder(invariance, prior, patches.data.shape[-1], signal_band(patches))
    return finder.search, finder.reduce(_normalization(patches)(slice(None)))


def _sorted(
    search: PoseSearch,
    x: torch.Tensor,
    harmonics: torch.Tensor,
    settings: AverageSettings,
    generator: torch.Generator,
    tell: Callable[[float, str], None],
) -> tuple[torch.Tensor, Distances, torch.Tensor]:
    """Averages before any are joined, how far patches are from them, and the weight.

    Noise may make one template the nearest to all patches: where fewer than the kinds asked for are left, other
    exemplars are tried.
    """
    from napari_rvae.averages.exemplars import add_exemplars, average_round, ring_weight

    kinds = settings.kinds or 1
    wanted = min(max(settings.exemplars, 2 * kinds), max(len(x) // 2, kinds))  # what is alone tells nothing of noise
    tried: list[tuple[torch.Tensor, Distances, torch.Tensor]] = []
    while len(tried) < _TRIES:
        tell(0.7 if tried else 0.0, "Choosing exemplars")
        weight = ring_weight(search.space, harmonics.square().mean(0))
        distances = add_exemplars(search, x, harmonics, weight, wanted, generator)
        for number in range(settings.rounds):
            tell(0.7 if tried else 0.2 + 0.5 * number / settings.rounds, "Averaging")
            if number:  # templates of odd patches give way to others of what is understood least
                shared = distances.among(distances.shared())
                distances = add_exemplars(search, x, harmonics, weight, wanted, generator, shared)
            images, distances, weight = average_round(search, x, harmonics, distances)
        tried.append((images, distances, weight))
        if len(distances.shared()) >= kinds:
            break
    return max(tried, key=lambda one: len(one[1].shared()))


def mean_and_spread(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What patches are normalised by.

    Parameters
    ----------
    x : torch.Tensor
        (n, channels, D, D).

    Returns
    -------
    mean, spread : torch.Tensor
        (channels,) each.

    Raises
    ------
    InputDataError
        If a channel shows nothing, or has no number as its spread.
    """
    mean, spread = x.mean((0, 2, 3)), x.std((0, 2, 3))
    if not bool(spread.isfinite().all()):
        raise InputDataError("Some patches hold values too large to be squared: divide all of them by a constant.")
    still = (spread == 0).nonzero()[:, 0].tolist()
    if len(still) == len(spread):
        raise InputDataError("All patches are the same, constant image: there is nothing to learn.")
    if still:
        raise InputDataError(f"Channel {still[0] + 1} of {len(spread)} is constant in all patches: leave it out.")
    return mean, spread


def _normalization(patches: Patches) -> Callable[[Any], torch.Tensor]:
    """Gives some of the patches, by rows, in units of their spread: of many there is no second copy."""
    import torch

    x = torch.as_tensor(patches.data)
    mean, spread = (values[:, None, None] for values in mean_and_spread(x))

    def normalised(rows: Any) -> torch.Tensor:
        some: torch.Tensor = (x[rows] - mean) / spread
        if patches.settings.normalization == "patch":
            some = some / some.std((1, 2, 3), keepdim=True).clamp_min(1e-6)
        return some

    return normalised


def _found(
    finder: PoseFinder,
    normalised: Callable[[Any], torch.Tensor],
    count: int,
    device: str,
    tell: Callable[[float, str], None],
) -> Assignment:
    """Class and pose of all patches, block by block."""
    import torch

    from napari_rvae.averages.search import Assignment

    parts, block = [], at_once(_BLOCK, device)
    finder.to(device)
    for start in range(0, count, block):
        tell(0.9 + 0.1 * start / count, "Assigning all patches")
        parts.append(finder.find(normalised(slice(start, start + block)).to(device)))
    finder.cpu()
    return Assignment(*(torch.cat([getattr(part, item.name) for part in parts]).cpu() for item in fields(Assignment)))


def _mean_images(
    normalised: Callable[[Any], torch.Tensor],
    which: NDArray[np.int64],
    theta: torch.Tensor,
    shape: torch.Tensor,
    inner: NDArray[np.int64],
    count: int,
) -> NDArray[np.float32]:
    """Means of all members within the image, their poses taken out, at full size."""
    import torch

    from napari_rvae.poses import Resampler

    one = normalised(slice(0, 1))
    resample = Resampler(one.shape[-1])
    sums, counts = torch.zeros(count, *one.shape[1:]), np.bincount(which[inner], minlength=count)
    for rows in np.split(inner, range(_BLOCK, len(inner), _BLOCK)):
        sums.index_add_(0, torch.as_tensor(which[rows]), resample(normalised(rows), shape[rows], theta[rows]))
    return (sums / torch.as_tensor(counts).clamp_min(1)[:, None, None, None]).numpy()
