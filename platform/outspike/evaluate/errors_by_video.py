"""Which videos cost the AUC: every wrongly ordered pair is charged to the two videos it lies in."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from outspike.evaluate.metrics import Evaluated, video_score
from outspike.evaluate.ratio import ratio


@dataclass(frozen=True, kw_only=True)
class RankingErrors:
    """``[V]`` each; NaN where a video has no frame of that kind, or labels define no pair."""

    missed: NDArray[np.float64]
    """Share of all negatives that outrank its positives, on average; ties count half."""
    false_alarm: NDArray[np.float64]
    """Share of all positives that its negatives outrank, on average."""
    missed_share: NDArray[np.float64]
    """Part of all ranking errors its positives take part in, halved; 0 where there is no error."""
    false_alarm_share: NDArray[np.float64]
    """The same of its negatives, so that both columns together sum to 1."""


def ranking_errors(data: Evaluated) -> RankingErrors:
    """Charge the ranking errors of the frames, or of whole videos where frames have no labels."""
    score, positive, negative, video = _rows(data)
    num_videos = len(data.videos)
    undefined = np.full(num_videos, np.nan)
    if positive.sum() == 0 or negative.sum() == 0:
        return RankingErrors(
            missed=undefined,
            false_alarm=undefined,
            missed_share=undefined,
            false_alarm_share=undefined,
        )
    values, place = np.unique(score, return_inverse=True)
    outranked = _share_above(place, negative, len(values))
    outranks = _share_above(place, positive, len(values), below=True)
    missed = np.bincount(video, weights=positive * outranked[place], minlength=num_videos)
    false = np.bincount(video, weights=negative * outranks[place], minlength=num_videos)
    positive_V = np.bincount(video, weights=positive, minlength=num_videos)
    negative_V = np.bincount(video, weights=negative, minlength=num_videos)
    lost = missed.sum() / positive.sum()
    scale_missed = 2 * lost * positive.sum() or np.inf
    scale_false = 2 * lost * negative.sum() or np.inf
    return RankingErrors(
        missed=ratio(missed, positive_V),
        false_alarm=ratio(false, negative_V),
        missed_share=np.where(positive_V > 0, missed / scale_missed, np.nan),
        false_alarm_share=np.where(negative_V > 0, false / scale_false, np.nan),
    )


def _rows(
    data: Evaluated,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    if data.runs is not None:
        length = data.runs.length.astype(np.float64)
        positive = length * data.runs.positive
        return data.runs.score, positive, length - positive, data.runs.video
    score = np.array([video_score(video, data.protocol) for video in data.scores])
    return (
        score,
        data.is_class(True).astype(np.float64),
        data.is_class(False).astype(np.float64),
        np.arange(len(data.videos)),
    )


def _share_above(
    place: NDArray[np.int64], weight: NDArray[np.float64], num_values: int, *, below: bool = False
) -> NDArray[np.float64]:
    """Share of the weight at higher (or lower) values than each value, ties half."""
    at = np.bincount(place, weights=weight, minlength=num_values)
    up_to = np.cumsum(at)
    share: NDArray[np.float64] = up_to - at / 2 if below else up_to[-1] - up_to + at / 2
    return share / float(up_to[-1])
