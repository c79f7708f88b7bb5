"""The child process of :mod:`outspike.video.isolate`: decodes videos for its parent, one at a time.

A request with ``survey`` asks what decoding shows (:mod:`outspike.video.survey`), not for frames.

Run as ``python -m outspike.video.worker FD``; messages come and go over that socket, whose end is
its end. It imports numpy and PyAV only, so that it starts in about a fifth of a second.
"""

import math
import resource
import socket
import sys
from itertools import chain

from outspike.errors import MediaError
from outspike.video.decode import decode_frames
from outspike.video.shared import FrameSink, Message, receive, send, tell
from outspike.video.survey import survey

#: A picture of 8192x4320 in 4:2:0; no single buffer of a decoder is larger.
_LARGE_BUFFER = 54_000_000


def main(arguments: list[str]) -> int:
    """Answer requests over socket ``FD``; every outcome but a crash is told so."""
    sink = FrameSink()
    with socket.socket(fileno=int(arguments[0])) as channel:
        bare = _address_space()
        while (request := receive(channel)[0]) is not None:
            if "url" not in request:  # a slot of the last video that was let go of late
                continue
            limit_resources(bare + sink.num_bytes, request["memory_mb"], request["cpu_seconds"])
            if not _answer(request, channel, sink, bare):
                return 0
    return 0


def _answer(request: Message, channel: socket.socket, sink: FrameSink, bare: int) -> bool:
    """Decode one video; returns whether this process is fit for another."""
    url, memory_mb = request["url"], request["memory_mb"]
    try:
        if request.get("survey"):
            _send_survey(channel, url)
        else:
            _send_frames(channel, url, sink)
    except (MediaError, MemoryError) as error:
        if isinstance(error, MediaError) and not _near_memory_limit():
            send(channel, {"error": str(error), "reason": error.reason})
            return False
        message = f"{url}: decoding needs more than the {memory_mb} MB allowed."
        send(channel, {"error": message, "reason": "memory"})
        return False
    except BrokenPipeError:  # the reader went away: nobody is left to tell
        return False
    # What stays mapped would be missing to the next video.
    left = _address_space() - bare - sink.num_bytes
    is_fit = left < memory_mb * 1_000_000 // 4 and not _near_memory_limit()
    sink.trim()
    send(channel, {"end": is_fit})
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


def _send_frames(channel: socket.socket, url: str, sink: FrameSink) -> None:
    frames = decode_frames(url)
    info, first = next(frames)  # a video without frames is an error
    tell(channel, {"info": info.to_json()})
    sink.open(channel)
    try:
        for _, frame in chain([(info, first)], frames):
            sink.put(frame)
    finally:  # what came before an error is yielded before it is raised
        sink.flush()


def _send_survey(channel: socket.socket, url: str) -> None:
    found = survey(url)
    if found.error is not None and _near_memory_limit():
        raise MemoryError(found.error)
    tell(channel, {"info": found.to_json()})


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
