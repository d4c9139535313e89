"""Specimens: an oxide interface, graphene with defects, and any two-dimensional lattice."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from napari_rvae.samples.defects import DEFECTS, defective
from napari_rvae.samples.microscope import EXPONENT, Columns, Microscope, Scene

_OXYGEN = 8**EXPONENT
_MARGIN = 0.6  # nm of crystal beyond the image, so that drift brings in no vacuum


def lattice(
    vectors: ArrayLike, basis: ArrayLike, field: float, rotation: float = 0.0
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Fill a square field with a lattice.

    Parameters
    ----------
    vectors : array_like, (2, 2)
        The two lattice vectors, each y, x in nm.
    basis : array_like, (m, 2)
        Sites in the cell, in fractions of the vectors.
    field : float
        Side of the field in nm; the lattice reaches .6 nm beyond it.
    rotation : float
        Angle of the lattice in rad, turning +x toward +y.

    Returns
    -------
    positions : ndarray, (n, 2)
        y, x in nm.
    site : ndarray, int64, (n,)
        Index into the basis.
    """
    turn = np.array([[np.cos(rotation), np.sin(rotation)], [-np.sin(rotation), np.cos(rotation)]])  # acts on y, x
    a, b = np.asarray(vectors, float) @ turn.T
    longest, area = max(np.linalg.norm(a), np.linalg.norm(b)), abs(a[0] * b[1] - a[1] * b[0])
    cells = int(np.ceil(2 * (field + 2 * _MARGIN) * longest / area))
    i, j = (index.reshape(-1, 1) for index in np.mgrid[-cells : cells + 1, -cells : cells + 1])
    fractions = np.asarray(basis, float)
    site = np.repeat(np.arange(len(fractions)), len(i))
    positions = np.concatenate([(i + f) * a + (j + g) * b for f, g in fractions]) + field / 2
    inside = np.all((positions > -_MARGIN) & (positions < field + _MARGIN), 1)
    return positions[inside], site[inside]


def interface(microscope: Microscope | None = None, seed: int = 0) -> Scene:
    """Simulate the interface of a perovskite, (La,Sr)MnO3, with rock-salt NiO, seen along [100].

    Parameters
    ----------
    microscope : Microscope, optional
        How the image is taken.
    seed : int
        The same seed gives the same image.

    Returns
    -------
    Scene
        Classes: A (La,Sr), B (Mn-O), Ni-O; the truth has ``distance`` to the interface in pixels, positive in NiO.
    """
    microscope = microscope or Microscope()
    rng = np.random.default_rng([seed, 1])
    rotation, field = rng.uniform(-0.3, 0.3), microscope.field
    perovskite, site = lattice(0.388 * np.eye(2), [[0.0, 0.0], [0.5, 0.5]], field, rotation)
    rock_salt, _ = lattice(0.209 * np.eye(2), [[0, 0]], field, rotation)
    normal, middle = np.array([np.sin(rotation), np.cos(rotation)]), np.full(2, field / 2)  # along the lattice's x
    left, right = ((points - middle) @ normal for points in (perovskite, rock_salt))
    keep_left, keep_right = left < 0.05, right > 0.1  # the last plane of A is the interface
    positions = np.concatenate([perovskite[keep_left], rock_salt[keep_right]])
    kind = np.concatenate([site[keep_left], np.full(keep_right.sum(), 2)])
    strontium = rng.uniform(0.2, 0.4, len(kind))  # it varies from column to column
    a_site = (1 - strontium) * 57**EXPONENT + strontium * 38**EXPONENT
    strength = np.choose(kind, [a_site, 25**EXPONENT + _OXYGEN, 28**EXPONENT + _OXYGEN])
    distance = np.concatenate([left[keep_left], right[keep_right]]) / microscope.pixel_size
    positions = positions + 0.006 * rng.standard_normal(positions.shape)
    classes = ("A (La,Sr)", "B (Mn-O)", "Ni-O")
    columns = Columns(positions, strength, pd.DataFrame({"class": kind, "distance": distance}), classes)
    return microscope.record("oxide interface", columns, seed)


def graphene(microscope: Microscope | None = None, seed: int = 0, defects: int = 20) -> Scene:
    """Simulate graphene with silicon atoms, vacancies, and pairs of pentagons and heptagons.

    Parameters
    ----------
    microscope : Microscope, optional
        How the image is taken.
    seed : int
        The same seed gives the same image.
    defects : int
        How many are placed, as far as they fit.

    Returns
    -------
    Scene
        Classes: carbon in the bulk, at a vacancy, at a divacancy (5-8-5), at a turned bond (5-7), silicon with three
        and with four neighbours.
    """
    bond = 0.142
    microscope = microscope or Microscope(
        pixel_size=0.014, sigma=0.033, background=0.15, contamination=0.6, drift=2.0, wobble=0.3, jitter=0.2
    )
    rng = np.random.default_rng([seed, 2])
    vectors = bond * np.sqrt(3) * np.array([[0, 1], [np.sqrt(0.75), 0.5]])
    positions, _ = lattice(vectors, [[0.0, 0.0], [1 / 3, 1 / 3]], microscope.field, rng.uniform(0, np.pi / 3))
    positions, kind = defective(positions, bond, microscope.field, defects, rng)
    strength = np.where(kind >= len(DEFECTS) - 2, 14.0, 6.0) ** EXPONENT
    ratio = float(strength.max()) / 6**EXPONENT  # dose and background are those of a carbon atom
    microscope = replace(
        microscope,
        dose=microscope.dose * ratio,
        background=microscope.background / ratio,
        contamination=microscope.contamination / ratio,
    )
    columns = Columns(positions, strength, pd.DataFrame({"class": kind}), DEFECTS)
    return microscope.record("graphene with defects", columns, seed)
