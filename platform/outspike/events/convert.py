"""Write a recording that can be read in a format that can be written."""

from pathlib import Path
from typing import get_args

from outspike.errors import ConfigError
from outspike.events.columns import Events, concatenate
from outspike.events.reader import EventReader
from outspike.events.render import known_size
from outspike.events.write import EventFormat, write_events

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
        reader: an open recording whose size is known; it is held in memory, 13 bytes an event.
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
    size = known_size(reader)
    events = concatenate(list(reader.chunks()))
    anchor_us = reader.info.anchor_us
    if from_zero:
        start_us = anchor_us if anchor_us is not None else int(events.t[0]) if len(events) else 0
        events = Events(events.t - start_us, events.x, events.y, events.p)
        anchor_us = 0
    write_events(
        path,
        events,
        format=chosen,
        size=size,
        anchor_us=anchor_us,
        duration_us=reader.info.duration_us,
    )
    return len(events)
