"""Intervals over videos."""

import time
from collections.abc import Callable

import numpy as np
import pytest

from outspike.errors import AlignmentError, ConfigError
from outspike.evaluate.bootstrap import paired_difference, resample
from outspike.evaluate.evaluate import evaluate
from outspike.evaluate.frames import on_frames
from outspike.evaluate.metrics import Evaluated, statistic
from outspike.evaluate.protocols import PROTOCOLS
from outspike.scoring.scores import VideoScores

FOLDER = PROTOCOLS["folder"]
MakeSet = Callable[..., list[VideoScores]]


def test_resamples_keep_the_strata_and_repeat_with_the_seed() -> None:
    """Stratified draws keep how many normal and anomalous videos there are."""
    strata = [True] * 3 + [False] * 9
    draws = resample(strata, num_resamples=200, seed=1)
    assert (draws.weights[:, :3].sum(axis=1) == 3).all()
    assert (draws.weights[:, 3:].sum(axis=1) == 9).all()
    assert np.array_equal(draws.weights, resample(strata, num_resamples=200, seed=1).weights)
    assert not np.array_equal(draws.weights, resample(strata, num_resamples=200, seed=2).weights)
    free = resample(strata, num_resamples=200, seed=1, stratified=False)
    assert (free.weights.sum(axis=1) == 12).all()
    assert len(set(free.weights[:, :3].sum(axis=1))) > 1
    with pytest.raises(ConfigError, match="level"):
        resample(strata, level=1.0)


@pytest.mark.parametrize("name", FOLDER.metrics)
def test_a_weighted_metric_equals_the_metric_of_the_drawn_videos(
    name: str, make_set: MakeSet
) -> None:
    """Weights are only a fast way to evaluate a multiset of videos."""
    videos = make_set(10, seed=5)
    weight = np.array([0, 2, 1, 0, 3, 1, 0, 1, 1, 1], dtype=float)
    drawn = []
    for video, times in zip(videos, weight.astype(int), strict=True):
        for copy in range(times):
            values = {**vars(video), "video_id": f"{video.video_id}_{copy}"}
            drawn.append(VideoScores(**values))

    def compute(some: list[VideoScores], weights: np.ndarray) -> float:
        data = Evaluated([on_frames(video, FOLDER) for video in some], FOLDER)
        return float(statistic(name, data).compute(weights[None])[0])  # type: ignore[arg-type]

    # Copies of a video tie, and tied proposals have no order of their own: mAP is close, not equal.
    tolerance = 0.05 if name == "detection_map" else 1e-12
    assert compute(videos, weight) == pytest.approx(
        compute(drawn, np.ones(len(drawn))), abs=tolerance
    )


def test_the_interval_covers_the_truth_about_as_often_as_it_says(make_set: MakeSet) -> None:
    """Over many made-up test sets, most 80 % intervals hold the AUC of a very large one."""
    truth = evaluate(make_set(600, seed=99), FOLDER, num_resamples=0).metrics["auc"].value
    assert truth is not None
    held = 0
    for seed in range(40):
        found = evaluate(make_set(24, seed=seed), FOLDER, num_resamples=200, level=0.8)
        low, high = found.metrics["auc"].low, found.metrics["auc"].high
        assert low is not None
        assert high is not None
        held += low <= truth <= high
    assert 24 <= held <= 39


def test_a_difference_from_the_same_scores_is_zero_and_not_shown(make_set: MakeSet) -> None:
    """The pairing cancels what both sides share; an interval that touches zero shows nothing."""
    videos = make_set(12)
    results = evaluate(videos, FOLDER, floor=videos[::-1], floor_name="copy", num_resamples=50)
    assert results.floor is not None
    for name in FOLDER.metrics:
        difference = results.floor.differences[name]
        assert (difference.value, difference.low, difference.high) == (0, 0, 0)
        assert results.floor.verdict(name) == "not shown"


def test_a_clear_difference_is_shown_with_its_direction(make_set: MakeSet) -> None:
    """Better and worse follow what is good: more AUC, less false alarm."""
    good, poor = make_set(40, seed=1, separation=0.5), make_set(40, seed=1, separation=0.0)
    better = evaluate(good, FOLDER, floor=poor, num_resamples=200).floor
    worse = evaluate(poor, FOLDER, floor=good, num_resamples=200).floor
    assert better is not None
    assert worse is not None
    assert better.verdict("auc") == "better"
    assert worse.verdict("auc") == "worse"
    assert better.differences["auc"].value == pytest.approx(-worse.differences["auc"].value)  # type: ignore[operator]
    data = [
        Evaluated([on_frames(video, FOLDER) for video in videos], FOLDER) for videos in (good, poor)
    ]
    direct = paired_difference(
        statistic("auc", data[0]),
        statistic("auc", data[1]),
        resample(data[0].abnormal, num_resamples=200),
    )
    assert direct == better.differences["auc"]


def test_a_floor_of_other_videos_or_other_labels_is_refused(make_set: MakeSet) -> None:
    """A paired difference needs the very same videos with the very same labels."""
    videos = make_set(6)
    with pytest.raises(AlignmentError, match=r"1 missing.*video_005"):
        evaluate(videos, FOLDER, floor=videos[:-1])
    other = [*videos[:-1], make_set(6, seed=8)[-1]]
    with pytest.raises(AlignmentError, match="made-up/video_005: motion_floor saw"):
        evaluate(videos, FOLDER, floor=other)


def test_too_few_videos_give_a_value_without_an_interval(
    make_video: Callable[..., VideoScores], make_set: MakeSet
) -> None:
    """One video cannot be resampled; resamples that lose a class are not hidden."""
    one = [make_video("x", [0.1, 0.9], intervals=((16, 32),))]
    found = evaluate(one, FOLDER).metrics["auc"]
    assert (found.value, found.low) == (1.0, None)
    assert "one video" in str(found.reason)
    two = [*one, make_video("n", [0.2])]
    lost = evaluate(two, FOLDER, stratified=False).metrics["video_auc"]
    assert lost.value == 1.0
    assert "undefined in" in str(lost.reason)
    none = evaluate(make_set(6), FOLDER, num_resamples=0).metrics["auc"]
    assert "no resamples" in str(none.reason)


@pytest.mark.slow
def test_three_hundred_long_videos_take_seconds(make_set: MakeSet) -> None:
    """1000 resamples of every metric over 300 videos, with a floor, within half a minute."""
    videos = make_set(300)
    began = time.monotonic()
    evaluate(videos, FOLDER, floor=videos, num_resamples=1000)
    assert time.monotonic() - began < 30
