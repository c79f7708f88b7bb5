"""AEDAT 2.0 files of jAER: ``#`` lines, then 32-bit addresses and times, big-endian.

What an address means depends on the camera, which the line ``# AEChip`` names. Columns are mirrored
and rows count from the bottom in the file; both are turned to our top left, as jAER's own viewer
and the vendor's converter do. On a DVS128 a clear polarity bit means ON (the vendor's page says the
opposite, both of its decoders disagree with it).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from outspike.events import aedat4
from outspike.events.codec import HEAD_BYTES, Facts, Source
from outspike.events.columns import Events
from outspike.events.records import Clock32, RecordStream

MAGIC = b"#!AER-DAT"
VERSION = b"2.0"
RECORD = np.dtype([("address", ">u4"), ("t", ">u4")])

_HEADER_CHUNK = HEAD_BYTES
_MAX_HEADER_BYTES = 1 << 24
_CHIP = "# AEChip:"


@dataclass(frozen=True, kw_only=True)
class _Camera:
    """Where an address keeps what, and which addresses are no pixel's events."""

    size: tuple[int, int]
    x_shift: int
    x_mask: int
    y_shift: int
    y_mask: int
    polarity_shift: int
    on: int
    other: int
    unused: int


_DVS128 = _Camera(
    size=(128, 128),
    x_shift=1,
    x_mask=0x7F,
    y_shift=8,
    y_mask=0x7F,
    polarity_shift=0,
    on=0,
    other=1 << 15,  # an external event
    unused=0xFFFF0000,
)


def _davis(width: int, height: int) -> _Camera:
    return _Camera(
        size=(width, height),
        x_shift=12,
        x_mask=0x3FF,
        y_shift=22,
        y_mask=0x1FF,
        polarity_shift=11,
        on=1,
        other=1 << 31 | 1 << 10,  # samples of frames and of motion, external events
        unused=0,
    )


#: By what the name of the chip's class begins with, in lower case.
_CAMERAS = {
    "dvs128": _DVS128,
    "davis128": _davis(128, 128),
    "davis208": _davis(208, 192),
    "davis240": _davis(240, 180),
    "davis346": _davis(346, 260),
    "davis640": _davis(640, 480),
}


class Aedat2:
    """Recordings of a DVS128 or of a camera of the DAVIS family."""

    def sniff(self, head: bytes, num_bytes: int) -> bool:
        """The version line, of any version but that of the other codec."""
        return head.startswith(MAGIC) and not head.startswith(aedat4.MAGIC.rstrip())

    def open(self, source: Source) -> RecordStream:
        """Read the header.

        Raises:
            MediaError: another version, no events behind the header, or a camera not known.
        """
        version = source.head[len(MAGIC) : len(MAGIC) + len(VERSION)]
        if version != VERSION:
            source.fail(
                f"AEDAT of version {version.decode('latin-1')!r} (byte {len(MAGIC)}); 2.0 and 4.0 "
                "are read.",
                reason="unknown_format",
            )
        lines, body = _header(source)
        if body >= source.num_bytes:
            source.fail(
                f"an AEDAT 2.0 header of {body} bytes and nothing behind it; expected records of "
                f"{RECORD.itemsize} bytes.",
                reason="empty",
            )
        chips = [line.removeprefix(_CHIP).strip() for line in lines if line.startswith(_CHIP)]
        camera = _camera(source, chips[-1] if chips else None)
        facts = Facts(format="aedat2", title="AEDAT 2.0", size=camera.size)
        return RecordStream(source, facts, body, _Aedat2Decoder(camera, source.size))


def _header(source: Source) -> tuple[list[str], int]:
    """Lines that begin with ``#``, and where they end: jAER stores all its settings there."""
    data = source.head
    while True:
        lines, position = _whole_lines(data)
        if position < len(data) and not data.startswith(b"#", position):
            return lines, position
        if len(data) >= min(source.num_bytes, _MAX_HEADER_BYTES):
            break
        source.file.seek(len(data))
        data += source.file.read(_HEADER_CHUNK)
    if position < len(data):
        source.fail(
            f"a header without end: the line at byte {position} does not stop; expected a line end "
            "and then the records.",
            reason="truncated",
        )
    return lines, position


def _whole_lines(data: bytes) -> tuple[list[str], int]:
    """A line of the header is printable; a first record may begin with the byte of ``#`` too."""
    lines: list[str] = []
    position = 0
    while data.startswith(b"#", position):
        stop = data.find(b"\n", position)
        text = data[position : stop if stop >= 0 else len(data)]
        if stop < 0 or b"\0" in text:
            break
        lines.append(text.decode("latin-1").strip())
        position = stop + 1
    return lines, position


def _camera(source: Source, chip: str | None) -> _Camera:
    """From the header's chip; without one, a DVS128, or the DAVIS of the configured size."""
    if chip is None:
        if source.size is None or source.size == _DVS128.size:
            return _DVS128
        return _davis(*source.size)
    name = chip.rsplit(".", 1)[-1].lower()
    for beginning, camera in _CAMERAS.items():
        if name.startswith(beginning):
            return camera
    source.fail(
        f"AEDAT 2.0 of chip {chip!r}, whose addresses are not known; expected a DVS128 or one of "
        f"{', '.join(name for name in _CAMERAS if name != 'dvs128')}.",
        reason="unknown_format",
    )


class _Aedat2Decoder:
    record = RECORD

    def __init__(self, camera: _Camera, size: tuple[int, int] | None) -> None:
        self._camera = camera
        self._width, self._height = size or camera.size
        self._clock = Clock32()

    def decode(
        self, records: NDArray[Any], source: Source, offset: int
    ) -> tuple[Events, NDArray[np.int64] | None]:
        camera = self._camera
        address = records["address"].astype(np.uint32)
        times = self._clock.unwrap(records["t"].astype(np.uint32))
        strange = address & np.uint32(camera.unused) != 0
        across = ((address >> np.uint32(camera.x_shift)) & np.uint32(camera.x_mask)).astype(int)
        down = ((address >> np.uint32(camera.y_shift)) & np.uint32(camera.y_mask)).astype(int)
        event = (address & np.uint32(camera.other)) == 0
        strange |= event & ((across >= self._width) | (down >= self._height))
        if strange.any():
            first = int(np.argmax(strange))
            source.fault(
                "outside_sensor",
                f"address 0x{int(address[first]):08X} at byte {offset + first * RECORD.itemsize} "
                f"is no pixel of {self._width}x{self._height}; give the true size, or the camera "
                "is another one.",
                reason="outside_sensor",
                count=int(strange.sum()),
            )
        kept = np.flatnonzero(event & ~strange)
        bit = (address[kept] >> np.uint32(camera.polarity_shift)) & np.uint32(1)
        events = Events(
            times[kept],
            (self._width - 1 - across[kept]).astype(np.uint16),
            (self._height - 1 - down[kept]).astype(np.uint16),
            (bit == camera.on).astype(np.uint8),
        )
        return events, kept
