"""Single frames of recordings for the report, decoded once per recording as they are asked for."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from outspike.errors import MediaError, UrlError
from outspike.events.columns import Events
from outspike.events.reader import open_events
from outspike.recording import Recording
from outspike.timebase import DVS_FPS, EventClock
from outspike.video.isolate import decode_isolated

logger = logging.getLogger(__name__)

Picture = NDArray[np.uint8]
Draw = Callable[[], Picture]

_CHUNK_FRAMES = 32
#: Frames of events gathered in one picture; a single one is often next to empty.
_EVENT_FRAMES = 4
_GROUND = np.array([246, 247, 249], dtype=np.uint8)
_ON = np.array([36, 87, 214], dtype=np.uint8)
_OFF = np.array([217, 72, 31], dtype=np.uint8)


class FrameReader:
    """Frames by ``(video_id, frame)``; one pass serves rising frames of one recording.

    Event recordings give a picture of the events from that frame on: ON blue, OFF red.

    Args:
        recordings: By ``video_id``.
        timeout_s, memory_mb: Limits of the decoding child process.
    """

    def __init__(
        self,
        recordings: Mapping[str, Recording],
        *,
        timeout_s: float = 600.0,
        memory_mb: int = 4096,
    ) -> None:
        self._recordings = recordings
        self._timeout_s = timeout_s
        self._memory_mb = memory_mb
        self._video_id: str | None = None
        self._pictures: Iterator[tuple[int, Draw]] = iter(())
        self._position = -1

    def __call__(self, video_id: str, frame: int) -> Picture:
        """The frame, ``[H, W, 3]`` RGB.

        Raises:
            MediaError: the recording is unknown, cannot be read, or ends before that frame.
        """
        if video_id != self._video_id or frame <= self._position:
            self._pictures = self._open(video_id)
            self._video_id, self._position = video_id, -1
        try:
            for index, draw in self._pictures:
                self._position = index
                if index == frame:
                    return draw()
        except UrlError as error:
            raise MediaError(str(error), reason="missing") from error
        raise MediaError(
            f"{video_id}: frame {frame} was asked for, the recording ends at {self._position}.",
            reason="too_short",
        )

    def _open(self, video_id: str) -> Iterator[tuple[int, Draw]]:
        recording = self._recordings.get(video_id)
        if recording is None:
            raise MediaError(f"{video_id}: no recording of that id.", reason="unknown")
        if recording.modality == "events":
            return _event_pictures(recording)
        return self._video_pictures(recording)

    def _video_pictures(self, recording: Recording) -> Iterator[tuple[int, Draw]]:
        chunks = decode_isolated(
            recording.url,
            chunk_frames=_CHUNK_FRAMES,
            timeout_s=self._timeout_s,
            memory_mb=self._memory_mb,
        )
        for chunk in chunks:
            for offset, picture in enumerate(chunk.frames):
                yield chunk.start + offset, partial(np.asarray, picture)


def _event_pictures(recording: Recording) -> Iterator[tuple[int, Draw]]:
    """A picture for each frame, of the events of that frame and the few after it."""
    reader = open_events(recording.url, size=recording.size)
    width, height = reader.info.width, reader.info.height
    if width is None or height is None:
        raise MediaError(f"{recording.url}: the sensor size is not known.", reason="unknown_size")
    clock: EventClock | None = None
    waiting: list[tuple[NDArray[np.int64], Events]] = []
    next_frame = 0
    for chunk in reader.chunks():
        if not len(chunk):
            continue
        if clock is None:
            first_us = int(chunk.t[0])
            anchor_us = first_us if reader.info.anchor_us is None else reader.info.anchor_us
            clock = EventClock(fps=recording.fps or DVS_FPS, anchor_us=anchor_us)
        frames = clock.frame_of(chunk.t)
        waiting.append((frames, chunk))
        while next_frame + _EVENT_FRAMES <= int(frames[-1]):
            yield next_frame, partial(_picture, tuple(waiting), next_frame, width, height)
            next_frame += 1
            waiting = [(f, events) for f, events in waiting if f[-1] >= next_frame]
    if clock is None:
        return
    last = int(waiting[-1][0][-1])
    if reader.info.duration_us is not None:  # the recording may end in silence
        end_us = clock.anchor_us + max(reader.info.duration_us, 1) - 1
        last = max(last, int(clock.frame_of(np.array([end_us]))[0]))
    for frame in range(next_frame, last + 1):
        yield frame, partial(_picture, tuple(waiting), frame, width, height)


def _picture(
    waiting: Sequence[tuple[NDArray[np.int64], Events]], frame: int, width: int, height: int
) -> Picture:
    picture = np.broadcast_to(_GROUND, (height, width, 3)).copy()
    for frames, events in waiting:
        first, last = np.searchsorted(frames, [frame, frame + _EVENT_FRAMES])
        shown = slice(int(first), int(last))
        x, y, on = events.x[shown], events.y[shown], events.p[shown] > 0
        picture[y, x] = np.where(on[:, None], _ON, _OFF)
    return picture
