"""What workers are at: recordings that were begun, how often and how far, noted beside the driver.

Ray gives the work of a worker that died to another, for ever: it cannot know a node that was lost
from a recording that takes down whoever opens it. This is how the second kind is found. And this is
how a job that has hours of one video before it shows that it moves.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import ray
from ray.exceptions import GetTimeoutError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from outspike.scoring.reach import Reach, now_and_then

#: A recording that this many workers have died of is given up; nodes are lost too, but not so often
#: at the same recording.
MOST_DEATHS = 3

_TELL_EVERY_S = 2.0
_PATIENCE_S = 2.0


@dataclass(frozen=True)
class Standing:
    """How many recordings are under way, and seconds of their footage that are done."""

    num_recordings: int = 0
    footage_s: float = 0.0


class _Board:
    """Recordings that were begun and have not ended: how often, and seconds of footage done."""

    def __init__(self) -> None:
        self._begun: dict[str, int] = {}
        self._footage_s: dict[str, float] = {}

    def begin(self, key: str) -> int:
        """How many workers had begun this recording and never came to an end."""
        deaths = self._begun.get(key, 0)
        self._begun[key] = deaths + 1
        self._footage_s.pop(key, None)
        return deaths

    def reach(self, key: str, footage_s: float) -> None:
        """A worker has come so far."""
        if key in self._begun:
            self._footage_s[key] = footage_s

    def end(self, key: str) -> None:
        """A worker is through with it, whatever came of it."""
        self._begun.pop(key, None)
        self._footage_s.pop(key, None)

    def standing(self) -> Standing:
        return Standing(len(self._begun), sum(self._footage_s.values()))


@dataclass(frozen=True)
class Begun:
    """One worker at one recording."""

    deaths: int
    """Workers that had begun it and never came to an end."""
    reach: Reach
    """Tells how far it is; not more often than anybody looks, and not waited for."""


class UnderWay:
    """Made by the driver on a running Ray; actors have copies of it."""

    def __init__(self) -> None:
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
        board = ray.remote(_Board).options(num_cpus=0, scheduling_strategy=here)
        self._board: Any = board.remote()
        self._last = Standing()

    @contextmanager
    def begun(self, key: str) -> Iterator[Begun]:
        """A worker is at this recording; it asks how many have died of it before."""
        deaths = int(ray.get(self._board.begin.remote(key)))
        try:
            yield Begun(deaths, now_and_then(partial(self._board.reach.remote, key), _TELL_EVERY_S))
        finally:
            self._board.end.remote(key)  # not waited for

    def standing(self) -> Standing:
        """What is known now; what was known before, where the answer takes too long."""
        with suppress(GetTimeoutError):
            self._last = ray.get(self._board.standing.remote(), timeout=_PATIENCE_S)
        return self._last
