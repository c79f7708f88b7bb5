"""A run whose metrics outlive a tracking server that is away.

Training goes on while nobody answers: what cannot be sent is kept in a file beside the checkpoints
and sent when the server is back, by this process or by the next one that continues the run. MLflow
keeps one of several equal points, so sending a batch twice changes nothing.
"""

import json
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow.entities import Metric
from mlflow.exceptions import MlflowException

from outspike import urls
from outspike.errors import MissingUrlError, RegistryError
from outspike.registry.tracking import RunLogger, Status, check_reachable

logger = logging.getLogger(__name__)

_METRICS_PER_CALL = 1000
_FIRST_WAIT_S, _LONGEST_WAIT_S = 2.0, 120.0


@dataclass
class SpooledRun:
    """A :class:`~outspike.registry.tracking.RunLogger` that never fails to take a metric."""

    run: RunLogger
    url: str
    """File for what was not sent yet; read at the start, gone when all is sent."""

    def __post_init__(self) -> None:
        self._unsent: list[Metric] = _read(self.url)
        self._is_stored = bool(self._unsent)
        self._wait_s = _FIRST_WAIT_S
        self._next_try = 0.0

    @property
    def run_id(self) -> str:
        """Name of the run in the place it is recorded."""
        return self.run.run_id

    @property
    def num_unsent(self) -> int:
        """Points that wait for the server."""
        return len(self._unsent)

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Numbers of one step, with the time they were measured at; sent now or later."""
        now = time.time_ns() // 1_000_000
        self._unsent += [Metric(name, float(value), now, step) for name, value in metrics.items()]
        if time.monotonic() < self._next_try:
            self._store()
            return
        try:
            self._send()
        except RegistryError as error:
            self._store()
            self._next_try = time.monotonic() + self._wait_s
            logger.warning(
                "metrics kept=%d in %s, trying again in %.0f s: %s",
                len(self._unsent),
                self.url,
                self._wait_s,
                error,
            )
            self._wait_s = min(2 * self._wait_s, _LONGEST_WAIT_S)

    def flush(self) -> None:
        """Send all that waits.

        Raises:
            RegistryError: the server is still away; nothing is lost, the file stays.
        """
        try:
            self._send()
        except RegistryError as error:
            self._store()
            raise RegistryError(
                f"{len(self._unsent)} metrics wait in {self.url}. {error} The same command sends "
                "them and goes on from the last checkpoint."
            ) from error

    def log_params(self, params: Mapping[str, Any]) -> None:
        """As the run does."""
        self.run.log_params(params)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """As the run does."""
        self.run.set_tags(tags)

    def log_artifact(self, path: str | Path, folder: str | None = None) -> None:
        """As the run does."""
        self.run.log_artifact(path, folder)

    def finish(self, status: Status = "FINISHED") -> None:
        """As the run does; a server that is away is a warning, the run's state is on disk."""
        try:
            check_reachable(self.run.uri)
            self.run.finish(status)
        except (MlflowException, RegistryError) as error:
            logger.warning("run=%s could not be marked %s: %s", self.run_id, status, error)

    def close(self, status: Status, tags: Mapping[str, str] | None = None) -> None:
        """Send what waits, tag the run and end it; a server that is away is a warning.

        What was not sent stays in the file, for :func:`catch_up`.
        """
        try:
            self.flush()
            if tags:
                self.run.set_tags(tags)
        except (MlflowException, RegistryError) as error:
            logger.warning("run=%s is not recorded whole yet: %s", self.run_id, error)
        self.finish(status)

    def _send(self) -> None:
        check_reachable(self.run.uri)  # MLflow's own retries would hold training up for minutes
        while self._unsent:
            try:
                self.run.log_points(self._unsent[:_METRICS_PER_CALL])
            except MlflowException as error:
                raise RegistryError(f"MLflow at {self.run.uri} refused metrics: {error}") from error
            del self._unsent[:_METRICS_PER_CALL]
        self._wait_s, self._next_try = _FIRST_WAIT_S, 0.0
        if self._is_stored:
            urls.remove(self.url)
            self._is_stored = False
            logger.info("all metrics that had waited are sent")

    def _store(self) -> None:
        lines = [json.dumps([m.key, m.value, m.timestamp, m.step]) for m in self._unsent]
        urls.write_bytes(self.url, ("\n".join(lines) + "\n").encode())
        self._is_stored = True


def catch_up(run: RunLogger, url: str) -> None:
    """Send what a process that has ended could not.

    Raises:
        RegistryError: the server is still away.
    """
    SpooledRun(run, url).flush()


def _read(url: str) -> list[Metric]:
    try:
        lines = urls.read_bytes(url).decode().splitlines()
    except MissingUrlError:
        return []
    return [Metric(*json.loads(line)) for line in lines]
