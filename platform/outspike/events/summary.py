"""What a whole event recording holds: counts, ranges and hashes of its columns, in one pass."""

import hashlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from outspike.events.columns import Events
from outspike.events.reader import EventReader, SizeSource

_STORED = {"t": "<i8", "x": "<u2", "y": "<u2", "p": "u1"}


@dataclass(frozen=True, kw_only=True)
class EventSummary:
    """Facts of the header, and of every event as it was decoded.

    Args:
        format: the name people use (``Prophesee EVT 3.0 raw``).
        width, height: None where neither header nor caller tells.
        events: how many there are; the times and ranges are None where there are none.
        t_first_us, t_last_us: of the first and the last event of the file, as stored.
        on_events: those of polarity 1.
        sha256_t, sha256_x, sha256_y, sha256_p: of the whole column, little-endian int64, uint16,
            uint16 and uint8.
        skipped: what was left out, by kind (``on_error="resync"``, and events before any time).
    """

    format: str
    width: int | None
    height: int | None
    size_source: SizeSource
    anchor_us: int | None
    clock_offset_us: int | None
    events: int
    t_first_us: int | None
    t_last_us: int | None
    duration_us: int | None
    x_min: int | None
    x_max: int | None
    y_min: int | None
    y_max: int | None
    on_events: int
    sha256_t: str
    sha256_x: str
    sha256_y: str
    sha256_p: str
    skipped: dict[str, int]


def summarise(reader: EventReader) -> EventSummary:
    """Read the whole recording once.

    Raises:
        MediaError: as :meth:`EventReader.chunks`.
    """
    tally = _Tally()
    for chunk in reader.chunks():
        if len(chunk):
            tally.add(chunk)
    info = reader.info
    duration_us = None
    if tally.first_us is not None and tally.last_us is not None:
        duration_us = tally.last_us - tally.first_us
    return EventSummary(
        format=info.title,
        width=info.width,
        height=info.height,
        size_source=info.size_source,
        anchor_us=info.anchor_us,
        clock_offset_us=info.clock_offset_us,
        events=tally.events,
        t_first_us=tally.first_us,
        t_last_us=tally.last_us,
        duration_us=duration_us,
        x_min=tally.lowest.get("x"),
        x_max=tally.highest.get("x"),
        y_min=tally.lowest.get("y"),
        y_max=tally.highest.get("y"),
        on_events=tally.on_events,
        **{f"sha256_{key}": tally.hashes[key].hexdigest() for key in _STORED},
        skipped=reader.skipped,
    )


@dataclass
class _Tally:
    events: int = 0
    on_events: int = 0
    first_us: int | None = None
    last_us: int | None = None
    lowest: dict[str, int] = field(default_factory=dict)
    highest: dict[str, int] = field(default_factory=dict)
    hashes: dict[str, Any] = field(
        default_factory=lambda: {key: hashlib.sha256() for key in _STORED}
    )

    def add(self, chunk: Events) -> None:
        """Take the next events, at least one."""
        self.events += len(chunk)
        self.on_events += int(np.count_nonzero(chunk.p))
        if self.first_us is None:
            self.first_us = int(chunk.t[0])
        self.last_us = int(chunk.t[-1])
        for key in ("x", "y"):
            column = getattr(chunk, key)
            self.lowest[key] = min(int(column.min()), self.lowest.get(key, 1 << 16))
            self.highest[key] = max(int(column.max()), self.highest.get(key, -1))
        for key, dtype in _STORED.items():
            column = np.ascontiguousarray(getattr(chunk, key), dtype=dtype)
            self.hashes[key].update(column.data)
