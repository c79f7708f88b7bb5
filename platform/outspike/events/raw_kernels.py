"""Compiled loops over EVT 2.0, 2.1 and 3.0 words.

``decode_*`` write events until the words or the room end, or stop before a word that they cannot
take. ``skip_*`` follow the same words without writing events, from a missing or wrong time to the
next good one. Both keep what carries over in a :data:`~outspike.events.raw_words.State`.

A word's type is close to random, so ``decode_evt3`` avoids branching on it: column words, rows and
low times are all worked out for every word and kept or dropped. Only vector words, which come
together, and high times, which are rare, take a branch. Columns are written with the polarity still
in them, as the word has it, and taken apart in a second loop that vectorises.
"""

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from outspike.events.raw_words import (
    BASE_X,
    HIGH,
    LOST,
    LOW,
    MAX_JITTER_US,
    POLARITY,
    ROW,
    TIMED,
    Evt2,
    Evt3,
    State,
    next_high,
)

Times = NDArray[np.int64]
Addresses = NDArray[np.uint16]
Polarities = NDArray[np.uint8]

#: Why a kernel stopped before a word: it did not, or the word is of no known type, a time that runs
#: backwards by more than jitter, or a vector that reaches past the columns a word can name.
NO_FAULT, UNKNOWN_TYPE, TIME_BACK, PAST_COLUMNS = 0, 1, 2, 3

#: Most events of one word of EVT 3.0 and of EVT 2.1: the room that must be left for one more word.
MAX_PER_WORD, MAX_PER_WORD21 = 12, 32

#: Values of ``LOST``: the next low time may be right again, or only a high one.
_LOST_LOW, _LOST_HIGH = 1, 2

_PERIOD3, _LOW3, _MASK3 = Evt3.TIME.period, Evt3.TIME.low_bits, Evt3.ADDRESS_MASK
_ADDR_Y, _ADDR_X, _VECT_BASE_X = Evt3.ADDR_Y, Evt3.ADDR_X, Evt3.VECT_BASE_X
_VECT_12, _VECT_8 = Evt3.VECT_12, Evt3.VECT_8
_TIME_LOW, _TIME_HIGH = Evt3.TIME_LOW, Evt3.TIME_HIGH
_PERIOD2, _LOW2, _MASK2 = Evt2.TIME.period, Evt2.TIME.low_bits, Evt2.ADDRESS_MASK
_LOW2_MASK = (1 << Evt2.TIME.low_bits) - 1
_ON, _HIGH2 = Evt2.CD_ON, Evt2.TIME_HIGH


def _mask_of(kinds: tuple[int, ...]) -> int:
    return sum(1 << kind for kind in kinds)


#: Rows and columns differ in one bit of their type; the others are 0 in both.
_COLUMN_BIT = 13
_NEITHER_ROW_NOR_COLUMN = 0xF000 & ~(1 << _COLUMN_BIT)
_SILENT3, _SILENT2 = _mask_of(Evt3.SILENT), _mask_of(Evt2.SILENT)


def _set_bits() -> NDArray[np.uint64]:
    """Positions of the set bits of every 12-bit vector, four bits each, lowest first; count on top.

    ``[4096]``: 32 kB, which stay in the first cache.
    """
    table = np.zeros(1 << MAX_PER_WORD, dtype=np.uint64)
    for vector in range(len(table)):
        positions = [bit for bit in range(MAX_PER_WORD) if vector >> bit & 1]
        packed = sum(bit << 4 * rank for rank, bit in enumerate(positions))
        table[vector] = packed | len(positions) << 4 * MAX_PER_WORD
    return table


_SET_BITS = _set_bits()


@numba.njit(cache=True, nogil=True)
def decode_evt3(
    words: NDArray[np.uint16],
    start: int,
    state: State,
    t: Times,
    x: Addresses,
    y: Addresses,
    p: Polarities,
    count: int,
) -> tuple[int, int, int]:
    """Write events behind the first ``count``, from word ``start`` on, while there is room.

    Times are the running maximum within one high word, so they never decrease.

    Returns:
        The word that comes next, the events then written, and why it stopped there.
    """
    # Unsigned, all of them: a signed index costs a look at its sign in every access.
    room = np.uintp(max(0, len(t) - MAX_PER_WORD + 1))
    num_words = np.uintp(len(words))
    num = np.uintp(count)
    position = np.uintp(start)
    high_us = state[HIGH] << _LOW3
    now = high_us | state[LOW]
    row = state[ROW]
    base = state[BASE_X]
    polarity = state[POLARITY]
    fault = NO_FAULT
    while position < num_words and num < room:
        stop = min(num_words, position + (room - num))
        while position < stop:
            word = np.int64(words[position])
            if word & _NEITHER_ROW_NOR_COLUMN:
                break
            t[num] = now
            x[num] = word
            y[num] = row
            is_column = (word >> _COLUMN_BIT) & 1
            num += np.uintp(is_column)
            row = row if is_column else word & _MASK3
            position += np.uintp(1)
        if position == stop:
            continue
        word = np.int64(words[position])
        kind = word >> 12
        value = word & 0xFFF
        if kind == _TIME_LOW:
            if (high_us | value) + MAX_JITTER_US < now:
                fault = TIME_BACK
                break
            now = max(now, high_us | value)
        elif kind in (_VECT_12, _VECT_8):
            bits = _SET_BITS[value if kind == _VECT_12 else value & 0xFF]
            found = np.int64(bits >> np.uint64(4 * MAX_PER_WORD))
            if base > _MASK3 + 1 - MAX_PER_WORD and found > 0:
                last = np.int64((bits >> np.uint64(4 * (found - 1))) & np.uint64(15))
                if base + last > _MASK3:
                    fault = PAST_COLUMNS
                    break
            # Four in any case, which is as many as most have: what is too much is overwritten.
            for rank in range(4):
                place = num + np.uintp(rank)
                t[place] = now
                column = base + np.int64((bits >> np.uint64(4 * rank)) & np.uint64(15))
                x[place] = column | polarity
                y[place] = row
            for rank in range(4, found):
                place = num + np.uintp(rank)
                t[place] = now
                column = base + np.int64((bits >> np.uint64(4 * rank)) & np.uint64(15))
                x[place] = column | polarity
                y[place] = row
            num += np.uintp(found)
            base += 12 if kind == _VECT_12 else 8
        elif kind == _VECT_BASE_X:
            base = value & _MASK3
            polarity = value & ~_MASK3
        elif kind == _TIME_HIGH:
            high = next_high(high_us >> _LOW3, int(value), _PERIOD3, _LOW3)
            if high < 0:
                fault = TIME_BACK
                break
            high_us = high << _LOW3
            now = max(now, high_us)
        elif (_SILENT3 >> kind) & 1 == 0:
            fault = UNKNOWN_TYPE
            break
        position += np.uintp(1)
    _take_polarity(x[count:num], p[count:num])
    state[HIGH] = high_us >> _LOW3
    state[LOW] = now - high_us
    state[ROW] = row
    state[BASE_X] = base
    state[POLARITY] = polarity
    return int(np.intp(position)), int(np.intp(num)), fault


@numba.njit(cache=True, nogil=True)
def skip_evt3(words: NDArray[np.uint16], start: int, state: State) -> tuple[int, int, int]:
    """Follow words from ``start`` to the first good time word, which is taken.

    Returns:
        The word that comes next, the events passed over, and why it stopped there.
    """
    passed = 0
    for position in range(start, len(words)):
        kind = np.int64(words[position]) >> 12
        value = np.int64(words[position]) & 0xFFF
        if kind == _ADDR_X:
            passed += 1
        elif kind == _ADDR_Y:
            state[ROW] = value & _MASK3
        elif kind == _VECT_BASE_X:
            state[BASE_X] = value & _MASK3
            state[POLARITY] = value & ~_MASK3
        elif kind in (_VECT_12, _VECT_8):
            bits = _SET_BITS[value if kind == _VECT_12 else value & 0xFF]
            passed += int(bits >> np.uint64(4 * MAX_PER_WORD))
            state[BASE_X] += 12 if kind == _VECT_12 else 8
        elif kind == _TIME_LOW:
            low_may_end_it = state[TIMED] != 0 and state[LOST] == _LOST_LOW
            if low_may_end_it and value + MAX_JITTER_US >= state[LOW]:
                state[LOW] = max(state[LOW], value)
                state[LOST] = 0
                return position + 1, passed, NO_FAULT
        elif kind == _TIME_HIGH:
            if _take_high(state, int(value), _PERIOD3, _LOW3):
                return position + 1, passed, NO_FAULT
        elif (_SILENT3 >> kind) & 1 == 0:
            return position, passed, UNKNOWN_TYPE
    return len(words), passed, NO_FAULT


@numba.njit(cache=True, nogil=True)
def decode_evt2(
    words: NDArray[np.uint32],
    start: int,
    state: State,
    t: Times,
    x: Addresses,
    y: Addresses,
    p: Polarities,
    count: int,
) -> tuple[int, int, int]:
    """As :func:`decode_evt3`; the low bits of a time stand in each event, as they were stored."""
    room = np.uintp(max(0, len(t) - MAX_PER_WORD + 1))
    num_words = np.uintp(len(words))
    num = np.uintp(count)
    position = np.uintp(start)
    high_us = state[HIGH] << _LOW2
    fault = NO_FAULT
    while position < num_words and num < room:
        word = np.int64(words[position])
        kind = word >> 28
        if kind <= _ON:
            t[num] = high_us | ((word >> 22) & _LOW2_MASK)
            x[num] = (word >> 11) & _MASK2
            y[num] = word & _MASK2
            p[num] = kind
            num += np.uintp(1)
        else:
            high_us, fault = take_other_evt2(word, high_us)
            if fault:
                break
        position += np.uintp(1)
    state[HIGH] = high_us >> _LOW2
    return int(np.intp(position)), int(np.intp(num)), fault


@numba.njit(cache=True, nogil=True)
def decode_evt21(
    words: NDArray[np.uint64],
    start: int,
    state: State,
    t: Times,
    x: Addresses,
    y: Addresses,
    p: Polarities,
    count: int,
) -> tuple[int, int, int]:
    """As :func:`decode_evt2`; the lower half of a word marks events of up to 32 columns."""
    room = len(t) - MAX_PER_WORD21
    position = start
    high_us = state[HIGH] << _LOW2
    fault = NO_FAULT
    while position < len(words) and count <= room:
        word = np.int64(words[position] >> np.uint64(32))
        kind = word >> 28
        if kind <= _ON:
            now = high_us | ((word >> 22) & _LOW2_MASK)
            base = (word >> 11) & _MASK2
            marks = np.int64(words[position] & np.uint64(0xFFFFFFFF))
            if base + 31 > _MASK2 and marks >> (_MASK2 + 1 - base):
                fault = PAST_COLUMNS
                break
            column = base
            while marks:
                if marks & 1:
                    t[count] = now
                    x[count] = column
                    y[count] = word & _MASK2
                    p[count] = kind
                    count += 1
                marks >>= 1
                column += 1
        else:
            high_us, fault = take_other_evt2(word, high_us)
            if fault:
                break
        position += 1
    state[HIGH] = high_us >> _LOW2
    return position, count, fault


@numba.njit(cache=True, nogil=True)
def take_other_evt2(word: Any, high_us: int) -> tuple[int, int]:
    """The high time behind a 32-bit word that is no event, and what is wrong with it."""
    kind = word >> 28
    if kind == _HIGH2:
        high = next_high(high_us >> _LOW2, word & 0x0FFFFFFF, _PERIOD2, _LOW2)
        return (high_us, TIME_BACK) if high < 0 else (high << _LOW2, NO_FAULT)
    return high_us, NO_FAULT if (_SILENT2 >> kind) & 1 else UNKNOWN_TYPE


@numba.njit(cache=True, nogil=True)
def skip_evt2(words: NDArray[np.uint32], start: int, state: State) -> tuple[int, int, int]:
    """As :func:`skip_evt3`."""
    return _skip(words, start, state, 0)


@numba.njit(cache=True, nogil=True)
def skip_evt21(words: NDArray[np.uint64], start: int, state: State) -> tuple[int, int, int]:
    """As :func:`skip_evt3`."""
    return _skip(words, start, state, 32)


@numba.njit(cache=True, nogil=True)
def _skip(words: Any, start: int, state: State, shift: int) -> tuple[int, int, int]:
    """Types and times lie ``shift`` bits up in a word; a bit below marks an event, if there are."""
    passed = 0
    for position in range(start, len(words)):
        word = np.int64(words[position] >> np.uint64(shift))
        kind = word >> 28
        if kind <= _ON:
            marks = np.int64(words[position]) & ((1 << shift) - 1) if shift else 1
            while marks:
                passed += int(marks & 1)
                marks >>= 1
        elif kind == _HIGH2:
            if _take_high(state, int(word & 0x0FFFFFFF), _PERIOD2, _LOW2):
                return position + 1, passed, NO_FAULT
        elif (_SILENT2 >> kind) & 1 == 0:
            return position, passed, UNKNOWN_TYPE
    return len(words), passed, NO_FAULT


@numba.njit(cache=True, nogil=True)
def lose_time(word_type: int, state: State) -> None:
    """Note that times run backwards; ``word_type`` is that of the word that told so."""
    state[LOST] = _LOST_LOW if word_type == _TIME_LOW else _LOST_HIGH


@numba.njit(cache=True, nogil=True)
def _take_high(state: State, value: int, period: int, low_bits: int) -> bool:
    """Take the first high time word, or the first good one after times were lost."""
    high = value if state[TIMED] == 0 else next_high(state[HIGH], value, period, low_bits)
    if high < 0:
        return False
    if high != state[HIGH] or state[TIMED] == 0:
        state[LOW] = 0
    state[HIGH] = high
    state[TIMED] = 1
    state[LOST] = 0
    return True


@numba.njit(cache=True, nogil=True)
def _take_polarity(x: Addresses, p: Polarities) -> None:
    """Move the polarity, which EVT 3.0 keeps above the column, into its own column."""
    for i in range(len(x)):
        p[i] = (x[i] >> np.uint16(11)) & np.uint16(1)
        x[i] &= np.uint16(_MASK3)
