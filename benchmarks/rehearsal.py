"""UCF-Crime at its true size, with generated features: everything but the data itself.

    python benchmarks/rehearsal.py write train sweep evaluate --folder rehearsal
    python benchmarks/rehearsal.py detectors --folder rehearsal

``write`` fills a real store: 1,900 recordings by the package's tables and the 303 generated clips
of ``ucfg2``, features 768 wide. Test recordings have their true length and the annotated intervals;
lengths of training recordings are in no table and are drawn from those of test recordings of their
label. A recording is noise around a scene of its own; anomalous snippets are shifted along
directions of their class. ``train`` takes 2,000 steps of MSF (60 bags of 16 snippets, a tenth of
them generated), ``sweep`` eight trials of 100 steps, ``evaluate`` scores the test split and tells
how much of the planted signal was found. ``detectors`` takes up to ten steps of every other
detector on random batches of its published shape, in processes of their own, and extrapolates.

Every part runs in a process of its own and prints a row: wall clock, processor time, peak memory.
"""

import argparse
import dataclasses
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from outspike.config import (
    DataConfig,
    EvaluateConfig,
    SelectionConfig,
    SslsConfig,
    StoreConfig,
    TrainConfig,
    TuneConfig,
)
from outspike.datasets.gv_vad import generated
from outspike.datasets.known import UCF_CRIME
from outspike.datasets.published import members, recording_of
from outspike.datasets.tables import Row, read_fields
from outspike.recipes import TRAIN_RECIPES
from outspike.recording import Recording
from outspike.store.fingerprint import FeatureSetSpec
from outspike.store.store import FeatureStore
from outspike.timebase import SnippetGrid
from outspike.urls import SourceStat

WIDTH = 768
SPEC = FeatureSetSpec(
    name="clip",
    document={
        "encoder": "imported",
        "origin": "benchmarks/rehearsal.py",
        "grid": {"snippet_frames": 16, "stride": 16, "tail": "keep"},
    },
    num_crops=1,
    width=WIDTH,
)
#: Shift of anomalous snippets in deviations of the noise along their direction.
SHIFT = (1.5, 3.5)
#: Frames of a generated clip: a few seconds.
CLIP_FRAMES = (80, 200)
PARTS = ("write", "train", "sweep", "evaluate", "detectors")
#: Detectors that are stepped through, the recipe that has their published shape, steps taken.
OTHERS = {"ief_vad": ("iefvad-ucf", 3), "gv_vad": ("gvvad-ucf", 10), "saa": ("saa-ucf", 4)}
OTHERS_BY_FRAMES = {"aed_t": ("aed-lad2000", 10)}


# ------------------------------------------------------------------------------------ the data


@dataclasses.dataclass(frozen=True)
class Source:
    """A recording that is made up: how long, and where its anomaly is."""

    recording: Recording
    num_frames: int
    planted: tuple[tuple[int, int], ...]


def sources(rng: np.random.Generator) -> list[Source]:
    """All recordings of UCF-Crime and the generated clips of ucfg2, with a length for each."""
    listed = list(members(UCF_CRIME, "official"))
    known = {
        label: [row.num_frames for row, _ in listed if row.num_frames and row.label == label]
        for label in (0, 1)
    }
    shares = [
        (stop - start) / row.num_frames
        for row, _ in listed
        for start, stop in row.intervals
        if row.num_frames
    ]
    found = [_real(row, part, known[row.label], shares, rng) for row, part in listed]
    for row in read_fields("ucf_crime_generated", ("id", "label", "ucfg1", "ucfg2")):
        if row["ucfg2"] == "1":
            label, frames = int(row["label"]), int(rng.integers(*CLIP_FRAMES))
            clip = generated(row["id"], f"made://{row['id']}", label)
            found.append(Source(clip, frames, ((frames // 4, frames),) if label else ()))
    return found


def _real(
    row: Row, part: str, lengths: list[int], shares: list[float], rng: np.random.Generator
) -> Source:
    recording = recording_of(UCF_CRIME, row, f"made://{row.video_id}", part, "official")
    frames = row.num_frames or int(rng.choice(lengths))
    planted = row.intervals
    if row.label and not planted:
        long = max(16, int(frames * rng.choice(shares)))
        start = int(rng.integers(0, max(1, frames - long)))
        planted = ((start, min(start + long, frames)),)
    return Source(recording, frames, planted)


def features(
    source: Source, start: NDArray[np.int64], stop: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.float32]:
    """Rows ``[S, 1, 768]``: a scene, noise, and a shift where an anomaly was planted."""
    rows = rng.standard_normal((len(start), WIDTH), dtype=np.float32)
    rows += 0.3 * rng.standard_normal(WIDTH, dtype=np.float32)
    centre = (start + stop) // 2
    shift = rng.uniform(*SHIFT)
    for first, last in source.planted:
        inside = (centre >= first) & (centre < last)
        rows[inside] += shift * direction(source.recording.class_name)
    return rows[:, None]


def direction(class_name: str | None) -> NDArray[np.float32]:
    """Unit vector of a class: mostly what all anomalies share, and something of its own."""
    own = np.random.default_rng([*f"class {class_name}".encode()]).standard_normal(WIDTH)
    shared = shared_direction()
    own = own / np.linalg.norm(own)
    mixed = 0.8 * shared + 0.6 * (own - (own @ shared) * shared)
    return (mixed / np.linalg.norm(mixed)).astype(np.float32)


def shared_direction() -> NDArray[np.float64]:
    """Unit vector that every anomaly moves along."""
    shared = np.random.default_rng(1).standard_normal(WIDTH)
    return shared / np.linalg.norm(shared)


def write(folder: Path) -> dict[str, Any]:
    """Fill the store through its own writer."""
    store = FeatureStore.create(str(folder / "store"))
    rng = np.random.default_rng(0)
    found = sources(rng)
    store.put_recordings([source.recording for source in found])
    rows = 0
    with store.segment_writer(SPEC) as writer:
        for source in found:
            start, stop = SnippetGrid().ranges(source.num_frames)
            stat = SourceStat(url=source.recording.url, size=source.num_frames, etag="made")
            writer.begin(source.recording, stat=stat)
            writer.append(features(source, start, stop, rng), start, stop)
            writer.end(source.num_frames, Fraction(30))
            rows += len(start)
    store.commit(writer.drain())
    size = sum(path.stat().st_size for path in (folder / "store").rglob("*") if path.is_file())
    return {"recordings": len(found), "snippets": rows, "store MB": round(size / 1e6)}


# ---------------------------------------------------------------------------------- the stages


def config_of(folder: Path) -> TrainConfig:
    """MSF as published, on features 768 wide, with a tenth of every batch generated."""
    base = TRAIN_RECIPES["msf-ucf"]()
    return dataclasses.replace(
        base,
        name="rehearsal",
        data=DataConfig(dataset="ucf_crime", root="."),
        store=StoreConfig(url=str(folder / "store")),
        detector=dataclasses.replace(
            base.detector, feature_set="clip", width=WIDTH, input_norm="standardise"
        ),
        encoders=(),
        optim=dataclasses.replace(base.optim, lr=1e-3),
        ssls=SslsConfig(scale=0.5),
        selection=SelectionConfig(split="holdout", every_steps=500),
        protocol="ucf-crime",
        steps=2000,
        synthetic_per_batch=6,
        num_workers=0,
        checkpoint_every=500,
        storage=str(folder / "runs"),
        tracking_uri=f"sqlite:///{folder}/mlflow.db",
    )


def train(folder: Path) -> dict[str, Any]:
    """The whole job: plan, input scaling, 2,000 steps, selection, bundle, registry."""
    from outspike.train import job

    result = job.train(config_of(folder))
    return {"model": result.version, "step": result.step, **_rounded(result.metrics)}


def sweep(folder: Path) -> dict[str, Any]:
    """Eight trials of 100 steps, two at a time."""
    from outspike.tune.run import search

    base = dataclasses.replace(
        config_of(folder), steps=100, selection=SelectionConfig(split="holdout", every_steps=50)
    )
    config = TuneConfig(
        name="rehearsal-sweep",
        train=base,
        space=("optim.lr=log:1e-4:1e-2", "detector.dropout=uniform:0.2:0.8"),
        num_trials=8,
        early_stop=False,
    )
    trials = search(config).trials
    return {"trials": len(trials), "best": max(t.metric for t in trials if t.metric is not None)}


def evaluate(folder: Path) -> dict[str, Any]:
    """The test split under its protocol, beside the best that the planted direction allows."""
    from outspike.evaluate.evaluate import evaluate as judge
    from outspike.evaluate.protocols import get_protocol
    from outspike.evaluate.stored import protocol_bags
    from outspike.registry.evaluation import evaluate_model
    from outspike.scoring.scores import VideoScores
    from outspike.store.bags import BagReader

    found = evaluate_model(
        EvaluateConfig(
            model="models:/rehearsal/1",
            out=str(folder / "report"),
            against="none",
            key_frames=False,
            tracking_uri=f"sqlite:///{folder}/mlflow.db",
        )
    )
    reader = BagReader(FeatureStore.open(str(folder / "store")), ["clip"])
    protocol = get_protocol("ucf-crime")
    along = [
        VideoScores(
            dataset=bag.dataset,
            video_id=bag.video_id,
            scores=_projected(bag.features[SPEC.name][0]),
            start=bag.start,
            stop=bag.stop,
            num_frames=bag.num_frames,
            fps=bag.fps,
            label=bag.label,
            class_name=bag.class_name,
            intervals=bag.intervals,
        )
        for bag in protocol_bags(reader, protocol, "test")
    ]
    planted = judge(along, protocol, num_resamples=0).metrics
    values = {
        name: estimate.value
        for name, estimate in found.results.metrics.items()
        if estimate.value is not None
    }
    best = {f"planted {name}": planted[name].value or 0.0 for name in values}
    return _rounded(values | best)


def _projected(rows_SD: NDArray[np.floating]) -> NDArray[np.float32]:
    """Length along the shared direction, as a score."""
    along = rows_SD.astype(np.float32) @ shared_direction().astype(np.float32)
    return (1.0 / (1.0 + np.exp(-along))).astype(np.float32)


def detectors(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """A few steps of every other detector at its published shape, each in its own process."""
    for name, (recipe, steps) in (OTHERS | OTHERS_BY_FRAMES).items():
        yield name, _child("_step", folder, "--recipe", recipe, "--steps", str(steps))


def step(recipe: str, steps: int) -> dict[str, Any]:
    """Seconds of one step of a recipe on random batches, and what all its steps would take."""
    import torch
    from training import random_bags

    from outspike.train.step import Learner

    config = TRAIN_RECIPES[recipe]()
    detector = config.detector
    if detector.kind == "gv_vad":
        bank = torch.randn(26, detector.text_width, generator=torch.Generator().manual_seed(0))
        path = Path(os.environ["OUTSPIKE_REHEARSAL"]) / "bank.npy"
        np.save(path, bank.numpy())
        config = dataclasses.replace(
            config, detector=dataclasses.replace(detector, prompt_bank=str(path))
        )
    learner = Learner(config)
    bags = random_bags(config)
    last = torch.arange(bags.num_bags) >= bags.num_bags - config.synthetic_per_batch
    bags = dataclasses.replace(bags, synthetic=last)
    learner.detector.fit_inputs([bags])
    base, times = _peak_mb(), []
    for number in range(steps + 1):
        began = time.process_time()
        learner.learn(dataclasses.replace(bags, step=number), number)
        times.append(time.process_time() - began)
    seconds = float(np.median(times[1:]))
    return {
        "batch": config.bags_per_batch,
        "steps taken": steps,
        "s/step": round(seconds, 2),
        "rise MB": _peak_mb() - base,
        "recipe steps": config.steps,
        "extrapolated h": round(seconds * config.steps / 3600, 1),
    }


# ----------------------------------------------------------------------------------- measuring


def _rounded(values: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in values.items()}


def _peak_mb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def _child(part: str, folder: Path, *more: str) -> dict[str, Any]:
    """Run a part in a process of its own, and measure it with everything it starts."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OUTSPIKE_REHEARSAL": str(folder)}
    began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    process = subprocess.run(
        [sys.executable, __file__, part, "--folder", str(folder), "--inside", *more],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    if process.returncode:
        sys.exit(f"{part} failed with {process.returncode}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    found: dict[str, Any] = json.loads(process.stdout.splitlines()[-1])
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    told = {"wall s": round(time.monotonic() - began, 1), "cpu s": round(spent, 1)}
    if part == "sweep":  # trials are Ray's processes, which nobody here waits for
        del told["cpu s"]
    return {**told, **found}


def main() -> None:
    """Run the parts named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("parts", nargs="+", choices=[*PARTS, "_step"])
    parser.add_argument("--folder", type=Path, default=Path("rehearsal"))
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--recipe", default="", help=argparse.SUPPRESS)
    parser.add_argument("--steps", type=int, default=10, help=argparse.SUPPRESS)
    options = parser.parse_args()
    folder = options.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    if options.inside:
        part = options.parts[0]
        found = step(options.recipe, options.steps) if part == "_step" else globals()[part](folder)
        print(json.dumps({**found, "peak MB": _peak_mb()}))
        return
    for part in options.parts:
        rows = detectors(folder) if part == "detectors" else [(part, _child(part, folder))]
        for name, row in rows:
            print(f"| {name} | " + ", ".join(f"{k} {v}" for k, v in row.items()) + " |", flush=True)


if __name__ == "__main__":
    main()
