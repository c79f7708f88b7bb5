"""The whole life of a store on an S3 server, and addresses on it."""

import os
import pickle
import socket
from concurrent.futures import ThreadPoolExecutor

import boto3
import numpy as np
import pytest
from moto.server import ThreadedMotoServer

from outspike import urls
from outspike.errors import CorruptionError, MissingUrlError, StoreError, UrlError
from outspike.store import cli
from outspike.store.bags import BagReader
from outspike.store.fsck import fsck
from outspike.store.store import FeatureStore

BUCKET = "outspike-test"
SECRET = "a-secret-nobody-may-see"


@pytest.fixture(scope="module")
def server():
    """An S3 server on the loopback interface, and the environment that leads to it."""
    running = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    environment = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test-key",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_REGION": "us-east-1",
        "AWS_ALLOW_HTTP": "true",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        boto3.client("s3", region_name="us-east-1").create_bucket(Bucket=BUCKET)
        yield environment
    running.stop()


@pytest.fixture
def s3_url(server, request):
    return f"s3://{BUCKET}/{request.node.name}"


def test_files_on_s3_read_like_local_ones(s3_url):
    """Write, stat, list, open and errors, with the object's own etag."""
    urls.write_bytes(f"{s3_url}/b/2.MP4", b"0123456789")
    urls.write_bytes(f"{s3_url}/a.mp4", b"x")
    with urls.open_url(f"{s3_url}/notes.txt", "wb") as file:
        file.write(b"text")
    assert urls.list_files(s3_url, [".mp4"]) == [f"{s3_url}/a.mp4", f"{s3_url}/b/2.MP4"]
    assert urls.list_files(f"{s3_url}/a.mp4") == [f"{s3_url}/a.mp4"]
    stat = urls.stat(f"{s3_url}/b/2.MP4")
    assert (stat.size, len(stat.etag)) == (10, 32)
    assert urls.list_stats(f"{s3_url}/b") == [stat]
    with urls.open_url(stat.url) as file:
        file.seek(4)
        assert file.read(3) == b"456"
    for call in (urls.stat, urls.open_url, urls.read_bytes, urls.list_files):
        with pytest.raises(MissingUrlError, match="gone"):
            call(f"{s3_url}/gone")
    with pytest.raises(UrlError):
        urls.stat("s3://no-such-bucket-here/x")


def test_an_object_that_may_not_be_read_is_one_clear_error(server, monkeypatch):
    """Wrong address of the server, no credentials: an error naming the file, not a trace."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{unused.getsockname()[1]}")
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
        with pytest.raises(UrlError, match=rf"s3://{BUCKET}/x"):
            urls.stat(f"s3://{BUCKET}/x")
        with pytest.raises(StoreError, match=rf"s3://{BUCKET}/x") as caught:
            FeatureStore.open(f"s3://{BUCKET}/x")
        assert "\x1b" not in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_store_on_s3_lives_like_a_local_one(s3_url, kit, tmp_path):
    """Write, commit, read, digest and fsck; the digest equals that of a local store."""
    with pytest.raises(StoreError, match="no feature store there"):
        FeatureStore.open(s3_url)
    spec = kit.spec()
    store = FeatureStore.open_or_create(s3_url)
    local = FeatureStore.create(str(tmp_path / "local"))
    videos = [kit.video(f"v{i}", 16 * 40 * i, spec) for i in (1, 2, 3)]
    for each in (store, local):
        each.put_recordings([video.recording for video in videos])
        each.commit(kit.write(each, spec, videos, split_bytes=90 * spec.row_bytes))
    assert store.digest() == local.digest()
    reader = BagReader(pickle.loads(pickle.dumps(FeatureStore.open(s3_url))), ["tiny"])
    assert reader.keys() == [video.key for video in videos]
    expected = videos[2].features.astype(np.float16).transpose(1, 0, 2)
    assert np.array_equal(reader.read(videos[2].key).features["tiny"], expected)
    part = reader.read(videos[2].key, slice(45, 60))
    assert np.array_equal(part.features["tiny"], expected[:, 45:60])
    assert store.done(spec.fingerprint) == local.done(spec.fingerprint)
    assert fsck(store).ok
    with pytest.raises(StoreError, match="versions 0 to 1"):
        FeatureStore.open(s3_url, version=9)
    store.pin("run")
    assert FeatureStore.open(s3_url).pins().num_rows == 1
    assert "3 recordings" in cli.ls(s3_url)[0]


def test_damage_on_s3_is_found(s3_url, kit):
    """A changed object, a truncated one and a missing one; orphans are told apart."""
    spec = kit.spec()
    store = FeatureStore.create(s3_url)
    videos = [kit.video(name, 16 * 40, spec) for name in ("flipped", "short", "gone", "fine")]
    store.commit(kit.write(store, spec, videos, max_bytes=1))
    kit.write(store, spec, [kit.video("lost", 16, spec)])
    segment = {row["video_id"]: row["segment"] for row in store.extents.to_pylist()}
    shard = {
        name: urls.join(s3_url, "features", spec.address, value, "features/c/0/0/0")
        for name, value in segment.items()
    }
    data = urls.read_bytes(shard["flipped"])
    urls.write_bytes(shard["flipped"], data[:7] + bytes([data[7] ^ 1]) + data[8:])
    urls.write_bytes(shard["short"], data[:100])
    urls.filesystem(s3_url).rm(urls.path_in(shard["gone"]))
    report = fsck(FeatureStore.open(s3_url))
    assert [key[1] for _, key in report.redo] == ["flipped", "gone", "short"]
    assert len(report.orphans) == 1
    reader = BagReader(FeatureStore.open(s3_url), ["tiny"])
    for name in ("flipped", "short", "gone"):
        with pytest.raises(CorruptionError):
            reader.read(("ds", name))
    assert reader.read(("ds", "fine")).num_snippets == 40


def test_a_bag_costs_one_get(s3_url, kit, monkeypatch):
    """After the first look at a segment a bag is one ranged GET, and a row range a smaller one."""
    spec = kit.spec()
    store = FeatureStore.create(s3_url)
    videos = [kit.video(f"v{i}", 16 * 64, spec) for i in range(3)]
    store.commit(kit.write(store, spec, videos))
    reader = BagReader(store, ["tiny"])
    reader.read(videos[0].key)
    calls = []
    client = urls.filesystem(s3_url)
    real = client._call_s3

    async def counted(method, *args, **kwargs):
        calls.append((method, kwargs.get("Range")))
        return await real(method, *args, **kwargs)

    monkeypatch.setattr(client, "_call_s3", counted)
    reader.read(videos[2].key)
    reader.read(videos[1].key, slice(40, 50))
    row = spec.row_bytes
    assert [method for method, _ in calls] == ["get_object", "get_object"]
    assert calls[0][1] == f"bytes={128 * row}-{192 * row - 1}"
    assert calls[1][1] == f"bytes={96 * row}-{128 * row - 1}"


def test_commits_from_many_threads_lose_no_row(s3_url, kit):
    """Every writer's rows are there, each once."""
    spec = kit.spec()
    store = FeatureStore.create(s3_url)
    videos = [kit.video(f"v{i}", 32, spec) for i in range(12)]
    receipts = kit.write(store, spec, videos)

    def commit(number):
        mine = FeatureStore.open(s3_url)
        for receipt in receipts[number::4]:
            mine.commit([receipt])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(commit, range(4)))
    store = FeatureStore.open(s3_url)
    assert store.catalog().num_rows == len(store.done(spec.fingerprint)) == 12
    assert store.version == 12


def test_nothing_written_or_pickled_holds_a_secret(s3_url, kit):
    """Objects that travel, and every object in the bucket, are free of credentials."""
    spec = kit.spec()
    store = FeatureStore.create(s3_url)
    store.commit(kit.write(store, spec, [kit.video("v", 32, spec)]))
    reader = BagReader(store, ["tiny"])
    reader.read(("ds", "v"))
    assert os.environ["AWS_SECRET_ACCESS_KEY"] == SECRET
    for thing in (store, reader, urls.storage_options()):
        assert SECRET.encode() not in pickle.dumps(thing)
        assert SECRET not in repr(thing)
    for url in urls.list_files(s3_url):
        assert SECRET.encode() not in urls.read_bytes(url)
