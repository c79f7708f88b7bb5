"""Prophesee ``.dat`` files: a text header, two bytes of event type and size, 8-byte records.

A record is a 32-bit time, then x in 14 bits, y in 14 and the polarity in 4, all little-endian, as
on the vendor's public page of the format. The time counter starts again after 71.6 minutes.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from outspike.events.codec import Facts, Source
from outspike.events.columns import Events
from outspike.events.percent_header import (
    PercentHeader,
    read_header,
    sensor_size,
    whole_number,
)
from outspike.events.records import Clock32, RecordStream

RECORD = np.dtype([("t", "<u4"), ("address", "<u4")])
ADDRESS_BITS = 14
EVENT_SIZE = 8

#: Event types whose records are events of pixels: the generic one, and contrast detection.
EVENT_2D, EVENT_CD = 0x00, 0x0C


class Dat:
    """Version 2, the only one with records of its own description."""

    def sniff(self, head: bytes, num_bytes: int) -> bool:
        """A header of ``%`` lines that names data or a version and no raw encoding."""
        if not head.startswith(b"% "):
            return False
        header = read_header(head)
        if {"evt", "format"} & header.values.keys():
            return False
        return any(line.lower().startswith(("data file", "version")) for line in header.lines)

    def open(self, source: Source) -> RecordStream:
        """Read the header.

        Raises:
            MediaError: the header has no end, or describes records other than pixel events.
        """
        header = read_header(source.head)
        header.demand_end(source, "the two bytes of event type and size")
        kind = self._kind(source, header)
        values = header.values
        facts = Facts(
            format="dat",
            title=_title(kind, header),
            size=sensor_size(source, values),
            anchor_us=whole_number(source, "anchor_us", values.get("anchor_us")),
            duration_us=whole_number(source, "duration_us", values.get("duration_us")),
            max_side=1 << ADDRESS_BITS,
        )
        return RecordStream(source, facts, header.body + 2, _DatDecoder())

    def _kind(self, source: Source, header: PercentHeader) -> int:
        kind, size = source.read_exactly(2, header.body, "event type and size")
        if kind not in (EVENT_2D, EVENT_CD) or size != EVENT_SIZE:
            source.fail(
                f"DAT records of type 0x{kind:02X} and {size} bytes (byte {header.body}); expected "
                f"type 0x{EVENT_2D:02X} or 0x{EVENT_CD:02X} and {EVENT_SIZE} bytes.",
                reason="unknown_format",
            )
        return int(kind)


def _title(kind: int, header: PercentHeader) -> str:
    if kind == EVENT_CD:
        return "Prophesee DAT CD"
    # A Chronocam header over generic events is the flavour in which N-CARS was published.
    ncars = any("Chronocam" in line for line in header.lines)
    return "Prophesee DAT 2D (N-CARS)" if ncars else "Prophesee DAT 2D"


class _DatDecoder:
    record = RECORD

    def __init__(self) -> None:
        self._clock = Clock32()

    def decode(
        self, records: NDArray[Any], source: Source, offset: int
    ) -> tuple[Events, NDArray[np.int64] | None]:
        address = records["address"]
        mask = np.uint32((1 << ADDRESS_BITS) - 1)
        polarity = address >> np.uint32(2 * ADDRESS_BITS)
        times = self._clock.unwrap(np.ascontiguousarray(records["t"]))
        wrong = np.flatnonzero(polarity > 1)
        kept: NDArray[np.int64] | None = None
        if len(wrong):
            source.fault(
                "unknown_polarities",
                f"polarity {polarity[wrong[0]]} at byte {offset + int(wrong[0]) * EVENT_SIZE}; "
                "expected 0 or 1.",
                count=len(wrong),
            )
            kept = np.flatnonzero(polarity <= 1)
            times, address, polarity = times[kept], address[kept], polarity[kept]
        events = Events(
            times,
            (address & mask).astype(np.uint16),
            ((address >> np.uint32(ADDRESS_BITS)) & mask).astype(np.uint16),
            polarity.astype(np.uint8),
        )
        return events, kept
