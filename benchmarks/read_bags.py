"""The store against other ways of keeping features: reads, writes, S3, and the catalog.

    python benchmarks/read_bags.py [local|s3|write|catalog ...] [--rounds 7] [--bags 256]

Peers hold the same random bags [S, 512] in float16: safetensors (one file), HDF5, one ``.npy`` file
a recording (read, or memory-mapped), tensorstore and zarr-python (the store's own shards). Every
round runs each reader in turn over one random order; figures are medians over the rounds, ratios
are taken within a round. Files are in the page cache, as in a second epoch. ``pip install
outspike[bench]`` has the peers; those that are not installed are left out.
"""

import argparse
import importlib.util
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import zarr
from deltalake import write_deltalake
from numpy.typing import NDArray

from outspike.recording import Recording
from outspike.store.arrays import zarr_store
from outspike.store.bags import BagReader
from outspike.store.catalog import CATALOG_SCHEMA, Receipt
from outspike.store.delta import open_table
from outspike.store.fingerprint import FeatureSetSpec
from outspike.store.layout import new_id
from outspike.store.store import FeatureStore
from outspike.urls import SourceStat

WIDTH = 512
BATCH = 64
WINDOW = 256
SPEC = FeatureSetSpec(name="bench", document={"encoder": "bench"}, num_crops=1, width=WIDTH)
Rows = NDArray[np.float16]
Work = Callable[[], object]


@dataclass(frozen=True)
class Case:
    """One thing that is timed: what does it, how many units it does, what a unit weighs."""

    name: str
    work: Work
    units: int
    unit_mb: float
    unit: str = "bags/s"


def compare(cases: Iterable[Case], rounds: int, title: str) -> None:
    """Run all cases in turn, several rounds, and print medians and ratios to the first.

    By the clock; the last column is the rate by the processor's time, in all threads.
    """
    cases = list(cases)
    for case in cases:
        case.work()  # opens files, compiles, fills caches
    times: dict[str, list[tuple[float, float]]] = {case.name: [] for case in cases}
    for _ in range(rounds):
        for case in cases:
            began = _now()
            case.work()
            _note(times, case.name, began)
    print(
        f"\n{title}\n\n| | {cases[0].unit} | MB/s | ours is | MB/s of processor time |\n"
        "|---|---:|---:|---:|---:|"
    )
    for case in cases:
        clock, processor = np.median(times[case.name], axis=0)
        ratio = statistics.median(
            (theirs / case.units) / (mine / cases[0].units)
            for (mine, _), (theirs, _) in zip(times[cases[0].name], times[case.name], strict=True)
        )
        rate, size = case.units / clock, case.units * case.unit_mb
        print(
            f"| {case.name} | {rate:,.0f} | {size / clock:,.0f} | {ratio:.2f}x "
            f"| {size / processor:,.0f} |",
            flush=True,
        )


def bags_of(num_bags: int, num_snippets: int, seed: int = 0) -> list[Rows]:
    """Random bags ``[S, 1, 512]``."""
    rng = np.random.default_rng(seed)
    shape = (num_snippets, 1, WIDTH)
    return [
        rng.standard_normal(shape, dtype=np.float32).astype(np.float16) for _ in range(num_bags)
    ]


def fill(store: FeatureStore, bags: list[Rows]) -> FeatureStore:
    """The bags in a store, committed."""
    with store.segment_writer(SPEC) as writer:
        for number, rows in enumerate(bags):
            start = np.arange(len(rows)) * 16
            recording = Recording(dataset="bench", video_id=f"{number:05d}", url="none")
            writer.begin(recording, stat=SourceStat(url="none", size=0, etag=str(number)))
            writer.append(rows, start, start + 16)
            writer.end(num_frames=16 * len(rows), fps=Fraction(25))
    store.commit(writer.drain())
    return FeatureStore.open(store.url)


def each(read: Callable[[int], object], order: list[int]) -> Work:
    """Read bags one after the other and let go of each."""
    return lambda: deque((read(number) for number in order), 0)


def padded(read: Callable[[int, int, int], Rows], order: list[int], windows: Any) -> Work:
    """What a peer has to do for batches: read each window and copy it into a padded array."""

    def work() -> None:
        for first in range(0, len(order), BATCH):
            chosen = order[first : first + BATCH]
            longest = max(windows[n][1] - windows[n][0] for n in chosen)
            out = np.zeros((len(chosen), 1, longest, WIDTH), np.float16)
            for place, number in enumerate(chosen):
                low, high = windows[number]
                out[place, 0, : high - low] = read(number, low, high)

    return work


def batched(reader: BagReader, order: list[int], windows: Any) -> Work:
    """The same through ``read_bags``, into fresh memory each time."""
    keys = reader.keys()

    def work() -> None:
        for first in range(0, len(order), BATCH):
            chosen = order[first : first + BATCH]
            reader.read_bags([keys[n] for n in chosen], [windows[n] for n in chosen])

    return work


def local(options: argparse.Namespace) -> None:
    """Whole bags, one by one and in batches, and random windows, from a local disk."""
    for num_snippets in (400, 64):
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            _local(Path(folder), options, num_snippets)


def _local(folder: Path, options: argparse.Namespace, num_snippets: int) -> None:
    bags = bags_of(options.bags, num_snippets)
    store = fill(FeatureStore.create(str(folder / "store")), bags)
    reader = BagReader(store, ["bench"])
    keys = reader.keys()
    peers = _peers(folder, store, bags)
    for name, read in peers.items():
        for number, rows in enumerate(bags[:20]):
            assert np.array_equal(np.asarray(read(number, 0, num_snippets)), rows[:, 0]), name
            found = reader.read(keys[number]).features["bench"]
            assert np.array_equal(found[0], rows[:, 0])
    rng = np.random.default_rng(1)
    order = rng.permutation(options.bags).tolist()
    size = num_snippets * WIDTH * 2 / 1e6
    whole = dict.fromkeys(order, (0, num_snippets))
    make = partial(Case, units=options.bags, unit_mb=size)
    singles = [make("outspike read", each(lambda n: reader.read(keys[n]), order))]
    views = [
        make("outspike read, copy=False", each(lambda n: reader.read(keys[n], copy=False), order))
    ]
    for name, read in peers.items():
        case = make(name, each(lambda n, read=read: read(n, 0, num_snippets), order))
        (views if "(view)" in name else singles).append(case)
    shape = f"[{num_snippets}, {WIDTH}] float16"
    compare(singles, options.rounds, f"Whole bags {shape}, one per call, copied")
    compare(views, options.rounds, f"Whole bags {shape}, one per call, no bytes moved")
    batches = [make("outspike read_bags", batched(reader, order, whole))]
    batches += [make(name, padded(read, order, whole)) for name, read in peers.items()]
    compare(batches, options.rounds, f"Whole bags {shape}, padded batches of {BATCH}")
    if num_snippets > WINDOW:
        starts = rng.integers(0, num_snippets - WINDOW, options.bags).tolist()
        windows = {n: (start, start + WINDOW) for n, start in enumerate(starts)}
        make = partial(Case, units=options.bags, unit_mb=WINDOW * WIDTH * 2 / 1e6)
        cases = [make("outspike read_bags", batched(reader, order, windows))]
        cases += [make(name, padded(read, order, windows)) for name, read in peers.items()]
        compare(
            cases, options.rounds, f"Random windows of {WINDOW} rows, padded batches of {BATCH}"
        )


def _peers(
    folder: Path, store: FeatureStore, bags: list[Rows]
) -> dict[str, Callable[[int, int, int], Any]]:
    """Functions that give rows ``[low, high)`` of a bag, ``[s, 512]``."""
    names = [f"{number:05d}" for number in range(len(bags))]
    for name, rows in zip(names, bags, strict=True):
        np.save(folder / f"{name}.npy", rows[:, 0])
    rows_of = store.extents.sort_by("video_id").to_pylist()
    paths = {
        row["segment"]: f"{store.url}/features/{row['feature_set']}/{row['segment']}/features"
        for row in rows_of
    }
    found: dict[str, Callable[[int, int, int], Any]] = {}
    if _has("safetensors"):
        from safetensors import safe_open
        from safetensors.numpy import save_file

        save_file({n: rows[:, 0] for n, rows in zip(names, bags, strict=True)}, folder / "st")
        copying, viewing = (safe_open(folder / "st", framework=kind) for kind in ("np", "pt"))
        found["safetensors"] = lambda n, low, high: (
            copying.get_tensor(names[n])
            if high - low == len(bags[n])
            else copying.get_slice(names[n])[low:high]
        )
        found["safetensors torch (view)"] = lambda n, low, high: viewing.get_tensor(names[n])[
            low:high
        ]
    if _has("h5py"):
        import h5py

        with h5py.File(folder / "h5", "w") as file:
            for name, rows in zip(names, bags, strict=True):
                file[name] = rows[:, 0]
        hdf = h5py.File(folder / "h5", "r")
        found["HDF5"] = lambda n, low, high: hdf[names[n]][low:high]
    found["npy, read"] = lambda n, low, high: np.load(folder / f"{names[n]}.npy")[low:high]
    found["npy, mapped"] = lambda n, low, high: np.array(
        np.load(folder / f"{names[n]}.npy", mmap_mode="r")[low:high]
    )
    if _has("tensorstore"):
        import tensorstore

        spec = {"driver": "zarr3", "kvstore": {"driver": "file"}}
        opened = {
            segment: tensorstore.open(
                {**spec, "kvstore": {"driver": "file", "path": path}}, read=True
            ).result()
            for segment, path in paths.items()
        }
        found["tensorstore"] = lambda n, low, high: (
            opened[rows_of[n]["segment"]][
                rows_of[n]["row_start"] + low : rows_of[n]["row_start"] + high, 0
            ]
            .read()
            .result()
        )
    arrays: dict[str, Any] = {s: zarr.open_array(path, mode="r") for s, path in paths.items()}
    found["zarr-python"] = lambda n, low, high: np.asarray(
        arrays[rows_of[n]["segment"]][
            rows_of[n]["row_start"] + low : rows_of[n]["row_start"] + high
        ]
    )[:, 0]
    return found


def write(options: argparse.Namespace) -> None:
    """Writing: the store (checks, crc, read-back and commit included), npy files, zarr alone."""
    bags = bags_of(options.bags, 400)
    total = sum(rows.nbytes for rows in bags) / 1e6
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder, count = Path(name), iter(range(10**6))
        store = FeatureStore.create(str(folder / "store"))

        def ours() -> None:
            fill(store, bags)

        def npy() -> None:
            target = folder / f"npy{next(count)}"
            target.mkdir()
            for number, rows in enumerate(bags):
                np.save(target / f"{number}.npy", rows)

        def sharded() -> None:
            array = zarr.create_array(
                folder / f"zarr{next(count)}",
                shape=(len(bags) * 400, 1, WIDTH),
                dtype="float16",
                chunks=(32, 1, WIDTH),
                shards=(32 * 2000, 1, WIDTH),
                compressors=None,
            )
            for first in range(0, len(bags), 160):
                part = np.concatenate(bags[first : first + 160])
                array[first * 400 : first * 400 + len(part)] = part

        make = partial(Case, units=1, unit_mb=total, unit="sets/s")
        cases = [
            make("outspike", ours),
            make("npy files", npy),
            make("zarr-python, sharded", sharded),
        ]
        compare(cases, max(3, options.rounds // 2), f"Writing {len(bags)} bags, {total:.0f} MB")


def s3(options: argparse.Namespace) -> None:
    """Reads from an S3 server whose every answer takes 20 ms to begin."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    upstream = "http://{}:{}".format(*server.get_host_and_port())
    os.environ.update(
        AWS_ENDPOINT_URL=upstream,
        AWS_ALLOW_HTTP="true",
        AWS_ACCESS_KEY_ID="bench",
        AWS_SECRET_ACCESS_KEY="bench",
        AWS_REGION="us-east-1",
    )
    boto3.client("s3", endpoint_url=upstream).create_bucket(Bucket="bench")
    num_bags, num_snippets = 64, 600
    bags = bags_of(num_bags, num_snippets)
    store = fill(FeatureStore.create("s3://bench/store"), bags)
    from outspike import urls

    fs = urls.filesystem("s3://bench")
    for number, rows in enumerate(bags):
        with fs.open(f"bench/npy/{number}.npy", "wb") as file:
            np.save(file, rows[:, 0])
    script = [sys.executable, str(Path(__file__).with_name("s3_proxy.py")), upstream]
    proxy = subprocess.Popen(
        [*script, "--delay", "0.02", "--keep"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert proxy.stdin is not None
    assert proxy.stdout is not None
    os.environ["AWS_ENDPOINT_URL"] = proxy.stdout.readline().strip()
    try:
        _s3(proxy, store, bags, options)
    finally:
        proxy.stdin.close()
        proxy.wait()


def _s3(proxy: Any, store: FeatureStore, bags: list[Rows], options: argparse.Namespace) -> None:
    from outspike import urls

    def served() -> tuple[int, int]:
        proxy.stdin.write("reset\n")
        proxy.stdin.flush()
        requests, num_bytes = proxy.stdout.readline().split()
        return int(requests), int(num_bytes)

    store = FeatureStore.open(store.url)
    reader = BagReader(store, ["bench"])
    keys = reader.keys()
    rows_of = store.extents.sort_by("video_id").to_pylist()
    arrays = {
        row["segment"]: zarr.open_array(
            zarr_store(f"{store.url}/features/{row['feature_set']}/{row['segment']}/features"),
            mode="r",
        )
        for row in rows_of
    }
    fs = urls.filesystem("s3://bench")
    order = np.random.default_rng(2).permutation(len(bags)).tolist()[::2]  # no neighbours

    def with_zarr(number: int, low: int, high: int) -> Rows:
        row = rows_of[number]
        array: Any = arrays[row["segment"]]
        return np.asarray(array[row["row_start"] + low : row["row_start"] + high])[:, 0]

    def with_npy(number: int, low: int, high: int) -> Rows:
        data = fs.cat_file(f"bench/npy/{number}.npy", start=0, end=1 << 40)
        return np.frombuffer(data, np.float16, offset=128).reshape(-1, WIDTH)[low:high]

    for title, low, high in (("Whole bags [600, 512]", 0, 600), ("32 of 600 rows", 320, 352)):
        make = partial(Case, units=len(order), unit_mb=(high - low) * WIDTH * 2 / 1e6)
        works: dict[str, Work] = {
            "outspike read_bags": lambda low=low, high=high: reader.read_bags(
                [keys[n] for n in order], (low, high)
            )
        }
        for name, read in (("zarr-python, 16 threads", with_zarr), ("npy, 16 threads", with_npy)):

            def work(read: Any = read, low: int = low, high: int = high) -> object:
                with ThreadPoolExecutor(16) as pool:
                    return list(pool.map(lambda n: read(n, low, high), order))

            works[name] = work
        compare(
            [make(name, work) for name, work in works.items()],
            options.rounds,
            f"S3, first byte after 20 ms: {title}",
        )
        for name, work in works.items():
            served()
            work()
            requests, num_bytes = served()
            print(
                f"{name}: {requests / len(order):.2f} requests and "
                f"{num_bytes / len(order) / 1e3:.0f} kB a bag"
            )


def catalog(options: argparse.Namespace) -> None:
    """Opening, anti-join and commit with 10,000 to 1,000,000 catalog rows.

    Once with recordings extracted in the order of their names, as a job without a shuffle does,
    and once in random order. The anti-join is given a manifest's names and etags as Python strings.
    """
    parts = ("open", "current rows", "anti-join", "commit")
    print(
        "\nCatalog, seconds (of processor time), and how many times a tenth of the rows\n\n"
        f"| rows | {' | '.join(parts)} |\n|---:|" + "---:|" * len(parts)
    )
    for is_shuffled in (False, True):
        found = _catalogs(options, is_shuffled)
        before: dict[str, float] = {}
        for rows, times in found.items():
            cells = []
            for name in parts:
                wall, processor = np.median(times[name], axis=0)
                ratio = f" x{wall / before[name]:.1f}" if name in before else ""
                cells.append(f"{wall:.3f} s ({processor:.3f}){ratio}")
                before[name] = wall
            order = ", random order" if is_shuffled else ""
            print(f"| {rows:,}{order} | {' | '.join(cells)} |", flush=True)


def _catalogs(
    options: argparse.Namespace, is_shuffled: bool
) -> dict[int, dict[str, list[tuple[float, float]]]]:
    """Times by number of rows and part, by the clock and of the processor; sizes take turns."""
    times: dict[int, dict[str, list[tuple[float, float]]]] = {}
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for rows in (10_000, 100_000, 1_000_000):
            _many_rows(FeatureStore.create(f"{folder}/{rows}").url, rows, is_shuffled)
            times[rows] = {}
        for count in range(options.rounds):
            for rows, found in times.items():
                _catalog(f"{folder}/{rows}", rows + count, found)
    return times


def _catalog(url: str, rows: int, times: dict[str, list[tuple[float, float]]]) -> None:
    videos = [f"{n:08d}" for n in range(rows + 100)]
    manifest = (["bench"] * len(videos), videos, ["etag"] * len(videos))
    began = _now()
    opened = FeatureStore.open(url)
    _note(times, "open", began)
    began = _now()
    assert opened.extents.num_rows == rows
    _note(times, "current rows", began)
    began = _now()
    missing = opened.missing(SPEC.fingerprint, *manifest)
    _note(times, "anti-join", began)
    assert missing.sum() == 100
    began = _now()
    opened.commit([_receipt(rows)])
    _note(times, "commit", began)


def _now() -> tuple[float, float]:
    """Seconds of the clock and of the processor, in all threads."""
    return time.perf_counter(), time.process_time()


def _note(
    times: dict[str, list[tuple[float, float]]], name: str, began: tuple[float, float]
) -> None:
    wall, processor = _now()
    times.setdefault(name, []).append((wall - began[0], processor - began[1]))


def _receipt(number: int) -> Receipt:
    return Receipt(
        dataset="bench", video_id=f"{number:08d}", feature_set=SPEC.address,
        fingerprint=SPEC.fingerprint, attempt=new_id(), segment=f"segment{number // 100}",
        row_start=0, row_stop=400, snippet_start=0, snippet_stop=400, num_snippets=400,
        num_frames=6400, fps=Fraction(25), source_url=f"s3://bucket/videos/{number:08d}.mp4",
        source_etag="etag", source_size=1, extracted_at=datetime.now(UTC), outspike_version="0",
    )  # fmt: skip


def _many_rows(url: str, rows: int, is_shuffled: bool = False) -> None:
    """Rows as extraction writes them, appended at once, videos in order of name or in none."""
    table = pa.Table.from_pylist([{**vars(_receipt(0)), "fps": "25"}], schema=CATALOG_SCHEMA).take(
        pa.array(np.zeros(rows, dtype=np.int64))
    )
    numbers = np.arange(rows)
    videos = np.random.default_rng(0).permutation(rows) if is_shuffled else numbers
    columns = {
        "video_id": np.char.zfill(videos.astype("U8"), 8),
        "attempt": np.char.add(np.char.zfill(numbers.astype("U14"), 14), "-abcdefabcdef"),
        "segment": np.char.add("segment", (numbers // 100).astype("U8")),
    }
    for name, values in columns.items():
        index = table.schema.get_field_index(name)
        table = table.set_column(index, CATALOG_SCHEMA.field(name), pa.array(values.tolist()))
    write_deltalake(open_table(url, "catalog"), table, mode="append")


def _has(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def main() -> None:
    """Run the parts asked for."""
    parts = {"local": local, "write": write, "s3": s3, "catalog": catalog}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("parts", nargs="*", choices=[*parts, []], default=[])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--bags", type=int, default=256)
    parser.add_argument("--folder", default=None, help="where to write; a disk with some GB free")
    options = parser.parse_args()
    for name in options.parts or parts:
        parts[name](options)


if __name__ == "__main__":
    main()
