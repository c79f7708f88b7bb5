"""Event integration under every window rule (``msf/events.npz``): the same integers."""

import re

import numpy as np
import pytest

from outspike.events.columns import Events
from outspike.events.frames import (
    count_frames,
    windows_anchored_on_events,
    windows_by_number,
    windows_by_time,
    windows_on_grid,
)
from outspike.events.resize import resize_counts


def recording(golden) -> tuple[Events, tuple[int, int]]:
    events = Events(
        golden["in/t"].astype(np.int64),
        golden["in/x"].astype(np.uint16),
        golden["in/y"].astype(np.uint16),
        golden["in/p"].astype(np.uint8),
    )
    height, width = golden["in/height_width"].tolist()
    return events, (width, height)


def numbered(golden, pattern: str) -> list[tuple[str, int]]:
    """Keys that match, with the number in them."""
    found = [(key, match) for key in golden if (match := re.fullmatch(pattern, key))]
    assert found, pattern
    return [(key, int(match[1])) for key, match in found]


@pytest.mark.golden("msf/events*.npz")
def test_frames_by_number_equal_the_reference(golden):
    """Equally many events a frame; the last frame takes the rest."""
    events, size = recording(golden)
    for key, number in numbered(golden, r"out/by_number_(\d+)"):
        frames = count_frames(events, windows_by_number(len(events), number), size)
        np.testing.assert_array_equal(frames, golden[key])


@pytest.mark.golden("msf/events*.npz")
def test_frames_by_time_equal_the_reference(golden):
    """Equal durations over the span of the events."""
    events, size = recording(golden)
    for key, number in numbered(golden, r"out/by_time_(\d+)"):
        used = events.slice(0, int(golden.number(f"{key}_uses_first_n_events")))
        frames = count_frames(used, windows_by_time(used.t, number), size)
        np.testing.assert_array_equal(frames, golden[key])


@pytest.mark.golden("msf/events*.npz")
def test_frames_by_duration_equal_the_old_rule(golden):
    """Windows that begin at the first unused event, so that silence vanishes."""
    events, size = recording(golden)
    for key, duration in numbered(golden, r"out/by_duration_(\d+)_anchored_on_events"):
        frames = count_frames(events, windows_anchored_on_events(events.t, duration), size)
        np.testing.assert_array_equal(frames, golden[key])
    for key, duration in numbered(golden, r"out/by_duration_(\d+)_anchored_on_events_frame_sums"):
        frames = count_frames(events, windows_anchored_on_events(events.t, duration), size)
        np.testing.assert_array_equal(frames.sum(axis=(2, 3)), golden[key])


@pytest.mark.golden("msf/events*.npz")
def test_the_regular_grid_keeps_silence(golden):
    """Windows anchored at recording time 0; empty ones stay."""
    events, size = recording(golden)
    for key, duration in numbered(golden, r"out/by_duration_(\d+)_regular_grid"):
        frames = count_frames(
            events, windows_on_grid(events.t, duration, anchor_us=int(events.t[0])), size
        )
        np.testing.assert_array_equal(frames, golden[key])


@pytest.mark.golden("msf/events*.npz")
def test_the_resize_of_counts_equals_the_reference(golden):
    """Bilinear in float64, no antialiasing."""
    pattern = r"out/resized_\d+x\d+_of_by_number_(\d+)"
    for key, number in numbered(golden, pattern):
        height, width = golden[key].shape[-2:]
        resized = resize_counts(golden[f"out/by_number_{number}"], (width, height))
        np.testing.assert_allclose(resized, golden[key], rtol=1e-12, atol=1e-12)
