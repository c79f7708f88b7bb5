"""The spatial side of the pyramids: levels of cells over one working picture, summed exactly.

Sums are kept in integers on the *base grid*, the coarsest grid that every level's cells are made
of, so a cell's value does not depend on the order in which pixels or events arrived. Pictures are
summed by two matrix products in float64, which are exact for integers below 2**53 whatever the
order of additions.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from outspike.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class PyramidLevel:
    """One grid of ``rows`` x ``cols`` cells, cut into ``bins`` equal time bins of the snippet.

    ``top`` appends that many largest cells of the level, sorted, which say how much happened at
    the busiest places wherever they are.
    """

    rows: int
    cols: int
    bins: int = 1
    top: int = 0

    def __post_init__(self) -> None:
        if min(self.rows, self.cols, self.bins) < 1 or not 0 <= self.top <= self.rows * self.cols:
            raise ConfigError(
                f"{self}: rows, cols and bins are at least 1, top at most the number of cells."
            )


def _edges(cells: int, pixels: int) -> set[int]:
    return {i * pixels // cells for i in range(cells)}


def _membership(starts: NDArray[np.intp], pixels: int) -> NDArray[np.float64]:
    """1 where a pixel belongs to a cell, ``[pixels, cells]``."""
    cell_of = np.searchsorted(starts, np.arange(pixels), side="right") - 1
    member: NDArray[np.float64] = (cell_of[:, None] == np.arange(len(starts))).astype(np.float64)
    return member


class CellGrid:
    """Cells of several levels over a picture of ``height`` x ``width`` pixels."""

    def __init__(self, levels: Sequence[PyramidLevel], height: int, width: int) -> None:
        for level in levels:
            if level.rows > height or level.cols > width:
                raise ConfigError(f"{level} does not fit a picture of {width}x{height} pixels.")
        self.levels = tuple(levels)
        self.height, self.width = height, width
        rows = sorted(set().union(*(_edges(level.rows, height) for level in levels)))
        cols = sorted(set().union(*(_edges(level.cols, width) for level in levels)))
        self._rows = np.array(rows, dtype=np.intp)
        self._cols = np.array(cols, dtype=np.intp)
        self.shape = (len(rows), len(cols))
        self._down = _membership(self._rows, height).T.copy()
        self._across = _membership(self._cols, width)
        self._starts = [
            (
                np.searchsorted(self._rows, sorted(_edges(level.rows, height))),
                np.searchsorted(self._cols, sorted(_edges(level.cols, width))),
            )
            for level in levels
        ]
        row_of = np.searchsorted(self._rows, np.arange(height), side="right") - 1
        col_of = np.searchsorted(self._cols, np.arange(width), side="right") - 1
        self._row_of, self._col_of = row_of.astype(np.int64), col_of.astype(np.int64)
        #: Pixels of every base cell ``[by, bx]``.
        self.area = self.sums(np.ones((height, width), dtype=np.uint8))

    def sums(self, picture: NDArray[np.number]) -> NDArray[np.int64]:
        """Sum of a picture of whole numbers over the base cells, ``[H, W] -> [by, bx]``."""
        totals = self._down @ picture.astype(np.float64) @ self._across
        return totals.astype(np.int64)

    def cell_of(
        self, x: NDArray[np.unsignedinteger], y: NDArray[np.unsignedinteger], size: tuple[int, int]
    ) -> NDArray[np.int64]:
        """Flat base cell of pixels on a sensor of ``size`` (width, height), ``[N] -> [N]``."""
        width, height = size
        row = self._row_of[y.astype(np.int64) * self.height // height]
        col = self._col_of[x.astype(np.int64) * self.width // width]
        cell: NDArray[np.int64] = row * self.shape[1] + col
        return cell

    def level_sums(self, base: NDArray[np.int64], index: int) -> NDArray[np.int64]:
        """Base sums gathered into the cells of a level, ``[..., by, bx] -> [..., rows, cols]``."""
        rows, cols = self._starts[index]
        down = np.add.reduceat(base, rows, axis=-2)
        across: NDArray[np.int64] = np.add.reduceat(down, cols, axis=-1)
        return across


def bin_sums(frames: NDArray[np.int64], bins: int, snippet_frames: int) -> NDArray[np.int64]:
    """Sums over the time bins of a snippet, ``[F, ...] -> [bins, ...]``.

    Frame ``f`` belongs to bin ``f * bins // snippet_frames``; bins that a short last snippet does
    not reach stay zero.
    """
    if bins == 1:
        whole: NDArray[np.int64] = frames.sum(axis=0, keepdims=True)
        return whole
    sums = np.zeros((bins, *frames.shape[1:]), dtype=np.int64)
    np.add.at(sums, np.arange(len(frames)) * bins // snippet_frames, frames)
    return sums


def largest(cells: NDArray[np.floating], count: int) -> NDArray[np.floating]:
    """The ``count`` largest values, largest first."""
    return np.sort(cells, axis=None)[::-1][:count]
