"""Events as pictures: counts per window and pixel, voxel grids, and their bilinear resize.

Counting is in integers and checked against the type's range. The window rules are those of
``ucf_crime_dvs_msf.md`` section 2: the regular grid of the time base is the one to use, the others
reproduce files that were made with them.
"""

from collections.abc import Iterator

import numba
import numpy as np
from numpy.typing import NDArray

from outspike.errors import AlignmentError, ConfigError
from outspike.events.columns import Events

Windows = NDArray[np.int64]
Counts = NDArray[np.unsignedinteger]


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
    events: Events,
    windows: Windows,
    size: tuple[int, int],
    dtype: type[np.unsignedinteger] = np.uint16,
) -> Counts:
    """Events per window, polarity and pixel, ``[T, 2, H, W]``; channel 0 is OFF.

    Raises:
        AlignmentError: a pixel outside ``size`` (width, height), or a count above the type's range.
    """
    width, height = size
    _check_inside(events, size)
    frames = np.zeros((len(windows) - 1, 2, height, width), dtype=np.uint32)
    for frame, (start, stop) in zip(frames, _pairs(windows), strict=True):
        _accumulate(events.x[start:stop], events.y[start:stop], events.p[start:stop], frame)
    highest = int(frames.max(initial=0))
    if highest > np.iinfo(dtype).max:
        raise AlignmentError(
            f"A pixel counts {highest} events in one window, more than {np.dtype(dtype).name} "
            "holds; use a wider type or shorter windows."
        )
    return frames.astype(dtype)


def voxel_grid(events: Events, num_bins: int, size: tuple[int, int]) -> NDArray[np.float32]:
    """Signed events spread over the two nearest of ``num_bins`` time bins, ``[T, H, W]``.

    Bilinear in time over the span of the events, as in Zhu et al. (CVPR 2019): an event of sign
    ``s`` at ``t*`` in ``[0, T - 1]`` adds ``s * max(0, 1 - |t* - bin|)``.
    """
    width, height = size
    if num_bins < 1:
        raise ConfigError(f"num_bins={num_bins}: at least one.")
    _check_inside(events, size)
    grid = np.zeros((num_bins, height, width), dtype=np.float32)
    if len(events):
        span = max(1, int(events.t[-1]) - int(events.t[0]))
        scaled = (events.t - events.t[0]) * ((num_bins - 1) / span)
        _splat(scaled, events.x, events.y, events.p, grid)
    return grid


def resize_counts(frames: NDArray[np.number], size: tuple[int, int]) -> NDArray[np.float64]:
    """Bilinear resize of the last two axes to ``size`` (width, height), in float64.

    Pixel centres at half integers, no antialiasing, borders repeated (``align_corners=False``).
    """
    rows, cols = (
        _weights(n_in, n_out) for n_in, n_out in zip(frames.shape[-2:], size[::-1], strict=True)
    )
    resized: NDArray[np.float64] = rows @ frames.astype(np.float64) @ cols.T
    return resized


def _weights(num_in: int, num_out: int) -> NDArray[np.float64]:
    """Interpolation matrix ``[out, in]`` of one axis."""
    source = np.maximum((np.arange(num_out) + 0.5) * (num_in / num_out) - 0.5, 0.0)
    low = np.minimum(source.astype(np.int64), num_in - 1)
    high = np.minimum(low + 1, num_in - 1)
    matrix = np.zeros((num_out, num_in))
    np.add.at(matrix, (np.arange(num_out), low), 1 - (source - low))
    np.add.at(matrix, (np.arange(num_out), high), source - low)
    return matrix


def _pairs(windows: Windows) -> Iterator[tuple[int, int]]:
    return zip(windows[:-1].tolist(), windows[1:].tolist(), strict=True)


def _check_inside(events: Events, size: tuple[int, int]) -> None:
    width, height = size
    if len(events) and (int(events.x.max()) >= width or int(events.y.max()) >= height):
        raise AlignmentError(
            f"An event at pixel ({events.x.max()}, {events.y.max()}) lies outside {width}x{height}."
        )


@numba.njit(cache=True)
def _accumulate(
    x: NDArray[np.uint16], y: NDArray[np.uint16], p: NDArray[np.uint8], frame: NDArray[np.uint32]
) -> None:
    for i in range(len(x)):
        frame[1 if p[i] else 0, y[i], x[i]] += np.uint32(1)


@numba.njit(cache=True)
def _splat(
    position: NDArray[np.float64],
    x: NDArray[np.uint16],
    y: NDArray[np.uint16],
    p: NDArray[np.uint8],
    grid: NDArray[np.float32],
) -> None:
    last = grid.shape[0] - 1
    for i in range(len(x)):
        sign = np.float32(1) if p[i] else np.float32(-1)
        low = int(position[i])
        share = np.float32(position[i] - low)
        grid[low, y[i], x[i]] += sign * (np.float32(1) - share)
        if low < last:
            grid[low + 1, y[i], x[i]] += sign * share
