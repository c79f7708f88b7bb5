"""Decode where a bad container cannot take the worker down.

A child interpreter of its own (no fork of a threaded parent, nothing shared) decodes a recording
and writes its frames into a pipe; a hang, a crash or runaway memory ends it and becomes a
:class:`~outspike.errors.MediaError`. While the caller works on a chunk the child decodes the next.

A child that decoded a recording to its end without a fault is kept for the next one: starting an
interpreter takes about as long as decoding a few hundred small frames.
"""

import atexit
import fcntl
import json
import math
import os
import select
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np
from numpy.typing import NDArray

import outspike
from outspike.errors import ConfigError, MediaError
from outspike.video.decode import FrameChunk, in_chunks
from outspike.video.probe import VideoInfo
from outspike.video.survey import Survey
from outspike.video.worker import END, ERROR, FRAME, HEADER, INFO

_PIPE_BYTES = 1 << 20
#: Children kept for further videos, about 50 MB each.
_MAX_IDLE = 2
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
        return Survey.from_json(answer.receive_info())


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

    def receive_info(self) -> str:
        """The text that comes first."""
        kind, _, _, length = self._header()
        if kind != INFO:  # also an end without any frame, which the decoder tells as an error
            raise self._crashed()
        return self._read(np.empty(length, dtype=np.uint8)).tobytes().decode()

    def frames(self) -> Iterator[NDArray[np.uint8]]:
        """Every frame ``[H, W, 3]``, to the end."""
        while True:
            kind, height, width, _ = self._header()
            if kind == END:
                self._is_fit = bool(height)
                return
            if kind != FRAME:
                raise self._crashed()
            yield self._read(np.empty((height, width, 3), dtype=np.uint8))

    def _header(self) -> tuple[bytes, int, int, int]:
        """The next message's header; a told error is raised here."""
        raw = self._read(np.empty(HEADER.size, dtype=np.uint8))
        kind, height, width, length = HEADER.unpack(raw.data)
        if kind == ERROR:
            told = json.loads(self._read(np.empty(length, dtype=np.uint8)).tobytes())
            raise MediaError(told["message"], reason=told["reason"])
        return kind, height, width, length

    def _read(self, array: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Fill ``array`` from the pipe."""
        rest = array.data.cast("B")
        while rest:
            self._wait()
            got = os.readv(self._required().pipe, [rest])
            if got == 0:
                raise self._crashed()
            rest = rest[got:]
        return array

    def _wait(self) -> None:
        began = time.monotonic()
        poll = select.poll()  # select() refuses descriptors above 1023, which a busy actor has
        poll.register(self._required().pipe, select.POLLIN)
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
    """A video opened in a child process; ``info`` is known before any frame is asked for.

    Use as a context manager: leaving it before the last frame ends the child.
    """

    info: VideoInfo

    def __init__(self, url: str, *, timeout_s: float, memory_mb: int) -> None:
        super().__init__({"url": url}, timeout_s, memory_mb)
        try:
            self.info = VideoInfo.from_json(self.receive_info())
        except BaseException:
            self.close()
            raise

    def chunks(self, chunk_frames: int = 64) -> Iterator[FrameChunk]:
        """Frames in chunks of at most ``chunk_frames``, once."""
        return in_chunks(((self.info, frame) for frame in self.frames()), chunk_frames)


# ------------------------------------------------------------------------------- the children


class _Child:
    """One process of :mod:`outspike.video.worker` and our ends of its pipes."""

    def __init__(self) -> None:
        self.surroundings = _surroundings()
        self.errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by end()
        self.pipe, sending = os.pipe()
        fcntl.fcntl(self.pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        os.set_blocking(self.pipe, False)
        paths = [_SOURCE_ROOT, os.environ.get("PYTHONPATH", "")]
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(path for path in paths if path),
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",  # each of its threads reserves address space
        }
        command = [sys.executable, "-X", "faulthandler", "-m", "outspike.video.worker"]
        try:
            self.process: subprocess.Popen[bytes] = subprocess.Popen(
                [*command, str(sending)],
                pass_fds=[sending],
                stdin=subprocess.PIPE,
                stdout=self.errors,
                stderr=self.errors,
                env=environment,
            )
        except BaseException:
            os.close(self.pipe)
            self.errors.close()
            raise
        finally:
            os.close(sending)

    def ask(self, request: dict[str, Any]) -> bool:
        """Hand over a request; False where the process has ended meanwhile."""
        assert self.process.stdin is not None
        self.errors.seek(0)  # what it said during an earlier video does not explain this one
        self.errors.truncate()
        try:
            self.process.stdin.write(json.dumps(request).encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            return False
        return True

    @property
    def is_whole(self) -> bool:
        """Whether its files are open.

        Where a reader was dropped half-way (a suspended generator in a cycle), the garbage
        collector finalises reader, child and files in any order: the files may be closed before
        the reader lets go of the child, or after it, while the child is already kept.
        """
        assert self.process.stdin is not None
        return not (self.errors.closed or self.process.stdin.closed)

    def end(self) -> None:
        """End the process if it still runs, and free what it held."""
        assert self.process.stdin is not None
        self.process.kill()
        self.process.wait()
        with suppress(BrokenPipeError):  # a request it never took
            self.process.stdin.close()
        os.close(self.pipe)
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
