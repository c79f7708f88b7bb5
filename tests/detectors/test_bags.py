"""Batches: checks that name the bag, true lengths, and draws that belong to a bag alone."""

import dataclasses

import numpy as np
import pytest
import torch

from outspike.config import WindowConfig
from outspike.detectors.bags import collate
from outspike.errors import BagError

WIDTHS = {"event-pyramid": 6}


def test_bags_are_padded_with_zeros_and_keep_their_true_lengths(bag):
    """Rows past a bag's end are zero, masked, and have the empty frame range."""
    bags = [bag("short", 2, WIDTHS), bag("long", 5, WIDTHS, label=1)]
    batch = collate(bags)
    assert batch.features["event-pyramid"].shape == (2, 1, 5, 6)
    assert batch.mask.tolist() == [[True, True, False, False, False], [True] * 5]
    assert not batch.features["event-pyramid"][0, :, 2:].any()
    assert batch.frame_ranges[0].tolist() == [[0, 16], [16, 32], [0, 0], [0, 0], [0, 0]]
    assert batch.labels.tolist() == [0.0, 1.0]
    assert batch.bag_ids == ("made-up/short", "made-up/long")
    np.testing.assert_array_equal(
        batch.features["event-pyramid"][1, 0], bags[1].features["event-pyramid"][0]
    )


def test_unknown_labels_and_classes_are_marked(bag):
    """A missing label is -1, a class outside the list is -1, others are its position."""
    bags = [
        bag("a", 1, WIDTHS, label=None),
        bag("b", 1, WIDTHS, class_name="fire"),
        bag("c", 1, WIDTHS, class_name="flood"),
    ]
    batch = collate(bags, classes=("normal", "fire"))
    assert batch.labels.tolist() == [-1.0, 0.0, 0.0]
    assert batch.class_ids.tolist() == [-1, 1, -1]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_name_the_bag(bag, value):
    """NaN and infinity are refused with the bag, the set, and where they are."""
    bad = bag("broken", 4, WIDTHS)
    bad.features["event-pyramid"][0, 2, 3] = value
    with pytest.raises(BagError, match=r"made-up/broken: 1 values .*snippet 2, column 3"):
        collate([bag("fine", 4, WIDTHS), bad])


def test_a_bag_without_snippets_is_named(bag):
    """Zero snippets are an error, not an empty row."""
    with pytest.raises(BagError, match="made-up/empty: no snippets"):
        collate([bag("fine", 3, WIDTHS), bag("empty", 0, WIDTHS)])


def test_another_width_is_named_with_both_numbers(bag):
    """A width that the detector was not built for is refused before any arithmetic."""
    with pytest.raises(BagError, match=r"made-up/v: features 'event-pyramid' are 6 wide.* 8"):
        collate([bag("v", 3, WIDTHS)], widths={"event-pyramid": 8})


def test_a_missing_feature_set_is_named_with_those_found(bag):
    """Asking for features a bag lacks lists those it has."""
    with pytest.raises(BagError, match=r"made-up/v: no features 'clip', only \['event-pyramid'\]"):
        collate([bag("v", 3, WIDTHS)], widths={"clip": 6})


def test_mixed_crop_counts_are_refused(bag):
    """One batch has one crop layout."""
    with pytest.raises(BagError, match="made-up/ten: 10 crops"):
        collate([bag("one", 3, WIDTHS), bag("ten", 3, WIDTHS, num_crops=10)])


@pytest.mark.parametrize("rule", ["uniform", "msf_2025"])
def test_window_draws_depend_on_seed_step_and_bag_only(bag, rule):
    """Neither the order nor the company of a bag changes its window; seed and step do."""
    bags = [bag(f"v{i}", 50 + i, WIDTHS, label=i % 2) for i in range(4)]
    window = WindowConfig(rule=rule, length=8)
    whole = collate(bags, window=window, seed=3, step=5)
    turned = collate(bags[::-1], window=window, seed=3, step=5)
    alone = collate(bags[2:3], window=window, seed=3, step=5)
    assert torch.equal(whole.frame_ranges, turned.frame_ranges.flip(0))
    assert torch.equal(whole.frame_ranges[2:3], alone.frame_ranges)
    assert torch.equal(whole.draw_keys[2:3], alone.draw_keys)
    for other in ({"seed": 4, "step": 5}, {"seed": 3, "step": 6}):
        moved = collate(bags, window=window, **other)
        assert not torch.equal(moved.frame_ranges, whole.frame_ranges)
        assert not torch.equal(moved.draw_keys, whole.draw_keys)


def test_features_and_frame_ranges_are_cut_together(bag):
    """A row keeps the frames it was computed from through any window."""
    whole = bag("v", 40, WIDTHS)
    for rule in ("uniform", "msf_2025", "all"):
        cut = collate([whole], window=WindowConfig(rule=rule, length=8), step=0)
        rows = cut.frame_ranges[0, :, 0] // 16
        np.testing.assert_array_equal(
            cut.features["event-pyramid"][0, 0], whole.features["event-pyramid"][0][rows]
        )


def test_half_precision_features_become_single_precision(bag):
    """Stored float16 is computed in float32, without a change of value."""
    batch = collate([bag("v", 3, WIDTHS)])
    assert batch.features["event-pyramid"].dtype == torch.float32


def test_some_bags_of_a_batch_keep_everything_about_them(bag):
    """``take`` reorders features, lengths, labels, ids and keys alike."""
    batch = collate([bag(f"v{i}", 2 + i, WIDTHS, label=i % 2) for i in range(3)], step=1)
    taken = batch.take([2, 0])
    assert taken.bag_ids == ("made-up/v2", "made-up/v0")
    for field in dataclasses.fields(batch):
        value = getattr(batch, field.name)
        if isinstance(value, torch.Tensor):
            assert torch.equal(getattr(taken, field.name), value[[2, 0]])
    assert torch.equal(taken.features["event-pyramid"], batch.features["event-pyramid"][[2, 0]])


def test_an_empty_batch_is_refused():
    """There is no batch of no bags."""
    with pytest.raises(BagError, match="at least one"):
        collate([])
