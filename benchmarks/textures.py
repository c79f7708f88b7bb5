"""A video that costs what a real one costs to decode: a texture that moves over another."""

from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from outspike.video.write import write_mp4


def textured_video(
    path: Path, num_frames: int, size: tuple[int, int], tiles: tuple[int, int]
) -> None:
    """Write ``num_frames`` frames of ``size = (height, width)``, at 25 a second.

    Both textures have ``tiles`` of 8 x 8 pixels, which must cover the frame.
    """
    height, width = size
    rng = np.random.default_rng(0)
    wall, patch = (np.kron(rng.integers(0, 256, (*tiles, 3)), np.ones((8, 8, 1))) for _ in "ab")

    def frame(i: int) -> NDArray[np.uint8]:
        picture = wall[:height, :width].copy()
        left = 3 * i % (width - 100)
        picture[100:200, left : left + 100] = patch[:100, :100]
        return picture.astype(np.uint8)

    write_mp4(path, (frame(i) for i in range(num_frames)), fps=Fraction(25), crf=23)
