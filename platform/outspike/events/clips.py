"""Frames and clips of a recording of any length, one at a time, on the grid of the time base."""

from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from outspike.errors import AlignmentError, ConfigError
from outspike.events.columns import Events
from outspike.events.frames import Counts, add_counts, check_inside
from outspike.events.reader import EventReader
from outspike.events.resize import ResizedCounts

#: A frame of UCF-Crime-DVS, whose clock runs at 1,000,000 / 33,333 frames a second.
FRAME_US = 33_333


class Canvas(Protocol):
    """What counts the events of one window."""

    def add(self, events: Events) -> None:
        """Count events."""

    def take(self) -> NDArray[Any]:
        """The picture ``[2, H, W]`` of what was counted since the last time."""


class FullCounts:
    """Counts at the size of the sensor.

    Args:
        size: width and height.
        dtype: see :func:`~outspike.events.frames.count_frames`.
    """

    def __init__(self, size: tuple[int, int], dtype: DTypeLike = np.uint16) -> None:
        self._size = size
        self._frame: Counts = np.zeros((2, size[1], size[0]), dtype=dtype)

    def add(self, events: Events) -> None:
        """Count events; an AlignmentError where one lies outside or the type cannot hold it."""
        check_inside(events, self._size)
        add_counts(events, self._frame)

    def take(self) -> Counts:
        """The counts since the last time."""
        frame, self._frame = self._frame, np.zeros_like(self._frame)
        return frame


def grid_frames(
    chunks: Iterable[Events],
    canvas: Canvas,
    *,
    duration_us: int,
    anchor_us: int | None = None,
    num_windows: int | None = None,
) -> Iterator[NDArray[Any]]:
    """One picture ``[2, H, W]`` for every window of the grid, empty ones too.

    Args:
        chunks: consecutive events. A time that steps back (readout jitter) counts as the latest
            before it, because the window before may be gone.
        canvas: what counts them.
        duration_us: of a window.
        anchor_us: start of the recording; by default its first event.
        num_windows: how many there are; by default up to the last event.

    Raises:
        AlignmentError: an event before the start or after the last window.
    """
    if duration_us < 1:
        raise ConfigError(f"duration_us={duration_us}: expected at least one microsecond.")
    window, latest_us, begun = 0, anchor_us, False
    for chunk in chunks:
        if not len(chunk):
            continue
        if anchor_us is None:
            anchor_us = latest_us = int(chunk.t[0])
        assert latest_us is not None  # it is set together with the anchor
        if int(chunk.t[0]) < anchor_us and not begun:
            raise AlignmentError(
                f"An event at {chunk.t[0]} us lies before the start {anchor_us} us."
            )
        t_us = chunk.t
        if int(t_us[0]) < latest_us or (t_us[1:] < t_us[:-1]).any():
            t_us = np.maximum(np.maximum.accumulate(t_us), latest_us)
        latest_us, begun = int(t_us[-1]), True
        last = (latest_us - anchor_us) // duration_us
        if num_windows is not None and last >= num_windows:
            raise AlignmentError(
                f"Events reach window {last + 1}, the recording has {num_windows}."
            )
        start = 0
        while start < len(chunk):
            limit = anchor_us + (window + 1) * duration_us
            stop = len(chunk) if window == last else int(np.searchsorted(t_us, limit))
            canvas.add(chunk.slice(start, stop))
            if window < last:
                yield canvas.take()
                window += 1
            start = stop
        while window < last:
            yield canvas.take()
            window += 1
    total = num_windows if num_windows is not None else window + begun
    for _ in range(window, total):
        yield canvas.take()


def read_clips(
    reader: EventReader,
    resized: tuple[int, int] = (224, 224),
    *,
    num_frames: int = 16,
    frame_us: int = FRAME_US,
    chunk_events: int = 1 << 18,
) -> Iterator[NDArray[np.float32]]:
    """Clips of a recording at the size of an encoder, ``[F, 2, H, W]``; the last may be shorter.

    Args:
        reader: an open recording.
        resized: width and height of the frames.
        num_frames: frames of a clip.
        frame_us: duration of a frame.
        chunk_events: how many events to read at a time.

    Raises:
        ConfigError: nobody knows the size of the sensor.
    """
    width, height = reader.info.width, reader.info.height
    if width is None or height is None:
        raise ConfigError(f"{reader.url}: the sensor's size is not told; give it as WxH.")
    frames = grid_frames(
        reader.chunks(chunk_events),
        ResizedCounts((width, height), resized),
        duration_us=frame_us,
        anchor_us=reader.info.anchor_us,
        num_windows=_num_windows(reader, frame_us),
    )
    clip: list[NDArray[np.float32]] = []
    for frame in frames:
        clip.append(frame.astype(np.float32))
        if len(clip) == num_frames:
            yield np.stack(clip)
            clip = []
    if clip:
        yield np.stack(clip)


def _num_windows(reader: EventReader, duration_us: int) -> int | None:
    """Windows that the recording's own length tells, if it tells one."""
    if reader.info.duration_us is None or reader.info.anchor_us is None:
        return None
    return -(-reader.info.duration_us // duration_us)
