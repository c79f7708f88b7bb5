"""Scores and labels of many videos on their frames, kept as runs.

A snippet score holds for 16 frames, so a million frames are some ten thousand runs of equal score
and label. Every frame metric is computed on the runs, exactly, and resampling videos stays cheap.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from outspike.errors import AlignmentError
from outspike.evaluate.protocols import Protocol
from outspike.scoring.scores import VideoScores
from outspike.timebase import frame_labels, scores_to_frames

NORMAL = "normal"
#: Five snippets of 16 frames: the windows of LAD2000's detector.
_WINDOW_FRAMES = 80


@dataclass(frozen=True, kw_only=True)
class VideoFrames:
    """One video: a score for each scored frame, and its labels where they are known."""

    video: VideoScores
    scores: NDArray[np.float64]
    """``[F]`` of the scored frames."""
    labels: NDArray[np.uint8] | None
    """``[F]`` of the same frames; None where frame labels are unknown."""
    frames: NDArray[np.int64]
    """``[F]`` index of each scored frame in the recording."""
    intervals: tuple[tuple[int, int], ...] | None
    """Annotated intervals after clipping."""
    num_clipped: int
    """Annotated frames past the end of the recording that were clipped."""

    @property
    def num_unscored(self) -> int:
        """Frames of the recording that no snippet covers."""
        return self.video.num_frames - len(self.frames)


@dataclass(frozen=True, kw_only=True)
class Runs:
    """Runs of frames of equal score and label, video by video in time order; ``[R]`` each."""

    video: NDArray[np.int64]
    score: NDArray[np.float64]
    positive: NDArray[np.bool_]
    start: NDArray[np.int64]
    """First frame; a run that does not start where the one before it stops follows a gap."""
    length: NDArray[np.int64]
    num_videos: int

    def of_videos(self, keep_V: NDArray[np.bool_]) -> "Runs":
        """Only the runs of the videos that are kept; the numbering of videos stays."""
        rows = keep_V[self.video]
        return Runs(
            video=self.video[rows],
            score=self.score[rows],
            positive=self.positive[rows],
            start=self.start[rows],
            length=self.length[rows],
            num_videos=self.num_videos,
        )


def is_abnormal(video: VideoScores) -> bool | None:
    """Whether a video is anomalous as a whole; None when nothing says so.

    The label decides, else whether intervals are annotated, else the class name in any case.
    """
    if video.label is not None:
        return video.label == 1
    if video.intervals is not None:
        return bool(video.intervals)
    if video.class_name is not None:
        return video.class_name.casefold() != NORMAL
    return None


def class_of(video: VideoScores, protocol: Protocol) -> str | None:
    """Class name under the protocol's rule; None for normal videos and where it is unknown."""
    name = video.class_name
    if name is None or name.casefold() == NORMAL or not is_abnormal(video):
        return None
    if protocol.class_rule == "first_code":
        return name.replace("|", "-").split("-", maxsplit=1)[0]
    return name


def check_videos(videos: Sequence[VideoScores], protocol: Protocol) -> None:
    """Refuse score sets that no figure should be computed from.

    Raises:
        AlignmentError: no video, one twice, another data set than the protocol's, or one
            without scores or with scores outside its frames.
    """
    if not videos:
        raise AlignmentError(f"Protocol {protocol.label}: no video was scored.")
    keys = Counter((video.dataset, video.video_id) for video in videos)
    (dataset, video_id), times = keys.most_common(1)[0]
    if times > 1:
        raise AlignmentError(f"{dataset}/{video_id} was scored {times} times; give it once.")
    for video in videos:
        if len(video.scores) == 0:
            raise AlignmentError(f"{video.key}: no snippet was scored; there is nothing to rank.")
        if video.start.min() < 0 or video.stop.max() > video.num_frames:
            raise AlignmentError(
                f"{video.key}: scores cover frames [{video.start.min()}, {video.stop.max()}), the "
                f"recording has {video.num_frames}."
            )
        if protocol.dataset not in ("*", video.dataset):
            raise AlignmentError(
                f"{video.key}: protocol {protocol.label} is defined on "
                f"{protocol.dataset!r}; choose a protocol of {video.dataset!r}, or 'folder'."
            )


def on_frames(video: VideoScores, protocol: Protocol) -> VideoFrames:
    """Spread the scores of one video over its frames and paint its labels.

    Raises:
        AlignmentError: frames without a score under ``every_frame``, or an interval that ends more
            than ``label_slack_frames`` past the recording.
    """
    intervals, num_clipped = _clip(video, protocol)
    labels = None if intervals is None else frame_labels(intervals, video.num_frames)
    frames = np.arange(video.num_frames, dtype=np.int64)
    if protocol.frame_rule == "every_frame":
        try:
            spread = video.frame_scores()
        except AlignmentError as error:
            raise AlignmentError(f"{video.key}: {error}") from error
    else:
        frames = np.flatnonzero(_covered(video))
        # Close the gaps, so that only covered frames are left to spread over.
        position = np.concatenate([[0], np.cumsum(_covered(video))]).astype(np.int64)
        spread = scores_to_frames(
            video.scores, position[video.start], position[video.stop], int(position[-1])
        )
        labels = None if labels is None else labels[frames]
    if protocol.frame_rule == "whole_windows":
        kept = len(frames) - len(frames) % _WINDOW_FRAMES
        frames, spread = frames[:kept], spread[:kept]
        labels = None if labels is None else labels[:kept]
    return VideoFrames(
        video=video,
        scores=spread,
        labels=labels,
        frames=frames,
        intervals=intervals,
        num_clipped=num_clipped,
    )


def to_runs(videos: Sequence[VideoFrames]) -> Runs:
    """Frames of labelled videos as runs; every video must have frame labels."""
    parts: list[tuple[NDArray[np.int64], ...]] = [(np.zeros(0, dtype=np.int64),) * 4]
    scores: list[NDArray[np.float64]] = [np.zeros(0)]
    for index, video in enumerate(videos):
        assert video.labels is not None
        if len(video.scores) == 0:
            continue
        # A gap between scored frames ends a run: what lies in it was never looked at.
        change = (
            (np.diff(video.scores) != 0)
            | (np.diff(video.labels.astype(np.int8)) != 0)
            | (np.diff(video.frames) != 1)
        )
        first = np.concatenate([[0], np.flatnonzero(change) + 1])
        length = np.diff(np.append(first, len(video.scores)))
        positive = video.labels[first].astype(np.int64)
        parts.append((np.full(len(first), index), positive, video.frames[first], length))
        scores.append(video.scores[first])
    index_R, positive_R, start_R, length_R = (
        np.concatenate(column) for column in zip(*parts, strict=True)
    )
    return Runs(
        video=index_R,
        score=np.concatenate(scores),
        positive=positive_R.astype(bool),
        start=start_R,
        length=length_R,
        num_videos=len(videos),
    )


def _covered(video: VideoScores) -> NDArray[np.bool_]:
    edges = np.zeros(video.num_frames + 1, dtype=np.int64)
    np.add.at(edges, video.start, 1)
    np.add.at(edges, video.stop, -1)
    covered: NDArray[np.bool_] = np.cumsum(edges)[:-1] > 0
    return covered


def _clip(video: VideoScores, protocol: Protocol) -> tuple[tuple[tuple[int, int], ...] | None, int]:
    if video.intervals is None:
        # A video known to be normal has no anomalous frame; of an anomalous one nothing is known.
        return (() if is_abnormal(video) is False else None), 0
    kept = []
    num_clipped = 0
    for start, stop in video.intervals:
        excess = stop - video.num_frames
        if excess > protocol.label_slack_frames:
            raise AlignmentError(
                f"{video.key}: anomalous frames [{start}, {stop}) end "
                f"{excess} frames past the recording ({video.num_frames} frames); protocol "
                f"{protocol.label} clips at most {protocol.label_slack_frames}. Correct the "
                "annotation."
            )
        if excess > 0:
            num_clipped += min(excess, stop - start)
        if start < min(stop, video.num_frames):
            kept.append((start, min(stop, video.num_frames)))
    return tuple(kept), num_clipped
