"""What a prediction leaves behind says exactly what was scored."""

import csv
import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from outspike.predict.curve import score_curve_png
from outspike.predict.write import intervals, write_prediction
from outspike.recording import Recording
from outspike.scoring.scores import VideoScores


def scores_of(values: list[float], *, stride: int = 4, length: int = 4) -> VideoScores:
    start = np.arange(len(values), dtype=np.int64) * stride
    return VideoScores(
        dataset="folder",
        video_id="cam/v",
        scores=np.array(values, dtype=np.float32),
        start=start,
        stop=start + length,
        num_frames=int(start[-1]) + length if values else 0,
        fps=Fraction(30000, 1001),
    )


def test_runs_above_the_threshold_become_intervals() -> None:
    """Neighbours join, their highest score stands for them, and the threshold itself counts."""
    found = intervals(scores_of([0.5, 0.75, 0.25, 0.5, 0.0, 1.0]), 0.5)
    assert found == [
        {"frame_start": 0, "frame_stop": 8, "score": 0.75},
        {"frame_start": 12, "frame_stop": 16, "score": 0.5},
        {"frame_start": 20, "frame_stop": 24, "score": 1.0},
    ]
    assert intervals(scores_of([0.25]), 0.5) == []


def test_intervals_do_not_bridge_frames_without_score() -> None:
    """A grid that leaves frames out gives an interval on either side; one that overlaps joins."""
    assert [
        (i["frame_start"], i["frame_stop"])
        for i in intervals(scores_of([0.9, 0.9], stride=8, length=4), 0.5)
    ] == [(0, 4), (8, 12)]
    assert [
        (i["frame_start"], i["frame_stop"])
        for i in intervals(scores_of([0.9, 0.9], stride=2, length=4), 0.5)
    ] == [(0, 6)]


@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=30), st.floats(0, 1))
def test_intervals_cover_exactly_the_alarms(values: list[float], threshold: float) -> None:
    """On a grid that tiles the recording, frames in intervals are those scored high enough."""
    scores = scores_of(values)
    inside = np.zeros(scores.num_frames, dtype=bool)
    found = intervals(scores, threshold)
    for interval in found:
        assert not inside[interval["frame_start"] : interval["frame_stop"]].any()
        inside[interval["frame_start"] : interval["frame_stop"]] = True
    np.testing.assert_array_equal(inside, scores.frame_scores() >= threshold)
    assert all(a["frame_stop"] < b["frame_start"] for a, b in itertools.pairwise(found))


def test_the_files_are_those_of_the_manual(
    tmp_path: Path, write_video: Callable[..., Path]
) -> None:
    """Table, intervals, curve and overlay, under the recording's id, with every bit of a score."""
    video = write_video(tmp_path / "v.mp4", 12)
    values = [1 / 3, 0.1, 0.7]
    recording = Recording(dataset="folder", video_id="cam/v", url=str(video))
    out = tmp_path / "out"
    written = write_prediction(recording, scores_of(values), str(out), threshold=0.5, overlay=True)
    assert [Path(p).relative_to(out).as_posix() for p in written] == [
        "cam/v.csv",
        "cam/v.json",
        "cam/v.png",
        "cam/v.mp4",
    ]
    assert sorted(p.name for p in (out / "cam").iterdir()) == ["v.csv", "v.json", "v.mp4", "v.png"]
    text = (out / "cam/v.csv").read_text()
    assert text.splitlines()[0] == "video_id,frame_start,frame_stop,score"
    rows = list(csv.DictReader(text.splitlines()))
    assert [(r["video_id"], r["frame_start"], r["frame_stop"]) for r in rows] == [
        ("cam/v", "0", "4"),
        ("cam/v", "4", "8"),
        ("cam/v", "8", "12"),
    ]
    back = np.array([float(r["score"]) for r in rows], dtype=np.float32)
    assert back.tobytes() == np.float32(values).tobytes()
    assert json.loads((out / "cam/v.json").read_text()) == {
        "video_id": "cam/v",
        "fps": 30000 / 1001,
        "intervals": [{"frame_start": 8, "frame_stop": 12, "score": float(np.float32(0.7))}],
    }


@pytest.mark.parametrize("num_intervals", [0, 1, 2])
def test_the_curve_is_a_picture(tmp_path: Path, num_intervals: int) -> None:
    """A PNG of the whole curve, with found intervals shaded and gaps left open."""
    scores = scores_of([0.2, 0.9, 0.1, 0.8], stride=8, length=4)
    found = [(i["frame_start"], i["frame_stop"]) for i in intervals(scores, 0.5)]
    path = tmp_path / "v.png"
    score_curve_png(scores, path, found[:num_intervals])
    picture = np.asarray(Image.open(path).convert("RGB"))
    assert picture.shape[1] > 1000
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 10
    score_curve_png(replace(scores, intervals=((8, 12),)), path, found)
    assert [p.name for p in tmp_path.iterdir()] == ["v.png"]
