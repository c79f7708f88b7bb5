"""Counting the many events of a large frame in half bytes, and writing the frame once.

A frame of a large sensor in a wide type does not fit the caches, and adding to it event by event
waits for memory. So the lowest four bits of both polarities of a pixel share a byte of a table,
which stays in the second cache; a count that starts again at 16 is noted and added later. Then the
table becomes the frame, a line of the cache at a time, past the caches, which have no use for it.
"""

from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from outspike.events.columns import Events
from outspike.events.lanes import COMPILED, I8, LINE_BYTES, Lanes, address

Counts = NDArray[Any]
#: ``[H * W]`` counts modulo 16: OFF in the lower half of a byte, ON in the upper.
Table = NDArray[np.uint8]

#: Events of one pixel and polarity until its half byte starts again.
_CARRY = 16

#: Frames of fewer cells are in the cache anyway.
_SMALL = 1 << 18

#: From which on a system with large pages hands out memory in pieces of that many bytes.
_LARGE_PAGE_BYTES = 1 << 21


def new_frames(num: int, size: tuple[int, int], dtype: np.dtype[Any]) -> Counts:
    """Zeros ``[num, 2, H, W]`` that begin with a line of the cache."""
    width, height = size
    spare = LINE_BYTES // dtype.itemsize
    room: Counts = np.zeros(num * 2 * height * width + spare, dtype=dtype)
    start = -room.ctypes.data % LINE_BYTES // dtype.itemsize
    return room[start : len(room) - spare + start].reshape(num, 2, height, width)


def is_full(num_events: int, frame: Counts) -> bool:
    """Whether :func:`count_full` is the faster way: a large frame most of whose pixels send."""
    return frame.itemsize > 1 and _SMALL <= frame.size < 4 * num_events


def touch(frame: Counts) -> None:
    """Have the system give out the pages of an empty frame, some time before it is written.

    It clears them through the caches, and a line that is written past the caches would wait for
    one that was cleared just before.
    """
    flat = frame.reshape(-1)
    flat[:: _LARGE_PAGE_BYTES // flat.itemsize] = 0
    flat[-1:] = 0


def new_table(size: tuple[int, int]) -> Table:
    """An empty table for frames of ``size`` (width, height)."""
    return np.zeros(size[0] * size[1], dtype=np.uint8)


def count_full(events: Events, frame: Counts, table: Table, highest: int) -> bool:
    """Count events, which lie inside, into an empty frame ``[2, H, W]``.

    Args:
        events: those of one window.
        frame: of a type of at least 16 bits.
        table: of the frame's size; empty before and after.
        highest: up to which number the frame's type holds every whole number.

    Returns:
        Whether all counts are at most ``highest``; if not, the frame is good for nothing.
    """
    carries = np.empty(len(events) // _CARRY, dtype=np.int64)
    num = _count_halves(events.x, events.y, events.p, table, frame.shape[2], carries)
    off, on = frame.reshape(2, -1)
    if COMPILED and frame.ctypes.data % LINE_BYTES == 0 and off.nbytes % LINE_BYTES == 0:
        _write_lines(table, off, on)
    else:
        off[:] = table & (_CARRY - 1)
        on[:] = table >> 4
        table[:] = 0
    limit = frame.dtype.type(highest - _CARRY)
    return not _add_carries(frame.reshape(-1), carries[:num], frame.dtype.type(_CARRY), limit)


@numba.njit(cache=True, nogil=True)
def _count_halves(
    x: NDArray[np.uint16],
    y: NDArray[np.uint16],
    p: NDArray[np.uint8],
    table: Table,
    width: int,
    carries: NDArray[np.int64],
) -> int:
    """Count modulo 16, and note the cell each time that starts again; how many notes."""
    # Unsigned places: a signed one costs a look at its sign in every access.
    wide, num_pixels = np.uintp(width), np.uintp(len(table))
    num = 0
    for i in range(len(x)):
        pixel = np.uintp(y[i]) * wide + np.uintp(x[i])
        is_on = np.uintp(p[i] != 0)
        step = np.uintp(1) + np.uintp(_CARRY - 1) * is_on
        before = np.uintp(table[pixel])
        after = before + step
        table[pixel] = np.uint8(after)
        # The bits that a sum has but its terms do not are carries: out of a lower or an upper half.
        if (before ^ step ^ after) & np.uintp(_CARRY | _CARRY * _CARRY):
            if not is_on:
                table[pixel] = np.uint8(after - np.uintp(_CARRY))
            carries[num] = is_on * num_pixels + pixel
            num += 1
    return num


@numba.njit(cache=True, nogil=True)
def _add_carries(flat: Counts, places: NDArray[np.int64], carry: Any, limit: Any) -> bool:
    """Add what the table had no room for; whether a count would have left the type's range."""
    for place in places:
        if flat[place] > limit:
            return True
        flat[place] += carry
    return False


def _write_line_code(typing: Any, table: Any, position: Any, off: Any, on: Any) -> Any:
    """Widen the next counts of the table to a line of both polarities, and empty the table."""
    num = LINE_BYTES * 8 // off.dtype.bitwidth

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        table, position, *planes = arguments
        lanes = Lanes(builder, num)
        at = address(context, builder, signature.args[0], table, position)
        halves = lanes.load(I8, at)
        lanes.store(ir.Constant(lanes.vector(I8), None), at)
        counts = [
            builder.and_(halves, lanes.every(I8, _CARRY - 1)),
            builder.lshr(halves, lanes.every(I8, 4)),
        ]
        for kind, plane, count in zip(signature.args[2:], planes, counts, strict=True):
            wide = lanes.vector(context.get_value_type(kind.dtype))
            is_float = isinstance(kind.dtype, types.Float)
            widened = builder.uitofp(count, wide) if is_float else builder.zext(count, wide)
            at = address(context, builder, kind, plane, position)
            lanes.stream(widened, at, LINE_BYTES)
        return context.get_dummy_value()

    return types.void(table, position, off, on), code


_write_line: Any = intrinsic(_write_line_code)


@numba.njit(cache=True, nogil=True)
def _write_lines(table: Table, off: Counts, on: Counts) -> None:
    """Widen the whole table into both polarities of a frame, and empty it."""
    for position in range(0, len(table), LINE_BYTES // off.itemsize):
        _write_line(table, position, off, on)
