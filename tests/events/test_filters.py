"""Filters remove what they say and nothing else, however the recording is cut."""

from collections.abc import Callable

import numpy as np
import pytest
from event_samples import SMALL as SIZE
from event_samples import random_events
from hypothesis import given, settings
from hypothesis import strategies as st

from outspike.errors import AlignmentError, ConfigError
from outspike.events.columns import Events, concatenate
from outspike.events.filters import (
    BackgroundActivity,
    EventFilter,
    HotPixels,
    Refractory,
    filter_events,
    find_hot_pixels,
)

MAKERS: dict[str, Callable[[], EventFilter]] = {
    "hot": lambda: HotPixels(np.random.default_rng(0).random((SIZE[1], SIZE[0])) < 0.3),
    "background": lambda: BackgroundActivity(SIZE, window_us=3000),
    "refractory": lambda: Refractory(SIZE, period_us=20_000),
}


def rows(events: Events) -> list[tuple[int, ...]]:
    columns = (events.t, events.x, events.y, events.p)
    return list(zip(*(column.tolist() for column in columns), strict=True))


@pytest.mark.parametrize("name", list(MAKERS))
@settings(deadline=None, max_examples=40)
@given(num=st.integers(0, 600), piece=st.integers(1, 600), seed=st.integers(0, 9))
def test_cuts_change_nothing_and_every_removed_event_is_counted(
    name: str, num: int, piece: int, seed: int
) -> None:
    events = random_events(num, seed)
    whole, cut = MAKERS[name](), MAKERS[name]()
    expected = whole.push(events)
    parts = [events.slice(i, min(i + piece, num)) for i in range(0, num, piece)]
    found = concatenate(list(filter_events(parts, [cut])))
    assert rows(found) == rows(expected)
    assert cut.num_removed == whole.num_removed == num - len(expected)


@settings(deadline=None, max_examples=40)
@given(num=st.integers(0, 300), window=st.integers(0, 20_000), seed=st.integers(0, 9))
def test_an_event_stays_if_a_neighbour_was_active_shortly_before(
    num: int, window: int, seed: int
) -> None:
    """The definition, pair by pair."""
    events = random_events(num, seed)
    kept = []
    for i, (t, x, y, p) in enumerate(rows(events)):
        before = rows(events)[:i]
        near = (abs(x - a) <= 1 and abs(y - b) <= 1 and (x, y) != (a, b) for _, a, b, _ in before)
        if any(t - s <= window for (s, *_), close in zip(before, near, strict=True) if close):
            kept.append((t, x, y, p))
    assert rows(BackgroundActivity(SIZE, window_us=window).push(events)) == kept


@settings(deadline=None, max_examples=40)
@given(num=st.integers(0, 400), period=st.integers(0, 100_000), seed=st.integers(0, 9))
def test_a_pixel_rests_after_an_event_that_stayed(num: int, period: int, seed: int) -> None:
    events = random_events(num, seed)
    last: dict[tuple[int, int], int] = {}
    kept = []
    for t, x, y, p in rows(events):
        if (x, y) not in last or t - last[x, y] >= period:
            last[x, y] = t
            kept.append((t, x, y, p))
    assert rows(Refractory(SIZE, period_us=period).push(events)) == kept


def test_a_stuck_pixel_is_hot_and_an_active_region_is_not() -> None:
    """Hot is what stands out from its surroundings, not what is busy together with them."""
    rng = np.random.default_rng(1)
    x = np.concatenate([np.full(900, 2), rng.integers(8, 14, 20_000), np.full(800, 0)])
    y = np.concatenate([np.full(900, 2), rng.integers(4, 10, 20_000), np.full(800, 0)])
    num = len(x)
    events = Events(
        np.arange(num) * 1000, x.astype(np.uint16), y.astype(np.uint16), np.ones(num, np.uint8)
    )
    mask = find_hot_pixels([events.slice(0, 500), events.slice(500, num)], SIZE)
    assert {tuple(place) for place in np.argwhere(mask).tolist()} == {(2, 2), (0, 0)}
    hot = HotPixels(mask)
    assert len(hot.push(events)) == 20_000
    assert hot.num_removed == 1700


def test_rare_events_make_no_pixel_hot() -> None:
    """Thirty events in ten seconds are few, whatever the neighbours do."""
    zeros = np.zeros(30, np.uint16)
    events = Events(np.arange(30) * 350_000, zeros, zeros, np.ones(30, np.uint8))
    assert not find_hot_pixels([events], SIZE).any()
    assert find_hot_pixels([events], SIZE, min_rate_hz=2).any()
    assert not find_hot_pixels([], SIZE).any()


def test_filters_report_side_by_side() -> None:
    filters = [make_one() for make_one in MAKERS.values()]
    left = concatenate(list(filter_events([random_events(2000)], filters)))
    removed = {one.name: one.num_removed for one in filters}
    assert list(removed) == ["hot_pixels", "background_activity", "refractory"]
    assert len(left) + sum(removed.values()) == 2000
    assert all(removed.values())


@pytest.mark.parametrize("name", list(MAKERS))
def test_an_event_outside_the_sensor_is_an_error(name: str) -> None:
    outside = np.array([16], np.uint16)
    event = Events(np.zeros(1, np.int64), outside, outside, np.ones(1, np.uint8))
    with pytest.raises(AlignmentError, match="outside 16x12"):
        MAKERS[name]().push(event)


def test_times_must_not_be_negative() -> None:
    with pytest.raises(ConfigError, match="window_us=-1"):
        BackgroundActivity(SIZE, window_us=-1)
    with pytest.raises(ConfigError, match="period_us=-1"):
        Refractory(SIZE, period_us=-1)
