"""The search driver: trials in processes of their own, all reading one store.

A trial runs the bare training loop, without Ray Train: starting a worker group costs more than a
small trial does. Its checkpoints lie under the search's folder by trial id, so that a trial
that is restored after a kill goes on where it was.
"""

import csv
import dataclasses
import json
import logging
import statistics
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search import BasicVariantGenerator
from ray.tune.search.optuna import OptunaSearch

from outspike.cluster import ray_session
from outspike.config import StoreConfig, TrainConfig, TuneConfig, config_hash, to_json
from outspike.errors import ConfigError
from outspike.registry.tracking import RunLogger, connect, find_runs, resolve_uri, start_run
from outspike.store.store import FeatureStore
from outspike.train.loop import run as run_training
from outspike.train.plan import make_plan
from outspike.tune.space import override, parse_space
from outspike.urls import is_local, join, local_path

logger = logging.getLogger(__name__)

_SEARCH_TAG = "outspike.search"
_TRIAL_TAG = "outspike.trial"
_STEP = "step"


@dataclass(frozen=True, kw_only=True)
class TuneResult:
    """Every trial of a search, best first."""

    name: str
    metric: str
    run_id: str
    """The parent run."""
    trials: tuple[dict[str, Any], ...]
    """``values`` (dotted settings), ``metric``, ``step``, ``trial_id``, ``error``."""
    best: TrainConfig | None
    seconds: float

    def table(self, rows: int = 10) -> str:
        """The lines that end the job."""
        lines = [f"{len(self.trials)} trials in {self.seconds:.0f} s, best {self.metric} first:"]
        for trial in self.trials[:rows]:
            values = ", ".join(f"{k}={_short(v)}" for k, v in trial["values"].items())
            found = trial["metric"]
            score = "failed" if found is None else f"{found:.4f}"
            lines.append(f"  {score}  step {trial['step']:>5}  {values}")
        lines.append(f"search {self.name}, MLflow run {self.run_id}")
        return "\n".join(lines)


def search(config: TuneConfig) -> TuneResult:
    """Run or resume a search.

    Raises:
        ConfigError: nothing to resume, a search of that name exists already, or a space that does
            not fit the training config.
        StoreError, DatasetError: the training config cannot be trained as it is.
    """
    config = _pinned(config)
    space = parse_space(config.space, config.train)
    make_plan(config.train)
    folder = join(_absolute(config.train.storage), config.name)
    exists = tune.Tuner.can_restore(folder)
    if config.resume and not exists:
        raise ConfigError(f"No search {config.name!r} to resume below {config.train.storage}.")
    if exists and not config.resume:
        raise ConfigError(
            f"A search {config.name!r} exists below {config.train.storage}; add --resume to go on "
            "with it, or give another --name."
        )
    parent = _parent_run(config)
    try:
        with ray_session(config.num_cpus):
            grid = _tuner(config, space, folder, parent, restore=exists).fit()
            result = _result(config, grid, parent)
    except BaseException:
        _close_trials(config, "KILLED")
        parent.finish("FAILED")
        raise
    _close_trials(config, "KILLED")
    _log_result(parent, result)
    parent.finish("FINISHED")
    return result


def trial(values: Mapping[str, Any], *, base: TrainConfig, name: str, parent: RunLogger) -> None:
    """One trial: the bare training loop, reporting the held-out metric at every evaluation."""
    trial_id = tune.get_context().get_trial_id()
    config = override(base, values)
    metric = f"held_out/{config.selection.metric}"
    run = _trial_run(config, name, trial_id, parent)
    best: list[float] = []

    def tell(step: int, metrics: Mapping[str, float]) -> None:
        if metric in metrics:
            best.append(metrics[metric])
            tune.report({"metric": metrics[metric], "best": max(best), _STEP: step})

    try:
        plan = make_plan(config)
        run_training(
            plan, join(config.storage, name, "trials", trial_id), run_logger=run, tell=tell
        )
    except BaseException:
        run.finish("FAILED")
        raise
    run.finish("FINISHED")


def _pinned(config: TuneConfig) -> TuneConfig:
    """Every trial reads the same rows: both versions are fixed before the first one starts."""
    where = config.train.store
    store = FeatureStore.open(
        where.url, version=where.version, recordings_version=where.recordings_version
    )
    train = dataclasses.replace(
        config.train,
        store=StoreConfig(
            url=_absolute(where.url),
            version=store.version,
            recordings_version=store.recordings_version,
        ),
        storage=_absolute(config.train.storage),
        tracking_uri=resolve_uri(config.train.tracking_uri),
        num_workers=0,
    )
    return dataclasses.replace(config, train=train)


def _tuner(
    config: TuneConfig, space: dict[str, Any], folder: str, parent: RunLogger, *, restore: bool
) -> tune.Tuner:
    trainable = tune.with_resources(
        tune.with_parameters(trial, base=config.train, name=config.name, parent=parent),
        {"CPU": config.cpus_per_trial},
    )
    if restore:
        return tune.Tuner.restore(
            folder, trainable=trainable, resume_unfinished=True, resume_errored=True
        )
    scheduler = (
        ASHAScheduler(
            time_attr=_STEP,
            metric="metric",
            mode="max",
            max_t=config.train.steps,
            grace_period=min(config.grace_steps, config.train.steps),
            reduction_factor=2,
        )
        if config.early_stop
        else None
    )
    searcher = (
        OptunaSearch(metric="metric", mode="max", seed=config.seed)
        if config.sampler == "tpe"
        else BasicVariantGenerator(random_state=config.seed)
    )
    return tune.Tuner(
        trainable,
        param_space=space,
        tune_config=tune.TuneConfig(
            num_samples=config.num_trials,
            max_concurrent_trials=config.max_concurrent,
            search_alg=searcher,
            scheduler=scheduler,
        ),
        run_config=tune.RunConfig(
            name=config.name, storage_path=_absolute(config.train.storage), verbose=0
        ),
    )


def _result(config: TuneConfig, grid: tune.ResultGrid, parent: RunLogger) -> TuneResult:
    trials = []
    for found in (grid[i] for i in range(len(grid))):
        metrics = found.metrics or {}
        trials.append(
            {
                "trial_id": metrics.get("trial_id", Path(str(found.path)).name),
                "values": dict(found.config or {}),
                "metric": metrics.get("best"),
                "step": int(metrics.get(_STEP, 0)),
                "error": str(found.error).splitlines()[-1] if found.error else None,
                "seconds": float(metrics.get("time_total_s", 0.0)),
            }
        )
    trials.sort(key=lambda t: -1.0 if t["metric"] is None else t["metric"], reverse=True)
    usable = [t for t in trials if t["metric"] is not None]
    return TuneResult(
        name=config.name,
        metric=config.train.selection.metric,
        run_id=parent.run_id,
        trials=tuple(trials),
        best=override(config.train, usable[0]["values"]) if usable else None,
        seconds=sum(t["seconds"] for t in trials),
    )


# -------------------------------------------------------------------------------------- MLflow


def _parent_run(config: TuneConfig) -> RunLogger:
    """The search's own run; a resumed search continues the run it began."""
    uri = config.train.tracking_uri
    earlier = [
        run for run in find_runs(uri, {_SEARCH_TAG: config.name}) if _TRIAL_TAG not in run.data.tags
    ]
    if config.resume and earlier:
        return RunLogger(uri=resolve_uri(uri), run_id=str(earlier[0].info.run_id))
    parent = start_run(uri, config.name, tags={_SEARCH_TAG: config.name})
    parent.log_params(
        {"space": list(config.space), "num_trials": config.num_trials, "sampler": config.sampler}
    )
    return parent


def _trial_run(config: TrainConfig, name: str, trial_id: str, parent: RunLogger) -> RunLogger:
    """The trial's run, nested under the search; a restored trial continues the one it had."""
    tags = {_SEARCH_TAG: name, _TRIAL_TAG: f"{name}/{trial_id}"}
    earlier = find_runs(parent.uri, {_TRIAL_TAG: tags[_TRIAL_TAG]})
    if earlier:
        return RunLogger(uri=parent.uri, run_id=str(earlier[0].info.run_id))
    run = start_run(
        parent.uri,
        f"{name}-{trial_id}",
        tags={**tags, "outspike.config_hash": config_hash(config)},
        parent_run_id=parent.run_id,
    )
    run.log_params(to_json(config))
    return run


def _close_trials(config: TuneConfig, status: str) -> None:
    """End runs of trials that ASHA or a kill stopped before they could end their own."""
    uri = config.train.tracking_uri
    client = connect(uri)
    for run in find_runs(uri, {_SEARCH_TAG: config.name}):
        if _TRIAL_TAG in run.data.tags and run.info.status == "RUNNING":
            client.set_terminated(run.info.run_id, status)


def _log_result(parent: RunLogger, result: TuneResult) -> None:
    scores = [t["metric"] for t in result.trials if t["metric"] is not None]
    if scores:
        parent.log_metrics(
            {
                f"best/{result.metric}": max(scores),
                f"median/{result.metric}": statistics.median(scores),
            },
            step=len(result.trials),
        )
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "trials.csv"
        names = sorted({name for t in result.trials for name in t["values"]})
        with table.open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["trial_id", result.metric, "step", "seconds", "error", *names])
            for t in result.trials:
                facts = [t["trial_id"], t["metric"], t["step"], t["seconds"], t["error"]]
                rows.writerow([*facts, *(t["values"].get(name) for name in names)])
        parent.log_artifact(table)
        if result.best is not None:
            best = Path(folder) / "best.json"
            best.write_text(json.dumps(to_json(result.best), indent=1))
            parent.log_artifact(best)


def _absolute(url: str) -> str:
    return str(local_path(url).absolute()) if is_local(url) else url


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
