"""Decode parts of a raw recording side by side, to the same events as one after the other.

A part can be decoded once it is known what carries over into it, and foretelling that is far
cheaper than decoding: high time words are rare and chained in one quick pass, the row, the vector
base and the low time are found by looking back from the cut. The forecast is then checked against
the state in which the part before really ended. Where they differ, which takes damaged words, the
part is decoded again from the true state, so the events never depend on the forecast.
"""

from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import numba
import numpy as np
from numpy.typing import NDArray

from outspike.events.codec import Piece, Source
from outspike.events.raw_decode import EVT3, WORDS_PER_BLOCK, PartDecoder, WordFormat, Words, blocks
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

#: Words that a thread takes at a time; a multiple of four, so that longs begin with a word.
WORDS_PER_PART = WORDS_PER_BLOCK

_MASK = Evt3.ADDRESS_MASK
_ADDR_Y, _VECT_BASE_X = Evt3.ADDR_Y, Evt3.VECT_BASE_X
_VECT_12, _VECT_8, _TIME_LOW = Evt3.VECT_12, Evt3.VECT_8, Evt3.TIME_LOW


def parallel_pieces(
    source: Source, words: WordFormat, body: int, num_events: int, num_threads: int
) -> Iterator[Piece]:
    """As :func:`~outspike.events.raw_decode.raw_pieces`, ``num_threads`` parts at a time."""
    state = new_state()
    waiting: deque[_Part] = deque()
    with ThreadPoolExecutor(num_threads) as pool:
        forecast = state
        for offset, stretch in blocks(source, words, body, num_threads * WORDS_PER_PART):
            starts = range(0, len(stretch), WORDS_PER_PART)
            parts = [stretch[start : start + WORDS_PER_PART] for start in starts]
            highs = list(pool.map(lambda part: high_steps(part, words), parts))
            for start, part, steps in zip(starts, parts, highs, strict=True):
                job = _Part(source, words, part, offset + start * part.itemsize, num_events)
                job.start(pool, forecast)
                forecast = state_after(part, forecast, steps, words)
                waiting.append(job)
            while len(waiting) > num_threads:
                pieces, state = waiting.popleft().result(state)
                yield from pieces
        while waiting:
            pieces, state = waiting.popleft().result(state)
            yield from pieces


class _Part:
    """Some words that are decoded on another thread, from a state that is only foretold."""

    def __init__(
        self, source: Source, words: WordFormat, part: Words, offset: int, num_events: int
    ) -> None:
        self._source = source
        self._words = words
        self._part = part
        self._offset = offset
        self._num_events = num_events

    def start(self, pool: ThreadPoolExecutor, forecast: State) -> None:
        self._forecast = forecast
        self._job: Future[_Decoded] = pool.submit(self._decode, forecast)

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
        decoder = PartDecoder(source, self._words, state.copy(), self._num_events)
        pieces = [*decoder.push(self._part, self._offset), *decoder.finish()]
        return _Decoded(pieces, decoder.state, source.skipped)


@dataclass(frozen=True)
class _Decoded:
    pieces: list[Piece]
    state: State
    skipped: Counter[str]


@dataclass(frozen=True)
class HighSteps:
    """Values of the high time words of a part, repeats left out, and the position of each."""

    values: NDArray[np.int64]
    positions: NDArray[np.int64]


def high_steps(part: Words, words: WordFormat) -> HighSteps:
    """Find the high time words."""
    bits, per_long = 8 * part.itemsize, 8 // part.itemsize
    whole = len(part) // per_long * per_long
    lanes = sum(1 << bits * lane for lane in range(per_long))
    room = len(part)
    values, positions = np.empty(room, dtype=np.int64), np.empty(room, dtype=np.int64)
    count = _find_highs(
        part,
        part[:whole].view(np.uint64),
        np.uint64(lanes),
        np.uint64(lanes * (words.high_kind << words.kind_shift)),
        np.uint64(lanes * (0xF << words.kind_shift)),
        words.kind_shift,
        words.high_shift,
        words.high_kind,
        words.time.period - 1,
        per_long,
        values,
        positions,
    )
    return HighSteps(values[:count], positions[:count])


@numba.njit(cache=True, nogil=True)
def _find_highs(
    part: Words,
    longs: NDArray[np.uint64],
    lanes: np.uint64,
    pattern: np.uint64,
    mask: np.uint64,
    kind_shift: int,
    high_shift: int,
    high_kind: int,
    value_mask: int,
    per_long: int,
    values: NDArray[np.int64],
    positions: NDArray[np.int64],
) -> int:
    """Several words at a time: a lane of ``long ^ pattern`` that is zero borrows from its top."""
    tops = lanes << np.uint64(kind_shift + 3)
    count = 0
    for i in range(len(longs)):
        other = (longs[i] & mask) ^ pattern
        if (other - lanes) & ~other & tops == np.uint64(0):
            continue
        for position in range(i * per_long, (i + 1) * per_long):
            count = _note(
                part,
                position,
                kind_shift,
                high_shift,
                high_kind,
                value_mask,
                values,
                positions,
                count,
            )
    for position in range(len(longs) * per_long, len(part)):
        count = _note(
            part, position, kind_shift, high_shift, high_kind, value_mask, values, positions, count
        )
    return count


@numba.njit(cache=True, nogil=True)
def _note(
    part: Words,
    position: int,
    kind_shift: int,
    high_shift: int,
    high_kind: int,
    value_mask: int,
    values: NDArray[np.int64],
    positions: NDArray[np.int64],
    count: int,
) -> int:
    word = np.uint64(part[position])
    value = np.int64(word >> np.uint64(high_shift)) & value_mask
    if np.int64(word >> np.uint64(kind_shift)) != high_kind or (
        count > 0 and values[count - 1] == value
    ):
        return count
    values[count] = value
    positions[count] = position
    return count + 1


def state_after(part: Words, state: State, steps: HighSteps, words: WordFormat) -> State:
    """What carries over behind ``part`` if none of its words is damaged."""
    after = state.copy()
    restart = _chain_highs(after, steps.values, steps.positions, words.time.period)
    if words is EVT3:
        _look_back(part, restart, after)
    return after


@numba.njit(cache=True, nogil=True)
def _chain_highs(
    state: State, values: NDArray[np.int64], positions: NDArray[np.int64], period: int
) -> int:
    """Follow high times; the position from which low times count (-1: they go on)."""
    restart = -1
    for i in range(len(values)):
        high = values[i] if state[TIMED] == 0 else state[HIGH] + (values[i] - state[HIGH]) % period
        if state[TIMED] == 0 or high != state[HIGH]:
            restart = positions[i]
        state[HIGH] = high
        state[TIMED] = 1
    return restart


@numba.njit(cache=True, nogil=True)
def _look_back(words: NDArray[np.uint16], restart: int, state: State) -> None:
    """Row, vector base and low time at the end of the words."""
    state[LOW] = 0 if restart >= 0 else state[LOW]
    for position in range(max(0, restart), len(words)):
        word = words[position]
        if word >> 12 == _TIME_LOW:
            state[LOW] = max(state[LOW], np.int64(word & 0xFFF))
    for position in range(len(words) - 1, -1, -1):
        if words[position] >> 12 == _ADDR_Y:
            state[ROW] = words[position] & _MASK
            break
    moved = 0
    for position in range(len(words) - 1, -1, -1):
        kind = words[position] >> 12
        if kind == _VECT_12:
            moved += 12
        elif kind == _VECT_8:
            moved += 8
        elif kind == _VECT_BASE_X:
            state[BASE_X] = words[position] & _MASK
            state[POLARITY] = words[position] & (_MASK + 1)
            break
    state[BASE_X] += moved
