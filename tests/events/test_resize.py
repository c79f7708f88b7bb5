"""Counting at the encoder's size equals counting first and resizing then."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outspike.errors import AlignmentError
from outspike.events.columns import Events
from outspike.events.frames import count_frames, windows_by_number
from outspike.events.resize import ResizedCounts, count_frames_resized, resize_counts


def make(num: int, size: tuple[int, int], seed: int) -> Events:
    rng = np.random.default_rng(seed)
    return Events(
        np.sort(rng.integers(0, 10**6, num)),
        rng.integers(0, size[0], num).astype(np.uint16),
        rng.integers(0, size[1], num).astype(np.uint16),
        rng.integers(0, 2, num).astype(np.uint8),
    )


def by_matrices(frames: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The resize as two interpolation matrices."""

    def weights(num_in: int, num_out: int) -> np.ndarray:
        source = np.maximum((np.arange(num_out) + 0.5) * (num_in / num_out) - 0.5, 0.0)
        low = np.minimum(source.astype(int), num_in - 1)
        matrix = np.zeros((num_out, num_in))
        np.add.at(matrix, (np.arange(num_out), low), 1 - (source - low))
        np.add.at(matrix, (np.arange(num_out), np.minimum(low + 1, num_in - 1)), source - low)
        return matrix

    height, width = frames.shape[-2:]
    return weights(height, size[1]) @ frames.astype(float) @ weights(width, size[0]).T


sides = st.tuples(st.integers(1, 60), st.integers(1, 60))


@settings(deadline=None)
@given(size=sides, resized=sides, num=st.integers(3, 400), seed=st.integers(0, 9))
def test_counting_small_equals_counting_large_bit_for_bit(
    size: tuple[int, int], resized: tuple[int, int], num: int, seed: int
) -> None:
    """Smaller, larger or equal: the same counts meet the same weights."""
    events = make(num, size, seed)
    windows = windows_by_number(num, 3)
    small = count_frames_resized(events, windows, size, resized)
    large = resize_counts(count_frames(events, windows, size), resized)
    np.testing.assert_array_equal(small, large)


@settings(deadline=None)
@given(size=sides, resized=sides, seed=st.integers(0, 9))
def test_the_resize_is_bilinear(size: tuple[int, int], resized: tuple[int, int], seed: int) -> None:
    frames = np.random.default_rng(seed).integers(0, 9, (2, size[1], size[0]))
    found = resize_counts(frames, resized)
    np.testing.assert_allclose(found, by_matrices(frames, resized), rtol=1e-12, atol=1e-12)


def test_a_canvas_is_empty_after_it_was_taken() -> None:
    canvas = ResizedCounts((40, 30), (8, 8))
    canvas.add(make(500, (40, 30), 0))
    assert canvas.take().any()
    assert not canvas.take().any()


def test_an_event_outside_the_sensor_is_an_error() -> None:
    with pytest.raises(AlignmentError, match="outside 20x20"):
        ResizedCounts((20, 20), (8, 8)).add(make(500, (40, 30), 0))
