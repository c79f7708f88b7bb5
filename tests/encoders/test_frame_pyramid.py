"""frame-pyramid: exact statistics of grey and gradient per cell and snippet."""

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outspike.encoders.base import SourceInfo
from outspike.encoders.frame_pyramid import FramePyramid, FramePyramidConfig
from outspike.encoders.pyramid import PyramidLevel
from outspike.errors import ConfigError
from outspike.timebase import SnippetGrid
from outspike.video.decode import FrameChunk

VIDEO = SourceInfo(modality="video", width=90, height=60, fps=Fraction(25))


def rows_of(encoder, frames, cuts=()):
    stream = encoder.open(VIDEO)
    borders = [0, *sorted(set(cuts) & set(range(1, len(frames)))), len(frames)]
    parts = [stream.push(FrameChunk(a, frames[a:b])) for a, b in pairwise(borders)]
    return np.concatenate([*parts, stream.finish(len(frames))])


def make_frames(num_frames, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (num_frames, 60, 90, 3), dtype=np.uint8)


@settings(max_examples=10, deadline=None)
@given(num_frames=st.integers(1, 24), cuts=st.lists(st.integers(1, 23), max_size=4))
def test_rows_do_not_depend_on_chunk_borders(num_frames, cuts):
    """Any cutting of the frames gives the same bits."""
    encoder = FramePyramid(grid=SnippetGrid(snippet_frames=8, stride=5))
    frames = make_frames(num_frames)
    whole = rows_of(encoder, frames)
    assert whole.tobytes() == rows_of(encoder, frames, cuts).tobytes()
    assert whole.shape == (encoder.grid.num_snippets(num_frames), 1, encoder.width)


def test_statistics_equal_the_plain_definition():
    """Mean and deviation of grey and gradient match numpy on the same pixels."""
    config = FramePyramidConfig(height=60, width=90, levels=(PyramidLevel(rows=2, cols=3),))
    encoder = FramePyramid(grid=SnippetGrid(snippet_frames=4, stride=4), config=config)
    grey = np.random.default_rng(3).integers(0, 256, (4, 60, 90), dtype=np.uint8)
    row = rows_of(encoder, np.repeat(grey[..., None], 3, axis=-1))[0, 0].reshape(4, 2, 3) * 255
    values = grey.astype(float)
    gradient = np.zeros_like(values)
    gradient[:, :, :-1] += np.abs(np.diff(values, axis=2))
    gradient[:, :-1] += np.abs(np.diff(values, axis=1))
    for first, plain in ((0, values), (2, gradient)):
        cells = plain.reshape(4, 2, 30, 3, 30)
        np.testing.assert_allclose(row[first], cells.mean(axis=(0, 2, 4)), rtol=1e-5)
        np.testing.assert_allclose(row[first + 1], cells.std(axis=(0, 2, 4)), rtol=1e-5)


def test_impossible_levels_are_refused():
    """No level at all, no cells, and cells smaller than a pixel."""
    with pytest.raises(ConfigError, match="at least one level"):
        FramePyramidConfig(levels=())
    with pytest.raises(ConfigError, match="at least 1"):
        PyramidLevel(rows=0, cols=2)
    fine = FramePyramidConfig(height=8, width=8, levels=(PyramidLevel(rows=9, cols=2),))
    with pytest.raises(ConfigError, match="does not fit"):
        FramePyramid(config=fine).open(VIDEO)
