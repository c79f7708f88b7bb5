"""Encode events as words of EVT 2.0 and EVT 3.0, a block of events at a time."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from outspike.events.columns import Events
from outspike.events.raw_words import Evt2, Evt3, TimeLayout

#: Columns of the longer of EVT 3.0's vector words.
_VECTOR_WIDTH = 12


def encode_evt3(events: Events, before: Events | None) -> NDArray[np.uint16]:
    """Words of consecutive events; ``before`` is the one event written last.

    An event is a column word, with row, low time and high times before it where they change.
    Several of one time, row and polarity share vector words where that is shorter.
    """
    owner, high = _high_words(events.t, before, Evt3.TIME)
    num_high = np.bincount(owner, minlength=len(events))
    new_time = (_shifted_difference(events.t, before.t if before else None) != 0) | (num_high > 0)
    new_row = _shifted_difference(events.y, before.y if before else None) != 0
    vectors = _vectors(events, new_time | new_row)
    alone = ~vectors.member
    num_columns = alone.astype(np.int64) + vectors.base + vectors.block
    stop = np.cumsum(num_high + new_time + new_row + num_columns)
    words = np.empty(int(stop[-1]), dtype="<u2")
    on = events.p.astype(np.uint16) << 11
    words[stop[alone] - 1] = Evt3.ADDR_X << 12 | (on | events.x)[alone]
    words[stop[vectors.block] - 1] = Evt3.VECT_12 << 12 | vectors.bits
    words[stop[vectors.base] - 2] = Evt3.VECT_BASE_X << 12 | (on | events.x)[vectors.base]
    before_columns = stop - num_columns
    words[(before_columns - 1)[new_row]] = Evt3.ADDR_Y << 12 | events.y[new_row]
    low = (events.t & 0xFFF).astype(np.uint16)
    words[(before_columns - 1 - new_row)[new_time]] = Evt3.TIME_LOW << 12 | low[new_time]
    first = before_columns - new_row - new_time - num_high
    words[first[owner] + _rank_in_group(owner, num_high)] = Evt3.TIME_HIGH << 12 | high
    return words


@dataclass(frozen=True)
class _Vectors:
    """Events that share vector words.

    Args:
        member: which events do ``[N]``.
        base: the first of each run, which a base word comes before.
        block: the first of each 12 columns, which stands for the vector word.
        bits: of the vector words, in their order.
    """

    member: NDArray[np.bool_]
    base: NDArray[np.bool_]
    block: NDArray[np.bool_]
    bits: NDArray[np.uint16]


def _vectors(events: Events, new_word: NDArray[np.bool_]) -> _Vectors:
    """Runs of one time, row and polarity whose columns rise by at most a vector's width."""
    step = _shifted_difference(events.x, None)
    turn = _shifted_difference(events.p, None) != 0
    starts = new_word | turn | (step < 1) | (step > _VECTOR_WIDTH)
    starts[0] = True
    run = np.cumsum(starts) - 1
    first = np.flatnonzero(starts)
    offset = events.x.astype(np.int64) - events.x[first][run]
    number = offset // _VECTOR_WIDTH
    size = np.bincount(run)
    num_blocks = number[np.append(first[1:], len(run)) - 1] + 1
    member = (size > num_blocks + 1)[run]
    block = member & (starts | (_shifted_difference(number, None) != 0))
    bit = (1 << offset % _VECTOR_WIDTH)[member]
    places = np.flatnonzero(block[member])
    bits = np.add.reduceat(bit, places) if len(places) else np.zeros(0, dtype=np.int64)
    return _Vectors(member, member & starts, block, bits.astype(np.uint16))


def encode_evt2(events: Events, before: Events | None) -> NDArray[np.uint32]:
    """Words of consecutive events; ``before`` is the one event written last."""
    owner, high = _high_words(events.t, before, Evt2.TIME)
    num_high = np.bincount(owner, minlength=len(events))
    stop = np.cumsum(num_high + 1)
    words = np.empty(int(stop[-1]), dtype="<u4")
    low = (events.t & 0x3F).astype(np.uint32)
    kind = events.p.astype(np.uint32)  # CD_OFF is 0, CD_ON is 1
    words[stop - 1] = kind << 28 | low << 22 | events.x.astype(np.uint32) << 11 | events.y
    first = stop - 1 - num_high
    words[first[owner] + _rank_in_group(owner, num_high)] = Evt2.TIME_HIGH << 28 | high
    return words


def _high_words(
    t_us: NDArray[np.int64], before: Events | None, layout: TimeLayout
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """High time words as (index of the event that each precedes, value).

    The counter starts again after ``layout.period`` words. A reader can only follow that if it
    never jumps by half a period or more, so long gaps, and a late start, get words in between.
    """
    step = layout.period // 4
    high = t_us >> layout.low_bits
    previous = np.empty_like(high)
    previous[1:] = high[:-1]
    previous[:1] = before.t >> layout.low_bits if before else 0
    count = -(-(high - previous) // step)
    if before is None:
        count[0] = max(count[0], 1)
    owner = np.repeat(np.arange(len(high)), count)
    between = previous[owner] + step * (_rank_in_group(owner, count) + 1)
    return owner, np.minimum(between, high[owner]) % layout.period


def _rank_in_group(owner: NDArray[np.int64], count: NDArray[np.int64]) -> NDArray[np.int64]:
    """0, 1, 2, ... within each run of equal ``owner``."""
    start = np.cumsum(count) - count
    ranks: NDArray[np.int64] = np.arange(len(owner)) - start[owner]
    return ranks


def _shifted_difference(values: NDArray[Any], before: NDArray[Any] | None) -> NDArray[np.int64]:
    """Difference to the value before; the very first one always counts as changed."""
    difference = np.ones(len(values), dtype=np.int64)
    wide = values.astype(np.int64)
    difference[1:] = np.diff(wide)
    if before is not None:
        difference[0] = wide[0] - int(before[0])
    return difference


#: ``(events, the event before them) -> words``, by format.
RAW_ENCODERS: dict[str, Callable[[Events, Events | None], NDArray[Any]]] = {
    "evt2": encode_evt2,
    "evt3": encode_evt3,
}
