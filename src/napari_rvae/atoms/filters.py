"""Box means and local maxima: what runs over every pixel again and again, compiled and on all cores."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from napari_rvae.atoms.kernels import compiled
from napari_rvae.atoms.parallel import in_parts

Array = NDArray[np.float32]
ROWS = 64  # fewer are not worth a thread


@compiled
def _mean_down(image, index, size, left, right, result):  # type: ignore[no-untyped-def]
    """Means over `size` rows of the columns from `left` to `right`; `index` holds the rows, mirrored at the ends."""
    total = np.zeros(right - left)
    for y in range(size):
        row = image[index[y], left:right]
        for x in range(right - left):
            total[x] += row[x]
    share = 1.0 / size
    for y in range(image.shape[0]):
        target = result[y, left:right]
        for x in range(right - left):
            target[x] = total[x] * share
        if y + 1 < image.shape[0]:
            old, new = image[index[y], left:right], image[index[y + size], left:right]
            for x in range(right - left):
                total[x] += np.float64(new[x]) - np.float64(old[x])


@compiled
def _mean_across(image, index, size, top, bottom, result):  # type: ignore[no-untyped-def]
    """Means over `size` columns of the rows from `top` to `bottom`."""
    share, width = 1.0 / size, image.shape[1]
    for y in range(top, bottom):
        row, target = image[y], result[y]
        total = 0.0
        for x in range(size):
            total += row[index[x]]
        for x in range(width - 1):
            target[x] = total * share
            total += np.float64(row[index[x + size]]) - np.float64(row[index[x]])
        target[width - 1] = total * share


def box_mean(image: Array, size: int) -> Array:
    """Mean over squares of an odd number of pixels, float32; the image is mirrored at its borders."""
    rows, columns = (np.pad(np.arange(side), size // 2, mode="symmetric") for side in image.shape)
    down, result = np.empty(image.shape, np.float32), np.empty(image.shape, np.float32)
    in_parts(lambda left, right: _mean_down(image, rows, size, left, right, down), image.shape[1], ROWS)
    in_parts(lambda top, bottom: _mean_across(down, columns, size, top, bottom, result), image.shape[0], ROWS)
    return result


@compiled
def _maxima(image, threshold, reach, top, bottom):  # type: ignore[no-untyped-def]
    """Pixels of some rows above a threshold that no other within `reach` rows and columns exceeds."""
    height, width = image.shape
    found = []
    for y in range(top, bottom):
        row = image[y]
        for x in range(width):
            here = row[x]
            if not here > threshold or (x > 0 and row[x - 1] > here) or (x + 1 < width and row[x + 1] > here):
                continue
            highest = True
            for j in range(max(0, y - reach), min(height, y + reach + 1)):
                for i in range(max(0, x - reach), min(width, x + reach + 1)):
                    if image[j, i] > here:
                        highest = False
                        break
                if not highest:
                    break
            if highest:
                found.append((y, x))
    return found


def local_maxima(image: Array, threshold: float, reach: int) -> NDArray[np.int64]:
    """Positions (n, 2) of pixels above a threshold that no other within `reach` rows and columns exceeds."""
    parts = in_parts(lambda top, bottom: _maxima(image, threshold, reach, top, bottom), image.shape[0], ROWS)
    return np.concatenate([np.array(part, np.int64).reshape(-1, 2) for part in parts])


@compiled
def in_errors(filtered, error, line, along_y, along_x, top, bottom, result):  # type: ignore[no-untyped-def]
    """Divide some rows of a filtered image by the standard deviation of its noise.

    `error` holds the local mean of the image and becomes the standard deviation of an amplitude; `line` is (gain,
    floor, least, deviation of an amplitude per that of a pixel, response to amplitude 1).
    """
    gain, floor, least, spread, height = line
    for y in range(top, bottom):
        source, errors, target = filtered[y], error[y], result[y]
        for x in range(error.shape[1]):
            deviation = np.sqrt(max(gain * errors[x] + floor, least)) * spread * along_y[y] * along_x[x]
            errors[x] = deviation
            target[x] = source[x] / (height * deviation)
