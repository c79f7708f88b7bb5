"""Events on their way to an encoder: cut into annotation frames, and refused where they lie."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outspike.encoders.base import SourceInfo
from outspike.encoders.event_input import by_frame
from outspike.encoders.kernels import add_signs
from outspike.errors import AlignmentError
from outspike.events.columns import Events
from outspike.events.frames import add_counts
from outspike.timebase import DVS_FPS, EventClock

WIDTH, HEIGHT = 7, 5


def source_of(anchor_us=0, fps=DVS_FPS):
    clock = EventClock(fps=fps, anchor_us=anchor_us)
    return SourceInfo(modality="events", width=WIDTH, height=HEIGHT, fps=fps, clock=clock)


def events_of(times, seed=0):
    rng = np.random.default_rng(seed)
    n = len(times)
    return Events(
        np.array(times, dtype=np.int64),
        rng.integers(0, WIDTH, n).astype(np.uint16),
        rng.integers(0, HEIGHT, n).astype(np.uint16),
        rng.integers(0, 2, n).astype(np.uint8),
    )


@settings(max_examples=200, deadline=None)
@given(
    times=st.lists(st.integers(1_000, 900_000), min_size=1, max_size=60),
    is_in_order=st.booleans(),
    fps=st.sampled_from([DVS_FPS, Fraction(25), Fraction(30000, 1001), Fraction(1000)]),
)
def test_every_event_comes_with_the_frame_of_the_clock(times, is_in_order, fps):
    """In order or not, and on the borders of frames: what the clock says of each event."""
    source = source_of(anchor_us=1_000, fps=fps)
    border = source.event_clock.time_of(3)
    times = [*times, border, border - 1]
    events = events_of(sorted(times) if is_in_order else times)
    frames = source.event_clock.frame_of(events.t)
    runs = list(by_frame(events, source, 0))
    assert [frame for frame, _ in runs] == sorted(set(frames.tolist()))
    for frame, run in runs:
        for found, column in zip(run.columns, events.columns, strict=True):
            np.testing.assert_array_equal(found, column[frames == frame])


def test_sums_and_counts_are_those_of_every_pixel():
    """ON minus OFF, and OFF and ON apart, added to what was there."""
    events = events_of(range(500))
    signs, counts = np.full((HEIGHT, WIDTH), 3, np.int32), np.ones((2, HEIGHT, WIDTH), np.int64)
    add_signs(events.x, events.y, events.p, signs)
    add_counts(events, counts)
    expected = np.zeros((2, HEIGHT, WIDTH), np.int64)
    for x, y, p in zip(events.x, events.y, events.p, strict=True):
        expected[p, y, x] += 1
    np.testing.assert_array_equal(counts, expected + 1)
    np.testing.assert_array_equal(signs, expected[1] - expected[0] + 3)


def test_no_events_are_no_frames():
    assert list(by_frame(Events.empty(), source_of(), 7)) == []


@pytest.mark.parametrize(
    ("times", "anchor_us", "not_before", "told"),
    [
        ([10, 99_999], 0, 1, "event of frame 0 arrived after frame 1 had begun"),
        ([99_999, 10], 0, 1, "event of frame 0 arrived after frame 1 had begun"),
        ([10, 99_999], 11, 0, "before the recording start"),
        ([99_999, 10], 11, 0, "before the recording start"),
        ([0, 2**62], 0, 0, "overflow"),
    ],
)
def test_times_that_cannot_be_are_refused(times, anchor_us, not_before, told):
    with pytest.raises(AlignmentError, match=told):
        list(by_frame(events_of(times), source_of(anchor_us), not_before))


@pytest.mark.parametrize("column", [1, 2])
def test_pixels_outside_the_sensor_are_refused(column):
    events = events_of(range(10))
    events.columns[column][3] = max(WIDTH, HEIGHT)
    with pytest.raises(AlignmentError, match="outside the 7x5 sensor"):
        list(by_frame(events, source_of(), 0))
