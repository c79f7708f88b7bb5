"""Columns that are used again as soon as nobody looks at them any more.

Fresh columns cost a page fault every 4 kB, more than decoding into them where several threads ask
for them at once, and they lie outside the caches.
"""

import sys
import threading

from outspike.events.columns import Events


class ColumnPool:
    """Columns of one length, for any number of threads.

    What is handed out are views of the pool's arrays, and whatever is made of those (slices, Arrow
    arrays, tensors) refers to the arrays too. So an array that nothing but the pool refers to is
    free: there is nothing to give back, and events may be kept for as long as one likes.

    Args:
        num_events: length of the columns.
        at_least: the length where ``num_events`` is less.
    """

    def __init__(self, num_events: int, at_least: int = 1) -> None:
        self._num_events = max(num_events, at_least)
        self._lock = threading.Lock()
        self._kept: list[Events] = []

    def take(self) -> Events:
        """Columns that nobody else uses, with anything in them."""
        with self._lock:
            for events in self._kept:
                if not _in_use(events):
                    return events.slice(0, self._num_events)
            events = Events.room(self._num_events)
            self._kept.append(events)
            # Whoever collects all events of a recording shall not have them counted here for ever.
            del self._kept[:-_MOST]
            return events.slice(0, self._num_events)


#: Sets of columns that a pool watches; more than a reader with its threads has under way.
_MOST = 32


def _in_use(events: Events) -> bool:
    return any(_references(events, name) > _IDLE for name in ("t", "x", "y", "p"))


def _references(events: Events, name: str) -> int:
    return sys.getrefcount(getattr(events, name))


#: What the interpreter counts for an array that nothing but its ``Events`` refers to.
_IDLE = _references(Events.room(1), "t")
