"""Capacities: how much latents and classes are to say, and what it costs, growing while a model learns.

Burgess et al., arXiv:1804.03599, eq. 8; for classes Dupont, NeurIPS 31 (2018), eq. 7.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from napari_rvae.settings import TrainSettings


class Capacity(NamedTuple):
    """What is aimed at, in nats; None where nothing is: then only beta holds it down.

    Attributes
    ----------
    latents, classes : float or None
        Kullback-Leibler divergence of z, and of the class, from what is known before a patch is seen.
    beta : float
        Weight of what is off them.
    """

    latents: float | None
    classes: float | None
    beta: float


def capacity_at(settings: TrainSettings, epoch: float) -> Capacity:
    """Tell what is aimed at in an epoch.

    Parameters
    ----------
    settings : TrainSettings
        Of a training; models without classes have no capacity of them.
    epoch : float
        From 1.

    Returns
    -------
    Capacity
        Growing in proportion to the epochs up to the end value; of K classes at most log K.
    """

    def share(epochs: int) -> float:
        return min(1.0, epoch / epochs)

    latents = settings.latent_capacity
    classes = settings.class_capacity if settings.family in ("joint", "semi") else None
    if latents is not None:
        latents *= share(settings.latent_capacity_epochs)
    if classes is not None:
        most = math.log(settings.classes or 2)
        classes = min(classes * share(settings.class_capacity_epochs), most)
    return Capacity(latents, classes, settings.beta * share(settings.beta_epochs))


def growing_until(settings: TrainSettings) -> int:
    """Last epoch in which a capacity or beta grows; 0 where none does.

    Parameters
    ----------
    settings : TrainSettings
        Of a training.

    Returns
    -------
    int
    """
    end = capacity_at(settings, 1)
    latents = settings.latent_capacity_epochs if end.latents is not None else 0
    beta = settings.beta_epochs if settings.beta_epochs > 1 else 0
    return max(latents, beta, settings.class_capacity_epochs if end.classes is not None else 0)
