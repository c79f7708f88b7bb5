"""``frame-motion``: how much every frame differs from the one before it, cell by cell.

The measurement under the ``motion_floor`` detector; needs no weights. One row per frame.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from outspike.encoders.base import Encoder, EncoderStream, Piece, Rows, SourceInfo, WindowedStream
from outspike.encoders.frames import GREY, resize_uint8, working_grey
from outspike.encoders.pyramid import CellGrid, PyramidLevel
from outspike.errors import ConfigError
from outspike.recording import Modality
from outspike.timebase import SnippetGrid
from outspike.video.decode import FrameChunk

_REVISION = 1
_HEIGHT, _WIDTH = 240, 360
_ROWS, _COLS = 24, 36
_SMALL_HEIGHT, _SMALL_WIDTH = 48, 64
_LARGE_DIFFERENCE = 15

#: One row per frame.
FRAME_GRID = SnippetGrid(snippet_frames=1, stride=1)


class FrameMotion(Encoder):
    """Rows ``[1, 868]``, one per frame, of grey differences to the previous frame.

    The first 864 values are the mean of ``|difference|`` per cell of a 24 x 36 grid over the
    360 x 240 working picture; the last four its mean, standard deviation, maximum, and share of
    pixels above 15, on a 64 x 48 picture. Frame 0 has no predecessor and repeats the row of
    frame 1; the only frame of a one-frame recording gives zeros.
    """

    name = "frame-motion"
    width = _ROWS * _COLS + 4
    num_crops = 1
    modalities: frozenset[Modality] = frozenset({"video"})

    def __init__(self, *, grid: SnippetGrid = FRAME_GRID) -> None:
        if (grid.snippet_frames, grid.stride) != (1, 1):
            raise ConfigError(
                f"frame-motion gives one row per frame; set its grid to snippet_frames=1 stride=1 "
                f"instead of {grid.snippet_frames} and {grid.stride}."
            )
        self.grid = grid

    def document(self) -> dict[str, Any]:
        """Settings and revision."""
        return {
            "revision": _REVISION,
            "picture": [_HEIGHT, _WIDTH],
            "cells": [_ROWS, _COLS],
            "small_picture": [_SMALL_HEIGHT, _SMALL_WIDTH],
            "large_difference": _LARGE_DIFFERENCE,
            "grey": GREY,
        }

    def open(self, source: SourceInfo) -> EncoderStream:
        """Begin a recording."""
        return _MotionStream(self)


class _MotionStream(WindowedStream[Rows]):
    def __init__(self, encoder: FrameMotion) -> None:
        super().__init__(encoder)
        level = PyramidLevel(rows=_ROWS, cols=_COLS)
        self._cells = CellGrid([level], _HEIGHT, _WIDTH)
        self._previous: tuple[NDArray[np.uint8], NDArray[np.uint8]] | None = None
        self._num_frames = 0

    def items(self, piece: Piece) -> Iterator[Rows]:
        """The row of every frame from the second on, the second's twice."""
        assert isinstance(piece, FrameChunk)
        for frame in working_grey(piece, _HEIGHT, _WIDTH):
            small = resize_uint8(frame[None, :, :, None], _SMALL_HEIGHT, _SMALL_WIDTH)[0, :, :, 0]
            self._num_frames += 1
            if self._previous is not None:
                values = self._difference(frame, small, *self._previous)
                if self._num_frames == 2:
                    yield values  # frame 0 has no predecessor of its own
                yield values
            self._previous = (frame, small)

    def last_items(self, num_frames: int) -> Iterator[Rows]:
        """Zeros for a recording of one frame."""
        if self._num_frames == 1:
            yield np.zeros((1, FrameMotion.width), dtype=np.float32)

    def row(self, items: Sequence[Rows]) -> Rows:
        """The item is the row."""
        return items[0]

    def _difference(
        self,
        frame: NDArray[np.uint8],
        small: NDArray[np.uint8],
        previous_frame: NDArray[np.uint8],
        previous_small: NDArray[np.uint8],
    ) -> Rows:
        cells = self._cells.sums(_absolute(frame, previous_frame)) / self._cells.area
        change = _absolute(small, previous_small).astype(np.int64)
        total, pixels = int(change.sum()), change.size
        variance = (pixels * int((change * change).sum()) - total * total) / pixels**2
        summary = [
            total / pixels,
            variance**0.5,
            float(change.max()),
            int((change > _LARGE_DIFFERENCE).sum()) / pixels,
        ]
        return np.concatenate([cells.ravel(), summary]).astype(np.float32)[None]


def _absolute(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> NDArray[np.uint8]:
    difference: NDArray[np.uint8] = np.maximum(a, b) - np.minimum(a, b)
    return difference
