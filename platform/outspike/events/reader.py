"""Read event recordings: Prophesee EVT 2.0 and EVT 3.0 raw files, and npz, known by content."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO, Literal

import numpy as np

from outspike.errors import MediaError
from outspike.events.columns import Events
from outspike.events.npz_stream import NpzColumns
from outspike.events.raw_decode import Decoder, Evt2Decoder, Evt3Decoder
from outspike.urls import open_url, plain_errors

SizeSource = Literal["header", "configured", "unknown"]

_log = logging.getLogger(__name__)

_ZIP = b"PK\x03\x04"
_MAX_HEADER_BYTES = 1 << 16
_DECODERS: dict[str, Callable[[], Decoder]] = {"evt2": Evt2Decoder, "evt3": Evt3Decoder}


@dataclass(frozen=True, kw_only=True)
class EventInfo:
    """What a file says of itself before its first event.

    ``anchor_us`` is the recorded start on the clock of the events, ``duration_us`` the recorded
    length; None where the file does not tell.
    """

    format: Literal["evt2", "evt3", "npz"]
    width: int | None
    height: int | None
    size_source: SizeSource
    anchor_us: int | None = None
    duration_us: int | None = None


class EventReader:
    """Events of one recording in file order, streamed in bounded memory.

    Args:
        url: local path or ``s3://`` address.
        size: width and height of the sensor, where the file does not tell or tells wrongly.

    Raises:
        MediaError: no such file, or of a format that is not known.
    """

    def __init__(self, url: str, *, size: tuple[int, int] | None = None) -> None:
        self.url = url
        try:
            with plain_errors(url), open_url(url) as file:
                self.info, self._body = _look(url, file, size)
        except OSError as error:
            raise MediaError(f"{url}: {error}", reason="unreadable") from error

    def chunks(self, num_events: int = 1 << 20) -> Iterator[Events]:
        """Consecutive events, about ``num_events`` at a time, times as stored.

        Raises:
            MediaError: the file ends inside a word, or an event lies outside the sensor.
        """
        try:
            with plain_errors(self.url), open_url(self.url) as file:
                if self.info.format == "npz":
                    chunks = NpzColumns(self.url, file).chunks(num_events)
                else:
                    chunks = self._raw_chunks(file, num_events)
                for chunk in chunks:
                    self._check_size(chunk)
                    yield chunk
        except OSError as error:
            raise MediaError(f"{self.url}: {error}", reason="unreadable") from error

    def _raw_chunks(self, file: BinaryIO, num_words: int) -> Iterator[Events]:
        decoder = _DECODERS[self.info.format]()
        itemsize = decoder.word.itemsize
        file.seek(self._body)
        while data := file.read(num_words * itemsize):
            if len(data) % itemsize:
                raise MediaError(
                    f"{self.url}: ends inside a word of {itemsize} bytes; the file was cut short.",
                    reason="truncated",
                )
            yield decoder.decode(np.frombuffer(data, dtype=decoder.word))
        if decoder.num_untimed:
            _log.warning("%s: events_without_time=%d left out", self.url, decoder.num_untimed)

    def _check_size(self, events: Events) -> None:
        width, height = self.info.width, self.info.height
        if width is None or height is None or not len(events):
            return
        if int(events.x.max()) >= width or int(events.y.max()) >= height:
            raise MediaError(
                f"{self.url}: an event at pixel ({events.x.max()}, {events.y.max()}) lies outside "
                f"the {self.info.size_source} size {width}x{height}; give the true size.",
                reason="outside_sensor",
            )


def open_events(url: str, *, size: tuple[int, int] | None = None) -> EventReader:
    """A reader of the recording at ``url``; see :class:`EventReader`."""
    return EventReader(url, size=size)


def _look(url: str, file: BinaryIO, size: tuple[int, int] | None) -> tuple[EventInfo, int]:
    """Format and facts of a file, and where its words begin."""
    head = file.read(_MAX_HEADER_BYTES)
    if not head:
        raise MediaError(f"{url}: an empty file.", reason="empty")
    if head.startswith(_ZIP):
        file.seek(0)
        return _npz_info(url, file, size), 0
    if head.startswith(b"%"):
        return _raw_info(url, head, size)
    raise MediaError(
        f"{url}: not an event recording that is known (Prophesee EVT 2.0 and 3.0 raw, npz); it "
        f"begins with {head[:8]!r}.",
        reason="unknown_format",
    )


def _npz_info(url: str, file: BinaryIO, size: tuple[int, int] | None) -> EventInfo:
    columns = NpzColumns(url, file)
    width, height = columns.fact("width"), columns.fact("height")
    found = None if width is None or height is None else (width, height)
    chosen, source = _size(size, found)
    return EventInfo(
        format="npz",
        width=chosen and chosen[0],
        height=chosen and chosen[1],
        size_source=source,
        anchor_us=columns.fact("anchor_us"),
        duration_us=columns.fact("duration_us"),
    )


def _raw_info(url: str, head: bytes, size: tuple[int, int] | None) -> tuple[EventInfo, int]:
    lines, body = _header_lines(head)
    facts = dict(line.split(maxsplit=1) for line in lines if len(line.split(maxsplit=1)) == 2)
    parts = dict(part.split("=", 1) for part in facts.get("format", "").split(";") if "=" in part)
    version = facts.get("evt") or facts.get("format", "").split(";")[0].removeprefix("EVT")
    name = f"evt{version.split('.')[0]}"
    if name not in _DECODERS or not version.endswith((".0", "2", "3")):
        raise MediaError(
            f"{url}: Prophesee raw of version {version or 'unknown'}; EVT 2.0 and 3.0 are read.",
            reason="unknown_format",
        )
    width, _, height = facts.get("geometry", "").partition("x")
    found = _header_size(url, parts.get("width", width), parts.get("height", height))
    chosen, source = _size(size, found)
    info = EventInfo(
        format="evt2" if name == "evt2" else "evt3",
        width=chosen and chosen[0],
        height=chosen and chosen[1],
        size_source=source,
        anchor_us=_header_number(url, "anchor_us", facts.get("anchor_us")),
        duration_us=_header_number(url, "duration_us", facts.get("duration_us")),
    )
    return info, body


def _header_size(url: str, width: str, height: str) -> tuple[int, int] | None:
    pair = (_header_number(url, "width", width), _header_number(url, "height", height))
    return None if pair[0] is None or pair[1] is None else (pair[0], pair[1])


def _header_number(url: str, name: str, text: str | None) -> int | None:
    """A whole number of the header; None where it is absent or left blank."""
    if not text:
        return None
    if not text.strip().lstrip("-").isdecimal():
        raise MediaError(f"{url}: header {name} is {text!r}; expected a number.", reason="corrupt")
    return int(text)


def _header_lines(head: bytes) -> tuple[list[str], int]:
    """Text of the header's lines, and the position after the last of them.

    Older files do not end their header. ``%`` alone does not make a line of it: a first word may
    begin with that byte, so a line also has a blank next and is printable.
    """
    lines, position = [], 0
    while head.startswith(b"% ", position):
        stop = head.find(b"\n", position)
        text = head[position + 2 : stop].strip().decode("latin-1")
        if stop < 0 or not text.isascii() or not text.isprintable():
            break
        line, position = text, stop + 1
        if line == "end":
            break
        lines.append(line)
    return lines, position


def _size(
    configured: tuple[int, int] | None, found: tuple[int, int] | None
) -> tuple[tuple[int, int] | None, SizeSource]:
    if configured is not None:
        return configured, "configured"
    return found, "header" if found is not None else "unknown"
