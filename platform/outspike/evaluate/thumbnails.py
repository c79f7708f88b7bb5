"""Single frames of recordings for the report, decoded once per recording as they are asked for."""

import logging
from collections.abc import Callable, Generator, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Self

import numpy as np
from numpy.typing import NDArray

from outspike.errors import MediaError, UrlError
from outspike.events.columns import Events
from outspike.events.reader import open_events
from outspike.recording import Recording
from outspike.scoring.encode import event_source
from outspike.video.isolate import IsolatedVideo

logger = logging.getLogger(__name__)

Picture = NDArray[np.uint8]
Draw = Callable[[], Picture]
Pictures = Generator[tuple[int, Draw], None, None]

_CHUNK_FRAMES = 32
#: Frames of events gathered in one picture; a single one is often next to empty.
_EVENT_FRAMES = 4
_GROUND = np.array([246, 247, 249], dtype=np.uint8)
_ON = np.array([36, 87, 214], dtype=np.uint8)
_OFF = np.array([217, 72, 31], dtype=np.uint8)


class FrameReader:
    """Frames by ``(video_id, frame)``; one pass serves rising frames of one recording.

    Event recordings give a picture of the events from that frame on: ON blue, OFF red. Use as a
    context manager, or :meth:`close` it: an open video holds a decoding child process.

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
        self._pictures: Pictures | None = None
        self._position = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the recording that is open."""
        if self._pictures is not None:
            self._pictures.close()
        self._pictures, self._video_id = None, None

    def __call__(self, video_id: str, frame: int) -> Picture:
        """The frame, ``[H, W, 3]`` RGB.

        Raises:
            MediaError: the recording is unknown, cannot be read, or ends before that frame.
        """
        if self._pictures is None or video_id != self._video_id or frame <= self._position:
            self.close()
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

    def _open(self, video_id: str) -> Pictures:
        recording = self._recordings.get(video_id)
        if recording is None:
            raise MediaError(f"{video_id}: no recording of that id.", reason="unknown")
        if recording.modality == "events":
            return _event_pictures(recording)
        return self._video_pictures(recording)

    def _video_pictures(self, recording: Recording) -> Pictures:
        with IsolatedVideo(
            recording.url, timeout_s=self._timeout_s, memory_mb=self._memory_mb
        ) as video:
            for chunk in video.chunks(_CHUNK_FRAMES):
                for offset, picture in enumerate(chunk.frames):
                    yield chunk.start + offset, partial(np.asarray, picture)


def _event_pictures(recording: Recording) -> Pictures:
    """A picture for each frame, of the events of that frame and the few after it."""
    reader = open_events(recording.url, size=recording.size)
    chunks = (chunk for chunk in reader.chunks() if len(chunk))
    first = next(chunks, None)
    if first is None:
        return
    source = event_source(recording, reader.info, first)
    clock, size = source.event_clock, (source.height, source.width)
    waiting: list[tuple[NDArray[np.int64], Events]] = []
    next_frame = 0
    for chunk in chain([first], chunks):
        frames = clock.frame_of(chunk.t)
        waiting.append((frames, chunk))
        while next_frame + _EVENT_FRAMES <= int(frames[-1]):
            yield next_frame, partial(_picture, tuple(waiting), next_frame, size)
            next_frame += 1
            waiting = [(f, events) for f, events in waiting if f[-1] >= next_frame]
    last = int(waiting[-1][0][-1])
    if reader.info.duration_us is not None:  # the recording may end in silence
        end_us = clock.anchor_us + max(reader.info.duration_us, 1) - 1
        last = max(last, int(clock.frame_of(np.array([end_us]))[0]))
    for frame in range(next_frame, last + 1):
        yield frame, partial(_picture, tuple(waiting), frame, size)


def _picture(
    waiting: Sequence[tuple[NDArray[np.int64], Events]], frame: int, size: tuple[int, int]
) -> Picture:
    picture = np.broadcast_to(_GROUND, (*size, 3)).copy()
    for frames, events in waiting:
        first, last = np.searchsorted(frames, [frame, frame + _EVENT_FRAMES])
        shown = slice(int(first), int(last))
        x, y, on = events.x[shown], events.y[shown], events.p[shown] > 0
        picture[y, x] = np.where(on[:, None], _ON, _OFF)
    return picture
