"""Crops, windows and tails: what a protocol prescribes is what gets scored and counted."""

import dataclasses
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
import torch

from outspike.config import IefVadConfig
from outspike.detectors.bags import Bags, Scores
from outspike.detectors.base import Detector, LossTerm
from outspike.detectors.build import build
from outspike.errors import AlignmentError
from outspike.evaluate.evaluate import evaluate
from outspike.evaluate.policies import score_under
from outspike.evaluate.protocols import Protocol, get_protocol
from outspike.scoring.score import score_bags
from outspike.scoring.scores import VideoScores
from outspike.store.bags import Bag

ONE_CROP = Protocol(name="one crop", dataset="*", crop_policy="mirrored_centre")
WINDOWS = Protocol(name="windows", dataset="*", window_policy="windows_256")


class MeanOfRows(Detector):
    """Scores a snippet by its first feature, mean over crops, over the rows seen with it."""

    @property
    def feature_sets(self) -> dict[str, int]:
        return {"x": 3}

    def forward(self, bags: Bags) -> Scores:
        return Scores(snippet=bags.features["x"].mean(dim=1)[..., 0] / bags.num_snippets[:, None])

    def loss(self, bags: Bags, scores: Scores) -> list[LossTerm]:
        raise NotImplementedError


def make_bag(num_rows: int, *, num_crops: int = 10, width: int = 3, sets: str = "x") -> Bag:
    """Every crop's values are its number."""
    start = np.arange(num_rows, dtype=np.int64) * 16
    rows = np.broadcast_to(
        np.arange(num_crops, dtype=np.float32)[:, None, None], (num_crops, num_rows, width)
    )
    return Bag(
        dataset="made-up",
        video_id=f"v{num_rows}",
        features={name: rows.copy() for name in sets.split()},
        start=start,
        stop=start + 16,
        num_frames=16 * num_rows,
        fps=Fraction(25),
        label=0,
        class_name=None,
        synthetic=False,
        intervals=(),
        group=None,
        split="test",
    )


@pytest.mark.parametrize(
    ("policy", "expected"), [("mean", 4.5), ("centre", 0), ("mirrored_centre", 5)]
)
def test_one_crop_or_the_mean_of_all_is_scored(policy: str, expected: float) -> None:
    """Crops lie in the order of the published archives."""
    protocol = dataclasses.replace(ONE_CROP, crop_policy=policy)  # type: ignore[arg-type]
    (video,) = score_under(protocol, MeanOfRows(), [make_bag(4)])
    np.testing.assert_array_equal(video.scores * 4, [expected] * 4)


def test_a_crop_that_is_not_there_is_an_error() -> None:
    """It names the recording, the feature set and both numbers."""
    with pytest.raises(AlignmentError, match=r"made-up/v4: 1 crop\(s\) of 'x'.*crop 5 of 10"):
        score_under(ONE_CROP, MeanOfRows(), [make_bag(4, num_crops=1)])


def test_windows_lie_side_by_side_and_every_snippet_keeps_its_frames() -> None:
    """Of 600 snippets the last window has 88; recordings do not run into each other."""
    bags = [make_bag(600), make_bag(256), make_bag(3)]
    videos = score_under(WINDOWS, MeanOfRows(), bags)
    assert [video.video_id for video in videos] == ["v600", "v256", "v3"]
    sizes = [np.repeat([256, 256, 88], [256, 256, 88]), np.full(256, 256), np.full(3, 3)]
    for video, bag, size in zip(videos, bags, sizes, strict=True):
        np.testing.assert_array_equal(video.start, bag.start)
        np.testing.assert_array_equal(video.stop, bag.stop)
        np.testing.assert_allclose(video.scores * size, 4.5, rtol=1e-6)


def test_windows_of_the_protocol_are_those_of_the_published_detector() -> None:
    """IEF-VAD's published form cuts by itself, and alike; its default form would not."""
    sizes = {"image_width": 6, "event_width": 6, "width": 6, "num_heads": 2}
    config = IefVadConfig(image_set="x", event_set="y", compat="ief_vad_2025", **sizes)
    torch.manual_seed(0)
    detector = build(config)
    bag = make_bag(300, width=6, sets="x y")
    rng = np.random.default_rng(0)
    bag.features["x"][:] = rng.normal(size=bag.features["x"].shape)
    (cut,) = score_under(WINDOWS, detector, [bag])
    (whole,) = score_bags(detector, [bag])
    np.testing.assert_allclose(cut.scores, whole.scores, atol=1e-6)


def test_the_published_rule_of_lad2000_drops_what_no_whole_window_holds(
    make_video: Callable[..., VideoScores],
) -> None:
    """Seven snippets count as five, and a video of four has no part in any figure."""
    rule = dataclasses.replace(get_protocol("lad2000-as-published"), dataset="*")
    videos = [
        make_video("seven", [0.9, 0.1, 0.1, 0.1, 0.1, 0.0, 0.9], intervals=((0, 16), (80, 96))),
        make_video("four", [0.9, 0.9, 0.9, 0.9]),
        make_video("ten", [0.1] * 10),
    ]
    results = evaluate(videos, rule, num_resamples=0)
    assert results.metrics["auc"].value == 1.0
    assert results.num_unscored_frames == 32 + 64
    everything = evaluate(
        videos, dataclasses.replace(rule, frame_rule="every_frame"), num_resamples=0
    )
    assert everything.num_unscored_frames == 0
    assert (everything.metrics["auc"].value or 0) < 1.0
