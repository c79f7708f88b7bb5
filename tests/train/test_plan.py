"""Everything wrong with the data is one clear line before training starts."""

import dataclasses

import pytest

from outspike.config import DataConfig, SelectionConfig, StoreConfig
from outspike.errors import ConfigError, DatasetError, StoreError
from outspike.store.store import FeatureStore
from outspike.train.data import BagCache, TrainingBags
from outspike.train.plan import make_plan
from outspike.train.step import World


def test_a_plan_pins_the_versions_it_was_made_from(config_of, store_url):
    """The resolved config names catalog and recordings versions, and reopens on those rows."""
    plan = make_plan(config_of())
    store = FeatureStore.open(store_url)
    assert plan.config.store.version == store.version
    assert plan.config.store.recordings_version == store.recordings_version
    assert make_plan(plan.config) == plan
    assert {r.key for r in plan.training} == {
        f"tiny/train/{name}{i:02d}" for name in ("normal", "anomalous") for i in range(10)
    }


def test_generated_bags_join_only_when_a_batch_asks_for_some(config_of):
    """Without synthetic_per_batch no generated recording is read at all."""
    assert not any(r.synthetic for r in make_plan(config_of()).training)
    assert sum(r.synthetic for r in make_plan(config_of(synthetic_per_batch=2)).training) == 6


def test_a_holdout_is_trained_on_by_nobody(config_of):
    """Selection's recordings and the training ones never meet, nor do their groups."""
    plan = make_plan(config_of(selection=SelectionConfig(split="holdout", share=0.3)))
    assert plan.held_out
    groups = [{r.group for r in side} for side in (plan.training, plan.held_out)]
    assert not groups[0] & groups[1]


@pytest.mark.parametrize(
    ("changes", "error", "told"),
    [
        ({"store": {"version": 999}}, StoreError, "999"),
        ({"detector": {"width": 9}}, ConfigError, "8 wide.*reads 9"),
        ({"detector": {"feature_set": "clip"}}, StoreError, "no feature set 'clip'.*motion"),
        ({"data": {"dataset": "other"}}, DatasetError, "'other'.*20 of tiny/train"),
        ({"bags_per_batch": 40}, DatasetError, "has 10 normal bags.*takes 20"),
        ({"selection": {"split": "test"}}, ConfigError, "miniature-test-selected"),
        ({"selection": {"split": "cross_validation", "num_folds": 9}}, DatasetError, "9 folds"),
    ],
    ids=["version", "width", "feature-set", "dataset", "batch", "test", "folds"],
)
def test_bad_configs_are_one_clear_line(config_of, changes, error, told):
    """What was found, what was expected, and nothing has started."""
    config = config_of()
    for name, value in changes.items():
        new = (
            dataclasses.replace(getattr(config, name), **value)
            if isinstance(value, dict)
            else value
        )
        config = dataclasses.replace(config, **{name: new})
    with pytest.raises(error, match=told) as caught:
        make_plan(config)
    assert "\n" not in str(caught.value)


def test_an_address_without_a_store_is_named(config_of, tmp_path):
    """No store there is said of the address."""
    with pytest.raises(StoreError, match="nothing-here"):
        make_plan(config_of(store=StoreConfig(url=str(tmp_path / "nothing-here"))))


def test_feature_sets_of_two_fingerprints_are_not_mixed(config_of, tmp_path, filled_store):
    """Two sets of one name are ambiguous; an address chooses one of them."""
    filled_store(tmp_path, versions=(1, 2))
    config = config_of(store=StoreConfig(url=str(tmp_path)), bags_per_batch=4)
    with pytest.raises(StoreError, match=r"'motion' fits motion-\w+, motion-\w+") as caught:
        make_plan(config)
    address = str(caught.value).split(" fits ")[1].split(",")[0]
    chosen = dataclasses.replace(config.detector, feature_set=address)
    assert make_plan(dataclasses.replace(config, detector=chosen)).training


def test_a_class_without_bags_is_named(config_of, tmp_path, filled_store):
    """A training split of normal recordings only cannot be balanced."""
    filled_store(tmp_path, anomalous=0)
    with pytest.raises(DatasetError, match="no anomalous bag"):
        make_plan(config_of(store=StoreConfig(url=str(tmp_path)), bags_per_batch=4))


def test_recordings_without_features_are_counted(config_of, tmp_path, filled_store):
    """They are left out, and the plan says how many and which."""
    filled_store(tmp_path, without=2)
    plan = make_plan(config_of(store=StoreConfig(url=str(tmp_path)), bags_per_batch=4))
    assert len(plan.without_features) == 2
    assert ("without features", 2) in plan.table()
    assert {r.key for r in plan.training}.isdisjoint(plan.without_features)


def test_a_cache_beyond_its_budget_reads_again_and_says_the_same(config_of):
    """Memory is bounded; what is trained on does not depend on the bound."""
    plan = make_plan(config_of(data=DataConfig(dataset="tiny")))
    one = TrainingBags(plan, cache=BagCache(plan))
    other = TrainingBags(plan, cache=BagCache(plan, max_bytes=1000))
    for step in (0, 5):
        batches = [source.batch(step, World()) for source in (one, other)]
        assert batches[0].bag_ids == batches[1].bag_ids
        assert batches[0].features["motion"].equal(batches[1].features["motion"])
