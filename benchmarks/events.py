"""Events per second of the event room beside other packages, in one table.

    python benchmarks/events.py [--events 20000000] [--rounds 5] [--only evt3,clips] [--markdown]

Every round runs each implementation of a task once, in turn, and the table has medians over the
rounds: the ratio of a line is between runs that saw the same machine. Rates are per second of
processor time, so that a shared machine does not decide; threads are compared by the clock. A
package that cannot be imported says so in its line. Recordings are in the page cache.

OUTSPIKE_MEDIA names a folder with real recordings; without it, made-up ones take their place.
"""

import argparse
import importlib.util
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from outspike.events.clips import FRAME_US, read_clips
from outspike.events.columns import Events, concatenate
from outspike.events.filters import (
    BackgroundActivity,
    Refractory,
    filter_events,
    find_hot_pixels,
)
from outspike.events.frames import count_frames, windows_by_number, windows_on_grid
from outspike.events.reader import open_events
from outspike.events.simulate import grey, ief_threshold_counts
from outspike.events.surfaces import voxel_grid
from outspike.events.write import EventWriter

SIZE = (1280, 720)
EVENT_BYTES = 13
CHUNK = 1 << 16
Run = Callable[[], object]


@dataclass
class Task:
    """Implementations of the same thing; the first is ours."""

    name: str
    amount: float
    unit: str
    reach: dict[str, float]
    runs: dict[str, Run]
    wall: bool = False
    absent: dict[str, str] = field(default_factory=dict)


# --- recordings ---------------------------------------------------------------------------------


def camera_file(path: Path, num_events: int, version: int) -> int:
    """Words of a real recording again and again, its high times going on; how many events."""
    media = Path(os.environ.get("OUTSPIKE_MEDIA", "")) / "events"
    name = {3: "evt3_gen41_hd.raw", 2: "evt2_gen3_vga.raw"}[version]
    if not (media / name).is_file():
        return written_file(path, num_events, version, per_us=25)
    data = (media / name).read_bytes()
    body = _end_of_header(data)
    dtype, shift = {3: (np.dtype("<u2"), 12), 2: (np.dtype("<u4"), 28)}[version]
    words = np.frombuffer(data[body : len(data) - (len(data) - body) % dtype.itemsize], dtype)
    value_mask = dtype.type((1 << shift) - 1)
    highs = np.flatnonzero(words >> dtype.type(shift) == 8)
    values = words[highs] & value_mask
    span = int(values[-1]) - int(values[0]) + 1
    per_copy = sum(len(chunk) for chunk in open_events(str(media / name)).chunks())
    copies = -(-num_events // per_copy)
    with open(path, "wb") as file:
        file.write(f"% evt {version}.0\n% geometry {SIZE[0]}x{SIZE[1]}\n% end\n".encode())
        for copy in range(copies):
            moved = words.copy()
            later = (values.astype(np.int64) + copy * span) & int(value_mask)
            moved[highs] = later.astype(dtype) | dtype.type(8 << shift)
            file.write(moved.tobytes())
    return copies * per_copy


def _end_of_header(data: bytes) -> int:
    position = 0
    while data.startswith(b"% ", position):
        position = data.index(b"\n", position) + 1
    return position


def written_file(path: Path, num_events: int, version: int, per_us: int = 1) -> int:
    """Random pixels, every event with a row and mostly a time of its own."""
    rng = np.random.default_rng(0)
    with EventWriter(path, format={2: "evt2", 3: "evt3"}[version], size=SIZE) as writer:  # type: ignore[arg-type]
        for start in range(0, num_events, 1 << 20):
            number = np.arange(start, min(start + (1 << 20), num_events), dtype=np.int64)
            columns = [rng.integers(0, side, len(number)) for side in (*SIZE, 2)]
            x, y, p = (c.astype(k) for c, k in zip(columns, ("u2", "u2", "u1"), strict=True))
            writer.push(Events(number // per_us, x, y, p))
    return num_events


def stream(path: Path, num_threads: int = 1) -> int:
    """Decode everything, chunk by chunk."""
    return sum(len(c) for c in open_events(str(path), num_threads=num_threads).chunks(CHUNK))


# --- other packages -----------------------------------------------------------------------------


def has(package: str) -> bool:
    """Whether it can be imported."""
    return importlib.util.find_spec(package) is not None


def with_expelliarmus(path: Path, encoding: str) -> dict[str, Run]:
    """Chunk by chunk as we do, and all at once."""
    from expelliarmus import Wizard

    def chunks() -> int:
        wizard = Wizard(encoding=encoding)
        wizard.set_file(str(path))
        wizard.set_chunk_size(CHUNK)
        return sum(len(chunk) for chunk in wizard.read_chunk())

    return {
        "expelliarmus, chunks": chunks,
        "expelliarmus, whole": lambda: len(Wizard(encoding=encoding).read(str(path))),
    }


def with_faery(path: Path) -> dict[str, Run]:
    """Its stream of structured arrays."""
    import faery

    return {
        "faery": lambda: sum(
            len(packet)
            for packet in faery.events_stream_from_file(str(path), dimensions_fallback=SIZE)
        )
    }


def spikingjelly_utils() -> Any:
    """Its module of event functions, without the rest, which wants torchvision."""
    origin = importlib.util.find_spec("spikingjelly")
    assert origin is not None
    assert origin.submodule_search_locations is not None
    path = Path(origin.submodule_search_locations[0]) / "datasets" / "utils.py"
    stand_in = types.ModuleType("torchvision")
    stand_in.transforms = types.ModuleType("torchvision.transforms")  # type: ignore[attr-defined]
    sys.modules.setdefault("torchvision", stand_in)
    package = types.ModuleType("spikingjelly.datasets")
    package.__path__ = [str(path.parent)]
    sys.modules.setdefault("spikingjelly.datasets", package)
    spec = importlib.util.spec_from_file_location("spikingjelly.datasets.utils", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    del sys.modules["torchvision"]
    return module


def structured(events: Events) -> NDArray[Any]:
    """Rows, as tonic wants them."""
    dtype = [("t", "<i8"), ("x", "<i2"), ("y", "<i2"), ("p", "i1")]
    rows = np.empty(len(events), dtype=dtype)
    for key in ("t", "x", "y", "p"):
        rows[key] = getattr(events, key)
    return rows


# --- tasks --------------------------------------------------------------------------------------


def decode_task(name: str, path: Path, num: int, encoding: str, reach: dict[str, float]) -> Task:
    """Bytes of a file to columns."""
    task = Task(name, num / 1e6, "Mev/s", reach, {"outspike": lambda: stream(path)})
    if has("expelliarmus"):
        task.runs |= with_expelliarmus(path, encoding)
    else:
        task.absent["expelliarmus"] = "not installed"
    if has("faery"):
        task.runs |= with_faery(path)
    else:
        task.absent["faery"] = "not installed"
    return task


def threads_task(path: Path, num: int) -> Task:
    """One thread and two, by the clock."""
    runs: dict[str, Run] = {
        "outspike, 2 threads": lambda: stream(path, 2),
        "outspike, 1 thread": lambda: stream(path),
    }
    return Task("EVT3 decode, threads (clock)", num / 1e6, "Mev/s", {}, runs, wall=True)


def by_number_task(events: Events) -> Task:
    """16 frames with equally many events, in float64 as spikingjelly gives them."""
    width, height = SIZE
    windows = windows_by_number(len(events), 16)

    def ours() -> NDArray[Any]:
        return count_frames(events, windows, SIZE, np.float64)

    def with_bincount() -> NDArray[Any]:
        frames = np.zeros((16, 2 * height * width))
        for frame, start, stop in zip(frames, windows[:-1], windows[1:], strict=True):
            part = events.slice(int(start), int(stop))
            place = (part.p.astype(np.int64) * height + part.y) * width + part.x
            frame[:] = np.bincount(place, minlength=2 * height * width)
        return frames.reshape(16, 2, height, width)

    runs: dict[str, Run] = {"outspike": ours, "np.bincount": with_bincount}
    task = Task("frames by number, float64", len(events) / 1e6, "Mev/s", {"spikingjelly": 5}, runs)
    if has("spikingjelly"):
        integrate = spikingjelly_utils().integrate_events_by_fixed_frames_number
        columns = {key: getattr(events, key) for key in ("t", "x", "y", "p")}
        runs["spikingjelly"] = lambda: integrate(columns, "number", 16, height, width)
        assert np.array_equal(integrate(columns, "number", 16, height, width), ours())
    else:
        task.absent["spikingjelly"] = "not installed"
    assert np.array_equal(with_bincount(), ours())
    return task


def by_duration_task(events: Events) -> Task:
    """Frames of 33,333 us in int16 as tonic gives them."""
    first = int(events.t[0])

    def ours() -> NDArray[Any]:
        windows = windows_on_grid(events.t, FRAME_US, anchor_us=first)
        return count_frames(events, windows, SIZE, np.int16)

    task = Task(
        "frames by duration, int16", len(events) / 1e6, "Mev/s", {"tonic": 15}, {"outspike": ours}
    )
    if has("tonic"):
        from tonic.transforms import ToFrame

        rows, transform = structured(events), ToFrame((*SIZE, 2), time_window=FRAME_US)
        task.runs["tonic"] = lambda: transform(rows)
        found = transform(rows)
        assert np.array_equal(found, ours()[: len(found)])
    else:
        task.absent["tonic"] = "not installed"
    return task


def voxel_task(events: Events) -> Task:
    """Five bins, bilinear in time."""
    width, height = SIZE

    def with_add_at() -> NDArray[Any]:
        grid = np.zeros((5, height, width), dtype=np.float32)
        place = (events.t - events.t[0]) * (4 / max(1, int(events.t[-1] - events.t[0])))
        low = place.astype(np.int64)
        share = (place - low).astype(np.float32)
        sign = np.where(events.p > 0, np.float32(1), np.float32(-1))
        np.add.at(grid, (low, events.y, events.x), sign * (1 - share))
        inside = low < 4
        np.add.at(
            grid,
            (low[inside] + 1, events.y[inside], events.x[inside]),
            (sign * share)[inside],
        )
        return grid

    assert np.abs(with_add_at() - voxel_grid(events, 5, SIZE)).max() < 1e-2
    runs: dict[str, Run] = {
        "outspike": lambda: voxel_grid(events, 5, SIZE),
        "np.add.at": with_add_at,
    }
    return Task("voxel grid, 5 bins", len(events) / 1e6, "Mev/s", {"np.add.at": 3}, runs)


def filters_tasks(events: Events) -> list[Task]:
    """Each filter beside the same in plain NumPy, which holds all events and sorts them."""
    chunks = [events.slice(start, start + CHUNK) for start in range(0, len(events), CHUNK)]
    hot = find_hot_pixels(chunks, SIZE)
    pairs: dict[str, tuple[Run, Run]] = {
        "find hot pixels": (
            lambda: find_hot_pixels(chunks, SIZE),
            lambda: numpy_hot_pixels(events, hot),
        ),
        "background activity, 10 ms": (
            lambda: list(filter_events(chunks, [BackgroundActivity(SIZE)])),
            lambda: numpy_background(events, 10_000),
        ),
        "refractory, 1 ms": (
            lambda: list(filter_events(chunks, [Refractory(SIZE)])),
            lambda: numpy_refractory(events, 1_000),
        ),
    }
    kept = concatenate(list(filter_events(chunks, [BackgroundActivity(SIZE)])))
    assert np.array_equal(kept.t, events.t[numpy_background(events, 10_000)])
    kept = concatenate(list(filter_events(chunks, [Refractory(SIZE)])))
    assert np.array_equal(kept.t, events.t[numpy_refractory(events, 1_000)])
    assert np.array_equal(numpy_hot_pixels(events, hot), hot)
    return [
        Task(name, len(events) / 1e6, "Mev/s", {}, {"outspike": ours, "plain NumPy": plain})
        for name, (ours, plain) in pairs.items()
    ]


def numpy_hot_pixels(events: Events, like: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """More than ten times the second busiest pixel around, and ten events a second."""
    counts = np.zeros(like.shape, dtype=np.int64)
    np.add.at(counts, (events.y, events.x), 1)
    around = np.lib.stride_tricks.sliding_window_view(np.pad(counts, 1), (3, 3))
    neighbours = np.delete(around.reshape(*like.shape, 9), 4, axis=-1)
    second = np.partition(neighbours, -2, axis=-1)[..., -2]
    seconds = (int(events.t.max()) - int(events.t[0])) / 1e6
    hot: NDArray[np.bool_] = (counts > 10 * np.maximum(second, 1)) & (counts > 10 * seconds)
    return hot


def numpy_background(events: Events, window_us: int) -> NDArray[np.bool_]:
    """Whether the last event before it in one of the eight pixels around is near enough.

    Events sorted by pixel and number; eight binary searches for each event.
    """
    num, width = len(events), SIZE[0] + 2
    pixel = (events.y.astype(np.int64) + 1) * width + events.x + 1
    keys = np.sort(pixel * num + np.arange(num))
    near = np.zeros(num, dtype=bool)
    for step in (-width - 1, -width, 1 - width, -1, 1, width - 1, width, width + 1):
        place = np.searchsorted(keys, (pixel + step) * num + np.arange(num)) - 1
        before = keys[np.maximum(place, 0)]
        same = (place >= 0) & (before // num == pixel + step)
        near |= same & (events.t - events.t[before % num] <= window_us)
    return near


def numpy_refractory(events: Events, period_us: int) -> NDArray[np.bool_]:
    """Events sorted by pixel and time; round by round the next of each pixel that stays."""
    pixel = events.y.astype(np.int64) * SIZE[0] + events.x
    order = np.lexsort((np.arange(len(events)), pixel))
    span = int(events.t[-1] - events.t[0]) + period_us + 1
    keys = pixel[order] * span + (events.t[order] - events.t[0])
    following = np.searchsorted(keys, keys + period_us)
    kept = np.zeros(len(events), dtype=bool)
    current = np.unique(pixel[order], return_index=True)[1]
    while len(current):
        kept[order[current]] = True
        after = following[current]
        inside = after < len(keys)
        inside[inside] = pixel[order[after[inside]]] == pixel[order[current[inside]]]
        current = after[inside]
    return kept


def clips_task(path: Path, num: int) -> Task:
    """Raw file to 16-frame clips of 224x224."""
    task = Task(
        "raw file to 16x224x224 clips",
        num / 1e6,
        "Mev/s",
        {"expelliarmus + published loop": 12},
        {"outspike": lambda: sum(len(clip) for clip in read_clips(open_events(str(path))))},
    )
    if has("expelliarmus"):
        task.runs["expelliarmus + published loop"] = lambda: published_clips(path)
    else:
        task.absent["expelliarmus + published loop"] = "not installed"
    return task


def published_clips(path: Path) -> int:
    """Read all, cut into clips of 16 frames, count each frame in float64, resize it, as float32."""
    import torch
    from expelliarmus import Wizard

    width, height = SIZE
    events = Wizard(encoding="evt3").read(str(path))
    duration = 16 * FRAME_US
    window = (events["t"] - events["t"][0]) // duration
    total = 0
    for number in range(int(window.max()) + 1):
        clip = events[window == number]
        per_frame = max(1, len(clip) // 16)
        for frame in range(16):
            stop = (frame + 1) * per_frame if frame < 15 else len(clip)
            part = clip[frame * per_frame : stop]
            counts = np.zeros((2, height * width))
            for polarity in (0, 1):
                chosen = part[part["p"] == polarity]
                place = chosen["y"].astype(int) * width + chosen["x"].astype(int)
                found = np.bincount(place)
                counts[polarity, : len(found)] += found
            picture = torch.from_numpy(counts.reshape(1, 2, height, width))
            resized = torch.nn.functional.interpolate(picture, (224, 224), mode="bilinear")
            total += len(resized.float())
    return total


def threshold_task(num_frames: int) -> Task:
    """Threshold counts of a 320x240 video."""
    rng = np.random.default_rng(0)
    steps = rng.integers(-9, 10, (num_frames, 240, 320, 3)).cumsum(axis=0)
    snippets = np.clip(128 + steps, 0, 255).astype(np.uint8).reshape(-1, 16, 240, 320, 3)

    def published() -> NDArray[Any]:
        moved = np.abs(np.diff(grey(snippets), axis=1)) > np.float32(10)
        counts: NDArray[Any] = moved.sum(axis=1, dtype=np.float32)
        return counts

    assert np.array_equal(published(), ief_threshold_counts(snippets))
    runs: dict[str, Run] = {
        "outspike": lambda: ief_threshold_counts(snippets),
        "published arithmetic": published,
    }
    return Task(
        "threshold events, 320x240", num_frames, "frames/s", {"published arithmetic": 15}, runs
    )


# --- measuring ----------------------------------------------------------------------------------


def rise_of_memory(run: Run) -> float:
    """Megabytes that a run needs beyond what was there, in a process of its own."""
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()

    def child() -> None:
        process = psutil.Process()
        before = process.memory_info().rss
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        run()
        status = Path("/proc/self/status").read_text()
        peak = next(int(line.split()[1]) for line in status.splitlines() if "VmHWM" in line)
        queue.put(peak * 1024 - before)

    worker = context.Process(target=child)
    worker.start()
    worker.join()
    return queue.get() / 1e6 if worker.exitcode == 0 else float("nan")


def bandwidth() -> float:
    """Gigabytes a second that a copy reads and writes, in processor time."""
    source = np.ones(1 << 25)
    target = np.empty_like(source)
    rates = []
    for _ in range(5):
        began = time.process_time()
        np.copyto(target, source)
        rates.append(2 * source.nbytes / 1e9 / (time.process_time() - began))
    return statistics.median(rates)


def measure(task: Task, rounds: int) -> dict[str, tuple[float, float]]:
    """Median rate and megabytes of each implementation; one round before, which does not count."""
    clock = time.perf_counter if task.wall else time.process_time
    rates: dict[str, list[float]] = {name: [] for name in task.runs}
    for number in range(rounds + 1):
        for name, run in task.runs.items():
            began = clock()
            run()
            if number:
                rates[name].append(task.amount / (clock() - began))
    return {
        name: (statistics.median(found), rise_of_memory(task.runs[name]))
        for name, found in rates.items()
    }


def lines(task: Task, found: dict[str, tuple[float, float]], limit: float) -> list[list[str]]:
    """Rows of the table."""
    ours = next(iter(found.values()))[0]
    rows = []
    for number, (name, (rate, megabytes)) in enumerate(found.items()):
        reach = next((v for key, v in task.reach.items() if name.startswith(key)), None)
        near = ""
        if number == 0 and task.unit == "Mev/s":
            near = f"{rate * 1e6 * EVENT_BYTES / (limit * 1e9):.0%}"
        ratio = "" if number == 0 else f"x{ours / rate:.1f}"
        wanted = "" if reach is None else f"x{reach:g} {'yes' if ours / rate >= reach else 'NO'}"
        rows.append(
            [
                task.name,
                name,
                f"{rate:.{0 if rate >= 10 else 1}f} {task.unit}",
                ratio,
                wanted,
                f"{megabytes:.0f}",
                near,
            ]
        )
    rows += [[task.name, name, why, "", "", "", ""] for name, why in task.absent.items()]
    return rows


HEADER = ["task", "implementation", "rate", "ours is", "reach", "MB", "of bandwidth"]


def markdown(row: list[str]) -> str:
    """A row of the table for a page."""
    return "| " + " | ".join(row) + " |"


def show(rows: list[list[str]]) -> str:
    """The table for a terminal."""
    widths = [max(len(row[i]) for row in [HEADER, *rows]) for i in range(len(HEADER))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in [HEADER, *rows]
    )


def tasks(folder: Path, num_events: int, chosen: list[str]) -> list[Task]:
    """What is asked for."""
    found = []

    def wanted(key: str) -> bool:
        return not chosen or key in chosen

    camera = folder / "camera3.raw"
    num_camera = camera_file(camera, num_events, 3)
    if wanted("evt3"):
        reach = {"expelliarmus, chunks": 2.0, "expelliarmus, whole": 2.0, "faery": 5.0}
        found.append(decode_task("EVT3 decode, camera's words", camera, num_camera, "evt3", reach))
        single = folder / "single3.raw"
        num = written_file(single, num_events, 3)
        found.append(decode_task("EVT3 decode, single events", single, num, "evt3", reach))
    if wanted("evt2"):
        second = folder / "camera2.raw"
        num = camera_file(second, num_events, 2)
        reach = {"expelliarmus, chunks": 1.2, "expelliarmus, whole": 1.2}
        found.append(decode_task("EVT2 decode, camera's words", second, num, "evt2", reach))
    if wanted("threads"):
        found.append(threads_task(camera, num_camera))
    if any(wanted(key) for key in ("number", "duration", "voxel", "filters")):
        events = concatenate(list(open_events(str(camera)).chunks(CHUNK)))
        if wanted("number"):
            found.append(by_number_task(events))
        if wanted("duration"):
            found.append(by_duration_task(events))
        if wanted("voxel"):
            found.append(voxel_task(events))
        if wanted("filters"):
            found += filters_tasks(events.slice(0, 1_000_000))
    if wanted("clips"):
        found.append(clips_task(camera, num_camera))
    if wanted("threshold"):
        found.append(threshold_task(320))
    return found


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--events", type=int, default=20_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--only", default="", help="evt3,evt2,threads,number,duration,voxel,filters,clips,threshold"
    )
    parser.add_argument("--markdown", action="store_true")
    options = parser.parse_args()
    chosen = [key for key in options.only.split(",") if key]
    limit, load = bandwidth(), os.getloadavg()[0]
    print(
        f"a copy moves {limit:.1f} GB/s; an event has {EVENT_BYTES} bytes; load before {load:.1f}\n"
    )
    if options.markdown:
        print(markdown(HEADER), markdown(["---"] * len(HEADER)), sep="\n", flush=True)
    rows: list[list[str]] = []
    with tempfile.TemporaryDirectory() as folder:
        for task in tasks(Path(folder), options.events, chosen):
            found = lines(task, measure(task, options.rounds), limit)
            rows += found
            if options.markdown:
                print("\n".join(markdown(row) for row in found), flush=True)
            else:
                print(f"{task.name}: done", file=sys.stderr, flush=True)
    if not options.markdown:
        print(show(rows))


if __name__ == "__main__":
    main()
