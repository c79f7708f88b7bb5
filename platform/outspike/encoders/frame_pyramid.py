"""``frame-pyramid``: what the picture looks like in each cell of a pyramid; needs no weights.

The appearance counterpart of ``event-pyramid``, for detectors that fuse frames and events.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from outspike.encoders.base import Encoder, EncoderStream, Piece, Rows, SourceInfo, WindowedStream
from outspike.encoders.frames import GREY, working_grey
from outspike.encoders.pyramid import CellGrid, PyramidLevel
from outspike.errors import ConfigError
from outspike.recording import Modality
from outspike.timebase import SnippetGrid
from outspike.video.decode import FrameChunk

_REVISION = 1
_STATISTICS = 4  # mean and deviation of grey, mean and deviation of the gradient


@dataclass(frozen=True, kw_only=True)
class FramePyramidConfig:
    """Everything that decides a value of ``frame-pyramid``, and so part of its fingerprint."""

    height: int = 240
    width: int = 360
    """Working picture that frames are resized to."""
    levels: tuple[PyramidLevel, ...] = (
        PyramidLevel(rows=6, cols=9),
        PyramidLevel(rows=2, cols=3),
        PyramidLevel(rows=1, cols=1),
    )

    def __post_init__(self) -> None:
        if not self.levels:
            raise ConfigError("A frame pyramid needs at least one level.")


class FramePyramid(Encoder):
    """Rows ``[1, D]``: per level, four statistics of every cell over the frames of a snippet.

    Mean and standard deviation of grey, and of the gradient ``|g(x+1) - g(x)| + |g(y+1) - g(y)|``,
    all divided by 255. Sums are exact integers, so frames may arrive in any pieces.
    """

    name = "frame-pyramid"
    num_crops = 1
    modalities: frozenset[Modality] = frozenset({"video"})

    def __init__(
        self, *, grid: SnippetGrid | None = None, config: FramePyramidConfig | None = None
    ) -> None:
        self.grid = grid if grid is not None else SnippetGrid()
        self.config = config if config is not None else FramePyramidConfig()
        self.width = sum(_STATISTICS * level.rows * level.cols for level in self.config.levels)

    def document(self) -> dict[str, Any]:
        """Settings and revision."""
        return {"revision": _REVISION, "pyramid": asdict(self.config), "grey": GREY}

    def open(self, source: SourceInfo) -> EncoderStream:
        """Begin a recording."""
        return _FrameStream(self)


class _FrameStream(WindowedStream[NDArray[np.int64]]):
    """Rows from per-frame sums ``[4, by, bx]``: grey, its square, gradient, its square."""

    def __init__(self, encoder: FramePyramid) -> None:
        super().__init__(encoder)
        self._config = encoder.config
        self._cells = CellGrid(encoder.config.levels, encoder.config.height, encoder.config.width)

    def items(self, piece: Piece) -> Iterator[NDArray[np.int64]]:
        """Sums of every frame."""
        assert isinstance(piece, FrameChunk)
        for frame in working_grey(piece, self._config.height, self._config.width):
            grey = frame.astype(np.int32)
            gradient = _gradient(grey)
            maps = (grey, grey * grey, gradient, gradient * gradient)
            yield np.stack([self._cells.sums(values) for values in maps])

    def row(self, items: Sequence[NDArray[np.int64]]) -> Rows:
        """Statistics of one snippet ``[1, D]``."""
        sums_4yx = np.sum(items, axis=0)
        parts = []
        for i in range(len(self._config.levels)):
            pixels = self._cells.level_sums(self._cells.area, i) * len(items)
            cells = self._cells.level_sums(sums_4yx, i)
            for total, squares in ((cells[0], cells[1]), (cells[2], cells[3])):
                # At most 240*360*16 pixels of 255*2: the exact numerator stays below 2**63.
                variance = (pixels * squares - total * total) / (pixels * pixels)
                parts += [(total / pixels).ravel(), np.sqrt(variance).ravel()]
        return (np.concatenate(parts) / 255.0).astype(np.float32)[None]


def _gradient(grey: NDArray[np.int32]) -> NDArray[np.int32]:
    """Sum of absolute differences to the right and lower neighbour; zero at those borders."""
    gradient = np.zeros_like(grey)
    gradient[:, :-1] = np.abs(np.diff(grey, axis=1))
    gradient[:-1] += np.abs(np.diff(grey, axis=0))
    return gradient
