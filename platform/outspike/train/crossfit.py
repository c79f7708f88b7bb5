"""Cross-fitting: every recording is scored by a model that was trained on the other folds.

A small data set has few test recordings, and intervals over few recordings show nothing. Dealing
all labelled recordings into folds lets each of them be tested once, by a model that saw neither it
nor anything cut from the same source. The motion floor goes through the very same folds.

What it judges is a recipe and not one model, so nothing is registered. Folds are trained one after
the other, in this process.
"""

import dataclasses
import json
import logging
import shlex
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import outspike
from outspike import urls
from outspike.app import table
from outspike.config import CrossfitConfig, MotionFloorConfig, TrainConfig, to_json
from outspike.errors import ConfigError
from outspike.evaluate.evaluate import evaluate
from outspike.evaluate.protocols import Protocol, get_protocol
from outspike.evaluate.report import write_report
from outspike.evaluate.results import Estimate, Results
from outspike.evaluate.thumbnails import FrameReader
from outspike.evaluate.words import METRIC_TITLES, figure, signed
from outspike.recording import Recording
from outspike.registry.evaluation import Evaluation
from outspike.registry.tracking import git_revision, run
from outspike.scoring.scores import VideoScores
from outspike.train.crossval import Fold
from outspike.train.data import BagCache
from outspike.train.folds import Split, folds
from outspike.train.logging import Progress, RunLogger
from outspike.train.plan import TrainingPlan, make_plan
from outspike.train.step import training_hash

logger = logging.getLogger(__name__)

_SPLITS = ("train", "test")
Splits = list[Split[Recording]]
FoldScores = list[list[VideoScores]]
"""Scores of what each fold held out."""


@dataclass(frozen=True, kw_only=True)
class FoldResult:
    """One fold: what it held out, and the protocol's headline metric there."""

    held_out: tuple[str, ...]
    """Keys of the recordings."""
    num_trained: int
    """Recordings its model was trained on."""
    primary: Estimate
    """Without an interval; without a value, and with the reason, where the labels define none."""
    floor: Estimate | None


@dataclass(frozen=True, kw_only=True)
class Crossfit:
    """What a cross-fitting left behind: pooled figures, and those of each fold."""

    evaluation: Evaluation
    folds: tuple[FoldResult, ...]
    folds_url: str

    def table(self) -> str:
        """The short table that ends the job."""
        results = self.evaluation.results
        name = results.protocol["primary"]
        rows = self.evaluation.rows()
        if results.floor is not None:
            change = results.floor.differences[name]
            value = figure(name, results.floor.metrics[name].value)
            text = f"{value}, difference {signed(name, change.value)}"
            if change.low is not None:
                text += f"  [{signed(name, change.low)} to {signed(name, change.high)}]"
            rows.append((f"{results.floor.name}, {METRIC_TITLES[name]}", text))
        for number, fold in enumerate(self.folds):
            text = figure(name, fold.primary.value)
            if fold.primary.value is None:
                text += f"  ({fold.primary.reason})"
            elif fold.floor is not None:
                text += f"  the floor {figure(name, fold.floor.value)}"
            title = f"fold {number}, {METRIC_TITLES[name]}"
            rows.append((title, f"{text}, {len(fold.held_out)} recordings"))
        return table([*rows, ("folds", self.folds_url)])


def crossfit(config: CrossfitConfig) -> Crossfit:
    """Train once a fold, score what each holds out, and judge all scores together.

    Raises:
        ConfigError: the protocol does not cross-fit, or is of another data set.
        DatasetError: too few recordings for the folds, or a fold's rest cannot fill a batch.
        StoreError: the store, a version or a feature set is not there.
    """
    protocol = _protocol(config)
    plan, splits = _plan(config.train, config, protocol)
    title = _title(config)
    with run(config.train.tracking_uri, title, tags=_tags(plan, protocol)) as tracked:
        tracked.log_params(to_json(config))
        scores = _train_folds(plan, splits)
        floor = None
        if config.against == "motion_floor":
            floor = _floor(plan, splits, protocol)
        done = _judged(config, plan, splits, scores, floor)
        _log(tracked, done)
    return done


def describe(config: CrossfitConfig) -> str:
    """What ``--dry-run`` prints: the folds, from the catalog alone.

    Raises:
        OutspikeError: what :func:`crossfit` would raise before it starts.
    """
    protocol = _protocol(config)
    plan, splits = _plan(config.train, config, protocol)
    dealt = sum(len(held_out) for _, held_out in splits)
    rows = [row for row in plan.table() if row[0] not in ("held out", "workers")]
    rows += [
        ("protocol", f"{protocol.label}: {dealt} recordings, each scored once"),
        *(
            (f"fold {number}", f"{len(kept)} to train on, {len(held_out)} to score")
            for number, (kept, held_out) in enumerate(splits)
        ),
        ("would write", urls.join(config.out, "report.html")),
    ]
    return table(rows)


# ----------------------------------------------------------------------------------- training


def _protocol(config: CrossfitConfig) -> Protocol:
    protocol = get_protocol(config.protocol)
    if protocol.cross_fit == "none":
        raise ConfigError(
            f"protocol={protocol.name!r} scores the test split by one model; train it with "
            "jobs/train.py, or name a protocol that cross-fits, such as 'surv-fight-cross'."
        )
    if protocol.dataset not in ("*", config.train.data.dataset):
        raise ConfigError(
            f"protocol={protocol.name!r} is of data set {protocol.dataset!r}, the recipe trains on "
            f"{config.train.data.dataset!r}."
        )
    return protocol


def _plan(
    train: TrainConfig, config: CrossfitConfig, protocol: Protocol
) -> tuple[TrainingPlan, Splits]:
    """Both splits of the data set as one plan, and its folds; the same whatever is trained."""
    plan = make_plan(train, splits=_SPLITS)
    dealt = [r for r in plan.training if protocol.cross_fit == "all" or r.split == "test"]
    always = [r for r in plan.training if protocol.cross_fit == "test" and r.split == "train"]
    return plan, folds(dealt, config.num_folds, seed=config.seed, always=always)


def _train_folds(plan: TrainingPlan, splits: Splits) -> FoldScores:
    """Scores of what each fold holds out, after the plan's last step."""
    cache = BagCache(plan)
    scores = []
    with closing(Progress(len(splits) * plan.last_step)) as progress:
        for number, (kept, held_out) in enumerate(splits):
            before = number * plan.last_step

            def tell(step: int, losses: Mapping[str, float], before: int = before) -> None:
                progress.show(before + step, losses)

            fold = Fold(plan, kept, held_out, cache)
            scores.append(fold.scores_at(plan.last_step, tell=tell))
    return scores


def _floor(plan: TrainingPlan, splits: Splits, protocol: Protocol) -> FoldScores:
    """The floor on the same folds and versions, in the form that the protocol calls for."""
    by_video = protocol.primary.startswith("video")
    config = dataclasses.replace(
        plan.config,
        detector=MotionFloorConfig(form="logistic" if by_video else "normal_deviation"),
        encoders=(),
        synthetic_per_batch=0,
    )
    real = [([r for r in kept if not r.synthetic], held_out) for kept, held_out in splits]
    return _train_folds(make_plan(config, splits=_SPLITS), real)


# ------------------------------------------------------------------------------------ judging


def _judged(
    config: CrossfitConfig,
    plan: TrainingPlan,
    splits: Splits,
    scores: FoldScores,
    floor: FoldScores | None,
) -> Crossfit:
    """Figures of all scores together and of each fold, written down."""
    protocol = get_protocol(config.protocol)
    videos = [video for fold in scores for video in fold]
    rival = None if floor is None else [video for fold in floor for video in fold]
    results = evaluate(
        videos, protocol, floor=rival, seed=config.seed, num_resamples=config.num_resamples
    )
    found = tuple(
        FoldResult(
            held_out=tuple(recording.key for recording in held_out),
            num_trained=len(kept),
            primary=_primary(scores[number], protocol),
            floor=None if floor is None else _primary(floor[number], protocol),
        )
        for number, (kept, held_out) in enumerate(splits)
    )
    title = _title(config)
    recordings = {r.video_id: r for _, held_out in splits for r in held_out}
    evaluation = Evaluation(
        model=title,
        results=results,
        results_url=_write(config.out, "results.json", results.to_json()),
        report_url=write_report(
            results,
            videos,
            urls.join(config.out, "report.html"),
            provenance=_provenance(plan, title),
            floor=rival,
            thumbnails=FrameReader(recordings) if config.key_frames else None,
            max_large=config.max_large,
            title=title,
        ),
    )
    documents = [dataclasses.asdict(fold) for fold in found]
    return Crossfit(
        evaluation=evaluation,
        folds=found,
        folds_url=_write(config.out, "folds.json", documents),
    )


def _primary(videos: Sequence[VideoScores], protocol: Protocol) -> Estimate:
    """The headline metric of one fold alone."""
    alone = dataclasses.replace(protocol, metrics=(protocol.primary,))
    return evaluate(videos, alone, num_resamples=0).primary


def _write(out: str, name: str, document: Any) -> str:
    url = urls.join(out, name)
    urls.write_bytes(url, (json.dumps(document, indent=1) + "\n").encode())
    return url


def _log(tracked: RunLogger, done: Crossfit) -> None:
    """Pooled figures and differences, and the headline metric of each fold as a step."""
    results: Results = done.evaluation.results
    name = results.protocol["primary"]
    pooled: dict[str, float] = {}
    for metric, estimate in results.metrics.items():
        pooled |= _numbers(f"crossfit/{metric}", estimate.value, estimate.low, estimate.high)
    if results.floor is not None:
        for metric, change in results.floor.differences.items():
            pooled |= _numbers(f"difference/{metric}", change.value, change.low, change.high)
    tracked.log_metrics(pooled, 0)
    for number, fold in enumerate(done.folds):
        tracked.log_metrics(_numbers(f"fold/{name}", fold.primary.value, None, None), number)
    tracked.set_tags({"outspike.results": done.evaluation.results_url})


def _numbers(
    name: str, value: float | None, low: float | None, high: float | None
) -> dict[str, float]:
    named = {name: value, f"{name}_low": low, f"{name}_high": high}
    return {key: number for key, number in named.items() if number is not None}


def _title(config: CrossfitConfig) -> str:
    return f"{config.train.name}, seed {config.train.seed}, in {config.num_folds} folds"


def _tags(plan: TrainingPlan, protocol: Protocol) -> dict[str, str]:
    where = plan.config.store
    return {
        "outspike.store": where.url,
        "outspike.catalog_version": str(where.version),
        "outspike.recordings_version": str(where.recordings_version),
        "outspike.feature_set": ", ".join(s.address for s in plan.feature_sets.values()),
        "outspike.fingerprint": ", ".join(s.fingerprint for s in plan.feature_sets.values()),
        "outspike.config_hash": training_hash(plan.config),
        "outspike.protocol": protocol.name,
        "outspike.git": git_revision(),
    }


def _provenance(plan: TrainingPlan, title: str) -> dict[str, Any]:
    where = plan.config.store
    return {
        "model": title,
        "store": where.url,
        "catalog_version": where.version,
        "recordings_version": where.recordings_version,
        "feature_sets": [spec.address for spec in plan.feature_sets.values()],
        "fingerprints": [spec.fingerprint for spec in plan.feature_sets.values()],
        "command": shlex.join(sys.argv),
        "config_hash": training_hash(plan.config),
        "git": git_revision(),
        "outspike_version": outspike.__version__,
    }
