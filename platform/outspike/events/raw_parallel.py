"""Decode parts of a raw recording side by side, to the same events as one after the other.

A part can be decoded once it is known what carries over into it, and foretelling that is far
cheaper than decoding: high time words are rare and chained in one quick pass, the row, the vector
base and the low time are found by looking back from the cut, all of it in loops over stretches of
words that vectorise and seldom branch. The forecast is then checked against the state in which the
part before really ended. Where they differ, which takes damaged words, the part is decoded again
from the true state, so the events never depend on the forecast.

The thread that asks for the events is one of those that decode: it takes a part itself whenever the
one whose turn it is has not come back from another thread.
"""

from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from outspike.errors import MediaError
from outspike.events.codec import Piece, Source
from outspike.events.column_pool import ColumnPool
from outspike.events.raw_decode import EVT3, PartDecoder, WordFormat, Words, blocks
from outspike.events.raw_words import (
    BASE_X,
    HIGH,
    LOW,
    POLARITY,
    ROW,
    TIMED,
    Evt3,
    State,
    new_state,
)

#: Words that a thread takes at a time: handing them over costs some 50 us, decoding them 400.
WORDS_PER_PART = 1 << 18

#: Words that are asked together whether one of them is of a type.
_STRETCH = 64

_MASK = Evt3.ADDRESS_MASK
#: Types where they stand in a word, and as narrow, or comparing them would take wider vectors.
_KIND, _ADDR_Y = np.uint16(0xF000), np.uint16(Evt3.ADDR_Y << 12)
_TIME_LOW, _VECT_BASE_X = np.uint16(Evt3.TIME_LOW << 12), np.uint16(Evt3.VECT_BASE_X << 12)
#: Vectors of 12 and of 8 columns differ in the lowest bit of their type.
_VECTORS, _VECT_12 = np.uint16(0xE000), np.uint16(Evt3.VECT_12 << 12)


def parallel_pieces(
    source: Source, words: WordFormat, body: int, num_events: int, num_threads: int
) -> Iterator[Piece]:
    """As :func:`~outspike.events.raw_decode.raw_pieces`, on ``num_threads``, this one included."""
    state = forecast = new_state()
    columns = ColumnPool(min(num_events, WORDS_PER_PART), words.max_per_word)
    waiting: deque[_Part] = deque()
    with ThreadPoolExecutor(num_threads - 1) as pool:
        for offset, part in blocks(source, words, body, WORDS_PER_PART):
            waiting.append(_Part(source, words, part, offset, columns))
            waiting[-1].start(pool, forecast)
            forecast = state_after(part, forecast, words)
            if len(waiting) > 2 * num_threads:
                pieces, state = _next_result(waiting, state)
                yield from pieces
        while waiting:
            pieces, state = _next_result(waiting, state)
            yield from pieces


def _next_result(waiting: deque["_Part"], state: State) -> tuple[list[Piece], State]:
    """Result of the first part; until it is there, this thread decodes parts nobody has begun."""
    while not waiting[0].is_done and any(part.decode_here() for part in waiting):
        pass
    return waiting.popleft().result(state)


class _Part:
    """Some words that any thread may decode, from a state that is only foretold."""

    def __init__(
        self, source: Source, words: WordFormat, part: Words, offset: int, columns: ColumnPool
    ) -> None:
        self._source = source
        self._words = words
        self._part = part
        self._offset = offset
        self._columns = columns

    def start(self, pool: ThreadPoolExecutor, forecast: State) -> None:
        """Have it decoded by the next thread that is free."""
        self._forecast = forecast
        self._job: Future[_Decoded] = pool.submit(self._decode, forecast)

    @property
    def is_done(self) -> bool:
        """Whether :meth:`result` will not wait."""
        return self._job.done()

    def decode_here(self) -> bool:
        """Decode it on this thread, unless another has begun; whether that was so."""
        if not self._job.cancel():
            return False
        self._job = Future()
        try:
            self._job.set_result(self._decode(self._forecast))
        except MediaError as error:  # raised where the part's turn comes, if its forecast was right
            self._job.set_exception(error)
        return True

    def result(self, state: State) -> tuple[list[Piece], State]:
        """Pieces of the part, and the state after it, given the true state before it.

        Raises:
            MediaError: what the part's words are at fault for.
        """
        if np.array_equal(self._forecast, state):
            found = self._job.result()
        else:
            self._job.exception()  # its forecast was wrong, so nothing it says counts
            found = self._decode(state)
        self._source.skipped.update(found.skipped)
        return found.pieces, found.state

    def _decode(self, state: State) -> "_Decoded":
        source = replace(self._source, skipped=Counter())
        decoder = PartDecoder(source, self._words, state.copy(), self._columns)
        pieces = [*decoder.push(self._part, self._offset), *decoder.finish()]
        return _Decoded(pieces, decoder.state, source.skipped)


@dataclass(frozen=True)
class _Decoded:
    pieces: list[Piece]
    state: State
    skipped: Counter[str]


def state_after(part: Words, state: State, words: WordFormat) -> State:
    """What carries over behind ``part`` if none of its words is damaged."""
    after = state.copy()
    kind = part.dtype.type(words.high_kind << words.kind_shift)
    mask = part.dtype.type(0xF << words.kind_shift)
    restart = _chain_highs(part, mask, kind, words.high_shift, words.time.period, after)
    if words is EVT3:
        _look_back(part, restart, after)
    return after


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
    # Low times step back by a few, so the highest of them is one of the last.
    for position in range(max(restart, low + 1 - 4 * _STRETCH, 0), low + 1):
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
