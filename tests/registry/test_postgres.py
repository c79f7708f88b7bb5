"""The registry as a lab runs it: ``mlflow server`` on PostgreSQL, its files in object storage."""

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import pytest

from outspike.config import (
    DataConfig,
    MotionFloorConfig,
    SelectionConfig,
    StoreConfig,
    TrainConfig,
    to_json,
)
from outspike.registry.models import download_bundle, register
from outspike.registry.promote import promote
from outspike.registry.tracking import connect, find_runs, run
from outspike.registry.versions import champion, find, roll_back
from outspike.scoring.bundle import Bundle
from outspike.store.store import FeatureStore
from outspike.train.lineage import lineage, models_that_saw
from outspike.urls import list_files

pytestmark = pytest.mark.slow
Served = Callable[..., AbstractContextManager[str]]

_LOAD = """
import sys
import mlflow
mlflow.set_tracking_uri(sys.argv[1])
print("loaded", type(mlflow.pyfunc.load_model("models:/lab@champion")).__name__)
"""


def programs() -> Path | None:
    """Folder of PostgreSQL's server programs, which distributions leave off the path."""
    told = shutil.which("pg_config")
    if told:
        done = subprocess.run([told, "--bindir"], capture_output=True, text=True, check=False)
        if (Path(done.stdout.strip()) / "initdb").is_file():
            return Path(done.stdout.strip())
    found = shutil.which("initdb")
    if found:
        return Path(found).resolve().parent
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return installed[-1].parent if installed else None


def as_user() -> tuple[list[str], str | None]:
    """Words before a command that root may not run, and whom it then runs as."""
    if os.geteuid() != 0:
        return [], None
    known = {entry.pw_name for entry in pwd.getpwall()}
    name = "postgres" if "postgres" in known else "nobody"
    group = str(pwd.getpwnam(name).pw_gid)
    return ["setpriv", f"--reuid={name}", f"--regid={group}", "--clear-groups", "--"], name


@contextmanager
def without_keys(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The environment of somebody who cannot reach the bucket."""
    with monkeypatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        yield


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    """A PostgreSQL of this test alone, on a socket in a folder of its own and on no port."""
    pytest.importorskip("psycopg2", reason="psycopg2 is not installed (the dev extra has it)")
    where = programs()
    if where is None:
        pytest.skip("no PostgreSQL server: neither on the path, nor where pg_config says")
    before, owner = as_user()
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))  # a socket's path must be short
    try:
        if owner is not None:
            shutil.chown(folder, owner)

        def call(program: str, *words: str) -> None:
            done = subprocess.run(
                [*before, str(where / program), "-D", str(folder / "data"), *words],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,  # a pipe would stay open as long as the server
                stderr=subprocess.PIPE if program == "initdb" else subprocess.DEVNULL,
                text=True,
                check=False,
            )
            log = folder / "log"
            said = log.read_text() if log.exists() else done.stderr
            assert done.returncode == 0, f"{program}: {said}"

        call("initdb", "--username=lab", "--auth=trust", "--encoding=UTF8", "--no-sync")
        options = f"-c listen_addresses='' -k {folder}"
        call("pg_ctl", "start", "-w", "-t", "120", "-l", str(folder / "log"), "-o", options)
        try:
            yield f"postgresql+psycopg2://lab@/postgres?host={folder}"
        finally:
            call("pg_ctl", "stop", "-w", "-m", "fast")
    finally:
        shutil.rmtree(folder)


def test_a_model_lives_on_postgresql_and_s3(
    database: str,
    served: Served,
    s3_bucket: str,
    saved: Callable[..., Path],
    store: FeatureStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Registered, promoted, loaded by its alias, traced to its sources, replaced and brought back;
    its files lie in the bucket, and who asks the server needs no key to it."""
    config = TrainConfig(
        name="lab",
        data=DataConfig(dataset="tiny"),
        store=StoreConfig(
            url=store.url, version=store.version, recordings_version=store.recordings_version
        ),
        detector=MotionFloorConfig(feature_set="event-pyramid", form="logistic"),
        encoders=(),
        selection=SelectionConfig(split="last"),
        protocol="folder",
    )
    told = {"config": to_json(config), "config_hash": "abc", "git": "unknown"}
    folder = saved("event-pyramid", **told)
    artifacts = f"{s3_bucket}/mlflow"
    with ExitStack() as keyless, served(tmp_path, backend=database, artifacts=artifacts) as server:
        keyless.enter_context(without_keys(monkeypatch))
        with run(server, "training", tags={"outspike.search": "s"}) as log:
            log.log_params(to_json(config))
            for step in range(3):
                log.log_metrics({"total": 1.0 / (step + 1)}, step)
            version = register(log, "lab", folder, {"outspike.protocol": "folder"})
        assert connect(server).get_run(log.run_id).info.status == "FINISHED"
        assert len(connect(server).get_metric_history(log.run_id, "total")) == 3
        assert [r.info.run_id for r in find_runs(server, {"outspike.search": "s"})] == [log.run_id]

        tried = promote(server, "lab", dry_run=True)
        assert tried.passed, tried.table()
        assert champion(server, "lab") is None, "a dry run changes nothing"
        assert promote(server, "lab").passed
        assert champion(server, "lab") == find(server, "models:/lab@champion") == version
        fetched = Bundle.load(download_bundle(version, tmp_path / "fetched"))
        assert fetched.provenance == Bundle.load(folder).provenance
        loaded = subprocess.run(
            [sys.executable, "-I", "-c", _LOAD, server],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert "loaded" in loaded.stdout, loaded.stderr

        found = lineage(server, "models:/lab@champion")
        parts = found.recordings()
        assert (len(parts["training"]), len(parts["test"])) == (16, 20)
        saw, untold = models_that_saw(server, parts["training"][0])
        assert ([v.address for v, _ in saw], untold) == ([version.address], [])

        again = register(log, "lab", folder, {})
        assert not promote(server, again.address).passed, "no better than the champion"
        refused = connect(server).get_model_version("lab", str(again.version)).tags
        assert refused["outspike.gate.beats"].startswith("failed")
        connect(server).set_registered_model_alias("lab", "champion", str(again.version))
        connect(server).set_registered_model_alias("lab", "previous", str(version.version))
        assert roll_back(server, "lab")[0] == version
        assert champion(server, "lab") == version
    kept = list_files(f"{s3_bucket}/mlflow")
    assert sum(url.endswith("bundle.json") for url in kept) == 2
