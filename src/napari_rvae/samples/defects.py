"""Defects of graphene: bonds are cut, turned or joined, then the sheet relaxes like a net of springs."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

DEFECTS = ("C bulk", "C at vacancy", "C at 5-8-5", "C at 5-7", "Si 3-fold", "Si 4-fold")
_SILICON_BOND = 1.25  # in carbon bonds
_SECOND = 0.15  # stiffness between second neighbours, in that of a bond


def defective(
    positions: NDArray[np.float64], bond: float, field: float, count: int, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Place defects of every kind in turn, far from each other and from the border.

    Parameters
    ----------
    positions : ndarray, (n, 2)
        Perfect graphene, nm.
    bond : float
        Length of a bond, nm.
    field : float
        Side of the image, nm.
    count : int
        Number of defects, fewer where they do not fit.
    rng : numpy.random.Generator
        Chooses the places.

    Returns
    -------
    positions : ndarray, (m, 2)
        Relaxed, without the atoms that were removed.
    kind : ndarray, int64, (m,)
        Index into `DEFECTS`.
    """
    from scipy.spatial import cKDTree

    pairs = cKDTree(positions).query_pairs(1.1 * bond)
    neighbors: list[set[int]] = [set() for _ in positions]
    for i, j in pairs:
        neighbors[i].add(j)
        neighbors[j].add(i)
    positions, kind, alive = positions.copy(), np.zeros(len(positions), np.int64), np.ones(len(positions), bool)
    for number, atom in enumerate(_places(positions, bond, field, count, rng)):
        other = int(rng.choice(sorted(neighbors[atom])))
        _place(1 + number % (len(DEFECTS) - 1), atom, other, positions, neighbors, kind, alive)
    relaxed = _relaxed(positions, neighbors, kind, bond)
    return relaxed[alive], kind[alive]


def _places(positions: NDArray[Any], bond: float, field: float, count: int, rng: np.random.Generator) -> list[int]:
    chosen: list[int] = []
    for atom in rng.permutation(len(positions)):
        here = positions[atom]
        inside = np.all((here > 4 * bond) & (here < field - 4 * bond))
        if inside and all(np.linalg.norm(here - positions[k]) > 8 * bond for k in chosen):
            chosen.append(int(atom))
        if len(chosen) == count:
            break
    return chosen


def _place(
    defect: int,
    atom: int,
    other: int,
    positions: NDArray[Any],
    neighbors: list[set[int]],
    kind: NDArray[Any],
    alive: NDArray[Any],
) -> None:
    """Change bonds, kinds and who is there; `atom` and `other` are bonded."""
    mine, others = sorted(neighbors[atom] - {other}), sorted(neighbors[other] - {atom})
    if DEFECTS[defect] == "C at vacancy":
        kind[sorted(neighbors[atom])] = defect
        _remove(atom, neighbors, alive)
    elif DEFECTS[defect] == "C at 5-8-5":
        kind[mine + others] = defect
        for gone in (atom, other):
            _remove(gone, neighbors, alive)
        for i, j in (mine, others):
            _join(i, j, neighbors)
    elif DEFECTS[defect] == "C at 5-7":
        _turn_bond(atom, other, positions, neighbors)
        kind[[atom, other, *mine, *others]] = defect
    elif DEFECTS[defect] == "Si 3-fold":
        kind[atom] = defect
    else:
        kind[atom] = defect
        positions[atom] = (positions[atom] + positions[other]) / 2
        _remove(other, neighbors, alive)
        for j in others:
            _join(atom, j, neighbors)


def _remove(atom: int, neighbors: list[set[int]], alive: NDArray[Any]) -> None:
    for j in neighbors[atom]:
        neighbors[j].discard(atom)
    neighbors[atom] = set()
    alive[atom] = False


def _join(i: int, j: int, neighbors: list[set[int]]) -> None:
    neighbors[i].add(j)
    neighbors[j].add(i)


def _turn_bond(i: int, j: int, positions: NDArray[Any], neighbors: list[set[int]]) -> None:
    """Turn the pair by 90 degrees; each end keeps one neighbour and takes over one of the other's."""
    outer = sorted((neighbors[i] | neighbors[j]) - {i, j})
    middle, half = (positions[i] + positions[j]) / 2, (positions[j] - positions[i]) / 2
    quarter = np.array([half[1], -half[0]])
    positions[i], positions[j] = middle - quarter, middle + quarter
    for k in outer:
        neighbors[k] -= {i, j}
    neighbors[i], neighbors[j] = {j}, {i}
    for k in outer:
        nearer = min((i, j), key=lambda end: float(np.linalg.norm(positions[end] - positions[k])))
        _join(nearer, k, neighbors)


def _relaxed(
    positions: NDArray[Any], neighbors: list[set[int]], kind: NDArray[Any], bond: float
) -> NDArray[np.float64]:
    """Minimise the energy of springs between first and second neighbours."""
    from scipy.optimize import minimize

    silicon = kind >= len(DEFECTS) - 2
    first = {(i, j) for i, around in enumerate(neighbors) for j in around if i < j}
    second = {(min(j, k), max(j, k)) for around in neighbors for j in around for k in around if j != k} - first
    springs = np.array(sorted(first) + sorted(second))
    stiffness = np.r_[np.ones(len(first)), np.full(len(second), _SECOND)]
    carbon_length = np.r_[np.ones(len(first)), np.full(len(second), np.sqrt(3))] * bond
    length = carbon_length * np.where(silicon[springs].any(1), _SILICON_BOND, 1.0)
    i, j = springs.T

    def energy(flat: NDArray[Any]) -> tuple[float, NDArray[Any]]:
        apart = flat.reshape(-1, 2)[i] - flat.reshape(-1, 2)[j]
        distance = np.linalg.norm(apart, axis=1)
        excess = distance - length
        pull = (stiffness * excess / distance)[:, None] * apart
        gradient = np.zeros((len(positions), 2))
        np.add.at(gradient, i, pull)
        np.add.at(gradient, j, -pull)
        return 0.5 * float(stiffness @ excess**2), gradient.ravel()

    found = minimize(energy, positions.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": 200})
    return np.asarray(found.x).reshape(-1, 2)
