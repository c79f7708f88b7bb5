"""Counts at the size that an encoder takes: bilinear, after counting or while counting.

A bilinear resize without antialiasing reads two rows and two columns of the source for each of the
result. From 1280x720 to 224x224 those are 22 % of the pixels. So :class:`ResizedCounts` counts only
at pixels that are read, on a small canvas, and interpolates from there. The counts and the weights
are the same as of the whole picture, and so is the result, to the last bit.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Self

import numba
import numpy as np
from numpy.typing import NDArray

from outspike.errors import AlignmentError
from outspike.events.columns import Events
from outspike.events.frames import Windows, check_inside


@dataclass(frozen=True)
class Axis:
    """Which two pixels of the source each pixel of the result lies between on one axis.

    Args:
        low, high: ``[out]`` positions in the source.
        share: ``[out]`` weight of ``high``; that of ``low`` is the rest.
        num_in: length of the source.
    """

    low: NDArray[np.int64]
    high: NDArray[np.int64]
    share: NDArray[np.float64]
    num_in: int

    @classmethod
    def between(cls, num_in: int, num_out: int) -> Self:
        """Pixel centres at half integers, borders repeated (``align_corners=False``)."""
        source = np.maximum((np.arange(num_out) + 0.5) * (num_in / num_out) - 0.5, 0.0)
        low = np.minimum(source.astype(np.int64), num_in - 1)
        high = np.minimum(low + 1, num_in - 1)
        return cls(low, high, source - low, num_in)

    def compact(self) -> tuple["Axis", NDArray[np.uint16]]:
        """The same on the pixels that are read, and where each pixel of the source went.

        Pixels that are not read all go to one place behind the others.
        """
        read = np.union1d(self.low, self.high)
        place = np.full(self.num_in, len(read), dtype=np.uint16)
        place[read] = np.arange(len(read))
        low, high = place[self.low].astype(np.int64), place[self.high].astype(np.int64)
        return Axis(low, high, self.share, len(read) + 1), place


def resize_counts(frames: NDArray[np.number], size: tuple[int, int]) -> NDArray[np.float64]:
    """Bilinear resize of the last two axes to ``size`` (width, height), in float64.

    Pixel centres at half integers, no antialiasing, borders repeated (``align_corners=False``).
    """
    height, width = frames.shape[-2:]
    stack = np.ascontiguousarray(frames).reshape(-1, height, width)
    resized = _resized(stack, Axis.between(height, size[1]), Axis.between(width, size[0]))
    return resized.reshape(*frames.shape[:-2], *resized.shape[-2:])


class ResizedCounts:
    """Counts of events, straight at the size of an encoder.

    Args:
        size: width and height of the sensor.
        resized: width and height of the result.
    """

    def __init__(self, size: tuple[int, int], resized: tuple[int, int]) -> None:
        self._size = size
        self._rows, self._row_of = Axis.between(size[1], resized[1]).compact()
        self._cols, self._col_of = Axis.between(size[0], resized[0]).compact()
        self._counts = np.zeros((2, self._rows.num_in, self._cols.num_in), dtype=np.uint32)
        self._num_events = 0

    def add(self, events: Events) -> None:
        """Count events.

        Raises:
            AlignmentError: an event outside the sensor, or 2^32 of them in one window.
        """
        check_inside(events, self._size)
        self._num_events += len(events)
        if self._num_events >= 1 << 32:
            raise AlignmentError(
                f"{self._num_events} events in one window; expected fewer than 2^32. Use shorter "
                "windows."
            )
        _count_read(events.x, events.y, events.p, self._col_of, self._row_of, self._counts)

    def take(self) -> NDArray[np.float64]:
        """The picture ``[2, H, W]`` of what was counted since the last time."""
        resized = _resized(self._counts, self._rows, self._cols)
        self._counts[:] = 0
        self._num_events = 0
        return resized


def count_frames_resized(
    events: Events, windows: Windows, size: tuple[int, int], resized: tuple[int, int]
) -> NDArray[np.float64]:
    """``resize_counts(count_frames(events, windows, size), resized)``, without the large frames."""
    canvas = ResizedCounts(size, resized)
    frames = np.empty((len(windows) - 1, 2, resized[1], resized[0]))
    for number, (start, stop) in enumerate(pairwise(windows)):
        canvas.add(events.slice(int(start), int(stop)))
        frames[number] = canvas.take()
    return frames


def _resized(stack: NDArray[np.number], rows: Axis, cols: Axis) -> NDArray[np.float64]:
    out = np.empty((len(stack), len(rows.low), len(cols.low)))
    _interpolate(stack, rows.low, rows.high, rows.share, cols.low, cols.high, cols.share, out)
    return out


@numba.njit(cache=True, nogil=True)
def _count_read(
    x: NDArray[np.uint16],
    y: NDArray[np.uint16],
    p: NDArray[np.uint8],
    col_of: NDArray[np.uint16],
    row_of: NDArray[np.uint16],
    counts: NDArray[np.uint32],
) -> None:
    for i in range(len(x)):
        counts[np.uint8(p[i] != 0), row_of[y[i]], col_of[x[i]]] += np.uint32(1)


@numba.njit(cache=True, nogil=True)
def _interpolate(
    stack: NDArray[np.number],
    row_low: NDArray[np.int64],
    row_high: NDArray[np.int64],
    row_share: NDArray[np.float64],
    col_low: NDArray[np.int64],
    col_high: NDArray[np.int64],
    col_share: NDArray[np.float64],
    out: NDArray[np.float64],
) -> None:
    for n in range(out.shape[0]):
        for i in range(out.shape[1]):
            upper, lower = stack[n, row_low[i]], stack[n, row_high[i]]
            down = row_share[i]
            for j in range(out.shape[2]):
                left, right = col_low[j], col_high[j]
                on_left = upper[left] * (1.0 - down) + lower[left] * down
                on_right = upper[right] * (1.0 - down) + lower[right] * down
                out[n, i, j] = on_left * (1.0 - col_share[j]) + on_right * col_share[j]
