"""A whole extraction job against its parts: the bare encoder, the bare decoder, both in one loop.

    python benchmarks/extraction.py [--encoder event-pyramid | clip] [--workers 1]
    python benchmarks/extraction.py --no-job            # without Ray: processor time only counts

The job is ``extract`` on a Ray that runs: actors, decoding children, segments, read-back and
commits. Its rate is counted from the moment the first actor took its first recording to the end of
the job; what comes before (actors that import, load weights and check the sample) is told apart.
Beside it run as many bare processes as the job has workers, on the same recordings:

* ``actor``: what a worker does, without Ray around it: decoding child, encoder, segments;
* ``encode``: the encoder on frames that lie in memory;
* ``decode``: decoding to RGB and nothing else;
* ``both``: one after the other in a loop, which is the plainest program that does the work.

A worker and its decoding child work side by side where each has a core, and then no job can beat
the slower of ``encode`` and ``decode`` by the clock; where they share cores the limit is ``both``.
By processor time, which other work on the machine changes less, it is ``both`` in any case. Forms
take turns; ratios are within a round. ``clip`` is a ViT-B/32 with random weights, centre crop, one
thread. A run takes two to four minutes on two idle cores.
"""

import argparse
import multiprocessing
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from textures import textured_video

from outspike.config import EncoderConfig, ExtractConfig, StoreConfig
from outspike.datasets.manifest import Manifest
from outspike.recording import Recording

BARE = ("actor", "encode", "decode", "both")
_CHUNK_FRAMES = 16

Work = Callable[[list[str]], int]
"""Goes through recordings and tells the number of their frames."""


@dataclass(frozen=True)
class Took:
    """What one bare process did, from one moment to another, with processor seconds."""

    num_frames: int
    began: float
    ended: float
    processor_s: float


def bare(kind: str, urls: list[str], encoder: EncoderConfig, ready: Any, done: Any) -> None:
    """One bare process: everything is loaded and warm before the barrier, then the clock runs."""
    import torch

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        work = actor(encoder, folder) if kind == "actor" else loop(kind, encoder, urls[0])
        work(urls[:1])
        ready.wait()
        began, processor = time.monotonic(), processor_s()
        num_frames = work(urls)
        done.put(Took(num_frames, began, time.monotonic(), processor_s() - processor))


def loop(kind: str, config: EncoderConfig, url: str) -> Work:
    """Decode, encode, or both, in this process."""
    from outspike.encoders import build
    from outspike.encoders.base import SourceInfo
    from outspike.video.decode import decode
    from outspike.video.probe import probe

    encoder, info = build(config), probe(url)
    width, height = info.display_size
    source = SourceInfo(modality="video", width=width, height=height, fps=info.fps)
    held = list(decode(url, chunk_frames=_CHUNK_FRAMES)) if kind == "encode" else []

    def work(urls: list[str]) -> int:
        total = 0
        for url in urls:
            stream, num_frames = encoder.open(source), 0
            for chunk in held or decode(url, chunk_frames=_CHUNK_FRAMES):
                if kind != "decode":
                    stream.push(chunk)
                num_frames += len(chunk.frames)
            if kind != "decode":
                stream.finish(num_frames)
            total += num_frames
        return total

    return work


def actor(encoder: EncoderConfig, folder: str) -> Work:
    """What a worker of the job does."""
    from outspike.extract.actor import Extractor, Message
    from outspike.extract.plan import WorkItem
    from outspike.store.store import FeatureStore
    from outspike.urls import stat

    FeatureStore.create(f"{folder}/store")
    config = ExtractConfig(store=StoreConfig(url=f"{folder}/store"), encoders=(encoder,))
    extractor = Extractor(config)

    def work(urls: list[str]) -> int:
        items = [
            WorkItem(recording=recording_of(url), source=stat(url), encoders=(0,)).to_json()
            for url in urls
        ]
        messages = [Message.from_json(str(b["message"][0])) for b in extractor({"item": items})]
        return sum(receipt.num_frames for m in messages for receipt in m.receipts)

    return work


def processor_s() -> float:
    """Of this process and the children it has."""
    me = psutil.Process()
    times = [process.cpu_times() for process in (me, *me.children())]
    return sum(of_one.user + of_one.system for of_one in times)


def bare_rates(
    kind: str, urls: list[str], encoder: EncoderConfig, workers: int
) -> tuple[float, float]:
    """Frames a second of ``workers`` bare processes that share the recordings: by the clock, and
    by processor time."""
    context = multiprocessing.get_context("spawn")
    ready, done = context.Barrier(workers), context.Queue()
    shares = [urls[i::workers] for i in range(workers)]
    processes = [
        context.Process(target=bare, args=(kind, share, encoder, ready, done)) for share in shares
    ]
    for process in processes:
        process.start()
    took: list[Took] = [done.get() for _ in processes]
    for process in processes:
        process.join()
    num_frames = sum(one.num_frames for one in took)
    clock = max(one.ended for one in took) - min(one.began for one in took)
    return num_frames / clock, num_frames / sum(one.processor_s for one in took)


def recording_of(url: str) -> Recording:
    """A recording of the benchmark's own data set."""
    return Recording(dataset="bench", video_id=Path(url).stem, url=url)


def job_rate(
    urls: list[str], encoder: EncoderConfig, workers: int, folder: Path
) -> tuple[float, float]:
    """Frames a second of a job from its first recording on, and seconds before that."""
    from outspike.extract.run import extract

    recordings = tuple(map(recording_of, urls))
    manifest = Manifest(name="bench", split="all", recordings=recordings)
    config = ExtractConfig(
        store=StoreConfig(url=str(folder / "store")), encoders=(encoder,), num_actors=workers
    )
    result = extract(config, manifest)
    assert (result.new, result.quarantined) == (len(urls), 0), result.table()
    shutil.rmtree(folder / "store")
    num_frames = result.footage_s * 25
    return num_frames / (result.seconds - result.startup_s), result.startup_s


def recordings_in(folder: Path, number: int, num_frames: int, size: tuple[int, int]) -> list[str]:
    """Videos of a texture that moves over another, all alike."""
    first = folder / "r0.mp4"
    textured_video(first, num_frames, size, (96, 160))
    for i in range(1, number):
        shutil.copy(first, folder / f"r{i}.mp4")
    return [str(folder / f"r{i}.mp4") for i in range(number)]


def encoder_of(kind: str, folder: Path) -> EncoderConfig:
    """The encoder, with random weights where it needs some."""
    if kind != "clip":
        return EncoderConfig(kind=kind)  # type: ignore[arg-type]
    import torch
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    torch.manual_seed(0)
    weights = str(folder / "weights")
    CLIPVisionModelWithProjection(CLIPVisionConfig(patch_size=32)).save_pretrained(weights)
    return EncoderConfig(kind="clip", weights=weights)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--encoder", choices=["event-pyramid", "clip"], default="event-pyramid")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--recordings", type=int, default=6)
    parser.add_argument("--frames", type=int, help="of each; by default 2500, for clip 64")
    parser.add_argument("--size", type=int, nargs=2, default=(480, 640), metavar=("H", "W"))
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--no-job", action="store_true", help="leave Ray and the job out")
    arguments = parser.parse_args()
    num_recordings = arguments.recordings
    num_frames = arguments.frames or (64 if arguments.encoder == "clip" else 2500)
    os.environ["OMP_NUM_THREADS"] = "1"
    from outspike.cluster import ray_session

    clock: dict[str, list[float]] = {kind: [] for kind in ("job", *BARE)}
    processor: dict[str, list[float]] = {kind: [] for kind in BARE}
    startups = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        urls = recordings_in(folder, num_recordings, num_frames, arguments.size)
        encoder = encoder_of(arguments.encoder, folder)
        # a CPU of Ray's is a slot; Ray Data wants one beside the actors
        with nullcontext() if arguments.no_job else ray_session(arguments.workers + 1):
            for _ in range(arguments.rounds):
                if not arguments.no_job:
                    rate, startup = job_rate(urls, encoder, arguments.workers, folder)
                    clock["job"].append(rate)
                    startups.append(startup)
                for kind in BARE:
                    rates = bare_rates(kind, urls, encoder, arguments.workers)
                    clock[kind].append(rates[0])
                    processor[kind].append(rates[1])
    print(
        f"{arguments.encoder}, {arguments.workers} workers, {num_recordings} recordings of "
        f"{num_frames} frames {arguments.size[1]}x{arguments.size[0]}\n\n"
        "| frames a second | by the clock | the job is | of processor time | the actor is |\n"
        "|---|---:|---:|---:|---:|"
    )
    if not arguments.no_job:
        began = f"first recording after {statistics.median(startups):.1f} s"
        print(f"| job, {began} | {shown(clock['job'])} | | | |")
    for kind in BARE:
        of_job = "" if arguments.no_job else f"x{ratio(clock['job'], clock[kind]):.2f}"
        print(
            f"| {kind} | {shown(clock[kind])} | {of_job} | {shown(processor[kind])} "
            f"| x{ratio(processor['actor'], processor[kind]):.2f} |"
        )
    if not arguments.no_job:
        share_cores = 2 * arguments.workers > (os.cpu_count() or 1)
        limit = clock["both"] if share_cores else list(map(min, clock["encode"], clock["decode"]))
        what = "both" if share_cores else "the slower of encode and decode"
        print(f"\nThe limit is {what}: the job reaches x{ratio(clock['job'], limit):.2f} of it.")


def shown(rates: list[float]) -> str:
    """Median over rounds."""
    median = statistics.median(rates)
    return f"{median:.0f}" if median >= 100 else f"{median:.1f}"


def ratio(ours: list[float], theirs: list[float]) -> float:
    """Median over rounds."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


if __name__ == "__main__":
    main()
