"""Events as signed voxel grids and as time surfaces."""

import numba
import numpy as np
from numpy.typing import NDArray

from outspike.errors import AlignmentError, ConfigError
from outspike.events.columns import Events
from outspike.events.frames import check_inside

#: Shares of an event are whole numbers of 1 / 2^16, so that sums do not depend on the order of
#: events, on how a recording was cut, or on the device. They are off by less than that an event.
SHARE_BITS = 16

_NEVER = np.iinfo(np.int64).min


def voxel_grid(
    events: Events,
    num_bins: int,
    size: tuple[int, int],
    *,
    span_us: tuple[int, int] | None = None,
) -> NDArray[np.float32]:
    """Signed events spread over the two nearest of ``num_bins`` time bins, ``[T, H, W]``.

    Bilinear in time, as in Zhu et al. (CVPR 2019): an event of sign ``s`` at ``t*`` in
    ``[0, T - 1]`` adds ``s * max(0, 1 - |t* - bin|)``.

    Args:
        events: of the span.
        num_bins: ``T``.
        size: width and height.
        span_us: times of the first and the last bin; by default of the first and the last event.

    Raises:
        AlignmentError: an event outside the sensor or outside the span.
    """
    shares = np.zeros((num_bins, size[1], size[0]), dtype=np.int64)
    add_voxels(events, shares, span_us=span_us)
    grid: NDArray[np.float32] = (shares * 2.0**-SHARE_BITS).astype(np.float32)
    return grid


def add_voxels(
    events: Events, shares: NDArray[np.int64], *, span_us: tuple[int, int] | None = None
) -> None:
    """Add events to the sums ``[T, H, W]``, in units of ``2 ** -SHARE_BITS``."""
    num_bins, height, width = shares.shape
    if num_bins < 1:
        raise ConfigError(f"num_bins={num_bins}: at least one.")
    check_inside(events, (width, height))
    if not len(events):
        return
    start, stop = span_us or (int(events.t[0]), int(events.t[-1]))
    if int(events.t.min()) < start or int(events.t.max()) > stop:
        raise AlignmentError(
            f"Events from {events.t.min()} to {events.t.max()} us do not lie in the span from "
            f"{start} to {stop} us."
        )
    _splat(
        events.t, events.x, events.y, events.p, start, shares_per_us(start, stop, num_bins), shares
    )


def shares_per_us(start_us: int, stop_us: int, num_bins: int) -> float:
    """How far an event moves along the bins in a microsecond, in units of a share."""
    return ((num_bins - 1) << SHARE_BITS) / max(1, stop_us - start_us)


class TimeSurface:
    """How long ago each pixel last saw an event, as ``exp(-age / decay)`` (Lagorce et al., 2017).

    Args:
        size: width and height.
        decay_us: age at which the surface has fallen to 1/e.
    """

    def __init__(self, size: tuple[int, int], *, decay_us: int) -> None:
        if decay_us <= 0:
            raise ConfigError(f"decay_us={decay_us}: expected a positive time.")
        self._size = size
        self._decay_us = decay_us
        self._last_us = np.full((2, size[1], size[0]), _NEVER, dtype=np.int64)

    def push(self, events: Events) -> None:
        """Take the next events."""
        check_inside(events, self._size)
        _remember(events.t, events.x, events.y, events.p, self._last_us)

    def at(self, t_us: int) -> NDArray[np.float32]:
        """The surface ``[P, H, W]`` at a time not before the last event; 0 where nothing was.

        Raises:
            AlignmentError: an event pushed before is later than ``t_us``.
        """
        seen = self._last_us != _NEVER
        latest = int(self._last_us.max(initial=_NEVER))
        if latest > t_us:
            raise AlignmentError(f"The surface at {t_us} us was asked for after {latest} us.")
        surface = np.zeros(self._last_us.shape, dtype=np.float32)
        surface[seen] = np.exp((self._last_us[seen] - t_us) / self._decay_us)
        return surface


@numba.njit(cache=True, nogil=True)
def _remember(
    t: NDArray[np.int64],
    x: NDArray[np.uint16],
    y: NDArray[np.uint16],
    p: NDArray[np.uint8],
    last_us: NDArray[np.int64],
) -> None:
    for i in range(len(t)):
        channel = np.uint8(p[i] != 0)
        last_us[channel, y[i], x[i]] = max(last_us[channel, y[i], x[i]], t[i])


@numba.njit(cache=True, nogil=True)
def _splat(
    t: NDArray[np.int64],
    x: NDArray[np.uint16],
    y: NDArray[np.uint16],
    p: NDArray[np.uint8],
    start_us: int,
    per_us: float,
    shares: NDArray[np.int64],
) -> None:
    """The last bin has no neighbour, and an event in it no share for one."""
    num_bins, height, width = shares.shape
    flat = shares.reshape(-1)
    wide, plane = np.uintp(width), np.uintp(height * width)
    whole = 1 << SHARE_BITS
    furthest = (num_bins - 1) << SHARE_BITS
    for i in range(len(t)):
        moved = min(int((t[i] - start_us) * per_us), furthest)
        share = moved & (whole - 1)
        sign = 1 if p[i] else -1
        place = np.uintp(moved >> SHARE_BITS) * plane + np.uintp(y[i]) * wide + np.uintp(x[i])
        flat[place] += sign * (whole - share)
        if share:
            flat[place + plane] += sign * share
