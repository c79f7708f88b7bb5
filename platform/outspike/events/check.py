"""What holds of the events of every format: they lie on the sensor and time does not run back."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numba
import numpy as np
from numpy.typing import NDArray

from outspike.events.codec import Piece, Source
from outspike.events.columns import Events, concatenate
from outspike.events.raw_words import MAX_JITTER_US

#: Times of 146,000 years and more are damage, and their differences would not fit.
MAX_ABS_US = 1 << 62

#: How many of the events that follow are asked whether one is too far ahead.
_AHEAD = 16

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
    _held: Events = field(default_factory=Events.empty)

    def events(self, piece: Piece) -> Events:
        """The events of ``piece``; with ``resync`` the sound ones of all that came so far.

        Raises:
            MediaError: an event outside the sensor, at a time no clock shows, or before its
                predecessor by more than :data:`~outspike.events.raw_words.MAX_JITTER_US`.
        """
        events = piece.events
        if self.source.on_error == "resync":
            events = concatenate([self._held, events]) if len(self._held) else events
            return self._sound_ones(events, max(0, len(events) - _AHEAD))
        if self._all_sound(events, in_order=piece.in_order):
            self._latest_us[0] = events.t[-1] if len(events) else self._latest_us[0]
        else:
            verdict = self._verdict(events, len(events))
            for index in np.flatnonzero(verdict)[:1].tolist():
                kind, report = _VERDICTS[int(verdict[index])]
                self.source.fail(report(self, piece, index), reason=kind)
        return events

    def rest(self) -> Events:
        """The sound ones of what was held back for want of what follows."""
        return self._sound_ones(self._held, len(self._held))

    def _sound_ones(self, events: Events, num: int) -> Events:
        """Those of the first ``num``; the others wait. What is left out is counted."""
        self._held = events.slice(num, len(events))
        if self._all_sound(events):
            self._latest_us[0] = events.t[num - 1] if num else self._latest_us[0]
            return events.slice(0, num)
        verdict = self._verdict(events, num)
        for value, (kind, _) in _VERDICTS.items():
            self.source.skipped[kind] += int(np.count_nonzero(verdict == value))
        keep = np.flatnonzero(verdict == 0) if verdict.any() else slice(num)
        return Events(events.t[keep], events.x[keep], events.y[keep], events.p[keep])

    def _all_sound(self, events: Events, *, in_order: bool = False) -> bool:
        """Whether all is plainly well. NumPy's maximum is several times faster than a compiled
        loop's, which widens the numbers first."""
        if not len(events):
            return True
        width, height = self.size
        # Of times that are in order the first and the last tell everything.
        times = events.t[[0, -1]] if in_order else events.t
        return (
            int(events.x.max()) < width
            and int(events.y.max()) < height
            and bool(_in_order(times, int(self._latest_us[0])))
        )

    def _verdict(self, events: Events, num: int) -> NDArray[np.uint8]:
        verdict = np.empty(num, dtype=np.uint8)
        width, height = self.size
        _judge(events.t, events.x, events.y, width, height, self._latest_us, verdict)
        return verdict

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


@numba.njit(cache=True, nogil=True)
def _in_order(t: NDArray[np.int64], before_us: int) -> bool:
    """Whether times never step back and are such as a clock shows."""
    back = t[0] < before_us
    for i in range(1, len(t)):
        back |= t[i] < t[i - 1]
    return bool(not back and t[0] > -MAX_ABS_US and t[-1] < MAX_ABS_US)


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
    """0 for a sound event, else what is wrong with it, for as many as ``verdict`` holds.

    An event far ahead of most of those that follow is the one that is wrong, not all of them.
    """
    for i in range(len(verdict)):
        verdict[i] = 0
        if x[i] >= width or y[i] >= height:
            verdict[i] = _OUTSIDE
        elif t[i] <= -MAX_ABS_US or t[i] >= MAX_ABS_US:
            verdict[i] = _IMPOSSIBLE
        else:
            floor = -MAX_ABS_US
            if latest_us[0] != _NEVER:
                floor = latest_us[0] - MAX_JITTER_US
            if t[i] < floor or _leaps(t, i, floor):
                verdict[i] = _BACKWARDS
            else:
                latest_us[0] = max(latest_us[0], t[i])


@numba.njit(cache=True)
def _leaps(t: NDArray[np.int64], i: int, floor: int) -> bool:
    """Whether more of the next events fit between ``floor`` and event ``i`` than behind it."""
    against = 0
    for k in range(i + 1, min(i + 1 + _AHEAD, len(t))):
        if t[k] >= t[i] - MAX_JITTER_US:
            against -= 1
        elif t[k] >= floor:
            against += 1
    return against > 0
