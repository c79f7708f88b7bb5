"""The evaluation published with GV-VAD, ties and mistaken labels included."""

import numpy as np
import pytest

from outspike.datasets.tables import read_rows
from outspike.evaluate.published_gv_vad import (
    evaluate_videos,
    figures,
    fit_labels,
    mistaken_normal_frame,
)


@pytest.mark.golden("gv_vad/metric_cases*.npz", cases=r"in/(m\d+)/gt")
def test_figures_of_frames_are_the_published_ones(golden):
    """AUC, step-wise AP, trapezoid area and false alarms of tied scores."""
    found = figures(golden[f"in/{golden.case}/gt"], golden[f"in/{golden.case}/pred"])
    expected = golden.group(f"out/{golden.case}/")
    assert found.auc == pytest.approx(float(expected["auc"]), abs=1e-12)
    assert found.ap == pytest.approx(float(expected["ap"]), abs=1e-12)
    assert found.pr_area == pytest.approx(float(expected["pr_auc_trapezoid"]), abs=1e-12)
    assert found.far == pytest.approx(float(expected["far"]), abs=1e-12)


@pytest.mark.golden("gv_vad/metric_cases*.npz")
def test_labels_are_stretched_as_published(golden):
    """The last label is repeated, whatever it is."""
    outcomes = golden.group("out/pad/")
    assert outcomes
    for key, expected in outcomes.items():
        name = key.rpartition("to_")[0].rstrip("_") or "gt"
        found = fit_labels(golden[f"in/pad/{name}"], len(expected))
        np.testing.assert_array_equal(found, expected, err_msg=key)


def published_labels(names):
    """Frame labels of TAD test videos as the published dictionary has them."""
    rows = {row.video_id: row for row in read_rows("tad")}
    for name in names:
        row = rows[str(name)]
        labels = np.zeros(row.num_frames)
        for start, stop in row.intervals:
            labels[start:stop] = 1
        if row.label == 0:
            labels[slice(*mistaken_normal_frame(row.num_frames))] = 1
        yield labels


@pytest.mark.golden("gv_vad/metric_cases*.npz")
def test_the_evaluation_of_tad_is_the_published_one(golden):
    """All videos and those that hold a positive frame, which by mistake every normal one does."""
    edges = golden["in/tad/offsets"]
    scores = np.split(golden["in/tad/scores"], edges[1:-1])
    everything, some = evaluate_videos(scores, list(published_labels(golden["in/tad/video"])))
    found = {
        "auc_all": everything.auc,
        "ap_all": everything.ap,
        "far_all": everything.far,
        "auc_abn": some.auc,
        "far_abn": some.far,
    }
    for name, value in found.items():
        assert value == pytest.approx(golden.number(f"out/tad/{name}"), abs=1e-9), name
