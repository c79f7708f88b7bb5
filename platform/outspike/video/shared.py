"""Frames from a child process without a copy: messages over a socket, pictures in shared memory.

Messages are JSON, one a packet. The memory of one video is a file without a name that the reader
makes, maps and hands to the child; it holds a few chunks in turn. The child only writes into it,
so it needs no address space for it, and what it writes after it was given up is seen by nobody.
"""

import json
import mmap
import os
import socket
import threading
import weakref
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

#: Chunks in memory: one at the consumer, who asks for the next before letting go of it, one ready,
#: and one or two being filled.
NUM_SLOTS = 4

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
    this object; leaving it only ends the traffic.
    """

    def __init__(self, channel: socket.socket, shape: tuple[int, int, int, int]) -> None:
        self._shape = shape
        self._slot_bytes = int(np.prod(shape, dtype=np.int64))
        self._held = 0
        self._lock = threading.RLock()  # arrays may be let go of anywhere, in here too
        self._channel: socket.socket | None = channel
        descriptor = os.memfd_create(_NAME)
        try:
            os.ftruncate(descriptor, NUM_SLOTS * self._slot_bytes)
            self._memory = mmap.mmap(descriptor, 0)
            order = {"chunk_frames": shape[0], "slots": NUM_SLOTS}
            send(channel, order, [descriptor])  # had it ended, the next read tells how
        finally:
            os.close(descriptor)

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
            if self._held >= NUM_SLOTS - 2:  # the consumer keeps chunks: leave the child room
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
    """The child's side: gathers frames into the slots that are free."""

    def __init__(self, channel: socket.socket) -> None:
        """Wait for the reader's order.

        Raises:
            BrokenPipeError: the reader is gone.
        """
        self._channel = channel
        order, descriptors = _answer(channel)
        (self._descriptor,) = descriptors
        self._chunk_frames: int = order["chunk_frames"]
        self._free: list[int] = list(range(order["slots"]))
        self._slot = -1
        self._num_frames = 0

    def put(self, frame: NDArray[np.uint8]) -> None:
        """Write one frame ``[H, W, 3]``; waits where the reader holds every slot.

        Raises:
            BrokenPipeError: the reader is gone.
        """
        if self._num_frames == 0:
            while not self._free:
                self._free.append(_answer(self._channel)[0]["free"])
            self._slot = self._free.pop()  # the one used last is nearest to the cache
        place = self._slot * self._chunk_frames + self._num_frames
        offset, rest = place * frame.nbytes, np.ascontiguousarray(frame).data.cast("B")
        while rest:
            written = os.pwrite(self._descriptor, rest, offset)
            offset, rest = offset + written, rest[written:]
        self._num_frames += 1
        if self._num_frames == self._chunk_frames:
            self.flush()

    def flush(self) -> None:
        """Tell the reader of a chunk that is not full."""
        if self._num_frames:
            tell(self._channel, {"chunk": self._slot, "frames": self._num_frames})
            self._num_frames = 0

    def close(self) -> None:
        """Let go of the memory."""
        os.close(self._descriptor)


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
