"""Bags per second from a local store: our reader, zarr's own, and one ``.npy`` file per recording.

    python benchmarks/read_bags.py [--bags 300] [--rounds 5]

Every round reads each bag once in one random order, with each reader in turn; the table has medians
over the rounds and ratios within the run. Files are in the page cache, as in a second epoch.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import zarr
from numpy.typing import NDArray

from outspike.recording import Recording
from outspike.store.bags import BagReader
from outspike.store.fingerprint import FeatureSetSpec
from outspike.store.store import FeatureStore
from outspike.urls import SourceStat

SNIPPETS, WIDTH = 400, 512
Read = Callable[[int], NDArray[np.float16]]


def build(root: Path, num_bags: int) -> tuple[FeatureStore, list[Path]]:
    """The same random bags as a store and as one file each."""
    spec = FeatureSetSpec(
        name="bench", document={"encoder": "bench"}, num_crops=1, width=WIDTH, dtype="float16"
    )
    store = FeatureStore.create(str(root / "store"))
    rng = np.random.default_rng(0)
    start = np.arange(SNIPPETS) * 16
    files = []
    with store.segment_writer(spec) as writer:
        for number in range(num_bags):
            rows = rng.standard_normal((SNIPPETS, 1, WIDTH), dtype=np.float32).astype(np.float16)
            recording = Recording(dataset="bench", video_id=f"{number:05d}", url="none")
            writer.begin(recording, stat=SourceStat(url="none", size=0, etag=str(number)))
            writer.append(rows, start, start + 16)
            writer.end(num_frames=16 * SNIPPETS, fps=Fraction(25))
            files.append(root / f"{number:05d}.npy")
            np.save(files[-1], rows.transpose(1, 0, 2))
        writer.close()
        store.commit(writer.drain())
    return FeatureStore.open(store.url), files


def readers(store: FeatureStore, files: list[Path]) -> dict[str, Read]:
    """Each reader as a function of the bag's number."""
    ours = BagReader(store, ["bench"])
    keys = ours.keys()
    rows = store.extents.sort_by("video_id").to_pylist()
    arrays = {
        row["segment"]: zarr.open_array(
            f"{store.url}/features/{row['feature_set']}/{row['segment']}/features", mode="r"
        )
        for row in rows
    }

    def with_zarr(number: int) -> NDArray[np.float16]:
        row = rows[number]
        found: NDArray[np.float16] = np.asarray(
            arrays[row["segment"]][row["row_start"] : row["row_stop"]]
        )
        return found.transpose(1, 0, 2)

    return {
        "outspike BagReader": lambda number: ours.read(keys[number]).features["bench"],
        "zarr array slice": with_zarr,
        "npy file per bag": lambda number: np.load(files[number]),
    }


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--bags", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store, files = build(Path(folder), options.bags)
        found = readers(store, files)
        for number in range(options.bags):  # all give the same bytes
            first, *others = (read(number) for read in found.values())
            assert all(np.array_equal(first, other) for other in others)
        rates: dict[str, list[float]] = {name: [] for name in found}
        rng = np.random.default_rng(1)
        for _ in range(options.rounds):
            order = rng.permutation(options.bags).tolist()
            for name, read in found.items():
                began = time.perf_counter()
                for number in order:
                    read(number)
                rates[name].append(options.bags / (time.perf_counter() - began))
    ours = statistics.median(rates["outspike BagReader"])
    megabytes = SNIPPETS * WIDTH * 2 / 1e6
    for name, measured in rates.items():
        rate = statistics.median(measured)
        print(
            f"{name:<20} {rate:8.0f} bags/s {rate * megabytes:8.0f} MB/s  ours x{ours / rate:.2f}"
        )


if __name__ == "__main__":
    main()
