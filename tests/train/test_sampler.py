"""The balanced sampler: fixed shares, disjoint ranks, one order for every world size."""

from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outspike.errors import ConfigError, DatasetError
from outspike.train.sampler import BalancedSampler


@dataclass(frozen=True)
class Named:
    key: str
    label: int | None
    synthetic: bool = False


def bags(normal: int, anomalous: int, made_normal: int = 0, made_anomalous: int = 0) -> list[Named]:
    kinds = [(normal, 0, False), (anomalous, 1, False)]
    kinds += [(made_normal, 0, True), (made_anomalous, 1, True)]
    return [
        Named(f"{label}{'g' if made else 'r'}{i:03d}", label, made)
        for count, label, made in kinds
        for i in range(count)
    ]


@st.composite
def settings_of_a_sampler(draw):
    world_size = draw(st.integers(1, 4))
    half = draw(st.integers(world_size, 4 * world_size))
    made = draw(st.integers(0, half))
    return {
        "bags": bags(
            draw(st.integers(half, 3 * half)),
            draw(st.integers(half, 3 * half)),
            draw(st.integers(half, 2 * half)) if made else 0,
            draw(st.integers(half, 2 * half)) if made else 0,
        ),
        "bags_per_batch": 2 * half,
        "synthetic_per_batch": made,
        "seed": draw(st.integers(0, 2**32)),
        "world_size": world_size,
    }


@given(settings_of_a_sampler(), st.integers(0, 10_000))
def test_ranks_are_disjoint_and_their_union_does_not_depend_on_the_world_size(given_settings, step):
    """R ranks see exactly the bags that one rank sees, each about its share, also uneven ones."""
    world_size = given_settings.pop("world_size")
    sampler = BalancedSampler(**given_settings)
    whole = sampler.batch(step)
    shares = [sampler.share(step, rank=rank, world_size=world_size) for rank in range(world_size)]
    assert max(map(len, shares)) - min(map(len, shares)) <= 2
    united = [key for share in shares for key in share]
    assert len(set(united)) == len(united)
    assert set(united) == set(whole)


@given(settings_of_a_sampler(), st.integers(0, 10_000))
def test_every_batch_has_the_promised_shares(given_settings, step):
    """Half normal, half anomalous on every rank, and as many generated bags as asked for."""
    world_size = given_settings.pop("world_size")
    sampler = BalancedSampler(**given_settings)
    kind = {bag.key: (bag.label, bag.synthetic) for bag in given_settings["bags"]}
    for rank in range(world_size):
        labels = Counter(
            kind[key][0] for key in sampler.share(step, rank=rank, world_size=world_size)
        )
        assert labels[0] == labels[1]
    made = sum(kind[key][1] for key in sampler.batch(step))
    assert made == given_settings["synthetic_per_batch"]


@given(settings_of_a_sampler(), st.integers(0, 50))
def test_a_pass_takes_no_bag_twice_and_leaves_out_less_than_a_batch(given_settings, epoch):
    """Shuffling is without replacement: within a pass over a pool no bag repeats."""
    given_settings.pop("world_size")
    sampler = BalancedSampler(**given_settings)
    for pool in sampler.pools:
        steps = range(epoch * pool.steps_per_epoch, (epoch + 1) * pool.steps_per_epoch)
        taken = [key for step in steps for key in sampler.batch(step) if key in set(pool.keys)]
        assert len(set(taken)) == len(taken)
        assert len(pool.keys) - len(taken) < pool.per_step


def test_the_order_is_a_function_of_seed_and_step_only():
    """Neither the order of the input, nor what was drawn before, changes a batch."""
    names = bags(9, 7, 5, 5)
    arguments = {"bags_per_batch": 8, "synthetic_per_batch": 3, "seed": 5}
    one = BalancedSampler(names, **arguments)
    other = BalancedSampler(names[::-1], **arguments)
    steps = [40, 0, 7, 40]
    assert [one.batch(step) for step in range(41)][40] == other.batch(40)
    assert [one.batch(step) for step in steps] == [other.batch(step) for step in steps]
    reseeded = BalancedSampler(names, **{**arguments, "seed": 6})
    assert [reseeded.batch(step) for step in range(5)] != [one.batch(step) for step in range(5)]


def test_every_bag_is_used_in_the_long_run():
    """Bags left out by one pass come in another."""
    names = bags(7, 5)
    sampler = BalancedSampler(names, bags_per_batch=8, seed=0)
    used = {key for step in range(60) for key in sampler.batch(step)}
    assert used == {bag.key for bag in names}


def test_generated_bags_of_one_label_take_places_in_that_half_only():
    """Balance of the labels holds whatever the generated bags are."""
    sampler = BalancedSampler(bags(6, 6, 0, 4), bags_per_batch=8, synthetic_per_batch=2, seed=0)
    counts = {pool.name: pool.per_step for pool in sampler.pools}
    assert counts == {"normal": 4, "anomalous": 2, "generated anomalous": 2}


@pytest.mark.parametrize(
    ("names", "arguments", "told"),
    [
        (bags(4, 0), {"bags_per_batch": 4}, "no anomalous bag"),
        (bags(0, 4), {"bags_per_batch": 4}, "no normal bag"),
        (bags(4, 3), {"bags_per_batch": 8}, "3 anomalous bags"),
        (bags(4, 4), {"bags_per_batch": 4, "synthetic_per_batch": 2}, "no generated bag"),
        (bags(4, 4, 1, 0), {"bags_per_batch": 4, "synthetic_per_batch": 2}, "1 generated normal"),
        (bags(4, 4, 0, 9), {"bags_per_batch": 4, "synthetic_per_batch": 3}, "into a half of 2"),
        ([*bags(4, 4), Named("x", None)], {"bags_per_batch": 4}, "no label"),
        (bags(2, 2) * 2, {"bags_per_batch": 4}, "different names"),
        (bags(4, 4), {"bags_per_batch": 5}, "even"),
    ],
    ids=[
        "no-anomalous",
        "no-normal",
        "too-few",
        "no-generated",
        "few-generated",
        "half",
        "label",
        "twice",
        "odd",
    ],
)
def test_a_split_that_cannot_fill_a_batch_is_one_clear_line(names, arguments, told):
    """What is missing, and how many of it a step needs, is said before training starts."""
    with pytest.raises((DatasetError, ConfigError), match=told) as caught:
        BalancedSampler(names, seed=0, **arguments)
    assert "\n" not in str(caught.value)


def test_a_world_larger_than_half_a_batch_is_refused():
    """Every rank needs a bag of either half."""
    sampler = BalancedSampler(bags(9, 9), bags_per_batch=8, seed=0)
    with pytest.raises(ConfigError, match="5 ranks"):
        sampler.share(0, rank=0, world_size=5)
    with pytest.raises(ConfigError, match="rank=2"):
        sampler.share(0, rank=2, world_size=2)
