"""Compiled loop for single rows of many bags: found, checked, widened and put in place in one pass.

Beside :mod:`outspike.store.gather`, whose spans serve runs of rows. A training window of rows here
and there would be a span each, and float16 becomes float32 on the way into the batch.
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

from outspike.store.gather import (
    ADDRESS,
    CHECKED,
    CHUNK,
    EXTENT_LENGTH,
    EXTENT_ROW,
    EXTENT_SEGMENT,
    EXTENT_SNIPPET,
    NUM_CHUNKS,
    NUM_SPAN_COLUMNS,
    ROWS,
    SEGMENT,
    SHARD_ROWS,
    SHARDS,
    START,
    STOP,
    USED,
    Table,
    _clear,
    _copy,
    _damaged_chunk,
    _load,
    _load_byte,
)
from outspike.store.layout import CHUNK_ROWS

_LANES = 8


def _can_widen() -> bool:
    return platform.machine() == "x86_64" and bool(llvm.get_host_cpu_features().get("f16c"))


#: Whether the processor turns float16 into float32; numpy does where it cannot.
WIDENS = _can_widen()


def _widen_code(typing: Any, target: Any, source: Any, count: Any) -> Any:
    """``count`` values, a multiple of eight, from float16 to float32."""

    def code(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
        word = ir.IntType(64)
        to, start, number = arguments
        narrow = ir.VectorType(ir.HalfType(), _LANES)
        wide = ir.VectorType(ir.FloatType(), _LANES)
        with cgutils.for_range(builder, builder.udiv(number, word(_LANES))) as loop:
            at = builder.add(start, builder.mul(loop.index, word(2 * _LANES)))
            place = builder.add(to, builder.mul(loop.index, word(4 * _LANES)))
            values = builder.load(builder.inttoptr(at, narrow.as_pointer()), align=1)
            pointer = builder.inttoptr(place, wide.as_pointer())
            builder.store(builder.fpext(values, wide), pointer, align=1)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), code


_widen: Any = intrinsic(_widen_code)


@numba.njit(cache=True, nogil=True)
def gather_rows(
    bags: Table,
    rows: Table,
    first: Table,
    extents: Table,
    segments: Table,
    used: int,
    num_crops: int,
    width: int,
    widen: bool,
    out: NDArray[np.uint8],
    ranges: Table,
) -> bool:
    """Put single rows of recordings into a batch ``[B, K, S, D]``, each chunk checked once.

    Args:
        bags: ``[B]`` numbers of recordings.
        rows: ``[B, S]`` snippets of each, -1 where the batch is to be zero.
        first, extents, segments, used: see :func:`outspike.store.gather.lay_out`.
        num_crops: ``K``.
        width: bytes of ``D`` values as they are stored.
        widen: they are float16, a multiple of eight, and float32 in the batch.
        out: the batch as bytes.
        ranges: ``[2, B, S]`` first frames, and frames past the last, 0 at padding.

    Returns:
        False where a row is not in memory or not intact; the batch is then worth nothing.
    """
    row_bytes = num_crops * width
    wide = 2 * width if widen else width
    num_rows = rows.shape[1]
    target = out.ctypes.data
    span = np.zeros(NUM_SPAN_COLUMNS, dtype=np.int64)
    span[NUM_CHUNKS] = 1
    for bag in range(len(bags)):
        begin, end = first[bags[bag]], first[bags[bag] + 1]
        for place in range(num_rows):
            snippet = rows[bag, place]
            to = target + (bag * num_crops * num_rows + place) * wide
            if snippet < 0:
                for crop in range(num_crops):
                    _clear(to + crop * num_rows * wide, wide)
                ranges[:, bag, place] = 0
                continue
            number = begin
            while number < end and snippet >= (
                extents[number, EXTENT_SNIPPET] + extents[number, EXTENT_LENGTH]
            ):
                number += 1
            if number == end:
                return False
            segment = extents[number, EXTENT_SEGMENT]
            row = extents[number, EXTENT_ROW] + snippet - extents[number, EXTENT_SNIPPET]
            if row >= segments[segment, ROWS]:  # not open, which has no rows, or no such row
                return False
            shard_rows = segments[segment, SHARD_ROWS]
            shard, within = row // shard_rows, row % shard_rows
            address = _load(segments[segment, SHARDS] + 8 * shard)
            if address == 0:
                return False
            chunk = row // CHUNK_ROWS
            if not _load_byte(segments[segment, CHECKED] + chunk):
                span[ADDRESS] = address + within // CHUNK_ROWS * CHUNK_ROWS * row_bytes
                span[CHUNK], span[SEGMENT] = chunk, segment
                if _damaged_chunk(span, segments, CHUNK_ROWS * row_bytes, True) >= 0:
                    return False
            segments[segment, USED] = used
            source = address + within * row_bytes
            for crop in range(num_crops):
                if widen:
                    _widen(to + crop * num_rows * wide, source + crop * width, width // 2)
                else:
                    _copy(to + crop * num_rows * wide, source + crop * width, width)
            ranges[0, bag, place] = _load(segments[segment, START] + 8 * row)
            ranges[1, bag, place] = _load(segments[segment, STOP] + 8 * row)
    return True
