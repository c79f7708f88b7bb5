"""How often each recording was begun, counted beside the driver.

Ray gives the work of a worker that died to another, for ever: it cannot know a node that was lost
from a recording that takes down whoever opens it. This is how the second kind is found.
"""

from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

#: A recording that this many workers have died of is given up; nodes are lost too, but not so often
#: at the same recording.
MOST_DEATHS = 3


class _Counts:
    """Recordings that were begun and have not ended, by how often."""

    def __init__(self) -> None:
        self._open: dict[str, int] = {}

    def begin(self, key: str) -> int:
        """How many workers had begun this recording and never came to an end."""
        deaths = self._open.get(key, 0)
        self._open[key] = deaths + 1
        return deaths

    def end(self, key: str) -> None:
        """A worker is through with it, whatever came of it."""
        self._open.pop(key, None)


class Tries:
    """Made by the driver on a running Ray; actors have copies of it."""

    def __init__(self) -> None:
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
        counts = ray.remote(_Counts).options(num_cpus=0, scheduling_strategy=here)
        self._counts: Any = counts.remote()

    def begin(self, key: str) -> int:
        """A worker begins a recording; tells how many have died of it before."""
        return int(ray.get(self._counts.begin.remote(key)))

    def end(self, key: str) -> None:
        """It is through; not waited for."""
        self._counts.end.remote(key)
