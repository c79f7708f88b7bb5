"""Feeding a trainer: batches from the store against a loop of ``np.load``, and what a step waits.

    OMP_NUM_THREADS=1 python benchmarks/feeding.py [batches] [training] [--bags 400]

``batches``: 60 random bags a batch, features 768 wide in float16, lengths of real surveillance
videos (UCF-Crime's test split), windows of 16 rows as MSF trains on them; one thread, files in the
page cache. The loop opens one ``.npy`` file a bag, as published training loops do, takes the rows
of its window and pads; ours makes the same tensors, which is checked first. *rows given*: windows
are drawn beforehand, so that only feeding is timed. *with draws*: everything a step waits for.

``training``: the MSF recipe on such a store; the share of its time that steps wait for bags.
"""

import argparse
import dataclasses
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from outspike.config import ComputeConfig, SelectionConfig, SslsConfig, StoreConfig, TrainConfig
from outspike.datasets.known import UCF_CRIME
from outspike.datasets.published import members
from outspike.detectors.draws import draw_key
from outspike.detectors.windows import row_index
from outspike.recipes import TRAIN_RECIPES
from outspike.recording import Recording
from outspike.store.fingerprint import FeatureSetSpec
from outspike.store.store import FeatureStore
from outspike.train.data import BagCache, TrainingBags
from outspike.train.plan import TrainingPlan, make_plan
from outspike.train.step import Learner, World
from outspike.urls import SourceStat

WIDTH = 768
SPEC = FeatureSetSpec(
    name="clip", document={"encoder": "imported", "origin": "made"}, num_crops=1, width=WIDTH
)
Loop = Callable[[int], object]


def fill(folder: Path, num_bags: int) -> None:
    """A store of random bags, half of them anomalous, and the same rows as ``.npy`` files."""
    rng = np.random.default_rng(0)
    frames = [row.num_frames for row, _ in members(UCF_CRIME, "official") if row.num_frames]
    store = FeatureStore.create(str(folder / "store"))
    recordings = [
        Recording(
            dataset="ucf_crime", video_id=f"{i:04d}", url="made://", split="train", label=i % 2
        )
        for i in range(num_bags)
    ]
    store.put_recordings(recordings)
    with store.segment_writer(SPEC) as writer:
        for recording in recordings:
            count = -(-int(rng.choice(frames)) // 16)
            rows = rng.standard_normal((count, 1, WIDTH), dtype=np.float32).astype(np.float16)
            np.save(folder / f"{recording.video_id}.npy", rows[:, 0])
            start = np.arange(count) * 16
            stat = SourceStat(url=recording.url, size=count, etag="made")
            writer.begin(recording, stat=stat)
            writer.append(rows, start, start + 16)
            writer.end(count * 16, Fraction(30))
    store.commit(writer.drain())


def config_of(folder: Path) -> TrainConfig:
    """MSF as published, on features 768 wide."""
    base = TRAIN_RECIPES["msf-ucf"]()
    return dataclasses.replace(
        base,
        store=StoreConfig(url=str(folder / "store")),
        detector=dataclasses.replace(base.detector, feature_set="clip", width=WIDTH),
        data=dataclasses.replace(base.data, dataset="ucf_crime"),
        encoders=(),
        ssls=SslsConfig(mode="off"),
        selection=SelectionConfig(split="last"),
        synthetic_per_batch=0,
        num_workers=0,
    )


class NpyLoop:
    """Batches as published loops make them: one file a bag."""

    def __init__(self, folder: Path, plan: TrainingPlan, source: TrainingBags) -> None:
        self._folder, self._plan, self._source = folder, plan, source
        self._label = {r.key: r.label for r in plan.training}

    def window(self, step: int, key: str, num_rows: int) -> NDArray[np.int64]:
        """The rows of a bag's window, drawn as the trainer draws them."""
        config = self._plan.config
        drawn = draw_key(config.seed, step, f"window/{key}") & 0xFFFFFFFF
        rng = np.random.RandomState(drawn)
        return row_index(config.window, num_rows, label=self._label[key], rng=rng)

    def batch(
        self, step: int, keys: Sequence[str], given: Sequence[NDArray[np.int64]] | None = None
    ) -> torch.Tensor:
        """Features ``[B, 1, S, D]`` in float32."""
        parts = []
        for number, key in enumerate(keys):
            rows = np.load(self._folder / f"{key.rpartition('/')[2]}.npy")
            chosen = self.window(step, key, len(rows)) if given is None else given[number]
            parts.append(rows[chosen])
        longest = max(len(rows) for rows in parts)
        out = np.zeros((len(parts), 1, longest, WIDTH), np.float32)
        for place, rows in zip(out, parts, strict=True):
            place[0, : len(rows)] = rows
        return torch.from_numpy(out)


def batches(folder: Path, rounds: int, steps: int = 20) -> None:
    """Store to batch, against the loop."""
    plan = make_plan(config_of(folder))
    source = TrainingBags(plan)
    loop, cache = NpyLoop(folder, plan, source), BagCache(plan)
    drawn = {step: source.batch(step, World()).bag_ids for step in range(steps)}
    lengths = {r.key: cache.reader.num_snippets((r.dataset, r.video_id)) for r in plan.training}
    given = {s: [loop.window(s, k, lengths[k]) for k in keys] for s, keys in drawn.items()}
    split = {s: [tuple(key.split("/", 1)) for key in keys] for s, keys in drawn.items()}

    def ours(step: int) -> torch.Tensor:
        found = cache.rows(split[step], given[step], neighbours=False)  # type: ignore[arg-type]
        return torch.from_numpy(found.features["clip"]).to(torch.float32)

    forms: dict[str, tuple[Loop, Loop]] = {
        "rows given": (ours, lambda step: loop.batch(step, drawn[step], given[step])),
        "with draws": (
            lambda step: source.batch(step, World()).features["clip"],
            lambda step: loop.batch(step, drawn[step]),
        ),
    }
    print("\n| 60 bags of 16 rows | outspike | np.load loop | ours is |\n|---|---:|---:|---:|")
    for name, (mine, theirs) in forms.items():
        for step in range(steps):
            assert torch.equal(mine(step), theirs(step)), name  # type: ignore[arg-type]
        times = [[_ms(form, steps) for form in (mine, theirs)] for _ in range(rounds)]
        one, other = (statistics.median(column) for column in zip(*times, strict=True))
        ratio = statistics.median(b / a for a, b in times)
        print(f"| {name} | {one:.2f} ms | {other:.1f} ms | x{ratio:.1f} |")


def _ms(form: Loop, steps: int) -> float:
    began = time.perf_counter()
    for step in range(steps):
        form(step)
    return 1000 * (time.perf_counter() - began) / steps


def training(folder: Path, rounds: int, steps: int = 30) -> None:
    """Steps of MSF on one thread, and how long they wait for their bags; forms take turns."""
    forms = {
        name: _taught(folder, ahead) for name, ahead in (("read when needed", 0), ("two ahead", 2))
    }
    times: dict[str, list[float]] = {name: [] for name in forms}
    waits: dict[str, list[float]] = {name: [] for name in forms}
    for turn in range(1, rounds + 1):
        for name, (learner, source) in forms.items():
            before, began = learner.waited_s, time.perf_counter()
            for _ in learner.steps(source, start=turn * steps, stop=(turn + 1) * steps):
                pass
            seconds = time.perf_counter() - began
            times[name].append(1000 * seconds / steps)
            waits[name].append(100 * (learner.waited_s - before) / seconds)
    first = next(iter(times.values()))
    print("\n| MSF training | step | faster | waiting for bags |\n|---|---:|---:|---:|")
    for name, own in times.items():
        faster = statistics.median(a / b for a, b in zip(first, own, strict=True))
        step, wait = statistics.median(own), statistics.median(waits[name])
        print(f"| {name} | {step:.1f} ms | x{faster:.2f} | {wait:.2f} % |")


def _taught(folder: Path, prefetch: int) -> tuple[Learner, TrainingBags]:
    """A learner and its bags, compiled and with full caches."""
    config = dataclasses.replace(config_of(folder), compute=ComputeConfig(prefetch=prefetch))
    source, learner = TrainingBags(make_plan(config)), Learner(config, world=World())
    for _ in learner.steps(source, start=0, stop=10):
        pass
    return learner, source


def main() -> None:
    """Run the parts asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("parts", nargs="*", choices=["batches", "training", []], default=[])
    parser.add_argument("--bags", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fill(folder, options.bags)
        for part in options.parts or ("batches", "training"):
            if part == "batches":
                batches(folder, options.rounds)
            else:
                training(folder, options.rounds)


if __name__ == "__main__":
    main()
