"""The evaluation published with GV-VAD and LAP, for parity only (``gv_vad_ssls.md`` section 6).

Frame labels are cut or stretched to the scored snippets, and alarms are scores *above* the
threshold. The rules of this package are the protocols (:mod:`outspike.evaluate.protocols`): there
no frame without a label counts, and a length mismatch is an error.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from outspike.evaluate.metrics import Ranking

SNIPPET_FRAMES = 16
_THRESHOLD = 0.5

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class PublishedFigures:
    """What the published loop reports of frame labels and scores; NaN where not defined."""

    auc: float
    ap: float
    """Step-wise average precision."""
    pr_area: float
    """Trapezoid area under precision and recall, reported beside it and not the same."""
    far: float
    """FP / (FP + TN) at scores above 0.5."""


def fit_labels(labels: NDArray[np.number], num_frames: int) -> NDArray[np.number]:
    """Labels cut to a number of frames, or continued with the last of them."""
    if num_frames <= len(labels):
        return labels[:num_frames]
    return np.concatenate([labels, np.repeat(labels[-1:], num_frames - len(labels))])


def mistaken_normal_frame(num_frames: int) -> tuple[int, int]:
    """The frame of a normal TAD test video that the published dictionary calls anomalous.

    A ``-1, -1`` for "no anomaly" was read as a slice, so it is the last frame but one.
    """
    return num_frames - 2, num_frames - 1


def figures(labels: NDArray[np.number], scores: NDArray[np.floating]) -> PublishedFigures:
    """Figures of frames, ``[F]`` each."""
    positive = (np.asarray(labels) > 0).astype(np.float64)
    ranking = Ranking(
        np.asarray(scores, dtype=np.float64),
        positive,
        1.0 - positive,
        np.zeros(len(positive), dtype=np.int64),
    )
    once = np.ones((1, 1))
    alarm = np.asarray(scores) > _THRESHOLD
    normal = positive == 0
    return PublishedFigures(
        auc=float(ranking.auc(once)[0]),
        ap=float(ranking.average_precision(once)[0]),
        pr_area=float(ranking.trapezoid_precision(once)[0]),
        far=float(alarm[normal].mean()) if normal.any() else float("nan"),
    )


def evaluate_videos(
    scores: Sequence[NDArray[np.floating]], labels: Sequence[NDArray[np.number]]
) -> tuple[PublishedFigures, PublishedFigures]:
    """Figures over all videos, and over those with at least one anomalous frame.

    Args:
        scores: snippet scores of each video.
        labels: frame labels of each video.
    """
    fitted = [
        fit_labels(known, SNIPPET_FRAMES * len(found))
        for found, known in zip(scores, labels, strict=True)
    ]
    spread = [np.repeat(found, SNIPPET_FRAMES) for found in scores]
    anomalous = [i for i, known in enumerate(labels) if (np.asarray(known) > 0).any()]
    everything = figures(np.concatenate(fitted), np.concatenate(spread))
    some = figures(
        np.concatenate([fitted[i] for i in anomalous]),
        np.concatenate([spread[i] for i in anomalous]),
    )
    return everything, some
