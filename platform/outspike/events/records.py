"""Streams of records of one fixed length, which several formats are behind their header."""

from collections.abc import Iterator
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from outspike.events.codec import Facts, Piece, Source
from outspike.events.columns import Events


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

    A step is taken as the shorter way round, so late events near a restart stay late.
    """

    def __init__(self) -> None:
        self._last: tuple[int, int] | None = None

    def unwrap(self, counter: NDArray[np.uint32]) -> NDArray[np.int64]:
        """Times of the next counter values."""
        if not len(counter):
            return np.zeros(0, dtype=np.int64)
        first = int(counter[0])
        before, time_us = self._last or (first, first)
        steps = np.diff(counter, prepend=np.uint32(before)).view(np.int32).astype(np.int64)
        times: NDArray[np.int64] = time_us + np.cumsum(steps)
        self._last = int(counter[-1]), int(times[-1])
        return times
