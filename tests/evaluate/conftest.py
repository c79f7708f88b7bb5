"""Videos with scores and labels, made up for these tests."""

from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np
import pytest
from numpy.typing import NDArray

from outspike.scoring.scores import VideoScores

MakeVideo = Callable[..., VideoScores]


def build_video(
    video_id: str,
    scores: Sequence[float] | NDArray[np.floating],
    *,
    intervals: tuple[tuple[int, int], ...] | None = (),
    label: int | None = None,
    num_frames: int | None = None,
    snippet: int = 16,
    dataset: str = "made-up",
    class_name: str | None = None,
    fps: int = 25,
) -> VideoScores:
    """A video whose snippets of ``snippet`` frames tile it; the last one may be short."""
    start = np.arange(len(scores), dtype=np.int64) * snippet
    num_frames = len(scores) * snippet if num_frames is None else num_frames
    if label is None and intervals is not None:
        label = int(bool(intervals))
    return VideoScores(
        dataset=dataset,
        video_id=video_id,
        scores=np.asarray(scores, dtype=np.float32),
        start=start,
        stop=np.minimum(start + snippet, num_frames),
        num_frames=num_frames,
        fps=Fraction(fps),
        label=label,
        class_name=class_name,
        intervals=intervals,
    )


def build_set(
    num_videos: int, seed: int = 0, *, separation: float = 0.25, dataset: str = "made-up"
) -> list[VideoScores]:
    """Half normal, half anomalous videos of three classes; anomalous frames score higher."""
    rng = np.random.default_rng(seed)
    videos = []
    for index in range(num_videos):
        num_snippets = int(rng.integers(8, 40))
        num_frames = num_snippets * 16 - int(rng.integers(0, 15))
        scores = rng.random(num_snippets) * 0.6
        intervals: tuple[tuple[int, int], ...] = ()
        if index % 2:
            first = int(rng.integers(1, num_frames // 2))
            last = int(rng.integers(first + 8, num_frames))
            intervals = ((first, last),)
            scores[first // 16 : last // 16 + 1] += separation
        videos.append(
            build_video(
                f"video_{index:03d}",
                np.clip(scores, 0, 1),
                intervals=intervals,
                num_frames=num_frames,
                dataset=dataset,
                class_name=("Collision", "Fire", "Fight")[index // 2 % 3]
                if index % 2
                else "Normal",
            )
        )
    return videos


@pytest.fixture
def make_video() -> MakeVideo:
    return build_video


@pytest.fixture
def make_set() -> Callable[..., list[VideoScores]]:
    return build_set
