"""Event frames and voxel grids on a CUDA device, to the same integers as on the processor.

cupy is an extra (``gpu``) and is imported here alone, on use. It imports without a device as well,
so :func:`available` asks the device, not the import.
"""

import importlib.util
from typing import Any

import numpy as np

from outspike.errors import AlignmentError, ConfigError
from outspike.events.columns import Events
from outspike.events.frames import Windows, check_inside, highest_count
from outspike.events.surfaces import SHARE_BITS, shares_per_us

#: A cupy array; cupy has no types of its own where it is not installed.
DeviceArray = Any


def available() -> bool:
    """Whether there is cupy and a device for it."""
    if importlib.util.find_spec("cupy") is None:
        return False
    import cupy

    return bool(cupy.is_available())


def count_frames(
    events: Events,
    windows: Windows,
    size: tuple[int, int],
    dtype: Any = np.uint16,
) -> DeviceArray:
    """:func:`outspike.events.frames.count_frames` on the device, ``[T, 2, H, W]``.

    Raises:
        ConfigError: no device.
        AlignmentError: a pixel outside ``size``, or a count above what the type holds exactly.
    """
    cupy = _cupy()
    check_inside(events, size)
    width, height = size
    num_windows = len(windows) - 1
    first, last = int(windows[0]), int(windows[-1])
    used = events.slice(first, last)
    edges = cupy.asarray(windows[1:-1] - first)
    window = cupy.searchsorted(edges, cupy.arange(len(used)), side="right")
    place = (window * 2 + (cupy.asarray(used.p) != 0)) * height + cupy.asarray(used.y)
    place = place * width + cupy.asarray(used.x)
    total = num_windows * 2 * height * width
    counts = cupy.bincount(place, minlength=total) if len(used) else cupy.zeros(total, cupy.int64)
    highest = highest_count(np.dtype(dtype))
    if counts.size and int(counts.max()) > highest:
        raise AlignmentError(
            f"A pixel counts more than {highest} events in one window, which "
            f"{np.dtype(dtype).name} cannot hold; use a wider type or shorter windows."
        )
    return counts.reshape(num_windows, 2, height, width).astype(dtype)


def voxel_grid(
    events: Events,
    num_bins: int,
    size: tuple[int, int],
    *,
    span_us: tuple[int, int] | None = None,
) -> DeviceArray:
    """:func:`outspike.events.surfaces.voxel_grid` on the device, ``[T, H, W]`` float32.

    Shares are integers, so the sums are the processor's, whatever the order of the threads.
    """
    cupy = _cupy()
    if num_bins < 1:
        raise ConfigError(f"num_bins={num_bins}: at least one.")
    check_inside(events, size)
    width, height = size
    # One bin more takes the share of events in the last one, which is zero.
    shares = cupy.zeros((num_bins + 1) * height * width, dtype=cupy.uint64)
    if len(events):
        start, stop = span_us or (int(events.t[0]), int(events.t[-1]))
        if int(events.t.min()) < start or int(events.t.max()) > stop:
            raise AlignmentError(
                f"Events from {events.t.min()} to {events.t.max()} us do not lie in the span from "
                f"{start} to {stop} us."
            )
        per_us = shares_per_us(start, stop, num_bins)
        moved = ((cupy.asarray(events.t) - start) * per_us).astype(cupy.int64)
        moved = cupy.minimum(moved, (num_bins - 1) << SHARE_BITS)
        share = moved & ((1 << SHARE_BITS) - 1)
        sign = cupy.where(cupy.asarray(events.p) != 0, 1, -1)
        place = ((moved >> SHARE_BITS) * height + cupy.asarray(events.y)) * width
        place = place + cupy.asarray(events.x)
        # Unsigned sums wrap around like signed ones, and are what the device adds atomically.
        low = (sign * ((1 << SHARE_BITS) - share)).view(cupy.uint64)
        high = (sign * share).view(cupy.uint64)
        cupy.add.at(shares, place, low)
        cupy.add.at(shares, place + height * width, high)
    sums = shares.view(cupy.int64).reshape(num_bins + 1, height, width)[:num_bins]
    return (sums * 2.0**-SHARE_BITS).astype(cupy.float32)


def _cupy() -> Any:
    if not available():
        raise ConfigError(
            "No CUDA device for cupy; install the extra 'gpu' on a machine that has one, or use "
            "the functions of outspike.events.frames and outspike.events.surfaces."
        )
    import cupy

    return cupy
