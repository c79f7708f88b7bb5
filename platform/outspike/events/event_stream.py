"""Event Stream ``.es`` files, version 2, of plain DVS events.

After a 15-byte header come the stream type, the sensor's size and the events of 5 bytes each: the
microseconds since the event before and the polarity in one byte, then x and y. A byte 0xFF adds 127
us, 0xFE only marks a place where a damaged stream can be picked up. Rows count from the bottom in
the file and are turned to our top left. Follows the format's public description (Marcireau et al.).
"""

from collections.abc import Iterator
from functools import partial

import numba
import numpy as np
from numpy.typing import NDArray

from outspike.events.codec import Facts, Piece, Source
from outspike.events.columns import Events

MAGIC = b"Event Stream"
DVS = 1
RECORD_BYTES = 5

_VERSION, _TYPE, _BODY = 12, 15, 20
_TYPES = {0: "generic", 1: "DVS", 2: "ATIS", 3: "asynchronous display", 4: "colour"}

#: Bytes of overflow and reset, and what the former adds.
_RESET, _OVERFLOW, _OVERFLOW_US = 0xFE, 0xFF, 127

#: A damaged stream is picked up where this many events in a row lie on the sensor.
_SOUND_EVENTS = 8


class EventStreamFile:
    """Version 2; the streams of other sensors are refused by name."""

    def sniff(self, head: bytes, num_bytes: int) -> bool:
        """The words it begins with."""
        return head.startswith(MAGIC)

    def open(self, source: Source) -> "EsStream":
        """Read the header.

        Raises:
            MediaError: another version, or a stream that is not of plain DVS events.
        """
        header = source.read_exactly(_TYPE + 1, 0, "Event Stream header")
        if header[_VERSION] != 2:
            version = ".".join(map(str, header[_VERSION:_TYPE]))
            source.fail(
                f"Event Stream of version {version} (byte {_VERSION}); version 2 is read.",
                reason="unknown_format",
            )
        if header[_TYPE] != DVS:
            found = _TYPES.get(header[_TYPE], "unknown")
            source.fail(
                f"Event Stream of {found} events (type {header[_TYPE]} at byte {_TYPE}); expected "
                f"DVS events (type {DVS}).",
                reason="unknown_format",
            )
        width, height = np.frombuffer(
            source.read_exactly(_BODY - _TYPE - 1, _TYPE + 1, "sensor size"), dtype="<u2"
        ).tolist()
        if not width or not height:
            source.fail(f"a sensor of {width}x{height} pixels (byte {_TYPE + 1}).")
        facts = Facts(format="es", title="Event Stream (.es) DVS", size=(width, height))
        return EsStream(source, facts)


class EsStream:
    """Events of one file."""

    def __init__(self, source: Source, facts: Facts) -> None:
        self.facts = facts
        self._source = source
        self._size = source.size or facts.size or (0, 0)

    def pieces(self, num_events: int) -> Iterator[Piece]:
        """About ``num_events`` events at a time."""
        source = self._source
        source.file.seek(_BODY)
        now = np.zeros(1, dtype=np.int64)
        offset, rest = _BODY, b""
        while data := source.file.read(num_events * RECORD_BYTES):
            block = np.frombuffer(rest + data, dtype=np.uint8)
            events, starts, consumed = self._decode(block, offset, now)
            yield Piece(events, partial(_place, offset, starts))
            offset, rest = offset + consumed, block[consumed:].tobytes()
        if rest:
            source.fault(
                "truncated_bytes",
                f"ends inside an event of {RECORD_BYTES} bytes at byte {offset}; the file was cut "
                "short.",
                reason="truncated",
                count=len(rest),
            )

    def _decode(
        self, block: NDArray[np.uint8], offset: int, now: NDArray[np.int64]
    ) -> tuple[Events, NDArray[np.int64], int]:
        """Whole events of a block, where each starts, and how many bytes they take."""
        room = len(block) // RECORD_BYTES + 1
        t, starts = np.empty(room, dtype=np.int64), np.empty(room, dtype=np.int64)
        x, y = np.empty(room, dtype=np.uint16), np.empty(room, dtype=np.uint16)
        p = np.empty(room, dtype=np.uint8)
        position = count = 0
        width, height = self._size
        while True:
            position, count, outside = _decode(
                block, position, count, width, height, now, t, x, y, p, starts
            )
            if not outside:
                break
            found = block[position + 1 : position + RECORD_BYTES].view("<u2")
            resumed = _resync(block, position + 1, width, height)
            self._source.fault(
                "bytes_out_of_step",
                f"an event at pixel ({found[0]}, {found[1]}), byte {offset + position}, lies "
                f"outside the size {width}x{height}; give the true size.",
                reason="outside_sensor",
                count=resumed - position,
            )
            position = resumed
        events = Events(t[:count], x[:count], y[:count], p[:count])
        return events, starts[:count], position


def _place(offset: int, starts: NDArray[np.int64], index: int) -> str:
    return f"byte {offset + int(starts[index])}"


@numba.njit(cache=True)
def _decode(
    block: NDArray[np.uint8],
    position: int,
    count: int,
    width: int,
    height: int,
    now: NDArray[np.int64],
    t: NDArray[np.int64],
    x: NDArray[np.uint16],
    y: NDArray[np.uint16],
    p: NDArray[np.uint8],
    starts: NDArray[np.int64],
) -> tuple[int, int, bool]:
    """Events up to the end of the block or to one outside the sensor, which is left there."""
    while position < len(block):
        first = block[position]
        if first == _OVERFLOW:
            now[0] += _OVERFLOW_US
            position += 1
            continue
        if first == _RESET:
            position += 1
            continue
        if position + RECORD_BYTES > len(block):
            break
        across = np.uint16(block[position + 1]) | np.uint16(block[position + 2]) << 8
        down = np.uint16(block[position + 3]) | np.uint16(block[position + 4]) << 8
        if across >= width or down >= height:
            return position, count, True
        now[0] += first >> 1
        t[count] = now[0]
        x[count] = across
        y[count] = height - 1 - down
        p[count] = first & 1
        starts[count] = position
        count += 1
        position += RECORD_BYTES
    return position, count, False


@numba.njit(cache=True)
def _resync(block: NDArray[np.uint8], position: int, width: int, height: int) -> int:
    """The next byte from which a run of events lies on the sensor, else the end of the block."""
    while position < len(block):
        cursor, sound = position, 0
        while sound < _SOUND_EVENTS and cursor < len(block):
            if block[cursor] >= _RESET:
                cursor += 1
                continue
            if cursor + RECORD_BYTES > len(block):
                cursor = len(block)
                break
            across = np.uint16(block[cursor + 1]) | np.uint16(block[cursor + 2]) << 8
            down = np.uint16(block[cursor + 3]) | np.uint16(block[cursor + 4]) << 8
            if across >= width or down >= height:
                break
            sound += 1
            cursor += RECORD_BYTES
        if sound == _SOUND_EVENTS or (sound and cursor >= len(block)):
            return position
        position += 1
    return len(block)
