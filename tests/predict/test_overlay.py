"""The overlay shows every frame, its score, and alarms where there are alarms."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from outspike.predict.overlay import curve_strip, draw, fit, frame_scores, write_overlay
from outspike.recording import Recording
from outspike.scoring.scores import VideoScores
from outspike.video.decode import decode
from outspike.video.probe import probe

RED = np.array([240, 84, 72])


def scores_of(values: list[float], num_frames: int, *, stride: int = 4) -> VideoScores:
    start = np.arange(len(values), dtype=np.int64) * stride
    return VideoScores(
        dataset="folder",
        video_id="v",
        scores=np.array(values, dtype=np.float32),
        start=start,
        stop=np.minimum(start + 4, num_frames),
        num_frames=num_frames,
        fps=Fraction(25),
    )


def reddish(picture: np.ndarray) -> bool:
    """Whether the upper left corner, where nothing else is drawn, is the colour of alarms."""
    return bool(np.abs(picture[:3, :3].astype(int).mean(axis=(0, 1)) - RED).max() < 40)


def test_every_frame_of_a_video_is_shown(tmp_path: Path, write_video: Callable[..., Path]) -> None:
    """As many frames at the same rate as the recording has, framed in red during alarms only."""
    video = write_video(tmp_path / "v.mp4", 14)
    recording = Recording(dataset="folder", video_id="v", url=str(video))
    out = tmp_path / "o.mp4"
    write_overlay(recording, scores_of([0.1, 0.9, 0.2, 0.3], 14), out, threshold=0.5)
    frames = np.concatenate([chunk.frames for chunk in decode(str(out))])
    assert len(frames) == 14
    assert probe(str(out)).fps == 25
    assert frames.shape[2] >= 480
    assert [reddish(frame) for frame in frames] == [False] * 4 + [True] * 4 + [False] * 6
    assert [p.name for p in tmp_path.iterdir() if p.suffix == ".mp4"] != []


def test_events_are_drawn_on_the_annotation_clock(
    tmp_path: Path, write_event_file: Callable[..., Path]
) -> None:
    """An event recording gives one picture per frame of its clock, with both polarities."""
    recording = Recording(
        dataset="folder",
        video_id="v",
        url=str(write_event_file(tmp_path / "v.raw")),
        modality="events",
        fps=Fraction(25),
    )
    out = tmp_path / "o.mp4"
    write_overlay(recording, scores_of([0.1, 0.2, 0.1, 0.3], 13), out, threshold=0.5)
    frames = np.concatenate([chunk.frames for chunk in decode(str(out))])
    assert len(frames) == 13
    pixels = frames[0, :200].reshape(-1, 3).astype(int)
    assert (pixels[:, 2] > pixels[:, 0] + 60).any()  # ON, blue
    assert (pixels[:, 0] > pixels[:, 2] + 60).any()  # OFF, red


def test_frames_without_score_stay_blank() -> None:
    """A grid that drops the tail leaves those frames without score and without alarm."""
    scores = scores_of([0.9, 0.8], 11)
    per_frame = frame_scores(scores)
    assert np.isnan(per_frame[8:]).all()
    np.testing.assert_allclose(per_frame[:8], [0.9] * 4 + [0.8] * 4, rtol=1e-6)
    pictures = iter(np.full((11, 20, 480, 3), 100, dtype=np.uint8))
    shown = list(draw(pictures, scores, 0.5))
    assert [reddish(frame) for frame in shown] == [True] * 8 + [False] * 3


def test_overlapping_snippets_are_averaged() -> None:
    """As evaluation does it."""
    scores = scores_of([0.0, 1.0], 6, stride=2)
    np.testing.assert_allclose(frame_scores(scores), [0, 0, 0.5, 0.5, 1, 1])
    np.testing.assert_array_equal(frame_scores(scores), scores.frame_scores())


def test_a_short_alarm_in_a_long_recording_stays_visible() -> None:
    """A column of the curve shows the highest of its frames."""
    per_frame = np.full(100_000, 0.1)
    per_frame[50_000] = 1.0
    strip = curve_strip(per_frame, 480, 0.5)
    red = (strip == RED.astype(np.uint8)).all(axis=2)
    assert red.any(axis=0).sum() == 1
    assert red[:, red.any(axis=0)].all()


@pytest.mark.parametrize(("height", "width"), [(47, 63), (120, 160), (360, 480), (1080, 1920)])
def test_pictures_have_a_size_for_watching(height: int, width: int) -> None:
    """Small ones are enlarged, large ones reduced, by whole steps, to even sides."""
    fitted = fit(np.zeros((height, width, 3), dtype=np.uint8))
    assert 480 <= fitted.shape[1] <= 962
    assert fitted.shape[0] % 2 == fitted.shape[1] % 2 == 0
    assert abs(fitted.shape[1] / fitted.shape[0] - width / height) < 0.05


def test_scores_above_one_half_are_marked_from_the_threshold_on() -> None:
    """A threshold of 0 alarms always, one of 1 never, and neither fails to draw."""
    pictures = np.full((4, 20, 480, 3), 100, dtype=np.uint8)
    for threshold, alarms in ((0.0, True), (1.0, False)):
        shown = list(draw(iter(pictures), scores_of([0.3], 4), threshold))
        assert [reddish(frame) for frame in shown] == [alarms] * 4
