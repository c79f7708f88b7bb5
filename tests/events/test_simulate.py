"""Simulated events follow the light, whatever the chunks."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outspike.errors import ConfigError
from outspike.events.simulate import (
    IefThresholdCounter,
    LogEventSimulator,
    grey,
    ief_event_images,
    ief_threshold_counts,
    spread_counts,
)


def walk(num_frames: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    steps = rng.normal(0, 25, (num_frames, 6, 5)).cumsum(axis=0)
    return np.clip(120 + steps, 0, 255).astype(np.float32)


@given(num_frames=st.integers(1, 20), cut=st.integers(0, 20), seed=st.integers(0, 100))
def test_chunks_do_not_change_events(num_frames: int, cut: int, seed: int) -> None:
    """One frame of memory is carried over."""
    frames = walk(num_frames, seed)
    whole = LogEventSimulator().push(frames)
    parts = LogEventSimulator()
    halves = [parts.push(frames[:cut]), parts.push(frames[cut:])]
    np.testing.assert_array_equal(np.concatenate(halves), whole)


@given(num_frames=st.integers(2, 20), seed=st.integers(0, 100))
def test_signed_events_add_up_to_the_change_of_log_intensity(num_frames: int, seed: int) -> None:
    """What is not yet told is less than one threshold per pixel; slow changes are not lost."""
    frames = walk(num_frames, seed)
    counts = LogEventSimulator(threshold=0.15, offset=0.05).push(frames).astype(int)
    told = 0.15 * (counts[:, 1] - counts[:, 0]).sum(axis=0)
    level = np.log(frames / 255 + 0.05)
    assert np.abs(level[-1] - level[0] - told).max() < 0.15 + 1e-4


def test_the_first_frame_and_stillness_give_no_events() -> None:
    counts = LogEventSimulator().push(np.full((5, 4, 4), 130, dtype=np.float32))
    assert counts.shape == (5, 2, 4, 4)
    assert not counts.any()


def test_brighter_is_on_and_darker_is_off() -> None:
    frames = np.full((3, 1, 1), 50, dtype=np.float32)
    frames[1] = 200
    off, on = LogEventSimulator().push(frames)[:, :, 0, 0].T.tolist()
    assert on[1] > 0
    assert off[2] > 0
    assert (on[0], on[2], off[0], off[1]) == (0, 0, 0, 0)


def test_spread_events_keep_counts_and_stay_in_their_frame() -> None:
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 4, (2, 5, 7)).astype(np.uint16)
    events = spread_counts(counts, 1000, 2000, rng)
    assert len(events) == counts.sum()
    assert (np.diff(events.t) >= 0).all()
    assert 1000 <= events.t.min() <= events.t.max() < 2000
    again = np.zeros_like(counts)
    np.add.at(again, (events.p, events.y, events.x), 1)
    np.testing.assert_array_equal(again, counts)


def test_settings_must_be_positive() -> None:
    with pytest.raises(ConfigError, match="threshold=0"):
        LogEventSimulator(threshold=0)


def test_grey_weighs_the_channels() -> None:
    colours = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]], dtype=np.uint8)
    np.testing.assert_allclose(grey(colours), [76.2195, 149.685, 29.07], rtol=1e-6)


def test_snippet_counts_are_strict_and_stop_at_snippet_borders() -> None:
    """A change of exactly the threshold does not count, nor does one between two snippets."""
    frames = np.zeros((2, 3, 1, 1, 3), dtype=np.uint8)
    frames[0, 1:] = 100  # one change inside the first snippet
    frames[1] = 7  # a change between the snippets only
    assert ief_threshold_counts(frames, 10).ravel().tolist() == [1, 0]
    assert ief_threshold_counts(frames, 101).ravel().tolist() == [0, 0]


def test_images_are_scaled_by_their_buffer_and_static_ones_are_zero() -> None:
    counts = np.array([[[0.0, 3.0]], [[6.0, 15.0]]], dtype=np.float32)
    images = ief_event_images(counts, tail=False)
    assert images.shape == (2, 3, 1, 2)
    assert images.max() == 1
    np.testing.assert_allclose(images[:, 0].ravel(), [0, 0.2, 0.4, 1])
    assert not ief_event_images(np.zeros_like(counts), tail=True).any()
    assert np.isnan(ief_event_images(np.zeros_like(counts), tail=True, static="nan")).all()


@st.composite
def videos(draw: st.DrawFn) -> np.ndarray:
    """Frames whose luma often moves by about the threshold."""
    shape = (draw(st.integers(0, 40)), draw(st.integers(1, 4)), draw(st.integers(1, 9)), 3)
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    steps = rng.integers(-14, 15, shape).cumsum(axis=0)
    return np.clip(128 + steps, 0, 255).astype(np.uint8)


@given(frames=videos(), threshold=st.sampled_from([0.0, 1.0, 10.0, 10.5, 25.0]))
def test_snippet_counts_are_those_of_the_published_arithmetic(
    frames: np.ndarray, threshold: float
) -> None:
    """Luma, difference and comparison in float32, to the last bit."""
    snippets = frames[None]
    moved = np.abs(np.diff(grey(snippets), axis=1)) > np.float32(threshold)
    expected = moved.sum(axis=1, dtype=np.float32)
    np.testing.assert_array_equal(ief_threshold_counts(snippets, threshold), expected)


@given(frames=videos(), num=st.integers(1, 9), cuts=st.lists(st.integers(0, 40), max_size=5))
def test_streamed_snippet_counts_equal_those_of_the_whole(
    frames: np.ndarray, num: int, cuts: list[int]
) -> None:
    """Whatever the pieces; the short snippet at the end is there for who asks for it."""
    counter = IefThresholdCounter(num)
    edges = [0, *sorted(min(cut, len(frames)) for cut in cuts), len(frames)]
    found = [counter.push(frames[a:b]) for a, b in pairwise(edges)]
    whole = len(frames) // num
    expected = ief_threshold_counts(frames[: whole * num].reshape(whole, num, *frames.shape[1:]))
    np.testing.assert_array_equal(np.concatenate(found), expected)
    assert counter.num_pending == len(frames) - whole * num
    if counter.num_pending:
        rest = ief_threshold_counts(frames[None, whole * num :])[0]
        np.testing.assert_array_equal(counter.take_pending(), rest)
    with pytest.raises(ConfigError, match="No frame is pending"):
        counter.take_pending()


def test_a_snippet_has_frames() -> None:
    with pytest.raises(ConfigError, match="num_frames=0"):
        IefThresholdCounter(0)
