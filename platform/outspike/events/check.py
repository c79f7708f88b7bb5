"""What holds of the events of every format: they lie on the sensor and time does not run back."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numba
import numpy as np
from numpy.typing import NDArray

from outspike.events.codec import Piece, Source
from outspike.events.columns import Events
from outspike.events.raw_words import MAX_JITTER_US

#: Times of 146,000 years and more are damage, and their differences would not fit.
MAX_ABS_US = 1 << 62

_NEVER = np.iinfo(np.int64).min


@dataclass(kw_only=True)
class Checker:
    """Checks consecutive pieces of one recording.

    Args:
        source: where faults go.
        size: width and height of the sensor, or of all that the format can hold.
        size_origin: who says so, for the message.
    """

    source: Source
    size: tuple[int, int]
    size_origin: str
    _latest_us: NDArray[np.int64] = field(
        default_factory=lambda: np.full(1, _NEVER, dtype=np.int64)
    )

    def events(self, piece: Piece) -> Events:
        """The events of ``piece``; faulty ones raise, or are left out and counted.

        Raises:
            MediaError: an event outside the sensor, at a time no clock shows, or before its
                predecessor by more than :data:`~outspike.events.raw_words.MAX_JITTER_US`.
        """
        events = piece.events
        width, height = self.size
        if not len(events) or _sound(events.t, events.x, events.y, width, height, self._latest_us):
            return events
        verdict = np.empty(len(events), dtype=np.uint8)
        _judge(events.t, events.x, events.y, width, height, self._latest_us, verdict)
        for value, (kind, report) in _VERDICTS.items():
            found = np.flatnonzero(verdict == value)
            if len(found):
                message = report(self, piece, int(found[0]))
                self.source.fault(kind, message, reason=kind, count=len(found))
        keep = verdict == 0
        if keep.all():
            return events
        return Events(events.t[keep], events.x[keep], events.y[keep], events.p[keep])

    def outside(self, piece: Piece, index: int) -> str:
        """What is wrong with event ``index``."""
        events, (width, height) = piece.events, self.size
        return (
            f"an event at pixel ({events.x[index]}, {events.y[index]}), {piece.place(index)}, lies "
            f"outside the {self.size_origin} size {width}x{height}; give the true size."
        )

    def backwards(self, piece: Piece, index: int) -> str:
        """What is wrong with event ``index``."""
        return (
            f"the event at {piece.events.t[index]} us, {piece.place(index)}, does not fit the "
            f"times around it; expected times that step back by at most {MAX_JITTER_US} us."
        )

    def impossible(self, piece: Piece, index: int) -> str:
        """What is wrong with event ``index``."""
        return (
            f"the event at {piece.events.t[index]} us, {piece.place(index)}; expected less than "
            f"{MAX_ABS_US} us."
        )


_OUTSIDE, _BACKWARDS, _IMPOSSIBLE = 1, 2, 3
_VERDICTS: dict[int, tuple[str, Callable[[Checker, Piece, int], str]]] = {
    _OUTSIDE: ("outside_sensor", Checker.outside),
    _BACKWARDS: ("time_backwards", Checker.backwards),
    _IMPOSSIBLE: ("impossible_times", Checker.impossible),
}


@numba.njit(cache=True)
def _sound(
    t: NDArray[np.int64],
    x: NDArray[np.uint16],
    y: NDArray[np.uint16],
    width: int,
    height: int,
    latest_us: NDArray[np.int64],
) -> bool:
    """Whether all is plainly well: the fast way out, in three loops that vectorise."""
    x_max = y_max = np.uint16(0)
    for i in range(len(x)):
        x_max = max(x_max, x[i])
    for i in range(len(y)):
        y_max = max(y_max, y[i])
    back = t[0] < latest_us[0]
    for i in range(1, len(t)):
        back |= t[i] < t[i - 1]
    if x_max >= width or y_max >= height or back:
        return False
    if t[0] <= -MAX_ABS_US or t[-1] >= MAX_ABS_US:
        return False
    latest_us[0] = t[-1]
    return True


@numba.njit(cache=True)
def _judge(
    t: NDArray[np.int64],
    x: NDArray[np.uint16],
    y: NDArray[np.uint16],
    width: int,
    height: int,
    latest_us: NDArray[np.int64],
    verdict: NDArray[np.uint8],
) -> None:
    """0 for a sound event, else what is wrong with it.

    An event far ahead of both neighbours is the one that is wrong, not all that follow it.
    """
    for i in range(len(t)):
        verdict[i] = 0
        if x[i] >= width or y[i] >= height:
            verdict[i] = _OUTSIDE
            continue
        if t[i] <= -MAX_ABS_US or t[i] >= MAX_ABS_US:
            verdict[i] = _IMPOSSIBLE
            continue
        if latest_us[0] == _NEVER:
            latest_us[0] = t[i]
            continue
        floor = latest_us[0] - MAX_JITTER_US
        following = t[i + 1] if i + 1 < len(t) else t[i]
        leaps = floor <= following < t[i] and t[i] - following > MAX_JITTER_US
        if t[i] < floor or leaps:
            verdict[i] = _BACKWARDS
        else:
            latest_us[0] = max(latest_us[0], t[i])
