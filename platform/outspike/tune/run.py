"""The search driver: trials in processes of their own, all reading one store at one version.

A trial runs the bare training loop, or hands it to Ray Train workers where it is large. Its
checkpoints lie under the search's folder by trial id, so that a trial that is restored after a kill
goes on where it was.
"""

import dataclasses
import json
import logging
import os
import warnings
from typing import Any

from ray import tune
from ray.tune.experiment import Trial as RayTrial
from ray.tune.schedulers import ASHAScheduler

from outspike import urls
from outspike.cluster import ray_session, ray_storage
from outspike.config import StoreConfig, TrainConfig, TuneConfig, config_hash, from_json, to_json
from outspike.errors import ConfigError, MissingUrlError, RegistryError
from outspike.registry.tracking import RunLogger, check_reachable, resolve_uri
from outspike.store.store import FeatureStore
from outspike.train.plan import make_plan
from outspike.tune.key import key_of, split
from outspike.tune.population import Population, check_population, generations
from outspike.tune.record import catch_up, end, end_stopped, parent_run, search_url
from outspike.tune.report import render_search
from outspike.tune.result import Trial, TuneResult, log_result
from outspike.tune.source import ENDED, METRIC, TrialSource
from outspike.tune.space import Space, grid_of, marginals, override, parse_space, settings_of
from outspike.tune.trial import STEP, trial
from outspike.tune.workers import check_room, local_cpus, trial_process_cpus

logger = logging.getLogger(__name__)

_SEARCH, _RESULT, _PAGE = "search.json", "result.json", "search.html"
#: Seconds between Tune's notes of its state, which is what a killed search can go on from.
_NOTE_EVERY_S = "2"
#: May differ when a search goes on: where and how fast, not what is searched.
_PLACE_FIELDS = ("num_cpus", "resume", "dry_run", "confirm_seeds")


def search(config: TuneConfig) -> TuneResult:
    """Run a search, or go on with the one of that name; a finished one is found, not repeated.

    Raises:
        ConfigError: nothing to resume, a search of that name with other settings, or a space that
            does not fit the training config.
        StoreError, DatasetError: the training config cannot be trained as it is.
        KeyboardInterrupt: it was interrupted; the same call goes on.
    """
    config, is_stored = _settled(config)
    finished = _read(config, _RESULT)
    if finished is not None:
        logger.info("search=%s is finished; give another --name to search again", config.name)
        return TuneResult.from_document(finished)
    space, num_trials = _space(config)
    make_plan(config.train)
    parent = parent_run(config)
    try:
        with ray_session(local_cpus(config)):
            check_room(config)
            if not is_stored:
                _write(config, _SEARCH, to_json(config))
            grid = _tuner(config, space, num_trials, parent).fit()
        ended = (_read(config, ENDED) or {}).get("why")
        is_short = len(grid) < num_trials and ended is None
        if is_short or grid.num_terminated + grid.num_errors < len(grid):
            raise KeyboardInterrupt  # Tune takes ctrl-C itself, and returns what it has
        result = _result(config, grid, parent, ended)
        catch_up(config, parent, result)
        page = render_search(result, marginals(space))
        log_result(parent, result, page)
        urls.write_bytes(urls.join(search_url(config), _PAGE), page.encode())
        _write(config, _RESULT, result.to_document())
    except BaseException as error:
        interrupted = isinstance(error, KeyboardInterrupt)
        end(config, parent, "KILLED" if interrupted else "FAILED")
        raise
    end(config, parent, "FINISHED")
    return result


def confirm(config: TuneConfig, best: TrainConfig) -> TuneResult:
    """Train the best configuration of a search with several seeds, as a search of its own.

    The best of many trials was also lucky; the mean over fresh seeds is what to expect of it.

    Raises:
        OutspikeError, KeyboardInterrupt: as :func:`search`.
    """
    seeds = ",".join(str(best.seed + 1 + i) for i in range(config.confirm_seeds))
    return search(
        dataclasses.replace(
            config,
            name=f"{config.name}-seeds",
            train=best,
            space=(f"seed=choice:{seeds}",),
            sampler="grid",
            early_stop=False,
            resume=False,
        )
    )


def describe(config: TuneConfig) -> list[tuple[str, object]]:
    """What :func:`search` would do, without doing it; raises as it would."""
    config, is_stored = _settled(config)
    space, num_trials = _space(config)
    trials = f"{num_trials}, {config.max_concurrent} at a time, {config.sampler}"
    if config.sampler == "pbt":
        trials += f": {config.num_trials} members, compared at {generations(config)}"
    rows: list[tuple[str, object]] = [
        ("search", f"{config.name}, {'goes on' if is_stored else 'new'}, in {search_url(config)}"),
        ("trials", trials),
        *_budgets(config),
        ("chosen by", f"{config.train.selection.metric} on {config.train.selection.split}"),
        *((d.label, text.partition("=")[2]) for d, text in zip(space, config.space, strict=True)),
    ]
    return rows + make_plan(config.train).table()


def _space(config: TuneConfig) -> tuple[Space, int]:
    """What is varied, and how many trials that makes."""
    space = parse_space(config.space, config.train)
    if config.sampler == "grid":
        return space, len(grid_of(space))
    if config.sampler == "pbt":
        check_population(config, space)
        return space, config.num_trials * len(generations(config))
    return space, config.num_trials


def _budgets(config: TuneConfig) -> list[tuple[str, object]]:
    rows: list[tuple[str, object]] = []
    if config.hours is not None:
        rows.append(("at most", f"{config.hours:g} hours; trials that run then are finished"))
    if config.patience is not None:
        rows.append(("until", f"no gain in {config.patience} trials"))
    return rows


# -------------------------------------------------------------------------------- settings


def _settled(config: TuneConfig) -> tuple[TuneConfig, bool]:
    """The config with addresses and versions that mean the same everywhere, as stored if it is."""
    train = config.train
    located = dataclasses.replace(
        config,
        train=dataclasses.replace(
            train,
            store=dataclasses.replace(train.store, url=_absolute(train.store.url)),
            storage=_absolute(train.storage),
            tracking_uri=resolve_uri(train.tracking_uri),
            num_workers=config.workers_per_trial,
        ),
    )
    stored = _stored(located)
    if stored is None:
        if config.resume:
            raise ConfigError(
                f"No search {config.name!r} to resume below {train.storage}; leave --resume out to "
                "start one."
            )
        return _pinned(located, None), False
    if not config.resume and config_hash(_pinned(located, stored)) != config_hash(stored):
        raise ConfigError(
            f"A search {config.name!r} with other settings exists below {train.storage}; give this "
            "one another --name, or add --resume to go on with the settings of that one."
        )
    place = {name: getattr(config, name) for name in _PLACE_FIELDS}
    return dataclasses.replace(stored, **place), True


def _pinned(config: TuneConfig, like: TuneConfig | None) -> TuneConfig:
    """Every trial reads the same rows: both versions are fixed, to those of an earlier start."""
    where = config.train.store
    if like is not None:
        newest = like.train.store
        version, recordings_version = newest.version, newest.recordings_version
    else:
        store = FeatureStore.open(
            where.url, version=where.version, recordings_version=where.recordings_version
        )
        version, recordings_version = store.version, store.recordings_version
    store_config = StoreConfig(
        url=where.url,
        version=version if where.version is None else where.version,
        recordings_version=recordings_version
        if where.recordings_version is None
        else where.recordings_version,
    )
    neutral = {} if like is None else {name: getattr(like, name) for name in _PLACE_FIELDS}
    train = dataclasses.replace(config.train, store=store_config)
    return dataclasses.replace(config, train=train, **neutral)


def _stored(config: TuneConfig) -> TuneConfig | None:
    """The config a search was started with, if there is one of that name."""
    document = _read(config, _SEARCH)
    if document is None:
        return None
    found: TuneConfig = from_json(TuneConfig, document)
    return found


def _read(config: TuneConfig, name: str) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(urls.read_bytes(urls.join(search_url(config), name)))
    except MissingUrlError:
        return None
    return found


def _write(config: TuneConfig, name: str, document: dict[str, Any]) -> None:
    urls.write_bytes(urls.join(search_url(config), name), json.dumps(document, indent=1).encode())


def _absolute(url: str) -> str:
    return urls.path_in(url) if urls.is_local(url) else url


# ------------------------------------------------------------------------------------- Tune


def _set_defaults() -> None:
    """Settings Tune only takes from the environment; what the user has set stays."""
    os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", _NOTE_EVERY_S)
    os.environ.setdefault("TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S", "0")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # the other one prints at any verbosity
    logging.getLogger("optuna").setLevel(logging.WARNING)
    # A restored trial reports its evaluations once more; Optuna keeps the first of each.
    warnings.filterwarnings("ignore", "The reported value is ignored", module="optuna")


def _tuner(config: TuneConfig, space: Space, num_trials: int, parent: RunLogger) -> tune.Tuner:
    _set_defaults()
    trainable = tune.with_resources(
        tune.with_parameters(trial, base=config.train, name=config.name, parent=parent),
        {"CPU": trial_process_cpus(config)},
    )
    storage = ray_storage(config.train.storage)
    path = urls.join(storage["storage_path"], config.name)
    filesystem = storage.get("storage_filesystem")
    if tune.Tuner.can_restore(path, storage_filesystem=filesystem):
        return tune.Tuner.restore(
            path,
            trainable=trainable,
            resume_unfinished=True,
            resume_errored=True,
            storage_filesystem=filesystem,
        )
    source = Population if config.sampler == "pbt" else TrialSource
    return tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            num_samples=num_trials,
            max_concurrent_trials=config.max_concurrent,
            search_alg=source(config, space, search_url(config)),
            scheduler=_scheduler(config),
            # Starting a process costs more than many a trial, and ends workers that are left.
            reuse_actors=not config.workers_per_trial,
        ),
        run_config=tune.RunConfig(
            name=config.name,
            verbose=0,
            # A trial whose node is lost goes on elsewhere, as a training's workers do.
            failure_config=tune.FailureConfig(max_failures=config.train.max_failures),
            callbacks=[_Progress(config, num_trials, parent)],
            **storage,
        ),
    )


def _scheduler(config: TuneConfig) -> ASHAScheduler | None:
    if not config.early_stop or config.sampler == "pbt":
        return None
    return ASHAScheduler(
        time_attr=STEP,
        metric=METRIC,
        mode="max",
        max_t=config.train.steps,
        grace_period=min(config.grace_steps, config.train.steps),
        reduction_factor=2,
    )


class _Progress(tune.Callback):
    """A line for every trial that ends, and the end of its run where it was stopped."""

    def __init__(self, config: TuneConfig, num_trials: int, parent: RunLogger) -> None:
        self._config = config
        self._num_trials = num_trials
        self._parent = parent

    def on_trial_complete(
        self, iteration: int, trials: list[RayTrial], trial: RayTrial, **info: Any
    ) -> None:
        """Trained to its end, or stopped because it was behind."""
        self._tell(trials, trial, "done")
        key = key_of(self._config.train, trial.config)
        try:
            check_reachable(self._parent.uri)
            end_stopped(self._config, self._parent.uri, key)
        except RegistryError as error:  # the search's end makes up for it
            logger.warning("trial=%s is not recorded as ended yet: %s", key, error)

    def on_trial_error(
        self, iteration: int, trials: list[RayTrial], trial: RayTrial, **info: Any
    ) -> None:
        """The trial raised."""
        self._tell(trials, trial, "failed")

    def _tell(self, trials: list[RayTrial], trial: RayTrial, word: str) -> None:
        found = trial.last_result or {}
        bests = [t.last_result["best"] for t in trials if "best" in (t.last_result or {})]
        logger.info(
            "trial=%s %s %d/%d step=%s best=%s best_so_far=%s",
            trial.trial_id,
            word,
            sum(t.status in ("TERMINATED", "ERROR") for t in trials),
            self._num_trials,
            found.get(STEP),
            found.get("best"),
            max(bests, default=None),
        )


def _result(
    config: TuneConfig, grid: tune.ResultGrid, parent: RunLogger, ended: str | None
) -> TuneResult:
    found = (_trial(config, number, grid[number]) for number in range(len(grid)))
    trials = sorted(found, key=_rank)
    best = trials[0] if trials and trials[0].metric is not None else None
    return TuneResult(
        name=config.name,
        metric=config.train.selection.metric,
        run_id=parent.run_id,
        trials=tuple(trials),
        ended=ended,
        best=None if best is None else override(config.train, best.values),
    )


def _trial(config: TuneConfig, number: int, found: tune.Result) -> Trial:
    metrics = found.metrics or {}
    settings, before, _ = split(found.config or {})
    lines = str(found.error).strip().splitlines() if found.error else []
    return Trial(
        trial_id=key_of(config.train, found.config or {}),
        continues=before,
        number=number,
        values=settings_of(settings),
        metric=metrics.get("best"),
        step=int(metrics.get(STEP, 0)),
        seconds=float(metrics.get("time_total_s", 0.0)),
        error=lines[-1] if lines else None,
    )


def _rank(found: Trial) -> tuple[bool, float]:
    return (found.metric is None, -(found.metric or 0.0))
