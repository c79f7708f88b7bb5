"""Which rank holds the others up: signs of life, and the one line that reads them.

Every rank runs a :class:`Heart`: the loop tells it what it is about, a thread passes that on every
few seconds. When a rank has not moved for long, its stack is written to a file and the innermost
place goes along. Whoever hears all ranks (the driver) keeps a :class:`Watch`, which names the one
that is behind. Nothing is ended here: the process group's timeout does that, and training goes on
from the last checkpoint.
"""

import faulthandler
import json
import logging
import os
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from types import FrameType
from typing import Any

logger = logging.getLogger(__name__)

#: What a rank may be about, in the order it comes in a step.
PHASES = ("starts", "reads bags", "computes", "evaluates", "writes a checkpoint", "reports")
_BEAT_EVERY_S = 2.0
#: Files whose frames mean that a rank waits for others and is not what they wait for.
_WAITING = ("torch/distributed/", "torch/nn/parallel/", "torch/autograd/", "ray/train/")


@dataclass(frozen=True, kw_only=True)
class Beat:
    """A sign of life of one rank."""

    rank: int
    number: int
    """Counts the signs of this rank."""
    step: int
    phase: str
    idle_s: float
    """Seconds since the rank last moved on, by its own clock."""
    where: str = ""
    """Innermost place of our code the main thread is in, once it has not moved for long."""
    is_waiting: bool = False
    """Whether that place is a collective."""
    stack: str = ""
    """Address of the whole stack."""
    host: str = field(default_factory=socket.gethostname)
    pid: int = field(default_factory=os.getpid)

    def to_bytes(self) -> bytes:
        """As one line of JSON."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> "Beat":
        """Inverse of :meth:`to_bytes`."""
        document: dict[str, Any] = json.loads(data)
        return cls(**document)


class Heart:
    """Passes on what this process is about, from a thread of its own; a context manager.

    Args:
        rank: of this process.
        publish: takes every sign of life.
        stall_after_s: without moving on, before the stack is looked at.
        keep_stack: takes (name, text) of a stack and returns its address.
        every_s: between signs.
    """

    def __init__(
        self,
        rank: int,
        publish: Callable[[Beat], None],
        *,
        stall_after_s: float,
        keep_stack: Callable[[str, str], str],
        every_s: float = _BEAT_EVERY_S,
    ) -> None:
        self._rank = rank
        self._publish = publish
        self._stall_after_s = stall_after_s
        self._keep_stack = keep_stack
        self._every_s = min(every_s, stall_after_s / 2)
        self._at: tuple[int, str, float] = (0, PHASES[0], time.monotonic())
        self._dumped: tuple[int, str, float] | None = None
        self._stack = ""
        self._watched = threading.current_thread().ident
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="train-heart", daemon=True)

    def __enter__(self) -> "Heart":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def at(self, step: int, phase: str) -> None:
        """The rank moves on: what it is about now."""
        self._at = (step, phase, time.monotonic())

    def _beat(self) -> None:
        number = 0
        while not self._stop.wait(self._every_s):
            number += 1
            try:
                self._publish(self._sign(number))
            except Exception as error:  # of storage or of the cluster; training is not to end of it
                logger.warning("rank=%d could not give a sign of life: %s", self._rank, error)

    def _sign(self, number: int) -> Beat:
        at = self._at
        step, phase, since = at
        idle = time.monotonic() - since
        beat = Beat(rank=self._rank, number=number, step=step, phase=phase, idle_s=idle)
        if idle < self._stall_after_s:
            return beat
        if self._dumped != at:
            self._dumped = at
            name = f"rank-{self._rank}-step-{step}.txt"
            self._stack = self._keep_stack(name, all_stacks())
        where, is_waiting = self._place()
        return replace(beat, where=where, is_waiting=is_waiting, stack=self._stack)

    def _place(self) -> tuple[str, bool]:
        """Innermost frame of our code in the watched thread, and whether it waits for others."""
        frame = sys._current_frames().get(self._watched or 0)
        is_waiting, innermost = False, None
        while frame is not None:
            file = frame.f_code.co_filename.replace(os.sep, "/")
            innermost = innermost or frame
            is_waiting = is_waiting or any(part in file for part in _WAITING)
            if "/outspike/" in file:
                return _told(frame), is_waiting
            frame = frame.f_back
        return ("" if innermost is None else _told(innermost)), is_waiting


def _told(frame: FrameType) -> str:
    file = os.path.basename(frame.f_code.co_filename)
    return f"{file}:{frame.f_lineno} in {frame.f_code.co_name}"


def all_stacks() -> str:
    """The stacks of every thread of this process, as :mod:`faulthandler` writes them."""
    with tempfile.TemporaryFile("w+") as file:
        faulthandler.dump_traceback(file, all_threads=True)
        file.seek(0)
        return file.read()


class Watch:
    """Hears all ranks and says once of every standstill which of them is behind.

    Args:
        stall_after_s: nobody moves on for so long.
        clock: seconds, for the silence of ranks that send nothing.
    """

    def __init__(
        self, stall_after_s: float, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stall_after_s = stall_after_s
        self._clock = clock
        self._heard: dict[int, tuple[Beat, float]] = {}
        self._told: tuple[int, int] | None = None

    def look(self, beats: Mapping[int, Beat]) -> str | None:
        """One line on a standstill that has not been told of yet; None while anybody moves.

        Also None while no rank at all gives a sign: workers are then being replaced.
        """
        now = self._clock()
        for rank, beat in beats.items():
            known = self._heard.get(rank)
            if known is None or known[0] != beat:
                self._heard[rank] = (beat, now)
        for rank in set(self._heard) - set(beats):
            del self._heard[rank]
        silent = {rank: now - at for rank, (_, at) in self._heard.items()}
        gone = {rank for rank in silent if silent[rank] >= self._stall_after_s}
        # What a rank says of itself: the sign that tells of a standstill brings the stack along.
        idle = {rank: beat.idle_s for rank, (beat, _) in self._heard.items()}
        idle |= {rank: idle[rank] + silent[rank] for rank in gone}
        if gone == set(silent) or min(idle.values()) < self._stall_after_s:
            return None
        behind = self._behind(gone)
        beat = self._heard[behind][0]
        if self._told == (behind, beat.step):
            return None
        self._told = (behind, beat.step)
        return self._line(beat, idle, behind in gone)

    def _behind(self, silent: set[int]) -> int:
        if silent:
            return min(silent)
        beats = [beat for beat, _ in self._heard.values()]
        return min(beats, key=lambda b: (b.step, PHASES.index(b.phase), b.is_waiting, b.rank)).rank

    def _line(self, beat: Beat, idle: Mapping[int, float], is_silent: bool) -> str:
        others = [
            f"rank {other.rank} at step {other.step} ({other.phase})"
            for rank, (other, _) in sorted(self._heard.items())
            if rank != beat.rank
        ]
        about = f"at step {beat.step}, where it {beat.phase}"
        sign = "sends no sign of life, last " if is_silent else ""
        place = f", in {beat.where}" if beat.where else ""
        stack = f"; its stack: {beat.stack}" if beat.stack else ""
        waiting = f"; {', '.join(others)} cannot go on" if others else ""
        return (
            f"training stands still for {min(idle.values()):.0f} s: rank {beat.rank} (host "
            f"{beat.host}, pid {beat.pid}) {sign or 'is '}{about}{place}{stack}{waiting}"
        )
