"""The whole path against OpenStack Swift: a real object store without conditional puts."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from outspike.errors import StoreError
from outspike.store.bags import BagReader
from outspike.store.cache import ShardCache
from outspike.store.compact import compact
from outspike.store.fsck import fsck
from outspike.store.gc import gc
from outspike.store.store import FeatureStore

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

_NEEDED = ("swift-proxy-server", "swift-ring-builder", "memcached")
_TIMEOUT_S = 1200


@pytest.fixture(scope="module")
def swift(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A bucket on a Swift of our own, and the environment that leads there."""
    lacking = [name for name in _NEEDED if shutil.which(name) is None]
    if lacking:
        pytest.skip(
            f"OpenStack Swift is not installed ({', '.join(lacking)}); infra/swift/start.sh"
        )
    import boto3

    folder = tmp_path_factory.mktemp("swift")
    script = str(repository / "infra" / "swift" / "start.sh")
    server = subprocess.Popen([script, str(folder)], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        word, _, address = server.stdout.readline().strip().partition(" ")
        assert word == "ready", [path.read_text()[-500:] for path in (folder / "log").iterdir()]
        environment = {
            "AWS_ENDPOINT_URL": address,
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": "test:tester",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            # signed chunks, which pyarrow would send, are refused
            "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
        }
        with pytest.MonkeyPatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            boto3.client("s3").create_bucket(Bucket="outspike")
            yield "s3://outspike"
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(timeout=60)


def job(repository: Path, name: str, *words: str) -> "subprocess.CompletedProcess[str]":
    own = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    return subprocess.run(
        [sys.executable, str(repository / "jobs" / name), *words],
        env=own | {"PYTHONPATH": str(repository / "platform"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
    )


def test_a_store_on_swift_is_refused_in_the_usual_mode(swift: str) -> None:
    """One line that names the setting, and nothing written."""
    with pytest.raises(StoreError, match=r"Conditional object PUTs|--store\.single-writer"):
        FeatureStore.create(f"{swift}/refused")


def test_the_path_runs_on_swift(swift: str, repository: Path, tmp_path: Path) -> None:
    """Extract into a single-writer store, extract again, read, check, train, compact and gc; the
    digest is that of the same job on a disk.
    """
    data = ["miniature", "--data.root", str(tmp_path / "data")]
    some = [*data, "--limit", "16", "--shuffle-seed", "0"]
    store, local = f"{swift}/store", str(tmp_path / "local")
    done = job(repository, "extract.py", *some, "--store.url", store, "--store.single-writer")
    assert done.returncode == 0, done.stderr
    assert job(repository, "extract.py", *some, "--store.url", local).returncode == 0
    found = FeatureStore.open(store)
    assert found.is_single_writer
    assert found.digest() == FeatureStore.open(local).digest()
    name = "event-pyramid"
    reader = BagReader(found, [name], cache=ShardCache(tmp_path / "cache", 10**9))
    keys = reader.keys()
    assert len(keys) == 16
    only = ["--only", *(video_id for _, video_id in keys)]
    again = job(repository, "extract.py", *data, "--store.url", store, *only)
    assert again.returncode == 0, again.stderr
    assert FeatureStore.open(store).version == found.version, "nothing was left to do"
    batch = reader.read_bags(keys)
    other = BagReader(FeatureStore.open(local), [name]).read_bags(keys)
    assert (batch.features[name] == other.features[name]).all()
    assert fsck(found, sources=True).ok
    trained = job(
        repository,
        "train.py",
        "msf-miniature",
        *("--store.url", store, "--storage", str(tmp_path / "runs")),
        *("--tracking-uri", f"sqlite:///{tmp_path}/mlflow.db"),
        *("--steps", "4", "--bags-per-batch", "4", "--num-workers", "0"),
    )
    assert trained.returncode == 0, trained.stderr
    assert FeatureStore.open(store).pins().num_rows == 1, "what it was trained on is kept"
    assert not compact(store).damaged
    gc(store, grace_s=0.0)
    after = FeatureStore.open(store)
    assert fsck(after).ok
    assert after.digest() == found.digest()
