"""``jobs/extract.py`` from and to S3: same features, bad keys in the ledger, no secret anywhere."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from outspike.extract.ledger import Ledger
from outspike.store.store import FeatureStore
from outspike.synth.miniature import generate
from outspike.urls import filesystem, list_files, read_bytes, write_bytes

pytestmark = pytest.mark.cluster

_TIMEOUT_S = 300
_SECRET = "Zx9vQ2mK7pR4tW8yB3nL6sD1fG5hJ0aC"


@pytest.fixture
def ray_folder() -> Iterator[Path]:
    """Where Ray keeps its sessions and logs; the path must be short enough for its sockets."""
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def bucket(s3_bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A bucket with four videos, one of them no video, reached with a secret worth searching."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", _SECRET)
    made = generate(tmp_path / "made", train=4, test=2, events=0, unseen=0)
    for path in sorted(Path(made.root, "videos").glob("*.mp4"))[:3]:
        write_bytes(f"{s3_bucket}/recordings/{path.name}", path.read_bytes())
    write_bytes(f"{s3_bucket}/recordings/notes.mp4", b"these are minutes of a meeting")
    return s3_bucket


def _start(
    repository: Path, bucket: str, ray_folder: Path, errors: Path
) -> "subprocess.Popen[str]":
    addresses = ["--data.root", f"{bucket}/recordings", "--store.url", f"{bucket}/store"]
    own = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    with errors.open("w") as file:
        return subprocess.Popen(
            [sys.executable, str(repository / "jobs" / "extract.py"), "folder", *addresses],
            env=own
            | {
                "PYTHONPATH": str(repository / "platform"),
                "OMP_NUM_THREADS": "1",
                "RAY_TMPDIR": str(ray_folder),
            },
            stdout=subprocess.PIPE,
            stderr=file,
            text=True,
        )


def _wait_for(word: str, errors: Path) -> None:
    until = time.monotonic() + _TIMEOUT_S
    while word not in errors.read_text():
        assert time.monotonic() < until, errors.read_text()
        time.sleep(0.1)


def test_recordings_and_store_on_s3(
    repository: Path, bucket: str, ray_folder: Path, tmp_path: Path
) -> None:
    """A key deleted after it was listed is a ledger row, and no credential is ever written."""
    errors = tmp_path / "errors"
    process = _start(repository, bucket, ray_folder, errors)
    _wait_for("to_do=4", errors)
    lost = next(url for url in list_files(f"{bucket}/recordings") if "notes" not in url)
    filesystem(lost).rm(lost)
    output, _ = process.communicate(timeout=_TIMEOUT_S)
    said = errors.read_text()
    assert process.returncode == 3, said
    assert "new 2" in output
    assert "quarantined 2" in output
    rows = Ledger(f"{bucket}/store").rows()
    assert sorted(row["reason"] for row in rows) == ["not_media", "unreadable"]
    assert any(lost in row["detail"] for row in rows)
    assert len(FeatureStore.open(f"{bucket}/store").extents) == 3 * 2

    written = {url: read_bytes(url) for url in list_files(f"{bucket}/store")}
    assert len(written) > 10
    logs = {str(path): path.read_bytes() for path in ray_folder.rglob("*") if path.is_file()}
    assert logs
    texts = written | logs | {"standard output": output.encode(), "standard error": said.encode()}
    assert [name for name, text in texts.items() if _SECRET.encode() in text] == []
