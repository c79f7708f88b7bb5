"""Compiled loops of the weights-free encoders: grey levels, area sums, counts of changes.

Everything is whole numbers, so these give the bits of the plain definitions in any order of
additions; the definitions are in ``tests/encoders``.
"""

import numba
import numpy as np
from numpy.typing import NDArray

Overlaps = tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]
"""For target pixel i: first source pixel ``[i]``, source pixels ``[i]``, shares ``[i, most]``."""


@numba.njit(cache=True, nogil=True)
def grey_of(pixels: NDArray[np.uint8], grey: NDArray[np.uint8]) -> None:
    """Luma of RGB pixels ``[3 N]`` by the BT.601 weights in 8 bits, into ``grey [N]``.

    Pixels come in one row, because LLVM makes vector code of this loop and not of two nested ones.
    """
    for i in range(grey.shape[0]):
        # at most 255 * 256 + 128, which 32 bits hold with room to spare
        luma = (
            np.uint32(77) * np.uint32(pixels[3 * i])
            + np.uint32(150) * np.uint32(pixels[3 * i + 1])
            + np.uint32(29) * np.uint32(pixels[3 * i + 2])
            + np.uint32(128)
        )
        grey[i] = np.uint32(luma) >> np.uint32(8)


def overlaps(source: int, target: int) -> Overlaps:
    """How much of each source pixel lies in each target pixel, in units of 1 / target."""
    cell, pixel = np.arange(target)[:, None] * source, np.arange(source)[None] * target
    shared = np.minimum(cell + source, pixel + target) - np.maximum(cell, pixel)
    shared = np.maximum(shared, 0).astype(np.int32)
    first = (shared > 0).argmax(axis=1).astype(np.int32)
    number = (shared > 0).sum(axis=1).astype(np.int32)
    shares = np.zeros((target, int(number.max())), dtype=np.int32)
    for i in range(target):
        shares[i, : number[i]] = shared[i, first[i] : first[i] + number[i]]
    return first, number, shares


@numba.njit(cache=True, nogil=True)
def area_sums(
    picture: NDArray[np.integer],
    down: Overlaps,
    across: Overlaps,
    band: NDArray[np.int32],
    sums: NDArray[np.int64],
) -> None:
    """Sums of a picture ``[h, w]`` under every target pixel, into ``sums [H, W]``.

    ``band [w]`` is room for the source rows under one target row: at most 255 x source rows.
    """
    first_y, number_y, shares_y = down
    first_x, number_x, shares_x = across
    for i in range(sums.shape[0]):
        band[:] = 0
        for k in range(number_y[i]):
            row, share = picture[first_y[i] + k], shares_y[i, k]
            for x in range(band.shape[0]):
                band[x] += share * np.int32(row[x])
        for j in range(sums.shape[1]):
            total = np.int64(0)
            for k in range(number_x[j]):
                total += np.int64(shares_x[j, k]) * band[first_x[j] + k]
            sums[i, j] = total


@numba.njit(cache=True, nogil=True)
def log_levels(
    sums: NDArray[np.int64],
    scale: int,
    weight: int,
    table: NDArray[np.int32],
    level: NDArray[np.int32],
) -> None:
    """``table[round(scale * sums / weight)]``, halves up, into ``level [N]``.

    ``sums`` are not negative and ``2 * scale`` of the largest is below 2**53. A division of whole
    numbers has no vector form; the quotient of floats is off by one at most, and set right.
    """
    divisor = 2 * weight
    inverse = 1.0 / divisor
    for i in range(sums.shape[0]):
        dividend = sums[i] * (2 * scale) + weight
        quotient = np.int64(dividend * inverse)
        rest = dividend - quotient * divisor
        level[i] = table[quotient + (rest >= divisor) - (rest < 0)]


@numba.njit(cache=True, nogil=True)
def signs_from(change: NDArray[np.int32], threshold: np.int32, signs: NDArray[np.int8]) -> None:
    """1 or -1 where a change ``[N]`` reaches the threshold upwards or downwards, else 0."""
    for i in range(change.shape[0]):
        signs[i] = np.int8(change[i] >= threshold) - np.int8(change[i] <= -threshold)


@numba.njit(cache=True, nogil=True)
def add_signs(
    x: NDArray[np.uint16], y: NDArray[np.uint16], p: NDArray[np.uint8], total: NDArray[np.int32]
) -> None:
    """Add ON minus OFF events of every pixel to ``total [h, w]``, in which all of them lie."""
    for i in range(len(x)):
        total[y[i], x[i]] += 1 if p[i] else -1


@numba.njit(cache=True, nogil=True)
def active_cells(
    over_lags: NDArray[np.int32],
    thresholds: NDArray[np.int32],
    cell: int,
    active: NDArray[np.uint8],
) -> None:
    """Pixels per cell whose change ``[L, H, W]`` reaches each threshold, ``active [L, T, y, x]``.

    Whole lines are compared, which vector units do; leaving a pixel at the first threshold that it
    does not reach would take three to eight times as long. A column of a cell has at most 255
    pixels.
    """
    num_lags, _, width = over_lags.shape
    counts = np.empty((thresholds.shape[0], width), np.uint8)
    for lag in range(num_lags):
        for row in range(active.shape[2]):
            counts[:] = 0
            for y in range(row * cell, (row + 1) * cell):
                changes = over_lags[lag, y]
                for k in range(thresholds.shape[0]):
                    least, line = thresholds[k], counts[k]
                    for x in range(width):
                        line[x] += np.uint8(np.int32(abs(changes[x])) >= least)
            for k in range(thresholds.shape[0]):
                for col in range(active.shape[3]):
                    total = 0
                    for x in range(col * cell, (col + 1) * cell):
                        total += counts[k, x]
                    active[lag, k, row, col] = total


@numba.njit(cache=True, nogil=True)
def moved_cells(
    before: NDArray[np.int8],
    now: NDArray[np.int8],
    moves: NDArray[np.int64],
    side: int,
    moved: NDArray[np.uint16],
) -> None:
    """Signs of ``before [H, W]`` found in ``now`` after each move (down, right), per cell.

    ``moved [M, y, x]``; a zero is no event and is found nowhere.
    """
    moved[:] = 0
    height, width = before.shape
    for y in range(height):
        row = y // side
        for x in range(width):
            sign = before[y, x]
            if sign == 0:
                continue
            for k in range(moves.shape[0]):
                v, u = y + moves[k, 0], x + moves[k, 1]
                if 0 <= v < height and 0 <= u < width and now[v, u] == sign:
                    moved[k, row, x // side] += 1
