"""Memory of an extraction job does not grow with the length of a recording.

The lengths are minutes of what the promise is about; ``OUTSPIKE_LONG=30`` makes the longer video an
hour of 1080p and the longer recording two billion events, in hours of run time.
"""

import json
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from outspike.events.columns import Events
from outspike.events.write import EventWriter
from outspike.video.write import write_mp4

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

LONG = float(os.environ.get("OUTSPIKE_LONG", "1"))
#: Frames (25 a second) and events of the longer recording; the shorter is a quarter of it.
NUM_FRAMES = int(3000 * LONG)
NUM_EVENTS = int(67_000_000 * LONG)

_MOST_MB = 800
_GROWTH_MB = 40
_MOST_OBJECT_STORE_BYTES = 100_000
_TIMEOUT_S = 1800 * max(1.0, LONG)

#: A whole job on a Ray of its own, of one recording or of several by other names. Peaks are the
#: system's (VmHWM); what went through the object store since Ray began is told by no public call,
#: so this asks the node itself.
_JOB = """
import json, sys, threading
from contextlib import suppress
from pathlib import Path
import psutil, ray
from ray._private.internal_api import node_stats
from outspike.cluster import ray_session
from outspike.config import EncoderConfig, ExtractConfig, StoreConfig
from outspike.datasets.manifest import Manifest
from outspike.extract.run import extract
from outspike.recording import Recording

url, modality, store, number = sys.argv[1:]
config = ExtractConfig(
    store=StoreConfig(url=store),
    encoders=(EncoderConfig(kind="event-pyramid"),),
    num_actors=1,
    decode_timeout_s=86400.0,
)
recordings = tuple(
    Recording(dataset="d", video_id=f"{i}", url=url, modality=modality) for i in range(int(number))
)
peaks = {"actor_mb": 0.0, "child_mb": 0.0}
over = threading.Event()

def peak_mb(process):
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024

def look():
    for process in psutil.Process().children(recursive=True):
        if not "".join(process.cmdline()[:1]).startswith("ray::MapWorker"):
            continue
        peaks["actor_mb"] = max(peaks["actor_mb"], peak_mb(process))
        for child in process.children():
            peaks["child_mb"] = max(peaks["child_mb"], peak_mb(child))

def watch():
    while not over.wait(0.5):
        with suppress(psutil.Error, OSError, IndexError):  # a process that has just ended
            look()

with ray_session(2):
    watcher = threading.Thread(target=watch)
    watcher.start()
    result = extract(config, Manifest(name="d", split="all", recordings=recordings))
    over.set()
    watcher.join()
    assert result.new == len(recordings), result.table()
    (node,) = ray.nodes()
    told = node_stats(node["NodeManagerAddress"], node["NodeManagerPort"]).store_stats
print(json.dumps(peaks | {
    "object_store_bytes": told.cumulative_created_bytes,
    "footage_s": result.footage_s,
    "seconds": round(result.seconds - result.startup_s, 1),
}))
"""


def extracted(
    path: Path, modality: str, repository: Path, folder: Path, number: int = 1
) -> dict[str, float]:
    """Peak memory and counts of a job over one recording, or over it by several names."""
    store = str(folder / f"store-{path.stem}-{number}")
    own = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    done = subprocess.run(
        [sys.executable, "-c", _JOB, str(path), modality, store, str(number)],
        env=own | {"PYTHONPATH": str(repository / "platform"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    print(path.name, found)
    return found


def check_constant(short: dict[str, float], long: dict[str, float]) -> None:
    for who in ("actor_mb", "child_mb"):
        assert 0 < long[who] < short[who] + _GROWTH_MB, (who, short, long)
    assert long["actor_mb"] + long["child_mb"] < _MOST_MB
    assert long["object_store_bytes"] < short["object_store_bytes"] + 1000, (short, long)
    assert 0 < long["object_store_bytes"] < _MOST_OBJECT_STORE_BYTES


def long_video(path: Path, num_frames: int, second: Path) -> None:
    """Repeat one second of video, packet by packet, without encoding it again."""
    if not second.exists():
        rng = np.random.default_rng(0)
        wall = rng.integers(60, 180, (1080, 1920, 3), dtype=np.uint8)
        wall = np.repeat(np.repeat(wall[::12, ::12], 12, axis=0), 12, axis=1)
        write_mp4(
            second, (np.roll(wall, 8 * i, axis=1) for i in range(25)), fps=Fraction(25), crf=30
        )
    with av.open(str(second)) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        packets = [
            (bytes(p), p.pts or 0, p.dts or 0, p.is_keyframe, p.time_base)
            for p in source.demux(video=0)
            if p.size
        ]
        length = int(1 / packets[0][4])
        for repeat in range(num_frames // 25):
            for data, pts, dts, is_key, time_base in packets:
                packet = av.Packet(data)
                packet.stream, packet.time_base, packet.is_keyframe = stream, time_base, is_key
                packet.pts, packet.dts = pts + repeat * length, dts + repeat * length
                target.mux(packet)


def long_events(path: Path, num_events: int) -> None:
    """Two million events a second on a sensor of 640x480, written piece by piece."""
    rng = np.random.default_rng(0)
    piece = 2_000_000
    x, y = rng.integers(0, 640, piece), rng.integers(0, 480, piece)
    p, t = rng.integers(0, 2, piece), np.arange(piece, dtype=np.int64) // 2
    with EventWriter(path, format="evt2", size=(640, 480)) as writer:
        for number in range(num_events // piece):
            writer.push(
                Events(
                    t + number * 1_000_000,
                    np.roll(x, number).astype(np.uint16),
                    np.roll(y, number * 3).astype(np.uint16),
                    p.astype(np.uint8),
                )
            )


def test_memory_is_constant_in_the_length_of_a_1080p_video(
    repository: Path, tmp_path: Path
) -> None:
    found = []
    for name, num_frames in (("short", NUM_FRAMES // 4), ("long", NUM_FRAMES)):
        path = tmp_path / f"{name}.mp4"
        long_video(path, num_frames, tmp_path / "second.mp4")
        found.append(extracted(path, "video", repository, tmp_path))
        assert found[-1]["footage_s"] == num_frames // 25
    check_constant(*found)


def test_memory_is_constant_in_the_number_of_events(repository: Path, tmp_path: Path) -> None:
    found = []
    for name, num_events in (("short", NUM_EVENTS // 4), ("long", NUM_EVENTS)):
        path = tmp_path / f"{name}.raw"
        long_events(path, num_events)
        found.append(extracted(path, "events", repository, tmp_path))
        path.unlink()
    check_constant(*found)


def test_the_object_store_holds_less_than_a_kilobyte_a_recording(
    repository: Path, tmp_path: Path
) -> None:
    path = tmp_path / "short.mp4"
    long_video(path, 25, tmp_path / "second.mp4")
    one, many = (extracted(path, "video", repository, tmp_path, number) for number in (1, 40))
    assert 0 < many["object_store_bytes"] - one["object_store_bytes"] < 39_000
