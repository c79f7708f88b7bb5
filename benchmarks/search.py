"""Many small trials: trials a minute of a search against the bare training loop.

    python benchmarks/search.py [--trials 200] [--steps 100] [--concurrent 2] [--bare 12]

The recipe is small: 24 bags of up to 24 snippets in one store, a narrow MSF, a held-out evaluation
every quarter of its steps. The bare loop trains the same drawn configurations in this process, one
after the other, and writes the same checkpoints; it knows neither Ray nor MLflow. It is measured
before and after the search, and the search must find its trials' metrics again, digit for digit.
"""

import argparse
import dataclasses
import statistics
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch

from outspike.config import (
    DataConfig,
    MsfConfig,
    OptimConfig,
    SelectionConfig,
    StoreConfig,
    TrainConfig,
    TuneConfig,
    WindowConfig,
)
from outspike.recording import Recording
from outspike.registry.tracking import find_runs
from outspike.store.fingerprint import FeatureSetSpec
from outspike.store.store import FeatureStore
from outspike.timebase import SnippetGrid
from outspike.train.loop import run
from outspike.train.plan import make_plan
from outspike.tune.result import Trial, TuneResult
from outspike.tune.run import search
from outspike.tune.space import override
from outspike.urls import SourceStat

WIDTH = 64
SPACE = (
    "optim.optimiser=choice:adam,sgd",
    "optim.lr=log:1e-4:3e-2 when optim.optimiser=adam",
    "optim.lr=log:1e-3:1 when optim.optimiser=sgd",
    "detector.dropout=uniform:0:0.6",
    "window.length=choice:8,16",
)


def make_store(folder: Path) -> str:
    """Bags of noise; anomalous ones have a few snippets that stand out a little."""
    store = FeatureStore.create(str(folder / "store"))
    spec = FeatureSetSpec(
        name="motion", document={"encoder": "motion"}, num_crops=1, width=WIDTH, dtype="float32"
    )
    recordings = [
        Recording(
            dataset="bench",
            video_id=f"v{label}-{number:02d}",
            url=f"/v/{label}{number}.mp4",
            split="train",
            label=label,
        )
        for label in (0, 1)
        for number in range(12)
    ]
    store.put_recordings(recordings)
    writer = store.segment_writer(spec)
    for recording in recordings:
        rng = np.random.default_rng([*recording.key.encode()])
        num_frames = 16 * int(rng.integers(8, 25))
        start, stop = SnippetGrid().ranges(num_frames)
        rows = rng.standard_normal((len(start), 1, WIDTH))
        first = int(rng.integers(len(start) - 4))
        rows[first : first + 4, :, :8] += 0.7 * (recording.label or 0)
        writer.begin(recording, stat=SourceStat(url=recording.url, size=1, etag="1"))
        writer.append(rows.astype(np.float32), start, stop)
        writer.end(num_frames, Fraction(25))
    writer.close()
    store.commit(writer.drain())
    return store.url


def config_of(folder: Path, store: str, arguments: argparse.Namespace) -> TuneConfig:
    """The search; without early stopping, so that every trial is the same work."""
    steps = arguments.steps
    train = TrainConfig(
        name="bench",
        data=DataConfig(dataset="bench"),
        store=StoreConfig(url=store),
        detector=MsfConfig(feature_set="motion", width=WIDTH, hidden=16),
        encoders=(),
        window=WindowConfig(rule="uniform", length=8),
        optim=OptimConfig(lr=1e-3),
        selection=SelectionConfig(split="holdout", share=0.34, every_steps=max(1, steps // 4)),
        steps=steps,
        bags_per_batch=8,
        num_workers=0,
        checkpoint_every=steps,
        storage=str(folder / "runs"),
        tracking_uri=f"sqlite:///{folder}/mlflow.db",
    )
    return TuneConfig(
        name="bench",
        train=train,
        space=SPACE,
        sampler="random",
        early_stop=False,
        num_trials=arguments.trials,
        max_concurrent=arguments.concurrent,
        num_cpus=arguments.concurrent,
    )


def bare(config: TuneConfig, trials: tuple[Trial, ...], folder: Path) -> list[float]:
    """Seconds of each trial in this process; its metric must be the search's."""
    seconds = []
    for trial in trials:
        began = time.perf_counter()
        plan = make_plan(override(config.train, trial.values))
        outcome = run(plan, str(folder / f"{trial.trial_id}-{began}"))
        seconds.append(time.perf_counter() - began)
        assert outcome.metrics["held_out/video_auc"] == trial.metric, trial
    return seconds


def measure(config: TuneConfig, folder: Path, num_bare: int) -> TuneResult:
    """Print the table's lines."""
    dry = dataclasses.replace(config, name="warm", num_trials=num_bare)
    first = search(dry)  # whose trials the bare loop repeats: equal seeds draw equal trials
    before = bare(config, first.trials, folder)
    began = time.perf_counter()
    result = search(config)
    took = time.perf_counter() - began
    after = bare(config, first.trials, folder)
    one = statistics.median([*before, *after])
    runs = find_runs(config.train.tracking_uri, {"outspike.search": config.name})
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert len(runs) == config.num_trials + 1
    rate, loop = 60 * config.num_trials / took, 60 / one
    working = statistics.median(trial.seconds for trial in result.trials)
    print(f"bare loop, one process:      {loop:8.1f} trials/min  ({one:.3f} s a trial)")
    print(
        f"search, {config.max_concurrent} at a time:         {rate:8.1f} trials/min  "
        f"({config.num_trials} trials in {took:.1f} s, {working:.3f} s from start to end of one)"
    )
    print(f"of the bare loop:            {rate / loop:8.2f}")
    share = rate / loop / config.max_concurrent
    print(f"of {config.max_concurrent} bare loops:           {share:8.2f}")
    return result


def main() -> None:
    """Measure, and leave the page of the search where it was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--concurrent", type=int, default=2)
    parser.add_argument("--bare", type=int, default=12)
    parser.add_argument("--page", type=Path, help="keep search.html here")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="outspike-search-") as name:
        folder = Path(name)
        config = config_of(folder, make_store(folder), arguments)
        result = measure(config, folder, arguments.bare)
        print(result.table(rows=3))
        if arguments.page:
            page = folder / "runs" / config.name / "search.html"
            arguments.page.write_bytes(page.read_bytes())


if __name__ == "__main__":
    main()
