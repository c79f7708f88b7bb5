"""Frame and video metrics against their definitions and against scikit-learn."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import auc as area
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from outspike.errors import AlignmentError
from outspike.evaluate.evaluate import evaluate
from outspike.evaluate.frames import is_abnormal, on_frames
from outspike.evaluate.metrics import Evaluated, Ranking, statistic, video_score
from outspike.evaluate.protocols import PROTOCOLS, MetricName, Protocol
from outspike.scoring.scores import VideoScores

FOLDER = PROTOCOLS["folder"]


def prepared(videos: list[VideoScores], protocol: Protocol = FOLDER) -> Evaluated:
    return Evaluated([on_frames(video, protocol) for video in videos], protocol)


def value(videos: list[VideoScores], name: MetricName, protocol: Protocol = FOLDER) -> float:
    found = statistic(name, prepared(videos, protocol))
    assert found.undefined is None, found.undefined
    return found.value(len(videos))


def pooled(videos: list[VideoScores]) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    labels = []
    for video in videos:
        frames = np.arange(video.num_frames)
        inside = [(frames >= a) & (frames < b) for a, b in video.intervals or ()]
        labels.append(np.any([*inside, np.zeros(video.num_frames, dtype=bool)], axis=0))
    return np.concatenate(labels), np.concatenate([video.frame_scores() for video in videos])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.integers(0, 4), st.integers(0, 4), st.integers(0, 2)),
        min_size=1,
        max_size=12,
    ),
    st.lists(st.integers(0, 3), min_size=3, max_size=3),
)
def test_a_ranking_equals_the_pairwise_definition_under_any_weights(
    rows: list[tuple[int, int, int, int]], weights: list[int]
) -> None:
    """AUC is the share of (positive, negative) pairs in the right order, ties half."""
    score, positive, negative, video = (np.array(column) for column in zip(*rows, strict=True))
    weight = np.array(weights)[video]
    ones = np.repeat(score, weight * positive)
    zeros = np.repeat(score, weight * negative)
    ranking = Ranking(score.astype(float), positive.astype(float), negative.astype(float), video)
    auc = ranking.auc(np.array([weights], dtype=float))[0]
    if not len(ones) or not len(zeros):
        assert np.isnan(auc)
        return
    order = ones[:, None] - zeros[None, :]
    assert auc == pytest.approx(((order > 0) + (order == 0) / 2).mean(), abs=1e-12)
    labels, scores = np.repeat([1, 0], [len(ones), len(zeros)]), np.concatenate([ones, zeros])
    ap = ranking.average_precision(np.array([weights], dtype=float))[0]
    assert ap == pytest.approx(average_precision_score(labels, scores), abs=1e-12)


def test_the_trapezoid_form_of_ap_equals_scikit_learn(
    make_set: Callable[..., list[VideoScores]],
) -> None:
    """Linear interpolation between thresholds, ties included; weights are repeated videos."""
    videos = make_set(7, seed=5)
    videos = [dataclasses.replace(v, scores=np.round(v.scores, 1)) for v in videos]
    labels, scores = pooled(videos)
    precision, recall, _ = precision_recall_curve(labels, scores)
    expected = area(recall, precision)
    assert value(videos, "ap_trapezoid") == pytest.approx(expected, abs=1e-12)
    weights = np.array([0, 2, 1, 0, 1, 3, 1])
    repeated = [v for v, count in zip(videos, weights, strict=True) for _ in range(count)]
    precision, recall, _ = precision_recall_curve(*pooled(repeated))
    found = statistic("ap_trapezoid", prepared(videos)).compute(weights[None].astype(float))
    assert found[0] == pytest.approx(area(recall, precision), abs=1e-12)


def test_pooled_frame_metrics_equal_scikit_learn(
    make_set: Callable[..., list[VideoScores]],
) -> None:
    """AUC and AP over all frames, over anomalous videos, per class and per video."""
    videos = make_set(12, seed=3)
    labels, scores = pooled(videos)
    assert value(videos, "auc") == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert value(videos, "ap") == pytest.approx(average_precision_score(labels, scores), abs=1e-12)
    abnormal = [video for video in videos if video.label]
    labels, scores = pooled(abnormal)
    assert value(videos, "auc_abnormal") == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert value(videos, "ap_abnormal") == pytest.approx(
        average_precision_score(labels, scores), abs=1e-12
    )
    each = [roc_auc_score(*pooled([video])) for video in abnormal]
    assert value(videos, "auc_per_video") == pytest.approx(np.mean(each), abs=1e-12)
    results = evaluate(videos, FOLDER, num_resamples=0)
    assert {row.name for row in results.per_class} == {"Collision", "Fire", "Fight"}
    for row in results.per_class:
        members = [video for video in videos if video.class_name == row.name]
        assert row.num_videos == len(members)
        assert row.auc.value == pytest.approx(roc_auc_score(*pooled(members)), abs=1e-12)
        assert row.ap.value == pytest.approx(average_precision_score(*pooled(members)), abs=1e-12)
    for result, video in zip(results.per_video, videos, strict=True):
        if video.label:
            assert result.auc == pytest.approx(roc_auc_score(*pooled([video])), abs=1e-12)
        else:
            assert result.auc is None


def test_false_alarm_rates_count_a_score_of_exactly_the_threshold(
    make_video: Callable[..., VideoScores],
) -> None:
    """FP / (FP + TN) at score >= 0.5, over all, normal and anomalous videos."""
    videos = [
        make_video("normal", [0.5, 0.49, 0.1, 0.9]),
        make_video("anomalous", [0.5, 0.7, 0.2], intervals=((16, 32),)),
    ]
    assert value(videos, "far_normal") == 0.5
    assert value(videos, "far_abnormal") == 0.5
    assert value(videos, "far") == 0.5
    videos[0] = make_video("normal", [0.5, 0.49, 0.1, 0.4])
    assert value(videos, "far") == pytest.approx(2 / 6)


def test_a_metric_that_labels_do_not_define_is_none_with_the_reason(
    make_video: Callable[..., VideoScores],
) -> None:
    """One class only never yields a number; neither do missing frame labels."""
    normal = [make_video("a", [0.1, 0.2]), make_video("b", [0.3])]
    results = evaluate(normal, FOLDER, num_resamples=10)
    for name in ("auc", "ap", "auc_abnormal", "video_auc", "false_alarms_per_hour"):
        estimate = results.metrics[name]
        assert estimate.value is None
        assert estimate.low is None
        assert estimate.reason
    assert results.metrics["far"].value == 0.0
    unlabelled = [*normal, make_video("c", [0.9], intervals=None, label=1)]
    results = evaluate(unlabelled, FOLDER, num_resamples=10)
    assert results.metrics["auc"].value is None
    assert "1 of 3 videos" in str(results.metrics["auc"].reason)
    assert results.metrics["video_auc"].value == 1.0
    always = [make_video("d", [0.9], intervals=((0, 16),)), *normal]
    assert evaluate(always, FOLDER, num_resamples=0).metrics["auc_abnormal"].value is None


def test_an_anomalous_video_is_told_by_label_intervals_or_class_in_any_case(
    make_video: Callable[..., VideoScores],
) -> None:
    """``Normal``, ``normal`` and ``NORMAL`` are one class."""
    for name in ("Normal", "normal", "NORMAL"):
        assert is_abnormal(make_video("x", [0.1], intervals=None, class_name=name)) is False
    assert is_abnormal(make_video("x", [0.1], intervals=None, class_name="Fire")) is True
    assert is_abnormal(make_video("x", [0.1], intervals=None, class_name="x", label=0)) is False
    assert is_abnormal(make_video("x", [0.1], intervals=None)) is None


def test_a_video_scores_its_highest_snippet_or_the_mean_of_its_highest(
    make_video: Callable[..., VideoScores],
) -> None:
    """The rule is the protocol's; at least one snippet always counts."""
    video = make_video("x", np.linspace(0, 0.5, 32))
    top = Protocol(
        name="t", dataset="*", video_score="top_mean", metrics=("video_auc",), primary="video_auc"
    )
    assert video_score(video, FOLDER) == pytest.approx(0.5)
    assert video_score(video, top) == pytest.approx(np.linspace(0, 0.5, 32)[-2:].mean(), abs=1e-6)
    assert video_score(make_video("x", [0.2]), top) == pytest.approx(0.2)


def test_frames_without_a_score_are_an_error_or_left_out_and_counted(
    make_video: Callable[..., VideoScores],
) -> None:
    """``every_frame`` refuses a gap by name; ``covered_frames`` ignores and reports it."""
    videos = [
        make_video("gap", [0.1, 0.9], num_frames=40, intervals=((20, 40),)),
        make_video("whole", [0.2, 0.3]),
    ]
    with pytest.raises(AlignmentError, match=r"made-up/gap: 8 of 40 frames"):
        evaluate(videos, FOLDER)
    covered = Protocol(name="t", dataset="*", frame_rule="covered_frames")
    results = evaluate(videos, covered, num_resamples=0)
    assert results.num_unscored_frames == 8
    assert results.num_anomalous_frames == 12
    labels = np.repeat([0, 1, 0], [20, 12, 32])
    scores = np.repeat([0.1, 0.9, 0.2, 0.3], 16)
    assert results.metrics["auc"].value == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)


def test_an_annotation_past_the_end_is_clipped_within_the_slack_and_refused_beyond(
    make_video: Callable[..., VideoScores],
) -> None:
    """The slack is the protocol's, and what was clipped is counted."""
    videos = [make_video("late", [0.1, 0.9], intervals=((16, 34),)), make_video("n", [0.2])]
    slack = Protocol(name="t", dataset="*", label_slack_frames=2)
    results = evaluate(videos, slack, num_resamples=0)
    assert (results.num_clipped_frames, results.num_anomalous_frames) == (2, 16)
    with pytest.raises(AlignmentError, match=r"made-up/late.*2 frames past"):
        evaluate(videos, FOLDER)


def test_score_sets_that_make_no_sense_are_refused_by_name(
    make_video: Callable[..., VideoScores],
) -> None:
    """Nothing to score, a video twice, and another data set."""
    video = make_video("x", [0.1])
    with pytest.raises(AlignmentError, match="no video"):
        evaluate([], FOLDER)
    with pytest.raises(AlignmentError, match=r"made-up/x was scored 2 times"):
        evaluate([video, video], FOLDER)
    with pytest.raises(AlignmentError, match="ped2-weak-a v1 is defined on 'ucsd_ped2'"):
        evaluate([video], PROTOCOLS["ped2-weak-a"])
