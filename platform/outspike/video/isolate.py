"""Decode where a bad container cannot take the worker down.

A fresh child interpreter (no fork of a threaded parent, nothing shared) decodes one recording and
writes its frames into a pipe; a hang, a crash or runaway memory ends the child and becomes a
:class:`~outspike.errors.MediaError`. While the caller works on a chunk the child decodes the next.
"""

import fcntl
import json
import math
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import numpy as np
from numpy.typing import NDArray

import outspike
from outspike.errors import ConfigError, MediaError
from outspike.video.decode import FrameChunk, in_chunks
from outspike.video.probe import VideoInfo
from outspike.video.worker import END, ERROR, FRAME, HEADER, INFO

_PIPE_BYTES = 1 << 20
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


class IsolatedVideo:
    """A video opened in a child process; ``info`` is known before any frame is asked for.

    Use as a context manager: leaving it ends the child.
    """

    info: VideoInfo

    def __init__(self, url: str, *, timeout_s: float, memory_mb: int) -> None:
        if timeout_s <= 0 or memory_mb < 1:
            raise ConfigError(
                f"timeout_s={timeout_s}, memory_mb={memory_mb}: both must be positive."
            )
        self.url = url
        self._timeout_s = timeout_s
        self._left_s = timeout_s
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        self._process, self._pipe = self._start(memory_mb)
        try:
            self.info = self._receive_info()
        except BaseException:
            self.close()
            raise

    def chunks(self, chunk_frames: int = 64) -> Iterator[FrameChunk]:
        """Frames in chunks of at most ``chunk_frames``, once."""
        return in_chunks(((self.info, frame) for frame in self._frames()), chunk_frames)

    def close(self) -> None:
        """End the child if it still runs, and free what it held."""
        self._process.kill()
        self._process.wait()
        os.close(self._pipe)
        self._errors.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _start(self, memory_mb: int) -> "tuple[subprocess.Popen[bytes], int]":
        receiving, sending = os.pipe()
        fcntl.fcntl(receiving, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        os.set_blocking(receiving, False)
        paths = [_SOURCE_ROOT, os.environ.get("PYTHONPATH", "")]
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(path for path in paths if path),
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",  # each of its threads reserves address space
        }
        command = [sys.executable, "-X", "faulthandler", "-m", "outspike.video.worker"]
        limits = [str(memory_mb), str(math.ceil(self._timeout_s) + 1)]
        try:
            process = subprocess.Popen(
                [*command, str(sending), self.url, *limits],
                pass_fds=[sending],
                stdin=subprocess.DEVNULL,
                stdout=self._errors,
                stderr=self._errors,
                env=environment,
            )
        except BaseException:
            os.close(receiving)
            raise
        finally:
            os.close(sending)
        return process, receiving

    def _receive_info(self) -> VideoInfo:
        kind, _, _, length = self._header()
        if kind != INFO:
            raise self._crashed()
        return VideoInfo.from_json(self._read(np.empty(length, dtype=np.uint8)).tobytes().decode())

    def _frames(self) -> Iterator[NDArray[np.uint8]]:
        while True:
            kind, height, width, _ = self._header()
            if kind == END:
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
            got = os.readv(self._pipe, [rest])
            if got == 0:
                raise self._crashed()
            rest = rest[got:]
        return array

    def _wait(self) -> None:
        began = time.monotonic()
        poll = select.poll()  # select() refuses descriptors above 1023, which a busy actor has
        poll.register(self._pipe, select.POLLIN)
        ready = poll.poll(max(self._left_s, 0) * 1000)
        self._left_s -= time.monotonic() - began
        if not ready:
            raise MediaError(
                f"{self.url}: decoding took longer than {self._timeout_s:g} s and was stopped; "
                "allow more, or leave the recording out.",
                reason="timeout",
            )

    def _crashed(self) -> MediaError:
        code = self._process.wait()
        self._errors.seek(0)
        said = self._errors.read().decode(errors="replace").strip().splitlines()
        if said and said[-1].startswith("MemoryError"):
            return MediaError(f"{self.url}: decoding ran out of memory.", reason="memory")
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        detail = f" ({said[-1]})" if said else ""
        return MediaError(
            f"{self.url}: the decoder ended with {how}{detail}; leave the recording out.",
            reason="crashed",
        )
