"""Simulated scenes of the benchmarks that the package's own samples do not hold. Lengths are in nm unless they say px.

Every scene is a `napari_rvae.samples.Scene`: image, a truth table with ``y``, ``x`` (px) and ``class``, class names.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from napari_rvae import samples
from napari_rvae.samples import Columns, Microscope, lattice
from napari_rvae.samples.microscope import EXPONENT

SHEET = Microscope(pixel_size=0.014, sigma=0.033, background=0.15, contamination=0.6, drift=2, wobble=0.3, jitter=0.2)
MOS2 = Microscope(pixel_size=0.016, sigma=0.038, contamination=0.2, drift=3, wobble=0.4, jitter=0.2)
MOS2_CLASSES = ("Mo", "S2", "W on Mo", "V_S (one S)", "Se on S")
MO, S2, W, ONE_S, SES = range(len(MOS2_CLASSES))


def graphene(seed=0, size=768, defects=50, dose=40.0):
    """Graphene with vacancies, turned bonds and silicon: ten of each in 4300 atoms, as densely as they are found."""
    return samples.graphene(replace(SHEET, size=size, dose=dose), seed, defects)


def mos2(seed=0, size=640, each=44, dose=40.0):
    """A monolayer of MoS2: W on Mo, single and double S vacancies, Se on S; `each` kind so often within the image."""
    microscope = replace(MOS2, size=size, dose=dose)
    rng = np.random.default_rng([seed, 3])
    vectors = 0.316 * np.array([[0, 1], [np.sqrt(0.75), 0.5]])
    positions, site = lattice(vectors, [[0, 0], [1 / 3, 1 / 3]], microscope.field, rng.uniform(0, np.pi / 3))
    inside = np.all((positions > 0.15) & (positions < microscope.field - 0.15), 1)
    kind = site.copy()  # Mo and S2
    metal, sulphur = (rng.permutation(np.flatnonzero(inside & (site == k))) for k in (MO, S2))
    kind[metal[:each]] = W
    kind[sulphur[:each]] = ONE_S
    kind[sulphur[each : 2 * each]] = SES
    empty = sulphur[2 * each : 2 * each + each // 3]
    sulphur_atom = 16**EXPONENT
    strength = np.array([42**EXPONENT, 2 * sulphur_atom, 74**EXPONENT, sulphur_atom, sulphur_atom + 34**EXPONENT])
    positions = positions + 0.003 * rng.standard_normal(positions.shape)
    kept = np.setdiff1d(np.arange(len(kind)), empty)
    columns = Columns(positions[kept], strength[kind[kept]], pd.DataFrame({"class": kind[kept]}), MOS2_CLASSES)
    return _relative_to(microscope, float(strength[W] / strength[MO])).record("MoS2 monolayer", columns, seed)


def _relative_to(microscope, ratio):
    """Dose and background in units of a column that is weaker than the strongest by `ratio`."""
    return replace(
        microscope,
        dose=microscope.dose * ratio,
        background=microscope.background / ratio,
        contamination=microscope.contamination / ratio,
    )
