"""A training job from its config to a registered model.

Plan, choose the number of steps where cross-validation does, train, judge the result once under its
protocol, and keep it as a bundle. The same command given again goes on where it stopped; a finished
run is found and reported, not trained again.
"""

import dataclasses
import hashlib
import json
import logging
import tempfile
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import outspike
from outspike import urls
from outspike.app import table
from outspike.config import TrainConfig, from_json, to_json
from outspike.datasets.catalog import known_defects
from outspike.errors import ConfigError, DatasetError, MissingUrlError
from outspike.evaluate.evaluate import evaluate
from outspike.evaluate.protocols import get_protocol
from outspike.evaluate.results import Results
from outspike.evaluate.stored import score_bundle
from outspike.registry.models import register
from outspike.registry.spool import SpooledRun
from outspike.registry.tracking import RunLogger, find_runs, git_revision, resolve_uri, start_run
from outspike.scoring.bundle import Bundle
from outspike.store.store import FeatureStore
from outspike.train import checkpoint as checkpoints
from outspike.train.crossval import cross_validate
from outspike.train.figures import keep_figures
from outspike.train.logging import Progress
from outspike.train.loop import run
from outspike.train.optim import load_weights
from outspike.train.plan import TrainingPlan, make_plan
from outspike.train.step import PLACE_FIELDS, Learner, World, require_same_config, training_hash

logger = logging.getLogger(__name__)

_RUN, _RESULT, _BUNDLE = "run.json", "result.json", "bundle"
_UNSENT = "unsent-metrics.jsonl"
_RUN_TAG = "outspike.run"


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """What a training left behind."""

    run: str
    """Name of the run: its model's name and the hash of what decides its weights."""
    run_id: str
    """Of the MLflow run."""
    url: str
    step: int
    """Steps after which the weights that were kept had been reached."""
    checkpoint: str
    bundle: str | None
    """Folder of the bundle; None where the config's encoders do not make the features."""
    version: str | None
    """``models:/NAME/VERSION``; None where nothing was registered."""
    metrics: dict[str, float] = field(default_factory=dict)
    """``held_out/...`` of selection, ``test/...`` of the protocol."""
    seconds: float = 0.0
    is_new: bool = True
    """False where the run was found finished."""

    def table(self) -> str:
        """The short table that ends the job."""
        rows: list[tuple[str, object]] = [
            ("run", self.run if self.is_new else f"{self.run} (was finished already)"),
            ("checkpoint", self.checkpoint),
            ("bundle", self.bundle or "none: the config's encoders do not make the features"),
            ("model", self.version or "not registered"),
            *((name, f"{value:.4f}") for name, value in self.metrics.items()),
            ("seconds", f"{self.seconds:.1f}"),
        ]
        return table(rows)


def train(config: TrainConfig, *, register_model: bool = True) -> TrainResult:
    """Train, judge and keep a detector.

    Args:
        config: what to train.
        register_model: make the bundle a new version of the registered model ``config.name``.

    Raises:
        OutspikeError: anything wrong with the config or its data, before training starts; or what
            a worker raised on purpose.
    """
    began = time.monotonic()
    config = _located(config)
    if config.resume is not None:
        config = _stored(config, config.resume)
    plan = make_plan(config)
    name = config.resume or run_name(plan.config)
    run_url = urls.join(config.storage, name)
    finished = _read(run_url, _RESULT)
    if finished is not None:
        logger.info("run=%s is finished; change a setting or --seed to train another one", name)
        return TrainResult(**{**finished, "is_new": False})
    tracked = SpooledRun(_tracked(plan.config, name), urls.join(run_url, _UNSENT))
    try:
        plan = _with_last_step(plan, run_url, tracked)
        _train(plan, run_url, tracked)
        tracked.flush()
        keep_figures(run_url, tracked.run)
        result = _conclude(plan, run_url, name, tracked.run, register_model)
    except KeyboardInterrupt:
        tracked.finish("KILLED")
        raise
    except BaseException:
        tracked.finish("FAILED")
        raise
    result = dataclasses.replace(result, seconds=time.monotonic() - began)
    _write(run_url, _RESULT, dataclasses.asdict(result))
    tracked.finish("FINISHED")
    return result


def describe(config: TrainConfig) -> str:
    """What ``--dry-run`` prints: the resolved plan, from the catalog alone.

    Raises:
        OutspikeError: what :func:`train` would raise before it starts.
    """
    config = _located(config)
    if config.resume is not None:
        config = _stored(config, config.resume)
    plan = make_plan(config)
    name = config.resume or run_name(plan.config)
    done = checkpoints.complete_steps(urls.join(config.storage, name))
    return table([("run", name), *plan.table(), ("checkpoints at steps", done or "none")])


def run_name(config: TrainConfig) -> str:
    """Name of a run: its model, and a hash of the settings and code that decide the weights."""
    told = training_hash(config) + _code_digest()
    return f"{config.name}-{hashlib.sha256(told.encode()).hexdigest()[:12]}"


def _train(plan: TrainingPlan, run_url: str, tracked: SpooledRun) -> None:
    """To the last step, by Ray's workers or in this process."""
    if plan.last_step in checkpoints.complete_steps(run_url):
        return
    with closing(Progress(plan.last_step)) as progress:
        if not plan.by_workers:
            run(plan, run_url, world=World(), run_logger=tracked, tell=progress.show)
            return
        from outspike.train.ray_workers import train_with_ray

        def hear(step: int, metrics: Mapping[str, float]) -> None:
            progress.show(step, metrics)
            tracked.log_metrics(metrics, step)

        train_with_ray(plan, run_url, hear, run_id=tracked.run_id)


def _with_last_step(plan: TrainingPlan, run_url: str, tracked: SpooledRun) -> TrainingPlan:
    """The plan with the steps to take: those cross-validation finds best, or all of them.

    Written to the run, so that going on does not choose again.
    """
    stored = _read(run_url, _RUN)
    if stored is None:
        last = plan.last_step
        validated: dict[str, float] = {}
        if plan.config.selection.split == "cross_validation":
            with closing(Progress(last)) as progress:
                found = cross_validate(plan.config, plan=plan, tell=progress.show)
            last = found.best_step
            validated = {str(step): value for step, value in found.metrics.items()}
            for step, value in found.metrics.items():
                tracked.log_metrics({f"cross_validation/{found.metric}": value}, step)
            logger.info("cross_validation best_step=%d %s=%.4f", last, found.metric, found.best)
        stored = {
            "config": to_json(plan.config),
            "run_id": tracked.run_id,
            "last_step": last,
            "cross_validation": validated,
        }
        _write(run_url, _RUN, stored)
    return dataclasses.replace(plan, last_step=int(stored["last_step"]))


# ------------------------------------------------------------------------------ what is kept


def _conclude(
    plan: TrainingPlan, run_url: str, name: str, tracked: RunLogger, register_model: bool
) -> TrainResult:
    """Bundle the chosen weights, judge them under the protocol, and register them."""
    newest = checkpoints.load(checkpoints.folder_of(run_url, plan.last_step))
    require_same_config(newest, plan.config)
    step = newest.step if newest.best_step is None else newest.best_step
    chosen = (
        newest if step == newest.step else checkpoints.load(checkpoints.folder_of(run_url, step))
    )
    metrics = {}
    if newest.best_metric is not None:
        metrics[f"held_out/{plan.config.selection.metric}"] = newest.best_metric
    result = TrainResult(
        run=name,
        run_id=tracked.run_id,
        url=run_url,
        step=step,
        checkpoint=checkpoints.folder_of(run_url, step),
        bundle=None,
        version=None,
        metrics=metrics,
    )
    if not plan.encoders_match:
        logger.warning(
            "no bundle: detector %r reads %s, the config's encoders make %s",
            plan.config.detector.kind,
            ", ".join(plan.feature_sets),
            ", ".join(encoder.kind for encoder in plan.config.encoders) or "nothing",
        )
        return result
    bundle, judged = _judged(plan, chosen, name, step, tracked)
    metrics |= judged
    if judged:
        tracked.log_metrics(judged, step)
    version = _keep(plan, bundle, run_url, tracked, register_model)
    return dataclasses.replace(
        result, bundle=urls.join(run_url, _BUNDLE), version=version, metrics=metrics
    )


def _judged(
    plan: TrainingPlan,
    chosen: checkpoints.Checkpoint,
    name: str,
    step: int,
    tracked: RunLogger,
) -> tuple[Bundle, dict[str, float]]:
    """A bundle of the chosen weights with its results on the protocol's test recordings."""
    learner = Learner(plan.config, world=World())
    load_weights(learner.objective, chosen.model)
    specs = plan.feature_sets
    bundle = Bundle.of(
        learner.detector,
        tuple(encoder for encoder in plan.config.encoders if encoder.kind in specs),
        tuple(specs.values()),
        protocol=plan.config.protocol,
        provenance={
            "store": plan.config.store.url,
            "catalog_version": plan.config.store.version,
            "recordings_version": plan.config.store.recordings_version,
            "feature_sets": [spec.address for spec in specs.values()],
            "fingerprints": [spec.fingerprint for spec in specs.values()],
            "config": to_json(plan.config),
            "config_hash": training_hash(plan.config),
            "run": name,
            "run_id": tracked.run_id,
            "step": step,
            "trained_on": _trained_on(plan),
            "git": git_revision(),
            "outspike_version": outspike.__version__,
        },
    )
    try:
        scores = score_bundle(bundle)
    except DatasetError as error:
        logger.warning("not judged: %s", error)
        return bundle, {}
    results = evaluate(scores, get_protocol(plan.config.protocol), seed=plan.config.seed)
    judged = {**bundle.provenance, "results": results.to_json()}
    return dataclasses.replace(bundle, provenance=judged), _values(results)


def _trained_on(plan: TrainingPlan) -> dict[str, Any]:
    """What the model card tells of the data."""
    config = plan.config
    generated = sum(recording.synthetic for recording in plan.training)
    normal = sum(recording.label == 0 and not recording.synthetic for recording in plan.training)
    return {
        "dataset": config.data.dataset,
        "split": config.data.split,
        "normal": normal,
        "anomalous": len(plan.training) - normal - generated,
        "generated": generated,
        "held_out": len(plan.held_out),
        "learns_frames": plan.learns_frames,
        "steps": plan.last_step,
        "bags_per_batch": config.bags_per_batch,
        "synthetic_per_batch": config.synthetic_per_batch,
        "ssls": f"{config.ssls.mode}, {config.ssls.policy}, weight {config.ssls.scale:g}",
        "known_defects": known_defects(config.data.dataset, config.data.split),
    }


def _values(results: Results) -> dict[str, float]:
    return {
        f"test/{name}": estimate.value
        for name, estimate in results.metrics.items()
        if estimate.value is not None
    }


def _keep(
    plan: TrainingPlan, bundle: Bundle, run_url: str, tracked: RunLogger, register_model: bool
) -> str | None:
    """Write the bundle beside the checkpoints and, if asked, register it and pin its rows."""
    with tempfile.TemporaryDirectory(prefix="outspike-bundle-") as folder:
        local = Path(folder) / _BUNDLE
        bundle.save(local)
        for path in sorted(local.iterdir()):
            urls.write_bytes(urls.join(run_url, _BUNDLE, path.name), path.read_bytes())
        if not register_model:
            return None
        where = plan.config.store
        FeatureStore.open(
            where.url, version=where.version, recordings_version=where.recordings_version
        ).pin(tracked.run_id)
        version = register(tracked, plan.config.name, local, _tags(plan.config, bundle))
    return version.address


# ------------------------------------------------------------------------------- the record


def _tracked(config: TrainConfig, name: str) -> RunLogger:
    """The run's record in MLflow: the one it has from before, or a new one."""
    uri = resolve_uri(config.tracking_uri)
    earlier = find_runs(uri, {_RUN_TAG: name})
    if earlier:
        return RunLogger(uri=uri, run_id=str(earlier[0].info.run_id))
    tracked = start_run(uri, name, tags={_RUN_TAG: name, **_tags(config)})
    tracked.log_params(to_json(config))
    return tracked


def _tags(config: TrainConfig, bundle: Bundle | None = None) -> dict[str, str]:
    tags = {
        "outspike.store": config.store.url,
        "outspike.catalog_version": str(config.store.version),
        "outspike.recordings_version": str(config.store.recordings_version),
        "outspike.config_hash": training_hash(config),
        "outspike.protocol": config.protocol,
        "outspike.git": git_revision(),
    }
    if bundle is not None:
        tags["outspike.feature_set"] = ", ".join(s.address for s in bundle.feature_sets)
        tags["outspike.fingerprint"] = ", ".join(s.fingerprint for s in bundle.feature_sets)
    return tags


def _located(config: TrainConfig) -> TrainConfig:
    """Addresses that mean the same in every process, whatever folder it works in."""
    return dataclasses.replace(
        config,
        store=dataclasses.replace(config.store, url=_absolute(config.store.url)),
        storage=_absolute(config.storage),
        tracking_uri=resolve_uri(config.tracking_uri),
    )


def _absolute(url: str) -> str:
    return urls.path_in(url) if urls.is_local(url) else url


def _stored(config: TrainConfig, name: str) -> TrainConfig:
    """The config a run was started with; only places and numbers of workers are taken anew."""
    found = _read(urls.join(config.storage, name), _RUN)
    if found is None:
        raise ConfigError(
            f"No run {name!r} to resume below {config.storage}; leave --resume out to start one."
        )
    stored: TrainConfig = from_json(TrainConfig, found["config"])
    place = {name: getattr(config, name) for name in PLACE_FIELDS if name != "name"}
    return dataclasses.replace(stored, **place)


def _read(run_url: str, name: str) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(urls.read_bytes(urls.join(run_url, name)))
    except MissingUrlError:
        return None
    return found


def _write(run_url: str, name: str, document: Mapping[str, Any]) -> None:
    urls.write_bytes(urls.join(run_url, name), json.dumps(document, indent=1).encode())


def _code_digest() -> str:
    """Of the modules that decide what training computes: a changed one makes another run."""
    package = Path(outspike.__file__).parent
    digest = hashlib.sha256(outspike.__version__.encode())
    for room in ("detectors", "train"):
        for path in sorted((package / room).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()
