"""The child process of :mod:`outspike.video.isolate`: decodes videos into a pipe, one at a time.

A request with ``survey`` asks what decoding shows (:mod:`outspike.video.survey`), not for frames.

Run as ``python -m outspike.video.worker FD``; every line on standard input is a request, the end of
input its end. It imports numpy and PyAV only, so that it starts in about a fifth of a second.
"""

import json
import math
import os
import resource
import struct
import sys
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from outspike.errors import MediaError
from outspike.video.decode import decode_frames
from outspike.video.survey import survey

#: kind, height, width, payload bytes; with END, height is 1 where another request is welcome
HEADER = struct.Struct("<4sIIQ")
#: A picture of 8192x4320 in 4:2:0; no single buffer of a decoder is larger.
_LARGE_BUFFER = 54_000_000

INFO, FRAME, END, ERROR = b"INFO", b"FRAM", b"END ", b"ERR "


def main(arguments: list[str]) -> int:
    """Answer requests through file descriptor ``FD``; every outcome but a crash is told so."""
    bare = _address_space()
    with os.fdopen(int(arguments[0]), "wb", buffering=0) as pipe:
        for line in sys.stdin:
            request = json.loads(line)
            limit_resources(bare, request["memory_mb"], request["cpu_seconds"])
            send = _send_survey if request.get("survey") else _send_frames
            if not _answer(send, pipe.fileno(), request["url"], bare, request["memory_mb"]):
                return 0
    return 0


def _answer(
    send: Callable[[int, str], None], descriptor: int, url: str, bare: int, memory_mb: int
) -> bool:
    """Decode one video; returns whether this process is fit for another."""
    try:
        send(descriptor, url)
    except (MediaError, MemoryError) as error:
        if isinstance(error, MediaError) and not _near_memory_limit():
            _send_error(descriptor, error.reason, str(error))
            return False
        message = f"{url}: decoding needs more than the {memory_mb} MB allowed."
        _send_error(descriptor, "memory", message)
        return False
    except BrokenPipeError:  # the reader went away: nobody is left to tell
        return False
    # What stays mapped would be missing to the next video.
    is_fit = _address_space() - bare < memory_mb * 1_000_000 // 4 and not _near_memory_limit()
    _send(descriptor, END, int(is_fit), 0)
    return is_fit


def limit_resources(bare: int, memory_mb: int, cpu_seconds: int) -> None:
    """Bound what this process may add to ``bare`` bytes of address space, and its processor time.

    The processor limit ends a decoder that loops after its parent was killed.
    """
    _set_soft_limit(resource.RLIMIT_AS, bare + memory_mb * 1_000_000)
    used = resource.getrusage(resource.RUSAGE_SELF)
    _set_soft_limit(resource.RLIMIT_CPU, cpu_seconds + math.ceil(used.ru_utime + used.ru_stime))


def _set_soft_limit(kind: int, wanted: int) -> None:
    _, hard = resource.getrlimit(kind)
    resource.setrlimit(
        kind, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard)
    )


def _address_space() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[0]) * resource.getpagesize()


def _near_memory_limit() -> bool:
    """Whether the address space came close to its limit: FFmpeg calls a refused buffer bad data."""
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/status") as status:
        peak = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmPeak"))
    return soft != resource.RLIM_INFINITY and peak > soft - _LARGE_BUFFER


def _send_frames(descriptor: int, url: str) -> None:
    is_first = True
    for info, frame in decode_frames(url):
        if is_first:
            _send(descriptor, INFO, 0, 0, info.to_json().encode())
        height, width, _ = frame.shape
        _send(descriptor, FRAME, height, width, _bytes_of(frame))
        is_first = False


def _send_survey(descriptor: int, url: str) -> None:
    found = survey(url)
    if found.error is not None and _near_memory_limit():
        raise MemoryError(found.error)
    _send(descriptor, INFO, 0, 0, found.to_json().encode())


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
