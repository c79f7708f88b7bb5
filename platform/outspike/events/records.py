"""Streams of records of one fixed length, which several formats are behind their header."""

from collections.abc import Iterator
from functools import partial
from typing import Any, Protocol

import numba
import numpy as np
from numpy.typing import NDArray

from outspike.events.codec import Facts, Piece, Source
from outspike.events.columns import Events
from outspike.events.raw_words import MAX_JITTER_US


class RecordDecoder(Protocol):
    """Turns consecutive blocks of records into events; may carry state from block to block."""

    record: np.dtype[Any]

    def decode(
        self, records: NDArray[Any], source: Source, offset: int
    ) -> tuple[Events, NDArray[np.int64] | None]:
        """Events, and the record each came from (None: one event for every record).

        Args:
            records: the next block ``[R]``.
            source: where faults go.
            offset: byte of the block's first record, for messages.
        """


class RecordStream:
    """Records from ``body`` to the end of the file."""

    def __init__(self, source: Source, facts: Facts, body: int, decoder: RecordDecoder) -> None:
        self.facts = facts
        self._source = source
        self._body = body
        self._decoder = decoder

    def pieces(self, num_events: int) -> Iterator[Piece]:
        """Events of ``num_events`` records at a time."""
        itemsize = self._decoder.record.itemsize
        self._source.file.seek(self._body)
        offset = self._body
        while data := self._source.file.read(num_events * itemsize):
            rest = len(data) % itemsize
            if rest:
                self._source.fault(
                    "truncated_bytes",
                    f"ends inside a record of {itemsize} bytes at byte {offset + len(data) - rest};"
                    " the file was cut short.",
                    reason="truncated",
                    count=rest,
                )
            records = np.frombuffer(data, dtype=self._decoder.record, count=len(data) // itemsize)
            events, owner = self._decoder.decode(records, self._source, offset)
            yield Piece(events, partial(_place, offset, itemsize, owner))
            offset += len(data)


def _place(offset: int, itemsize: int, owner: NDArray[np.int64] | None, index: int) -> str:
    record = index if owner is None else int(owner[index])
    return f"byte {offset + record * itemsize}"


class Clock32:
    """A 32-bit microsecond counter that starts again after 71.6 minutes, as running int64 times.

    A step of less than :data:`LONGEST_US` is forward, every other one is back. Long steps are
    followed at once, but trusted only when a run of records agrees on them: damaged records show
    as times out of order and do not turn the clock over for those behind them.
    """

    def __init__(self) -> None:
        self._state = np.zeros(_STATE_SIZE, dtype=np.int64)

    def unwrap(self, counter: NDArray[np.uint32]) -> NDArray[np.int64]:
        """Times of the next counter values."""
        times = np.empty(len(counter), dtype=np.int64)
        _unwrap(counter, self._state, times)
        return times


#: Silences of 17.9 minutes and more are times that step back by up to 53.7.
LONGEST_US = 1 << 30

_KNOWN, _COUNTER, _TIME, _NEXT_COUNTER, _NEXT_TIME, _RUN, _STATE_SIZE = range(7)

#: A step that is trusted at once, and how many records in a row must agree on any other.
_SHORT_US, _AGREE = 10_000_000, 16

_PERIOD = 1 << 32
_BACK = _PERIOD - LONGEST_US


@numba.njit(cache=True)
def _unwrap(
    counter: NDArray[np.uint32], state: NDArray[np.int64], times: NDArray[np.int64]
) -> None:
    for i in range(len(counter)):
        value = np.int64(counter[i])
        if not state[_KNOWN]:
            state[_KNOWN] = 1
            state[_COUNTER] = state[_TIME] = value
        step = (value - state[_NEXT_COUNTER] + _BACK) % _PERIOD - _BACK
        if state[_RUN] and step >= -MAX_JITTER_US:
            times[i] = state[_NEXT_TIME] + step
            state[_RUN] += 1
            state[_NEXT_COUNTER] = value
            state[_NEXT_TIME] = times[i]
            if state[_RUN] >= _AGREE:
                state[_COUNTER] = value
                state[_TIME] = times[i]
                state[_RUN] = 0
            continue
        step = (value - state[_COUNTER] + _BACK) % _PERIOD - _BACK
        times[i] = state[_TIME] + step
        if -MAX_JITTER_US <= step < _SHORT_US:
            if step > 0:
                state[_COUNTER] = value
                state[_TIME] = times[i]
            state[_RUN] = 0
        else:
            state[_NEXT_COUNTER] = value
            state[_NEXT_TIME] = times[i]
            state[_RUN] = 1
