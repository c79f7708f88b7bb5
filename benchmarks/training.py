"""Training: the loop against a bare one, two workers against one, and what each option costs.

    OMP_NUM_THREADS=1 python benchmarks/training.py loop      # [--recipe msf-ucf] [--bags 60]
    OMP_NUM_THREADS=1 python benchmarks/training.py workers
    OMP_NUM_THREADS=1 python benchmarks/training.py options   # [--recipe ...] [--device cuda]

``loop``: the whole run (bags of a real store, windows, checks, log, checkpoints) against a loop of
forward, loss, backward and optimiser on tensors that lie in memory; both take turns, ten steps
each, in one process. ``workers``: two processes on two cores with half of the bags each against one
process with all of them, in turns, wall clock; and where their time goes. ``options``: one process
a row, so that memory can be told; loss after the same steps on the same batches.
"""

import argparse
import dataclasses
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from outspike.config import ComputeConfig, SelectionConfig, SslsConfig, StoreConfig, TrainConfig
from outspike.detectors.bags import Bags
from outspike.detectors.build import build
from outspike.detectors.ssls import Ssls
from outspike.recipes import TRAIN_RECIPES
from outspike.recording import Recording
from outspike.store.fingerprint import FeatureSetSpec
from outspike.store.store import FeatureStore
from outspike.timebase import SnippetGrid
from outspike.train.data import TrainingBags
from outspike.train.loop import run
from outspike.train.plan import make_plan
from outspike.train.step import Learner, World
from outspike.urls import SourceStat

CHUNK = 10
OPTIONS: dict[str, ComputeConfig] = {
    "plain": ComputeConfig(),
    "bfloat16": ComputeConfig(precision="bfloat16"),
    "compile": ComputeConfig(compile=True),
    "accumulate 4": ComputeConfig(accumulate=4),
    "prefetch 2": ComputeConfig(prefetch=2),
}


def config_of(recipe: str, bags: int | None) -> TrainConfig:
    """A recipe on bags of one data set, all of them real, without selection."""
    base = TRAIN_RECIPES[recipe]()
    detector = base.detector
    if detector.kind == "msf":
        detector = dataclasses.replace(detector, width=768)
    if detector.kind == "gv_vad":  # its prompts come as a file
        detector = dataclasses.replace(detector, pal_weight=0.0, mpl_weight=0.0)
    return dataclasses.replace(
        base,
        detector=detector,
        data=dataclasses.replace(base.data, dataset="bench"),
        encoders=(),
        ssls=SslsConfig(),
        selection=SelectionConfig(),
        protocol="folder",
        bags_per_batch=bags or base.bags_per_batch,
        synthetic_per_batch=0,
        num_workers=0,
    )


# --------------------------------------------------------------------------------- the loop


def fill_store(url: str, config: TrainConfig) -> None:
    """Recordings of 20 to 400 snippets, enough for three batches."""
    store = FeatureStore.create(url)
    rng = np.random.default_rng(0)
    recordings = [
        Recording(
            dataset="bench", video_id=f"{i:04d}", url=f"made://{i}", split="train", label=i % 2
        )
        for i in range(3 * config.bags_per_batch)
    ]
    store.put_recordings(recordings)
    lengths = rng.integers(20, 400, len(recordings))
    for name, width in build(config.detector).feature_sets.items():
        document = {"encoder": "imported", "origin": "benchmarks/training.py"}
        spec = FeatureSetSpec(name=name, document=document, num_crops=1, width=width)
        with store.segment_writer(spec) as writer:
            for recording, length in zip(recordings, lengths, strict=True):
                start, stop = SnippetGrid().ranges(16 * int(length))
                writer.begin(recording, stat=SourceStat(url=recording.url, size=1, etag="made"))
                rows = rng.standard_normal((int(length), 1, width), dtype=np.float32)
                writer.append(rows, start, stop)
                writer.end(16 * int(length), Fraction(25))
        store.commit(writer.drain())


def loop(recipe: str, bags: int | None, steps: int) -> None:
    """Our run and the bare loop in turns."""
    with tempfile.TemporaryDirectory(prefix="outspike-bench-") as folder:
        config = config_of(recipe, bags)
        fill_store(f"{folder}/store", config)
        config = dataclasses.replace(
            config,
            store=StoreConfig(url=f"{folder}/store"),
            steps=steps,
            log_every=CHUNK,
            checkpoint_every=10 * CHUNK,
        )
        plan = make_plan(config)
        source = TrainingBags(plan)
        held = [source.batch(step, World()) for step in range(4)]
        bare = BareLoop(config, held)
        bare(CHUNK)
        ours: list[float] = []
        theirs: list[float] = []
        began = [0.0]

        def tell(step: int, metrics: Mapping[str, float]) -> None:
            ours.append(time.process_time() - began[0])
            middle = time.process_time()
            bare(CHUNK)
            theirs.append(time.process_time() - middle)
            began[0] = time.process_time()

        run(plan, f"{folder}/run", tell=tell)
        ratios = [a / b for a, b in zip(ours[1:], theirs[1:], strict=True)]
        step_ms = 1e3 * statistics.median(theirs[1:]) / CHUNK
        mean = sum(ours[1:]) / sum(theirs[1:])
        print(
            f"| {recipe}, {config.bags_per_batch} x {config.window.length} | {step_ms:.1f} ms | "
            f"{statistics.median(ratios):.3f} | {mean:.3f} | {len(ratios)} |",
            flush=True,
        )


class BareLoop:
    """What anybody would write: the same model and loss on batches that lie in memory."""

    def __init__(self, config: TrainConfig, batches: list[Bags]) -> None:
        torch.manual_seed(0)
        self._model = build(config.detector)
        self._model.fit_inputs(batches)
        self._model.train()
        self._loss = Ssls(config.ssls, total_steps=config.steps)
        self._optimiser = torch.optim.Adam(
            self._model.parameters(), lr=config.optim.lr, weight_decay=config.optim.weight_decay
        )
        self._batches = batches
        self._step = 0

    def __call__(self, steps: int) -> None:
        """Take so many steps."""
        for _ in range(steps):
            bags = self._batches[self._step % len(self._batches)]
            self._optimiser.zero_grad(set_to_none=True)
            terms = self._model.loss(bags, self._model(bags))
            total, _ = self._loss.reduce(terms, bags, self._step)
            total.backward()
            self._optimiser.step()
            self._step += 1


# ----------------------------------------------------------------------------- the workers


class RandomBags:
    """The same random bags at every step, shared among the ranks as the sampler does."""

    def __init__(self, config: TrainConfig) -> None:
        self._whole = random_bags(config)

    def batch(self, step: int, world: World) -> Bags:
        """This rank's bags."""
        mine = self._whole.take(torch.arange(world.rank, self._whole.num_bags, world.size))
        return dataclasses.replace(mine, step=step)

    def whole(self) -> Iterator[Bags]:
        """All of them at once."""
        yield self._whole


def random_bags(config: TrainConfig) -> Bags:
    """A batch of a recipe's shape."""
    number, length = config.bags_per_batch, config.window.length
    detector = build(config.detector)
    generator = torch.Generator().manual_seed(0)
    starts = torch.arange(length)[:, None] * 16 + torch.tensor([0, 16])
    labels = torch.arange(number) % 4 >= 2  # dealt to two ranks, both get either label
    frames = labels[:, None, None].expand(number, length, 16).to(torch.int8)
    crops = {"clip": 10} if config.detector.kind == "gv_vad" else {}
    classes = max(1, len(getattr(config.detector, "classes", ())))
    return Bags(
        features={
            name: torch.randn(number, crops.get(name, 1), length, width, generator=generator) * 0.3
            for name, width in detector.feature_sets.items()
        },
        num_snippets=torch.full((number,), length),
        labels=labels.float(),
        class_ids=torch.arange(number) % classes,
        synthetic=torch.zeros(number, dtype=torch.bool),
        frame_ranges=starts.expand(number, length, 2).contiguous(),
        bag_ids=tuple(f"random/{i}" for i in range(number)),
        draw_keys=torch.arange(number) * 7919,
        step=0,
        frame_labels=frames if detector.needs_frame_labels else None,
    )


def workers(recipe: str, bags: int | None, rounds: int, steps: int) -> None:
    """One process and two, in turns; medians of the time of a step."""
    found: dict[int, list[dict[str, float]]] = {1: [], 2: []}
    for _ in range(rounds):
        for size in (1, 2):
            found[size].append(_world(recipe, bags, size, steps))
    middle = {
        size: {key: statistics.median(row[key] for row in rows) for key in rows[0]}
        for size, rows in found.items()
    }
    one, two = middle[1]["step_s"], middle[2]["step_s"]
    print(
        f"| {recipe} | {1e3 * one:.0f} ms | {1e3 * two:.0f} ms | x{one / two:.2f} | "
        f"{one / two / 2:.0%} | {middle[2]['collectives']:.0f} | "
        f"{middle[2]['collective_s'] / two:.0%} | {middle[2]['cpu_s'] / middle[1]['cpu_s']:.2f} |",
        flush=True,
    )


def _world(recipe: str, bags: int | None, size: int, steps: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="outspike-bench-") as folder:
        environment = os.environ | {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
        ranks = [
            subprocess.Popen(
                [
                    sys.executable,
                    __file__,
                    "_rank",
                    *("--recipe", recipe, "--steps", str(steps)),
                    *(() if bags is None else ("--bags", str(bags))),
                    *("--rank", str(rank), "--size", str(size), "--meet", f"{folder}/meet"),
                ],
                env=environment,
                stdout=subprocess.PIPE,
                text=True,
            )
            for rank in range(size)
        ]
        told = [rank.communicate()[0] for rank in ranks]
        if any(rank.returncode for rank in ranks):
            sys.exit(f"{recipe}: a rank failed")
        rows = [json.loads(text.splitlines()[-1]) for text in told]
        return {key: statistics.mean(row[key] for row in rows) for key in rows[0]}


def rank_of(recipe: str, bags: int | None, steps: int, rank: int, size: int, meet: str) -> None:
    """One rank: time of a step, and how much of it collectives take."""
    if size > 1:
        dist.init_process_group("gloo", init_method=f"file://{meet}", rank=rank, world_size=size)
    config = config_of(recipe, bags)
    learner, source = Learner(config, world=World.current()), RandomBags(config)
    learner.prepare(source)
    for _ in learner.steps(source, start=0, stop=3):
        pass
    waiting = Stopwatch()
    plain = dist.all_reduce
    dist.all_reduce = waiting.around(plain)
    began, spent = time.perf_counter(), time.process_time()
    for _ in learner.steps(source, start=3, stop=3 + steps):
        pass
    print(
        json.dumps(
            {
                "step_s": (time.perf_counter() - began) / steps,
                "cpu_s": (time.process_time() - spent) / steps,
                "collectives": waiting.calls / steps,
                "collective_s": waiting.seconds / steps,
            }
        )
    )
    if size > 1:
        dist.destroy_process_group()


class Stopwatch:
    """Counts calls of a function and the seconds they take."""

    def __init__(self) -> None:
        self.calls = 0
        self.seconds = 0.0

    def around(self, work: Callable[..., Any]) -> Callable[..., Any]:
        """The function, watched."""

        def watched(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            try:
                return work(*args, **kwargs)
            finally:
                self.calls += 1
                self.seconds += time.perf_counter() - began

        return watched


# ----------------------------------------------------------------------------- the options


def options(recipe: str, bags: int | None, steps: int, device: str) -> None:
    """A row for each option, each in a process of its own."""
    plain: dict[str, float] | None = None
    for name in OPTIONS:
        command = [sys.executable, __file__, "_option", "--recipe", recipe, "--option", name]
        command += ["--steps", str(steps), "--device", device]
        command += [] if bags is None else ["--bags", str(bags)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            why = done.stderr.strip().splitlines()[-1]
            print(f"| {recipe} | {name} | {why} |", flush=True)
            continue
        row = json.loads(done.stdout.splitlines()[-1])
        plain = plain or row
        print(
            f"| {recipe} | {name} | {1e3 * row['step_s']:.0f} ms | "
            f"x{plain['step_s'] / row['step_s']:.2f} | {row['peak_mb']:.0f} MB | "
            f"{abs(row['loss'] / plain['loss'] - 1):.1e} | {row['first_s']:.1f} s |",
            flush=True,
        )


def option_of(recipe: str, bags: int | None, option: str, steps: int, device: str) -> None:
    """Median time of a step under an option, the rise of memory, and the loss it ends with."""
    config = dataclasses.replace(config_of(recipe, bags), compute=OPTIONS[option])
    learner, source = Learner(config, world=World(device=device)), RandomBags(config)
    learner.prepare(source)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    clock = time.perf_counter if device != "cpu" else time.process_time
    times, loss, began = [], 0.0, clock()
    for _, losses in learner.steps(source, start=0, stop=steps + 1):
        if device != "cpu":
            torch.cuda.synchronize()
        times.append(clock() - began)
        loss = losses["total"]
        began = clock()
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    if device != "cpu":
        peak = torch.cuda.max_memory_allocated() / 2**20
    told = {"step_s": statistics.median(times[1:]), "first_s": times[0], "peak_mb": peak}
    print(json.dumps({**told, "loss": loss}))


def main() -> None:
    """Run the part named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("part", choices=["loop", "workers", "options", "_rank", "_option"])
    parser.add_argument("--recipe", default="msf-ucf")
    parser.add_argument("--bags", type=int)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    for name, kind in (("rank", int), ("size", int), ("meet", str), ("option", str)):
        parser.add_argument(f"--{name}", type=kind, help=argparse.SUPPRESS)
    o = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    if o.part == "loop":
        loop(o.recipe, o.bags, o.steps or 200)
    elif o.part == "workers":
        workers(o.recipe, o.bags, o.rounds, o.steps or 20)
    elif o.part == "options":
        options(o.recipe, o.bags, o.steps or 6, o.device)
    elif o.part == "_rank":
        rank_of(o.recipe, o.bags, o.steps, o.rank, o.size, o.meet)
    else:
        option_of(o.recipe, o.bags, o.option, o.steps, o.device)


if __name__ == "__main__":
    main()
