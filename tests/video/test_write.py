"""Promises of outspike.video.write."""

from fractions import Fraction

import numpy as np
import pytest

from outspike.errors import ConfigError
from outspike.video.decode import decode
from outspike.video.probe import probe
from outspike.video.write import write_mp4


def frames(num_frames, height=48, width=64):
    rng = np.random.default_rng(3)
    smooth = rng.integers(60, 200, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    picture = np.kron(smooth, np.ones((8, 8, 1), dtype=np.uint8))[:height, :width]
    return [np.roll(picture, i, axis=1) for i in range(num_frames)]


@pytest.mark.parametrize("size", [(48, 64), (213, 320)], ids=["even", "odd"])
def test_frames_come_back(tmp_path, size):
    """Rate, count, size and pictures survive, odd sides included."""
    path = tmp_path / "clip.mp4"
    given = frames(12, *size)
    assert write_mp4(path, given, fps=Fraction(25, 2)) == 12
    info = probe(str(path))
    assert (info.fps, info.width, info.height) == (Fraction(25, 2), size[1], size[0])
    (chunk,) = decode(str(path))
    assert np.abs(chunk.frames.astype(int) - np.stack(given)).mean() < 6


def test_equal_frames_give_equal_bytes(tmp_path):
    for name in ("a.mp4", "b.mp4"):
        write_mp4(tmp_path / name, frames(20), fps=Fraction(25))
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_nothing_is_left_when_writing_fails(tmp_path):
    """Neither a half-written file nor a temporary one stays."""
    with pytest.raises(ConfigError, match="Frame 1"):
        write_mp4(tmp_path / "x.mp4", [frames(1)[0], frames(1, 16, 16)[0]], fps=Fraction(25))
    with pytest.raises(ConfigError, match="no frames"):
        write_mp4(tmp_path / "x.mp4", [], fps=Fraction(25))
    assert list(tmp_path.iterdir()) == []
