"""AEDAT 4.0 files of DV: a header, then packets of several streams, each a compressed flatbuffer.

The header's XML says which stream carries what. The first stream of events is read; frames, motion,
triggers and further cameras are passed over unread. Times are Unix times in microseconds. Follows
the vendor's public page of the format.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from xml.etree import ElementTree

import numpy as np

from outspike.events.codec import Facts, Piece, Source
from outspike.events.columns import Events, concatenate
from outspike.events.flatbuffer import FlatbufferError, Table
from outspike.events.packets import COMPRESSIONS, PacketError

MAGIC = b"#!AER-DAT4.0\r\n"
EVENT = np.dtype(
    {
        "names": ["t", "x", "y", "p"],
        "formats": ["<i8", "<i2", "<i2", "u1"],
        "offsets": [0, 8, 10, 12],
        "itemsize": 16,
    }
)

_PACKET_HEADER = struct.Struct("<ii")
_MAX_HEADER_BYTES = 1 << 24
_EVENTS = b"EVTS"
_WINDOW = 1 << 20


class Aedat4:
    """Recordings of DV and dv-processing."""

    def sniff(self, head: bytes, num_bytes: int) -> bool:
        """The version line."""
        return head.startswith(MAGIC.rstrip())

    def open(self, source: Source) -> "Aedat4Stream":
        """Read the header.

        Raises:
            MediaError: a damaged header, no stream of events, or nothing behind the header.
        """
        (size,) = struct.unpack("<I", source.read_exactly(4, len(MAGIC), "header size"))
        if size > _MAX_HEADER_BYTES:
            source.fail(f"a header of {size} bytes (byte {len(MAGIC)}); expected far less.")
        data = source.read_exactly(4 + size, len(MAGIC), "AEDAT 4.0 header")
        body = len(MAGIC) + len(data)
        try:
            table = Table(data, b"IOHE")
            compression, end = table.scalar(0, "i", 0), table.scalar(1, "q", -1)
            streams = _streams(table.text(2))
        except (FlatbufferError, ElementTree.ParseError) as error:
            source.fail(f"the header at byte {len(MAGIC)} is damaged: {error}.")
        if compression not in COMPRESSIONS:
            source.fail(
                f"packets of compression {compression}; expected one of {sorted(COMPRESSIONS)}.",
                reason="unknown_format",
            )
        return Aedat4Stream(source, _Layout(compression, body, _end(source, end, body), streams))


@dataclass(frozen=True)
class _Stream:
    kind: str
    size: tuple[int, int] | None


@dataclass(frozen=True)
class _Layout:
    """What the header says of the packets: their compression, where they lie, their streams."""

    compression: int
    start: int
    stop: int
    streams: dict[int, _Stream]


def _end(source: Source, stated: int, body: int) -> int:
    """Where the packets end: at the table of contents, which a recording cut short lacks."""
    if body >= source.num_bytes or stated == body:
        source.fail(
            f"an AEDAT 4.0 header of {body} bytes and no packet behind it; expected packets from "
            f"byte {body} on.",
            reason="empty",
        )
    if stated == -1:
        return source.num_bytes
    if not body < stated <= source.num_bytes:
        source.fault(
            "missing_tables",
            f"the header states a table of contents at byte {stated}; expected one between byte "
            f"{body} and the end at byte {source.num_bytes}.",
            reason="truncated",
        )
        return source.num_bytes
    return stated


def _streams(xml: str) -> dict[int, _Stream]:
    if "<!" in xml:  # entities that expand without bound are declared there; DV writes none
        raise FlatbufferError("its XML declares a document type")
    root = ElementTree.fromstring(xml)
    streams: dict[int, _Stream] = {}
    for node in root.iterfind("./node[@name='outInfo']/node"):
        name = node.get("name", "")
        if not (name.isascii() and name.isdigit() and len(name) < 9):
            continue
        info = node.find("./node[@name='info']")
        sides = [_side(info, key) for key in ("sizeX", "sizeY")] if info is not None else []
        known = len(sides) == 2 and all(sides)
        streams[int(name)] = _Stream(
            kind=(node.findtext("./attr[@key='typeIdentifier']") or "").strip(),
            size=(sides[0], sides[1]) if known else None,
        )
    return streams


def _side(info: ElementTree.Element, key: str) -> int:
    text = (info.findtext(f"./attr[@key='{key}']") or "").strip()
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 9 else 0
    return number if number < Aedat4Stream.MAX_SIDE else 0


class Aedat4Stream:
    """The first stream of events of one file."""

    #: Coordinates are signed 16-bit numbers.
    MAX_SIDE = 1 << 15

    def __init__(self, source: Source, layout: _Layout) -> None:
        self._source = source
        self._layout = layout
        events = [key for key, stream in sorted(layout.streams.items()) if stream.kind == "EVTS"]
        if not events:
            kinds = ", ".join(sorted({stream.kind for stream in layout.streams.values()}))
            source.fail(
                f"no stream of events in the header, only {kinds or 'none at all'}; expected EVTS.",
                reason="unknown_format",
            )
        self._stream = events[0]
        self.facts = Facts(
            format="aedat4",
            title="AEDAT 4",
            size=layout.streams[self._stream].size,
            max_side=self.MAX_SIDE,
        )

    def pieces(self, num_events: int) -> Iterator[Piece]:
        """Packets, joined until they hold ``num_events`` events."""
        parts: list[Events] = []
        starts: list[int] = []
        waiting = 0
        for offset, events in self._packets():
            parts.append(events)
            starts.append(offset)
            waiting += len(events)
            if waiting >= num_events:
                yield _joined(parts, starts)
                parts, starts, waiting = [], [], 0
        if parts:
            yield _joined(parts, starts)

    def _packets(self) -> Iterator[tuple[int, Events]]:
        """Byte and events of every packet of the stream."""
        source, stop = self._source, self._layout.stop
        offset = self._layout.start
        while offset < stop:
            left = stop - offset - _PACKET_HEADER.size
            key, size = -1, 0
            if left >= 0:
                header = source.read_exactly(_PACKET_HEADER.size, offset, "packet header")
                key, size = _PACKET_HEADER.unpack(header)
            if key not in self._layout.streams or not 0 < size <= left:
                found = self._next_packet(offset + 1)
                source.fault(
                    "bytes_between_packets",
                    f"no packet header at byte {offset}: stream {key}, {size} bytes, {left} left; "
                    f"expected one of the streams {sorted(self._layout.streams)}.",
                    reason="truncated" if size > left or left < 0 else "corrupt",
                    count=found - offset,
                )
                offset = found
                continue
            if key == self._stream:
                events = self._events(offset, size)
                if events is not None:
                    yield offset, events
            offset += _PACKET_HEADER.size + size

    def _events(self, offset: int, size: int) -> Events | None:
        body = offset + _PACKET_HEADER.size
        compressed = self._source.read_exactly(size, body, "packet")
        try:
            data = COMPRESSIONS[self._layout.compression].unpack(compressed)
            found = Table(data, _EVENTS).structs(0, EVENT)
        except (PacketError, FlatbufferError) as error:
            self._source.fault("packets", f"the packet at byte {offset} is damaged: {error}.")
            return None
        return Events(
            np.ascontiguousarray(found["t"], dtype=np.int64),
            found["x"].astype(np.uint16),  # negative ones become large, hence outside
            found["y"].astype(np.uint16),
            (found["p"] != 0).astype(np.uint8),
        )

    def _next_packet(self, offset: int) -> int:
        """Start of the next packet at or behind ``offset``, by what its content begins with."""
        sign, skip = COMPRESSIONS[self._layout.compression].signature
        before = _PACKET_HEADER.size + skip
        while offset < self._layout.stop:
            count = min(_WINDOW, self._layout.stop - offset)
            window = self._source.read_exactly(count, offset, "packets")
            found = window.find(sign, before)
            while found >= 0:
                key, size = _PACKET_HEADER.unpack_from(window, found - before)
                left = self._layout.stop - (offset + found - skip)
                if key in self._layout.streams and 0 < size <= left:
                    return offset + found - before
                found = window.find(sign, found + 1)
            if count < _WINDOW:
                break
            offset += count - before - len(sign)
        return self._layout.stop


def _joined(parts: list[Events], starts: list[int]) -> Piece:
    ends = np.cumsum([len(part) for part in parts])
    return Piece(concatenate(parts), partial(_place, starts, ends.tolist()))


def _place(starts: list[int], ends: list[int], index: int) -> str:
    packet = int(np.searchsorted(ends, index, side="right"))
    before = ends[packet - 1] if packet else 0
    return f"event {index - before} of the packet at byte {starts[packet]}"
