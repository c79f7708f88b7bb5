"""Many jobs that write one store at once, and servers on which they could not."""

import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from outspike.errors import StoreError
from outspike.store.arrays import ensure_feature_set, read_feature_set
from outspike.store.bags import BagReader
from outspike.store.fingerprint import FeatureSetSpec
from outspike.store.fsck import fsck
from outspike.store.store import FeatureStore

WRITER = """
import sys
import numpy as np
from fractions import Fraction
from outspike.recording import Recording
from outspike.store.fingerprint import FeatureSetSpec
from outspike.store.store import FeatureStore
from outspike.urls import SourceStat

url, job, start = sys.argv[1], int(sys.argv[2]), sys.argv[3]
spec = FeatureSetSpec(name="tiny", document={"encoder": "tiny"}, num_crops=1, width=4)
store = FeatureStore.open_or_create(url)
print("ready", flush=True)
sys.stdin.readline()  # all begin together
names = [f"shared{i}" for i in range(6)] + [f"own{job}-{i}" for i in range(6)]
for name in names[job:] + names[:job]:
    count = 20 + len(name)
    rows = np.random.default_rng([*name.encode()]).standard_normal((count, 1, 4))
    with store.segment_writer(spec) as writer:
        url = f"/videos/{name}"
        writer.begin(Recording(dataset="d", video_id=name, url=url),
                     stat=SourceStat(url=url, size=1, etag=name))
        writer.append(rows.astype(np.float32), np.arange(count) * 16, np.arange(count) * 16 + 16)
        writer.end(count * 16, Fraction(25))
    receipts = writer.drain()
    store.commit(receipts)
    store.commit(receipts)  # an outcome that was unknown is tried again
"""


@pytest.mark.parametrize("num_jobs", [3])
def test_many_jobs_write_one_store_and_every_recording_ends_up_once(tmp_path, num_jobs):
    """Several processes, half of their recordings the same ones: readers are given each exactly
    once, whole, and with the rows that were written.
    """
    script = tmp_path / "writer.py"
    script.write_text(textwrap.dedent(WRITER))

    def start(url, job):
        return subprocess.Popen(
            [sys.executable, str(script), url, str(job), "go"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    url = str(tmp_path / "store")
    jobs = [start(url, job) for job in range(num_jobs)]
    for process in jobs:
        assert process.stdout.readline() == "ready\n"
    for process in jobs:
        process.stdin.write("\n")
        process.stdin.close()
    assert [process.wait(timeout=120) for process in jobs] == [0] * num_jobs
    store = FeatureStore.open(url)
    names = {f"shared{i}" for i in range(6)}
    names |= {f"own{job}-{i}" for job in range(num_jobs) for i in range(6)}
    assert store.features("tiny").keys() == sorted(("d", name) for name in names)
    rows = store.extents.to_pylist()
    assert len(rows) == len(names), "one extent each"
    assert store.catalog().num_rows == 12 * num_jobs, "every attempt is there once"
    assert fsck(store).ok
    reader = BagReader(store, ["tiny"])
    for _, name in list(reader.keys()):
        count = 20 + len(name)
        rows = np.random.default_rng([*name.encode()]).standard_normal((count, 1, 4))
        found = reader.read(("d", name)).features["tiny"]
        assert np.array_equal(found[0], rows[:, 0].astype(np.float32).astype(np.float16))


def test_a_server_without_conditional_puts_is_refused_in_plain_words(
    s3_server, s3_bucket, proxies, monkeypatch
):
    """OpenStack Swift answers 501 to them: the store says so instead of losing commits."""
    with proxies.Proxy(s3_server, conditional_puts=False) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        with pytest.raises(StoreError, match=r"conditional put.*keep it on S3, MinIO"):
            FeatureStore.create(f"{s3_bucket}/store")


def test_writers_that_begin_a_feature_set_at_the_same_moment_all_go_on(tmp_path):
    """Twelve threads at one barrier, thirty new feature sets: none finds half a document, none is
    told that another was faster.
    """
    num_writers = 12
    url = str(tmp_path / "store")
    for number in range(30):
        spec = FeatureSetSpec(name="tiny", document={"number": number}, num_crops=1, width=4)
        barrier = threading.Barrier(num_writers)

        def begin(spec=spec, barrier=barrier):
            barrier.wait()
            ensure_feature_set(url, spec)
            return read_feature_set(url, spec.address)

        with ThreadPoolExecutor(num_writers) as pool:
            found = [future.result() for future in [pool.submit(begin) for _ in range(num_writers)]]
        assert found == [spec] * num_writers


def test_jobs_that_begin_a_store_at_the_same_moment_all_go_on(tmp_path, kit):
    """Six threads at one barrier make a store, register, pin, commit and unpin: nobody is refused,
    and everything is there once.
    """
    num_writers, spec = 6, kit.spec()
    videos = [kit.video(f"v{i}", 32, spec) for i in range(num_writers)]
    for number in range(2):
        url = str(tmp_path / f"store{number}")
        barrier = threading.Barrier(num_writers)

        def work(mine, url=url, barrier=barrier):
            barrier.wait()
            store = FeatureStore.open_or_create(url)
            store.put_recordings([videos[i].recording for i in {0, 1, mine}])
            store.pin(f"run{mine}")
            store.pin(f"run{mine}")
            store.commit(kit.write(store, spec, [videos[mine]]))
            if mine % 2:
                store.unpin(f"run{mine}")

        with ThreadPoolExecutor(num_writers) as pool:
            for future in [pool.submit(work, mine) for mine in range(num_writers)]:
                future.result()
        store = FeatureStore.open(url)
        assert store.recordings().num_rows == store.catalog().num_rows == num_writers
        assert sorted(store.pins()["run_id"].to_pylist()) == ["run0", "run2", "run4"]
        assert fsck(store).ok
