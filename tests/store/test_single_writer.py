"""Promises of single-writer mode: stores on servers that know no conditional puts."""

import json
import os
import pickle
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from deltalake import write_deltalake

from outspike import urls
from outspike.errors import StoreError
from outspike.store import cli, delta, lease, mirror
from outspike.store.bags import BagReader
from outspike.store.catalog import receipts_table
from outspike.store.compact import compact
from outspike.store.fsck import fsck
from outspike.store.gc import gc
from outspike.store.store import FeatureStore


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """A server beside us answers at once; nobody has to wait for long."""
    monkeypatch.setattr(lease, "SETTLE_S", 0.01)
    monkeypatch.setattr(lease, "_POLL_S", 0.01)
    monkeypatch.setattr(delta, "_FIRST_WAIT_S", 0.01)


@pytest.fixture
def plain_puts(s3_server, s3_bucket, proxies, monkeypatch):
    """A proxy before the S3 server that answers 501 to conditional puts, as Swift does."""
    with proxies.Proxy(s3_server, conditional_puts=False) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        yield proxy


@pytest.fixture
def local(tmp_path):
    """A store in this mode on a local disk, where the mode works as well."""
    return FeatureStore.create(str(tmp_path / "store"), single_writer=True)


def test_a_server_without_conditional_puts_takes_a_store(plain_puts, s3_bucket, kit, tmp_path):
    """Create, label, commit, read: the digest is that of a store on a disk, and the server was
    never asked for what it cannot do.
    """
    spec = kit.spec()
    video = kit.video("v", 16 * 40, spec)
    remote = FeatureStore.open_or_create(f"{s3_bucket}/store", single_writer=True)
    plain = FeatureStore.create(str(tmp_path / "plain"))
    for store in (remote, plain):
        store.put_recordings([video.recording])
        store.commit(kit.write(store, spec, [video]))
    found = FeatureStore.open_or_create(remote.url)
    assert found.is_single_writer
    assert found.version == 1
    assert found.digest() == plain.digest()
    assert not urls.exists(f"{remote.url}/{lease.LEASE}"), "given back"


def test_everything_a_store_can_do_it_can_do_in_this_mode(local, kit, tmp_path):
    """Commits, pins, old versions, compact, gc, forget and fsck, as in the usual mode."""
    spec = kit.spec()
    videos = [kit.video(f"v{i}", 16 * 40 * i, spec) for i in (1, 2, 3)]
    plain = FeatureStore.create(str(tmp_path / "plain"))
    for store in (local, plain):
        for receipt in kit.write(store, spec, videos, max_bytes=1):
            store.commit([receipt])
        store.pin("run")
    assert FeatureStore.open(local.url).digest() == plain.digest()
    assert FeatureStore.open(local.url, version=1).features("tiny").keys() == [videos[0].key]
    assert compact(local.url).moved[spec.address] == 3
    assert FeatureStore.open(local.url).digest() == plain.digest()
    assert not gc(local.url, grace_s=0.0).removed, "the pinned version names the old segments"
    local.unpin("run")
    removed = gc(local.url, grace_s=0.0)
    assert len(removed.removed) == 3
    assert removed.table_files > 0
    store = FeatureStore.open(local.url)
    assert fsck(store).ok
    assert store.digest() == plain.digest()
    store.forget(store.extents["attempt"].to_pylist()[:1])
    assert len(FeatureStore.open(local.url).done(spec.fingerprint)) == 2
    assert "one writer at a time" in cli.ls(local.url)[0]


def test_without_the_mode_the_error_names_it(plain_puts, s3_bucket):
    """A store in the usual mode is refused before anything lies there, and the way out is told."""
    with pytest.raises(StoreError, match=r"501, a conditional put.*--store\.single-writer"):
        FeatureStore.create(f"{s3_bucket}/store")
    assert not urls.exists(f"{s3_bucket}/store")


KILLED = """
import os, pickle, signal, sys
from outspike import urls
from outspike.store import lease
from outspike.store.store import FeatureStore

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

url, receipts, moment = sys.argv[1:]
real, part = urls.write_bytes, {"files": ".parquet", "log": "_delta_log/", "lease": None}[moment]
urls.write_bytes = lambda at, data: die() if part and part in at else real(at, data)
if moment == "lease":
    lease.Lease.give_back = die
with open(receipts, "rb") as file:
    FeatureStore.open(url).commit(pickle.load(file))
"""


@pytest.mark.parametrize("moment", ["files", "log", "lease"])
def test_killed_between_the_upload_of_data_and_log_nothing_is_half_there(
    moment, local, kit, monkeypatch, tmp_path
):
    """SIGKILL before the data file, before the entry of the log, and after it: the next writer
    takes the lease over and ends up with every recording once.
    """
    spec = kit.spec()
    first, second = (kit.write(local, spec, [kit.video(n, 64, spec)]) for n in ("a", "b"))
    local.commit(first)
    before = local.digest()
    (tmp_path / "receipts").write_bytes(pickle.dumps(second))
    words = [sys.executable, "-c", KILLED, local.url, str(tmp_path / "receipts"), moment]
    assert subprocess.run(words, check=False).returncode == -signal.SIGKILL
    assert urls.exists(f"{local.url}/{lease.LEASE}")
    found = FeatureStore.open(local.url)
    assert (found.digest() == before) == (moment != "lease")
    assert fsck(found).ok
    monkeypatch.setattr(lease, "LEASE_S", 0.2)
    local.commit(second)
    assert local.catalog().num_rows == 2
    assert [key[1] for key in FeatureStore.open(local.url).features("tiny")] == ["a", "b"]


def test_a_second_writer_waits_and_says_for_whom(local, kit, monkeypatch):
    """While another holds the lease nothing is written; the error names the process, its host and
    the object to remove.
    """
    spec = kit.spec()
    receipts = kit.write(local, spec, [kit.video("v", 64, spec)])
    monkeypatch.setattr(lease, "PATIENCE_S", 0.1)
    with lease.held(local.url):
        with pytest.raises(StoreError, match=rf"process {os.getpid()} on .*remove .*writer\.json"):
            local.commit(receipts)
        assert FeatureStore.open(local.url).version == 0
    assert local.commit(receipts) == 1


def test_a_writer_whose_lease_was_taken_commits_nothing_with_it(local, kit, monkeypatch):
    """Another writer takes the lease while data is uploaded: the entry of the log is not written
    under it, and the change is made again once the lease is free.
    """
    spec = kit.spec()
    receipts = kit.write(local, spec, [kit.video("v", 64, spec)])
    real, thefts = urls.write_bytes, []

    def write(url, data):
        real(url, data)
        if url.endswith(".parquet") and not thefts:
            thefts.append(url)
            real(f"{local.url}/{lease.LEASE}", b"another's")
            assert FeatureStore.open(local.url).version == 0
        elif "_delta_log" in url:
            assert urls.read_bytes(f"{local.url}/{lease.LEASE}") != b"another's"

    monkeypatch.setattr(urls, "write_bytes", write)
    monkeypatch.setattr(lease, "LEASE_S", 1.0)
    assert local.commit(receipts) == 1
    assert len(thefts) == 1
    assert local.catalog().num_rows == 1


def test_a_version_that_another_writer_made_is_not_replaced(local, kit, monkeypatch):
    """A writer that respects no lease gets in first: its commit stays, ours becomes the next."""
    spec = kit.spec()
    other, mine = (kit.write(local, spec, [kit.video(n, 64, spec)]) for n in ("other", "mine"))
    real, intruded = lease.Lease.check, []

    def check(self):
        real(self)
        if not intruded:
            intruded.append(True)
            table = delta.open_table(local.url, "catalog")
            write_deltalake(table, receipts_table(other), mode="append")

    monkeypatch.setattr(lease.Lease, "check", check)
    assert local.commit(mine) == 2
    assert sorted(local.catalog()["video_id"].to_pylist()) == ["mine", "other"]


def test_threads_and_tables_take_turns(local, kit):
    """Commits, labels and pins of many threads at once: each is there, each once."""
    spec = kit.spec()
    videos = [kit.video(f"v{i}", 32, spec) for i in range(6)]
    receipts = kit.write(local, spec, videos)
    barrier = threading.Barrier(6)

    def work(number):
        barrier.wait()
        mine = FeatureStore.open(local.url)
        mine.put_recordings([videos[number].recording])
        mine.commit([receipts[number]])
        mine.pin(f"run{number}")

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))
    store = FeatureStore.open(local.url)
    assert store.catalog().num_rows == store.recordings().num_rows == 6
    assert store.pins().num_rows == 6
    assert store.version == 6


COMMITS = """
import pickle, sys
from outspike.store.store import FeatureStore

with open(sys.argv[2], "rb") as file:
    receipts = pickle.load(file)
print("ready", flush=True)
sys.stdin.readline()  # all begin together
store = FeatureStore.open_or_create(sys.argv[1], single_writer=True)
for receipt in receipts[int(sys.argv[3]) :: 3]:
    store.commit([receipt])
"""


@pytest.mark.slow
def test_processes_take_turns(tmp_path, kit):
    """Three processes make one store at the same moment and commit to it."""
    spec = kit.spec()
    other = FeatureStore.create(str(tmp_path / "other"))
    receipts = kit.write(other, spec, [kit.video(f"v{i}", 32, spec) for i in range(6)])
    (tmp_path / "receipts").write_bytes(pickle.dumps(receipts))
    url = str(tmp_path / "store")
    words = [sys.executable, "-c", COMMITS, url, str(tmp_path / "receipts")]
    pipe = subprocess.PIPE
    jobs = [
        subprocess.Popen([*words, str(number)], stdin=pipe, stdout=pipe, text=True)
        for number in range(3)
    ]
    for job in jobs:
        assert job.stdout.readline() == "ready\n"
    for job in jobs:
        job.stdin.close()
    assert [job.wait(timeout=120) for job in jobs] == [0, 0, 0]
    found = FeatureStore.open(url)
    assert found.catalog().num_rows == 6
    assert found.version == 6


@pytest.mark.slow
def test_a_long_log_is_read_from_its_checkpoint(local, kit, monkeypatch):
    """Checkpoints are uploaded, and a fresh copy asks for nothing that lies before the newest."""
    spec = kit.spec()
    receipts = kit.write(local, spec, [kit.video(f"v{i}", 16, spec) for i in range(104)])
    monkeypatch.setattr(lease, "SETTLE_S", 0.0)
    for receipt in receipts[:-1]:
        local.commit([receipt])
    log = f"{local.url}/catalog/_delta_log"
    last = json.loads(urls.read_bytes(f"{log}/_last_checkpoint"))["version"]
    assert last >= 99
    mirror._mirrors.clear()
    asked, real = [], urls.read_bytes  # what a copy of a table on a disk is read by
    monkeypatch.setattr(urls, "read_bytes", lambda url: asked.append(url) or real(url))
    assert local.commit(receipts[-1:]) == 104
    versions = [int(url[-25:-5]) for url in asked if url.startswith(log) and url.endswith(".json")]
    assert min(versions) == last
    found = FeatureStore.open(local.url)
    assert found.catalog().num_rows == 104
    assert BagReader(found, ["tiny"]).lengths([("ds", "v103")]) == np.array([1])


def test_a_store_made_anew_at_an_address_is_not_mistaken_for_the_one_before(tmp_path, kit):
    """The copy that a process keeps between commits belongs to one table, not to its address."""
    spec = kit.spec()
    url = str(tmp_path / "store")
    for round_ in range(2):
        store = FeatureStore.create(url, single_writer=True)
        for receipt in kit.write(store, spec, [kit.video(f"v{i}", 32, spec) for i in range(3)]):
            store.commit([receipt])
        assert FeatureStore.open(url).catalog().num_rows == 3
        assert FeatureStore.open(url).version == 3, round_
        urls.filesystem(url).rm(url, recursive=True)
