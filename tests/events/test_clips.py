"""A recording of any length becomes the frames that counting it whole would give."""

from pathlib import Path

import numpy as np
import pytest
from event_samples import SMALL as SIZE
from event_samples import random_events
from hypothesis import given, settings
from hypothesis import strategies as st

from outspike.errors import AlignmentError, ConfigError
from outspike.events.clips import FullCounts, grid_frames, read_clips
from outspike.events.columns import Events
from outspike.events.frames import count_frames, windows_on_grid
from outspike.events.reader import open_events
from outspike.events.resize import resize_counts
from outspike.events.write import write_events


@settings(deadline=None)
@given(
    num=st.integers(1, 300),
    duration=st.integers(900, 400_000),
    piece=st.integers(1, 300),
    more=st.integers(0, 3),
)
def test_streamed_frames_equal_those_of_the_whole(
    num: int, duration: int, piece: int, more: int
) -> None:
    """Whatever the chunks; silence at both ends and in between keeps its frames."""
    events = random_events(num)
    needed = int(events.t[-1]) // duration + 1 + more
    expected = count_frames(
        events, windows_on_grid(events.t, duration, anchor_us=0, num_windows=needed), SIZE
    )
    chunks = (events.slice(i, min(i + piece, num)) for i in range(0, num, piece))
    found = grid_frames(
        chunks, FullCounts(SIZE), duration_us=duration, anchor_us=0, num_windows=needed
    )
    np.testing.assert_array_equal(np.stack(list(found)), expected)


def test_without_a_start_the_first_event_is_it() -> None:
    events = random_events(50)
    frames = list(grid_frames([events], FullCounts(SIZE), duration_us=10_000))
    expected = count_frames(
        events, windows_on_grid(events.t, 10_000, anchor_us=int(events.t[0])), SIZE
    )
    np.testing.assert_array_equal(np.stack(frames), expected)


def test_a_late_event_joins_the_window_that_is_open() -> None:
    """Jitter across a border is not lost and does not reopen a window that is gone."""
    zero = np.zeros(3, np.uint16)
    events = Events(np.array([90, 101, 95]), zero, zero, np.ones(3, np.uint8))
    for chunks in ([events], [events.slice(0, 2), events.slice(2, 3)]):
        frames = list(grid_frames(chunks, FullCounts(SIZE), duration_us=100, anchor_us=0))
        assert [int(frame.sum()) for frame in frames] == [1, 2]


def test_no_events_give_no_frames_but_those_asked_for() -> None:
    assert not list(grid_frames([], FullCounts(SIZE), duration_us=10))
    silent = list(grid_frames([], FullCounts(SIZE), duration_us=10, num_windows=3))
    assert len(silent) == 3
    assert not np.any(silent)


def test_events_before_the_start_or_after_the_end_are_errors() -> None:
    with pytest.raises(AlignmentError, match="before the start"):
        list(grid_frames([random_events(5)], FullCounts(SIZE), duration_us=10, anchor_us=10**7))
    with pytest.raises(AlignmentError, match="the recording has 2"):
        list(
            grid_frames(
                [random_events(5)], FullCounts(SIZE), duration_us=10, anchor_us=0, num_windows=2
            )
        )
    with pytest.raises(ConfigError, match="duration_us=0"):
        list(grid_frames([random_events(5)], FullCounts(SIZE), duration_us=0))


def test_clips_of_a_file_are_resized_frames_in_groups(tmp_path: Path) -> None:
    """The last clip is as short as the recording makes it; none is padded."""
    events = random_events(4000)
    path = tmp_path / "a.raw"
    write_events(path, events, format="evt3", size=SIZE, anchor_us=0, duration_us=1_000_000)
    clips = list(read_clips(open_events(str(path)), (8, 6), chunk_events=333))
    frames = count_frames(
        events, windows_on_grid(events.t, 33_333, anchor_us=0, num_windows=31), SIZE
    )
    assert [len(clip) for clip in clips] == [16, 15]
    expected = resize_counts(frames, (8, 6)).astype(np.float32)
    np.testing.assert_array_equal(np.concatenate(clips), expected)


def test_clips_need_the_size_of_the_sensor(tmp_path: Path) -> None:
    path = tmp_path / "a.raw"
    path.write_bytes(b"% evt 3.0\n% end\n" + np.array([0x8001, 0x2001], "<u2").tobytes())
    with pytest.raises(ConfigError, match="give it as WxH"):
        next(read_clips(open_events(str(path))))
