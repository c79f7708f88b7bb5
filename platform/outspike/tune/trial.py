"""One trial of a search, in a process of its own: the training loop under other settings."""

import dataclasses
import json
import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ray import tune

from outspike import urls
from outspike.config import TrainConfig, config_hash, to_json
from outspike.errors import (
    AlignmentError,
    BagError,
    ConfigError,
    DatasetError,
    MissingUrlError,
    RegistryError,
    TrainingError,
)
from outspike.registry.spool import SpooledRun
from outspike.registry.tracking import RunLogger, check_reachable, find_runs, start_run
from outspike.train import checkpoint as checkpoints
from outspike.train.crossval import cross_validate
from outspike.train.loop import run as run_training
from outspike.train.plan import TrainingPlan, make_plan
from outspike.train.step import training_hash
from outspike.tune.key import key_of, split
from outspike.tune.space import override
from outspike.tune.workers import train_with_workers

logger = logging.getLogger(__name__)

SEARCH_TAG = "outspike.search"
TRIAL_TAG = "outspike.trial"
STOPPED_TAG = "outspike.stopped_early"
CONTINUES_TAG = "outspike.continues"
STEP = "step"
UNSENT = "unsent-metrics.jsonl"
_OUTCOME, _ERROR = "outcome.json", "error"
#: Errors that settings and data decide, and that another attempt would therefore meet again.
_LASTING = (AlignmentError, BagError, ConfigError, DatasetError, TrainingError)
#: How long a trial that begins waits for a tracking server that is away.
_PATIENCE_S, _FIRST_WAIT_S, _LONGEST_WAIT_S = 900.0, 2.0, 60.0


def trial(values: Mapping[str, Any], *, base: TrainConfig, name: str, parent: RunLogger) -> None:
    """Train under ``values``, and report the held-out metric at every evaluation.

    A trial that is restored after a kill, or started again after its node was lost, goes on from
    its checkpoint; one that had ended before Tune wrote so down reports what it had found, or
    raises again what would come again.
    """
    key = key_of(base, values)
    url = trial_url(base, name, key)
    outcome = _read_outcome(url)
    if outcome is None:
        with _noting_failures(url):
            settings, before, until = split(values)
            plan = make_plan(override(base, settings))
            if until is not None:
                plan = dataclasses.replace(plan, last_step=until)
            run = _record(plan, name, key, parent, before)
            with _ending(run):
                if before is not None:
                    _take_over(trial_url(base, name, before), url, plan.config)
                outcome = _train(plan, url, run)
                _write_outcome(url, outcome)
    if _ERROR in outcome:
        raise TrainingError(outcome[_ERROR])
    tune.report(outcome)


@contextmanager
def _noting_failures(url: str) -> Iterator[None]:
    """Keep an error that another attempt would meet again, so that none trains up to it."""
    try:
        yield
    except _LASTING as error:
        _write_outcome(url, {_ERROR: str(error)})
        raise


@contextmanager
def _ending(run: SpooledRun) -> Iterator[None]:
    """End the trial's run, whatever ends the trial; Tune stops it by SystemExit from a report."""
    try:
        yield
    except SystemExit:
        run.close("FINISHED", {STOPPED_TAG: "true"})
        raise
    except BaseException:
        run.close("FAILED")
        raise
    run.close("FINISHED")


def trial_url(config: TrainConfig, name: str, key: str) -> str:
    """Folder of a trial's checkpoints and outcome."""
    return urls.join(config.storage, name, "trials", key)


def _take_over(source: str, url: str, config: TrainConfig) -> None:
    """Begin with the last weights and optimiser state of another trial, under other settings."""
    if checkpoints.complete_steps(url):
        return
    last = checkpoints.complete_steps(source)[-1]
    found = checkpoints.load(checkpoints.folder_of(source, last))
    checkpoints.save(
        url,
        dataclasses.replace(
            found, config_hash=training_hash(config), best_step=None, best_metric=None
        ),
    )


def unsent_url(url: str) -> str:
    """Where a trial keeps what it measured while the tracking server was away."""
    return urls.join(url, UNSENT)


def _train(plan: TrainingPlan, url: str, run: SpooledRun) -> dict[str, Any]:
    """Train to the end; the best held-out metric, and the step that had it."""
    config = plan.config
    metric = f"held_out/{config.selection.metric}"
    news = _News(metric, run, plan.last_step, _earlier_best(url))
    if config.selection.split == "cross_validation":
        found = cross_validate(config, plan=plan, tell=news.log_and_report)
        return {"metric": found.best, "best": found.best, STEP: plan.last_step}
    if plan.by_workers:
        train_with_workers(plan, url, run.run_id, news.log_and_report)
        best = _earlier_best(url)
    else:
        best = run_training(plan, url, run_logger=run, tell=news.report).metrics[metric]
    last = best if news.last is None else news.last
    return {"metric": last, "best": best, STEP: plan.last_step}


class _News:
    """Hands the metric of each evaluation to Tune, which may end the trial there.

    The last one is left to the trial's outcome, so that a trial that was trained to its end is
    never taken for one that was stopped.
    """

    def __init__(self, metric: str, run: SpooledRun, last_step: int, best: float | None) -> None:
        self._metric = metric
        self._run = run
        self._last_step = last_step
        self._best = best
        self.last: float | None = None
        """Of the newest evaluation."""

    def report(self, step: int, metrics: Mapping[str, float]) -> None:
        if self._metric not in metrics:
            return
        value = self.last = metrics[self._metric]
        if step < self._last_step:
            self._best = value if self._best is None else max(self._best, value)
            tune.report({"metric": value, "best": self._best, STEP: step})

    def log_and_report(self, step: int, metrics: Mapping[str, float]) -> None:
        self._run.log_metrics(metrics, step)
        self.report(step, metrics)


def _earlier_best(url: str) -> float | None:
    """What the trial had reached before it was interrupted, if it was."""
    steps = checkpoints.complete_steps(url)
    if not steps:
        return None
    return checkpoints.load(checkpoints.folder_of(url, steps[-1])).best_metric


def _write_outcome(url: str, outcome: dict[str, Any]) -> None:
    urls.write_bytes(urls.join(url, _OUTCOME), json.dumps(outcome).encode())


def _read_outcome(url: str) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(urls.read_bytes(urls.join(url, _OUTCOME)))
    except MissingUrlError:
        return None
    return found


def _record(
    plan: TrainingPlan, name: str, key: str, parent: RunLogger, before: str | None
) -> SpooledRun:
    """The trial's record; opening it waits for a tracking server that is away for a while."""
    until, wait_s = time.monotonic() + _PATIENCE_S, _FIRST_WAIT_S
    while True:
        try:
            check_reachable(parent.uri)
            run = _trial_run(plan, name, key, parent, before)
            return SpooledRun(run, unsent_url(trial_url(plan.config, name, key)))
        except RegistryError as error:
            if time.monotonic() > until:
                raise
            logger.warning("trial=%s waits %.0f s for its record: %s", key, wait_s, error)
            time.sleep(wait_s)
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)


def _trial_run(
    plan: TrainingPlan, name: str, key: str, parent: RunLogger, before: str | None
) -> RunLogger:
    """The trial's run, nested under the search; a restored trial continues the one it had."""
    mark = f"{name}/{key}"
    earlier = find_runs(parent.uri, {TRIAL_TAG: mark})
    if earlier:
        run = RunLogger(uri=parent.uri, run_id=str(earlier[0].info.run_id))
        run.reopen()
        return run
    config, specs = plan.config, plan.feature_sets.values()
    tags = {
        SEARCH_TAG: name,
        TRIAL_TAG: mark,
        "outspike.store": config.store.url,
        "outspike.catalog_version": str(config.store.version),
        "outspike.recordings_version": str(config.store.recordings_version),
        "outspike.feature_set": ", ".join(spec.address for spec in specs),
        "outspike.fingerprint": ", ".join(spec.fingerprint for spec in specs),
        "outspike.config_hash": config_hash(config),
        "outspike.protocol": config.protocol,
    }
    if before is not None:
        tags[CONTINUES_TAG] = f"{name}/{before}"
    run = start_run(parent.uri, f"{name}-{key}", tags=tags, parent_run_id=parent.run_id)
    run.log_params(to_json(config))
    return run
