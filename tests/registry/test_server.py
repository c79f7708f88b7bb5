"""The same registry behind a real MLflow server."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from outspike.registry.models import download_bundle, register
from outspike.registry.promote import promote
from outspike.registry.spool import SpooledRun
from outspike.registry.tracking import connect, find_runs, run, start_run
from outspike.registry.versions import champion, find
from outspike.scoring.bundle import Bundle

pytestmark = pytest.mark.slow
_START_S = 180.0


@contextmanager
def served(folder: Path, port: int) -> Iterator[str]:
    """Address of ``mlflow server`` over the database in ``folder``; it ends with the block."""
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--workers", "1"]
    places = ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
    places += ["--artifacts-destination", str(folder / "artifacts"), "--port", str(port)]
    with (folder / "log.txt").open("ab") as log:
        process = subprocess.Popen(
            [*command, *places],
            stdout=log,
            stderr=log,
            cwd=folder,
            start_new_session=True,
            env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        )
        try:
            url = f"http://127.0.0.1:{port}"
            _wait(url, process, folder / "log.txt")
            yield url
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(30)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server for the tests that want it to stay."""
    with served(tmp_path_factory.mktemp("server"), free_port()) as url:
        yield url


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    began = time.monotonic()
    while time.monotonic() - began < _START_S:
        assert process.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=2):
                return
        except OSError:
            time.sleep(0.5)
    raise AssertionError(log.read_text())


def test_the_life_of_a_model_on_a_server(
    server: str, saved: Callable[..., Path], tmp_path: Path
) -> None:
    """Track, register, find, fetch and promote, with files going through the server."""
    folder = saved("event-pyramid")
    with run(server, "training", tags={"outspike.search": "s"}) as log:
        log.log_params({"text": "x" * 7000, "none": None, "empty": "", "list": [1, 2]})
        log.log_metrics({"test/video_auc": 1.0}, 1)
        version = register(log, "served", folder, {"outspike.protocol": "folder"})
        assert connect(server).get_run(log.run_id).info.status == "RUNNING"
    assert connect(server).get_run(log.run_id).info.status == "FINISHED"
    assert [r.info.run_id for r in find_runs(server, {"outspike.search": "s"})] == [log.run_id]
    assert find(server, "models:/served/1") == version
    fetched = Bundle.load(download_bundle(version, tmp_path / "fetched"))
    assert fetched.provenance == Bundle.load(folder).provenance
    promotion = promote(server, "served")
    assert promotion.passed, promotion.table()
    assert champion(server, "served") == version
    assert promote(server, "models:/served@champion").checks[0].name == "champion"


def test_a_server_that_goes_and_comes_back_gets_every_metric(tmp_path: Path) -> None:
    """Training's record while the server is stopped and started again on the same address."""
    port, spool = free_port(), tmp_path / "unsent.jsonl"
    with served(tmp_path, port) as url:
        spooled = SpooledRun(start_run(url, "spooled"), str(spool))
        spooled.log_metrics({"loss": 3.0}, 1)
    for step in (2, 3):
        spooled.log_metrics({"loss": float(step)}, step)
    assert len(spool.read_text().splitlines()) == 2
    with served(tmp_path, port) as url:
        spooled.flush()
        points = connect(url).get_metric_history(spooled.run_id, "loss")
        assert sorted(point.step for point in points) == [1, 2, 3]
    assert not spool.exists()
