"""The compressed packets of AEDAT 4.0, unpacked with a bound on what comes out."""

import io
from collections.abc import Callable
from dataclasses import dataclass

from outspike.events.extras import optional

#: A packet holds some milliseconds of one stream; more than this is damage, or meant to harm.
MAX_PACKET_BYTES = 1 << 28

_STEP = 1 << 20
_MAX_WINDOW_BYTES = 1 << 27


class PacketError(ValueError):
    """A packet that does not unpack."""


@dataclass(frozen=True)
class Compression:
    """How packets are unpacked, and what their content begins with (after so many bytes)."""

    unpack: Callable[[bytes], bytes]
    signature: tuple[bytes, int]


def _plain(data: bytes) -> bytes:
    return data


def _lz4(data: bytes) -> bytes:
    lz4_frame = optional("lz4.frame", "An AEDAT4 file with LZ4 packets")
    decompressor = lz4_frame.LZ4FrameDecompressor()
    try:
        unpacked: bytes = decompressor.decompress(data, max_length=MAX_PACKET_BYTES)
    except RuntimeError as error:  # the binding's only exception for damaged frames
        raise PacketError(str(error)) from error
    if not decompressor.eof:
        raise PacketError(f"its LZ4 frame does not end within {len(data)} bytes")
    return unpacked


def _zstd(data: bytes) -> bytes:
    zstandard = optional("zstandard", "An AEDAT4 file with Zstandard packets")
    decompressor = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW_BYTES)
    parts: list[bytes] = []
    total = 0
    try:
        with decompressor.stream_reader(io.BytesIO(data)) as reader:
            while part := reader.read(_STEP):
                parts.append(part)
                total += len(part)
                if total > MAX_PACKET_BYTES:
                    raise PacketError(f"it unpacks to more than {MAX_PACKET_BYTES} bytes")
    except zstandard.ZstdError as error:
        raise PacketError(str(error)) from error
    return b"".join(parts)


#: By the number in the file's header; the odd pairs differ only in how hard the writer tried.
COMPRESSIONS = {
    0: Compression(_plain, (b"EVTS", 8)),
    1: Compression(_lz4, (b"\x04\x22\x4d\x18", 0)),
    2: Compression(_lz4, (b"\x04\x22\x4d\x18", 0)),
    3: Compression(_zstd, (b"\x28\xb5\x2f\xfd", 0)),
    4: Compression(_zstd, (b"\x28\xb5\x2f\xfd", 0)),
}
