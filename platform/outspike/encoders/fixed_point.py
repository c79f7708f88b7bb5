"""Bilinear resize in the fixed-point arithmetic of OpenCV's ``INTER_LINEAR`` on 8-bit pictures.

Published IEF-VAD features start from frames resized by that function. Its weights have 11 bits
and its intermediate sums are cut, so no floating-point resize gives the same bytes; this one does
and needs no OpenCV. Pixel centres are aligned (``(i + 0.5) * scale - 0.5``), no antialiasing.
"""

from functools import lru_cache

import numba
import numpy as np
from numpy.typing import NDArray

_BITS = 11
_ONE = 1 << _BITS


def resize_linear_fixed(pictures: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Resize RGB pictures ``[F, H, W, 3] -> [F, height, width, 3]``."""
    source_height, source_width = pictures.shape[1:3]
    if (source_height, source_width) == (height, width):
        return pictures
    if (source_height, source_width) == (2 * height, 2 * width):
        return _halve(pictures)
    columns, rows = _columns(source_width, width), _rows(source_height, height)
    resized = np.empty((len(pictures), height, width, 3), dtype=np.uint8)
    for picture, target in zip(np.ascontiguousarray(pictures), resized, strict=True):
        _resize(picture.reshape(source_height, -1), *columns, *rows, target.reshape(height, -1))
    return resized


@numba.njit(cache=True, nogil=True)
def _resize(
    picture: NDArray[np.uint8],
    left: NDArray[np.uint64],
    right: NDArray[np.uint64],
    weights_x: NDArray[np.int32],
    upper: NDArray[np.int64],
    lower: NDArray[np.int64],
    weights_y: NDArray[np.int32],
    resized: NDArray[np.uint8],
) -> None:
    """Pictures are ``[H, W * C]``; ``left``, ``right`` and ``weights_x`` are per value of a row."""
    height, length = resized.shape
    above, below = np.empty(length, dtype=np.int32), np.empty(length, dtype=np.int32)
    in_above = in_below = -1
    for y in range(height):
        if in_below == upper[y]:
            above, below = below, above
            in_above, in_below = in_below, in_above
        if in_above != upper[y]:
            _across(picture[upper[y]], left, right, weights_x, above)
            in_above = upper[y]
        if in_below != lower[y]:
            _across(picture[lower[y]], left, right, weights_x, below)
            in_below = lower[y]
        share_above, share_below, row = weights_y[0, y], weights_y[1, y], resized[y]
        for i in range(length):
            high = np.int32(above[i] * share_above) >> np.int32(16)
            low = np.int32(below[i] * share_below) >> np.int32(16)
            row[i] = np.int32(high + low + np.int32(2)) >> np.int32(2)


@numba.njit(cache=True, nogil=True)
def _across(
    row: NDArray[np.uint8],
    left: NDArray[np.uint64],
    right: NDArray[np.uint64],
    weights: NDArray[np.int32],
    sums: NDArray[np.int32],
) -> None:
    """8 + 11 bits, cut to 15 before the second weight so that the product fits 32 bits."""
    first, second = weights[0], weights[1]
    for i in range(sums.shape[0]):
        a, b = np.int32(row[left[i]]), np.int32(row[right[i]])
        sums[i] = np.int32(a * first[i] + b * second[i]) >> np.int32(4)


def _taps(source: int, target: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """First source index (may lie outside) and the weight of the second, in single precision."""
    centres = (np.arange(target) + 0.5) * (source / target) - 0.5
    position = centres.astype(np.float32)
    first = np.floor(position)
    return first.astype(np.int64), position - first


def _fixed(weight: NDArray[np.float32]) -> NDArray[np.int32]:
    """Weights of the first and second tap ``[2, target]``, each rounded on its own."""
    return np.rint(np.stack([np.float32(1) - weight, weight]) * np.float32(_ONE)).astype(np.int32)


@lru_cache(maxsize=8)
def _columns(
    source: int, target: int
) -> tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.int32]]:
    """Columns outside the picture are clamped with all weight on the border pixel.

    Places of both taps in a row of RGB values, and weights, for each value ``[target * 3]``.
    """
    first, weight = _taps(source, target)
    weight = np.where((first < 0) | (first >= source - 1), np.float32(0), weight)
    first = np.clip(first, 0, source - 1)
    second = np.minimum(first + 1, source - 1)
    left, right = (
        (i[:, None] * 3 + np.arange(3)).reshape(-1).astype(np.uint64) for i in (first, second)
    )
    return left, right, np.repeat(_fixed(weight), 3, axis=1)


@lru_cache(maxsize=8)
def _rows(
    source: int, target: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int32]]:
    """Rows outside are clamped with their weights kept, which rounds the border twice."""
    first, weight = _taps(source, target)
    return (
        np.clip(first, 0, source - 1),
        np.clip(first + 1, 0, source - 1),
        _fixed(weight),
    )


def _halve(pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Exactly half the size is answered with the mean of 2 x 2 pixels, as OpenCV does."""
    wide = pictures.astype(np.uint16)
    total = wide[:, ::2, ::2] + wide[:, 1::2, ::2] + wide[:, ::2, 1::2] + wide[:, 1::2, 1::2]
    halved: NDArray[np.uint8] = ((total + 2) >> 2).astype(np.uint8)
    return halved
