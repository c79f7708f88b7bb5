"""Events as pictures: counts per window, polarity and pixel.

Counting is in integers of the wanted type, and a count that the type cannot hold is an error. The
window rules are those of ``ucf_crime_dvs_msf.md`` section 2: the regular grid of the time base is
the one to use, the others reproduce files that were made with them. Voxel grids and time surfaces
are in :mod:`~outspike.events.surfaces`, pictures of the encoder's size in
:mod:`~outspike.events.resize`, long recordings in :mod:`~outspike.events.clips`.
"""

from collections.abc import Iterator
from typing import Any, NoReturn

import numba
import numpy as np
from numpy.typing import DTypeLike, NDArray

from outspike.errors import AlignmentError, ConfigError
from outspike.events.columns import Events
from outspike.events.full_frames import (
    count_full,
    is_full,
    new_frames,
    new_table,
    touch,
)

Windows = NDArray[np.int64]
Counts = NDArray[Any]


def windows_by_number(num_events: int, num_windows: int) -> Windows:
    """``[T + 1]`` event positions of windows with equally many events; the last takes the rest."""
    if num_windows < 1 or num_events < num_windows:
        raise ConfigError(f"{num_events} events cannot be dealt to {num_windows} windows.")
    edges = np.arange(num_windows + 1, dtype=np.int64) * (num_events // num_windows)
    edges[-1] = num_events
    return edges


def windows_by_time(t_us: NDArray[np.int64], num_windows: int) -> Windows:
    """``[T + 1]`` positions of windows of equal duration; the last takes what is left.

    Raises:
        ConfigError: a window would hold no event, as in the published rule.
    """
    if not len(t_us):
        raise ConfigError("No events to cut into windows.")
    step = (int(t_us[-1]) - int(t_us[0])) // num_windows
    times = int(t_us[0]) + step * np.arange(num_windows, dtype=np.int64)
    edges = np.append(np.searchsorted(t_us, times), len(t_us)).astype(np.int64)
    if (np.diff(edges) == 0).any():
        raise ConfigError(
            f"Window {int(np.argmin(np.diff(edges)))} of {num_windows} holds no event; use the "
            "regular grid, which keeps empty windows."
        )
    return edges


def windows_anchored_on_events(t_us: NDArray[np.int64], duration_us: int) -> Windows:
    """``[T + 1]`` positions under the old rule: each window starts at the first unused event.

    Silent gaps vanish, so windows drift away from the video clock; for reading old files only.
    """
    edges = [0]
    while edges[-1] < len(t_us):
        limit = int(t_us[edges[-1]]) + duration_us
        edges.append(int(np.searchsorted(t_us, limit, side="right")))
    return np.array(edges, dtype=np.int64)


def windows_on_grid(
    t_us: NDArray[np.int64], duration_us: int, *, anchor_us: int, num_windows: int | None = None
) -> Windows:
    """``[T + 1]`` positions of the regular grid from the recording's start; empty windows stay.

    Args:
        t_us: sorted times.
        duration_us: of a window (533,328 for a snippet of UCF-Crime-DVS).
        anchor_us: start of the recording.
        num_windows: from the recording's length; by default up to the last event.

    Raises:
        AlignmentError: an event before the start or after the last window.
    """
    if len(t_us) and int(t_us[0]) < anchor_us:
        raise AlignmentError(f"An event at {t_us[0]} us lies before the start {anchor_us} us.")
    needed = (int(t_us[-1]) - anchor_us) // duration_us + 1 if len(t_us) else 0
    total = needed if num_windows is None else num_windows
    if needed > total:
        raise AlignmentError(f"Events reach window {needed}, the recording has {total}.")
    times = anchor_us + duration_us * np.arange(total + 1, dtype=np.int64)
    return np.searchsorted(t_us, times).astype(np.int64)


def count_frames(
    events: Events, windows: Windows, size: tuple[int, int], dtype: DTypeLike = np.uint16
) -> Counts:
    """Events per window, polarity and pixel, ``[T, 2, H, W]``; channel 0 is OFF.

    Args:
        events: the recording.
        windows: ``[T + 1]`` positions between which the events of a window lie.
        size: width and height.
        dtype: integers, or floats where a network wants them: counts are whole all the same.

    Raises:
        AlignmentError: a pixel outside ``size``, or a count above what the type holds exactly.
    """
    highest = highest_count(np.dtype(dtype))
    check_inside(events, size)
    frames = new_frames(len(windows) - 1, size, np.dtype(dtype))
    parts = [events.slice(start, stop) for start, stop in _pairs(windows)]
    for frame, part in zip(frames, parts, strict=True):
        if is_full(len(part), frame):
            touch(frame)
    table = new_table(size)
    for frame, part in zip(frames, parts, strict=True):
        if not is_full(len(part), frame):
            add_counts(part, frame)
        elif not count_full(part, frame, table, highest):
            _refuse(frame.dtype)
    return frames


def add_counts(events: Events, frame: Counts) -> None:
    """Add events, which lie inside, to the counts ``[2, H, W]`` of one window.

    Raises:
        AlignmentError: a count above what the type holds exactly.
    """
    _, height, width = frame.shape
    highest = highest_count(frame.dtype)
    flat = frame.reshape(-1)
    if _count(events.x, events.y, events.p, flat, width, height, frame.dtype.type(highest)):
        _refuse(frame.dtype)


def _refuse(dtype: np.dtype[Any]) -> NoReturn:
    raise AlignmentError(
        f"A pixel counts more than {highest_count(dtype)} events in one window, which "
        f"{dtype.name} cannot hold; use a wider type or shorter windows."
    )


def highest_count(dtype: np.dtype[Any]) -> int:
    """Up to which number a type holds every whole number."""
    if dtype.kind in "iu":
        return int(np.iinfo(dtype).max)
    if dtype in (np.float32, np.float64):
        return 1 << np.finfo(dtype).nmant + 1
    raise ConfigError(f"Events are counted in integers, float32 or float64, not in {dtype.name}.")


def check_inside(events: Events, size: tuple[int, int]) -> None:
    """Raise an AlignmentError where an event lies outside ``size`` (width, height)."""
    width, height = size
    if len(events) and (int(events.x.max()) >= width or int(events.y.max()) >= height):
        raise AlignmentError(
            f"An event at pixel ({events.x.max()}, {events.y.max()}) lies outside {width}x{height}."
        )


def _pairs(windows: Windows) -> Iterator[tuple[int, int]]:
    return zip(windows[:-1].tolist(), windows[1:].tolist(), strict=True)


@numba.njit(cache=True, nogil=True)
def _count(
    x: NDArray[np.uint16],
    y: NDArray[np.uint16],
    p: NDArray[np.uint8],
    flat: Counts,
    width: int,
    height: int,
    highest: Any,
) -> bool:
    """Count; whether a count would have left the type's range."""
    # Unsigned places: a signed one costs a look at its sign in every access.
    wide, high = np.uintp(width), np.uintp(height)
    left = False
    for i in range(len(x)):
        place = (np.uintp(p[i] != 0) * high + np.uintp(y[i])) * wide + np.uintp(x[i])
        before = flat[place]
        left |= before == highest
        flat[place] = before + 1
    return left
