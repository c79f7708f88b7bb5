"""Words of the Prophesee raw formats EVT 2.0, 2.1 and 3.0, and the time that they carry in parts.

EVT 3.0 is a stream of little-endian 16-bit words with the type in the top four bits; state (time,
row, vector base) carries from word to word. EVT 2.0 is a stream of 32-bit words, each event whole
but for the upper bits of its time; EVT 2.1 has 64-bit words of the same layout with the events of
up to 32 neighbouring columns in the lower half. The vendor's public format pages describe them.
"""

from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class TimeLayout:
    """How a format splits a time in microseconds into a high and a low word."""

    high_bits: int
    low_bits: int

    @property
    def period(self) -> int:
        """Number of high words after which the counter starts again."""
        return 1 << self.high_bits


class Evt3:
    """Word types and time layout of EVT 3.0 (16-bit words)."""

    ADDR_Y, ADDR_X, VECT_BASE_X, VECT_12, VECT_8, TIME_LOW, TIME_HIGH = 0, 2, 3, 4, 5, 6, 8
    #: Types that the format knows and that carry no event: continued data, triggers, others.
    SILENT = (7, 10, 14, 15)
    TIME = TimeLayout(high_bits=12, low_bits=12)
    ADDRESS_MASK = 0x7FF


class Evt2:
    """Word types and time layout of EVT 2.0 (32-bit words)."""

    CD_OFF, CD_ON, TIME_HIGH = 0, 1, 8
    #: Types that the format knows and that carry no event: triggers, others, continued data.
    SILENT = (10, 14, 15)
    TIME = TimeLayout(high_bits=28, low_bits=6)
    ADDRESS_MASK = 0x7FF


#: Coordinates have eleven bits in all of them.
MAX_SIDE = 2048

#: Readout jitter: how far a time may lie behind the one before it. Real EVT 3.0 steps back by up to
#: 11 us; a larger step is a lost or damaged word.
MAX_JITTER_US = 256

#: What decoding carries from word to word. ``HIGH`` counts high time words since the counter was 0,
#: over its restarts; ``LOST`` is set from a time that runs backwards to the next good one.
State = NDArray[np.int64]
TIMED, LOST, HIGH, LOW, ROW, BASE_X, POLARITY, STATE_SIZE = range(8)


def new_state() -> State:
    """State before the first word."""
    return np.zeros(STATE_SIZE, dtype=np.int64)


@numba.njit(cache=True, nogil=True, inline="always")
def next_high(high: int, word: int, period: int, low_bits: int) -> int:
    """Count of high time words after ``word``, or -1 where time runs backwards.

    A step of less than half the period is forward, across a restart of the counter too. A step back
    within the jitter counts as no step.
    """
    forward = (word - high) & (period - 1)
    if 2 * forward < period:
        return high + forward
    return high if (period - forward) << low_bits <= MAX_JITTER_US else -1
