"""Bilinear resize in the fixed-point arithmetic of OpenCV's ``INTER_LINEAR`` on 8-bit pictures.

Published IEF-VAD features start from frames resized by that function. Its weights have 11 bits
and its intermediate sums are cut, so no floating-point resize gives the same bytes; this one does
and needs no OpenCV. Pixel centres are aligned (``(i + 0.5) * scale - 0.5``), no antialiasing.
"""

import numba
import numpy as np
from numpy.typing import NDArray

_BITS = 11
_ONE = 1 << _BITS


def resize_linear_fixed(pictures: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Resize ``[F, H, W, C] -> [F, height, width, C]``."""
    source_height, source_width = pictures.shape[1:3]
    if (source_height, source_width) == (height, width):
        return pictures
    if (source_height, source_width) == (2 * height, 2 * width):
        return _halve(pictures)
    left, right, weights_x = _columns(source_width, width)
    upper, lower, weights_y = _rows(source_height, height)
    resized = np.empty((len(pictures), height, width, pictures.shape[3]), dtype=np.uint8)
    for picture, target in zip(pictures, resized, strict=True):
        _resize(picture, left, right, weights_x, upper, lower, weights_y, target)
    return resized


@numba.njit(cache=True, nogil=True)
def _resize(
    picture: NDArray[np.uint8],
    left: NDArray[np.int64],
    right: NDArray[np.int64],
    weights_x: NDArray[np.int32],
    upper: NDArray[np.int64],
    lower: NDArray[np.int64],
    weights_y: NDArray[np.int32],
    resized: NDArray[np.uint8],
) -> None:
    height, width, channels = resized.shape
    for y in range(height):
        above, below = picture[upper[y]], picture[lower[y]]
        share_above, share_below = weights_y[0, y], weights_y[1, y]
        for x in range(width):
            a, b = left[x], right[x]
            share_a, share_b = weights_x[0, x], weights_x[1, x]
            for c in range(channels):
                # 8 + 11 bits, cut to 15 before the second weight so that the product fits 32 bits
                high = (above[a, c] * share_a + above[b, c] * share_b) >> 4
                low = (below[a, c] * share_a + below[b, c] * share_b) >> 4
                total = ((high * share_above) >> 16) + ((low * share_below) >> 16)
                resized[y, x, c] = (total + 2) >> 2


def _taps(source: int, target: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """First source index (may lie outside) and the weight of the second, in single precision."""
    centres = (np.arange(target) + 0.5) * (source / target) - 0.5
    position = centres.astype(np.float32)
    first = np.floor(position)
    return first.astype(np.int64), position - first


def _fixed(weight: NDArray[np.float32]) -> NDArray[np.int32]:
    """Weights of the first and second tap ``[2, target]``, each rounded on its own."""
    return np.rint(np.stack([np.float32(1) - weight, weight]) * np.float32(_ONE)).astype(np.int32)


def _columns(
    source: int, target: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int32]]:
    """Columns outside the picture are clamped with all weight on the border pixel."""
    first, weight = _taps(source, target)
    weight = np.where((first < 0) | (first >= source - 1), np.float32(0), weight)
    first = np.clip(first, 0, source - 1)
    return first, np.minimum(first + 1, source - 1), _fixed(weight)


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
