"""Compiled loops of the reader: where rows lie, whether chunks are intact, copies into a batch.

They work on addresses in memory, so that one call serves any number of bags, segments and shards
without a Python object for each. The caller keeps what the addresses point at alive. Compiled code
is kept on disk; the first call on a fresh machine takes seconds.
"""

import platform
from typing import Any

import llvmlite.binding as llvm
import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic
from numpy.typing import NDArray

from outspike.store.layout import CHUNK_ROWS

Table = NDArray[np.int64]

# Columns of the table of extents: one row a catalog row.
EXTENT_SEGMENT, EXTENT_ROW, EXTENT_LENGTH, EXTENT_SNIPPET = range(4)
NUM_EXTENT_COLUMNS = 4

# Columns of the table of segments. ``ROWS`` is 0 until the segment is open. ``CRC``, ``START``,
# ``STOP``, ``CHECKED`` and ``SHARDS`` are addresses: of one crc a chunk (and one to spare), of the
# frame range of each row, of one byte a chunk that says whether it was found intact, and of one
# address a shard, 0 where its bytes are not in memory.
ROWS, SHARD_ROWS, CRC, START, STOP, CHECKED, SHARDS, USED = range(8)
NUM_SEGMENT_COLUMNS = 8

# Columns of a span: rows of one shard that go to consecutive places of one bag of the batch.
# ``ADDRESS`` is that of the span's first chunk, 0 where it has to be fetched; ``SKIP`` are rows of
# that chunk before the first one wanted; ``NUM_ROWS`` is -1 where the segment has no such rows.
BAG, PLACE, NUM_ROWS, ADDRESS, SKIP, CHUNK, NUM_CHUNKS, SEGMENT, SHARD = range(9)
NUM_SPAN_COLUMNS = 9

_LANES = 4
_MOST_SPANS = 16


def _has_crc_instruction() -> bool:
    return platform.machine() == "x86_64" and bool(llvm.get_host_cpu_features().get("sse4.2"))


#: Whether :func:`gather` can check chunks; the caller does where the processor cannot.
CHECKS_CHUNKS = _has_crc_instruction()
CHECK_NEVER, CHECK_ONCE, CHECK_ALWAYS = range(3)


def _load_code(typing: Any, address: Any) -> Any:
    """The 64-bit word at an address."""

    def code(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
        pointer = builder.inttoptr(arguments[0], ir.IntType(64).as_pointer())
        return builder.load(pointer, align=1)

    return types.int64(types.int64), code


def _load_byte_code(typing: Any, address: Any) -> Any:
    def code(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
        pointer = builder.inttoptr(arguments[0], ir.IntType(8).as_pointer())
        return builder.load(pointer, align=1)

    return types.uint8(types.int64), code


def _store_byte_code(typing: Any, address: Any, value: Any) -> Any:
    def code(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
        pointer = builder.inttoptr(arguments[0], ir.IntType(8).as_pointer())
        builder.store(arguments[1], pointer, align=1)
        return context.get_dummy_value()

    return types.void(types.int64, types.uint8), code


def _copy_code(typing: Any, target: Any, source: Any, size: Any) -> Any:
    """``size`` bytes from one address to another; they do not overlap."""

    def code(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
        to, start = (builder.inttoptr(a, cgutils.voidptr_t) for a in arguments[:2])
        kinds = [to.type, start.type, arguments[2].type]
        move = builder.module.declare_intrinsic("llvm.memcpy", kinds)
        builder.call(move, [to, start, arguments[2], ir.IntType(1)(0)])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), code


def _clear_code(typing: Any, target: Any, size: Any) -> Any:
    """``size`` zero bytes at an address."""

    def code(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
        to = builder.inttoptr(arguments[0], cgutils.voidptr_t)
        kinds = [to.type, arguments[1].type]
        fill = builder.module.declare_intrinsic("llvm.memset", kinds)
        builder.call(fill, [to, ir.IntType(8)(0), arguments[1], ir.IntType(1)(0)])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), code


def _crc_word_code(typing: Any, crc: Any, word: Any) -> Any:
    """One step of crc32c over eight bytes (the instruction of SSE 4.2)."""

    def code(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
        word_type = ir.IntType(64)
        kind = ir.FunctionType(word_type, [word_type, word_type])
        step = builder.module.declare_intrinsic("llvm.x86.sse42.crc32.64.64", fnty=kind)
        return builder.call(step, arguments)

    return types.int64(types.int64, types.int64), code


_load: Any = intrinsic(_load_code)
_load_byte: Any = intrinsic(_load_byte_code)
_store_byte: Any = intrinsic(_store_byte_code)
_copy: Any = intrinsic(_copy_code)
_clear: Any = intrinsic(_clear_code)
_crc_word: Any = intrinsic(_crc_word_code)


@numba.njit(nogil=True, inline="always")
def _crcs(at: Any, size: int) -> Any:
    """crc32c of four pieces of ``size`` bytes at once: the instruction has a latency of three."""
    a = b = c = d = np.int64(0xFFFFFFFF)
    for offset in range(0, size, 8):
        a = _crc_word(a, _load(at[0] + offset))
        b = _crc_word(b, _load(at[1] + offset))
        c = _crc_word(c, _load(at[2] + offset))
        d = _crc_word(d, _load(at[3] + offset))
    ones = np.int64(0xFFFFFFFF)
    return a ^ ones, b ^ ones, c ^ ones, d ^ ones


@numba.njit(cache=True, nogil=True)
def lay_out(
    bags: Table,
    windows: Table,
    first: Table,
    extents: Table,
    segments: Table,
    chunk_bytes: int,
    used: int,
    spans: Table,
) -> tuple[int, int, int]:
    """Find the spans of some snippets of some recordings.

    Args:
        bags: ``[B]`` numbers of recordings.
        windows: ``[B, 2]`` half-open ranges of snippets.
        first: ``[R + 1]`` first extent of each recording.
        extents, segments: tables; ``USED`` of each segment touched is set to ``used``.
        spans: filled as far as it has room.

    Returns:
        The number of spans, how many of them lie in segments that are not open, and how many in
        segments without such rows; those have only ``BAG``, ``SEGMENT`` and ``NUM_ROWS``.
    """
    count = closed = outside = 0
    for bag in range(len(bags)):
        place = 0
        for number in range(first[bags[bag]], first[bags[bag] + 1]):
            snippet = extents[number, EXTENT_SNIPPET]
            low = max(windows[bag, 0] - snippet, 0)
            high = min(windows[bag, 1] - snippet, extents[number, EXTENT_LENGTH])
            if low >= high:
                continue
            segment = extents[number, EXTENT_SEGMENT]
            total = segments[segment, ROWS]
            row = extents[number, EXTENT_ROW] + low
            stop = row + high - low
            if total == 0 or stop > total:
                if count < len(spans):
                    spans[count, NUM_ROWS] = 0 if total == 0 else -1
                    spans[count, BAG] = bag
                    spans[count, SEGMENT] = segment
                count += 1
                closed += total == 0
                outside += total > 0
                continue
            segments[segment, USED] = used
            shard_rows = segments[segment, SHARD_ROWS]
            while row < stop:
                shard = row // shard_rows
                last = min(stop, (shard + 1) * shard_rows)
                if count < len(spans):
                    chunk = row // CHUNK_ROWS
                    spans[count, BAG] = bag
                    spans[count, PLACE] = place
                    spans[count, NUM_ROWS] = last - row
                    address = _load(segments[segment, SHARDS] + 8 * shard)
                    if address:
                        within = chunk - shard * (shard_rows // CHUNK_ROWS)
                        address += within * chunk_bytes
                    spans[count, ADDRESS] = address
                    spans[count, SKIP] = row - chunk * CHUNK_ROWS
                    spans[count, CHUNK] = chunk
                    spans[count, NUM_CHUNKS] = (last - 1) // CHUNK_ROWS + 1 - chunk
                    spans[count, SEGMENT] = segment
                    spans[count, SHARD] = shard
                count += 1
                place += last - row
                row = last
    return count, closed, outside


@numba.njit(nogil=True)
def _damaged_chunk(span: Any, segments: Table, chunk_bytes: int, trust: bool) -> Any:
    """The first chunk of a span that does not match its crc, or -1."""
    at = np.empty(_LANES, dtype=np.int64)
    which = np.empty(_LANES, dtype=np.int64)
    crcs, checked = segments[span[SEGMENT], CRC], segments[span[SEGMENT], CHECKED]
    waiting = 0
    for index in range(span[NUM_CHUNKS]):
        chunk = span[CHUNK] + index
        if not (trust and _load_byte(checked + chunk)):
            at[waiting] = span[ADDRESS] + index * chunk_bytes
            which[waiting] = chunk
            waiting += 1
        is_last = index + 1 == span[NUM_CHUNKS]
        if waiting < _LANES and not (waiting and is_last):
            continue
        for lane in range(waiting, _LANES):
            at[lane], which[lane] = at[0], which[0]
        found = _crcs(at, chunk_bytes)
        for lane in range(waiting):
            if found[lane] != (_load(crcs + 4 * which[lane]) & 0xFFFFFFFF):
                return which[lane]
            if trust:
                _store_byte(checked + which[lane], np.uint8(1))
        waiting = 0
    return -1


@numba.njit(cache=True, nogil=True)
def gather(spans: Table, segments: Table, check: int, target: int, shape: Table) -> tuple[int, int]:
    """Check the chunks of some spans and copy their rows ``[K, D]`` to a batch ``[B, K, S, D]``.

    Args:
        spans: those with an address are served, the others passed over.
        segments: the table of segments.
        check: ``CHECK_ALWAYS``; ``CHECK_ONCE`` leaves chunks alone that were found intact before
            and notes those that are now; ``CHECK_NEVER``.
        target: address of the batch, in C order.
        shape: ``[3]``, its ``K``, ``S`` and bytes of ``D`` values.

    Returns:
        The first span and chunk that do not match their crc, -1 and -1 where all do.
    """
    num_crops, num_snippets, width = shape
    row_bytes, crop_bytes = num_crops * width, num_snippets * width
    for number in range(len(spans)):
        span = spans[number]
        if span[ADDRESS] == 0:
            continue
        if check != CHECK_NEVER:
            bad = _damaged_chunk(span, segments, CHUNK_ROWS * row_bytes, check == CHECK_ONCE)
            if bad >= 0:
                return number, bad
        source = span[ADDRESS] + span[SKIP] * row_bytes
        to = target + span[BAG] * num_crops * crop_bytes + span[PLACE] * width
        if num_crops == 1:
            _copy(to, source, span[NUM_ROWS] * width)
            continue
        for row in range(span[NUM_ROWS]):
            for crop in range(num_crops):
                _copy(to + crop * crop_bytes + row * width, source, width)
                source += width
    return -1, -1


@numba.njit(cache=True, nogil=True)
def clear_padding(windows: Table, target: int, shape: Table) -> None:
    """Set the places past each bag's rows to zero; arguments as those of :func:`gather`."""
    num_crops, num_snippets, width = shape
    for bag in range(len(windows)):
        length = windows[bag, 1] - windows[bag, 0]
        for crop in range(num_crops if length < num_snippets else 0):
            place = (bag * num_crops + crop) * num_snippets + length
            _clear(target + place * width, (num_snippets - length) * width)


@numba.njit(cache=True, nogil=True)
def frame_ranges(spans: Table, segments: Table, windows: Table, start: Table, stop: Table) -> None:
    """Frame ranges of the rows of some spans, into ``[B, S]`` arrays, 0 at padding."""
    for number in range(len(spans)):
        segment, bag = spans[number, SEGMENT], spans[number, BAG]
        first, place = spans[number, CHUNK] * CHUNK_ROWS + spans[number, SKIP], spans[number, PLACE]
        starts = segments[segment, START] + 8 * first
        stops = segments[segment, STOP] + 8 * first
        for offset in range(spans[number, NUM_ROWS]):
            start[bag, place + offset] = _load(starts + 8 * offset)
            stop[bag, place + offset] = _load(stops + 8 * offset)
    for bag in range(len(windows)):
        length = windows[bag, 1] - windows[bag, 0]
        start[bag, length:] = 0
        stop[bag, length:] = 0


@numba.njit(cache=True, nogil=True)
def read_one(
    number: int,
    low: int,
    high: int,
    first: Table,
    extents: Table,
    segments: Table,
    used: int,
    num_crops: int,
    width: int,
    out: NDArray[np.uint8],
    ranges: Table,
) -> tuple[bool, int, int]:
    """All steps for snippets ``[low, high)`` of one recording, where every byte is in memory.

    Args:
        number: the recording.
        first, extents, segments, used: as those of :func:`lay_out`.
        num_crops, width: ``K`` and the bytes of ``D`` values.
        out: bytes of the features ``[K, high - low, D]``; empty to check the chunks and copy none.
        ranges: ``[2, high - low]`` frame ranges, filled.

    Returns:
        False where a segment is not open, a byte not in memory or a chunk damaged: the caller then
        goes step by step. Then the segment and row at which the snippets begin, -1 and -1 where
        they do not lie in one place.
    """
    bags, windows = np.full(1, number), np.array([[low, high]])
    chunk_bytes = CHUNK_ROWS * num_crops * width
    spans = np.empty((_MOST_SPANS, NUM_SPAN_COLUMNS), dtype=np.int64)
    count, closed, outside = lay_out(
        bags, windows, first, extents, segments, chunk_bytes, used, spans
    )
    if count > _MOST_SPANS or closed or outside:
        return False, -1, -1
    spans = spans[:count]
    for index in range(count):
        if spans[index, ADDRESS] == 0:
            return False, -1, -1
    if len(out):
        shape = np.array([num_crops, high - low, width])
        damaged, _ = gather(spans, segments, CHECK_ONCE, out.ctypes.data, shape)
        if damaged >= 0:
            return False, -1, -1
    else:
        for span in spans:
            if _damaged_chunk(span, segments, chunk_bytes, True) >= 0:
                return False, -1, -1
    frame_ranges(spans, segments, windows, ranges[:1], ranges[1:])
    if count > 1:
        return True, -1, -1
    return True, spans[0, SEGMENT], spans[0, CHUNK] * CHUNK_ROWS + spans[0, SKIP]
