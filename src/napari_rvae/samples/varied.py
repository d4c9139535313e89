"""Specimens under many microscopes: what a finder learns from when nobody has corrected an image yet."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np

from napari_rvae.samples.crystals import graphene, interface
from napari_rvae.samples.microscope import Microscope, Scene

SIDE = 320  # pixels


def varied_scene(specimen: Literal["graphene", "interface"], seed: int, dose: float | None = None) -> Scene:
    """Simulate a specimen at a random magnification, sharpness, dose and contamination.

    Parameters
    ----------
    specimen : {"graphene", "interface"}
        What is seen.
    seed : int
        The same seed gives the same image.
    dose : float, optional
        Counts at the peak of a column; at random between 1 and 12 when None.

    Returns
    -------
    Scene
        Doses go down to where atoms are seen by nobody one by one.
    """
    rng = np.random.default_rng([seed, 3])
    drawn = float(np.exp(rng.uniform(np.log(1.0), np.log(12.0))))
    plain = Microscope(size=SIDE, dose=dose or drawn, contamination=rng.uniform(0.1, 1.0), jitter=rng.uniform(0, 0.3))
    plain = replace(plain, readout=rng.uniform(0, 0.5))
    if specimen == "graphene":
        pixel, sigma = rng.uniform(0.010, 0.015), rng.uniform(0.032, 0.048)
        return graphene(replace(plain, pixel_size=pixel, sigma=sigma, background=0.15, drift=2.0, wobble=0.3), seed)
    pixel, sigma = rng.uniform(0.015, 0.025), rng.uniform(0.035, 0.055)
    return interface(replace(plain, pixel_size=pixel, sigma=sigma), seed)
