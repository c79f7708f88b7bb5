"""The 5-byte records of N-MNIST and N-Caltech101: x, y, then polarity and time in 24 bits.

Big-endian, without any header or signature: known by times that keep running. A row of 240 is no
pixel but says that the 23-bit time passed another 2^13 us (Orchard et al., 2015, data set page).
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from outspike.events.codec import Facts, Source
from outspike.events.columns import Events
from outspike.events.records import RecordStream

RECORD = np.dtype([("x", "u1"), ("y", "u1"), ("time", "u1", (3,))])

_OVERFLOW_ROW = 240
_OVERFLOW_US = 1 << 13
_TIME_MASK = 0x7FFFFF
_SIDE = 34

#: Share of records that must look right: a damaged recording is still one.
_SURE = 0.9

#: With fewer records than this a coincidence is likely, so every sign must be right.
_FEW = 16


class Nmnist:
    """Both data sets; they differ in the size of the sensor's part only."""

    def sniff(self, head: bytes, num_bytes: int) -> bool:
        """Whether read as records the times keep running; no text, and no filling of zeros."""
        records = np.frombuffer(head, dtype=RECORD, count=len(head) // RECORD.itemsize)
        if not len(records) or _is_text(head):
            return False
        if float((records[1:] == records[:-1]).sum()) > (1 - _SURE) * len(records):
            return False
        steps = np.diff(_times(records)[records["y"] != _OVERFLOW_ROW])
        if len(records) < _FEW:
            return num_bytes % RECORD.itemsize == 0 and bool((steps >= 0).all())
        return float((steps >= 0).mean()) > _SURE if len(steps) else False

    def open(self, source: Source) -> RecordStream:
        """Nothing comes before the events."""
        small = source.size == (_SIDE, _SIDE)
        title = (
            "N-MNIST 5-byte binary"
            if small or source.size is None
            else "N-Caltech101 5-byte binary (same layout as N-MNIST)"
        )
        facts = Facts(format="nmnist", title=title, max_side=1 << 8)
        return RecordStream(source, facts, 0, _NmnistDecoder())


class _NmnistDecoder:
    record = RECORD

    def __init__(self) -> None:
        self._overflows = 0

    def decode(
        self, records: NDArray[Any], source: Source, offset: int
    ) -> tuple[Events, NDArray[np.int64] | None]:
        marker = records["y"] == _OVERFLOW_ROW
        overflows = self._overflows + np.cumsum(marker)
        if len(records):
            self._overflows = int(overflows[-1])
        times = _times(records) + _OVERFLOW_US * overflows
        kept = np.flatnonzero(~marker)
        records = records[kept]
        events = Events(
            times[kept],
            records["x"].astype(np.uint16),
            records["y"].astype(np.uint16),
            (records["time"][:, 0] >> 7).astype(np.uint8),
        )
        return events, kept


def _times(records: NDArray[Any]) -> NDArray[np.int64]:
    parts = records["time"].astype(np.int64)
    times: NDArray[np.int64] = (parts[:, 0] << 16 | parts[:, 1] << 8 | parts[:, 2]) & _TIME_MASK
    return times


def _is_text(head: bytes) -> bool:
    """Printable ASCII and white space only."""
    return not head.translate(None, _TEXT)


_TEXT = bytes(range(0x20, 0x7F)) + b"\t\n\r\f"
