"""Frames from a child process without a copy: messages over a socket, pictures in shared memory.

Messages are JSON, one a packet. The memory of a video is a file without a name that the reader
makes, maps and hands to the child, who maps it too; it holds some chunks in turn. A child that is
kept for the next video keeps the memory with it, unless somebody still holds a chunk: touching
pages for the first time costs several times what copying into them does. What a child writes
after it was given up is seen by nobody.
"""

import json
import mmap
import os
import resource
import socket
import threading
import weakref
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

#: Of decoded frames in memory: what a child may be ahead of a consumer who takes many at once.
AHEAD_BYTES = 64 << 20
#: Chunks in memory: one at the consumer, who asks for the next before letting go of it, one ready,
#: and one or two being filled; more where they are small.
_LEAST_SLOTS, _MOST_SLOTS = 4, 16

_LONGEST_MESSAGE = 1 << 20
_NAME = "outspike-frames"

Message = dict[str, Any]


def send(channel: socket.socket, message: Message, descriptors: Sequence[int] = ()) -> bool:
    """Send one message, with open files if any; False where nobody is left to take it."""
    try:
        socket.send_fds(channel, [json.dumps(message).encode()], descriptors)
    except (BrokenPipeError, ConnectionResetError):
        return False
    return True


def receive(channel: socket.socket) -> tuple[Message | None, list[int]]:
    """The next message and the files that came with it; None where the other side is gone."""
    while True:
        try:
            raw, descriptors, _, _ = socket.recv_fds(channel, _LONGEST_MESSAGE, maxfds=1)
        except ConnectionResetError:
            # Told once, and before what the other side had still sent, where it left while a
            # message of ours was on its way.
            continue
        return (json.loads(raw) if raw else None), descriptors


class SharedFrames:
    """The reader's side: chunks of at most ``shape[0]`` frames ``[F, H, W, 3]``, in slots.

    A slot goes back to the child once nobody holds the array that was made of it. Arrays outlive
    this object; leaving it only ends the traffic. ``before`` are the frames of the video that the
    child decoded last: their memory is used again if nobody needs it.
    """

    def __init__(
        self,
        channel: socket.socket,
        shape: tuple[int, int, int, int],
        before: "SharedFrames | None" = None,
    ) -> None:
        self._shape = shape
        self._slot_bytes = int(np.prod(shape, dtype=np.int64))
        self._num_slots = min(_MOST_SLOTS, max(_LEAST_SLOTS, AHEAD_BYTES // self._slot_bytes))
        self._held = 0
        self._lock = threading.RLock()  # arrays may be let go of anywhere, in here too
        self._channel: socket.socket | None = channel
        order = {"chunk_frames": shape[0], "slots": self._num_slots}
        num_bytes = self._num_slots * self._slot_bytes
        kept = before._unused(num_bytes) if before else None
        if kept is not None:
            self._memory = kept
            send(channel, order)  # had the child ended, the next read tells how
            return
        descriptor = os.memfd_create(_NAME)
        try:
            os.ftruncate(descriptor, num_bytes)
            self._memory = mmap.mmap(descriptor, num_bytes)
            send(channel, order, [descriptor])
        finally:
            os.close(descriptor)

    def _unused(self, num_bytes: int) -> mmap.mmap | None:
        """The memory, where it is large enough, the child has kept it and no array lies in it."""
        fits = num_bytes <= len(self._memory) <= AHEAD_BYTES
        return self._memory if fits and not self._held else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._lock:
            self._channel = None  # its next video knows nothing of our slots

    def take(self, slot: int, num_frames: int) -> NDArray[np.uint8]:
        """The frames of a slot that the child has filled."""
        frames: NDArray[np.uint8] = np.ndarray(
            (num_frames, *self._shape[1:]),
            dtype=np.uint8,
            buffer=self._memory,
            offset=slot * self._slot_bytes,
        )
        with self._lock:
            if self._held >= self._num_slots - 2:  # the consumer keeps chunks: leave the child room
                frames = frames.copy()
                self._tell(slot)
            else:
                self._held += 1
                # Slices and tensors of it hold on to this very array.
                weakref.finalize(frames, self._let_go, slot).atexit = False
        return frames

    def _let_go(self, slot: int) -> None:
        with self._lock:
            self._held -= 1
            self._tell(slot)

    def _tell(self, slot: int) -> None:
        if self._channel is not None:
            send(self._channel, {"free": slot})


class FrameSink:
    """The child's side: gathers frames into the slots that are free, video after video."""

    def __init__(self) -> None:
        self._memory: mmap.mmap | None = None

    @property
    def num_bytes(self) -> int:
        """Of address space that this memory takes."""
        return len(self._memory) if self._memory is not None else 0

    def open(self, channel: socket.socket) -> None:
        """Wait for the reader's order.

        Raises:
            BrokenPipeError: the reader is gone.
        """
        self._channel = channel
        order, descriptors = _answer(channel)
        for descriptor in descriptors:
            self._map(descriptor)
        self._chunk_frames: int = order["chunk_frames"]
        self._free: list[int] = list(range(order["slots"]))
        self._slot = -1
        self._num_frames = 0

    def put(self, frame: NDArray[np.uint8]) -> None:
        """Write one frame ``[H, W, 3]``; waits where the reader holds every slot.

        Raises:
            BrokenPipeError: the reader is gone.
        """
        assert self._memory is not None, "open() comes first"
        if self._num_frames == 0:
            while not self._free:
                self._free.append(_answer(self._channel)[0]["free"])
            self._slot = self._free.pop()  # the one used last is nearest to the cache
        offset = (self._slot * self._chunk_frames + self._num_frames) * frame.nbytes
        place: NDArray[np.uint8] = np.ndarray(frame.shape, np.uint8, self._memory, offset)
        place[...] = frame
        self._num_frames += 1
        if self._num_frames == self._chunk_frames:
            self.flush()

    def flush(self) -> None:
        """Tell the reader of a chunk that is not full."""
        if self._num_frames:
            tell(self._channel, {"chunk": self._slot, "frames": self._num_frames})
            self._num_frames = 0

    def trim(self) -> None:
        """Let go of memory that the reader does not use again either."""
        if self.num_bytes > AHEAD_BYTES:
            self._unmap()

    def _map(self, descriptor: int) -> None:
        self._unmap()
        try:
            num_bytes = os.fstat(descriptor).st_size
            _allow_address_space(num_bytes)
            self._memory = mmap.mmap(descriptor, num_bytes)
        finally:
            os.close(descriptor)

    def _unmap(self) -> None:
        if self._memory is not None:
            _allow_address_space(-len(self._memory))
            self._memory.close()
            self._memory = None


def _allow_address_space(more: int) -> None:
    """Frames on their way to the reader do not count towards the limit of decoding."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    if soft != resource.RLIM_INFINITY:
        wanted = soft + more
        limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))


def tell(channel: socket.socket, message: Message) -> None:
    """As :func:`send`.

    Raises:
        BrokenPipeError: nobody is left to take it.
    """
    if not send(channel, message):
        raise BrokenPipeError


def _answer(channel: socket.socket) -> tuple[Message, list[int]]:
    message, descriptors = receive(channel)
    if message is None:
        raise BrokenPipeError
    return message, descriptors
