"""Full disk, failing S3 server: one line at most, and after a re-run the undisturbed store."""

import os
import random
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from outspike.extract.ledger import Ledger
from outspike.store.store import FeatureStore
from outspike.synth.miniature import generate
from outspike.urls import write_bytes

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

_TIMEOUT_S = 400
Job = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = generate(tmp_path_factory.mktemp("made"), train=4, test=2, events=0, unseen=0)
    return Path(made.root, "videos")


@pytest.fixture
def job(repository: Path) -> Job:
    """Run ``jobs/extract.py folder`` over a folder into a store."""

    def run(root: str | Path, store: str | Path, *more: str) -> "subprocess.CompletedProcess[str]":
        return _run([*command(repository, root, store), *more], repository)

    return run


def command(repository: Path, root: str | Path, store: str | Path) -> list[str]:
    arguments = ["folder", "--data.root", str(root), "--store.url", str(store)]
    return [sys.executable, str(repository / "jobs" / "extract.py"), *arguments]


def _run(words: list[str], repository: Path) -> "subprocess.CompletedProcess[str]":
    own = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    return subprocess.run(
        words,
        env=own | {"PYTHONPATH": str(repository / "platform"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
    )


@pytest.fixture(scope="module")
def undisturbed(repository: Path, videos: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Digest of a store that nothing happened to."""
    store = tmp_path_factory.mktemp("undisturbed") / "store"
    done = _run(command(repository, videos, store), repository)
    assert done.returncode == 0, done.stderr
    return FeatureStore.open(str(store)).digest()


def test_a_full_disk_is_one_line_and_a_re_run_goes_on(
    repository: Path, videos: Path, undisturbed: str, tmp_path: Path
) -> None:
    """A file system of 1 MB runs full; made larger, the same command finishes the store."""
    small = tmp_path / "small"
    small.mkdir()
    words = [*command(repository, videos, small / "store"), "--segment-seconds", "0.1"]
    digest = "import sys; from outspike.store.store import FeatureStore as S; "
    digest += "print('digest', S.open(sys.argv[1]).digest())"
    script = f"""
        mount -t tmpfs -o size=1m tmpfs {small} || exit 9
        {shlex.join(words)} 2> {tmp_path}/errors; echo "first $?"
        mount -o remount,size=50m {small} || exit 9
        {shlex.join(words)}; echo "second $?"
        {shlex.join([sys.executable, "-c", digest, str(small / "store")])}
    """
    # a mount that only this process tree sees, without being root
    done = _run(["unshare", "--map-root-user", "--mount", "sh", "-c", script], repository)
    assert done.returncode == 0, done.stderr
    said = (tmp_path / "errors").read_text()
    assert "first 1" in done.stdout, said
    errors = [line for line in said.splitlines() if " ERROR " in line]
    assert len(errors) == 1, said
    assert "No space left on device" in errors[0]
    assert "Traceback" not in said
    assert "second 0" in done.stdout, done.stderr
    assert f"digest {undisturbed}" in done.stdout


def test_a_failing_s3_server_changes_nothing(
    proxies: ModuleType,
    job: Job,
    videos: Path,
    undisturbed: str,
    s3_bucket: str,
    s3_server: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One request in eight is answered 500, 503, late or by half: after at most three runs the
    store is that of an undisturbed job, and no recording was given up for its content."""
    for path in sorted(videos.glob("*.mp4")):
        write_bytes(f"{s3_bucket}/recordings/{path.name}", path.read_bytes())
    moments, spoiled = random.Random(0), []

    def fault(method: str, path: str, range_: str | None) -> str | None:
        kinds = ("500", "503", "slow", "half") if method == "GET" else ("500", "503", "slow")
        if moments.random() >= 1 / 8:
            return None
        spoiled.append(moments.choice(kinds))
        return spoiled[-1]

    with proxies.Proxy(s3_server, slow_s=2.0, fault=fault) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        for _ in range(3):
            done = job(f"{s3_bucket}/recordings", f"{s3_bucket}/store")
            print(done.stdout, f"{len(spoiled)} of {len(proxy.requests)} requests spoiled")
            assert "Traceback" not in done.stderr
            assert "reason=corrupt" not in done.stdout
            if done.returncode == 0:
                break
        assert done.returncode == 0, done.stderr
        assert set(spoiled) == {"500", "503", "slow", "half"}
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)
    assert FeatureStore.open(f"{s3_bucket}/store").digest() == undisturbed


#: A job whose workers die of one recording, as of an event file that breaks its decoder.
_FRAGILE = """
import os, sys
from outspike.config import DataConfig, ExtractConfig, StoreConfig
from outspike.extract import stream
from outspike.extract.actor import Extractor
from outspike.extract.run import extract

root, url, poison = sys.argv[1:]

class Fragile(Extractor):
    poison = poison

    def _extract(self, item, *rest):
        if item.recording.video_id == self.poison:
            os._exit(1)
        return super()._extract(item, *rest)

stream.Extractor = Fragile
data, store = DataConfig(dataset="folder", root=root), StoreConfig(url=url)
print(extract(ExtractConfig(data=data, store=store)).table())
"""


def test_a_recording_that_kills_its_workers_is_given_up(
    repository: Path, videos: Path, tmp_path: Path
) -> None:
    """It is begun a few times and not for ever; the others are in the store all the same."""
    poison = sorted(videos.glob("*.mp4"))[2].stem
    store = tmp_path / "store"
    words = [sys.executable, "-c", _FRAGILE, str(videos), str(store), poison]
    done = _run(words, repository)
    assert done.returncode == 0, done.stderr
    assert "new 5" in done.stdout
    assert "quarantined 1" in done.stdout
    (row,) = Ledger(str(store)).rows()
    assert (row["video_id"], row["reason"]) == (poison, "crashed")
    assert "3 workers died" in row["detail"]
