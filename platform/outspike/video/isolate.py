"""Decode where a bad container cannot take the worker down.

A child interpreter of its own (no fork of a threaded parent) decodes a recording and writes its
frames into memory that only this process has mapped (:mod:`outspike.video.shared`); a hang, a crash
or runaway memory ends it and becomes a :class:`~outspike.errors.MediaError`. While the caller works
on a chunk the child decodes the next.

A child that decoded a recording to its end without a fault is kept for the next one: starting an
interpreter takes about as long as decoding a few hundred small frames.
"""

import atexit
import math
import os
import select
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import outspike
from outspike.errors import ConfigError, MediaError
from outspike.video.decode import FrameChunk
from outspike.video.probe import VideoInfo
from outspike.video.shared import AHEAD_BYTES, SharedFrames, receive, send
from outspike.video.survey import Survey

#: Of one chunk, of which at least four are under way at once.
_MOST_CHUNK_BYTES = AHEAD_BYTES // 4
#: Children kept for further videos, about 50 MB each.
_MAX_IDLE = 2
#: Else the C library gives a picture's memory back to the system after each frame, and gets it anew
#: page by page: a third of the time of decoding.
_KEEP_FREED_MEMORY = {
    "MALLOC_TRIM_THRESHOLD_": str(64 << 20),
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
}
_SOURCE_ROOT = str(Path(outspike.__file__).parents[1])


def decode_isolated(
    url: str, *, chunk_frames: int = 64, timeout_s: float = 3600.0, memory_mb: int = 4096
) -> Iterator[FrameChunk]:
    """As :func:`outspike.video.decode.decode`, in a child process with limits.

    ``timeout_s`` bounds the time spent waiting for the child, so that a slow consumer is not
    charged to the decoder; ``memory_mb`` bounds what decoding may add to a bare interpreter.

    Raises:
        MediaError: as ``decode``; further ``timeout``, ``memory``, ``crashed``.
    """
    with IsolatedVideo(url, timeout_s=timeout_s, memory_mb=memory_mb) as video:
        yield from video.chunks(chunk_frames)


def survey_isolated(url: str, *, timeout_s: float = 3600.0, memory_mb: int = 4096) -> Survey:
    """As :func:`outspike.video.survey.survey`, in a child process with limits.

    Raises:
        MediaError: as ``survey``; further ``timeout``, ``memory``, ``crashed``.
    """
    with _Answer({"url": url, "survey": True}, timeout_s, memory_mb) as answer:
        return Survey.from_json(answer.next_message("info")["info"])


class _Answer:
    """What a child sends in answer to one request. Leaving it before its end ends the child."""

    def __init__(self, request: dict[str, Any], timeout_s: float, memory_mb: int) -> None:
        if timeout_s <= 0 or memory_mb < 1:
            raise ConfigError(
                f"timeout_s={timeout_s}, memory_mb={memory_mb}: both must be positive."
            )
        self.url = str(request["url"])
        self._timeout_s = timeout_s
        self._left_s = timeout_s
        self._is_fit = False
        limits = {"memory_mb": memory_mb, "cpu_seconds": math.ceil(timeout_s) + 1}
        self._child: _Child | None = _child_with(request | limits)

    def close(self) -> None:
        """Let go of the child: kept for the next video if this one ended well, else ended."""
        child, self._child = self._child, None
        if child is not None:
            _release(child, keep=self._is_fit)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """Process id of the child."""
        return self._required().process.pid

    def _required(self) -> "_Child":
        if self._child is None:
            raise ValueError(f"{self.url}: this video is closed.")
        return self._child

    def next_message(self, *expected: str) -> dict[str, Any]:
        """What the child says next; a told error is raised here.

        Raises:
            MediaError: what the child could not do; ``timeout``; ``crashed``, also where it says
                anything else than ``expected``.
        """
        self._wait()
        message, _ = receive(self._required().channel)
        if message is not None and "error" in message:
            raise MediaError(message["error"], reason=message["reason"])
        if message is None or not message.keys() & set(expected):
            raise self._crashed()
        self._is_fit = bool(message.get("end"))
        return message

    def _wait(self) -> None:
        began = time.monotonic()
        poll = select.poll()  # select() refuses descriptors above 1023, which a busy actor has
        poll.register(self._required().channel, select.POLLIN)
        ready = poll.poll(max(self._left_s, 0) * 1000)
        self._left_s -= time.monotonic() - began
        if not ready:
            raise MediaError(
                f"{self.url}: decoding took longer than {self._timeout_s:g} s and was stopped; "
                "allow more, or leave the recording out.",
                reason="timeout",
            )

    def _crashed(self) -> MediaError:
        child = self._required()
        code = child.process.wait()
        child.errors.seek(0)
        said = child.errors.read().decode(errors="replace").strip().splitlines()
        if said and said[-1].startswith("MemoryError"):
            return MediaError(f"{self.url}: decoding ran out of memory.", reason="memory")
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        detail = f" ({said[-1]})" if said else ""
        return MediaError(
            f"{self.url}: the decoder ended with {how}{detail}; leave the recording out.",
            reason="crashed",
        )


class IsolatedVideo(_Answer):
    """A video opened in a child process, which begins at once; nothing is waited for yet.

    Use as a context manager: leaving it before the last frame ends the child.
    """

    def __init__(self, url: str, *, timeout_s: float, memory_mb: int) -> None:
        super().__init__({"url": url}, timeout_s, memory_mb)

    @cached_property
    def info(self) -> VideoInfo:
        """Facts of the stream, known before any frame is asked for.

        Raises:
            MediaError: as :func:`decode_isolated`.
        """
        return VideoInfo.from_json(self.next_message("info")["info"])

    def chunks(self, chunk_frames: int = 64) -> Iterator[FrameChunk]:
        """Frames in chunks of at most ``chunk_frames``, fewer where they are large, once.

        A chunk may be kept as long as you like; it is copied where too many are.

        Raises:
            MediaError: as :func:`decode_isolated`; what came before is yielded first.
        """
        if chunk_frames < 1:
            raise ConfigError(f"chunk_frames={chunk_frames}: a chunk holds at least one frame.")
        width, height = self.info.display_size
        num_frames = min(chunk_frames, max(1, _MOST_CHUNK_BYTES // (3 * width * height)))
        start, child = 0, self._required()
        shape = (num_frames, height, width, 3)
        child.frames = SharedFrames(child.channel, shape, child.frames)
        with child.frames as shared:
            while "chunk" in (message := self.next_message("chunk", "end")):
                yield FrameChunk(start, shared.take(message["chunk"], message["frames"]))
                start += message["frames"]


# ------------------------------------------------------------------------------- the children


class _Child:
    """One process of :mod:`outspike.video.worker` and our end of its channel."""

    def __init__(self) -> None:
        self.surroundings = _surroundings()
        self.frames: SharedFrames | None = None
        """Of the video decoded last."""
        self.errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by end()
        self.channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        paths = [_SOURCE_ROOT, os.environ.get("PYTHONPATH", "")]
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(path for path in paths if path),
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",  # each of its threads reserves address space
            **_KEEP_FREED_MEMORY,
        }
        command = [sys.executable, "-X", "faulthandler", "-m", "outspike.video.worker"]
        try:
            self.process: subprocess.Popen[bytes] = subprocess.Popen(
                [*command, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=self.errors,
                stderr=self.errors,
                env=environment,
            )
        except BaseException:
            self.channel.close()
            self.errors.close()
            raise
        finally:
            theirs.close()

    def ask(self, request: dict[str, Any]) -> bool:
        """Hand over a request; False where the process has ended meanwhile."""
        self.errors.seek(0)  # what it said during an earlier video does not explain this one
        self.errors.truncate()
        return send(self.channel, request)

    @property
    def is_whole(self) -> bool:
        """Whether its files are open.

        Where a reader was dropped half-way (a suspended generator in a cycle), the garbage
        collector finalises reader, child and files in any order: the files may be closed before
        the reader lets go of the child, or after it, while the child is already kept.
        """
        return not self.errors.closed and self.channel.fileno() >= 0

    def end(self) -> None:
        """End the process if it still runs, and free what it held."""
        self.process.kill()
        self.process.wait()
        self.channel.close()
        self.errors.close()


_idle: list[_Child] = []
_idle_lock = threading.Lock()


def _surroundings() -> tuple[int, str, dict[str, str]]:
    """What a child inherits; with another process, folder or setting it takes another child."""
    return os.getpid(), os.readlink("/proc/self/cwd"), dict(os.environ)


def _child_with(request: dict[str, Any]) -> _Child:
    """A child that has been given the request: one kept from an earlier video, else a new one."""
    now = _surroundings()
    while (child := _take()) is not None:
        if child.is_whole and child.surroundings == now and child.ask(request):
            return child
        child.end()
    child = _Child()
    child.ask(request)  # had it ended already, the first read tells how
    return child


def _take() -> _Child | None:
    with _idle_lock:
        return _idle.pop() if _idle else None


def _release(child: _Child, *, keep: bool) -> None:
    if keep:
        with _idle_lock:
            if len(_idle) < _MAX_IDLE:
                _idle.append(child)
                return
    child.end()


@atexit.register
def _end_idle() -> None:
    while (child := _take()) is not None:
        if child.surroundings[0] == os.getpid():  # after a fork they are the parent's
            child.end()
