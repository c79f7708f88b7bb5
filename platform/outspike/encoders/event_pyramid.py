"""``event-pyramid``: what changes in the picture, how fast, how strongly and how orderly.

Needs no weights. A video's events are simulated from changes of log intensity; an event recording
brings its own, and both are counted on one working picture (:mod:`outspike.encoders.event_maps`),
so a model trained on one kind of source can read the other. Rows are position-free
(:mod:`outspike.encoders.event_columns`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from outspike.encoders.base import Encoder, EncoderStream, Piece, Rows, SourceInfo, WindowedStream
from outspike.encoders.event_columns import columns, num_columns
from outspike.encoders.event_input import by_frame
from outspike.encoders.event_maps import (
    ChangeCounter,
    EventChange,
    FrameCounts,
    LogIntensity,
    PyramidConfig,
)
from outspike.encoders.frames import working_grey
from outspike.encoders.kernels import add_signs
from outspike.events.columns import Events
from outspike.recording import Modality
from outspike.timebase import SnippetGrid
from outspike.video.decode import FrameChunk

_REVISION = 2
_GREY = "(77 R + 150 G + 29 B + 128) >> 8, then exact area means in 1/256"


class EventPyramid(Encoder):
    """Rows ``[1, 184]`` in five blocks, each explained where it is computed.

    ========  ==============================================================================
    columns   block
    ========  ==============================================================================
    0-43      :func:`~outspike.encoders.event_columns.unsteadiness` of places
    44-97     :func:`~outspike.encoders.event_columns.motion`: coherence, flicker, back and forth
    98-139    :func:`~outspike.encoders.event_columns.local_ratios`: contrast and speed
    140-163   :func:`~outspike.encoders.event_columns.layout` of weak, then of stronger changes
    164-180   :func:`~outspike.encoders.event_columns.global_ratios`
    181-183   zeros
    ========  ==============================================================================

    The first frame of a video has no predecessor and counts as one without change.
    """

    name = "event-pyramid"
    num_crops = 1
    modalities: frozenset[Modality] = frozenset({"video", "events"})

    def __init__(
        self, *, grid: SnippetGrid | None = None, config: PyramidConfig | None = None
    ) -> None:
        self.grid = grid if grid is not None else SnippetGrid()
        self.config = config if config is not None else PyramidConfig()
        self.width = num_columns(self.config)

    def document(self) -> dict[str, Any]:
        """Settings and revision."""
        return {"revision": _REVISION, "pyramid": asdict(self.config), "grey": _GREY}

    def open(self, source: SourceInfo) -> EncoderStream:
        """Begin a recording, with the stream its modality needs."""
        if source.modality == "video":
            return _VideoStream(self)
        return _EventStream(self, source)


class _CountStream(WindowedStream[FrameCounts]):
    """Rows from the counts of a snippet's frames."""

    def __init__(self, encoder: EventPyramid) -> None:
        super().__init__(encoder)
        self._config = encoder.config
        self._counter = ChangeCounter(encoder.config)

    def row(self, items: Sequence[FrameCounts]) -> Rows:
        """The columns of one snippet ``[1, D]``."""
        return columns(items, self._config).astype(np.float32)[None]


class _VideoStream(_CountStream):
    """Simulated events; remembers the last frame across pieces and snippets."""

    def __init__(self, encoder: EventPyramid) -> None:
        super().__init__(encoder)
        self._log_intensity: LogIntensity | None = None
        self._previous: NDArray[np.int32] | None = None

    def items(self, piece: Piece) -> Iterator[FrameCounts]:
        """Counts of every frame."""
        assert isinstance(piece, FrameChunk)
        height, width = piece.frames.shape[1:3]
        if self._log_intensity is None:
            self._log_intensity = LogIntensity(self._config, (height, width))
        for frame in working_grey(piece, height, width):
            level = self._log_intensity(frame)
            yield self._counter.push(level - (level if self._previous is None else self._previous))
            self._previous = level


class _EventStream(_CountStream):
    """Events of a camera, summed with their sign per frame of the annotation clock."""

    def __init__(self, encoder: EventPyramid, source: SourceInfo) -> None:
        super().__init__(encoder)
        self._source = source
        self._change = EventChange(self._config, (source.height, source.width))
        self._frame = 0
        self._open = np.zeros((source.height, source.width), dtype=np.int32)

    def items(self, piece: Piece) -> Iterator[FrameCounts]:
        """Counts of every frame that ended before the last event of this piece."""
        assert isinstance(piece, Events)
        for frame, events in by_frame(piece, self._source, self._frame):
            yield from self._advance(frame)
            add_signs(events.x, events.y, events.p, self._open)

    def last_items(self, num_frames: int) -> Iterator[FrameCounts]:
        """Counts of the frames from the last event's on."""
        if self._frame < num_frames:
            yield from self._advance(num_frames)

    def _advance(self, frame: int) -> Iterator[FrameCounts]:
        while self._frame < frame:
            yield self._counter.push(self._change(self._open))
            self._open[:] = 0
            self._frame += 1
