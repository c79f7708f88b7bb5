"""The evaluation published with MSF (``ucf_crime_dvs_msf.md`` section 8)."""

from fractions import Fraction

import numpy as np
import pytest
from numpy.typing import NDArray

from outspike.evaluate.evaluate import evaluate
from outspike.evaluate.protocols import PROTOCOLS
from outspike.scoring.scores import VideoScores

SNIPPET = 16


def intervals_of(labels: NDArray[np.floating]) -> tuple[tuple[int, int], ...]:
    edges = np.diff(np.concatenate([[0], labels.astype(int), [0]]))
    starts, stops = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    return tuple((int(start), int(stop)) for start, stop in zip(starts, stops, strict=True))


def published_video(name: str, scores: NDArray, labels: NDArray, normal: bool) -> VideoScores:
    """The published cut to the shorter of labels and scores, said as frame ranges.

    Snippets past the labels are dropped here, frames past the snippets by the protocol.
    """
    start = np.arange(len(scores), dtype=np.int64) * SNIPPET
    inside = start < len(labels)
    return VideoScores(
        dataset="ucf_crime_dvs",
        video_id=name,
        scores=scores[inside],
        start=start[inside],
        stop=np.minimum(start[inside] + SNIPPET, len(labels)),
        num_frames=len(labels),
        fps=Fraction(30),
        label=int(not normal),
        intervals=intervals_of(labels),
    )


@pytest.mark.golden("msf/metrics*.npz")
def test_auc_and_false_alarm_rates_repeat_the_reference(golden) -> None:
    """Tied scores, scores of exactly 0.5, and labels shorter or longer than the snippets."""
    videos = [
        published_video(
            str(golden["in/names"][index]),
            golden[f"in/scores_{index}"],
            golden[f"in/frame_labels_{index}"],
            bool(golden[f"in/is_normal_{index}"]),
        )
        for index in range(golden.number("in/count"))
    ]
    metrics = evaluate(videos, PROTOCOLS["ucf-crime-dvs"], num_resamples=0).metrics
    expected = {
        "auc": "auc_all",
        "auc_abnormal": "auc_abnormal",
        "far": "far_all",
        "far_normal": "far_normal",
        "far_abnormal": "far_abnormal",
    }
    for name, key in expected.items():
        assert metrics[name].value == pytest.approx(golden.number(f"out/{key}"), abs=1e-12), name
