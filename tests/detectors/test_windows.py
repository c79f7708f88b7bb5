"""Window rules: what they keep, in which order, and how much of it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outspike.config import WindowConfig
from outspike.detectors.windows import (
    Window,
    bin_edges,
    contiguous,
    cut,
    mean_bins,
    row_index,
    split_windows,
)
from outspike.errors import ConfigError

ROWS = st.integers(1, 200)
LENGTHS = st.integers(1, 70)
SEEDS = st.integers(0, 2**32 - 1)


@given(rows=ROWS, length=LENGTHS, seed=SEEDS, label=st.sampled_from([0, 1]))
@pytest.mark.parametrize("rule", ["all", "uniform", "msf_2025"])
def test_rules_pick_existing_rows_in_time_order(rule, rows, length, seed, label):
    """Indices ascend, stay inside the bag, and number what the rule promises."""
    config = WindowConfig(rule=rule, length=length)
    index = row_index(config, rows, label=label, rng=np.random.RandomState(seed))
    assert len(index) == (rows if rule == "all" else min(rows, length))
    assert index.min() >= 0
    assert index.max() < rows
    assert (np.diff(index) >= (0 if rule == "msf_2025" else 1)).all()
    if rows <= length:
        np.testing.assert_array_equal(index, np.arange(rows))


@given(rows=ROWS, length=LENGTHS)
def test_bins_tile_the_rows_and_none_is_empty(rows, length):
    """Edges run from 0 to the last row without an empty bin."""
    edges = bin_edges(rows, length)
    assert edges[0] == 0
    assert edges[-1] == rows
    assert (np.diff(edges) >= 1).all()


@given(rows=ROWS, length=LENGTHS, seed=SEEDS)
def test_averaging_keeps_the_sum_of_a_bag(rows, length, seed):
    """Bin means weighted by bin sizes give back the sum of all rows."""
    features = np.random.default_rng(seed).normal(size=(2, rows, 3))
    edges = bin_edges(rows, length)
    total = (mean_bins(features, edges) * np.diff(edges)[:, None]).sum(axis=1)
    np.testing.assert_allclose(total, features.sum(axis=1), atol=1e-4)


def test_averaged_rows_cover_the_frames_of_their_bin():
    """The frame range of a mean runs from its first row's start to its last row's stop."""
    start = np.arange(10) * 16
    window = Window(features={"f": np.ones((1, 10, 2))}, start=start, stop=start + 16)
    config = WindowConfig(rule="mean_bins", length=3)
    binned = cut(window, config, label=None, rng=np.random.RandomState(0))
    assert binned.start.tolist() == [0, 48, 96]
    assert binned.stop.tolist() == [48, 96, 160]


@given(rows=st.integers(2, 60), seed=SEEDS)
def test_the_last_normal_window_is_reachable_only_when_asked_for(rows, seed):
    """The published rule never starts at the end; the corrected one may."""
    length = max(1, rows - 1)
    rng = np.random.RandomState(seed)
    assert contiguous(rows, length, rng)[0] == 0
    assert contiguous(rows, length, rng, last=True)[0] in (0, 1)


@given(rows=ROWS, length=LENGTHS)
def test_split_windows_hold_every_row_once(rows, length):
    """Windows laid end to end are the bag and zeros, with at least one zero row."""
    features = np.arange(1, rows + 1, dtype=float)[:, None]
    flat = split_windows(features, length).reshape(-1, 1)
    np.testing.assert_array_equal(flat[:rows], features)
    assert len(flat) > rows
    assert not flat[rows:].any()


def test_the_published_rule_needs_a_label():
    """Normal and anomalous bags are cut differently, so an unlabelled one cannot be."""
    with pytest.raises(ConfigError, match="label"):
        row_index(
            WindowConfig(rule="msf_2025", length=4),
            9,
            label=None,
            rng=np.random.RandomState(0),
        )


@given(rows=ROWS, length=LENGTHS, seed=SEEDS)
def test_a_crop_is_a_run_that_holds_an_anomalous_row_if_there_is_one(rows, length, seed):
    """Neighbouring rows, as many as asked for or all there are."""
    rng = np.random.RandomState(seed)
    anomalous = rng.random_sample(rows) < 0.1
    config = WindowConfig(rule="crop", length=length)
    index = row_index(config, rows, label=1, rng=rng, anomalous_S=anomalous)
    assert len(index) == min(rows, length)
    assert (np.diff(index) == 1).all()
    assert anomalous[index].any() == anomalous.any()


def test_every_start_of_a_crop_is_drawn_the_last_one_included():
    """Unknown bags and normal ones start anywhere, evenly."""
    config = WindowConfig(rule="crop", length=3)
    rng = np.random.RandomState(0)
    starts = [row_index(config, 6, label=0, rng=rng)[0] for _ in range(2000)]
    counts = np.bincount(starts)
    assert len(counts) == 4
    assert counts.min() > 400


def test_frame_labels_decide_which_rows_of_a_crop_are_anomalous():
    """A row is anomalous when any of its frames is."""
    start = np.arange(0, 40, 4)
    window = Window(features={"f": np.ones((1, 10, 2))}, start=start, stop=start + 16)
    labels = np.zeros(60, dtype=np.uint8)
    labels[51] = 1
    config = WindowConfig(rule="crop", length=2)
    for seed in range(20):
        rng = np.random.RandomState(seed)
        found = cut(window, config, label=1, rng=rng, frame_labels=labels)
        assert found.stop.tolist() == [48, 52]


@given(rows=ROWS, length=LENGTHS, seed=SEEDS)
def test_segments_number_what_is_asked_for_and_cover_every_row(rows, length, seed):
    """Of a short bag some repeat a row; of a long one they tile it."""
    features = np.random.default_rng(seed).normal(size=(2, rows, 3))
    start = np.arange(rows) * 16
    window = Window(features={"f": features}, start=start, stop=start + 16)
    config = WindowConfig(rule="mean_segments", length=length)
    found = cut(window, config, label=0, rng=np.random.RandomState(0))
    assert found.features["f"].shape == (2, length, 3)
    assert found.features["f"].dtype == np.float32
    assert found.start[0] == 0
    assert found.stop[-1] == rows * 16
    assert (found.stop[:-1] >= found.start[1:]).all()
