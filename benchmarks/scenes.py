"""Simulated scenes of the benchmarks that the package's own samples do not hold. Lengths are in nm unless they say px.

Every scene is a `napari_rvae.samples.Scene`: image, a truth table with ``y``, ``x`` (px) and ``class``, class names.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree

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


def strained(seed=0, size=512, most=0.03, dose=40.0):
    """A perovskite under pure strain that varies from 0 to `most`, without drift; the scan would strain it as well.

    The truth holds ``strain_xx`` and ``strain_xy`` of the deviatoric logarithmic strain in the image, and the metadata
    the ``rotation`` of the unstrained lattice and its ``vectors`` to the neighbours, y and x in px.
    """
    microscope = Microscope(size=size, dose=dose, drift=0, wobble=0)
    rng = np.random.default_rng([seed, 4])
    constant, rotation = 0.39, rng.uniform(-0.3, 0.3)
    points, site = lattice(constant * np.eye(2), [[0, 0], [0.5, 0.5]], microscope.field, rotation)
    waves = 2 * np.pi / rng.uniform(4, 8, 4)
    direction, phase = rng.uniform(0, 2 * np.pi, (2, 4))
    q = waves * np.stack([np.sin(direction), np.cos(direction)])  # y, x
    argument = points @ q + phase
    # displacements are the curl of a sum of waves, so that no place is stretched in both directions
    curl = np.stack([-q[1], q[0]])
    shift = np.cos(argument) @ (curl / waves**2).T
    gradient = -np.einsum("nk,ik,jk->nij", np.sin(argument), curl / waves**2, q)
    largest = np.linalg.norm(_pure_strain(np.eye(2) + 0.01 * gradient), axis=1).max() / 0.01
    scale = most / largest
    strain = _pure_strain(np.eye(2) + scale * gradient)
    truth = pd.DataFrame({"class": site, "strain_xx": strain[:, 0], "strain_xy": strain[:, 1]})
    strength = np.where(site == 0, 57**EXPONENT, 25**EXPONENT + 8**EXPONENT)
    columns = Columns(points + scale * shift, strength, truth, ("A", "B"))
    scene = microscope.record("strained perovskite", columns, seed)
    vectors = constant / microscope.pixel_size * np.array([[0.5, 0.5], [0.5, -0.5], [1, 0], [0, 1]])
    turn = np.array([[np.cos(rotation), np.sin(rotation)], [-np.sin(rotation), np.cos(rotation)]])
    vectors = np.concatenate([vectors, -vectors]) @ turn.T
    return replace(scene, metadata=scene.metadata | {"rotation": rotation, "vectors": vectors})


def _pure_strain(gradient):
    """xx and xy of the deviatoric part of log V, V the left stretch of deformation gradients (n, 2, 2), y before x."""
    value, vector = np.linalg.eigh(gradient @ gradient.swapaxes(1, 2))
    stretch = (vector * (0.5 * np.log(value))[:, None, :]) @ vector.swapaxes(1, 2)
    return np.stack([(stretch[:, 1, 1] - stretch[:, 0, 0]) / 2, stretch[:, 0, 1]], 1)


def strain_of_neighbors(positions, vectors):
    """Pure strain (xx, xy) at each position by a least-squares fit to its neighbours; nan where some are missing."""
    reach = 0.3 * np.linalg.norm(vectors, axis=1).min()
    distance, index = cKDTree(positions).query(positions[:, None] + vectors[None], distance_upper_bound=reach)
    complete = np.isfinite(distance).all(1)
    found = positions[index[complete]] - positions[complete][:, None]
    gradient = np.einsum("nvi,vj->nij", found, vectors) @ np.linalg.inv(vectors.T @ vectors)
    strain = np.full((len(positions), 2), np.nan)
    strain[complete] = _pure_strain(gradient)
    return strain


def noise_free(size=400, constant=21.5, sigma=2.3, rotation=0.2):
    """A lattice of two sites without any noise; image and positions (px)."""
    margin = 20
    points, site = lattice(constant * np.eye(2), [[0, 0], [0.5, 0.5]], size + 2 * margin, rotation)
    image, window = np.zeros((size + 4 * margin,) * 2), np.arange(-14, 15)
    for (y, x), strength in zip(points + margin, np.where(site == 0, 1.0, 0.5), strict=True):
        rows, columns = window + round(y), window + round(x)
        spot = np.exp(-((rows[:, None] - y) ** 2 + (columns - x) ** 2) / (2 * sigma**2))
        image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] += strength * spot
    image, points = image[2 * margin : -2 * margin, 2 * margin : -2 * margin], points - margin
    inside = np.all((points > 0) & (points < size - 1), 1)
    return image.astype(np.float32), points[inside]


MOLECULES = (
    [(-1, 0), (1, 0), (0, -1), (0, 1)],
    [(-1.3, 0), (0, 0), (1.3, 0)],
    [(-0.9, -0.5), (0.9, -0.5), (0, 0.9)],
    [(-1, -0.6), (0, 0), (1, -0.6)],
)


def molecules(seed=0, size=400, dose=6.0):
    """Molecules of four kinds and any orientation on two terraces, counts with line noise; and their middles (px)."""
    rng = np.random.default_rng([seed, 5])
    arm, sigma = rng.uniform(4.5, 6.5), rng.uniform(1.8, 2.8)
    middles = [rng.uniform(0, size, 2)]
    for place in rng.uniform(-8, size + 8, (6000, 2)):
        if np.min(np.hypot(*(np.array(middles) - place).T)) > 4.6 * arm:
            middles.append(place)
    y, x = np.mgrid[:size, :size]
    image = rng.uniform(0.3, 1.2) / (1 + np.exp(-(x - 0.4 * size - rng.uniform(-0.5, 0.5) * y) / 3))
    for place in middles:
        spots, turn = arm * np.array(MOLECULES[rng.integers(len(MOLECULES))], float), rng.uniform(0, 2 * np.pi)
        rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        for top, left in place + (spots - spots.mean(0)) @ rotation:
            image += np.exp(-((y - top) ** 2 + (x - left) ** 2) / (2 * sigma**2))
    counts = rng.poisson(dose * (image + 0.2)) + rng.normal(0, 0.8, image.shape) + rng.normal(0, 0.5, (size, 1))
    middles = np.array(middles)
    return counts, middles[np.all((middles > 0) & (middles < size - 1), axis=1)]
