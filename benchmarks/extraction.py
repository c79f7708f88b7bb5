"""A whole extraction job against its parts: the bare encoder, the bare decoder, both in one loop.

    python benchmarks/extraction.py [--encoder event-pyramid] [--workers 1] [--rounds 3]
    python benchmarks/extraction.py --encoder clip --frames 64 --recordings 2

The job is ``extract`` on a Ray that runs: actors, decoding children, segments, read-back and
commits. Its rate is counted from the moment the first actor took its first recording to the end of
the job; what comes before (actors that import, load weights and check the sample) is told apart.
The limits are the rates of as many bare processes as the job has workers, on the same recordings:

* ``encode``: the encoder on frames that lie in memory;
* ``decode``: decoding to RGB and nothing else;
* ``both``: one after the other in a loop, which is the plainest program that does the work.

A job cannot beat the slower of the first two, nor, where workers and children fill all cores, the
third by much. Forms take turns; ratios are within a round. ``clip`` is a ViT-B/32 with random
weights, centre crop, one thread.
"""

import argparse
import multiprocessing
import os
import shutil
import statistics
import tempfile
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from outspike.config import EncoderConfig, ExtractConfig, StoreConfig
from outspike.datasets.manifest import Manifest
from outspike.recording import Recording
from outspike.video.write import write_mp4

_CHUNK_FRAMES = 16


def bare(kind: str, urls: list[str], encoder: EncoderConfig, ready: Any, done: Any) -> None:
    """One bare process: everything is loaded and warm before the barrier, then the clock runs."""
    import torch

    from outspike.encoders import build
    from outspike.encoders.base import SourceInfo
    from outspike.video.decode import decode
    from outspike.video.probe import probe

    torch.set_num_threads(1)
    built = build(encoder)
    info = probe(urls[0])
    width, height = info.display_size
    source = SourceInfo(modality="video", width=width, height=height, fps=info.fps)
    held = list(decode(urls[0], chunk_frames=_CHUNK_FRAMES)) if kind == "encode" else []
    stream = built.open(source)
    for chunk in held[:1] or [next(decode(urls[0], chunk_frames=_CHUNK_FRAMES))]:
        stream.push(chunk)
    ready.wait()
    began, num_frames = time.monotonic(), 0
    for url in urls:
        stream, of_video = built.open(source), 0
        for chunk in held or decode(url, chunk_frames=_CHUNK_FRAMES):
            if kind != "decode":
                stream.push(chunk)
            of_video += len(chunk.frames)
        if kind != "decode":
            stream.finish(of_video)
        num_frames += of_video
    done.put((num_frames, began, time.monotonic()))


def bare_rate(kind: str, urls: list[str], encoder: EncoderConfig, workers: int) -> float:
    """Frames a second of ``workers`` bare processes that share the recordings."""
    context = multiprocessing.get_context("spawn")
    ready, done = context.Barrier(workers), context.Queue()
    shares = [urls[i::workers] for i in range(workers)]
    processes = [
        context.Process(target=bare, args=(kind, share, encoder, ready, done)) for share in shares
    ]
    for process in processes:
        process.start()
    results = [done.get() for _ in processes]
    for process in processes:
        process.join()
    frames, begins, ends = zip(*results, strict=True)
    return float(sum(frames) / (max(ends) - min(begins)))


def job_rate(
    urls: list[str], encoder: EncoderConfig, workers: int, folder: Path
) -> tuple[float, float]:
    """Frames a second of a job from its first recording on, and seconds before that."""
    from outspike.extract.run import extract

    recordings = tuple(Recording(dataset="bench", video_id=Path(url).stem, url=url) for url in urls)
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
    height, width = size
    rng = np.random.default_rng(0)
    wall, patch = (np.kron(rng.integers(0, 256, (96, 160, 3)), np.ones((8, 8, 1))) for _ in "ab")

    def frame(i: int) -> NDArray[np.uint8]:
        picture = wall[:height, :width].copy()
        left = 3 * i % (width - 100)
        picture[100:200, left : left + 100] = patch[:100, :100]
        return picture.astype(np.uint8)

    first = folder / "r0.mp4"
    write_mp4(first, (frame(i) for i in range(num_frames)), fps=Fraction(25), crf=23)
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
    parser.add_argument("--recordings", type=int, default=8)
    parser.add_argument("--frames", type=int, default=600)
    parser.add_argument("--size", type=int, nargs=2, default=(480, 640), metavar=("H", "W"))
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    from outspike.cluster import ray_session

    rates: dict[str, list[float]] = {"job": [], "encode": [], "decode": [], "both": []}
    startups = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        urls = recordings_in(folder, arguments.recordings, arguments.frames, arguments.size)
        encoder = encoder_of(arguments.encoder, folder)
        # a CPU of Ray's is a slot; Ray Data wants one beside the actors
        with ray_session(arguments.workers + 1):
            for _ in range(arguments.rounds):
                rate, startup = job_rate(urls, encoder, arguments.workers, folder)
                rates["job"].append(rate)
                startups.append(startup)
                for kind in ("encode", "decode", "both"):
                    rates[kind].append(bare_rate(kind, urls, encoder, arguments.workers))
    print(
        f"{arguments.encoder}, {arguments.workers} workers, {arguments.recordings} recordings of "
        f"{arguments.frames} frames {arguments.size[1]}x{arguments.size[0]}; first recording "
        f"{statistics.median(startups):.1f} s after the job began\n\n"
        "| frames a second | rate | the job is |\n|---|---:|---:|"
    )
    for kind, values in rates.items():
        ratio = statistics.median(a / b for a, b in zip(rates["job"], values, strict=True))
        print(f"| {kind} | {statistics.median(values):.0f} | x{ratio:.2f} |")


if __name__ == "__main__":
    main()
