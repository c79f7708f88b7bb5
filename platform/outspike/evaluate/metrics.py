"""Metrics as statistics of how often each video counts.

A :class:`Statistic` maps weights ``[R, V]`` (how often each video is in each sample) to numbers
``[R]``. With a row of ones it is the metric; with resamples it is the bootstrap distribution.
Sorting happens once, when it is built. A metric that the labels do not define carries the reason
instead of a number.

ROC-AUC counts ties half (the trapezoid), AP is the step-wise sum without interpolation: both equal
the scikit-learn definitions. ``ap_trapezoid`` interpolates precision, which flatters; it repeats
published figures and heads no protocol of ours.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from outspike.evaluate.alarms import AlarmTable
from outspike.evaluate.detection import ClassDetections, detections
from outspike.evaluate.frames import Runs, VideoFrames, class_of, is_abnormal, to_runs
from outspike.evaluate.protocols import MetricName, Protocol
from outspike.evaluate.ratio import ratio
from outspike.scoring.scores import VideoScores

Array = NDArray[np.float64]

_TINY = np.finfo(np.float64).tiny
_FEW = 8
_BLOCK = 1024


@dataclass(frozen=True)
class Statistic:
    """One metric of fixed videos: ``compute(weights [R, V]) -> [R]``, NaN where undefined."""

    compute: Callable[[Array], Array]
    undefined: str | None = None
    """Why the labels define no such number; ``compute`` is then not called."""

    def value(self, num_videos: int) -> float:
        """The metric itself, every video once."""
        return float(self.compute(np.ones((1, num_videos)))[0])


class Ranking:
    """Weighted positives and negatives sorted by falling score, for ROC and precision-recall.

    Args:
        score: ``[N]`` score of each row.
        positive, negative: ``[N]`` how many frames (or videos) of each kind the row stands for.
        video: ``[N]`` index of the video whose weight the row takes.
    """

    def __init__(
        self, score: Array, positive: Array, negative: Array, video: NDArray[np.int64]
    ) -> None:
        order = np.argsort(-score, kind="stable")
        self._positive, self._negative = positive[order], negative[order]
        self._video = video[order]
        ordered = score[order]
        self._last = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], len(ordered) > 0))
        self.thresholds: Array = ordered[self._last]
        # Precision counts at thresholds that gain a positive; the others need no cumulative sum.
        gains = np.diff(np.cumsum(self._positive)[self._last], prepend=0.0)
        self._gaining = self._last[gains > 0]

    def counts(self, weight_V: Array) -> tuple[Array, Array]:
        """True and false positives at ``score >= thresholds``, ``[G]`` each."""
        weight = weight_V[self._video]
        return (
            np.cumsum(weight * self._positive)[self._last],
            np.cumsum(weight * self._negative)[self._last],
        )

    def auc(self, weights: Array) -> Array:
        """Area under the ROC curve, ``[R, V] -> [R]``; NaN with one class only."""
        return np.array([_area(*self.counts(weight_V)) for weight_V in weights])

    def average_precision(self, weights: Array) -> Array:
        """Step-wise average precision, ``[R, V] -> [R]``; NaN without positives."""
        if len(weights) < _FEW:
            return np.array([self._precision(weight_V) for weight_V in weights])
        total = np.zeros(len(weights))
        true_before = np.zeros(len(weights))
        for true_VG, all_VG in self._cumulative_blocks(weights.shape[1]):
            true = weights @ true_VG
            gained = np.diff(true, axis=1, prepend=true_before[:, None])
            total += (gained * true / np.maximum(weights @ all_VG, _TINY)).sum(axis=1)
            true_before = true[:, -1]
        return ratio(total, true_before)

    def trapezoid_precision(self, weights: Array) -> Array:
        """Area under precision over recall by the trapezoid rule from (0, 1), ``[R, V] -> [R]``."""
        return np.array([_precision_area(*self.counts(weight_V)) for weight_V in weights])

    def _cumulative_blocks(self, num_videos: int) -> Iterator[tuple[Array, Array]]:
        """Positives and rows of each video down to each threshold that gains one, ``[V, G]``.

        In blocks of thresholds: with them a whole bootstrap is two matrix products.
        """
        true, rows = np.zeros(num_videos), np.zeros(num_videos)
        first = 0
        for start in range(0, len(self._gaining), _BLOCK):
            last = self._gaining[start : start + _BLOCK]
            here = slice(first, int(last[-1]) + 1)
            column = np.searchsorted(last, np.arange(here.start, here.stop))
            blocks = []
            for values, before in (
                (self._positive[here], true),
                (self._positive[here] + self._negative[here], rows),
            ):
                block = np.zeros((num_videos, len(last)))
                np.add.at(block, (self._video[here], column), values)
                np.cumsum(block, axis=1, out=block)
                block += before[:, None]
                blocks.append(block)
            yield blocks[0], blocks[1]
            true, rows = blocks[0][:, -1].copy(), blocks[1][:, -1].copy()
            first = here.stop

    def _precision(self, weight_V: Array) -> float:
        weight = weight_V[self._video]
        true = np.cumsum(weight * self._positive)[self._gaining]
        if not len(true) or true[-1] == 0:
            return math.nan
        all_above = np.cumsum(weight * (self._positive + self._negative))[self._gaining]
        precision = true / np.maximum(all_above, _TINY)
        return float(np.diff(true, prepend=0.0) @ precision / true[-1])


def _area(true: Array, false: Array) -> float:
    if not len(true) or true[-1] == 0 or false[-1] == 0:
        return math.nan
    heights = true + np.concatenate([[0.0], true[:-1]])
    return float(np.diff(false, prepend=0.0) @ heights / (2 * true[-1] * false[-1]))


class PairTable:
    """Rightly ordered pairs of an anomalous frame of video u and a normal frame of video v.

    The AUC over any multiset of videos is a quadratic form of this table, which makes a thousand
    resamples, each class and each single video cost next to nothing after one pass.
    """

    def __init__(self, runs: Runs) -> None:
        num_videos = runs.num_videos
        positive = (runs.length * runs.positive).astype(np.float64)
        negative = runs.length.astype(np.float64) - positive
        values, place = np.unique(runs.score, return_inverse=True)
        self.positive_V = np.bincount(runs.video, weights=positive, minlength=num_videos)
        self.negative_V = np.bincount(runs.video, weights=negative, minlength=num_videos)
        self.won_VV: Array = np.zeros((num_videos, num_videos))
        rows = np.flatnonzero(runs.positive)
        edges = np.searchsorted(runs.video, np.arange(num_videos + 1))
        for v in np.flatnonzero(self.negative_V):
            own = slice(edges[v], edges[v + 1])
            at = np.bincount(place[own], weights=negative[own], minlength=len(values))
            below = np.cumsum(at) - at / 2
            self.won_VV[:, v] = np.bincount(
                runs.video[rows], weights=positive[rows] * below[place[rows]], minlength=num_videos
            )

    def auc(self, weights: Array) -> Array:
        """Area under the ROC curve, ``[R, V] -> [R]``; NaN with one class only."""
        won = ((weights @ self.won_VV) * weights).sum(axis=1)
        return ratio(won, (weights @ self.positive_V) * (weights @ self.negative_V))

    def per_video(self) -> Array:
        """Area under the ROC curve of each video alone, ``[V]``; NaN with one class only."""
        return ratio(np.diag(self.won_VV), self.positive_V * self.negative_V)


def _precision_area(true: Array, false: Array) -> float:
    if not len(true) or true[-1] == 0:
        return math.nan
    found = true + false
    # Before the first row that counts, precision is 1 as at recall 0.
    precision = np.divide(true, found, out=np.ones_like(found), where=found > 0)
    heights = precision + np.concatenate([[1.0], precision[:-1]])
    return float(np.diff(true, prepend=0.0) @ heights / (2 * true[-1]))


def frame_ranking(runs: Runs) -> Ranking:
    """Ranking of frames."""
    length = runs.length.astype(np.float64)
    return Ranking(runs.score, length * runs.positive, length * ~runs.positive, runs.video)


def video_score(video: VideoScores, protocol: Protocol) -> float:
    """Score of a whole video from its snippets: the highest, or the mean of the highest ones."""
    scores = np.asarray(video.scores, dtype=np.float64)
    if protocol.video_score == "max":
        return float(scores.max())
    k = max(1, math.ceil(protocol.top_share * len(scores)))
    return float(np.sort(scores)[-k:].mean())


def video_ranking(videos: Sequence[VideoScores], protocol: Protocol) -> Ranking:
    """Ranking of whole videos; those of unknown label are no row of it."""
    known = [index for index, video in enumerate(videos) if is_abnormal(video) is not None]
    abnormal = np.array([is_abnormal(videos[index]) for index in known], dtype=np.float64)
    scores = np.array([video_score(videos[index], protocol) for index in known])
    return Ranking(scores, abnormal, 1 - abnormal, np.array(known, dtype=np.int64))


class Evaluated:
    """Videos under a protocol, prepared so that each metric is built from it once."""

    def __init__(self, videos: Sequence[VideoFrames], protocol: Protocol) -> None:
        self.videos = list(videos)
        self.scores = [video.video for video in videos]
        self.protocol = protocol
        self.abnormal = [is_abnormal(video.video) for video in videos]
        self.classes = [class_of(video.video, protocol) for video in videos]
        self.num_unlabelled = sum(video.labels is None for video in videos)
        self.runs = None if self.num_unlabelled else to_runs(videos)

    @property
    def no_frames(self) -> str | None:
        """Why frame metrics are not defined, or None when they are."""
        if self.runs is not None:
            return None
        return (
            f"{self.num_unlabelled} of {len(self.videos)} videos are anomalous or unlabelled and "
            "have no annotated intervals"
        )

    @cached_property
    def pairs(self) -> PairTable | None:
        """Rightly ordered pairs of frames; None where frames have no labels."""
        return None if self.runs is None else PairTable(self.runs)

    @cached_property
    def alarms(self) -> AlarmTable:
        """False alarms and caught intervals at every threshold; needs frame labels."""
        assert self.runs is not None
        return AlarmTable(self.runs, [float(video.fps) for video in self.scores])

    @cached_property
    def detections(self) -> list[ClassDetections]:
        """Proposals matched to the annotated intervals at each overlap; needs frame labels."""
        labels = [video.labels for video in self.videos if video.labels is not None]
        assert len(labels) == len(self.videos)
        return detections([video.scores for video in self.videos], labels, self.protocol.iou)

    def is_class(self, wanted: bool) -> NDArray[np.bool_]:
        """Which videos are known to be anomalous (or normal), ``[V]``."""
        return np.array([abnormal is wanted for abnormal in self.abnormal], dtype=bool)

    def in_class(self, name: str) -> NDArray[np.bool_]:
        """Which videos belong to the class, ``[V]``."""
        return np.array([found == name for found in self.classes], dtype=bool)


def statistic(name: MetricName, data: Evaluated) -> Statistic:
    """Build the metric of that name."""
    return _BUILDERS[name](data)


def ranked(
    data: Evaluated, kind: str, keep_V: NDArray[np.bool_] | None = None, of: str = "all videos"
) -> Statistic:
    """Frame AUC (``kind="auc"``), ``ap`` or ``ap_trapezoid`` over some of the videos."""
    if data.runs is None:
        return _undefined(data.no_frames)
    runs = data.runs if keep_V is None else data.runs.of_videos(keep_V)
    has_positive, has_negative = bool(runs.positive.any()), not runs.positive.all()
    if not has_positive:
        return _undefined(f"no anomalous frame in {of}")
    if kind == "auc" and not has_negative:
        return _undefined(f"no normal frame in {of}")
    if kind == "ap":
        return Statistic(frame_ranking(runs).average_precision)
    if kind == "ap_trapezoid":
        return Statistic(frame_ranking(runs).trapezoid_precision)
    kept = np.ones(len(data.videos)) if keep_V is None else keep_V.astype(np.float64)
    pairs = data.pairs
    assert pairs is not None
    return Statistic(lambda weights: pairs.auc(weights * kept))


def _undefined(reason: str | None) -> Statistic:
    assert reason is not None
    return Statistic(lambda weights: np.full(len(weights), math.nan), undefined=reason)


def _auc_abnormal(data: Evaluated) -> Statistic:
    return ranked(data, "auc", data.is_class(True), "the anomalous videos")


def _ap_abnormal(data: Evaluated) -> Statistic:
    return ranked(data, "ap", data.is_class(True), "the anomalous videos")


def _auc_per_video(data: Evaluated) -> Statistic:
    """Mean over the videos that have both normal and anomalous frames."""
    if data.pairs is None:
        return _undefined(data.no_frames)
    values = data.pairs.per_video()
    defined = ~np.isnan(values)
    if not defined.any():
        return _undefined("no video has both normal and anomalous frames")
    filled = np.where(defined, values, 0.0)
    counted = defined.astype(np.float64)
    return Statistic(lambda weights: ratio(weights @ filled, weights @ counted))


def _video_statistic(data: Evaluated, kind: str) -> Statistic:
    unknown = sum(abnormal is None for abnormal in data.abnormal)
    if unknown:
        return _undefined(f"{unknown} of {len(data.videos)} videos have no label")
    for wanted, word in ((True, "anomalous"), (False, "normal")):
        if not data.is_class(wanted).any() and (wanted or kind == "auc"):
            return _undefined(f"no {word} video")
    ranking = video_ranking(data.scores, data.protocol)
    return Statistic(ranking.auc if kind == "auc" else ranking.average_precision)


def false_alarm_rate(
    data: Evaluated, keep_V: NDArray[np.bool_] | None = None, of: str = "all videos"
) -> Statistic:
    """Share of normal frames whose score is at least the threshold, FP / (FP + TN)."""
    if data.runs is None:
        return _undefined(data.no_frames)
    runs = data.runs if keep_V is None else data.runs.of_videos(keep_V)
    normal = runs.length * ~runs.positive
    alarm = normal * (runs.score >= data.protocol.threshold)
    num_videos = runs.num_videos
    normal_V = np.bincount(runs.video, weights=normal, minlength=num_videos)
    alarm_V = np.bincount(runs.video, weights=alarm, minlength=num_videos)
    if normal_V.sum() == 0:
        return _undefined(f"no normal frame in {of}")

    return Statistic(lambda weights: ratio(weights @ alarm_V, weights @ normal_V))


def _false_alarms_per_hour(data: Evaluated) -> Statistic:
    if data.runs is None:
        return _undefined(data.no_frames)
    table = data.alarms
    if table.num_intervals == 0:
        return _undefined("no annotated interval to recall")
    return Statistic(lambda weights: table.per_hour(weights, data.protocol.recall))


def _detection_map(data: Evaluated) -> Statistic:
    if data.runs is None:
        return _undefined(data.no_frames)
    if not data.runs.positive.any():
        return _undefined("no annotated interval to detect")
    matched = data.detections
    return Statistic(
        lambda weights: np.mean([found.average_precision(weights) for found in matched], axis=0)
    )


_BUILDERS: dict[MetricName, Callable[[Evaluated], Statistic]] = {
    "auc": lambda data: ranked(data, "auc"),
    "ap": lambda data: ranked(data, "ap"),
    "ap_trapezoid": lambda data: ranked(data, "ap_trapezoid"),
    "auc_abnormal": _auc_abnormal,
    "ap_abnormal": _ap_abnormal,
    "auc_per_video": _auc_per_video,
    "video_auc": lambda data: _video_statistic(data, "auc"),
    "video_ap": lambda data: _video_statistic(data, "ap"),
    "far": false_alarm_rate,
    "far_normal": lambda data: false_alarm_rate(data, data.is_class(False), "the normal videos"),
    "far_abnormal": lambda data: false_alarm_rate(
        data, data.is_class(True), "the anomalous videos"
    ),
    "false_alarms_per_hour": _false_alarms_per_hour,
    "detection_map": _detection_map,
}
