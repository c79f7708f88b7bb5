"""Area sums, changes and counts per frame against their plain definitions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outspike.encoders.event_maps import (
    DIRECTIONS,
    AreaSums,
    ChangeCounter,
    EventChange,
    LogIntensity,
    PyramidConfig,
)
from outspike.encoders.frames import grey
from outspike.encoders.kernels import log_levels

CONFIG = PyramidConfig()
ONE = 1 << 16


@given(seed=st.integers(0, 9), turned=st.booleans())
def test_grey_is_the_rounded_luma_of_every_pixel(seed, turned):
    """Of whole chunks and single frames, also of frames that are views."""
    frames = np.random.default_rng(seed).integers(0, 256, (3, 5, 7, 3), dtype=np.uint8)
    frames[0, 0, :2] = [[0, 0, 0], [255, 255, 255]]
    if turned:
        frames = np.rot90(frames, axes=(1, 2))
    expected = (frames.astype(int) @ [77, 150, 29] + 128) >> 8
    np.testing.assert_array_equal(grey(frames), expected)
    np.testing.assert_array_equal(grey(frames[1]), expected[1])


@given(source=st.tuples(st.integers(1, 40), st.integers(1, 40)), seed=st.integers(0, 9))
def test_area_sums_are_exact(source, seed):
    """Every working pixel gets the mean over its area of the source taken as a step function."""
    target = (6, 9)
    picture = np.random.default_rng(seed).integers(0, 256, source)
    sums = AreaSums(source, target)
    fine = picture.repeat(target[0], axis=0).repeat(target[1], axis=1)  # common grid
    blocks = fine.reshape(target[0], source[0], target[1], source[1])
    np.testing.assert_array_equal(sums(picture), blocks.sum(axis=(1, 3)))
    np.testing.assert_array_equal(sums(np.ones(source, dtype=np.uint8)), sums.weight)


@pytest.mark.parametrize("size", [(240, 360), (1080, 1920), (67, 123)])
def test_log_intensity_is_that_of_the_mean(size):
    """log(mean grey + offset), to the resolution of the table."""
    grey = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
    sums = AreaSums(size, (CONFIG.height, CONFIG.width))
    expected = np.log(sums(grey) / sums.weight + CONFIG.offset)
    np.testing.assert_allclose(LogIntensity(CONFIG, size)(grey) / ONE, expected, atol=3e-4)


def test_camera_changes_are_contrast_times_mean_events():
    """Two ON events in one of the four sensor pixels under a working pixel: half the contrast."""
    size = (2 * CONFIG.height, 2 * CONFIG.width)
    signed = np.zeros(size, dtype=np.int32)
    signed[4, 7] = 2
    signed[10:12, 20:22] = -1
    change = EventChange(CONFIG, size)(signed) / ONE
    assert change[2, 3] == pytest.approx(CONFIG.contrast / 2, abs=1e-5)
    assert change[5, 10] == pytest.approx(-CONFIG.contrast, abs=1e-5)
    assert np.count_nonzero(change) == 2


def test_counts_are_those_of_the_plain_definition():
    """Pixels above thresholds over lags, and matching signs at displacements, cell by cell."""
    rng = np.random.default_rng(2)
    changes = (rng.normal(0, 0.15, (6, CONFIG.height, CONFIG.width)) * ONE).astype(np.int32)
    counter = ChangeCounter(CONFIG)
    counts = [counter.push(change) for change in changes]
    for frame in range(len(changes)):
        for i, lag in enumerate(CONFIG.lags):
            over = np.abs(changes[max(0, frame - lag + 1) : frame + 1].sum(axis=0))
            for j, threshold in enumerate(CONFIG.thresholds):
                hit = (over >= round(threshold * ONE)).reshape(12, 10, 18, 10)
                np.testing.assert_array_equal(counts[frame].active[i, j], hit.sum(axis=(1, 3)))
    signs = np.sign(changes) * (np.abs(changes) >= round(CONFIG.event_threshold * ONE))
    before, now = signs[3], signs[4]
    for i, step in enumerate(CONFIG.steps):
        for j, (down, right) in enumerate(DIRECTIONS):
            expected = np.zeros((6, 9))
            for y, x in zip(*np.nonzero(before), strict=True):
                v, u = y + step * down, x + step * right
                inside = 0 <= v < CONFIG.height and 0 <= u < CONFIG.width
                expected[y // 20, x // 20] += inside and now[v, u] == before[y, x]
            np.testing.assert_array_equal(counts[4].moved[i, j], expected)


def test_opposite_directions_are_four_apart():
    """The columns set direction i against direction i + 4."""
    for (down, right), (up, left) in zip(DIRECTIONS[:4], DIRECTIONS[4:], strict=True):
        assert (down, right) == (-up, -left)


@pytest.mark.parametrize("size", [(480, 640), (7, 11), (4320, 7680)])
def test_log_levels_round_like_whole_numbers(size):
    """Every grey level and its neighbours, at the borders between two steps of the table."""
    weight, scale = size[0] * size[1], 256
    borders = (2 * np.arange(255 * scale, dtype=np.int64) + 1) * weight // (2 * scale)
    sums = np.unique(np.concatenate([borders - 1, borders, borders + 1, [0, 255 * weight]]))
    sums = sums[(sums >= 0) & (sums <= 255 * weight)]
    table = np.arange(255 * scale + 1, dtype=np.int32)
    level = np.empty(len(sums), np.int32)
    log_levels(sums, scale, weight, table, level)
    np.testing.assert_array_equal(level, (2 * scale * sums + weight) // (2 * weight))
