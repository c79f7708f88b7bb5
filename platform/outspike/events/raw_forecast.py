"""Foretell what carries over behind some words without decoding them.

High time words are rare and chained in one quick pass; the row, the vector base and the low time
are found by looking back from the end, all of it in loops over stretches of words that vectorise
and seldom branch. The forecast is wrong where words are damaged, or where the highest low time lies
far behind the last.
"""

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from outspike.events.raw_decode import EVT3, WordFormat, Words
from outspike.events.raw_words import BASE_X, HIGH, LOW, POLARITY, ROW, TIMED, Evt3, State

#: Words that are asked together whether one of them is of a type.
_STRETCH = 64

#: Words before the last low time that are asked for a higher one.
LOOK_BACK = 4 * _STRETCH

_MASK = Evt3.ADDRESS_MASK
#: Types where they stand in a word, and as narrow, or comparing them would take wider vectors.
_KIND, _ADDR_Y = np.uint16(0xF000), np.uint16(Evt3.ADDR_Y << 12)
_TIME_LOW, _VECT_BASE_X = np.uint16(Evt3.TIME_LOW << 12), np.uint16(Evt3.VECT_BASE_X << 12)
#: Vectors of 12 and of 8 columns differ in the lowest bit of their type.
_VECTORS, _VECT_12 = np.uint16(0xE000), np.uint16(Evt3.VECT_12 << 12)


def state_after(part: Words, state: State, words: WordFormat) -> State:
    """What carries over behind ``part`` if none of its words is damaged."""
    after = state.copy()
    kind = part.dtype.type(words.high_kind << words.kind_shift)
    mask = part.dtype.type(0xF << words.kind_shift)
    if words is EVT3:
        _foretell_evt3(part, mask, kind, words.time.period, after)
    else:
        _chain_highs(part, mask, kind, words.high_shift, words.time.period, after)
    return after


@numba.njit(cache=True, nogil=True)
def _foretell_evt3(
    words: NDArray[np.uint16], mask: Any, kind: Any, period: int, state: State
) -> None:
    """All in one call: each has to wait for the interpreter's lock at its end."""
    _look_back(words, _chain_highs(words, mask, kind, 0, period, state), state)


@numba.njit(cache=True, nogil=True)
def _chain_highs(
    words: Words, mask: Any, kind: Any, high_shift: int, period: int, state: State
) -> int:
    """Follow high times; the position from which low times count (-1: they go on)."""
    restart = -1
    num_rows = len(words) // _STRETCH
    rows = words[: num_rows * _STRETCH].reshape(num_rows, _STRETCH)
    for row in range(num_rows + 1):
        if row < num_rows and not _has(rows, row, mask, kind):
            continue
        for position in range(row * _STRETCH, min((row + 1) * _STRETCH, len(words))):
            if words[position] & mask != kind:
                continue
            value = np.int64(words[position] >> np.uint64(high_shift)) & (period - 1)
            high = value if state[TIMED] == 0 else state[HIGH] + (value - state[HIGH]) % period
            if state[TIMED] == 0 or high != state[HIGH]:
                restart = position
            state[HIGH] = high
            state[TIMED] = 1
    return restart


@numba.njit(cache=True, nogil=True)
def _has(rows: Words, row: int, mask: Any, kind: Any) -> bool:
    """Whether one of a row of words is of a type; looks at all of them, which vectorises."""
    found = False
    for i in range(_STRETCH):
        found |= rows[row, i] & mask == kind
    return found


@numba.njit(cache=True, nogil=True)
def _last(words: NDArray[np.uint16], mask: Any, kind: Any) -> int:
    """Position of the last word of a type, or -1."""
    num_rows = len(words) // _STRETCH
    rows = words[: num_rows * _STRETCH].reshape(num_rows, _STRETCH)
    for row in range(num_rows, -1, -1):
        if row < num_rows and not _has(rows, row, mask, kind):
            continue
        for position in range(min((row + 1) * _STRETCH, len(words)) - 1, row * _STRETCH - 1, -1):
            if words[position] & mask == kind:
                return position
    return -1


@numba.njit(cache=True, nogil=True)
def _look_back(words: NDArray[np.uint16], restart: int, state: State) -> None:
    """Row, vector base and low time at the end of the words."""
    state[LOW] = 0 if restart >= 0 else state[LOW]
    low = _last(words, _KIND, _TIME_LOW)
    # Low times step back by a few and seldom, so the highest of them is one of the last.
    for position in range(max(restart, low + 1 - LOOK_BACK, 0), low + 1):
        if words[position] & _KIND == _TIME_LOW:
            state[LOW] = max(state[LOW], np.int64(words[position] & np.uint16(0xFFF)))
    row = _last(words, _KIND, _ADDR_Y)
    if row >= 0:
        state[ROW] = words[row] & _MASK
    base = _last(words, _KIND, _VECT_BASE_X)
    if base >= 0:
        state[BASE_X] = words[base] & _MASK
        state[POLARITY] = words[base] & (_MASK + 1)
    for position in range(base + 1, _last(words, _VECTORS, _VECT_12) + 1):
        if words[position] & _VECTORS == _VECT_12:
            state[BASE_X] += 12 if words[position] & _KIND == _VECT_12 else 8
