"""Splits inside the training split: no group on both sides, labels in proportion."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outspike.errors import DatasetError
from outspike.train.folds import folds, holdout


@dataclass(frozen=True)
class Grouped:
    key: str
    label: int | None
    group: str | None = None
    synthetic: bool = False
    dataset: str = "d"


def clips(num_groups: int, per_group: int, *, made: int = 0) -> list[Grouped]:
    real = [
        Grouped(f"g{g}c{c}", (g + c) % 2, f"source{g}")
        for g in range(num_groups)
        for c in range(per_group)
    ]
    return real + [Grouped(f"made{i}", i % 2, None, synthetic=True) for i in range(made)]


@given(st.integers(4, 30), st.integers(1, 4), st.integers(2, 4), st.integers(0, 99))
def test_folds_tile_the_bags_and_keep_groups_together(num_groups, per_group, num_folds, seed):
    """Every real bag is held out exactly once, and never with its group in training."""
    bags = clips(max(num_groups, 2 * num_folds), per_group, made=3)
    splits = folds(bags, num_folds, seed=seed)
    held_out = [bag.key for _, held in splits for bag in held]
    assert sorted(held_out) == sorted(bag.key for bag in bags if not bag.synthetic)
    for kept, held in splits:
        assert not {bag.group for bag in kept if bag.group} & {bag.group for bag in held}
        assert {bag.key for bag in bags} == {bag.key for bag in kept} | {bag.key for bag in held}
        assert sum(bag.synthetic for bag in kept) == 3


@pytest.mark.parametrize("labels", [(12, 4), (40, 9), (25, 25)], ids=str)
def test_labels_stay_in_proportion(labels):
    """Each fold gets the share of either label, give or take one, whatever the imbalance."""
    bags = [Grouped(f"{label}/{i}", label) for label in (0, 1) for i in range(labels[label])]
    for _, held in folds(bags, 4, seed=1):
        for label in (0, 1):
            found = sum(bag.label == label for bag in held)
            assert abs(found - labels[label] / 4) < 1


@given(st.integers(0, 50), st.sampled_from([0.1, 0.2, 0.5]))
def test_a_holdout_has_its_share_of_both_labels(seed, share):
    """About the share asked for is held out, of normal and anomalous bags alike."""
    bags = [Grouped(f"{label}/{i}", label) for label in (0, 1) for i in range(40)]
    _, held = holdout(bags, share, seed=seed)
    for label in (0, 1):
        assert abs(sum(bag.label == label for bag in held) - 40 * share) <= 1


def test_a_split_depends_on_the_seed_and_not_on_the_order_of_bags():
    """The same seed gives the same folds however the store lists the bags."""
    bags = clips(20, 2)
    one = [{bag.key for bag in held} for _, held in folds(bags, 4, seed=3)]
    other = [{bag.key for bag in held} for _, held in folds(bags[::-1], 4, seed=3)]
    reseeded = [{bag.key for bag in held} for _, held in folds(bags, 4, seed=4)]
    assert one == other
    assert one != reseeded


def test_too_few_groups_are_one_clear_line():
    """Five folds cannot be made of four anomalous groups, and nor can a side without them."""
    bags = [Grouped(f"n{i}", 0) for i in range(12)]
    bags += [Grouped(f"a{i}", 1) for i in range(4)]
    with pytest.raises(DatasetError, match="anomalous recordings, the training split has 4"):
        folds(bags, 5, seed=0)
    one_group = [Grouped(f"x{i}", i % 2, "one") for i in range(6)]
    with pytest.raises(DatasetError, match="no bag of label"):
        holdout(one_group, 0.2, seed=0)


def test_bags_that_are_always_trained_on_are_never_held_out():
    """They stand in for a label that is not dealt out, and belong to every fold's training side."""
    always = [Grouped(f"n{i}", 0) for i in range(5)]
    dealt = [Grouped(f"a{i}", 1) for i in range(8)]
    splits = folds(dealt, 4, seed=0, always=always)
    assert sorted(bag.key for _, held in splits for bag in held) == [b.key for b in dealt]
    for kept, held in splits:
        assert len(held) == 2
        assert {b.key for b in kept} == {b.key for b in [*always, *dealt]} - {b.key for b in held}
    with pytest.raises(DatasetError, match="normal recordings, the training split has 0"):
        folds(dealt, 4, seed=0)


def test_a_source_cannot_be_held_out_and_always_trained_on():
    """That would let a model see what it is judged on."""
    dealt = [Grouped(f"a{i}", i % 2, f"source{i}") for i in range(8)]
    with pytest.raises(DatasetError, match="a3 and d/other come from one source"):
        folds(dealt, 2, seed=0, always=[Grouped("d/other", 0, "source3")])
