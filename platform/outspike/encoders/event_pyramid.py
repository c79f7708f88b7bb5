"""``event-pyramid``: how many ON and OFF events fell into each cell of a pyramid, log-scaled.

Needs no weights. A video's events are simulated: a pixel whose log intensity changes by
``threshold`` or more from one frame to the next gives an event of that sign, for every multiple
of the threshold up to ``max_events``. An event recording brings its own, and both are counted on
one working picture, so a model trained on one kind of source can read the other.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from outspike.encoders.base import Encoder, EncoderStream, Piece, Rows, SourceInfo, WindowedStream
from outspike.encoders.event_input import frames_in_order
from outspike.encoders.frames import GREY, working_grey
from outspike.encoders.pyramid import CellGrid, PyramidLevel, bin_sums, largest
from outspike.errors import ConfigError
from outspike.events.columns import Events
from outspike.recording import Modality
from outspike.timebase import SnippetGrid
from outspike.video.decode import FrameChunk

_REVISION = 1
#: OFF events are summed together with ON events, this many times as heavy: one pass for both.
_OFF = 1 << 26


@dataclass(frozen=True, kw_only=True)
class PyramidConfig:
    """Everything that decides a value of ``event-pyramid``, and so part of its fingerprint."""

    height: int = 240
    width: int = 360
    """Working picture: frames are resized and sensor pixels mapped to it."""
    levels: tuple[PyramidLevel, ...] = (
        PyramidLevel(rows=12, cols=18, top=8),
        PyramidLevel(rows=6, cols=9, top=6),
        PyramidLevel(rows=2, cols=3, top=3),
    )
    threshold: float = 0.2
    """Change of log intensity that makes an event."""
    offset: float = 10.0
    """Added to grey levels (0 to 255) before the logarithm, so that dark noise stays quiet."""
    max_events: int = 1
    """At most this many events per pixel and frame."""

    def __post_init__(self) -> None:
        if self.threshold <= 0 or self.offset <= 0 or not 1 <= self.max_events <= 127:
            raise ConfigError(
                f"threshold={self.threshold}, offset={self.offset}, max_events={self.max_events}: "
                "the first two must be positive, the third in [1, 127]."
            )
        if self.height * self.width * self.max_events >= _OFF:
            raise ConfigError(
                f"{self.width}x{self.height} pixels of up to {self.max_events} events are too many "
                f"to count; keep the product below {_OFF}."
            )
        if not self.levels:
            raise ConfigError("An event pyramid needs at least one level.")


class EventPyramid(Encoder):
    """Rows ``[1, D]``: per level the OFF then the ON counts of its cells, then its largest cells.

    A count is brought to a full snippet (a short last row and a first frame, which has no
    predecessor, do not look quieter than they are) and, for event recordings, to the working
    picture's number of pixels; then ``log(1 + count)``.
    """

    name = "event-pyramid"
    num_crops = 1
    modalities: frozenset[Modality] = frozenset({"video", "events"})

    def __init__(
        self, *, grid: SnippetGrid | None = None, config: PyramidConfig | None = None
    ) -> None:
        self.grid = grid if grid is not None else SnippetGrid()
        self.config = config if config is not None else PyramidConfig()
        self.width = sum(
            2 * level.bins * level.rows * level.cols + level.top for level in self.config.levels
        )

    def document(self) -> dict[str, Any]:
        """Settings and revision."""
        return {"revision": _REVISION, "pyramid": asdict(self.config), "grey": GREY}

    def open(self, source: SourceInfo) -> EncoderStream:
        """Begin a recording, with the stream its modality needs."""
        if source.modality == "video":
            return _VideoStream(self)
        return _EventStream(self, source)


Counts = NDArray[np.int64]


class _CountStream(WindowedStream[Counts | None]):
    """Rows from per-frame counts ``[P, by, bx]``; None is a frame that cannot have events."""

    def __init__(self, encoder: EventPyramid) -> None:
        super().__init__(encoder)
        self._config = encoder.config
        self._snippet_frames = encoder.grid.snippet_frames
        self._cells = CellGrid(encoder.config.levels, encoder.config.height, encoder.config.width)
        self._silent = np.zeros((2, *self._cells.shape), dtype=np.int64)
        self._area_ratio = 1.0

    def row(self, items: Sequence[Counts | None]) -> Rows:
        """Log-scaled counts of one snippet ``[1, D]``, brought to a full snippet."""
        counted = sum(item is not None for item in items)
        scale = self._area_ratio * self._snippet_frames / counted if counted else 0.0
        stacked_FPyx = np.stack([self._silent if item is None else item for item in items])
        parts: list[NDArray[np.floating]] = []
        for i, level in enumerate(self._config.levels):
            binned_tPyx = bin_sums(stacked_FPyx, level.bins, self._snippet_frames)
            cells_Ptyx = self._cells.level_sums(binned_tPyx, i).swapaxes(0, 1)
            busiest = largest(cells_Ptyx.sum(axis=(0, 1)).astype(np.float64), level.top)
            parts += [cells_Ptyx.astype(np.float64).ravel(), busiest]
        values = np.log1p(np.concatenate(parts) * scale)
        return values.astype(np.float32)[None]


class _VideoStream(_CountStream):
    """Simulated events; remembers the last frame across pieces and snippets."""

    def __init__(self, encoder: EventPyramid) -> None:
        super().__init__(encoder)
        self._packed_events_of = _event_table(self._config)
        self._previous: NDArray[np.uint8] | None = None

    def items(self, piece: Piece) -> Iterator[Counts | None]:
        """Counts of every frame; None for the first, which has no predecessor."""
        assert isinstance(piece, FrameChunk)
        for frame in working_grey(piece, self._config.height, self._config.width):
            yield None if self._previous is None else self._count(self._previous, frame)
            self._previous = frame

    def _count(self, previous: NDArray[np.uint8], frame: NDArray[np.uint8]) -> Counts:
        pair = np.left_shift(previous, 8, dtype=np.uint16)
        pair |= frame
        both = self._cells.sums(self._packed_events_of.take(pair))
        return np.stack([both // _OFF, both % _OFF])


def _event_table(config: PyramidConfig) -> NDArray[np.float64]:
    """Events for every pair (previous << 8 | next) of grey levels, ``[65536]``: ON + OFF * _OFF.

    A table over 8-bit levels instead of logarithms of pictures: a pixel's events depend on two
    bytes and nothing else.
    """
    log_intensity = np.log(np.arange(256, dtype=np.float64) + config.offset)
    change = log_intensity[None, :] - log_intensity[:, None]
    events = np.minimum(np.abs(change) // config.threshold, config.max_events)
    packed: NDArray[np.float64] = np.where(change > 0, events, events * _OFF).ravel()
    return packed


class _EventStream(_CountStream):
    """Events of a camera, counted per frame of the annotation clock."""

    def __init__(self, encoder: EventPyramid, source: SourceInfo) -> None:
        super().__init__(encoder)
        self._source = source
        self._area_ratio = (self._config.height * self._config.width) / (
            source.height * source.width
        )
        self._frame = 0
        self._open = self._silent

    def items(self, piece: Piece) -> Iterator[Counts | None]:
        """Counts of every frame that ended before the last event of this piece."""
        assert isinstance(piece, Events)
        if len(piece) == 0:
            return
        frames, order = frames_in_order(piece, self._source, self._frame)
        keys = self._keys(piece)[order]
        borders = np.flatnonzero(np.diff(frames)) + 1
        starts = [0, *borders.tolist()]
        for first, last in zip(starts, [*starts[1:], len(frames)], strict=True):
            yield from self._advance(int(frames[first]))
            counts = np.bincount(keys[first:last], minlength=self._silent.size)
            self._open = self._open + counts.reshape(self._silent.shape)

    def last_items(self, num_frames: int) -> Iterator[Counts | None]:
        """Counts of the frames from the last event's on."""
        if self._frame < num_frames:
            yield from self._advance(num_frames)

    def _advance(self, frame: int) -> Iterator[Counts | None]:
        while self._frame < frame:
            yield self._open
            self._open = self._silent
            self._frame += 1

    def _keys(self, events: Events) -> NDArray[np.int64]:
        size = (self._source.width, self._source.height)
        cells = self._cells.cell_of(events.x, events.y, size)
        polarity = (events.p != 0).astype(np.int64)
        keys: NDArray[np.int64] = polarity * (self._cells.shape[0] * self._cells.shape[1]) + cells
        return keys
