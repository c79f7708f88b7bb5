"""Runs in MLflow end with the status that says how they went, and are found again."""

import pickle
import subprocess
import sys
import time
from pathlib import Path

import pytest

from outspike.errors import RegistryError
from outspike.registry.tracking import (
    connect,
    find_runs,
    flatten,
    git_revision,
    resolve_uri,
    run,
    start_run,
)


def status(uri: str, run_id: str) -> str:
    return str(connect(uri).get_run(run_id).info.status)


def test_a_run_ends_finished(uri: str) -> None:
    """Params, metrics, tags and files are on a run that then ends FINISHED."""
    with run(uri, "fine", tags={"outspike.store": "s"}) as log:
        assert status(uri, log.run_id) == "RUNNING"
        log.log_params({"optim": {"lr": 0.1}, "encoders": [{"kind": "a"}], "none": None, "e": ""})
        log.log_metrics({"loss": 0.5, "auc": 0.75}, 3)
        log.set_tags({"outspike.git": "abc"})
    found = connect(uri).get_run(log.run_id)
    assert found.info.status == "FINISHED"
    assert found.data.params == {"optim.lr": "0.1", "encoders.0.kind": "a", "none": "None", "e": ""}
    assert found.data.metrics == {"loss": 0.5, "auc": 0.75}
    assert found.data.tags["outspike.store"] == "s"
    assert found.data.tags["outspike.git"] == "abc"


@pytest.mark.parametrize(
    ("raised", "expected"),
    [(ValueError, "FAILED"), (KeyboardInterrupt, "KILLED"), (SystemExit, "FAILED")],
)
def test_no_run_is_left_running(uri: str, raised: type[BaseException], expected: str) -> None:
    """An error, an interrupt and an exit end the run, each as what it was."""
    with pytest.raises(raised), run(uri, "broken") as log:
        raise raised
    assert status(uri, log.run_id) == expected


def test_an_interrupted_run_goes_on(uri: str) -> None:
    """A run that is resumed is RUNNING again until it ends."""
    log = start_run(uri, "killed")
    log.finish("KILLED")
    log.reopen()
    assert status(uri, log.run_id) == "RUNNING"
    log.finish()
    assert status(uri, log.run_id) == "FINISHED"


def test_trials_are_nested_and_found_by_tag(uri: str) -> None:
    """Runs of a search carry their parent, and are found from another process by their tag."""
    parent = start_run(uri, "search", tags={"outspike.search": "it's"})
    children = [
        start_run(uri, f"t{i}", tags={"outspike.search": "it's"}, parent_run_id=parent.run_id)
        for i in range(2)
    ]
    for log in (*children, parent):
        log.finish()
    found = find_runs(uri, {"outspike.search": "it's"})
    assert {r.info.run_id for r in found} == {parent.run_id, *(c.run_id for c in children)}
    nested = [r for r in found if r.data.tags.get("mlflow.parentRunId") == parent.run_id]
    assert {r.info.run_id for r in nested} == {c.run_id for c in children}
    assert find_runs(uri, {"outspike.search": "other"}) == []
    with pytest.raises(RegistryError, match="quotes"):
        find_runs(uri, {"outspike.search": "'\""})


def test_all_pages_of_runs_are_found(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow answers in pages; none is forgotten."""
    monkeypatch.setattr("outspike.registry.tracking._RUNS_PER_PAGE", 2)
    started = [start_run(uri, "p", tags={"outspike.page": "yes"}).run_id for _ in range(5)]
    found = [r.info.run_id for r in find_runs(uri, {"outspike.page": "yes"})]
    assert sorted(found) == sorted(started)


def test_a_logger_travels(uri: str) -> None:
    """A pickled logger writes to the same run: rank 0 lives in another process."""
    log = start_run(uri, "travels")
    copy = pickle.loads(pickle.dumps(log))
    copy.log_metrics({"loss": 1.0}, 1)
    copy.finish()
    assert connect(uri).get_run(log.run_id).data.metrics == {"loss": 1.0}


def test_files_are_kept_beside_the_database(uri: str, tmp_path: Path) -> None:
    """Artifacts of a SQLite registry do not depend on the folder a worker runs in."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.txt").write_text("x")
    log = start_run(uri, "files")
    log.log_artifact(tmp_path / "a" / "x.txt")
    log.log_artifact(tmp_path / "a", "folder")
    log.finish()
    client = connect(uri)
    assert {f.path for f in client.list_artifacts(log.run_id)} == {"x.txt", "folder"}
    beside = Path(uri.removeprefix("sqlite:///")).parent / "mlartifacts"
    assert client.get_run(log.run_id).info.artifact_uri.startswith(beside.as_uri())


def test_texts_too_long_say_so(uri: str) -> None:
    """A setting that MLflow would refuse is kept as far as it fits, and says how long it was."""
    log = start_run(uri, "long")
    log.log_params({"text": "x" * 7000})
    log.finish()
    kept = connect(uri).get_run(log.run_id).data.params["text"]
    assert len(kept) == 6000
    assert kept.endswith("... (7000 characters)")


def test_addresses_mean_the_same_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Relative SQLite paths become absolute; everything else stays."""
    monkeypatch.chdir(tmp_path)
    assert resolve_uri("sqlite:///mlflow.db") == f"sqlite:///{tmp_path}/mlflow.db"
    assert resolve_uri("sqlite:////a/mlflow.db") == "sqlite:////a/mlflow.db"
    assert resolve_uri("http://host:5000") == "http://host:5000"


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("text", "not an SQLite database"),
        ("folder", "Is a directory"),
        ("below-file", "Not a directory|File exists"),
        ("server", "refused"),
        ("file-store", "file:"),
        ("scheme", "ftp"),
    ],
)
def test_an_unusable_registry_gives_one_line_soon(tmp_path: Path, kind: str, says: str) -> None:
    """Whatever is wrong with the address, the message is one line, names it, and comes at once."""
    text = tmp_path / "text.db"
    text.write_text("not a database")
    uris = {
        "text": f"sqlite:///{text}",
        "folder": f"sqlite:///{tmp_path}",
        "below-file": f"sqlite:///{text}/below/mlflow.db",
        "server": "http://127.0.0.1:9",
        "file-store": f"file://{tmp_path}",
        "scheme": "ftp://host/x",
    }
    began = time.monotonic()
    with pytest.raises(RegistryError, match=says) as caught:
        connect(uris[kind])
    assert time.monotonic() - began < 10
    assert uris[kind] in str(caught.value)
    assert "\n" not in str(caught.value)
    assert text.read_text() == "not a database"


@pytest.mark.slow
def test_nothing_is_printed(tmp_path: Path) -> None:
    """MLflow's notices about tables, files and addresses stay out of a job's output."""
    code = (
        "import sys; from outspike.registry.tracking import run\n"
        "with run(sys.argv[1], 'quiet') as log: log.log_artifact(sys.argv[2])"
    )
    file = tmp_path / "x.txt"
    file.write_text("x")
    done = subprocess.run(
        [sys.executable, "-c", code, f"sqlite:///{tmp_path}/quiet.db", str(file)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_revision_of_a_checkout_is_known() -> None:
    """Runs say which commit they were made with."""
    assert git_revision()


def test_flat_names_are_dotted() -> None:
    """Lists of plain values stay together, lists of settings are numbered."""
    assert flatten({"a": {"b": [1, 2], "c": [{"d": 1}, {"d": 2}]}}) == {
        "a.b": [1, 2],
        "a.c.0.d": 1,
        "a.c.1.d": 2,
    }
