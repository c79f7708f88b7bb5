"""AED's test: sliding windows over whole videos, and the published evaluator."""

import dataclasses
from fractions import Fraction

import numpy as np
import pytest
import torch

from outspike.datasets.frame_labels import to_intervals
from outspike.detectors.aed import published
from outspike.detectors.bags import collate
from outspike.detectors.build import build
from outspike.evaluate.evaluate import evaluate
from outspike.evaluate.protocols import Protocol
from outspike.evaluate.window_classes import row_shares, window_accuracy, window_confusion
from outspike.scoring.score import score_bags
from outspike.scoring.scores import VideoScores
from outspike.store.bags import Bag

SNIPPET = 16
METRICS = {
    "auc": "Test_AUC_all_video",
    "auc_abnormal": "Test_AUC_abnormal_video",
    "far": "Test_false_alarm_all_video",
    "far_normal": "Test_false_alarm_normal_video",
    "far_abnormal": "Test_false_alarm_abnormal_video",
}
PUBLISHED = Protocol(name="lad2000", dataset="*", metrics=tuple(METRICS))


def detector_of(golden, compat):
    state = {k: torch.from_numpy(np.array(v)) for k, v in golden.group("state/").items()}
    config = dataclasses.replace(published.config_of(state), compat=compat)
    model = build(config).eval()
    names = published.NAMES.key_map(model)
    model.load_state_dict({names[key]: value for key, value in state.items()})
    assert model.config.window == golden.number("in/max_seqlen")
    return model


def bag_of(model, name, rows_SD):
    start = np.arange(len(rows_SD), dtype=np.int64) * SNIPPET
    return Bag(
        dataset="golden",
        video_id=name,
        features={model.config.feature_set: rows_SD[None]},
        start=start,
        stop=start + SNIPPET,
        num_frames=len(rows_SD) * SNIPPET,
        fps=Fraction(25),
        label=None,
        class_name=None,
        synthetic=False,
        intervals=None,
        group=None,
        split="test",
    )


@pytest.mark.golden("lad2000/test_and_eval*.npz")
@pytest.mark.parametrize(("compat", "prefix"), [("lad2000", ""), (None, "corrected_")])
def test_windows_score_frames_and_classes_as_stored(golden, compat, prefix):
    """The published scrambled reading, and the right one, alone and in one batch."""
    model = detector_of(golden, compat)
    rows = golden.group("in/feat/")
    bags = [bag_of(model, name, rows[name]) for name in rows]
    with torch.no_grad():
        together = model(collate(bags))
    owners = together.extras["window_bag"]
    for number, (name, bag) in enumerate(zip(rows, bags, strict=True)):
        scored = golden[f"out/{prefix}ano/{name}"]
        found = score_bags(model, [bag])[0]
        assert len(scored) == SNIPPET * (bag.num_snippets + golden.number(f"out/ext/{name}"))
        np.testing.assert_allclose(found.frame_scores(), scored[: bag.num_frames], atol=1e-6)
        batched = together.frames[number, : bag.num_snippets].flatten()
        np.testing.assert_allclose(batched, scored[: bag.num_frames], atol=1e-6)
        classes = together.extras["class_logits"][owners == number].argmax(dim=1)
        np.testing.assert_array_equal(classes, golden[f"out/{prefix}cls/{name}"])


def judged(golden, prefix):
    """Videos as the published evaluator cuts them."""
    window = golden.number("in/max_seqlen")
    videos = []
    for name, scores in golden.group(f"{prefix}/ano/").items():
        repeated = golden.number(f"{prefix}/ext/{name}")
        kept = published.judged_frames(len(scores), window, repeated)
        if kept == 0:
            continue
        truth = golden[f"in/frame_label/{name}"][0]
        start = np.arange(kept, dtype=np.int64)
        videos.append(
            VideoScores(
                dataset="golden",
                video_id=name,
                scores=scores[:kept],
                start=start,
                stop=start + 1,
                num_frames=kept,
                fps=Fraction(25),
                label=int(truth.any()),
                intervals=to_intervals(truth[:kept]),
            )
        )
    return videos


@pytest.mark.golden("lad2000/test_and_eval*.npz")
def test_figures_of_scored_videos_are_the_published_ones(golden):
    """From the stored scores of the published test."""
    _check_figures(golden, "out")


@pytest.mark.golden("lad2000/eval_p*.npz")
def test_figures_of_made_up_predictions_are_the_published_ones(golden):
    """Whole groups of windows only, without the last group of a lengthened video."""
    _check_figures(golden, "in")


def _check_figures(golden, prefix):
    found = evaluate(judged(golden, prefix), PUBLISHED, num_resamples=0).metrics
    for name, key in METRICS.items():
        assert found[name].value == pytest.approx(golden.number(f"out/metric/{key}"), abs=1e-9)
    predicted, truth = classes_of(golden, prefix)
    expected = golden.number("out/metric/Test_CLS_all_video")
    assert window_accuracy(predicted, truth) == pytest.approx(expected, abs=1e-9)


def classes_of(golden, prefix):
    predicted = golden.group(f"{prefix}/cls/")
    return list(predicted.values()), [golden.number(f"in/video_label/{n}") for n in predicted]


@pytest.mark.golden("lad2000/eval_p*.npz")
def test_the_confusion_of_classes_is_the_published_one(golden):
    """Counts over windows, and shares of each true class; a class never true has none."""
    predicted, truth = classes_of(golden, "in")
    table = window_confusion(predicted, truth, golden["out/confusion_labels"].tolist())
    np.testing.assert_array_equal(table, golden["out/confusion"])
    np.testing.assert_allclose(row_shares(table), golden["out/confusion_rownorm"], atol=1e-9)
