"""Promises of the batched reader on object storage, with faults put in between."""

import errno
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import boto3
import numpy as np
import pytest

from outspike import urls
from outspike.errors import ConfigError, CorruptionError, MissingUrlError, UrlError
from outspike.store import fetch
from outspike.store.bags import BagReader
from outspike.store.cache import ShardCache
from outspike.store.fetch import ByteRange, fetch_ranges
from outspike.store.store import FeatureStore

BUCKET = "reader-test"
SHARD = "features/c/0/0/0"


@pytest.fixture(scope="module")
def served(s3_server, kit, proxies):
    """A proxy before the S3 server, the environment that leads through it, and a store behind it:
    twelve recordings in three segments.
    """
    environment = {
        "AWS_ENDPOINT_URL": s3_server,
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
        "AWS_MAX_ATTEMPTS": "1",
    }
    with pytest.MonkeyPatch.context() as patch, proxies.Proxy(s3_server, slow_s=3.0) as proxy:
        for name, value in environment.items():
            patch.setenv(name, value)
        patch.setattr(fetch, "_FIRST_WAIT_S", 0.01)
        patch.setattr(fetch, "_TIMEOUT_S", 1.0)
        boto3.client("s3", endpoint_url=s3_server).create_bucket(Bucket=BUCKET)
        spec = kit.spec()
        videos = [kit.video(f"v{i:02d}", 16 * (40 + 8 * i), spec) for i in range(12)]
        store = FeatureStore.create(f"s3://{BUCKET}/store")
        receipts = kit.write(store, spec, videos, max_bytes=200 * spec.row_bytes)
        store.commit(receipts)
        patch.setenv("AWS_ENDPOINT_URL", proxy.url)
        batch = BagReader(store, ["tiny"]).read_bags([video.key for video in videos])
        for number, video in enumerate(videos):
            rows = video.features.astype(np.float16).transpose(1, 0, 2)
            assert np.array_equal(batch.features["tiny"][number, :, : rows.shape[1]], rows)
        segments = [receipt.segment for receipt in receipts]
        yield proxy, store, batch, segments


@pytest.fixture
def proxy(served):
    """The proxy, without faults."""
    served[0].fault = lambda method, path, range_: None
    return served[0]


@pytest.fixture
def filled(served, proxy):
    """The store, a reader that is warm, its keys, and the batch that is right."""
    _, store, batch, _ = served
    reader = BagReader(store, ["tiny"])
    reader.read_bags(batch.keys, (0, 1))
    proxy.requests.clear()
    return store, reader, batch.keys, batch.features["tiny"]


def shard_gets(proxy):
    return [range_ for path, range_ in proxy.gets() if path.endswith(SHARD)]


def test_a_batch_costs_at_most_one_get_an_extent_and_no_other_request(filled, proxy, served):
    """Scattered bags: one range each. Neighbours: one range for all of them."""
    store, reader, keys, batch = filled
    *_, segments = served
    num_segments = len(set(segments))
    assert 3 <= num_segments < 12
    order = [segments.index(segment) for segment in dict.fromkeys(segments)][::-1]
    found = reader.read_bags([keys[i] for i in order]).features["tiny"]
    assert np.array_equal(found, batch[order][:, :, : found.shape[2]])
    assert len(proxy.requests) == len(shard_gets(proxy)) == num_segments
    proxy.requests.clear()
    reader.read_bags(keys)
    assert len(proxy.requests) == num_segments, "neighbours in a segment come together"
    proxy.requests.clear()
    reader.read_bags([keys[0]], (33, 40))
    size = store.resolve("tiny").row_bytes
    assert shard_gets(proxy) == [f"bytes={32 * size}-{64 * size - 1}"], "whole chunks, no more"


def test_requests_run_at_the_same_time(filled, proxy):
    _, reader, keys, _ = filled
    inside, most, lock = [0], [0], threading.Lock()

    def watch(method, path, range_):
        with lock:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
        time.sleep(0.15)
        with lock:
            inside[0] -= 1

    proxy.fault = watch
    reader.read_bags(keys[::2], (0, 5))
    assert most[0] >= 3


@pytest.mark.parametrize("fault", ["500", "503", "slow", "half", "short", "flip"])
def test_a_fault_of_the_server_is_outlived(filled, proxy, fault):
    """Refused, silent, cut off and altered answers are asked for again until they are right."""
    _, reader, keys, batch = filled
    seen = set()

    def once(method, path, range_):
        if (path, range_) in seen:
            return None
        seen.add((path, range_))
        return fault

    proxy.fault = once
    found = reader.read_bags([keys[i] for i in (2, 9)]).features["tiny"]
    assert np.array_equal(found, batch[[2, 9]][:, :, : found.shape[2]])
    assert len(seen) == 2
    assert len(proxy.requests) >= 4


def test_a_server_that_stays_down_is_one_error_with_the_address(filled, proxy):
    _, reader, keys, _ = filled
    proxy.fault = lambda method, path, range_: "500"
    with pytest.raises(UrlError, match=r"features/c/0/0/0: bytes \[.* did not come whole in 6"):
        reader.read_bags([keys[0]])


def test_bytes_that_are_wrong_each_time_are_damage(filled, proxy):
    _, reader, keys, _ = filled
    proxy.fault = lambda method, path, range_: "flip"
    with pytest.raises(CorruptionError, match=r"rows \[\d+, \d+\) do not match their crc32c"):
        reader.read_bags(keys[:2])
    with pytest.raises(CorruptionError, match="crc32c"):
        reader.read(keys[0])


def test_an_object_that_is_gone_is_said_at_once(filled, proxy, served):
    store, _, keys, _ = filled
    (address,) = store.feature_sets()
    gone = urls.join(store.url, "features", address, served[3][-1], SHARD)
    kept = urls.read_bytes(gone)
    urls.filesystem(gone).rm(urls.path_in(gone))
    try:
        with pytest.raises(CorruptionError, match="shard 0 is missing"):
            BagReader(store, ["tiny"]).read_bags(keys)
        proxy.requests.clear()
        with pytest.raises(MissingUrlError):
            fetch_ranges([ByteRange(gone, 0, 4)])
        assert len(proxy.requests) == 1, "not asked for again"
    finally:
        urls.write_bytes(gone, kept)


# --------------------------------------------------------------------------------- cache


def test_the_second_epoch_is_local(filled, proxy, tmp_path):
    """Once shards are in the cache no request is made for bags, by this process or another."""
    store, _, keys, batch = filled
    cache = ShardCache(tmp_path / "cache", 1_000_000)
    reader = BagReader(store, ["tiny"], cache=cache)
    assert np.array_equal(reader.read_bags(keys).features["tiny"], batch)
    assert not [name for name in os.listdir(cache.folder) if name.endswith(".part")]
    proxy.requests.clear()
    assert np.array_equal(reader.read_bags(keys).features["tiny"], batch)
    assert np.array_equal(reader.read(keys[3]).features["tiny"], batch[3][:, : 40 + 24])
    assert proxy.requests == []
    other = BagReader(store, ["tiny"], cache=ShardCache(tmp_path / "cache", 1_000_000))
    proxy.requests.clear()
    assert np.array_equal(other.read_bags(keys).features["tiny"], batch)
    assert shard_gets(proxy) == []


def test_workers_of_a_node_fetch_a_shard_once(filled, proxy, tmp_path):
    """Readers that begin at the same moment with an empty folder: one download for all of them."""
    store, _, keys, batch = filled
    readers = [
        BagReader(store, ["tiny"], cache=ShardCache(tmp_path / "cache", 1_000_000))
        for _ in range(4)
    ]
    barrier = threading.Barrier(len(readers))

    def read(reader):
        barrier.wait()
        return reader.read_bags(keys).features["tiny"]

    with ThreadPoolExecutor(len(readers)) as pool:
        found = list(pool.map(read, readers))
    assert all(np.array_equal(one, batch) for one in found)
    paths = [path for path, _ in proxy.gets() if path.endswith(SHARD)]
    assert len(paths) == len(set(paths)) > 1


def test_a_full_disk_ends_the_cache_and_not_the_reading(filled, proxy, tmp_path, monkeypatch):
    store, _, keys, batch = filled

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(ShardCache, "_make_room", full)
    folder = tmp_path / "cache"
    reader = BagReader(store, ["tiny"], cache=ShardCache(folder, 1_000_000))
    assert np.array_equal(reader.read_bags(keys).features["tiny"], batch)
    assert [name for name in os.listdir(folder) if not name.endswith("lock")] == []


def test_the_cache_keeps_its_bound(filled, proxy, tmp_path):
    """The shard unused the longest goes; what is mapped stays readable; too large is not kept."""
    store, _, keys, batch = filled
    sizes = [urls.stat(url).size for url in urls.list_files(store.url, ["0"]) if SHARD in url]
    bound = max(sizes) + min(sizes)
    assert bound < sum(sizes)
    cache = ShardCache(tmp_path / "cache", bound)
    reader = BagReader(store, ["tiny"], cache=cache)
    for number in range(12):
        reader.read(keys[number])
        assert cache.num_bytes() <= bound
    assert np.array_equal(reader.read_bags(keys).features["tiny"], batch)
    proxy.requests.clear()
    small = ShardCache(tmp_path / "small", 100)
    reader = BagReader(store, ["tiny"], cache=small)
    assert np.array_equal(reader.read_bags(keys).features["tiny"], batch)
    assert small.num_bytes() == 0
    with pytest.raises(ConfigError, match="holds nothing"):
        ShardCache(tmp_path / "none", 0)


def test_a_damaged_copy_in_the_cache_is_fetched_again(filled, proxy, tmp_path):
    """A flipped byte and a truncated file on the local disk never reach a batch."""
    store, _, keys, batch = filled
    cache = ShardCache(tmp_path / "cache", 1_000_000)
    BagReader(store, ["tiny"], cache=cache).read_bags(keys)
    paths = sorted(path for path in cache.folder.iterdir() if not path.name.startswith("."))
    with open(paths[0], "r+b") as file:
        file.seek(100)
        byte = file.read(1)[0]
        file.seek(100)
        file.write(bytes([byte ^ 4]))
    os.truncate(paths[1], 50)
    assert np.array_equal(
        BagReader(store, ["tiny"], cache=cache).read_bags(keys).features["tiny"], batch
    )
    assert np.array_equal(
        BagReader(store, ["tiny"], cache=cache).read_bags(keys).features["tiny"], batch
    )


def test_an_interrupted_download_leaves_nothing_that_is_taken_for_a_shard(filled, proxy, tmp_path):
    store, _, keys, batch = filled
    cache = ShardCache(tmp_path / "cache", 1_000_000)
    reader = BagReader(store, ["tiny"], cache=cache)
    proxy.fault = lambda method, path, range_: "500" if path.endswith(SHARD) else None
    with pytest.raises(UrlError):
        reader.read_bags(keys)
    assert [name for name in os.listdir(cache.folder) if not name.endswith("lock")] == []
    proxy.fault = lambda method, path, range_: None
    assert np.array_equal(reader.read_bags(keys).features["tiny"], batch)
