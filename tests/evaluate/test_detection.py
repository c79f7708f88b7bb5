"""Temporal detection mAP."""

from collections.abc import Callable

import numpy as np
import pytest

from outspike.evaluate.detection import detection_map, match, non_maximum_suppression, propose
from outspike.evaluate.evaluate import evaluate
from outspike.evaluate.protocols import PROTOCOLS
from outspike.scoring.scores import VideoScores


def bump(num_frames: int, *spans: tuple[int, int, float]) -> np.ndarray:
    scores = np.full(num_frames, 0.1)
    for start, stop, height in spans:
        scores[start:stop] = height
    return scores


def test_runs_above_the_threshold_become_proposals_best_first() -> None:
    """Threshold max - 0.6 (max - min); the score adds 0.7 of the video's own."""
    rows = propose(bump(160, (10, 40, 0.8), (80, 120, 0.9), (140, 141, 0.9)))
    assert rows[:, :2].tolist() == [[80, 120], [10, 40]]
    assert rows[0, 2] == pytest.approx(0.9 + 0.7 * 0.9)
    assert rows[1, 2] == pytest.approx(0.8 + 0.7 * 0.9)
    assert len(propose(np.full(64, 0.5))) == 0
    assert len(propose(np.zeros(0))) == 0


def test_a_video_below_sixteen_frames_has_a_score_unless_parity_asks_for_none() -> None:
    """The published top share of a short video is empty; ours counts one frame."""
    short = bump(10, (4, 8, 0.9))
    assert propose(short)[0, 2] == pytest.approx(0.9 * 1.7)
    assert len(propose(short, published=True)) == 0


def test_suppression_keeps_what_overlaps_no_better_one() -> None:
    """Overlap is intersection over union of the spans; exactly the limit is kept."""
    segments = np.array([[0, 100], [0, 60], [10, 90], [200, 300]], dtype=float)
    assert non_maximum_suppression(segments, 0.6) == [0, 1, 3]


def test_a_ground_truth_is_taken_once_and_by_the_best_overlap() -> None:
    """The second proposal on the same segment is a false one."""
    rows = [np.array([[0, 100, 0.9], [5, 100, 0.8]]), np.array([[0, 50, 0.7]])]
    found = match(rows, [[(0, 98)], []], 0.5)
    assert found.hit.tolist() == [True, False, False]
    assert found.average_precision(np.ones((1, 2)))[0] == 1.0
    assert np.isnan(found.average_precision(np.array([[0.0, 1.0]]))[0])


def test_classes_without_ground_truth_or_proposals_do_not_spoil_the_mean() -> None:
    """By default the mean is over classes with ground truth; parity keeps the published rule."""
    scores = np.stack(
        [bump(160, (20, 60, 0.9)), np.full(160, 0.3), bump(160, (20, 60, 0.9))], axis=1
    )
    segments = [[(20, 60, 0), (100, 120, 1)]]
    assert detection_map([scores], segments, [0.5]) == [0.5]
    assert detection_map([scores], segments, [0.5], compat="ief_vad_2025") == [0.0]
    lively = np.stack([bump(160, (20, 60, 0.9))] * 3, axis=1)
    assert detection_map([lively], [[(20, 60, 0)]], [0.5]) == [1.0]
    assert detection_map([lively], [[(20, 60, 0)]], [0.5], compat="ief_vad_2025") == [
        pytest.approx(1 / 3)
    ]
    assert np.isnan(detection_map([lively], [[]], [0.5])[0])


def test_results_carry_the_map_at_each_overlap_and_its_mean(
    make_set: Callable[..., list[VideoScores]],
) -> None:
    """The headline figure is the mean of the listed ones, and an overlap asked higher hits less."""
    results = evaluate(make_set(20, separation=0.6), PROTOCOLS["folder"], num_resamples=20)
    assert results.detection_by_iou is not None
    values = list(results.detection_by_iou.values())
    assert results.metrics["detection_map"].value == pytest.approx(np.mean(values))
    assert values == sorted(values, reverse=True)
    assert values[0] > 0.5
