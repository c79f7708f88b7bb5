"""Promises of the time base: rows tile frames, clocks are exact, nothing is cut in silence."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outspike.errors import AlignmentError, ConfigError
from outspike.timebase import DVS_FPS, EventClock, SnippetGrid, frame_labels, scores_to_frames

grids = st.integers(1, 40).flatmap(
    lambda size: st.builds(
        SnippetGrid, snippet_frames=st.just(size), stride=st.integers(1, size), tail=st.just("keep")
    )
)


@given(grid=grids, num_frames=st.integers(0, 3000))
def test_keep_covers_every_frame_of_the_recording(grid: SnippetGrid, num_frames: int) -> None:
    start, stop = grid.ranges(num_frames)
    assert len(start) == grid.num_snippets(num_frames)
    covered = np.zeros(num_frames, dtype=bool)
    for a, b in zip(start, stop, strict=True):
        assert 0 <= a < b <= num_frames
        covered[a:b] = True
    assert covered.all()


@given(grid=grids, num_frames=st.integers(1, 3000))
def test_keep_adds_no_row_whose_frames_are_already_covered(
    grid: SnippetGrid, num_frames: int
) -> None:
    start, stop = grid.ranges(num_frames)
    assert (np.diff(stop) > 0).all()
    assert (np.diff(start) == grid.stride).all()


@given(size=st.integers(1, 40), num_frames=st.integers(0, 3000))
def test_equal_stride_tiles_without_overlap(size: int, num_frames: int) -> None:
    start, stop = SnippetGrid(snippet_frames=size, stride=size).ranges(num_frames)
    assert (start[1:] == stop[:-1]).all()
    assert int((stop - start).sum()) == num_frames


@pytest.mark.parametrize(("num_frames", "expected"), [(15, 0), (16, 1), (31, 1), (32, 2)])
def test_drop_keeps_full_snippets_only(num_frames: int, expected: int) -> None:
    assert SnippetGrid(tail="drop").num_snippets(num_frames) == expected


@pytest.mark.parametrize(("num_frames", "expected"), [(16, 0), (17, 1), (512, 32), (528, 32)])
def test_the_published_tail_rule_loses_a_rest_of_exactly_one_snippet(
    num_frames: int, expected: int
) -> None:
    assert SnippetGrid(tail="ief_vad_2025").num_snippets(num_frames) == expected


def test_a_stride_that_leaves_gaps_is_refused() -> None:
    with pytest.raises(ConfigError, match="no score"):
        SnippetGrid(snippet_frames=16, stride=17)


def test_a_dvs_snippet_is_533328_microseconds() -> None:
    clock = EventClock(fps=DVS_FPS, anchor_us=0)
    times = np.array([0, 33_332, 33_333, 533_327, 533_328], dtype=np.int64)
    assert clock.frame_of(times).tolist() == [0, 0, 1, 15, 16]


@given(
    anchor=st.integers(0, 2**51),
    offset=st.integers(0, 10**10),
    fps=st.sampled_from([Fraction(25), Fraction(30_000, 1001), DVS_FPS, Fraction(10)]),
)
def test_the_clock_equals_exact_rational_arithmetic(
    anchor: int, offset: int, fps: Fraction
) -> None:
    clock = EventClock(fps=fps, anchor_us=anchor)
    frame = int(clock.frame_of(np.array([anchor + offset], dtype=np.int64))[0])
    assert frame == (offset * fps) // 1_000_000
    assert clock.time_of(frame) <= anchor + offset < clock.time_of(frame + 1)


def test_an_event_before_the_anchor_is_an_error() -> None:
    with pytest.raises(AlignmentError, match="before the recording start"):
        EventClock(fps=Fraction(30), anchor_us=100).frame_of(np.array([99], dtype=np.int64))


def test_times_that_would_overflow_are_an_error() -> None:
    with pytest.raises(AlignmentError, match="overflow"):
        EventClock(fps=DVS_FPS, anchor_us=0).frame_of(np.array([2**62], dtype=np.int64))


@pytest.mark.parametrize("interval", [(-1, 4), (4, 4), (5, 11)])
def test_an_annotation_outside_the_recording_is_an_error(interval: tuple[int, int]) -> None:
    with pytest.raises(AlignmentError, match="10 frames"):
        frame_labels([interval], 10)


def test_intervals_are_painted_half_open() -> None:
    assert frame_labels([(1, 3), (4, 5)], 6).tolist() == [0, 1, 1, 0, 1, 0]


@given(grid=grids, num_frames=st.integers(1, 400), seed=st.integers(0, 99))
def test_frame_scores_are_the_mean_of_covering_snippets(
    grid: SnippetGrid, num_frames: int, seed: int
) -> None:
    start, stop = grid.ranges(num_frames)
    scores = np.random.default_rng(seed).random(len(start))
    frames = scores_to_frames(scores, start, stop, num_frames)
    for frame in range(num_frames):
        covering = (start <= frame) & (frame < stop)
        assert frames[frame] == pytest.approx(scores[covering].mean(), rel=1e-12)


def test_disjoint_scores_are_copied_bit_for_bit() -> None:
    start, stop = SnippetGrid().ranges(40)
    scores = np.array([0.1, 0.2, 0.3])
    assert scores_to_frames(scores, start, stop, 40)[[0, 16, 39]].tolist() == [0.1, 0.2, 0.3]


def test_a_frame_without_a_score_is_an_error() -> None:
    start, stop = SnippetGrid(tail="drop").ranges(40)
    with pytest.raises(AlignmentError, match="8 of 40 frames"):
        scores_to_frames(np.zeros(2), start, stop, 40)


def test_a_length_mismatch_is_an_error_and_never_a_slice() -> None:
    start, stop = SnippetGrid().ranges(32)
    with pytest.raises(AlignmentError, match="3 scores, 2 starts"):
        scores_to_frames(np.zeros(3), start, stop, 32)
