"""False alarms an hour at a chosen share of caught intervals."""

from collections.abc import Callable

import numpy as np
import pytest

from outspike.evaluate.alarms import AlarmTable
from outspike.evaluate.evaluate import evaluate
from outspike.evaluate.frames import on_frames, to_runs
from outspike.evaluate.protocols import PROTOCOLS, Protocol
from outspike.scoring.scores import VideoScores

FOLDER = PROTOCOLS["folder"]
MakeVideo = Callable[..., VideoScores]


def table(videos: list[VideoScores], protocol: Protocol = FOLDER) -> AlarmTable:
    frames = [on_frames(video, protocol) for video in videos]
    return AlarmTable(to_runs(frames), [float(video.fps) for video in videos])


def test_adjacent_alarm_frames_are_one_alarm_and_one_that_touches_an_anomaly_is_true(
    make_video: MakeVideo,
) -> None:
    """An alarm that starts before the anomaly and runs into it is no false alarm."""
    videos = [
        make_video("normal", [0.9, 0.8, 0.1, 0.7, 0.1], fps=16),
        make_video("anomalous", [0.6, 0.7, 0.1, 0.9], intervals=((16, 32),), fps=16),
    ]
    found = table(videos)
    assert found.num_intervals == 1
    assert found.threshold(np.ones(2), 1.0) == pytest.approx(0.7)
    # At 0.7: [0, 2) and [3, 4) of the normal video, [3, 4) of the anomalous one; 9 s of footage.
    assert found.per_hour(np.ones((1, 2)), 1.0)[0] == pytest.approx(3 * 3600 / 9)
    assert found.per_hour(np.array([[0.0, 1.0]]), 1.0)[0] == pytest.approx(3600 / 4)
    assert np.isnan(found.per_hour(np.array([[1.0, 0.0]]), 1.0)[0])


def test_the_threshold_is_the_highest_that_catches_the_share(make_video: MakeVideo) -> None:
    """Of ten intervals a recall of 0.8 needs eight, not nine."""
    peaks = np.linspace(0.95, 0.5, 10)
    videos = [
        make_video(f"v{i}", [0.1, peak], intervals=((16, 32),)) for i, peak in enumerate(peaks)
    ]
    found = table(videos)
    assert found.threshold(np.ones(10), 0.8) == pytest.approx(peaks[7])
    assert found.threshold(np.ones(10), 1.0) == pytest.approx(peaks[9])
    recall, per_hour = found.curve(np.ones(10))
    assert recall == pytest.approx(np.arange(1, 11) / 10)
    assert (np.diff(per_hour) >= 0).all()
    results = evaluate(videos, FOLDER, num_resamples=0)
    assert results.alarm_threshold == pytest.approx(peaks[7])
    assert results.metrics["false_alarms_per_hour"].value == 0


def test_a_gap_of_unscored_frames_ends_an_alarm(make_video: MakeVideo) -> None:
    """What lies in the gap was never looked at, so two alarms around it are two."""
    video = make_video("gap", [0.9, 0.9, 0.95], fps=16)
    parts = {**vars(video), "scores": video.scores[[0, 2]], "start": video.start[[0, 2]]}
    gap = VideoScores(**{**parts, "stop": video.stop[[0, 2]]})
    caught = make_video("caught", [0.5], intervals=((0, 16),), fps=16)
    covered = Protocol(name="t", dataset="*", frame_rule="covered_frames")
    hours = 3 / 3600
    assert table([video, caught]).per_hour(np.ones((1, 2)), 1.0)[0] == pytest.approx(
        1 / (hours + 1 / 3600)
    )
    assert table([gap, caught], covered).per_hour(np.ones((1, 2)), 1.0)[0] == pytest.approx(
        2 / hours
    )


def test_the_count_equals_a_walk_over_the_frames(
    make_set: Callable[..., list[VideoScores]],
) -> None:
    """On made-up videos the table equals a plain loop at every threshold."""
    videos = make_set(10, seed=4)
    found = table(videos)
    recall, per_hour = found.curve(np.ones(len(videos)))
    hours = sum(video.num_frames / float(video.fps) for video in videos) / 3600
    for threshold, expected in zip(found.thresholds, per_hour, strict=True):
        assert _walk(videos, threshold) / hours == pytest.approx(expected)
    assert recall[-1] == 1


def _walk(videos: list[VideoScores], threshold: float) -> int:
    false = 0
    for video in videos:
        intervals = video.intervals or ()
        running = touched = False
        for frame, score in enumerate([*video.frame_scores(), -1.0]):
            if score >= threshold:
                running = True
                touched |= any(first <= frame < last for first, last in intervals)
            elif running:
                false += not touched
                running = touched = False
    return false
