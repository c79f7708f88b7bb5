"""The three ways to run a job on a cluster, on a real one of two nodes."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import outspike
from outspike.store.store import FeatureStore
from outspike.synth.miniature import generate, load_labels
from outspike.urls import join, write_bytes

pytestmark = pytest.mark.cluster

_TIMEOUT_S = 420
#: The package in the copy of the repository says so, which tells whose code a worker ran.
_COPY = f"{outspike.__version__}+copy"
#: Only the second node has room for this, and it runs in a folder of its own.
_ON_THE_SECOND_NODE = ["--cpus-per-actor", "1.5"]


#: What Ray answers while it is still starting; it asks to try again.
_NO_AGENT = "No available agent to submit job"


@dataclass(frozen=True)
class _Cluster:
    checkout: Path
    """Copy of the repository in which the head was started."""
    address: str
    jobs_address: str
    environment: dict[str, str]
    """Of the shell that submits; the nodes alone know the way to S3."""

    def run(self, *command: str, **settings: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            command,
            cwd=self.checkout,
            env=self.environment | settings,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )

    def submit(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """Submit as soon as a node's agent takes jobs, which is a while after the node is up."""
        until = time.monotonic() + _TIMEOUT_S
        while True:
            done = self.run(
                "ray", "job", "submit", *words, RAY_API_SERVER_ADDRESS=self.jobs_address
            )
            if _NO_AGENT not in done.stderr + done.stdout or time.monotonic() > until:
                return done
            time.sleep(1)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _copy_of(repository: Path, checkout: Path) -> None:
    for name in ("platform", "jobs", "infra"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(repository / name, checkout / name, ignore=ignored)
    shutil.copy(repository / ".gitignore", checkout)
    init = checkout / "platform" / "outspike" / "__init__.py"
    init.write_text(init.read_text().replace(outspike.__version__, _COPY))


def _start_node(
    cwd: Path, environment: dict[str, str], log: Path, *words: str
) -> "subprocess.Popen[bytes]":
    """A node that lives as long as the process returned, which ends what it started."""
    flags = ["--disable-usage-stats", "--object-store-memory=100000000", "--block"]
    # The default port is one for a machine: another Ray beside this one would leave it no agent.
    flags.append(f"--dashboard-agent-listen-port={_free_port()}")
    with log.open("wb") as file:
        process = subprocess.Popen(
            ["ray", "start", *words, *flags], cwd=cwd, env=environment, stdout=file, stderr=file
        )
    until = time.monotonic() + _TIMEOUT_S
    while "Ray runtime started" not in log.read_text():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < until, log.read_text()
        time.sleep(0.2)
    return process


def _shell() -> dict[str, str]:
    """Environment of a person who submits: no way to S3, the package as it is installed."""
    hidden = ("AWS_", "RAY_", "PYTHONPATH")
    own = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
    scripts = Path(sys.executable).parent
    return own | {
        "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
        # As Ray advises: whoever reaches the ports needs a token to run code.
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
    }


@pytest.fixture(scope="module")
def s3_settings(s3_server: str) -> dict[str, str]:
    return {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_ENDPOINT_URL": s3_server,
        "AWS_ALLOW_HTTP": "true",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
    }


@pytest.fixture(scope="module")
def cluster(
    repository: Path, s3_settings: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[_Cluster]:
    """A head of one CPU, started in a copy of the repository, and a worker of two elsewhere."""
    root = tmp_path_factory.mktemp("cluster")
    checkout, elsewhere = root / "checkout", root / "elsewhere"
    elsewhere.mkdir()
    _copy_of(repository, checkout)
    shell = _shell()
    port, jobs_port = _free_port(), _free_port()
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # sockets need a short path
    head = ["--head", f"--port={port}", f"--dashboard-port={jobs_port}", f"--temp-dir={folder}"]
    worker = [f"--address=127.0.0.1:{port}", "--num-cpus=2"]
    nodes = []
    try:
        on_nodes = shell | s3_settings
        nodes.append(_start_node(checkout, on_nodes, root / "head.log", *head, "--num-cpus=1"))
        nodes.append(_start_node(elsewhere, on_nodes, root / "worker.log", *worker))
        yield _Cluster(checkout, f"127.0.0.1:{port}", f"http://127.0.0.1:{jobs_port}", shell)
    finally:
        for node in nodes:
            node.send_signal(signal.SIGTERM)
        for node in nodes:
            node.wait(60)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("few")
    generate(root, train=2, test=2, events=1, unseen=0)
    return sorted((root / "videos").glob("*.mp4"))[:2]


def _versions(url: str) -> set[str]:
    """Whose code wrote the rows of a store of two recordings and three feature sets."""
    extents = FeatureStore.open(url).extents
    assert extents.num_rows == 6
    return set(extents["outspike_version"].to_pylist())


def test_a_script_joins_the_cluster_of_ray_address(
    cluster: _Cluster, recordings: list[Path]
) -> None:
    """Relative addresses mean the caller's folder, also for an actor on another node."""
    (cluster.checkout / "mine").mkdir()
    for path in recordings:
        shutil.copy(path, cluster.checkout / "mine")
    done = cluster.run(
        *(sys.executable, "jobs/extract.py", "folder", "--data.root", "mine"),
        *("--store.url", "mine/store", *_ON_THE_SECOND_NODE),
        RAY_ADDRESS=cluster.address,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "new 2" in done.stdout
    assert _versions(str(cluster.checkout / "mine" / "store")) == {outspike.__version__}


def test_a_job_brings_its_code_and_finds_s3(
    cluster: _Cluster, recordings: list[Path], s3_bucket: str
) -> None:
    """``ray job submit --runtime-env``: the uploaded package runs; the nodes hold the keys."""
    root, store = join(s3_bucket, "recordings"), join(s3_bucket, "store")
    for path in recordings:
        write_bytes(join(root, path.name), path.read_bytes())
    done = cluster.submit(
        *("--runtime-env", "infra/runtime_env.yaml", "--", "jobs/extract.py"),
        *("folder", "--data.root", root, "--store.url", store, *_ON_THE_SECOND_NODE),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "new 2" in done.stdout
    assert _versions(store) == {_COPY}


@pytest.mark.slow
def test_a_head_started_in_the_root_takes_the_bare_script(cluster: _Cluster) -> None:
    """``ray job submit jobs/extract.py``: nothing is uploaded, the miniature set is made there."""
    done = cluster.submit("jobs/extract.py")
    assert done.returncode == 0, done.stdout + done.stderr
    data = cluster.checkout / "outspike-data"
    made = {recording.video_id for recording in load_labels(str(data / "miniature"))}
    assert f"new {len(made)}" in done.stdout
    assert set(FeatureStore.open(str(data / "store")).extents["video_id"].to_pylist()) == made


@pytest.mark.slow
def test_a_store_in_the_uploaded_copy_is_warned_of(cluster: _Cluster) -> None:
    """Results that will vanish with the job are not lost without a word.

    Whether the job itself ends well depends on where its actors run: another node does not see
    the copy, and nodes that share a machine unpack theirs over it.
    """
    done = cluster.submit(
        "--runtime-env", "infra/runtime_env.yaml", "--", "jobs/extract.py", "--limit", "1"
    )
    assert "goes away with it" in done.stdout + done.stderr
