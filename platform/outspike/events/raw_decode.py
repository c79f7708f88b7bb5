"""Decode EVT 2.0 and EVT 3.0 words into event columns, a block of words at a time.

State that a format carries from word to word lives in one small array, so that a recording can be
cut into blocks anywhere between two words and decode to the same events.
"""

from typing import Protocol

import numba
import numpy as np
from numpy.typing import NDArray

from outspike.events.columns import Events
from outspike.events.raw_words import Evt2, Evt3

State = NDArray[np.int64]

# Slots of the state.
_HAS_TIME, _HIGH, _EPOCH, _LOW, _Y, _BASE_X, _POLARITY, _UNTIMED = range(8)
_STATE_SIZE = 8

#: A vector word of EVT 3.0 holds up to this many events.
_MAX_PER_WORD = 12


class Decoder(Protocol):
    """Turns consecutive blocks of words into events."""

    word: np.dtype[np.unsignedinteger]

    def decode(self, words: NDArray[np.unsignedinteger]) -> Events:
        """Events of the next block."""

    @property
    def num_untimed(self) -> int:
        """Events before the first time word, which are left out: nobody knows when they were."""


class Evt3Decoder:
    """EVT 3.0. Low time words may step back by some microseconds within one high word (readout
    jitter); times are the running maximum there, so they never decrease.
    """

    word = np.dtype("<u2")

    def __init__(self) -> None:
        self._state: State = np.zeros(_STATE_SIZE, dtype=np.int64)

    def decode(self, words: NDArray[np.unsignedinteger]) -> Events:
        """Events of the next block of 16-bit words."""
        room = _MAX_PER_WORD * len(words)
        columns = _columns(room)
        return _cut(columns, _decode_evt3(words, self._state, *columns))

    @property
    def num_untimed(self) -> int:
        """Events left out because no time word came before them."""
        return int(self._state[_UNTIMED])


class Evt2Decoder:
    """EVT 2.0: each event is whole but for the upper bits of its time."""

    word = np.dtype("<u4")

    def __init__(self) -> None:
        self._state: State = np.zeros(_STATE_SIZE, dtype=np.int64)

    def decode(self, words: NDArray[np.unsignedinteger]) -> Events:
        """Events of the next block of 32-bit words."""
        columns = _columns(len(words))
        return _cut(columns, _decode_evt2(words, self._state, *columns))

    @property
    def num_untimed(self) -> int:
        """Events left out because no time word came before them."""
        return int(self._state[_UNTIMED])


Columns = tuple[NDArray[np.int64], NDArray[np.uint16], NDArray[np.uint16], NDArray[np.uint8]]


def _columns(room: int) -> Columns:
    return (
        np.empty(room, dtype=np.int64),
        np.empty(room, dtype=np.uint16),
        np.empty(room, dtype=np.uint16),
        np.empty(room, dtype=np.uint8),
    )


def _cut(columns: Columns, count: int) -> Events:
    t, x, y, p = (column[:count].copy() for column in columns)
    return Events(t, x, y, p)  # type: ignore[arg-type]  # the generator loses the dtypes


@numba.njit(cache=True)
def _new_high(state: State, high: int, period: int) -> bool:
    """Take a high time word; False where it repeats or steps back within half a period."""
    if state[_HAS_TIME] == 0:
        state[_HAS_TIME] = 1
        state[_HIGH] = high
        return True
    forward = (high - state[_HIGH]) % period
    if forward == 0 or forward >= period // 2:
        return False
    if high < state[_HIGH]:
        state[_EPOCH] += 1
    state[_HIGH] = high
    return True


_EVT3_PERIOD, _EVT3_LOW = Evt3.TIME.period, Evt3.TIME.low_bits
_EVT3_ADDRESS = Evt3.ADDRESS_MASK
_ADDR_Y, _ADDR_X, _VECT_BASE_X = Evt3.ADDR_Y, Evt3.ADDR_X, Evt3.VECT_BASE_X
_VECT_12, _VECT_8 = Evt3.VECT_12, Evt3.VECT_8
_TIME_LOW, _TIME_HIGH = Evt3.TIME_LOW, Evt3.TIME_HIGH


@numba.njit(cache=True)
def _decode_evt3(
    words: NDArray[np.uint16],
    state: State,
    t: NDArray[np.int64],
    x: NDArray[np.uint16],
    y: NDArray[np.uint16],
    p: NDArray[np.uint8],
) -> int:
    count = 0
    for word in words:
        kind = word >> 12
        value = np.int64(word & 0xFFF)
        if kind == _TIME_HIGH:
            if _new_high(state, int(value), _EVT3_PERIOD):
                state[_LOW] = 0
            continue
        if kind == _TIME_LOW:
            state[_LOW] = max(state[_LOW], value)
            continue
        if kind == _ADDR_Y:
            state[_Y] = value & _EVT3_ADDRESS
            continue
        if kind == _VECT_BASE_X:
            state[_BASE_X] = value & _EVT3_ADDRESS
            state[_POLARITY] = value >> 11
            continue
        if kind != _ADDR_X and kind != _VECT_12 and kind != _VECT_8:
            continue
        now = ((state[_EPOCH] * _EVT3_PERIOD + state[_HIGH]) << _EVT3_LOW) | state[_LOW]
        if kind == _ADDR_X:
            if state[_HAS_TIME]:
                t[count] = now
                x[count] = value & _EVT3_ADDRESS
                y[count] = state[_Y]
                p[count] = value >> 11
                count += 1
            else:
                state[_UNTIMED] += 1
            continue
        width = 12 if kind == _VECT_12 else 8
        for bit in range(width):
            if not (value >> bit) & 1:
                continue
            if state[_HAS_TIME] == 0:
                state[_UNTIMED] += 1
            else:
                t[count] = now
                x[count] = state[_BASE_X] + bit
                y[count] = state[_Y]
                p[count] = state[_POLARITY]
                count += 1
        state[_BASE_X] += width
    return count


_EVT2_PERIOD, _EVT2_LOW = Evt2.TIME.period, Evt2.TIME.low_bits
_EVT2_ADDRESS, _EVT2_HIGH, _EVT2_ON = Evt2.ADDRESS_MASK, Evt2.TIME_HIGH, Evt2.CD_ON
_EVT2_LOW_MASK = (1 << Evt2.TIME.low_bits) - 1


@numba.njit(cache=True)
def _decode_evt2(
    words: NDArray[np.uint32],
    state: State,
    t: NDArray[np.int64],
    x: NDArray[np.uint16],
    y: NDArray[np.uint16],
    p: NDArray[np.uint8],
) -> int:
    count = 0
    for word in words:
        kind = word >> 28
        if kind == _EVT2_HIGH:
            _new_high(state, int(word & 0x0FFFFFFF), _EVT2_PERIOD)
        elif kind <= _EVT2_ON and state[_HAS_TIME] == 0:
            state[_UNTIMED] += 1
        elif kind <= _EVT2_ON:
            high = state[_EPOCH] * _EVT2_PERIOD + state[_HIGH]
            t[count] = (high << _EVT2_LOW) | np.int64((word >> 22) & _EVT2_LOW_MASK)
            x[count] = (word >> 11) & _EVT2_ADDRESS
            y[count] = word & _EVT2_ADDRESS
            p[count] = kind
            count += 1
    return count
