"""Promises of how batches are read: the same bits by either way, and one copy a node."""

import dataclasses
import logging

import pytest
import torch

from outspike.config import StoreConfig, WindowConfig
from outspike.detectors.bags import Bags, collate
from outspike.errors import ConfigError
from outspike.store.store import FeatureStore
from outspike.train.data import BagCache, TrainingBags
from outspike.train.plan import make_plan, open_reader
from outspike.train.step import World

RULES = ("all", "uniform", "crop", "msf_2025", "mean_bins", "mean_segments")


def assert_equal(one: Bags, other: Bags) -> None:
    for field in dataclasses.fields(Bags):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if field.name == "features":
            assert a.keys() == b.keys()
            for name in a:
                assert a[name].dtype == b[name].dtype == torch.float32
                assert torch.equal(a[name], b[name]), name
        elif isinstance(a, torch.Tensor):
            assert a.dtype == b.dtype, field.name
            assert torch.equal(a, b), field.name
        else:
            assert a == b, field.name


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(("detector", "length"), [("msf", 4), ("msf", 64), ("ief_vad", 6)])
def test_rows_read_straight_into_a_batch_are_those_of_whole_bags(config_of, rule, detector, length):
    """Windows of every rule, shorter and longer than the bags, alone and shared by two ranks: the
    batch is bit for bit what is cut out of whole bags and padded.
    """
    plan = make_plan(config_of(detector, window=WindowConfig(rule=rule, length=length)))
    cache = BagCache(plan)
    source = TrainingBags(plan, cache=cache)
    for step, world in ((0, World()), (7, World(rank=1, size=2))):
        found = source.batch(step, world)
        by_key = {recording.key: recording for recording in plan.training}
        expected = collate(
            [cache[by_key[key]] for key in found.bag_ids],
            widths={name: spec.width for name, spec in plan.feature_sets.items()},
            window=plan.config.window,
            seed=plan.config.seed,
            step=step,
            classes=getattr(plan.config.detector, "classes", ()),
        )
        assert_equal(found, expected)
    assert source._reads_rows == (not rule.startswith("mean"))


@pytest.fixture
def on_s3(s3_bucket, small_data):
    """Address of a small store on an S3 server."""
    url = f"{s3_bucket}/store"
    small_data.fill(
        FeatureStore.create(url), small_data.recordings(6, 6), [small_data.spec("motion")]
    )
    return url


def test_workers_keep_one_copy_of_a_store_on_s3(on_s3, config_of, tmp_path, caplog):
    """Batches come from one folder, which a second worker finds filled; what does not fit there is
    read from S3 as before and told of. The batches are the same.
    """
    folder = tmp_path / "shards"
    config = config_of(store=StoreConfig(url=on_s3), shard_cache=str(folder))
    batches = []
    for _ in range(2):
        source = TrainingBags(make_plan(config))
        batches.append(source.batch(3, World()))
        shards = [path for path in folder.iterdir() if not path.name.startswith(".")]
        assert len(shards) == 1
        assert source._reads_rows
    with caplog.at_level(logging.WARNING, "outspike.train"):
        small = TrainingBags(make_plan(dataclasses.replace(config, shard_cache_gb=1e-7)))
    assert "do not fit the shard cache" in caplog.text
    assert not small._reads_rows
    for other in (batches[1], small.batch(3, World())):
        assert_equal(batches[0], other)
    without = make_plan(dataclasses.replace(config, shard_cache_gb=0))
    assert not open_reader(without).is_mapped
    with pytest.raises(ConfigError, match="shard_cache_gb"):
        dataclasses.replace(config, shard_cache_gb=-1)
