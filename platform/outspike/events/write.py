"""Write event recordings: Prophesee EVT 2.0 and EVT 3.0 raw files, DAT, and npz."""

import os
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import numpy as np

from outspike.errors import ConfigError
from outspike.events import dat
from outspike.events.columns import Events
from outspike.events.raw_encode import RAW_ENCODERS
from outspike.events.raw_words import MAX_JITTER_US, MAX_SIDE
from outspike.events.records import LONGEST_US
from outspike.events.write_files import EVENT_FILES, blocks

EventFormat = Literal["evt2", "evt3", "dat", "npz"]

#: Times of raw files end at 51 days; later ones are wall-clock times with their anchor still in.
_MAX_RAW_US = 1 << 42
_MAX_US = 1 << 62
_EVENTS_PER_WRITE = 1 << 20

#: Pixels a side that an address holds; npz has none of its own.
_SIDES = {"evt2": MAX_SIDE, "evt3": MAX_SIDE, "dat": 1 << dat.ADDRESS_BITS}


class EventWriter:
    """Writes a recording piece by piece to a local file, in bounded memory.

    A context manager: the file appears under its name when the block ends without an error, and
    never otherwise.

    Args:
        path: local file.
        format: ``evt3``, ``evt2``, ``dat`` or ``npz``.
        size: width and height of the sensor, stored with the events.
        anchor_us: start of the recording on the clock of its events, where it is known.
        duration_us: length of the recording, where it is known (there may be silence at the end).

    Raises:
        ConfigError: the format cannot hold a sensor of this size.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        format: EventFormat,
        size: tuple[int, int],
        anchor_us: int | None = None,
        duration_us: int | None = None,
    ) -> None:
        self._path = Path(path)
        self._format = format
        self._size = size
        if max(size) > _SIDES.get(format, max(size)):
            raise ConfigError(
                f"{path}: {size[0]}x{size[1]} exceeds the format's {_SIDES[format]} pixels a side."
            )
        facts = {"anchor_us": anchor_us, "duration_us": duration_us}
        known = {key: value for key, value in facts.items() if value is not None}
        self._partial = self._path.with_name(f".{self._path.name}.{os.getpid()}.partial")
        self._file = EVENT_FILES[format](self._partial, size, known)
        self._last_us: int | None = None
        self._latest_us = -_MAX_US

    def __enter__(self) -> Self:
        return self

    def push(self, events: Events) -> None:
        """Append the next events.

        Args:
            events: sorted by time (equal times keep their order); DAT and npz also take the small
                steps back of readout jitter, which raw words cannot tell from damage.

        Raises:
            ConfigError: times go backwards or are out of range, or a pixel lies outside the size.
        """
        if not len(events):
            return
        self._check_columns(events)
        self._check_times(events)
        self._file.push(events)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._file.close(complete=error is None)
            if error is None:
                self._partial.replace(self._path)
        finally:
            self._partial.unlink(missing_ok=True)

    def _check_columns(self, events: Events) -> None:
        width, height = self._size
        if int(events.x.max()) >= width or int(events.y.max()) >= height:
            raise ConfigError(
                f"{self._path}: events reach pixel ({events.x.max()}, {events.y.max()}), outside "
                f"{width}x{height}."
            )
        if int(events.p.max()) > 1:
            raise ConfigError(f"{self._path}: polarities reach {events.p.max()}; expected 0 and 1.")

    def _check_times(self, events: Events) -> None:
        before_us = self._latest_us
        latest_us = np.maximum(np.maximum.accumulate(events.t), before_us)
        late_us = int((latest_us - events.t).max())
        if late_us > (0 if self._format in RAW_ENCODERS else MAX_JITTER_US):
            raise ConfigError(
                f"{self._path}: event times go backwards by {late_us} us; sort them (stably) first."
            )
        lowest_us = 1 - _MAX_US if self._format == "npz" else 0
        limit_us = _MAX_RAW_US if self._format in RAW_ENCODERS else _MAX_US
        if not lowest_us <= int(events.t.min()) <= int(latest_us[-1]) < limit_us:
            raise ConfigError(
                f"{self._path}: times {events.t.min()}..{latest_us[-1]} us do not fit the format; "
                "subtract the start of the recording (convert --from-zero)."
            )
        if self._format == "dat":
            self._check_clock(events)
        self._latest_us, self._last_us = int(latest_us[-1]), int(events.t[-1])

    def _check_clock(self, events: Events) -> None:
        """What a reader of a 32-bit clock cannot follow."""
        first_us = int(events.t[0])
        start_us = first_us if self._last_us is None else self._last_us
        longest_us = max(first_us - start_us, int(np.diff(events.t).max(initial=0)))
        if (start_us >= 1 << 32 and self._last_us is None) or longest_us >= LONGEST_US:
            raise ConfigError(
                f"{self._path}: DAT counts times in 32 bits, so it holds no start past 71 minutes "
                "and no silence of 17; subtract the start of the recording (convert --from-zero) "
                "or write evt3 or npz."
            )


def write_events(
    path: str | Path,
    events: Events,
    *,
    format: EventFormat,
    size: tuple[int, int],
    anchor_us: int | None = None,
    duration_us: int | None = None,
) -> None:
    """Write a whole recording at once; see :class:`EventWriter`."""
    writer = EventWriter(
        path, format=format, size=size, anchor_us=anchor_us, duration_us=duration_us
    )
    with writer:
        for part in blocks(events, _EVENTS_PER_WRITE):
            writer.push(part)
