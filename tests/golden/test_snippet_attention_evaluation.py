"""SAA's segments of training videos, and its evaluation over ten crops."""

import re
from fractions import Fraction

import numpy as np
import pytest

from outspike.config import WindowConfig
from outspike.datasets.frame_labels import to_intervals
from outspike.detectors.windows import Window, cut, segment_edges
from outspike.evaluate.evaluate import evaluate
from outspike.evaluate.protocols import Protocol
from outspike.scoring.scores import VideoScores

SNIPPET = 16
PUBLISHED = Protocol(
    name="saa", dataset="*", metrics=("auc", "ap_trapezoid"), note="Ten crops averaged."
)


def segmented(rows_SD, length):
    """What a training bag of these rows becomes."""
    start = np.arange(len(rows_SD), dtype=np.int64) * SNIPPET
    whole = Window(features={"x": rows_SD[None]}, start=start, stop=start + SNIPPET)
    config = WindowConfig(rule="mean_segments", length=length)
    return cut(whole, config, label=0, rng=np.random.RandomState(0))


@pytest.mark.golden("snippet_attention/process_feat*.npz", cases=r"in/feat_(n\d+_L\d+)")
def test_videos_of_any_length_become_the_published_segments(golden):
    """Means of the published ranges; a range without a row repeats the row it starts at."""
    num_rows, length = map(int, re.findall(r"\d+", golden.case))
    rows = golden[f"in/feat_{golden.case}"]
    bounds = golden[f"out/bounds_{golden.case}"]
    np.testing.assert_array_equal(segment_edges(num_rows, length), bounds)
    found = segmented(rows, length)
    np.testing.assert_allclose(
        found.features["x"][0], golden[f"out/process_feat_{golden.case}"], atol=1e-6
    )
    np.testing.assert_array_equal(found.start, bounds[:-1] * SNIPPET)
    stop = np.maximum(bounds[1:], bounds[:-1] + 1)
    np.testing.assert_array_equal(found.stop, stop * SNIPPET)


@pytest.mark.golden("snippet_attention/process_feat*.npz", cases=r"out/dataset_train_(n\d+)")
def test_training_items_are_the_published_ones(golden):
    """The loader's item is the segments of its file."""
    item = golden[f"out/dataset_train_{golden.case}"]
    rows = golden[f"in/feat_{golden.case}_L{len(item)}"]
    np.testing.assert_allclose(segmented(rows, len(item)).features["x"][0], item, atol=1e-6)


@pytest.mark.golden("snippet_attention/eval_10crop*.npz")
def test_auc_and_area_under_precision_and_recall_are_the_published_ones(golden):
    """Crops averaged, sixteen frames a score, AP by the trapezoid rule."""
    by_video = {}
    for key, scores in golden.group("in/scores/").items():
        by_video.setdefault(key.split("/")[0], []).append(scores)
    lengths = golden["in/T"]
    labels = np.split(golden["in/gt"], np.cumsum(lengths)[:-1] * SNIPPET)
    videos = []
    for number, (length, truth) in enumerate(zip(lengths, labels, strict=True)):
        start = np.arange(length, dtype=np.int64) * SNIPPET
        videos.append(
            VideoScores(
                dataset="golden",
                video_id=f"v{number}",
                scores=np.mean(by_video[f"v{number}"], axis=0),
                start=start,
                stop=start + SNIPPET,
                num_frames=int(length) * SNIPPET,
                fps=Fraction(30),
                intervals=to_intervals(truth),
            )
        )
    metrics = evaluate(videos, PUBLISHED, num_resamples=0).metrics
    assert metrics["auc"].value == pytest.approx(golden.number("out/auc"), abs=1e-9)
    found = metrics["ap_trapezoid"].value
    assert found == pytest.approx(golden.number("out/ap_trapezoid"), abs=1e-9)
