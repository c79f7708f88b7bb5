"""EVT 3.0 and 2.0 words many at a time, in vectors of the processor.

``decode_*`` are those of :mod:`~outspike.events.raw_kernels`, to the last bit. They take sound
words a vector at a time and leave what is left, a vector before a fault, the end of the words or of
the room, to the loops there.

An EVT 3.0 event takes its row and time from the last words of those types before it. Within a
vector of 32 words that is a running maximum: of low times as they are, since they count as their
running maximum anyway, of rows with the number of their lane above them. Then the lanes of column
words are packed together, and with them the rows and times in the same lanes. Vectors of events,
which cameras send as a base and 32 bits in three words, become columns by packing the numbers 0 to
31. Whole vectors are stored each time: what is too much is overwritten by the next.
"""

from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from outspike.events import raw_kernels
from outspike.events.lanes import COMPILED, I8, I16, I32, I64, Lanes, address, compresses_words
from outspike.events.raw_words import (
    BASE_X,
    HIGH,
    LOW,
    MAX_JITTER_US,
    POLARITY,
    ROW,
    Evt2,
    Evt3,
    State,
    next_high,
)

#: Whether ``decode_evt3`` and ``decode_evt2`` can be used; the latter needs nothing special.
USABLE3, USABLE2 = compresses_words(), COMPILED

_tuple_of: Any = types.UniTuple

#: Words of a vector, and so the room that a step needs.
LANES3, LANES2 = 32, 16

_PERIOD3, _LOW3, _MASK3 = Evt3.TIME.period, Evt3.TIME.low_bits, Evt3.ADDRESS_MASK
_VECT_BASE_X, _VECT_12, _VECT_8 = Evt3.VECT_BASE_X, Evt3.VECT_12, Evt3.VECT_8
_TIME_HIGH = Evt3.TIME_HIGH
_SILENT3 = sum(1 << kind for kind in Evt3.SILENT)
_LOW2 = Evt2.TIME.low_bits

#: A base and its three vectors, as one number of four words, lowest first.
_GROUP_KINDS = np.uint64(_VECT_8 << 60 | _VECT_12 << 44 | _VECT_12 << 28 | _VECT_BASE_X << 12)
_KINDS_OF_FOUR = np.uint64(0xF000F000F000F000)
_GROUP_COLUMNS = 32


def _rows_and_columns_code(
    typing: Any,
    words: Any,
    position: Any,
    t: Any,
    x: Any,
    y: Any,
    p: Any,
    num: Any,
    row: Any,
    high_us: Any,
    low: Any,
) -> Any:
    """Take rows, columns and low times from the next 32 words, up to the first of another type.

    Returns the words taken (-1: a low time steps back by more than jitter, nothing was taken), the
    events written, and the row and low time behind them.
    """

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        words, position, *columns, num, row, high_us, low = arguments
        lanes = Lanes(builder, LANES3)
        zeros = ir.Constant(lanes.vector(I16), None)
        word = lanes.load(I16, address(context, builder, signature.args[0], words, position))
        kind = builder.lshr(word, lanes.every(I16, 12))
        types_of_runs = (Evt3.ADDR_X, Evt3.ADDR_Y, Evt3.TIME_LOW)
        found = [lanes.number(lanes.equal(kind, k)) for k in types_of_runs]
        taken = lanes.first(builder.not_(builder.or_(builder.or_(found[0], found[1]), found[2])))
        is_column, is_row, is_low = (builder.and_(each, lanes.before(taken)) for each in found)

        numbered = lanes.constant(I16, [lane * (_MASK3 + 1) for lane in range(LANES3)])
        keys = builder.or_(builder.and_(word, lanes.every(I16, _MASK3)), numbered)
        keys = builder.select(lanes.bits(is_row), keys, zeros)
        rows = builder.and_(lanes.running_maximum(keys), lanes.every(I16, _MASK3))
        before_any = lanes.bits(lanes.before(lanes.first(is_row)))
        rows = builder.select(before_any, lanes.spread(builder.trunc(row, I16)), rows)

        values = builder.and_(word, lanes.every(I16, 0xFFF))
        values = builder.select(lanes.bits(is_low), values, zeros)
        lows = lanes.running_maximum(values)
        lows = lanes.maximum(lows, lanes.spread(builder.trunc(low, I16)))
        latest = builder.add(values, lanes.every(I16, MAX_JITTER_US))
        is_back = lanes.number(builder.icmp_unsigned("<", latest, lows))
        is_sound = builder.icmp_unsigned("==", builder.and_(is_back, is_low), I32(0))

        chosen = lanes.bits(is_column)
        column = lanes.compress(word, chosen)
        polarity = builder.and_(builder.lshr(column, lanes.every(I16, 11)), lanes.every(I16, 1))
        times = builder.zext(lanes.compress(lows, chosen), lanes.vector(I64))
        written = [
            builder.or_(times, lanes.spread(high_us)),
            builder.and_(column, lanes.every(I16, _MASK3)),
            lanes.compress(rows, chosen),
            builder.trunc(polarity, lanes.vector(I8)),
        ]
        for kind, array, vector in zip(signature.args[2:6], columns, written, strict=True):
            lanes.store(vector, address(context, builder, kind, array, num))
        last = I32(LANES3 - 1)
        after = [
            builder.select(is_sound, taken, I64(-1)),
            lanes.count(is_column),
            builder.zext(builder.extract_element(rows, last), I64),
            builder.zext(builder.extract_element(lows, last), I64),
        ]
        return context.make_tuple(builder, signature.return_type, after)

    taken = _tuple_of(types.int64, 4)
    return taken(words, position, t, x, y, p, num, row, high_us, low), code


def _fan_out_code(
    typing: Any,
    vector: Any,
    t: Any,
    x: Any,
    y: Any,
    p: Any,
    num: Any,
    base: Any,
    polarity: Any,
    row: Any,
    now: Any,
) -> Any:
    """Write an event for each bit of ``vector``, at ``base`` and the columns after it; how many."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vector, t, x, y, p, num, base, polarity, row, now = arguments
        lanes = Lanes(builder, _GROUP_COLUMNS)
        marks = builder.trunc(vector, I32)
        steps = lanes.constant(I16, list(range(_GROUP_COLUMNS)))
        columns = lanes.compress(steps, lanes.bits(marks))
        columns = builder.add(columns, lanes.spread(builder.trunc(base, I16)))
        count = lanes.count(marks)
        to = dict(zip("txyp", signature.args[1:5], strict=True))
        lanes.store(columns, address(context, builder, to["x"], x, num))
        lanes.store(
            lanes.spread(builder.trunc(row, I16)), address(context, builder, to["y"], y, num)
        )
        lanes.store(
            lanes.spread(builder.trunc(polarity, I8)), address(context, builder, to["p"], p, num)
        )
        # Few of the 32 are set as a rule, and times are most of what there is to store.
        few = Lanes(builder, 8)
        few.store(few.spread(now), address(context, builder, to["t"], t, num))
        with builder.if_then(builder.icmp_unsigned(">", count, I64(few.num)), likely=False):
            lanes.store(lanes.spread(now), address(context, builder, to["t"], t, num))
        return count

    return types.int64(vector, t, x, y, p, num, base, polarity, row, now), code


def _four_words_code(typing: Any, words: Any, position: Any) -> Any:
    """Four 16-bit words as one number."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = address(context, builder, signature.args[0], *arguments)
        return builder.load(builder.bitcast(pointer, I64.as_pointer()), align=1)

    return types.uint64(words, position), code


def _events2_code(
    typing: Any, words: Any, position: Any, t: Any, x: Any, y: Any, p: Any, num: Any, high_us: Any
) -> Any:
    """Write the events of the next 16 words up to the first of another type; how many."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        words, position, *columns, num, high_us = arguments
        lanes = Lanes(builder, LANES2)
        word = lanes.load(I32, address(context, builder, signature.args[0], words, position))
        kind = builder.lshr(word, lanes.every(I32, 28))
        others = lanes.number(builder.icmp_unsigned(">", kind, lanes.every(I32, Evt2.CD_ON)))
        low = builder.and_(
            builder.lshr(word, lanes.every(I32, 22)), lanes.every(I32, (1 << _LOW2) - 1)
        )
        column = builder.and_(
            builder.lshr(word, lanes.every(I32, 11)), lanes.every(I32, Evt2.ADDRESS_MASK)
        )
        row = builder.and_(word, lanes.every(I32, Evt2.ADDRESS_MASK))
        written = [
            builder.or_(builder.zext(low, lanes.vector(I64)), lanes.spread(high_us)),
            builder.trunc(column, lanes.vector(I16)),
            builder.trunc(row, lanes.vector(I16)),
            builder.trunc(kind, lanes.vector(I8)),
        ]
        for kind, array, vector in zip(signature.args[2:6], columns, written, strict=True):
            lanes.store(vector, address(context, builder, kind, array, num))
        return lanes.first(others)

    return types.int64(words, position, t, x, y, p, num, high_us), code


_rows_and_columns: Any = intrinsic(_rows_and_columns_code)
_fan_out: Any = intrinsic(_fan_out_code)
_four_words: Any = intrinsic(_four_words_code)
_events2: Any = intrinsic(_events2_code)


@numba.njit(cache=True, nogil=True)
def _sound_evt3(
    words: NDArray[np.uint16],
    position: int,
    state: State,
    t: raw_kernels.Times,
    x: raw_kernels.Addresses,
    y: raw_kernels.Addresses,
    p: raw_kernels.Polarities,
    num: int,
) -> tuple[int, int]:
    """Take words while whole vectors are left of them and of the room, up to one that is faulty."""
    last_start, last_num = len(words) - LANES3, len(t) - LANES3
    high_us, low, row = state[HIGH] << _LOW3, state[LOW], state[ROW]
    base, polarity = state[BASE_X], state[POLARITY] >> 11
    while position <= last_start and num <= last_num:
        taken, found, next_row, next_low = _rows_and_columns(
            words, position, t, x, y, p, num, row, high_us, low
        )
        if taken < 0:
            break
        num, row, low = num + found, next_row, next_low
        if taken == LANES3:
            # A number known beforehand: the next vector need not wait for what was found in this.
            position += LANES3
            continue
        position += taken
        if position > last_start or num > last_num:
            break
        four = _four_words(words, position)
        if four & _KINDS_OF_FOUR == _GROUP_KINDS:
            new_base = np.int64(four & np.uint64(_MASK3))
            if new_base > _MASK3 + 1 - _GROUP_COLUMNS:
                break
            base, polarity = new_base, np.int64(four >> np.uint64(11)) & 1
            vector = np.int64(four >> np.uint64(16)) & 0xFFF
            vector |= (np.int64(four >> np.uint64(32)) & 0xFFF) << 12
            vector |= (np.int64(four >> np.uint64(48)) & 0xFF) << 24
            num += _fan_out(vector, t, x, y, p, num, base, polarity, row, high_us | low)
            base += _GROUP_COLUMNS
            position += 4
            continue
        word = np.int64(words[position])
        kind, value = word >> 12, word & 0xFFF
        if kind in (_VECT_12, _VECT_8):
            width = 12 if kind == _VECT_12 else 8
            if base > _MASK3 + 1 - width:
                break
            vector = value & ((1 << width) - 1)
            num += _fan_out(vector, t, x, y, p, num, base, polarity, row, high_us | low)
            base += width
        elif kind == _VECT_BASE_X:
            base, polarity = value & _MASK3, value >> 11
        elif kind == _TIME_HIGH:
            high = next_high(high_us >> _LOW3, int(value), _PERIOD3, _LOW3)
            if high < 0:
                break
            low = low if high << _LOW3 == high_us else 0
            high_us = high << _LOW3
        elif (_SILENT3 >> kind) & 1 == 0:
            break
        position += 1
    state[HIGH], state[LOW], state[ROW] = high_us >> _LOW3, low, row
    state[BASE_X], state[POLARITY] = base, polarity << 11
    return position, num


@numba.njit(cache=True, nogil=True)
def _sound_evt2(
    words: NDArray[np.uint32],
    position: int,
    state: State,
    t: raw_kernels.Times,
    x: raw_kernels.Addresses,
    y: raw_kernels.Addresses,
    p: raw_kernels.Polarities,
    num: int,
) -> tuple[int, int]:
    """As :func:`_sound_evt3`."""
    high_us = state[HIGH] << _LOW2
    while position <= len(words) - LANES2 and num <= len(t) - LANES2:
        taken = _events2(words, position, t, x, y, p, num, high_us)
        position, num = position + taken, num + taken
        if taken == LANES2:
            continue
        high_us, fault = raw_kernels.take_other_evt2(np.int64(words[position]), high_us)
        if fault:
            break
        position += 1
    state[HIGH] = high_us >> _LOW2
    return position, num


@numba.njit(cache=True, nogil=True)
def decode_evt3(
    words: NDArray[np.uint16],
    start: int,
    state: State,
    t: raw_kernels.Times,
    x: raw_kernels.Addresses,
    y: raw_kernels.Addresses,
    p: raw_kernels.Polarities,
    count: int,
) -> tuple[int, int, int]:
    """:func:`outspike.events.raw_kernels.decode_evt3`."""
    position, num, fault, stop = start, count, raw_kernels.NO_FAULT, start
    while position == stop < len(words) and not fault:
        position, num = _sound_evt3(words, position, state, t, x, y, p, num)
        stop = min(len(words), position + LANES3)
        position, num, fault = raw_kernels.decode_evt3(
            words[:stop], position, state, t, x, y, p, num
        )
    return position, num, fault


@numba.njit(cache=True, nogil=True)
def decode_evt2(
    words: NDArray[np.uint32],
    start: int,
    state: State,
    t: raw_kernels.Times,
    x: raw_kernels.Addresses,
    y: raw_kernels.Addresses,
    p: raw_kernels.Polarities,
    count: int,
) -> tuple[int, int, int]:
    """:func:`outspike.events.raw_kernels.decode_evt2`."""
    position, num, fault, stop = start, count, raw_kernels.NO_FAULT, start
    while position == stop < len(words) and not fault:
        position, num = _sound_evt2(words, position, state, t, x, y, p, num)
        stop = min(len(words), position + LANES2)
        position, num, fault = raw_kernels.decode_evt2(
            words[:stop], position, state, t, x, y, p, num
        )
    return position, num, fault
