"""The inner loops, compiled by numba; all data in, data out, no locks held."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np


def compiled(function: Callable[..., Any]) -> Any:
    """Compile with numba, keeping the result on disk where there is a place for it."""
    try:
        return numba.njit(cache=True, nogil=True, fastmath=True, error_model="numpy")(function)
    except RuntimeError:  # neither the package nor the user's cache folder can be written
        return numba.njit(nogil=True, fastmath=True, error_model="numpy")(function)


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
def _normal_equations(  # type: ignore[no-untyped-def]
    data, light, valid, rows, columns, atom, noise, free_sigma, along_x, matrix, vector,
):  # fmt: skip
    """Fill in the weighted normal equations for (amplitude, background, y, x, sigma) of one atom in its window.

    Along a row only the distance in x changes, so sums of its powers are all that the inner loop needs. `atom` is
    placed in the window's own pixels.
    """
    py, px, a, b, s = atom[0], atom[1], atom[2], atom[3], atom[4]
    gain, floor, least = noise[0], noise[1], noise[2]
    c = -0.5 / (s * s)
    for x in range(columns):
        along_x[x] = np.exp(c * (x - px) ** 2)
    matrix[:] = 0.0
    vector[:] = 0.0
    for y in range(rows):
        here, others, counts = data[y], light[y], valid[y]
        dy = y - py
        top = np.exp(c * dy * dy)
        w0 = w1 = w2 = u1 = u2 = v2 = r0 = r1 = ru = v1 = k3 = k4 = rv = 0.0
        for x in range(columns):
            g, dx = along_x[x], x - px
            model = a * top * g + b + others[x]
            w = counts[x] / max(gain * model + floor, least)
            wg, r = w * g, w * (here[x] - model)
            rg, wgg = r * g, wg * g
            w0 += w
            w1 += wg
            w2 += wgg
            u1 += wg * dx
            u2 += wgg * dx
            v2 += wgg * dx * dx
            r0 += r
            r1 += rg
            ru += rg * dx
            if free_sigma:
                v1 += wg * dx * dx
                k3 += wgg * dx * dx * dx
                k4 += wgg * dx * dx * dx * dx
                rv += rg * dx * dx
        slope, square, d2 = a / (s * s), top * top, dy * dy
        matrix[0, 0] += square * w2
        matrix[1, 0] += top * w1
        matrix[1, 1] += w0
        matrix[2, 0] += slope * dy * square * w2
        matrix[2, 1] += slope * dy * top * w1
        matrix[2, 2] += slope * slope * d2 * square * w2
        matrix[3, 0] += slope * square * u2
        matrix[3, 1] += slope * top * u1
        matrix[3, 2] += slope * slope * dy * square * u2
        matrix[3, 3] += slope * slope * square * v2
        vector[0] += top * r1
        vector[1] += r0
        vector[2] += slope * dy * top * r1
        vector[3] += slope * top * ru
        if free_sigma:
            widen = slope / s
            matrix[4, 0] += widen * square * (d2 * w2 + v2)
            matrix[4, 1] += widen * top * (d2 * w1 + v1)
            matrix[4, 2] += widen * slope * dy * square * (d2 * w2 + v2)
            matrix[4, 3] += widen * slope * square * (d2 * u2 + k3)
            matrix[4, 4] += widen * widen * square * (d2 * d2 * w2 + 2 * d2 * v2 + k4)
            vector[4] += widen * top * (d2 * r1 + rv)
    for m in range(5):
        for n in range(m):
            matrix[n, m] = matrix[m, n]


@compiled
def _move(atom, vector, use, start, reach, last_y, last_x):  # type: ignore[no-untyped-def]
    """Take one step, not too far at once, not too far in all, not out of the image."""
    atom[2] += vector[0]
    atom[3] += vector[1]
    if use > 2 and atom[2] > 0.0:
        limit = 0.5 * atom[4]
        for axis in range(2):
            moved = atom[axis] + min(max(vector[2 + axis], -limit), limit) - start[axis]
            atom[axis] = start[axis] + min(max(moved, -reach), reach)
        atom[0] = min(max(atom[0], last_y[0]), last_y[1])
        atom[1] = min(max(atom[1], last_x[0]), last_x[1])
    if use > 4:
        atom[4] = min(max(atom[4] + vector[4], 0.5 * atom[4]), 1.5 * atom[4])


@compiled
def _cut_window(pixels, invalid, model, atom, center, radius, top, left, rows, columns, along_x, data, light, valid):  # type: ignore[no-untyped-def]
    """Copy an atom's window: the image, what the drawn image `model` shows there of others, and which pixels count.

    `atom` and `center` are placed in the window's own pixels.
    """
    c = -0.5 / (atom[4] * atom[4])
    for x in range(columns):
        along_x[x] = np.exp(c * (x - atom[1]) ** 2)
    for y in range(rows):
        source, target, counts = pixels[top + y, left:], data[y], valid[y]
        reach = radius * radius - (y - center[0]) ** 2
        for x in range(columns):
            target[x] = source[x]
            counts[x] = 1.0 if (x - center[1]) ** 2 <= reach else 0.0
        if invalid.size > 1:
            for x in range(columns):
                counts[x] *= 1.0 - invalid[top + y, left + x]
        others = light[y]
        if model.size > 1:
            drawn, own = model[top + y, left:], atom[2] * np.exp(c * (y - atom[0]) ** 2)
            for x in range(columns):
                others[x] = drawn[x] - own * along_x[x]
        else:
            others[:columns] = 0.0


@compiled
def fit_range(  # type: ignore[no-untyped-def]
    pixels, invalid, model, start, radius, noise, reach, free_sigma, iterations, first, last, values, variances,
):  # fmt: skip
    """Fit atoms `first` to `last`, in place, to the image less the others of the drawn image `model`.

    `noise` is (gain, floor, least); a `model` of one pixel is dark.
    """
    height, width = pixels.shape
    side = 2 * int(np.ceil(np.max(radius))) + 3
    data, light, valid = np.empty((side, side)), np.empty((side, side)), np.empty((side, side))
    along_x = np.empty(side)
    matrix, vector, atom, center = np.empty((5, 5)), np.empty(5), np.empty(5), np.empty(2)
    size = 5 if free_sigma else 4
    for i in range(first, last):
        r = radius[i]
        y0, y1 = max(0, int(np.ceil(start[i, 0] - r))), min(height, int(np.floor(start[i, 0] + r)) + 1)
        x0, x1 = max(0, int(np.ceil(start[i, 1] - r))), min(width, int(np.floor(start[i, 1] + r)) + 1)
        if y1 - y0 < 2 or x1 - x0 < 2:
            continue
        atom[:] = values[i]
        rows, columns = y1 - y0, x1 - x0
        center[0], center[1] = start[i, 0] - y0, start[i, 1] - x0
        atom[0] -= y0
        atom[1] -= x0
        _cut_window(pixels, invalid, model, atom, center, r, y0, x0, rows, columns, along_x, data, light, valid)
        fine = True
        for step in range(iterations + 1):
            _normal_equations(data, light, valid, rows, columns, atom, noise, free_sigma, along_x, matrix, vector)
            use = 2 if step == 0 and atom[2] == 0.0 else size  # no amplitude, no gradient to move along
            fine = _solve(matrix, vector, use)
            if not fine or step == iterations:
                break
            _move(atom, vector, use, center, reach, (-0.5 - y0, height - 0.5 - y0), (-0.5 - x0, width - 0.5 - x0))
        if not fine:
            values[i, 2] = 0.0
            continue
        atom[0] += y0
        atom[1] += x0
        values[i] = atom
        variances[i, 0], variances[i, 1] = matrix[2, 2], matrix[3, 3]
        variances[i, 2], variances[i, 3] = matrix[0, 0], matrix[1, 1]
        variances[i, 4] = matrix[4, 4] if size > 4 else 0.0


@compiled
def render(image, values, reach, top, bottom):  # type: ignore[no-untyped-def]
    """Add all columns to the rows from `top` to `bottom` of an image, in place, out to `reach` sigmas."""
    width = image.shape[1]
    for i in range(values.shape[0]):
        s = values[i, 4]
        r = reach * s
        y0, y1 = max(top, int(values[i, 0] - r)), min(bottom, int(values[i, 0] + r) + 2)
        if y0 >= y1:
            continue
        c = -0.5 / (s * s)
        x0, x1 = max(0, int(values[i, 1] - r)), min(width, int(values[i, 1] + r) + 2)
        along_x = np.exp(c * (np.arange(x0, x1) - values[i, 1]) ** 2).astype(np.float32)
        for y in range(y0, y1):
            height = np.float32(values[i, 2] * np.exp(c * (y - values[i, 0]) ** 2))
            for x in range(x0, x1):
                image[y, x] += height * along_x[x - x0]


@compiled
def drop_second(keep, pairs):  # type: ignore[no-untyped-def]
    """Of every pair, drop the second in place, unless the first has been dropped before."""
    for k in range(pairs.shape[0]):
        if keep[pairs[k, 0]]:
            keep[pairs[k, 1]] = False
