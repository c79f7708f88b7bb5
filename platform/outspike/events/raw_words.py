"""Words of the Prophesee raw formats EVT 2.0 and EVT 3.0, as far as events need them.

EVT 3.0 is a stream of little-endian 16-bit words with the type in the top four bits; state (time,
row, vector base) carries from word to word. EVT 2.0 is a stream of 32-bit words, each event whole
but for the upper bits of its time. The vendor's public format pages describe both.
"""

from dataclasses import dataclass


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
    TIME = TimeLayout(high_bits=12, low_bits=12)
    ADDRESS_MASK = 0x7FF


class Evt2:
    """Word types and time layout of EVT 2.0 (32-bit words)."""

    CD_OFF, CD_ON, TIME_HIGH = 0, 1, 8
    TIME = TimeLayout(high_bits=28, low_bits=6)
    ADDRESS_MASK = 0x7FF


#: Coordinates have eleven bits in both formats.
MAX_SIDE = 2048
