"""event-pyramid: simulated and real events become the same rows, whatever the chunks."""

from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from outspike.encoders.base import EncoderStream, SourceInfo
from outspike.encoders.event_maps import PyramidConfig
from outspike.encoders.event_pyramid import EventPyramid
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


def rows_of(frames: NDArray[np.uint8], **grid: int) -> NDArray[np.float32]:
    encoder = EventPyramid(grid=SnippetGrid(**grid))
    return push_frames(encoder.open(VIDEO), frames, [])[:, 0]


def make_frames(num_frames: int, seed: int = 0, size: tuple[int, int] = (60, 90)) -> NDArray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (num_frames, *size, 3), dtype=np.uint8)


def moving_block(num_frames: int, place, size: tuple[int, int] = (240, 360)) -> NDArray[np.uint8]:
    """A bright textured block on a grey picture, its upper left corner at ``place(frame)``."""
    texture = np.random.default_rng(7).integers(60, 256, (24, 16), dtype=np.uint8)
    frames = np.full((num_frames, *size, 3), 60, dtype=np.uint8)
    for frame in range(num_frames):
        y, x = place(frame)
        frames[frame, y : y + 24, x : x + 16] = texture[..., None]
    return frames


def make_events(num_events: int, seed: int, span_us: int = 3_000_000) -> Events:
    rng = np.random.default_rng(seed)
    return Events(
        t=1_000_000 + np.sort(rng.integers(0, span_us, num_events)).astype(np.int64),
        x=rng.integers(0, 64, num_events).astype(np.uint16),
        y=rng.integers(0, 48, num_events).astype(np.uint16),
        p=rng.integers(0, 2, num_events).astype(np.uint8),
    )


@settings(max_examples=15, deadline=None)
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
    assert np.isfinite(whole).all()


@settings(max_examples=15, deadline=None)
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
        parts = [stream.push(events.slice(a, b)) for a, b in pairwise(borders)]
        return np.concatenate([*parts, stream.finish(num_frames)])

    whole = rows([0, num_events])
    pieces = rows([0, *sorted(set(cuts) & set(range(1, num_events))), num_events])
    assert whole.tobytes() == pieces.tobytes()
    assert len(whole) == encoder.grid.num_snippets(num_frames)


def test_camera_events_give_the_row_of_the_video_they_stand_for():
    """Where every event is one step of the contrast, camera and video are one and the same."""
    config = PyramidConfig()
    size = (config.height, config.width)
    rng = np.random.default_rng(1)
    contrast = np.log((90 + config.offset) / (75 + config.offset))  # grey 75 <-> 90: one event
    config = replace(config, contrast=float(contrast))
    bright = rng.integers(0, 2, (8, *size)).astype(bool)
    bright[0] = False
    frames = np.where(bright, 90, 75).astype(np.uint8)[..., None].repeat(3, axis=-1)
    t, y, x = np.nonzero(bright[1:] != bright[:-1])
    events = Events(
        t=np.array([CLOCK.time_of(int(frame)) for frame in t + 1], dtype=np.int64),
        x=x.astype(np.uint16),
        y=y.astype(np.uint16),
        p=bright[t + 1, y, x].astype(np.uint8),
    )
    encoder = EventPyramid(grid=SnippetGrid(snippet_frames=4, stride=4), config=config)
    source = replace(CAMERA, height=size[0], width=size[1])
    stream = encoder.open(source)
    camera = np.concatenate([stream.push(events), stream.finish(8)])
    video = push_frames(encoder.open(replace(VIDEO, height=size[0], width=size[1])), frames, [])
    assert camera.any()
    np.testing.assert_array_equal(camera, video)


def test_a_still_recording_gives_the_row_of_nothing():
    """Without any change every snippet has the same row, whatever the picture shows."""
    frames = np.repeat(make_frames(1), 9, axis=0)
    rows = rows_of(frames, snippet_frames=4, stride=4)
    np.testing.assert_array_equal(rows, np.repeat(rows_of(0 * frames[:4])[:1], 3, axis=0))


def test_the_frame_before_a_snippet_counts_for_it():
    """A change on a snippet border is an event of the later snippet."""
    frames = np.full((8, 60, 90, 3), 50, dtype=np.uint8)
    frames[4:, :20, :30] = 200
    before, after = rows_of(frames, snippet_frames=4, stride=4)
    np.testing.assert_array_equal(before, rows_of(frames[:4])[0])
    assert not np.array_equal(before, after)


def test_short_rows_are_like_full_ones():
    """Steady activity gives the same row in a full and in a short last snippet."""
    frames = np.zeros((40, 60, 90, 3), dtype=np.uint8)
    frames[::2, 10:30, 20:60] = make_frames(1, size=(20, 40))
    _, full, short = rows_of(frames, snippet_frames=16, stride=16)
    assert full.any()
    np.testing.assert_allclose(short, full, rtol=1e-6, atol=1e-6)


def test_place_does_not_matter():
    """The same motion elsewhere in the picture, by whole large cells, gives the same row."""
    here = rows_of(moving_block(16, lambda frame: (120, 120 + 4 * frame)))[0]
    there = rows_of(moving_block(16, lambda frame: (120 - 120, 120 + 120 + 4 * frame)))[0]
    np.testing.assert_allclose(here, there, atol=1e-5)


def test_faster_things_and_crowds_look_different():
    """A block twice as fast, and two blocks instead of one, are far from the first row."""
    slow = rows_of(moving_block(16, lambda frame: (100, 40 + 4 * frame)))[0]
    fast = rows_of(moving_block(16, lambda frame: (100, 40 + 16 * frame)))[0]
    two = moving_block(16, lambda frame: (100, 40 + 4 * frame))
    two[:, 180:204] = moving_block(16, lambda frame: (180, 300 - 4 * frame))[:, 180:204]
    assert np.abs(slow - fast).max() > 0.5
    assert np.abs(slow - rows_of(two)[0]).max() > 0.5


def test_width_does_not_depend_on_the_source():
    """Videos of any size and event recordings share one width, a multiple of 8."""
    encoder = EventPyramid()
    assert encoder.width == 184
    for size in ((60, 90), (240, 360), (7, 5)):
        rows = push_frames(encoder.open(VIDEO), make_frames(3, size=size), [])
        assert rows.shape == (1, 1, encoder.width)
    stream = encoder.open(CAMERA)
    rows = np.concatenate([stream.push(make_events(500, 0)), stream.finish(90)])
    assert rows.shape == (6, 1, encoder.width)


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
        *(
            EventPyramid(config=replace(PyramidConfig(), **{name: value}))
            for name, value in {
                "rows": 18,
                "cols": 24,
                "cell": 5,
                "offset": 1.0,
                "thresholds": (0.04, 0.08, 0.16, 0.3),
                "lags": (1, 2, 3),
                "event_threshold": 0.2,
                "steps": (1, 2, 3),
                "contrast": 0.3,
                "time_bins": 4,
            }.items()
        ),
    ]
    assert len({variant.spec().fingerprint for variant in variants}) == len(variants)
    assert EventPyramid().spec().fingerprint == variants[0].spec().fingerprint


def test_other_settings_work_too():
    """Every variant makes finite rows of its stated width."""
    for settings_ in ({"rows": 18, "cols": 24}, {"cell": 15}, {"lags": (2, 3, 5)}, {"cell": 3}):
        encoder = EventPyramid(config=PyramidConfig(**settings_))
        rows = push_frames(encoder.open(VIDEO), make_frames(20), [])
        assert rows.shape == (2, 1, encoder.width)
        assert np.isfinite(rows).all()


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"rows": 10}, "multiples of 6"),
        ({"rows": 6, "cols": 6}, "too few"),
        ({"cell": 16}, "1 to 15"),
        ({"event_threshold": 0.0}, "positive"),
        ({"thresholds": (0.1, 0.1, 0.2, 0.3)}, "rising"),
        ({"thresholds": (0.1, 0.2, 0.3, 2000.0)}, "lower them"),
        ({"lags": (4, 2, 1)}, "lags rise"),
        ({"time_bins": 1}, "time bins"),
    ],
)
def test_impossible_settings_are_refused(wrong, told):
    """Configuration errors say what is allowed."""
    with pytest.raises(ConfigError, match=told):
        PyramidConfig(**wrong)
