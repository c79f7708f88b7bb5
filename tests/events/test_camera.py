"""A simulated camera sends what the light does, and the noise it is told to add."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outspike.errors import AlignmentError, ConfigError
from outspike.events.camera import CameraConfig, EventCamera, log_intensity
from outspike.events.columns import Events, concatenate

NOISY = CameraConfig(shot_rate_hz=20.0, leak_rate_hz=5.0, refractory_us=2000, mismatch=0.05)


def walk(num_frames: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    steps = rng.normal(0, 25, (num_frames, 6, 5)).cumsum(axis=0)
    return np.clip(120 + steps, 0, 255)


def rows(events: Events) -> list[tuple[int, ...]]:
    columns = (events.t, events.x, events.y, events.p)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def times(num: int, step_us: int = 33_333) -> np.ndarray:
    return np.arange(num, dtype=np.int64) * step_us


@settings(deadline=None)
@given(num=st.integers(1, 15), cut=st.integers(0, 15), seed=st.integers(0, 50))
def test_cuts_change_no_event_and_time_never_runs_back(num: int, cut: int, seed: int) -> None:
    """Noise too: it depends on seed, frame and pixel alone."""
    frames, t = walk(num, seed), times(num)
    whole = EventCamera(NOISY, seed=seed).push(frames, t)
    camera = EventCamera(NOISY, seed=seed)
    parts = concatenate([camera.push(frames[:cut], t[:cut]), camera.push(frames[cut:], t[cut:])])
    assert rows(parts) == rows(whole)
    assert (np.diff(whole.t) >= 0).all()


@settings(deadline=None)
@given(num=st.integers(2, 15), threshold=st.floats(0.05, 0.5), seed=st.integers(0, 50))
def test_events_add_up_to_the_change_of_log_intensity(
    num: int, threshold: float, seed: int
) -> None:
    """In an ideal camera, to less than one threshold a pixel, and whatever its way there."""
    frames = walk(num, seed)
    events = EventCamera(CameraConfig.clean(threshold)).push(frames, times(num))
    told = np.zeros(frames.shape[1:])
    np.add.at(told, (events.y, events.x), np.where(events.p, threshold, -threshold))
    level = log_intensity(frames)
    assert np.abs(level[-1] - level[0] - told).max() < threshold + 1e-9


def test_crossings_have_the_times_of_a_straight_line() -> None:
    """A ramp of ten thresholds gives ten events, evenly spread over the frame."""
    frames = np.exp(np.array([4.0, 5.0])).reshape(2, 1, 1)
    events = EventCamera(CameraConfig.clean(0.0999999)).push(frames, np.array([0, 1_000_000]))
    np.testing.assert_allclose(events.t, np.arange(1, 11) * 100_000, atol=2)
    assert events.p.all()
    down = EventCamera(CameraConfig.clean(0.0999999)).push(frames[::-1], np.array([0, 1_000_000]))
    assert not down.p.any()
    assert down.t.tolist() == events.t.tolist()


def test_thresholds_differ_from_pixel_to_pixel_and_with_the_seed() -> None:
    frames = np.stack([np.full((40, 40), 30.0), np.full((40, 40), 200.0)])

    def counts(mismatch: float, seed: int) -> np.ndarray:
        config = CameraConfig(mismatch=mismatch, shot_rate_hz=0, leak_rate_hz=0, refractory_us=0)
        events = EventCamera(config, seed=seed).push(frames, times(2))
        return np.bincount(events.y.astype(int) * 40 + events.x, minlength=1600)

    assert len(set(counts(0.0, 0).tolist())) == 1
    assert len(set(counts(0.05, 0).tolist())) > 3
    assert (counts(0.05, 0) != counts(0.05, 1)).any()
    assert (counts(0.05, 1) == counts(0.05, 1)).all()
    assert abs(np.median(counts(0.05, 0)) - np.median(counts(0.0, 0))) <= 1


@settings(deadline=None, max_examples=20)
@given(refractory=st.integers(1, 50_000), seed=st.integers(0, 50))
def test_a_pixel_rests_after_an_event(refractory: int, seed: int) -> None:
    config = CameraConfig(refractory_us=refractory, shot_rate_hz=50.0)
    events = EventCamera(config, seed=seed).push(walk(10, seed), times(10))
    pixel = events.y.astype(int) * 5 + events.x
    for one in np.unique(pixel):
        assert (np.diff(events.t[pixel == one]) >= refractory).all()


def test_the_leak_sends_on_events_at_its_rate() -> None:
    """Two seconds without any change."""
    config = CameraConfig(leak_rate_hz=5.0, shot_rate_hz=0.0, mismatch=0.0, refractory_us=0)
    frames = np.full((61, 8, 8), 100.0)
    events = EventCamera(config).push(frames, times(61))
    assert events.p.all()
    assert len(events) == pytest.approx(64 * 5 * 2, rel=0.11)


def test_shot_noise_has_its_rate_and_favours_the_dark() -> None:
    """Rates within four standard deviations; polarities alike; a quarter in full light."""
    config = CameraConfig(leak_rate_hz=0.0, shot_rate_hz=10.0, mismatch=0.0, refractory_us=0)
    frames = np.zeros((101, 32, 32))
    frames[:, :, 16:] = 255
    events = EventCamera(config, seed=3).push(frames, times(101, 20_000))
    dark, light = int((events.x < 16).sum()), int((events.x >= 16).sum())
    expected = 512 * 10.0 * 2.0
    assert dark == pytest.approx(expected, abs=4 * expected**0.5)
    assert light == pytest.approx(expected / 4, abs=4 * (expected / 4) ** 0.5)
    assert int(events.p.sum()) == pytest.approx(len(events) / 2, abs=2 * len(events) ** 0.5)
    assert len(np.unique(events.t)) > 0.9 * len(events)


def test_stillness_is_silent_in_an_ideal_camera() -> None:
    assert not len(EventCamera(CameraConfig.clean()).push(np.full((5, 4, 4), 90), times(5)))
    assert not len(EventCamera().push(np.zeros((0, 4, 4)), times(0)))


def test_frames_that_do_not_fit_are_errors() -> None:
    with pytest.raises(AlignmentError, match="with 3 times"):
        EventCamera().push(np.zeros((2, 4, 4)), times(3))
    with pytest.raises(AlignmentError, match="at 0 us after one at 0 us"):
        EventCamera().push(np.zeros((2, 4, 4)), np.zeros(2, np.int64))
    camera = EventCamera()
    camera.push(np.zeros((1, 4, 4)), times(1))
    with pytest.raises(AlignmentError, match="one size"):
        camera.push(np.zeros((1, 4, 5)), times(2)[1:])


def test_settings_are_checked() -> None:
    with pytest.raises(ConfigError, match="threshold_on=0"):
        CameraConfig(threshold_on=0.0)
    with pytest.raises(ConfigError, match="must not be negative"):
        CameraConfig(leak_rate_hz=-1.0)
