"""Temporal detection mAP: do runs of high scores overlap the annotated intervals well enough?

The arithmetic is the one common in weakly supervised work (``ief_vad.md`` section 6.1). Its
published form has two defects kept under ``compat="ief_vad_2025"``: a class without any proposal
makes the whole metric 0, and a class without ground truth counts as 0 in the mean. The default
gives a class without proposals 0 and leaves classes without ground truth out.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from outspike.evaluate.ratio import ratio

Segment = tuple[int, int, int]
"""``(start, stop, class)``: half-open frames and a class index."""

_THRESHOLD_SHARE = 0.6
_MIN_FRAMES = 2
_NMS_IOU = 0.6
_VIDEO_WEIGHT = 0.7
_TOP_DIVISOR = 16


@dataclass(frozen=True)
class ClassDetections:
    """Proposals of one class, best first, each with whether it hits; counts a video."""

    hit: NDArray[np.bool_]
    """``[N]`` whether the proposal takes a ground-truth segment."""
    video: NDArray[np.int64]
    """``[N]``."""
    num_segments: NDArray[np.float64]
    """``[V]`` ground-truth segments of each video."""

    def average_precision(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Sum of the precisions at hits over the number of ground truths, ``[R, V] -> [R]``.

        NaN where the weights leave no ground truth.
        """
        total = weights @ self.num_segments
        weight = weights[:, self.video[self.hit]]
        hits = np.cumsum(weight, axis=1)
        gained = (weight * hits / np.maximum(weights @ self._seen, np.finfo(float).tiny)).sum(
            axis=1
        )
        return ratio(gained, total)

    @cached_property
    def _seen(self) -> NDArray[np.float64]:
        """Proposals of each video that rank no lower than each hit, ``[V, hits]``."""
        rank = np.flatnonzero(self.hit)
        # Proposals after the last hit fall into a column of their own, which is dropped.
        column = np.searchsorted(rank, np.arange(len(self.video)))
        seen = np.zeros((len(self.num_segments), len(rank) + 1))
        np.add.at(seen, (self.video, column), 1)
        return np.cumsum(seen[:, :-1], axis=1)


def non_maximum_suppression(segments: NDArray[np.float64], iou: float) -> list[int]:
    """Indices kept of ``segments [N, 2]``, best first: none overlaps a better one above ``iou``."""
    start, stop = segments[:, 0], segments[:, 1]
    left = np.arange(len(segments))
    kept = []
    while len(left):
        best, rest = left[0], left[1:]
        kept.append(int(best))
        left = rest[_iou(start[best], stop[best], start[rest], stop[rest]) <= iou]
    return kept


def propose(scores: NDArray[np.floating], *, published: bool = False) -> NDArray[np.float64]:
    """Proposals ``[N, 3]`` (start, stop, score) of one video and class, best first.

    Args:
        scores: ``[F]`` frame scores.
        published: Keep the published top share of ``floor(F / 16)`` frames, which leaves the score
            of a video below 16 frames undefined (NaN); otherwise at least one frame counts.
    """
    if not len(scores):
        return np.zeros((0, 3))
    num_top = len(scores) // _TOP_DIVISOR
    if num_top == 0 and not published:
        num_top = 1
    video_score = float(np.sort(scores)[-num_top:].mean()) if num_top else math.nan
    gated = scores * (video_score > 0)
    highest, lowest = gated.max(), gated.min()
    above = gated > highest - np.float64(highest - lowest) * _THRESHOLD_SHARE
    edges = np.diff(np.concatenate([[0], above.astype(np.int8), [0]]))
    start, stop = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    long_enough = stop - start >= _MIN_FRAMES
    rows = np.array(
        [
            (first, last, float(gated[first:last].max()) + _VIDEO_WEIGHT * video_score)
            for first, last in zip(start[long_enough], stop[long_enough], strict=True)
        ],
        dtype=np.float64,
    ).reshape(-1, 3)
    rows = rows[np.argsort(-rows[:, 2], kind="stable")]
    return rows[non_maximum_suppression(rows[:, :2], _NMS_IOU)]


def match(
    proposals: Sequence[NDArray[np.float64]],
    truths: Sequence[Sequence[tuple[int, int]]],
    iou: float,
) -> ClassDetections:
    """Match the proposals of one class, best first over all videos, to its ground-truth segments.

    Args:
        proposals: ``[N, 3]`` for each video, from :func:`propose`.
        truths: Half-open segments of each video.
        iou: Least overlap of a hit. A proposal takes the unmatched segment it overlaps best.
    """
    counts = [len(rows) for rows in proposals]
    video = np.repeat(np.arange(len(proposals)), counts)
    rows = np.concatenate([np.zeros((0, 3)), *proposals])
    order = np.argsort(-rows[:, 2], kind="stable")
    video, rows = video[order], rows[order]
    open_truths = [np.array(segments, dtype=np.float64).reshape(-1, 2) for segments in truths]
    hit = np.zeros(len(rows), dtype=bool)
    for index in np.flatnonzero(np.array([len(left) for left in open_truths])[video]):
        left = open_truths[video[index]]
        overlap = _iou(rows[index, 0], rows[index, 1], left[:, 0], left[:, 1])
        if len(left) and overlap.max() >= iou:
            hit[index] = True
            open_truths[video[index]] = np.delete(left, int(overlap.argmax()), axis=0)
    num_segments = np.array([len(segments) for segments in truths], dtype=np.float64)
    return ClassDetections(hit=hit, video=video, num_segments=num_segments)


def detection_map(
    videos: Sequence[NDArray[np.floating]],
    segments: Sequence[Sequence[Segment]],
    iou: Sequence[float],
    *,
    compat: Literal["ief_vad_2025"] | None = None,
) -> list[float]:
    """Mean over classes of the average precision, at each overlap.

    Args:
        videos: Frame-level class scores ``[F, C]`` of each video.
        segments: Ground truth of each video.
        iou: Overlaps.
        compat: ``"ief_vad_2025"`` keeps the two published defects (module docstring).

    Returns:
        One share in [0, 1] for each overlap; NaN where no class has ground truth.
    """
    published = compat is not None
    num_classes = videos[0].shape[1]
    proposals = [
        [propose(scores[:, c], published=published) for scores in videos]
        for c in range(num_classes)
    ]
    if published and any(sum(map(len, of_class)) == 0 for of_class in proposals):
        return [0.0 for _ in iou]
    truths = [
        [[(start, stop) for start, stop, found in rows if found == c] for rows in segments]
        for c in range(num_classes)
    ]
    once = np.ones((1, len(videos)))
    table = np.array(
        [
            [
                match(of_class, of_truth, least).average_precision(once)[0]
                for of_class, of_truth in zip(proposals, truths, strict=True)
            ]
            for least in iou
        ]
    )
    if published:
        table = np.nan_to_num(table, nan=0.0)
    return [
        float(row[~np.isnan(row)].mean()) if (~np.isnan(row)).any() else math.nan for row in table
    ]


def detections(
    scores: Sequence[NDArray[np.floating]],
    labels: Sequence[NDArray[np.uint8]],
    iou: Sequence[float],
) -> list[ClassDetections]:
    """Matches of one anomaly score at each overlap.

    Args:
        scores, labels: ``[F]`` of each video's frames.
        iou: Overlaps.
    """
    proposals = [propose(video) for video in scores]
    truths = [_segments(video) for video in labels]
    return [match(proposals, truths, least) for least in iou]


def _segments(labels: NDArray[np.uint8]) -> list[tuple[int, int]]:
    edges = np.diff(np.concatenate([[0], labels.astype(np.int8), [0]]))
    start, stop = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    return [(int(first), int(last)) for first, last in zip(start, stop, strict=True)]


def _iou(
    start: float, stop: float, starts: NDArray[np.float64], stops: NDArray[np.float64]
) -> NDArray[np.float64]:
    shared = np.maximum(np.minimum(stop, stops) - np.maximum(start, starts), 0.0)
    overlap: NDArray[np.float64] = shared / ((stop - start) + (stops - starts) - shared)
    return overlap
