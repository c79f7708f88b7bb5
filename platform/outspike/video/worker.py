"""The child process of :mod:`outspike.video.isolate`: decodes one video into a pipe.

Run as ``python -m outspike.video.worker FD URL MEMORY_MB CPU_SECONDS``. It imports numpy and PyAV
only, so that it starts in about a fifth of a second.
"""

import json
import os
import resource
import struct
import sys

import numpy as np
from numpy.typing import NDArray

from outspike.errors import MediaError
from outspike.video.decode import decode_frames

#: kind, height, width, payload bytes
HEADER = struct.Struct("<4sIIQ")
#: A picture of 8192x4320 in 4:2:0; no single buffer of a decoder is larger.
_LARGE_BUFFER = 54_000_000

INFO, FRAME, END, ERROR = b"INFO", b"FRAM", b"END ", b"ERR "


def main(arguments: list[str]) -> int:
    """Decode ``URL`` to file descriptor ``FD``; every outcome but a crash is told through it."""
    descriptor, url, memory_mb, cpu_seconds = arguments
    limit_resources(int(memory_mb), int(cpu_seconds))
    with os.fdopen(int(descriptor), "wb", buffering=0) as pipe:
        try:
            num_frames = _send_frames(pipe.fileno(), url)
        except (MediaError, MemoryError) as error:
            if isinstance(error, MediaError) and not _near_memory_limit():
                _send_error(pipe.fileno(), error.reason, str(error))
                return 0
            message = f"{url}: decoding needs more than the {memory_mb} MB allowed."
            _send_error(pipe.fileno(), "memory", message)
        except BrokenPipeError:  # the reader went away: nobody is left to tell
            return 1
        else:
            _send(pipe.fileno(), END, num_frames, 0)
    return 0


def limit_resources(memory_mb: int, cpu_seconds: int) -> None:
    """Bound what this process may add to its present address space, and its processor time.

    The processor limit ends a decoder that loops after its parent was killed.
    """
    with open("/proc/self/statm") as statm:
        present = int(statm.read().split()[0]) * resource.getpagesize()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    wanted = present + memory_mb * 1_000_000
    soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    soft = cpu_seconds if hard == resource.RLIM_INFINITY else min(cpu_seconds, hard)
    resource.setrlimit(resource.RLIMIT_CPU, (soft, hard))


def _near_memory_limit() -> bool:
    """Whether the address space came close to its limit: FFmpeg calls a refused buffer bad data."""
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/status") as status:
        peak = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmPeak"))
    return soft != resource.RLIM_INFINITY and peak > soft - _LARGE_BUFFER


def _send_frames(descriptor: int, url: str) -> int:
    num_frames = 0
    for info, frame in decode_frames(url):
        if num_frames == 0:
            _send(descriptor, INFO, 0, 0, info.to_json().encode())
        height, width, _ = frame.shape
        _send(descriptor, FRAME, height, width, _bytes_of(frame))
        num_frames += 1
    return num_frames


def _bytes_of(frame: NDArray[np.uint8]) -> memoryview:
    return np.ascontiguousarray(frame).data.cast("B")


def _send_error(descriptor: int, reason: str, message: str) -> None:
    _send(descriptor, ERROR, 0, 0, json.dumps({"reason": reason, "message": message}).encode())


def _send(
    descriptor: int, kind: bytes, height: int, width: int, payload: bytes | memoryview = b""
) -> None:
    for part in (HEADER.pack(kind, height, width, len(payload)), payload):
        rest = memoryview(part)
        while rest:
            rest = rest[os.write(descriptor, rest) :]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
