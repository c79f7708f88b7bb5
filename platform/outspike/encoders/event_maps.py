"""From pictures or camera events to small counts per frame: what ``event-pyramid`` is made of.

Both kinds of source become the same thing, a map of how much the log intensity of each *working
pixel* changed since the frame before: for videos from the grey levels, for event cameras from the
signed events of the sensor pixels under it. From there on nothing knows which it was.

Everything is whole numbers: area sums of bytes or events, and logarithms in units of 2**-16. So a
count depends neither on how the recording was cut into pieces nor on a machine's arithmetic.
"""

from collections import deque
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from outspike.encoders.kernels import (
    active_cells,
    area_sums,
    log_levels,
    moved_cells,
    overlaps,
    signs_from,
)
from outspike.errors import ConfigError

#: A log intensity of 1.
_ONE = 1 << 16
#: Mean grey levels are kept to a 256th before the logarithm, which is read from a table.
_GREY_STEPS = 256
#: No offset above zero that a float holds lets 255 grey levels change the logarithm by as much.
_LARGEST_CHANGE = 1000.0
#: Base cells along one side of a cell of motion, and of a coarse cell.
MOTION_CELLS, COARSE_CELLS = 2, 6
#: Unit steps (down, right); direction ``i + 4`` is opposite to direction ``i``.
DIRECTIONS = ((0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1))


@dataclass(frozen=True, kw_only=True)
class PyramidConfig:
    """Everything that decides a value of ``event-pyramid``, and so part of its fingerprint."""

    rows: int = 12
    cols: int = 18
    """Base cells of the working picture."""
    cell: int = 10
    """Working pixels along one side of a base cell."""
    offset: float = 10.0
    """Added to grey levels (0 to 255) before the logarithm, so that dark noise stays quiet."""
    thresholds: tuple[float, float, float, float] = (0.04, 0.08, 0.16, 0.32)
    """Changes of log intensity that are counted, rising."""
    lags: tuple[int, int, int] = (1, 2, 4)
    """Frames over which the change is taken, rising."""
    event_threshold: float = 0.16
    """Change from one frame to the next that makes an event with a sign, for motion."""
    steps: tuple[int, int, int] = (1, 2, 4)
    """Displacements in working pixels at which the next frame's events are looked for."""
    contrast: float = 0.16
    """Change of log intensity that an event of a camera stands for; nominal settings of real
    sensors lie between 0.1 and 0.3."""
    time_bins: int = 8
    """Equal parts of a snippet between which activity is compared."""

    def __post_init__(self) -> None:
        if min(self.rows, self.cols) < 1 or self.rows % COARSE_CELLS or self.cols % COARSE_CELLS:
            raise ConfigError(
                f"rows={self.rows}, cols={self.cols}: both must be multiples of {COARSE_CELLS}."
            )
        if self.rows * self.cols < 216:
            raise ConfigError(
                f"{self.rows}x{self.cols} cells are too few: the columns name the 48 most active "
                "of them and all six or more coarse ones; take at least 12x18."
            )
        if not 1 <= self.cell <= 15:
            raise ConfigError(f"cell={self.cell}: a cell has 1 to 15 pixels along its side.")
        positive = (self.offset, self.event_threshold, self.contrast, *self.thresholds)
        if min(positive) <= 0 or list(self.thresholds) != sorted(set(self.thresholds)):
            raise ConfigError(
                f"offset={self.offset}, event_threshold={self.event_threshold}, "
                f"contrast={self.contrast}, thresholds={self.thresholds}: all must be positive and "
                "the thresholds rising."
            )
        if max(self.thresholds[-1], self.event_threshold) > _LARGEST_CHANGE:
            raise ConfigError(
                f"thresholds={self.thresholds}, event_threshold={self.event_threshold}: log "
                f"intensity never changes by more than {_LARGEST_CHANGE:g}; lower them."
            )
        whole = (*self.lags, *self.steps)
        if min(whole) < 1 or self.time_bins < 2 or list(self.lags) != sorted(set(self.lags)):
            raise ConfigError(
                f"lags={self.lags}, steps={self.steps}, time_bins={self.time_bins}: lags rise from "
                "1 on, steps are at least 1, time bins at least 2."
            )

    @property
    def height(self) -> int:
        """Of the working picture, in pixels."""
        return self.rows * self.cell

    @property
    def width(self) -> int:
        """Of the working picture, in pixels."""
        return self.cols * self.cell


class AreaSums:
    """Exact area resize of pictures of whole numbers ``[h, w]`` to ``[H, W]``.

    A working pixel gets what lies under it, border pixels in proportion; where the source is the
    smaller one its pixels are spread. Sums are of pixel values times ``weight`` shares.
    """

    def __init__(self, source: tuple[int, int], target: tuple[int, int]) -> None:
        self._down, self._across = overlaps(source[0], target[0]), overlaps(source[1], target[1])
        self._band = np.empty(source[1], dtype=np.int32)
        self._target = target
        #: What a picture of ones sums to, everywhere.
        self.weight = source[0] * source[1]

    def __call__(self, picture: NDArray[np.integer]) -> NDArray[np.int64]:
        """Sums ``[H, W]``; divided by ``weight`` they are means."""
        sums = np.empty(self._target, dtype=np.int64)
        area_sums(picture, self._down, self._across, self._band, sums)
        return sums


class LogIntensity:
    """Log intensity of the working pixels of grey frames ``[h, w]``, in units of 2**-16."""

    def __init__(self, config: PyramidConfig, source: tuple[int, int]) -> None:
        self._sums = AreaSums(source, (config.height, config.width))
        levels = np.arange(255 * _GREY_STEPS + 1) / _GREY_STEPS
        self._table = np.rint(_ONE * np.log(levels + config.offset)).astype(np.int32)

    def __call__(self, grey: NDArray[np.uint8]) -> NDArray[np.int32]:
        """Log intensity ``[H, W]``."""
        sums = self._sums(grey)
        level = np.empty(sums.shape, dtype=np.int32)
        log_levels(sums.reshape(-1), _GREY_STEPS, self._sums.weight, self._table, level.reshape(-1))
        return level


class EventChange:
    """Change of log intensity that camera events stand for, in units of 2**-16."""

    def __init__(self, config: PyramidConfig, source: tuple[int, int]) -> None:
        self._sums = AreaSums(source, (config.height, config.width))
        self._unit = _ONE * config.contrast / self._sums.weight

    def __call__(self, signed: NDArray[np.int32]) -> NDArray[np.int32]:
        """From ON minus OFF events per sensor pixel ``[h, w]`` to ``[H, W]``."""
        change: NDArray[np.int32] = np.rint(self._sums(signed) * self._unit).astype(np.int32)
        return change


@dataclass(frozen=True, eq=False)
class FrameCounts:
    """What a snippet's row needs to know of one frame."""

    active: NDArray[np.uint8]
    """``[L, T, y, x]``: pixels per base cell that changed by at least threshold T over lag L."""
    moved: NDArray[np.uint16]
    """``[S, D, y, x]``: events per cell of motion whose sign is found a step S further in direction
    D one frame later."""


class ChangeCounter:
    """Counts of frame after frame of one recording; remembers the last few changes."""

    def __init__(self, config: PyramidConfig) -> None:
        self._config = config
        size = (config.height, config.width)
        self._recent: deque[NDArray[np.int32]] = deque(maxlen=config.lags[-1])
        self._over_lags = np.empty((len(config.lags), *size), dtype=np.int32)
        self._signs = np.zeros(size, dtype=np.int8)
        self._thresholds = np.array([round(_ONE * v) for v in config.thresholds], dtype=np.int32)
        self._event_threshold = np.int32(round(_ONE * config.event_threshold))
        self._moves = np.array(
            [(s * down, s * right) for s in config.steps for down, right in DIRECTIONS],
            dtype=np.int64,
        )

    def push(self, change: NDArray[np.int32]) -> FrameCounts:
        """Counts of the next frame from its change of log intensity ``[H, W]``."""
        self._recent.appendleft(change)
        signs = np.empty_like(self._signs)
        signs_from(change.reshape(-1), self._event_threshold, signs.reshape(-1))
        counts = FrameCounts(self._active(), self._moved(self._signs, signs))
        self._signs = signs
        return counts

    def _active(self) -> NDArray[np.uint8]:
        rows, cols, cell = self._config.rows, self._config.cols, self._config.cell
        done = 0
        for i, lag in enumerate(self._config.lags):  # of each what the shorter ones lack
            np.copyto(self._over_lags[i], self._over_lags[i - 1] if i else 0)
            for change in islice(self._recent, done, lag):
                self._over_lags[i] += change
            done = lag
        active = np.empty(
            (len(self._over_lags), len(self._thresholds), rows, cols), dtype=np.uint8
        )  # a cell has at most 225 pixels
        active_cells(self._over_lags, self._thresholds, cell, active)
        return active

    def _moved(self, before: NDArray[np.int8], now: NDArray[np.int8]) -> NDArray[np.uint16]:
        height, width = now.shape
        side = MOTION_CELLS * self._config.cell
        cells = (height // side, width // side)
        moved = np.empty((len(self._moves), *cells), dtype=np.uint16)
        moved_cells(before, now, self._moves, side, moved)
        return moved.reshape(-1, len(DIRECTIONS), *cells)
