"""event-pyramid: simulated and real events on one pyramid, bit for bit whatever the chunks."""

from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from outspike.encoders.base import EncoderStream, SourceInfo
from outspike.encoders.event_pyramid import EventPyramid, PyramidConfig
from outspike.encoders.pyramid import PyramidLevel
from outspike.errors import AlignmentError, ConfigError
from outspike.events.columns import Events
from outspike.timebase import EventClock, SnippetGrid
from outspike.video.decode import FrameChunk

VIDEO = SourceInfo(modality="video", width=90, height=60, fps=Fraction(25))
CLOCK = EventClock(fps=Fraction(30), anchor_us=1_000_000)
CAMERA = SourceInfo(modality="events", width=64, height=48, fps=Fraction(30), clock=CLOCK)


def push_frames(
    stream: EncoderStream, frames: NDArray[np.uint8], cuts: list[int]
) -> NDArray[np.float32]:
    """All rows of a video cut into chunks at ``cuts``."""
    borders = [0, *sorted(set(cuts) & set(range(1, len(frames)))), len(frames)]
    rows = [stream.push(FrameChunk(a, frames[a:b])) for a, b in pairwise(borders)]
    return np.concatenate([*rows, stream.finish(len(frames))])


def make_frames(num_frames: int, seed: int = 0, size: tuple[int, int] = (60, 90)) -> NDArray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (num_frames, *size, 3), dtype=np.uint8)


def make_events(num_events: int, seed: int, span_us: int = 3_000_000) -> Events:
    rng = np.random.default_rng(seed)
    return Events(
        t=1_000_000 + np.sort(rng.integers(0, span_us, num_events)).astype(np.int64),
        x=rng.integers(0, 64, num_events).astype(np.uint16),
        y=rng.integers(0, 48, num_events).astype(np.uint16),
        p=rng.integers(0, 2, num_events).astype(np.uint8),
    )


@settings(max_examples=25, deadline=None)
@given(
    num_frames=st.integers(1, 40),
    cuts=st.lists(st.integers(1, 39), max_size=6),
    snippet=st.integers(1, 12),
    stride=st.integers(1, 12),
    tail=st.sampled_from(["keep", "drop"]),
)
def test_rows_of_a_video_do_not_depend_on_chunk_borders(num_frames, cuts, snippet, stride, tail):
    """Any cutting of the frames gives the same bits, tails and overlapping rows included."""
    grid = SnippetGrid(snippet_frames=snippet, stride=min(stride, snippet), tail=tail)
    encoder = EventPyramid(grid=grid)
    frames = make_frames(num_frames)
    whole = push_frames(encoder.open(VIDEO), frames, [])
    pieces = push_frames(encoder.open(VIDEO), frames, cuts)
    assert whole.tobytes() == pieces.tobytes()
    assert whole.shape == (grid.num_snippets(num_frames), 1, encoder.width)


@settings(max_examples=25, deadline=None)
@given(
    num_events=st.integers(1, 300),
    cuts=st.lists(st.integers(1, 299), max_size=6),
    seed=st.integers(0, 5),
)
def test_rows_of_an_event_recording_do_not_depend_on_chunk_borders(num_events, cuts, seed):
    """Any cutting of the events gives the same bits, silent snippets included."""
    encoder = EventPyramid(grid=SnippetGrid(snippet_frames=4, stride=4))
    events = make_events(num_events, seed)
    num_frames = int(CLOCK.frame_of(events.t)[-1]) + 1

    def rows(borders: list[int]) -> NDArray[np.float32]:
        stream = encoder.open(CAMERA)
        parts = [
            stream.push(Events(events.t[a:b], events.x[a:b], events.y[a:b], events.p[a:b]))
            for a, b in pairwise(borders)
        ]
        return np.concatenate([*parts, stream.finish(num_frames)])

    whole = rows([0, num_events])
    pieces = rows([0, *sorted(set(cuts) & set(range(1, num_events))), num_events])
    assert whole.tobytes() == pieces.tobytes()
    assert len(whole) == encoder.grid.num_snippets(num_frames)


def test_a_step_of_light_is_counted_by_sign_and_place():
    """One brightening block gives ON counts of exactly its pixels in exactly its cells."""
    config = PyramidConfig(height=60, width=90, levels=(PyramidLevel(rows=2, cols=3, top=2),))
    encoder = EventPyramid(grid=SnippetGrid(snippet_frames=4, stride=4), config=config)
    frames = np.full((8, 60, 90, 3), 50, dtype=np.uint8)
    frames[5:, :10, :20] = 200  # at frame 5 the upper left cell brightens
    frames[6:, 30:40, 60:70] = 10  # at frame 6 the lower right cell darkens
    rows = np.expm1(push_frames(encoder.open(VIDEO), frames, [3, 5])[:, 0])
    off, on, top = rows[:, :6], rows[:, 6:12], rows[:, 12:]
    assert not rows[0].any()
    np.testing.assert_allclose(on[1], [200, 0, 0, 0, 0, 0], rtol=1e-5)
    np.testing.assert_allclose(off[1], [0, 0, 0, 0, 0, 100], rtol=1e-5)
    np.testing.assert_allclose(top[1], [200, 100], rtol=1e-5)


def test_the_frame_before_a_snippet_counts_for_it():
    """A change on a snippet border is an event of the later snippet."""
    config = PyramidConfig(height=60, width=90, levels=(PyramidLevel(rows=1, cols=1),))
    encoder = EventPyramid(grid=SnippetGrid(snippet_frames=4, stride=4), config=config)
    frames = np.full((8, 60, 90, 3), 50, dtype=np.uint8)
    frames[4:] = 200
    rows = push_frames(encoder.open(VIDEO), frames, [4])[:, 0]
    assert not rows[0].any()
    np.testing.assert_allclose(np.expm1(rows[1]), [0, 60 * 90], rtol=1e-5)


def test_short_rows_are_brought_to_a_full_snippet():
    """Constant activity gives the same row in the first, a middle and a short last snippet."""
    encoder = EventPyramid(grid=SnippetGrid(snippet_frames=4, stride=4))
    frames = np.zeros((10, 60, 90, 3), dtype=np.uint8)
    frames[::2] = 250
    config = replace(encoder.config, levels=(PyramidLevel(rows=1, cols=1, top=1),))
    total = push_frames(EventPyramid(grid=encoder.grid, config=config).open(VIDEO), frames, [])
    np.testing.assert_allclose(total[:, 0, -1], total[0, 0, -1], rtol=1e-6)


def test_time_bins_split_a_snippet():
    """With two bins the first half's events are not in the second half's cells."""
    config = PyramidConfig(height=60, width=90, levels=(PyramidLevel(rows=1, cols=1, bins=2),))
    encoder = EventPyramid(grid=SnippetGrid(snippet_frames=4, stride=4), config=config)
    frames = np.full((4, 60, 90, 3), 50, dtype=np.uint8)
    frames[3:] = 200
    off_first, off_second, on_first, on_second = push_frames(encoder.open(VIDEO), frames, [])[0, 0]
    assert off_first == off_second == on_first == 0
    assert on_second > 0


def test_width_does_not_depend_on_the_source():
    """Videos of any size and event recordings share one width."""
    encoder = EventPyramid()
    for size in ((60, 90), (240, 360), (7, 5)):
        rows = push_frames(encoder.open(VIDEO), make_frames(3, size=size), [])
        assert rows.shape == (1, 1, encoder.width)
    stream = encoder.open(CAMERA)
    rows = np.concatenate([stream.push(make_events(500, 0)), stream.finish(90)])
    assert rows.shape == (6, 1, encoder.width)


def test_camera_events_land_in_the_same_cells_as_simulated_ones():
    """An event at a sensor corner is counted in that corner's cell, scaled to the picture."""
    config = PyramidConfig(levels=(PyramidLevel(rows=2, cols=3),))
    encoder = EventPyramid(config=config)
    stream = encoder.open(CAMERA)
    corner = Events(
        t=np.array([1_000_000, 1_000_001], dtype=np.int64),
        x=np.array([63, 0], dtype=np.uint16),
        y=np.array([47, 0], dtype=np.uint16),
        p=np.array([1, 0], dtype=np.uint8),
    )
    counts = np.expm1(np.concatenate([stream.push(corner), stream.finish(16)])[0, 0])
    expected = np.zeros(12)
    expected[0] = expected[11] = 240 * 360 / (64 * 48)
    np.testing.assert_allclose(counts, expected, rtol=1e-5)


def test_faulty_event_recordings_are_refused():
    """Pixels outside the sensor and times that run backwards are named, not wrapped."""
    stream = EventPyramid().open(CAMERA)
    outside = make_events(3, 0)
    outside.x[1] = 64
    with pytest.raises(AlignmentError, match="64x48 sensor"):
        stream.push(outside)
    stream.push(make_events(300, 0))
    with pytest.raises(AlignmentError, match="backwards"):
        stream.push(make_events(10, 1, span_us=20_000))


def test_the_frame_count_must_match():
    """finish() with another number of frames than were pushed is an error."""
    stream = EventPyramid().open(VIDEO)
    stream.push(FrameChunk(0, make_frames(5)))
    with pytest.raises(AlignmentError, match="given 5 frames, the recording has 6"):
        stream.finish(6)


def test_every_setting_is_in_the_fingerprint():
    """Two encoders that differ in any setting have different fingerprints."""
    variants = [
        EventPyramid(),
        EventPyramid(grid=SnippetGrid(snippet_frames=8, stride=8)),
        EventPyramid(config=PyramidConfig(threshold=0.3)),
        EventPyramid(config=PyramidConfig(offset=1.0)),
        EventPyramid(config=PyramidConfig(max_events=2)),
        EventPyramid(config=PyramidConfig(levels=(PyramidLevel(rows=2, cols=2),))),
    ]
    assert len({variant.spec().fingerprint for variant in variants}) == len(variants)
    assert EventPyramid().spec().fingerprint == variants[0].spec().fingerprint


def test_impossible_settings_are_refused():
    """Levels finer than the picture, and thresholds of zero, are configuration errors."""
    with pytest.raises(ConfigError, match="does not fit"):
        EventPyramid(
            config=PyramidConfig(height=8, width=8, levels=(PyramidLevel(rows=9, cols=2),))
        ).open(VIDEO)
    with pytest.raises(ConfigError, match="threshold"):
        PyramidConfig(threshold=0)
    with pytest.raises(ConfigError, match="at least one level"):
        PyramidConfig(levels=())
    with pytest.raises(ConfigError, match="top"):
        PyramidLevel(rows=2, cols=2, top=5)
