"""What an encoder is: a fixed recipe that turns a decoded recording into feature rows.

An :class:`Encoder` holds settings and weights and is made once; :meth:`Encoder.open` gives one
:class:`EncoderStream` per recording. A stream takes the recording in pieces of any size and gives
rows in order, one per snippet of the grid. A row's bits never depend on how the pieces were cut.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from outspike.errors import AlignmentError, ConfigError
from outspike.events.columns import Events
from outspike.recording import Modality
from outspike.store.fingerprint import FeatureSetSpec
from outspike.timebase import EventClock, SnippetGrid
from outspike.video.decode import DECODER, FrameChunk

Rows = NDArray[np.float32]
Piece = FrameChunk | Events
Item = TypeVar("Item")

_DECODERS: dict[Modality, dict[str, str]] = {
    "video": DECODER,
    "events": {"decoder": "outspike-events", "version": "1"},
}


@dataclass(frozen=True, kw_only=True)
class SourceInfo:
    """What a stream must know of its recording before the first frame or event.

    ``width`` and ``height`` are in pixels, as shown (rotation applied) or of the sensor. ``clock``
    maps event times to frames; it is None for videos.
    """

    modality: Modality
    width: int
    height: int
    fps: Fraction
    clock: EventClock | None = None

    def __post_init__(self) -> None:
        if self.width < 1 or self.height < 1:
            raise ConfigError(f"A recording of {self.width}x{self.height} pixels has no picture.")
        if (self.modality == "events") != (self.clock is not None):
            raise ConfigError("Event recordings, and only those, need a clock.")

    @property
    def event_clock(self) -> EventClock:
        """The clock of an event recording."""
        assert self.clock is not None
        return self.clock


class EncoderStream(ABC):
    """One recording on its way through an encoder."""

    @abstractmethod
    def push(self, piece: Piece) -> Rows:
        """Rows ``[s, K, D]`` that this piece of the recording completes, in order."""

    @abstractmethod
    def finish(self, num_frames: int) -> Rows:
        """Rows ``[s, K, D]`` left over at the end of a recording of ``num_frames`` frames.

        Raises:
            AlignmentError: the pieces pushed do not make ``num_frames`` frames.
        """


class Encoder(ABC):
    """Settings and weights that decide every feature value of one feature set."""

    name: str
    width: int
    num_crops: int
    grid: SnippetGrid
    modalities: frozenset[Modality]

    @abstractmethod
    def document(self) -> dict[str, Any]:
        """Settings, preprocessing, code revision and weights digest, as JSON values."""

    @abstractmethod
    def open(self, source: SourceInfo) -> EncoderStream:
        """Begin a recording. One stream is in use at a time; opening the next ends the last."""

    def spec(self) -> FeatureSetSpec:
        """Identity of the features: the document is everything that decides a value."""
        document = {
            "encoder": self.name,
            **self.document(),
            "grid": self.grid.document(),
            "num_crops": self.num_crops,
            "width": self.width,
            "dtype": "float16",
            "decoder": {m: _DECODERS[m] for m in sorted(self.modalities)},
        }
        return FeatureSetSpec(
            name=self.name,
            document=document,
            num_crops=self.num_crops,
            width=self.width,
            dtype="float16",
        )


class FrameWindow(Generic[Item]):
    """Collects one item per frame and hands out the items of each snippet once it is certain.

    A row is certain when no further frame can take it away: under ``tail="keep"`` and ``"drop"``
    when its last frame is there, under ``"ief_vad_2025"`` when the published rule already counts
    it (the first snippet of a buffer only counts from its 17th frame on).
    """

    def __init__(self, grid: SnippetGrid) -> None:
        self._grid = grid
        tail = "drop" if grid.tail == "keep" else grid.tail
        self._certain = SnippetGrid(
            snippet_frames=grid.snippet_frames, stride=grid.stride, tail=tail
        )
        self._items: list[Item] = []
        self._first = 0
        self._row = 0

    @property
    def num_frames(self) -> int:
        """Frames seen so far."""
        return self._first + len(self._items)

    def add(self, item: Item) -> Iterator[Sequence[Item]]:
        """Take the next frame's item; yield the items of every row that is now certain."""
        self._items.append(item)
        while self._row < self._certain.num_snippets(self.num_frames):
            yield self._next(self.num_frames)

    def finish(self, num_frames: int) -> Iterator[Sequence[Item]]:
        """Yield the items of the rows that only the end of the recording decides."""
        if num_frames != self.num_frames:
            raise AlignmentError(
                f"The encoder was given {self.num_frames} frames, the recording has {num_frames}."
            )
        while self._row < self._grid.num_snippets(num_frames):
            yield self._next(num_frames)

    def _next(self, num_frames: int) -> Sequence[Item]:
        start = self._row * self._grid.stride
        stop = min(start + self._grid.snippet_frames, num_frames)
        items = self._items[start - self._first : stop - self._first]
        self._row += 1
        done = min(self._row * self._grid.stride - self._first, len(self._items))
        del self._items[:done]
        self._first += done
        return items


class WindowedStream(EncoderStream, Generic[Item]):
    """A stream that makes each row from the items of the snippet's own frames."""

    def __init__(self, encoder: Encoder) -> None:
        self._shape = (encoder.num_crops, encoder.width)
        self._window: FrameWindow[Item] = FrameWindow(encoder.grid)

    @abstractmethod
    def items(self, piece: Piece) -> Iterator[Item]:
        """What the row needs of every frame that this piece completes."""

    @abstractmethod
    def row(self, items: Sequence[Item]) -> Rows:
        """The row ``[K, D]`` of one snippet, from the items of its frames."""

    def last_items(self, num_frames: int) -> Iterator[Item]:
        """Items of frames that only the end of the recording completes; none by default."""
        return iter(())

    def push(self, piece: Piece) -> Rows:
        """Rows completed by this piece."""
        return self._rows(
            self.row(window) for item in self.items(piece) for window in self._window.add(item)
        )

    def finish(self, num_frames: int) -> Rows:
        """Rows completed by the end."""
        rows = [
            self.row(window)
            for item in self.last_items(num_frames)
            for window in self._window.add(item)
        ]
        rows.extend(self.row(window) for window in self._window.finish(num_frames))
        return self._rows(iter(rows))

    def _rows(self, rows: Iterator[Rows]) -> Rows:
        return np.array(list(rows), dtype=np.float32).reshape(-1, *self._shape)
