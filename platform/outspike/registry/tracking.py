"""Runs in MLflow: opened once by the driver, written to by rank 0, closed whatever happens."""

import functools
import http.client
import logging
import os
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NAME

import outspike
from outspike.errors import RegistryError

logger = logging.getLogger(__name__)

EXPERIMENT = "outspike"
Status = Literal["FINISHED", "FAILED", "KILLED"]

_SQLITE = "sqlite:///"
_SQLITE_MAGIC = b"SQLite format 3\0"
_MAX_PARAM_LENGTH = 6000  # longer ones are refused by MLflow
_PARAMS_PER_CALL = 100
_RUNS_PER_PAGE = 1000
_REACH_TIMEOUT_S = 10.0

# MLflow draws a progress bar for every file it copies and prints the address of every run it ends.
# What goes wrong is raised as an exception, so nothing is lost by asking it to be quiet.
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
for _name in ("mlflow.store", "mlflow.pyfunc", "alembic"):
    logging.getLogger(_name).setLevel(logging.WARNING)


def resolve_uri(uri: str) -> str:
    """A tracking address that means the same in every process: SQLite paths become absolute."""
    if uri.startswith(_SQLITE) and not uri.startswith(_SQLITE + "/"):
        return _SQLITE + str(Path(uri.removeprefix(_SQLITE)).absolute())
    return uri


def connect(uri: str) -> MlflowClient:
    """A client of the tracking server or database at ``uri``, with our experiment in it.

    Raises:
        RegistryError: the address is unusable or nobody answers there.
    """
    uri = resolve_uri(uri)
    _reach_once(uri)
    try:
        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        experiment_id(client, uri)
    except MlflowException as error:
        raise _unusable(uri, error) from error
    return client


def experiment_id(client: MlflowClient, uri: str) -> str:
    """Id of our experiment, made at first use."""
    found = client.get_experiment_by_name(EXPERIMENT)
    if found is not None:
        return str(found.experiment_id)
    location = None
    if uri.startswith(_SQLITE):  # the default, ./mlruns, would depend on where a worker runs
        location = (Path(uri.removeprefix(_SQLITE)).parent / "mlartifacts").as_uri()
    try:
        return str(client.create_experiment(EXPERIMENT, artifact_location=location))
    except MlflowException:
        found = client.get_experiment_by_name(EXPERIMENT)  # another process was faster
        if found is None:
            raise
        return str(found.experiment_id)


def check_reachable(uri: str) -> None:
    """Fail within seconds where MLflow's own retries would take minutes.

    Raises:
        RegistryError: nobody answers at ``uri``, or what lies there is no database.
    """
    if uri.startswith(_SQLITE):
        _reach_sqlite(uri)
    elif uri.startswith(("http://", "https://")):
        _reach_server(uri)


_reach_once = functools.cache(check_reachable)


def _reach_sqlite(uri: str) -> None:
    path = Path(uri.removeprefix(_SQLITE))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b") as file:  # MLflow tries a folder it may not write to for minutes
            file.seek(0)
            head = file.read(len(_SQLITE_MAGIC))
    except OSError as error:
        raise _unusable(uri, error) from error
    if head not in (b"", _SQLITE_MAGIC):
        raise _unusable(uri, "the file is not an SQLite database")


def _reach_server(uri: str) -> None:
    try:
        with urllib.request.urlopen(uri.rstrip("/") + "/health", timeout=_REACH_TIMEOUT_S):
            pass
    except urllib.error.HTTPError:
        return  # somebody answers: what he makes of a real request is for MLflow to say
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _unusable(uri, getattr(error, "reason", error)) from error


def _unusable(uri: str, why: object) -> RegistryError:
    first = str(why).strip().splitlines()[0] if str(why).strip() else type(why).__name__
    return RegistryError(
        f"MLflow at {uri} cannot be used: {first}. Start a server with 'mlflow server', or use "
        "--tracking-uri sqlite:///mlflow.db."
    )


@dataclass(frozen=True, kw_only=True)
class RunLogger:
    """Address of one run; small and picklable, so that rank 0 can write to it from any node."""

    uri: str
    run_id: str

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Nested settings under dotted names; a text too long for MLflow ends in its length."""
        flat = [Param(name, _fitting(str(value))) for name, value in flatten(params).items()]
        for first in range(0, len(flat), _PARAMS_PER_CALL):
            self._client().log_batch(self.run_id, params=flat[first : first + _PARAMS_PER_CALL])

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Numbers of one training step, in one request."""
        now = time.time_ns() // 1_000_000
        self.log_points([Metric(name, float(value), now, step) for name, value in metrics.items()])

    def log_points(self, points: Sequence[Metric]) -> None:
        """Numbers with the time they were measured at, at most 1000 of them."""
        self._client().log_batch(self.run_id, metrics=points)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """What the run was made from; ours start with ``outspike.``."""
        self._client().log_batch(self.run_id, tags=[RunTag(k, str(v)) for k, v in tags.items()])

    def log_artifact(self, path: str | Path, folder: str | None = None) -> None:
        """Copy a file or folder to the run."""
        client = self._client()
        if Path(path).is_dir():
            client.log_artifacts(self.run_id, str(path), folder)
        else:
            client.log_artifact(self.run_id, str(path), folder)

    def finish(self, status: Status = "FINISHED") -> None:
        """End the run."""
        self._client().set_terminated(self.run_id, status)

    def reopen(self) -> None:
        """The run goes on: it was interrupted, and is RUNNING again."""
        self._client().update_run(self.run_id, status="RUNNING")

    def _client(self) -> MlflowClient:
        return MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)


def start_run(
    uri: str,
    name: str,
    *,
    tags: Mapping[str, str] | None = None,
    parent_run_id: str | None = None,
) -> RunLogger:
    """Open a run.

    Args:
        uri: tracking address.
        name: what people see in the list.
        tags: ``outspike.*`` tags known from the start.
        parent_run_id: the search that this run belongs to.
    """
    client = connect(uri)
    uri = resolve_uri(uri)
    system = {MLFLOW_RUN_NAME: name}
    if parent_run_id is not None:
        system[MLFLOW_PARENT_RUN_ID] = parent_run_id
    run = client.create_run(
        experiment_id(client, uri), tags={**system, **(tags or {})}, run_name=name
    )
    return RunLogger(uri=uri, run_id=str(run.info.run_id))


@contextmanager
def run(
    uri: str,
    name: str,
    *,
    tags: Mapping[str, str] | None = None,
    parent_run_id: str | None = None,
) -> Iterator[RunLogger]:
    """A run that is never left RUNNING: FAILED on an error, KILLED on an interrupt."""
    opened = start_run(uri, name, tags=tags, parent_run_id=parent_run_id)
    try:
        yield opened
    except KeyboardInterrupt:
        opened.finish("KILLED")
        raise
    except BaseException:
        opened.finish("FAILED")
        raise
    opened.finish("FINISHED")


def find_runs(uri: str, tags: Mapping[str, str]) -> list[Run]:
    """Runs of our experiment that carry all of ``tags``, newest first.

    Raises:
        RegistryError: a tag's value cannot be searched for.
    """
    client = connect(uri)
    query = " and ".join(f"tags.`{name}` = {_quoted(value)}" for name, value in tags.items())
    runs: list[Run] = []
    token: str | None = None
    while True:
        page = client.search_runs(
            [experiment_id(client, resolve_uri(uri))],
            filter_string=query,
            max_results=_RUNS_PER_PAGE,
            page_token=token,
        )
        runs += page
        token = page.token
        if not token:
            return runs


def git_revision() -> str:
    """Revision of the checkout the package lies in; ``unknown`` for an installed wheel."""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40"],
            cwd=Path(outspike.__file__).parent,
            capture_output=True,
            text=True,
            check=False,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return done.stdout.strip() if done.returncode == 0 else "unknown"


def flatten(document: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"a": {"b": 1}}`` as ``{"a.b": 1}``; lists of mappings keep their index as a name."""
    flat: dict[str, Any] = {}
    for name, value in document.items():
        path = f"{prefix}{name}"
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{path}."))
        elif isinstance(value, list | tuple) and any(isinstance(v, Mapping) for v in value):
            flat.update(flatten({str(i): v for i, v in enumerate(value)}, f"{path}."))
        else:
            flat[path] = value
    return flat


def _fitting(text: str) -> str:
    if len(text) <= _MAX_PARAM_LENGTH:
        return text
    mark = f" ... ({len(text)} characters)"
    return text[: _MAX_PARAM_LENGTH - len(mark)] + mark


def _quoted(value: str) -> str:
    for quote in "'\"":
        if quote not in value:
            return f"{quote}{value}{quote}"
    raise RegistryError(f"{value!r} has both kinds of quotes; MLflow cannot search for it.")
