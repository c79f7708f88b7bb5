"""Score sets in, :class:`~outspike.evaluate.results.Results` out, under a named protocol."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from outspike.errors import AlignmentError
from outspike.evaluate.bootstrap import Resamples, difference_of, resample
from outspike.evaluate.errors_by_video import RankingErrors, ranking_errors
from outspike.evaluate.frames import check_videos, on_frames
from outspike.evaluate.metrics import (
    Evaluated,
    Statistic,
    ranked,
    statistic,
    video_score,
)
from outspike.evaluate.protocols import Protocol
from outspike.evaluate.results import (
    ClassResult,
    Estimate,
    FloorComparison,
    Results,
    VideoResult,
)
from outspike.scoring.scores import VideoScores


def evaluate(
    videos: Sequence[VideoScores],
    protocol: Protocol,
    *,
    floor: Sequence[VideoScores] | None = None,
    floor_name: str = "motion_floor",
    seed: int = 0,
    num_resamples: int = 1000,
    stratified: bool = True,
    level: float = 0.95,
) -> Results:
    """Compute every metric of the protocol, with bootstrap intervals over videos.

    Args:
        videos: Scores of the protocol's test videos, each once.
        protocol: The rule.
        floor: Scores of the same videos from a floor; adds the paired difference.
        floor_name: How the floor is called in the results.
        seed: Of the resamples.
        num_resamples: Bootstrap resamples; 0 gives no intervals.
        stratified: Resample normal and anomalous videos separately.
        level: Coverage of the intervals.

    Raises:
        AlignmentError: scores, frames and labels do not meet, or the floor covers other videos.
    """
    data = _prepare(videos, protocol)
    resamples = resample(
        data.abnormal, num_resamples=num_resamples, seed=seed, level=level, stratified=stratified
    )
    statistics = {str(name): statistic(name, data) for name in protocol.metrics}
    draws = {name: resamples.distribution(found) for name, found in statistics.items()}
    metrics = {name: _estimate(found, draws[name], resamples) for name, found in statistics.items()}
    return Results(
        protocol=protocol.to_json(),
        test_selected=protocol.test_selected,
        num_videos=len(videos),
        num_abnormal=int(data.is_class(True).sum()),
        num_normal=int(data.is_class(False).sum()),
        num_frames=sum(video.num_frames for video in videos),
        num_anomalous_frames=_num_positive(data),
        num_unscored_frames=sum(video.num_unscored for video in data.videos),
        num_clipped_frames=sum(video.num_clipped for video in data.videos),
        hours=sum(video.num_frames / float(video.fps) for video in videos) / 3600,
        seed=seed,
        num_resamples=num_resamples,
        stratified=stratified,
        level=level,
        metrics=metrics,
        alarm_threshold=_alarm_threshold(data),
        detection_by_iou=_detection_by_iou(data),
        per_class=_per_class(data, resamples),
        per_video=_per_video(data),
        floor=_floor(data, floor, floor_name, draws, metrics, resamples),
    )


def _prepare(videos: Sequence[VideoScores], protocol: Protocol) -> Evaluated:
    check_videos(videos, protocol)
    return Evaluated([on_frames(video, protocol) for video in videos], protocol)


def _estimate(found: Statistic, draws: NDArray[np.float64], resamples: Resamples) -> Estimate:
    if found.undefined is not None:
        return Estimate(reason=found.undefined)
    value = found.value(resamples.weights.shape[1])
    interval = resamples.interval(draws)
    return Estimate(value=value, low=interval.low, high=interval.high, reason=interval.reason)


def _floor(
    data: Evaluated,
    floor: Sequence[VideoScores] | None,
    floor_name: str,
    draws: dict[str, NDArray[np.float64]],
    metrics: dict[str, Estimate],
    resamples: Resamples,
) -> FloorComparison | None:
    if floor is None:
        return None
    other = _prepare(_in_order(data.scores, floor, floor_name), data.protocol)
    estimates, differences = {}, {}
    for name in data.protocol.metrics:
        found = statistic(name, other)
        other_draws = resamples.distribution(found)
        estimates[str(name)] = _estimate(found, other_draws, resamples)
        values = (_or_nan(metrics[name].value), _or_nan(estimates[name].value))
        differences[str(name)] = difference_of(values, (draws[name], other_draws), resamples)
    return FloorComparison(name=floor_name, metrics=estimates, differences=differences)


def _in_order(
    videos: Sequence[VideoScores], floor: Sequence[VideoScores], floor_name: str
) -> list[VideoScores]:
    """The floor's scores in the order of ours, checked to be of the same frames and labels."""
    by_id = {(video.dataset, video.video_id): video for video in floor}
    ours = {(video.dataset, video.video_id) for video in videos}
    if ours != set(by_id):
        missing, extra = sorted(ours - set(by_id)), sorted(set(by_id) - ours)
        raise AlignmentError(
            f"{floor_name} must score the very same videos: {len(missing)} missing "
            f"{missing[:3]}, {len(extra)} extra {extra[:3]}."
        )
    ordered = [by_id[video.dataset, video.video_id] for video in videos]
    for video, other in zip(videos, ordered, strict=True):
        if (video.num_frames, video.label, video.intervals) != (
            other.num_frames,
            other.label,
            other.intervals,
        ):
            raise AlignmentError(
                f"{video.key}: {floor_name} saw {other.num_frames} frames, "
                f"label {other.label}, intervals {other.intervals}; ours {video.num_frames}, "
                f"{video.label}, {video.intervals}. Score both from one catalog version."
            )
    return ordered


def _per_class(data: Evaluated, resamples: Resamples) -> tuple[ClassResult, ...]:
    rows = []
    for name in sorted({found for found in data.classes if found is not None}):
        keep = data.in_class(name)
        of = f"the {name} videos"
        estimates = {}
        for kind in ("auc", "ap"):
            found = ranked(data, kind, keep, of)
            estimates[kind] = _estimate(found, resamples.distribution(found), resamples)
        members = [video for video, kept in zip(data.videos, keep, strict=True) if kept]
        rows.append(
            ClassResult(
                name=name,
                num_videos=len(members),
                num_frames=sum(len(video.scores) for video in members),
                num_anomalous_frames=None
                if data.runs is None
                else sum(int(video.labels.sum()) for video in members if video.labels is not None),
                mean_video_score=float(
                    np.mean([video_score(video.video, data.protocol) for video in members])
                ),
                **estimates,
            )
        )
    return tuple(rows)


def _per_video(data: Evaluated) -> tuple[VideoResult, ...]:
    num_videos = len(data.videos)
    auc_V = np.full(num_videos, math.nan) if data.pairs is None else data.pairs.per_video()
    errors = ranking_errors(data)
    return tuple(_video_result(data, index, auc_V, errors) for index in range(num_videos))


def _video_result(
    data: Evaluated, index: int, auc_V: NDArray[np.float64], errors: RankingErrors
) -> VideoResult:
    frames = data.videos[index]
    video = frames.video
    normal = None if frames.labels is None else frames.scores[frames.labels == 0]
    return VideoResult(
        video_id=video.video_id,
        abnormal=data.abnormal[index],
        class_name=data.classes[index],
        num_frames=video.num_frames,
        fps=float(video.fps),
        num_anomalous_frames=None if frames.labels is None else int(frames.labels.sum()),
        num_unscored_frames=frames.num_unscored,
        num_clipped_frames=frames.num_clipped,
        score=video_score(video, data.protocol),
        auc=_or_none(auc_V[index]),
        false_alarm_rate=float((normal >= data.protocol.threshold).mean())
        if normal is not None and len(normal)
        else None,
        missed=_or_none(errors.missed[index]),
        false_alarm=_or_none(errors.false_alarm[index]),
        missed_share=_or_none(errors.missed_share[index]),
        false_alarm_share=_or_none(errors.false_alarm_share[index]),
    )


def _num_positive(data: Evaluated) -> int | None:
    if data.runs is None:
        return None
    return int(data.runs.length[data.runs.positive].sum())


def _alarm_threshold(data: Evaluated) -> float | None:
    if data.runs is None or "false_alarms_per_hour" not in data.protocol.metrics:
        return None
    return _or_none(data.alarms.threshold(np.ones(len(data.videos)), data.protocol.recall))


def _detection_by_iou(data: Evaluated) -> dict[str, float] | None:
    if data.runs is None or "detection_map" not in data.protocol.metrics:
        return None
    if not data.runs.positive.any():
        return None
    once = np.ones((1, len(data.videos)))
    return {
        f"{iou:g}": float(found.average_precision(once)[0])
        for iou, found in zip(data.protocol.iou, data.detections, strict=True)
    }


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value
