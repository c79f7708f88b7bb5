"""Voxel grids and time surfaces hold what their definitions say, in any chunking."""

import numpy as np
import pytest
from event_samples import SMALL as SIZE
from event_samples import random_events
from hypothesis import given
from hypothesis import strategies as st

from outspike.errors import AlignmentError, ConfigError
from outspike.events.columns import Events
from outspike.events.surfaces import SHARE_BITS, TimeSurface, add_voxels, voxel_grid


@given(num=st.integers(1, 300), bins=st.integers(1, 9))
def test_a_voxel_grid_keeps_the_sum_of_polarities_exactly(num: int, bins: int) -> None:
    events = random_events(num)
    assert voxel_grid(events, bins, SIZE).sum(dtype=np.float64) == 2 * int(events.p.sum()) - num


@given(num=st.integers(1, 200), bins=st.integers(1, 9), seed=st.integers(0, 20))
def test_a_voxel_grid_is_the_definition_within_a_share(num: int, bins: int, seed: int) -> None:
    events = random_events(num, seed)
    span = max(1, int(events.t[-1] - events.t[0]))
    place = (events.t - events.t[0]) / span * (bins - 1)
    expected = np.zeros((bins, SIZE[1], SIZE[0]))
    for one in range(bins):
        weight = np.maximum(0, 1 - np.abs(place - one)) * np.where(events.p, 1, -1)
        np.add.at(expected[one], (events.y, events.x), weight)
    found = voxel_grid(events, bins, SIZE)
    most = np.bincount(events.y.astype(int) * SIZE[0] + events.x).max()
    assert np.abs(found - expected).max() <= most * 2.0**-SHARE_BITS + 1e-6


@given(cut=st.integers(0, 200), order=st.randoms(use_true_random=False))
def test_voxels_do_not_depend_on_cuts_or_order(cut: int, order) -> None:
    """Sums are of integers, so that parts, threads and devices agree bit for bit."""
    events = random_events(200)
    whole = np.zeros((5, SIZE[1], SIZE[0]), np.int64)
    add_voxels(events, whole, span_us=(0, 1_000_000))
    shuffled = list(range(200))
    order.shuffle(shuffled)
    mixed = Events(*(getattr(events, key)[shuffled] for key in ("t", "x", "y", "p")))
    parts = np.zeros_like(whole)
    add_voxels(mixed.slice(0, cut), parts, span_us=(0, 1_000_000))
    add_voxels(mixed.slice(cut, 200), parts, span_us=(0, 1_000_000))
    np.testing.assert_array_equal(parts, whole)


def test_events_outside_the_span_are_an_error() -> None:
    with pytest.raises(AlignmentError, match="span from 0 to 10"):
        voxel_grid(random_events(50), 3, SIZE, span_us=(0, 10))


def test_a_grid_needs_a_bin() -> None:
    with pytest.raises(ConfigError, match="num_bins=0"):
        voxel_grid(random_events(5), 0, SIZE)


@given(num=st.integers(1, 200), cut=st.integers(0, 200))
def test_a_time_surface_tells_the_age_of_the_last_event(num: int, cut: int) -> None:
    events = random_events(num)
    surface = TimeSurface(SIZE, decay_us=50_000)
    surface.push(events.slice(0, cut))
    surface.push(events.slice(cut, num))
    expected = np.zeros((2, SIZE[1], SIZE[0]))
    for t, x, y, p in zip(events.t, events.x, events.y, events.p, strict=True):
        expected[p, y, x] = np.exp((t - 1_000_000) / 50_000)
    np.testing.assert_allclose(surface.at(1_000_000), expected, rtol=1e-6)


def test_a_time_surface_cannot_be_asked_about_the_past() -> None:
    surface = TimeSurface(SIZE, decay_us=1000)
    surface.push(random_events(10))
    with pytest.raises(AlignmentError, match="was asked for after"):
        surface.at(0)
