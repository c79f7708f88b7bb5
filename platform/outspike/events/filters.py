"""Take noise out of a stream of events; every filter says how many it took.

Filters take consecutive pieces of a recording and keep what they need to know of the past, so that
the result does not depend on how the recording was cut. Sensors with readout jitter deliver some
events late; a neighbour counts as near in time on both sides.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import numba
import numpy as np
from numpy.typing import NDArray

from outspike.errors import ConfigError
from outspike.events.columns import Events
from outspike.events.frames import check_inside

#: Before any event. Far enough back for every window, and no difference of times overflows.
_NEVER = np.iinfo(np.int64).min // 2


class EventFilter(Protocol):
    """Something that takes events out."""

    name: str
    num_removed: int

    def push(self, events: Events) -> Events:
        """What is left of the next events."""


def filter_events(chunks: Iterable[Events], filters: Sequence[EventFilter]) -> Iterator[Events]:
    """Consecutive events through all filters, one after the other."""
    for chunk in chunks:
        for one in filters:
            chunk = one.push(chunk)
        yield chunk


class HotPixels:
    """Removes the events of pixels that are stuck.

    Args:
        mask: ``[H, W]``, true where a pixel is hot; see :func:`find_hot_pixels`.
    """

    name = "hot_pixels"

    def __init__(self, mask: NDArray[np.bool_]) -> None:
        self._mask = mask
        self.num_removed = 0

    def push(self, events: Events) -> Events:
        """What is left of the next events."""
        check_inside(events, (self._mask.shape[1], self._mask.shape[0]))
        return _kept(self, events, ~self._mask[events.y, events.x])


class BackgroundActivity:
    """Removes lonely events: those without an event next to them in space and time.

    An event stays if one of the eight pixels around it had an event, of either polarity, at most
    ``window_us`` before it (Delbruck, 2008). Removed events count as neighbours too.

    Args:
        size: width and height.
        window_us: how near in time.
    """

    name = "background_activity"

    def __init__(self, size: tuple[int, int], *, window_us: int = 10_000) -> None:
        if window_us < 0:
            raise ConfigError(f"window_us={window_us}: expected a time of 0 or more.")
        self._size = size
        self._window_us = window_us
        self._last_us = np.full((size[1] + 2, size[0] + 2), _NEVER, dtype=np.int64)
        self.num_removed = 0

    def push(self, events: Events) -> Events:
        """What is left of the next events."""
        check_inside(events, self._size)
        keep = np.empty(len(events), dtype=np.bool_)
        _near_another(events.t, events.x, events.y, self._window_us, self._last_us, keep)
        return _kept(self, events, keep)


class Refractory:
    """Removes what a pixel sends within ``period_us`` after an event that stayed.

    Args:
        size: width and height.
        period_us: how long a pixel is to be silent.
    """

    name = "refractory"

    def __init__(self, size: tuple[int, int], *, period_us: int = 1_000) -> None:
        if period_us < 0:
            raise ConfigError(f"period_us={period_us}: expected a time of 0 or more.")
        self._size = size
        self._period_us = period_us
        self._last_us = np.full((size[1], size[0]), _NEVER, dtype=np.int64)
        self.num_removed = 0

    def push(self, events: Events) -> Events:
        """What is left of the next events."""
        check_inside(events, self._size)
        keep = np.empty(len(events), dtype=np.bool_)
        _rested(events.t, events.x, events.y, self._period_us, self._last_us, keep)
        return _kept(self, events, keep)


def find_hot_pixels(
    chunks: Iterable[Events],
    size: tuple[int, int],
    *,
    factor: float = 10.0,
    min_rate_hz: float = 10.0,
) -> NDArray[np.bool_]:
    """Pixels that stand out from their surroundings over a whole recording, ``[H, W]``.

    A pixel is hot if it sent more than ``factor`` times as many events as the second busiest of the
    pixels around it (at least one), and more than ``min_rate_hz`` of them a second. What moves
    through the picture is seen by several neighbours, so it makes no pixel hot; that the second one
    counts lets two hot pixels lie side by side.

    Args:
        chunks: all events of the recording.
        size: width and height.
        factor: how far a pixel must stand out.
        min_rate_hz: below this nothing is hot.
    """
    counts = np.zeros((size[1], size[0]), dtype=np.int64)
    first_us, last_us = None, 0
    for chunk in chunks:
        if len(chunk):
            check_inside(chunk, size)
            _tally(chunk.x, chunk.y, counts)
            first_us = int(chunk.t[0]) if first_us is None else first_us
            last_us = max(last_us, int(chunk.t[-1]))
    if first_us is None:
        return np.zeros(counts.shape, dtype=np.bool_)
    least = min_rate_hz * (last_us - first_us) / 1e6
    hot: NDArray[np.bool_] = counts > factor * np.maximum(_second_around(counts), 1)
    return hot & (counts > least)


def _kept(one: EventFilter, events: Events, keep: NDArray[np.bool_]) -> Events:
    num_kept = int(np.count_nonzero(keep))
    one.num_removed += len(events) - num_kept
    if num_kept == len(events):
        return events
    return Events(events.t[keep], events.x[keep], events.y[keep], events.p[keep])


@numba.njit(cache=True, nogil=True)
def _tally(x: NDArray[np.uint16], y: NDArray[np.uint16], counts: NDArray[np.int64]) -> None:
    for i in range(len(x)):
        counts[y[i], x[i]] += 1


@numba.njit(cache=True, nogil=True)
def _second_around(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Second largest of the up to eight pixels around each; 0 where there are fewer than two."""
    height, width = counts.shape
    seconds = np.zeros_like(counts)
    for row in range(height):
        for col in range(width):
            first = second = np.int64(0)
            for near_row in range(max(row - 1, 0), min(row + 2, height)):
                for near_col in range(max(col - 1, 0), min(col + 2, width)):
                    if near_row != row or near_col != col:
                        count = counts[near_row, near_col]
                        second = max(second, min(first, count))
                        first = max(first, count)
            seconds[row, col] = second
    return seconds


@numba.njit(cache=True, nogil=True)
def _near_another(
    t: NDArray[np.int64],
    x: NDArray[np.uint16],
    y: NDArray[np.uint16],
    window_us: int,
    last_us: NDArray[np.int64],
    keep: NDArray[np.bool_],
) -> None:
    """``last_us`` has a border of one pixel, which nothing ever happens in."""
    for i in range(len(t)):
        row, col = np.uintp(y[i]), np.uintp(x[i])
        latest = _NEVER
        for down in range(np.uintp(3)):
            for right in range(np.uintp(3)):
                if down != 1 or right != 1:
                    latest = max(latest, last_us[row + down, col + right])
        keep[i] = t[i] - latest <= window_us
        here = row + np.uintp(1), col + np.uintp(1)
        last_us[here] = max(last_us[here], t[i])


@numba.njit(cache=True, nogil=True)
def _rested(
    t: NDArray[np.int64],
    x: NDArray[np.uint16],
    y: NDArray[np.uint16],
    period_us: int,
    last_us: NDArray[np.int64],
    keep: NDArray[np.bool_],
) -> None:
    for i in range(len(t)):
        keep[i] = t[i] - last_us[y[i], x[i]] >= period_us
        if keep[i]:
            last_us[y[i], x[i]] = t[i]
