"""Counting keeps every event, and silence keeps its place."""

import numpy as np
import pytest
from event_samples import SMALL as SIZE
from event_samples import random_events
from hypothesis import given
from hypothesis import strategies as st

from outspike.errors import AlignmentError, ConfigError
from outspike.events.columns import Events, concatenate
from outspike.events.frames import (
    count_frames,
    highest_count,
    windows_anchored_on_events,
    windows_by_number,
    windows_by_time,
    windows_on_grid,
)
from outspike.events.full_frames import is_full


@given(num=st.integers(1, 500), duration=st.integers(1000, 400_000), seed=st.integers(0, 50))
def test_the_grid_counts_every_event_in_the_window_of_its_time(
    num: int, duration: int, seed: int
) -> None:
    events = random_events(num, seed)
    frames = count_frames(events, windows_on_grid(events.t, duration, anchor_us=0), SIZE)
    per_window = np.bincount(events.t // duration, minlength=len(frames))
    assert frames.sum(axis=(1, 2, 3)).tolist() == per_window.tolist()
    assert int(frames[:, 1].sum()) == int(events.p.sum())


@given(num=st.integers(20, 400), windows=st.integers(1, 20))
def test_by_number_loses_no_event(num: int, windows: int) -> None:
    events = random_events(num)
    assert count_frames(events, windows_by_number(num, windows), SIZE).sum() == num


@given(num=st.integers(1, 400), duration=st.integers(1000, 400_000))
def test_the_old_rule_loses_no_event(num: int, duration: int) -> None:
    events = random_events(num)
    assert count_frames(events, windows_anchored_on_events(events.t, duration), SIZE).sum() == num


def test_an_empty_window_by_time_is_an_error() -> None:
    with pytest.raises(ConfigError, match="holds no event"):
        windows_by_time(np.array([0, 1, 1000]), 5)


def test_a_count_above_the_type_is_an_error() -> None:
    ones = np.zeros(300, dtype=np.uint16)
    events = Events(np.zeros(300, np.int64), ones, ones, np.ones(300, np.uint8))
    with pytest.raises(AlignmentError, match="more than 255 events"):
        count_frames(events, np.array([0, 300]), SIZE, np.uint8)


def test_a_pixel_outside_the_sensor_is_an_error() -> None:
    events = Events(
        np.zeros(1, np.int64),
        np.array([16], np.uint16),
        np.zeros(1, np.uint16),
        np.zeros(1, np.uint8),
    )
    with pytest.raises(AlignmentError, match="outside 16x12"):
        count_frames(events, np.array([0, 1]), SIZE)


def test_events_past_the_recording_are_an_error() -> None:
    with pytest.raises(AlignmentError, match="window 3, the recording has 2"):
        windows_on_grid(np.array([25]), 10, anchor_us=0, num_windows=2)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_every_type_counts_the_same_up_to_its_own_limit(dtype: type) -> None:
    """Whole numbers in any type; one more than it holds exactly is an error, not a wrong count."""
    limit = highest_count(np.dtype(dtype))
    if limit > 1 << 16:
        limit = 1000
    pixel = np.zeros(limit, np.uint16)
    events = Events(np.zeros(limit, np.int64), pixel, pixel, np.ones(limit, np.uint8))
    frames = count_frames(events, np.array([0, limit]), SIZE, dtype)
    assert frames.dtype == dtype
    assert int(frames[0, 1, 0, 0]) == int(frames.sum(dtype=np.int64)) == limit
    if limit == highest_count(np.dtype(dtype)):
        more = concatenate([events, events.slice(0, 1)])
        with pytest.raises(AlignmentError, match="more than"):
            count_frames(more, np.array([0, limit + 1]), SIZE, dtype)


def test_half_floats_are_no_type_to_count_in() -> None:
    with pytest.raises(ConfigError, match="not in float16"):
        count_frames(random_events(3), np.array([0, 3]), SIZE, np.float16)


@pytest.mark.parametrize("size", [(512, 300), (517, 301)])
@pytest.mark.parametrize("repeated", [0, 30_000, 70_000])
def test_large_full_frames_are_counted_alike_in_all_types(
    repeated: int, size: tuple[int, int]
) -> None:
    """Where most pixels are hit, four bits are counted first; what does not fit there is carried.

    Frames of (517, 301) are no whole lines of the cache and are not written past it.
    """
    num = 200_000
    rng = np.random.default_rng(0)
    x = np.append(rng.integers(0, size[0], num), np.full(repeated, 7)).astype(np.uint16)
    y = np.append(rng.integers(0, size[1], num), np.full(repeated, 9)).astype(np.uint16)
    p = np.append(rng.integers(0, 2, num), np.ones(repeated)).astype(np.uint8)
    events = Events(np.arange(num + repeated), x, y, p)
    windows = np.array([0, len(events) - 5, len(events)])
    expected = np.zeros((2, 2, size[1], size[0]))
    np.add.at(expected[0], (p[:-5], y[:-5], x[:-5]), 1)
    np.add.at(expected[1], (p[-5:], y[-5:], x[-5:]), 1)
    for dtype in (np.int16, np.uint32, np.int64, np.float32, np.float64):
        if expected.max() > highest_count(np.dtype(dtype)):
            with pytest.raises(AlignmentError, match="more than 32767 events"):
                count_frames(events, windows, size, dtype)
            continue
        found = count_frames(events, windows, size, dtype)
        assert found.dtype == dtype
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("above", [0, 1])
def test_a_count_through_half_bytes_stops_at_the_limit_of_its_type(above: int) -> None:
    """32,767 fits 16 bits with a sign, one more does not; both polarities of a pixel are apart."""
    size, most = (512, 300), highest_count(np.dtype(np.int16))
    p = np.repeat(np.array([0, 1, 0], np.uint8), [20, most + above, 60_000])
    x = np.repeat(np.array([7, 7, 8], np.uint16), [20, most + above, 60_000])
    x[-60_000:] = 8 + np.arange(60_000) % 400
    events = Events(np.arange(len(p)), x, np.full(len(p), 9, np.uint16), p)
    assert is_full(len(events), np.zeros((2, size[1], size[0]), np.int16))
    windows = np.array([0, len(events)])
    if above:
        with pytest.raises(AlignmentError, match="more than 32767 events"):
            count_frames(events, windows, size, np.int16)
        return
    frame = count_frames(events, windows, size, np.int16)[0]
    assert (frame[0, 9, 7], frame[1, 9, 7]) == (20, most)
    assert (frame[0, 9, 8:408] == 150).all()
    assert int(frame.sum(dtype=np.int64)) == len(events)
