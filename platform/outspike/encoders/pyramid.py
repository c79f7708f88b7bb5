"""Levels of cells over one working picture, summed exactly.

Sums are kept in integers on the *base grid*, the coarsest grid that every level's cells are made
of. Pictures are summed by two matrix products in float64, which are exact for integers below 2**53
whatever the order of additions.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from outspike.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class PyramidLevel:
    """One grid of ``rows`` x ``cols`` cells."""

    rows: int
    cols: int

    def __post_init__(self) -> None:
        if min(self.rows, self.cols) < 1:
            raise ConfigError(f"{self}: rows and cols are at least 1.")


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
        #: Pixels of every base cell ``[by, bx]``.
        self.area = self.sums(np.ones((height, width), dtype=np.uint8))

    def sums(self, picture: NDArray[np.number]) -> NDArray[np.int64]:
        """Sum of a picture of whole numbers over the base cells, ``[H, W] -> [by, bx]``."""
        totals = self._down @ picture.astype(np.float64) @ self._across
        return totals.astype(np.int64)

    def level_sums(self, base: NDArray[np.int64], index: int) -> NDArray[np.int64]:
        """Base sums gathered into the cells of a level, ``[..., by, bx] -> [..., rows, cols]``."""
        rows, cols = self._starts[index]
        down = np.add.reduceat(base, rows, axis=-2)
        across: NDArray[np.int64] = np.add.reduceat(down, cols, axis=-1)
        return across
