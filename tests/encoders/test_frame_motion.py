"""frame-motion: one row of frame differences per frame."""

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outspike.encoders.base import SourceInfo
from outspike.encoders.frame_motion import FRAME_GRID, FrameMotion
from outspike.errors import ConfigError
from outspike.timebase import SnippetGrid
from outspike.video.decode import FrameChunk

VIDEO = SourceInfo(modality="video", width=360, height=240, fps=Fraction(10))


def rows_of(frames, cuts=()):
    stream = FrameMotion().open(VIDEO)
    borders = [0, *sorted(set(cuts) & set(range(1, len(frames)))), len(frames)]
    parts = [stream.push(FrameChunk(a, frames[a:b])) for a, b in pairwise(borders)]
    return np.concatenate([*parts, stream.finish(len(frames))])[:, 0]


def make_frames(num_frames, size=(240, 360), seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (num_frames, *size, 3), dtype=np.uint8)


@settings(max_examples=10, deadline=None)
@given(num_frames=st.integers(1, 12), cuts=st.lists(st.integers(1, 11), max_size=4))
def test_rows_do_not_depend_on_chunk_borders(num_frames, cuts):
    """Any cutting of the frames gives the same bits, one row a frame."""
    frames = make_frames(num_frames, size=(30, 40))
    whole = rows_of(frames)
    assert whole.shape == (num_frames, 868)
    assert whole.tobytes() == rows_of(frames, cuts).tobytes()


def test_rows_are_the_means_of_absolute_differences():
    """Cell values equal the plain definition on grey frames of the working size."""
    grey = np.random.default_rng(1).integers(0, 256, (3, 240, 360), dtype=np.uint8)
    rows = rows_of(np.repeat(grey[..., None], 3, axis=-1))
    difference = np.abs(grey[2].astype(float) - grey[1])
    cells = difference.reshape(24, 10, 36, 10).mean(axis=(1, 3)).ravel()
    np.testing.assert_allclose(rows[2, :864], cells, rtol=1e-6)


def test_summary_values_of_a_uniform_step():
    """A step of 40 grey levels everywhere has mean 40, deviation 0, maximum 40, share 1."""
    frames = np.full((2, 48, 64, 3), 60, dtype=np.uint8)
    frames[1] = 100
    np.testing.assert_array_equal(rows_of(frames)[1, -4:], [40, 0, 40, 1])


def test_the_first_row_repeats_the_second():
    """Frame 0 has no predecessor: its row is that of frame 1."""
    rows = rows_of(make_frames(4))
    np.testing.assert_array_equal(rows[0], rows[1])
    assert (rows[1] != rows[2]).any()


def test_a_single_frame_gives_zeros():
    """A recording of one frame shows no motion."""
    rows = rows_of(make_frames(1))
    assert rows.shape == (1, 868)
    assert not rows.any()


def test_it_has_one_row_per_frame_only():
    """Any other grid is refused with the numbers."""
    assert FrameMotion(grid=FRAME_GRID).width == 868
    with pytest.raises(ConfigError, match="snippet_frames=1"):
        FrameMotion(grid=SnippetGrid())
