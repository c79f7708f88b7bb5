"""What MLflow knows of a search: a run for it, one nested run a trial, and none left RUNNING."""

from collections.abc import Sequence
from typing import Any

from outspike import urls
from outspike.config import TuneConfig, config_hash, to_json
from outspike.errors import MissingUrlError
from outspike.registry.spool import catch_up as send_unsent
from outspike.registry.tracking import (
    RunLogger,
    Status,
    check_reachable,
    find_runs,
    git_revision,
    start_run,
)
from outspike.tune.result import TuneResult
from outspike.tune.trial import SEARCH_TAG, STOPPED_TAG, TRIAL_TAG, UNSENT, trial_url, unsent_url


def search_url(config: TuneConfig) -> str:
    """Folder of a search."""
    return urls.join(config.train.storage, config.name)


def parent_run(config: TuneConfig) -> RunLogger:
    """The search's own run; a search that goes on continues the one it began."""
    uri = config.train.tracking_uri
    earlier = _runs(config, uri, of_trials=False)
    if earlier:
        _end_runs(config, uri, "KILLED")  # a driver that was killed could not
        run = RunLogger(uri=uri, run_id=str(earlier[0].info.run_id))
        run.reopen()
        return run
    where = config.train.store
    tags = {
        SEARCH_TAG: config.name,
        "outspike.storage": search_url(config),
        "outspike.store": where.url,
        "outspike.catalog_version": str(where.version),
        "outspike.recordings_version": str(where.recordings_version),
        "outspike.config_hash": config_hash(config),
        "outspike.git": git_revision(),
    }
    parent = start_run(uri, config.name, tags=tags)
    parent.log_params(to_json(config))
    return parent


def end(config: TuneConfig, parent: RunLogger, status: Status) -> None:
    """End the search's run, and those of trials that did not."""
    _end_runs(config, parent.uri, "KILLED")
    parent.finish(status)


def catch_up(config: TuneConfig, parent: RunLogger, result: TuneResult) -> None:
    """Record what could not be while the tracking server was away: metrics, and ends of runs.

    Raises:
        RegistryError: it still is; the same command goes on here.
    """
    check_reachable(parent.uri)
    try:
        waiting = set(urls.list_files(urls.join(search_url(config), "trials"), (UNSENT,)))
    except MissingUrlError:  # no trial came as far as a file
        waiting = set()
    ends = {found.trial_id: found for found in result.trials}
    for run in _runs(config, parent.uri, of_trials=True):
        key = run.data.tags[TRIAL_TAG].rpartition("/")[2]
        record = RunLogger(uri=parent.uri, run_id=str(run.info.run_id))
        unsent = unsent_url(trial_url(config.train, config.name, key))
        if unsent in waiting:
            send_unsent(record, unsent)
        if run.info.status == "RUNNING" and key in ends:
            record.finish("FAILED" if ends[key].error else "FINISHED")


def _end_runs(config: TuneConfig, uri: str, status: Status) -> None:
    """End runs of trials that could not end their own."""
    for run in _running(config, uri):
        run.finish(status)


def end_stopped(config: TuneConfig, uri: str, key: str) -> None:
    """End the run of a trial that Tune stopped, and took away before it had noted so itself."""
    for run in _running(config, uri, key=key):
        run.set_tags({STOPPED_TAG: "true"})
        run.finish("FINISHED")


def _running(config: TuneConfig, uri: str, *, key: str | None = None) -> list[RunLogger]:
    return [
        RunLogger(uri=uri, run_id=str(run.info.run_id))
        for run in _runs(config, uri, of_trials=True, key=key)
        if run.info.status == "RUNNING"
    ]


def _runs(
    config: TuneConfig, uri: str, *, of_trials: bool, key: str | None = None
) -> Sequence[Any]:
    tags = {SEARCH_TAG: config.name}
    if key is not None:
        tags[TRIAL_TAG] = f"{config.name}/{key}"
    return [run for run in find_runs(uri, tags) if (TRIAL_TAG in run.data.tags) == of_trials]
