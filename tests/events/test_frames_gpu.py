"""The device counts what the processor counts."""

import numpy as np
import pytest
from event_samples import random_events

from outspike.errors import AlignmentError, ConfigError
from outspike.events import frames, frames_gpu, surfaces
from outspike.events.columns import Events

SIZE = (160, 120)


@pytest.mark.gpu
@pytest.mark.parametrize("num", [0, 1, 100_000])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32])
def test_frames_on_the_device_are_the_same_integers(num: int, dtype: type) -> None:
    events = random_events(num, size=SIZE)
    windows = frames.windows_on_grid(events.t, 33_333, anchor_us=0, num_windows=31)
    expected = frames.count_frames(events, windows, SIZE, dtype)
    found = frames_gpu.count_frames(events, windows, SIZE, dtype)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found.get(), expected)


@pytest.mark.gpu
@pytest.mark.parametrize("bins", [1, 2, 5])
@pytest.mark.parametrize("num", [0, 1, 100_000])
def test_voxels_on_the_device_are_the_same_sums(num: int, bins: int) -> None:
    events = random_events(num, size=SIZE)
    expected = surfaces.voxel_grid(events, bins, SIZE)
    np.testing.assert_array_equal(frames_gpu.voxel_grid(events, bins, SIZE).get(), expected)


@pytest.mark.gpu
def test_overflow_and_outside_are_errors_on_the_device_too() -> None:
    zeros = np.zeros(300, np.uint16)
    events = Events(np.zeros(300, np.int64), zeros, zeros, np.ones(300, np.uint8))
    with pytest.raises(AlignmentError, match="more than 255 events"):
        frames_gpu.count_frames(events, np.array([0, 300]), SIZE, np.uint8)
    with pytest.raises(AlignmentError, match="outside 10x10"):
        frames_gpu.count_frames(random_events(500, size=SIZE), np.array([0, 500]), (10, 10))


def test_without_a_device_the_error_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where cupy is there and a device is not, too."""
    monkeypatch.setattr(frames_gpu, "available", lambda: False)
    with pytest.raises(ConfigError, match="No CUDA device for cupy"):
        frames_gpu.count_frames(random_events(5, size=SIZE), np.array([0, 5]), SIZE)
    with pytest.raises(ConfigError, match="No CUDA device for cupy"):
        frames_gpu.voxel_grid(random_events(5, size=SIZE), 2, SIZE)
