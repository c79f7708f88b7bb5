"""Crops of frames and their mirror images, normalised on the way, written past the caches.

Ten crops of a frame are 6 MB, of which nobody reads anything before the snippet is whole, 96 MB
later. Through the caches each line would be read from memory first, only to be overwritten, and
would drive out a line that is still wanted. So a row of a frame is looked up once, stays in the
nearest cache while every crop takes its piece of it, and leaves in whole lines of the cache.
"""

from typing import Any

import numba
import numpy as np
from numba.core import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from outspike.events.lanes import COMPILED, I32, LINE_BYTES, Lanes, address

#: What one store past the caches fills, in floats.
_LINE = LINE_BYTES // 4


def cut_through_table(
    pictures: NDArray[np.uint8],
    table: NDArray[np.float32],
    corners: NDArray[np.int64],
    batch: NDArray[np.float32],
) -> None:
    """Square crops of pictures ``[F, H, W, 3]`` into ``batch [F, K, 3, size, size]``.

    ``table [3, 256]`` gives the value of each level of each colour; ``corners [k, 2]`` are top and
    left. Where the batch has twice as many crops the second half are the first ones mirrored.

    Raises:
        ValueError: a crop reaches over the picture's edge.
    """
    most = np.array(pictures.shape[1:3]) - batch.shape[4]
    if (corners < 0).any() or (corners > most).any():  # stores past the caches check no bounds
        raise ValueError(f"crops at {corners.tolist()} do not lie inside {pictures.shape[1:3]}")
    in_lines = batch.ctypes.data % LINE_BYTES == 0 and batch.shape[4] % _LINE == 0
    if COMPILED and in_lines and batch.flags.c_contiguous:
        _stream_crops(pictures, table, corners, batch)
    else:
        _copy_crops(pictures, table, corners, batch)


def _copy_crops(
    pictures: NDArray[np.uint8],
    table: NDArray[np.float32],
    corners: NDArray[np.int64],
    batch: NDArray[np.float32],
) -> None:
    """The same through the caches, for crops that do not consist of whole lines."""
    num_corners, size = len(corners), batch.shape[4]
    for frame, crops in zip(pictures, batch, strict=True):
        values = np.stack([table[c][frame[..., c]] for c in range(3)])
        for k, (top, left) in enumerate(corners):
            crops[k] = values[:, top : top + size, left : left + size]
        if len(crops) == 2 * num_corners:
            crops[num_corners:] = crops[:num_corners, ..., ::-1]


@numba.njit(cache=True, nogil=True)
def _stream_crops(
    pictures: NDArray[np.uint8],
    table: NDArray[np.float32],
    corners: NDArray[np.int64],
    batch: NDArray[np.float32],
) -> None:
    """Past the caches.

    Places are numbers and not slices: a slice is counted as a reference, by an instruction that
    waits for all stores under way. That takes longer than the stores do.
    """
    num_frames, height, width, _ = pictures.shape
    num_corners, num_crops, size = len(corners), batch.shape[1], batch.shape[4]
    values, flat = np.empty(3 * width, np.float32), batch.reshape(-1)
    for f in range(num_frames):
        for y in range(height):
            _look_up(pictures, f, y, table, values)
            for k in range(num_corners):
                row, left = y - corners[k, 0], corners[k, 1]
                if not 0 <= row < size:
                    continue
                for c in range(3):
                    start = c * width + left
                    place = (((f * num_crops + k) * 3 + c) * size + row) * size
                    _stream_row(values, start, flat, place, size)
                    if num_crops == 2 * num_corners:
                        place += num_corners * 3 * size * size
                        _stream_row_mirrored(values, start, flat, place, size)
    _settle()


@numba.njit(cache=True, nogil=True)
def _look_up(
    pictures: NDArray[np.uint8],
    f: int,
    y: int,
    table: NDArray[np.float32],
    values: NDArray[np.float32],
) -> None:
    """A row of pixels through the table, into ``values [3 * W]``, colour after colour."""
    width = pictures.shape[2]
    for c in range(3):
        for x in range(width):
            values[c * width + x] = table[c, pictures[f, y, x, c]]


@numba.njit(cache=True, nogil=True)
def _stream_row(
    values: NDArray[np.float32], start: int, flat: NDArray[np.float32], place: int, size: int
) -> None:
    for x in range(0, size, _LINE):
        _stream(values, start + x, flat, place + x)


@numba.njit(cache=True, nogil=True)
def _stream_row_mirrored(
    values: NDArray[np.float32], start: int, flat: NDArray[np.float32], place: int, size: int
) -> None:
    for x in range(0, size, _LINE):
        _stream_mirrored(values, start + size - _LINE - x, flat, place + x)


# ----------------------------------------------------------------------------- instructions


def _stream_code(order: list[int]) -> Any:
    """Code of an intrinsic: a line of floats from one place of an array to one of another."""

    def typed(typing: Any, source: Any, start: Any, target: Any, place: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            source, start, target, place = arguments
            from_kind, to_kind = signature.args[0], signature.args[2]
            lanes = Lanes(builder, _LINE)
            element = context.get_value_type(types.float32)
            line = lanes.load(element, address(context, builder, from_kind, source, start))
            line = builder.shuffle_vector(line, line, lanes.constant(I32, order))
            to = address(context, builder, to_kind, target, place)
            lanes.stream(line, to, LINE_BYTES)
            return context.get_dummy_value()

        return types.void(source, start, target, place), code

    return typed


def _settle_code(typing: Any) -> Any:
    """Stores past the caches come in any order: have them all done before anything later."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), code


_stream: Any = intrinsic(_stream_code(list(range(_LINE))))
_stream_mirrored: Any = intrinsic(_stream_code(list(reversed(range(_LINE)))))
_settle: Any = intrinsic(_settle_code)
