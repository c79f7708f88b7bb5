"""Write a recording that can be read in a format that can be written."""

from pathlib import Path
from typing import get_args

from outspike.errors import ConfigError
from outspike.events.columns import Events
from outspike.events.reader import EventReader
from outspike.events.render import known_size
from outspike.events.write import EventFormat, EventWriter

_BY_ENDING: dict[str, EventFormat] = {".raw": "evt3", ".dat": "dat", ".npz": "npz"}


def convert(
    reader: EventReader,
    path: str | Path,
    *,
    format: EventFormat | None = None,
    from_zero: bool = False,
) -> int:
    """Write all events of ``reader`` to a local file, and return how many they were.

    Args:
        reader: an open recording whose size is known; it is read and written piece by piece.
        path: local file.
        format: by default what the ending says.
        from_zero: subtract the start of the recording, or its first event where none is told.

    Raises:
        ConfigError: an ending that names no format, an unknown size, or events that the format
            cannot hold.
    """
    ending = Path(path).suffix.lower()
    chosen = format or _BY_ENDING.get(ending)
    if chosen is None:
        raise ConfigError(
            f"{path}: the ending {ending!r} names no format; expected {', '.join(_BY_ENDING)}, or "
            f"--to with one of {', '.join(get_args(EventFormat))}."
        )
    start_us = reader.info.anchor_us
    num_events = 0
    writer = EventWriter(
        path,
        format=chosen,
        size=known_size(reader),
        anchor_us=0 if from_zero else start_us,
        duration_us=reader.info.duration_us,
    )
    with writer:
        for events in reader.chunks():
            if from_zero and len(events):
                start_us = int(events.t[0]) if start_us is None else start_us
                events = Events(events.t - start_us, events.x, events.y, events.p)
            writer.push(events)
            num_events += len(events)
    return num_events
