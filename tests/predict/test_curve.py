"""The score curve picture."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from outspike.predict.curve import score_curve_png
from outspike.scoring.scores import VideoScores


@pytest.mark.parametrize("num_snippets", [1, 5, 400])
def test_a_recording_of_any_length_gives_a_picture(num_snippets: int, tmp_path: Path) -> None:
    """One whole PNG under the name asked for, and no other file."""
    start = np.arange(num_snippets, dtype=np.int64) * 16
    scores = VideoScores(
        dataset="made-up",
        video_id="street/cam 1",
        scores=np.random.default_rng(0).random(num_snippets).astype(np.float32),
        start=start,
        stop=start + 16,
        num_frames=num_snippets * 16,
        fps=Fraction(30000, 1001),
    )
    path = tmp_path / "out" / "cam.png"
    score_curve_png(scores, path, [(0, 16)])
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        shaded = np.asarray(picture.convert("RGB"))
    assert [found.name for found in path.parent.iterdir()] == ["cam.png"]
    score_curve_png(scores, path)
    with Image.open(path) as picture:
        assert (np.asarray(picture.convert("RGB")) != shaded).any()
