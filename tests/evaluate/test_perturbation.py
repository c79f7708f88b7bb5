"""The perturbation study on a made-up model."""

from collections.abc import Mapping

import numpy as np
import pytest
from numpy.typing import NDArray

from outspike.errors import AlignmentError, ConfigError
from outspike.evaluate.perturbation import Outcome, StudyVideo, draw_positions, perturb, run_study

WINDOW, WIDTH = 8, 3


def model(windows: Mapping[str, NDArray[np.float32]]) -> Outcome:
    """Leans on the modality with the larger features; its score is the mean of the first."""
    first, second = np.abs(windows["a"]), np.abs(windows["b"])
    share = first / (first + second + 1e-6)
    return Outcome(
        probability=1 / (1 + np.exp(-windows["a"].mean(axis=2))),
        weights={"a": share, "b": 1 - share},
    )


def build_videos() -> list[StudyVideo]:
    rng = np.random.default_rng(0)
    videos = []
    for index, num_rows in enumerate((5, 13, 16)):
        labels = np.repeat(rng.random(num_rows) < 0.4, 16).astype(np.uint8)
        num_windows = num_rows // WINDOW + 1
        windows = {
            name: rng.normal(size=(num_windows, WINDOW, WIDTH)).astype(np.float32) for name in "ab"
        }
        videos.append(StudyVideo(name=f"v{index}", windows=windows, labels=labels))
    return videos


def test_the_clean_run_changes_nothing_and_a_lost_modality_loses_weight() -> None:
    """KL and weight change are zero at first; the perturbed modality is leaned on less."""
    clean, a, b = run_study(build_videos(), model, modalities=("a", "b"), fractions=(0.0, 0.5))
    assert (clean.modality, clean.fraction, clean.kl) == (None, 0.0, 0.0)
    assert all((change == 0).all() for change in clean.weight_change.values())
    assert (a.modality, b.modality) == ("a", "b")
    assert a.weight["a"] < clean.weight["a"] < b.weight["a"]
    assert a.kl > 0
    assert b.kl == pytest.approx(0)
    assert a.weight_change["a"].mean() == pytest.approx(clean.weight["a"] - a.weight["a"])


def test_a_video_keeps_its_draw_when_others_come_or_go() -> None:
    """Figures of one video alone do not depend on which cases and videos stand beside it."""
    videos = build_videos()
    alone = run_study(videos[:1], model, modalities=("a",), fractions=(0.3,))[1]
    again = run_study(videos[:1], model, modalities=("b", "a"), fractions=(0.1, 0.3))[4]
    assert (again.modality, again.fraction) == ("a", 0.3)
    assert (alone.brier, alone.kl) == (again.brier, again.kl)


def test_positions_are_shared_by_all_windows_and_the_input_is_left_alone() -> None:
    """The first floor(fraction * T) of a permutation, the same in every window."""
    video = build_videos()[2]
    positions = draw_positions(WINDOW, 0.3, np.random.default_rng(0))
    assert len(positions) == 2
    before = video.windows["b"].copy()
    changed = perturb(video.windows, "b", positions)
    assert np.array_equal(video.windows["b"], before)
    assert np.allclose(changed["b"][:, positions], before[:, positions] * 0.01)
    rest = np.setdiff1d(np.arange(WINDOW), positions)
    assert np.array_equal(changed["b"][:, rest], before[:, rest])
    assert changed["a"] is video.windows["a"]


def test_labels_that_do_not_fit_the_windows_and_unknown_modalities_are_refused() -> None:
    """By name, before anything is run."""
    windows = build_videos()[0].windows
    with pytest.raises(AlignmentError, match="late: 160 frame labels"):
        StudyVideo(name="late", windows=windows, labels=np.zeros(160, dtype=np.uint8))
    with pytest.raises(AlignmentError, match="odd: 30 frame labels"):
        StudyVideo(name="odd", windows=windows, labels=np.zeros(30, dtype=np.uint8))
    with pytest.raises(ConfigError, match="No modality 'c'"):
        perturb(windows, "c", np.arange(2))
    with pytest.raises(ConfigError, match=r"fraction=1\.5"):
        draw_positions(8, 1.5, np.random.default_rng(0))
