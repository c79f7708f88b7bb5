"""Counts of events from frames: log-intensity thresholds, and those of ``ief_vad.md`` section 2.4.

:mod:`~outspike.events.camera` simulates single events with times, and a sensor's imperfections.
"""

from typing import Literal

import numba
import numpy as np
from numpy.typing import NDArray

from outspike.errors import ConfigError
from outspike.events.columns import Events

#: ITU-R BT.601 luma weights, as both source systems round them.
LUMA = (0.2989, 0.5870, 0.1140)


def grey(frames: NDArray[np.uint8] | NDArray[np.float32]) -> NDArray[np.float32]:
    """Luma of RGB frames, ``[..., H, W, 3] -> [..., H, W]`` in 0..255, float32."""
    wide = frames.astype(np.float32)
    red, green, blue = (np.float32(weight) for weight in LUMA)
    luma: NDArray[np.float32] = wide[..., 0] * red + wide[..., 1] * green + wide[..., 2] * blue
    return luma


class LogEventSimulator:
    """Polarity counts per pixel from consecutive frames, in any chunking.

    Each pixel remembers the log intensity at its last event. A frame whose log intensity has moved
    by ``n`` whole thresholds since gives ``n`` events of that sign, and the memory moves by as
    much; the rest waits, so that slow changes are not lost. The first frame only sets the memory.

    ``log(grey / 255 + offset)``: the offset keeps sensor noise in the dark from counting as motion.
    """

    def __init__(self, *, threshold: float = 0.2, offset: float = 0.1) -> None:
        if threshold <= 0 or offset <= 0:
            raise ConfigError(f"threshold={threshold}, offset={offset}: both must be positive.")
        self._threshold = np.float32(threshold)
        self._offset = np.float32(offset)
        self._memory: NDArray[np.float32] | None = None

    def push(self, grey_FHW: NDArray[np.float32]) -> NDArray[np.uint16]:
        """Counts ``[F, P, H, W]`` (OFF, then ON) of the next frames ``[F, H, W]`` in 0..255."""
        num_frames, height, width = grey_FHW.shape
        counts = np.zeros((num_frames, 2, height, width), dtype=np.uint16)
        levels = np.log(grey_FHW * np.float32(1 / 255) + self._offset)
        for index, level in enumerate(levels):
            if self._memory is None:
                self._memory = level.copy()
                continue
            steps = np.trunc((level - self._memory) / self._threshold)
            self._memory += steps * self._threshold
            np.maximum(-steps, 0, out=counts[index, 0], casting="unsafe")
            np.maximum(steps, 0, out=counts[index, 1], casting="unsafe")
        return counts


def spread_counts(
    counts_PHW: NDArray[np.uint16], start_us: int, stop_us: int, rng: np.random.Generator
) -> Events:
    """Draw times in ``[start_us, stop_us)`` for the counted events of one frame; sorted by time."""
    flat = np.repeat(np.arange(counts_PHW.size), counts_PHW.reshape(-1))
    polarity, row, column = np.unravel_index(flat, counts_PHW.shape)
    times = np.sort(rng.integers(start_us, stop_us, size=len(flat)))
    order = rng.permutation(len(flat))
    return Events(
        times,
        column[order].astype(np.uint16),
        row[order].astype(np.uint16),
        polarity[order].astype(np.uint8),
    )


def ief_threshold_counts(
    frames_STHWC: NDArray[np.uint8], threshold: float = 10.0
) -> NDArray[np.float32]:
    """How often a pixel's luma moves by more than ``threshold`` inside each snippet.

    Args:
        frames_STHWC: RGB frames ``[S, T, H, W, 3]``; borders between snippets do not count.
        threshold: in grey levels, strict; 10 in all published lists (``ief_vad.md`` section 2.4).

    Returns:
        ``[S, H, W]`` float32.
    """
    num_snippets, _, height, width, _ = frames_STHWC.shape
    counts = np.zeros((num_snippets, height, width), dtype=np.float32)
    for frames, count in zip(np.ascontiguousarray(frames_STHWC), counts, strict=True):
        _count_moves(frames, np.float32(threshold), count)
    return counts


class IefThresholdCounter:
    """:func:`ief_threshold_counts` of a video that comes in pieces; one frame is kept.

    Args:
        num_frames: frames of a snippet.
        threshold: in grey levels, strict.
    """

    def __init__(self, num_frames: int = 16, threshold: float = 10.0) -> None:
        if num_frames < 1:
            raise ConfigError(f"num_frames={num_frames}: a snippet has at least one frame.")
        self._num_frames = num_frames
        self._threshold = np.float32(threshold)
        self._before: NDArray[np.uint8] | None = None
        self._counts: NDArray[np.float32] | None = None
        self.num_pending = 0

    def push(self, frames_FHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Counts ``[S, H, W]`` of the snippets that these RGB frames complete."""
        done = []
        start = 0
        while start < len(frames_FHWC):
            take = min(self._num_frames - self.num_pending, len(frames_FHWC) - start)
            self._add(np.ascontiguousarray(frames_FHWC[start : start + take]))
            start += take
            if self.num_pending == self._num_frames:
                done.append(self.take_pending())
        if not done:
            return np.zeros((0, *frames_FHWC.shape[1:3]), dtype=np.float32)
        return np.stack(done)

    def take_pending(self) -> NDArray[np.float32]:
        """Counts ``[H, W]`` of the ``num_pending`` frames of the short snippet at the end.

        Raises:
            ConfigError: there are none.
        """
        if self._counts is None:
            raise ConfigError("No frame is pending; the last snippet was whole.")
        counts, self._counts, self._before, self.num_pending = self._counts, None, None, 0
        return counts

    def _add(self, frames: NDArray[np.uint8]) -> None:
        if self._counts is None or self._before is None:
            self._counts = np.zeros(frames.shape[1:3], dtype=np.float32)
            joined = frames
        else:
            joined = np.concatenate([self._before, frames])
        _count_moves(joined, self._threshold, self._counts)
        self._before = frames[-1:].copy()
        self.num_pending += len(frames)


@numba.njit(cache=True, nogil=True)
def _count_moves(
    frames: NDArray[np.uint8], threshold: np.float32, counts: NDArray[np.float32]
) -> None:
    """Row by row, so that two rows of luma stay in the first cache; the same float32 operations in
    the same order as :func:`grey` and a difference would do, hence the same counts."""
    num_frames, height, width, _ = frames.shape
    red, green, blue = np.float32(LUMA[0]), np.float32(LUMA[1]), np.float32(LUMA[2])
    before, now = np.empty(width, np.float32), np.empty(width, np.float32)
    for row in range(height):
        for frame in range(num_frames):
            colours = frames[frame, row].reshape(-1)
            for col in range(width):
                now[col] = (
                    np.float32(colours[3 * col]) * red + np.float32(colours[3 * col + 1]) * green
                ) + np.float32(colours[3 * col + 2]) * blue
            if frame > 0:
                for col in range(width):
                    step = now[col] - before[col]
                    moved = step > threshold or step < -threshold
                    counts[row, col] += np.float32(1) if moved else np.float32(0)
            before, now = now, before


def ief_event_images(
    counts_SHW: NDArray[np.float32], *, tail: bool, static: Literal["zeros", "nan"] = "zeros"
) -> NDArray[np.float32]:
    """Counts of one buffer of snippets as images in [0, 1], scaled by the buffer's own maximum.

    Args:
        counts_SHW: ``[S, H, W]`` of all snippets of the buffer.
        tail: whether this is the short buffer at the end, which the reference divides by 255 first.
        static: what a buffer without any motion gives: zeros (the xd variant, and ours) or NaN.

    Returns:
        ``[S, 3, H, W]`` float32, three equal channels.
    """
    scaled = counts_SHW / np.float32(255) if tail else counts_SHW
    scaled = np.clip(scaled, np.float32(0), np.float32(16))
    largest = scaled.max(initial=np.float32(0))
    if largest > 0:
        scaled = scaled / largest
    elif static == "nan":
        scaled = np.full_like(scaled, np.nan)
    return np.repeat(scaled[:, None], 3, axis=1)
