"""The inner loops of looking for lattices, compiled by numba."""

from __future__ import annotations

import numpy as np

from napari_rvae.atoms.kernels import compiled

CANDIDATES = 14  # autocorrelation peaks that may span a lattice
STEPS = 4  # translations that must repeat, in lattice vectors


@compiled
def _peaks(correlation, center, shortest, reach):  # type: ignore[no-untyped-def]
    """The highest maxima (n, 2) of half of the plane, as vectors from the center, shortest first."""
    height, width = correlation.shape
    vectors, heights = [], []
    for y in range(int(center[0]), min(int(center[0] + reach) + 1, height - 1)):
        dy = y - center[0]
        for x in range(max(int(center[1] - reach), 1), min(int(center[1] + reach) + 2, width - 1)):
            dx = x - center[1]
            length = np.sqrt(dy * dy + dx * dx)
            if not shortest < length < reach or (dy == 0 and dx <= 0):
                continue
            here = correlation[y, x]
            if correlation[y - 1 : y + 2, x - 1 : x + 2].max() <= here:
                vectors.append((dy, dx, length))
                heights.append(-here)
    order = np.argsort(np.array(heights), kind="mergesort")[:CANDIDATES]
    chosen = np.empty((len(order), 3))
    for n in range(len(order)):
        chosen[n, 0], chosen[n, 1], chosen[n, 2] = vectors[order[n]]
    return chosen[np.argsort(chosen[:, 2], kind="mergesort")][:, :2]


@compiled
def _repeats(correlation, center, a, b, reach):  # type: ignore[no-untyped-def]
    """Mean autocorrelation over the translations spanned by two vectors."""
    total, count = 0.0, 0
    for i in range(STEPS + 1):
        for j in range(-STEPS, STEPS + 1):
            dy, dx = i * a[0] + j * b[0], i * a[1] + j * b[1]
            if (i > 0 or j > 0) and dy * dy + dx * dx <= reach * reach:
                total += correlation[round(center[0] + dy), round(center[1] + dx)]
                count += 1
    return total / max(count, 1)


@compiled
def best_pair(correlation, center, shortest, reach):  # type: ignore[no-untyped-def]
    """Vectors (2, 2) of the lattice in an autocorrelation, and the mean over its translations; 0 where there is none.

    Of pairs that repeat nearly as well as the best, the one with the smallest cell is the lattice.
    """
    best = np.zeros((2, 2))
    peaks = _peaks(correlation, center, shortest, reach)
    count = len(peaks)
    scores, areas = np.zeros((count, count)), np.zeros((count, count))
    highest = 0.0
    for i in range(count):
        for j in range(i + 1, count):
            a, b = peaks[i], peaks[j]
            areas[i, j] = abs(a[0] * b[1] - a[1] * b[0])
            if areas[i, j] > 0.45 * np.sqrt((a * a).sum() * (b * b).sum()):
                scores[i, j] = _repeats(correlation, center, a, b, reach)
                highest = max(highest, scores[i, j])
    score, least = 0.0, np.inf
    for i in range(count):
        for j in range(i + 1, count):
            if scores[i, j] > 0.85 * highest and areas[i, j] < least:
                least, score = areas[i, j], scores[i, j]
                best[0], best[1] = peaks[i], peaks[j]
    return best, score


@compiled
def polished(correlation, center, vectors, reach):  # type: ignore[no-untyped-def]
    """Lattice vectors (2, 2) fitted to the autocorrelation's own peaks near all translations."""
    shortest = np.sqrt(min((vectors[0] ** 2).sum(), (vectors[1] ** 2).sum()))
    count = int(np.ceil(reach / shortest)) + 1
    height, width = correlation.shape
    left, right = np.zeros((2, 2)), np.zeros((2, 2))
    for i in range(-count, count + 1):
        for j in range(-count, count + 1):
            move = i * vectors[0] + j * vectors[1]
            if (i == 0 and j == 0) or (move * move).sum() > reach * reach:
                continue
            y, x = round(center[0] + move[0]), round(center[1] + move[1])
            if not (2 <= y < height - 2 and 2 <= x < width - 2):
                continue
            square = np.maximum(correlation[y - 2 : y + 3, x - 2 : x + 3], 0)
            square = (square - square.min() + 1e-6) ** 2
            found = np.zeros(2)
            for m in range(5):
                for n in range(5):
                    found[0] += square[m, n] * (y + m - 2)
                    found[1] += square[m, n] * (x + n - 2)
            found = found / square.sum() - center
            step, weight = np.array([float(i), float(j)]), square.max()
            for m in range(2):
                for n in range(2):
                    left[m, n] += weight * step[m] * step[n]
                    right[m, n] += weight * step[m] * found[n]
    determinant = left[0, 0] * left[1, 1] - left[0, 1] * left[1, 0]
    result = np.empty((2, 2))
    result[0] = (left[1, 1] * right[0] - left[0, 1] * right[1]) / determinant
    result[1] = (left[0, 0] * right[1] - left[1, 0] * right[0]) / determinant
    return result


@compiled
def _copies(response, y, x, moves):  # type: ignore[no-untyped-def]
    """Mean, standard deviation and number of the response's values at a pixel's translated copies."""
    total = square = 0.0
    count = 0
    for k in range(moves.shape[0]):
        j, i = y + moves[k, 0], x + moves[k, 1]
        if 0 <= j < response.shape[0] and 0 <= i < response.shape[1]:
            total += response[j, i]
            square += response[j, i] ** 2
            count += 1
    mean = total / max(count, 1)
    return mean, np.sqrt(max(square / max(count, 1) - mean * mean, 0.0)), count


@compiled
def copies_mean(response, positions, moves):  # type: ignore[no-untyped-def]
    """Mean of the response's values at the translated copies of each position."""
    means = np.empty(len(positions))
    for k in range(len(positions)):
        means[k] = _copies(response, positions[k, 0], positions[k, 1], moves)[0]
    return means


@compiled
def block_sites(response, top, bottom, left, right, moves, reach):  # type: ignore[no-untyped-def]
    """Rows (y, x, here, mean, spread, count) of the maxima inside a block of the mean over translations."""
    height, width = response.shape
    y0, x0, y1, x1 = max(top - reach, 0), max(left - reach, 0), min(bottom + reach, height), min(right + reach, width)
    total = response[y0:y1, x0:x1].copy()
    count = np.ones((y1 - y0, x1 - x0), np.float32)
    for k in range(moves.shape[0]):
        dy, dx = moves[k, 0], moves[k, 1]
        first, last = max(x0 + dx, 0) - dx - x0, min(x1 + dx, width) - dx - x0
        for y in range(max(y0 + dy, 0) - dy, min(y1 + dy, height) - dy):
            target, counts, source = (
                total[y - y0, first:last],
                count[y - y0, first:last],
                response[y + dy, x0 + first + dx :],
            )
            for x in range(last - first):
                target[x] += source[x]
                counts[x] += np.float32(1)
    total /= count
    sites = []
    for y in range(top, bottom):
        for x in range(left, right):
            here = total[y - y0, x - x0]
            if total[max(y - 1, y0) - y0, x - x0] > here or total[y - y0, max(x - 1, x0) - x0] > here:
                continue
            around = total[max(y - reach - y0, 0) : y + reach + 1 - y0, max(x - reach - x0, 0) : x + reach + 1 - x0]
            if around.max() > here:
                continue
            mean, spread, copies = _copies(response, y, x, moves)
            if mean > 0:
                sites.append((float(y), float(x), float(response[y, x]), mean, spread, float(copies)))
    return sites
