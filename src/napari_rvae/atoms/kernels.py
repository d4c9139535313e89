"""The inner loops, compiled by numba; all data in, data out, no locks held."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np


def compiled(function: Callable[..., Any]) -> Any:
    """Compile with numba, keeping the result on disk where there is a place for it."""
    try:
        return numba.njit(cache=True, nogil=True, fastmath=True)(function)
    except RuntimeError:  # neither the package nor the user's cache folder can be written
        return numba.njit(nogil=True, fastmath=True)(function)


@compiled
def _solve(matrix, vector, size):  # type: ignore[no-untyped-def]
    """Solve in place by Gauss-Jordan; `matrix` becomes its inverse, `vector` the solution. False if singular."""
    for i in range(size):
        pivot = matrix[i, i]
        if pivot <= 1e-30:
            return False
        inverse = 1.0 / pivot
        matrix[i, i] = 1.0
        for j in range(size):
            matrix[i, j] *= inverse
        vector[i] *= inverse
        for k in range(size):
            if k != i:
                factor = matrix[k, i]
                matrix[k, i] = 0.0
                for j in range(size):
                    matrix[k, j] -= factor * matrix[i, j]
                vector[k] -= factor * vector[i]
    return True


@compiled
def _add_neighbours(light, everything, neighbours, y0, y1, x0, x1, along_y, along_x):  # type: ignore[no-untyped-def]
    """Draw an atom's neighbours into its window."""
    for j in neighbours:
        if j < 0:
            break
        c = -0.5 / (everything[j, 4] * everything[j, 4])
        for y in range(y0, y1):
            along_y[y - y0] = everything[j, 2] * np.exp(c * (y - everything[j, 0]) ** 2)
        for x in range(x0, x1):
            along_x[x - x0] = np.exp(c * (x - everything[j, 1]) ** 2)
        for y in range(y1 - y0):
            for x in range(x1 - x0):
                light[y, x] += along_y[y] * along_x[x]


@compiled
def _normal_equations(  # type: ignore[no-untyped-def]
    pixels, invalid, light, atom, center, radius, noise, size, y0, y1, x0, x1, along_y, along_x, matrix, vector,
):  # fmt: skip
    """Fill in the weighted normal equations for (amplitude, background, y, x, sigma) of one atom."""
    py, px, a, b, s = atom[0], atom[1], atom[2], atom[3], atom[4]
    row = np.empty(5)
    matrix[:] = 0.0
    vector[:] = 0.0
    c = -0.5 / (s * s)
    for y in range(y0, y1):
        along_y[y - y0] = np.exp(c * (y - py) ** 2)
    for x in range(x0, x1):
        along_x[x - x0] = np.exp(c * (x - px) ** 2)
    for y in range(y0, y1):
        dy = y - py
        for x in range(x0, x1):
            dx = x - px
            outside = (y - center[0]) ** 2 + (x - center[1]) ** 2 > radius * radius
            if outside or (invalid.size > 1 and invalid[y, x]):
                continue
            g = along_y[y - y0] * along_x[x - x0]
            model = a * g + b + light[y - y0, x - x0]
            weight = 1.0 / max(noise[0] * model + noise[1], noise[2])
            row[0] = g
            row[1] = 1.0
            row[2] = a * g * dy / (s * s)
            row[3] = a * g * dx / (s * s)
            row[4] = a * g * (dy * dy + dx * dx) / (s * s * s)
            for m in range(size):
                w = weight * row[m]
                vector[m] += w * (pixels[y, x] - model)
                for n in range(m + 1):
                    matrix[m, n] += w * row[n]
    for m in range(size):
        for n in range(m):
            matrix[n, m] = matrix[m, n]


@compiled
def _move(atom, vector, use, start, reach, height, width):  # type: ignore[no-untyped-def]
    """Take one step, not too far at once, not too far in all, not out of the image."""
    atom[2] += vector[0]
    atom[3] += vector[1]
    if use > 2 and atom[2] > 0.0:
        limit = 0.5 * atom[4]
        for axis in range(2):
            moved = atom[axis] + min(max(vector[2 + axis], -limit), limit) - start[axis]
            atom[axis] = start[axis] + min(max(moved, -reach), reach)
        atom[0] = min(max(atom[0], -0.5), height - 0.5)
        atom[1] = min(max(atom[1], -0.5), width - 0.5)
    if use > 4:
        atom[4] = min(max(atom[4] + vector[4], 0.5 * atom[4]), 1.5 * atom[4])


@compiled
def fit_range(  # type: ignore[no-untyped-def]
    pixels, invalid, everything, start, neighbours, radius, noise, reach, free_sigma, iterations, first, last,
    values, variances,
):  # fmt: skip
    """Fit atoms `first` to `last` into `values` and `variances`; `noise` is (gain, floor, least)."""
    height, width = pixels.shape
    side = 2 * int(np.ceil(np.max(radius))) + 3
    light = np.empty((side, side))
    along_y, along_x = np.empty(side), np.empty(side)
    matrix, vector, atom = np.empty((5, 5)), np.empty(5), np.empty(5)
    size = 5 if free_sigma else 4
    for i in range(first, last):
        r = radius[i]
        y0, y1 = max(0, int(np.ceil(start[i, 0] - r))), min(height, int(np.floor(start[i, 0] + r)) + 1)
        x0, x1 = max(0, int(np.ceil(start[i, 1] - r))), min(width, int(np.floor(start[i, 1] + r)) + 1)
        if y1 - y0 < 2 or x1 - x0 < 2:
            continue
        light[:] = 0.0
        _add_neighbours(light, everything, neighbours[i], y0, y1, x0, x1, along_y, along_x)
        atom[:] = values[i]
        fine = True
        for step in range(iterations + 1):
            _normal_equations(
                pixels, invalid, light, atom, start[i], r, noise, size, y0, y1, x0, x1, along_y, along_x, matrix, vector
            )
            use = 2 if step == 0 and atom[2] == 0.0 else size  # no amplitude, no gradient to move along
            fine = _solve(matrix, vector, use)
            if not fine or step == iterations:
                break
            _move(atom, vector, use, start[i], reach, height, width)
        if not fine:
            values[i, 2] = 0.0
            continue
        values[i] = atom
        variances[i, 0], variances[i, 1] = matrix[2, 2], matrix[3, 3]
        variances[i, 2], variances[i, 3] = matrix[0, 0], matrix[1, 1]
        variances[i, 4] = matrix[4, 4] if size > 4 else 0.0


@compiled
def render(image, values, reach):  # type: ignore[no-untyped-def]
    """Add all columns to `image`, in place, out to `reach` sigmas."""
    height, width = image.shape
    for i in range(values.shape[0]):
        s = values[i, 4]
        r = reach * s
        c = -0.5 / (s * s)
        y0, y1 = max(0, int(values[i, 0] - r)), min(height, int(values[i, 0] + r) + 2)
        x0, x1 = max(0, int(values[i, 1] - r)), min(width, int(values[i, 1] + r) + 2)
        along_x = np.exp(c * (np.arange(x0, x1) - values[i, 1]) ** 2)
        for y in range(y0, y1):
            top = values[i, 2] * np.exp(c * (y - values[i, 0]) ** 2)
            for x in range(x0, x1):
                image[y, x] += top * along_x[x - x0]


@compiled
def translated_mean(response, y0, y1, x0, x1, moves):  # type: ignore[no-untyped-def]
    """Mean, standard deviation and number of the response's values at translated copies of a block's pixels."""
    height, width = response.shape
    total = np.zeros((y1 - y0, x1 - x0), np.float32)
    square = np.zeros((y1 - y0, x1 - x0), np.float32)
    count = np.zeros((y1 - y0, x1 - x0), np.float32)
    for k in range(moves.shape[0]):
        dy, dx = moves[k, 0], moves[k, 1]
        left, right = max(x0 + dx, 0) - dx, min(x1 + dx, width) - dx
        for y in range(max(y0 + dy, 0) - dy, min(y1 + dy, height) - dy):
            for x in range(left, right):
                value = response[y + dy, x + dx]
                total[y - y0, x - x0] += value
                square[y - y0, x - x0] += value * value
                count[y - y0, x - x0] += 1
    for y in range(y1 - y0):
        for x in range(x1 - x0):
            n = max(count[y, x], np.float32(1))
            total[y, x] /= n
            square[y, x] = np.sqrt(max(square[y, x] / n - total[y, x] * total[y, x], np.float32(0)))
    return total, square, count
