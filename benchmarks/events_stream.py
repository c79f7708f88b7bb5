"""Stream a recording of many gigabytes, and draw the memory that it takes.

    python benchmarks/events_stream.py [--gigabytes 10] [--png events-memory.png] [--folder DIR]

The recording is made from the words of a real one (OUTSPIKE_MEDIA) or made up, written to
``--folder``, decoded chunk by chunk and counted into frames of 224x224. Resident memory is noted
after each chunk; the first tenth may still grow (compiled code, allocator), the rest must not: the
command fails where it rises by more than 5 %.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import matplotlib as mpl
import numpy as np
import psutil

from events import SIZE, camera_file
from outspike.events.clips import FRAME_US, grid_frames
from outspike.events.columns import Events
from outspike.events.reader import open_events
from outspike.events.resize import ResizedCounts

mpl.use("Agg")
import matplotlib.pyplot as plt

#: Bytes of an event in the words of a camera.
_BYTES_PER_EVENT = 2.8


def main() -> None:
    """Make, stream, draw, judge."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--gigabytes", type=float, default=10.0)
    parser.add_argument("--png", type=Path, default=Path("events-memory.png"))
    parser.add_argument("--folder", type=Path, default=None, help="where the recording is written")
    options = parser.parse_args()
    process = psutil.Process()
    curve: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        path = Path(folder) / "long.raw"
        num = camera_file(path, int(options.gigabytes * 1e9 / _BYTES_PER_EVENT), 3)
        gigabytes = path.stat().st_size / 1e9
        began = time.perf_counter()
        done = 0

        def watched() -> Iterator[Events]:
            nonlocal done
            for chunk in open_events(str(path)).chunks():
                done += len(chunk)
                curve.append((done / num * gigabytes, process.memory_info().rss / 1e6))
                yield chunk

        frames = grid_frames(watched(), ResizedCounts(SIZE, (224, 224)), duration_us=FRAME_US)
        num_frames = sum(1 for _ in frames)
        seconds = time.perf_counter() - began
    read, memory = np.array(curve).T
    settled = memory[len(memory) // 10 :]
    rise = float(settled.max() / settled[0] - 1)
    print(
        f"{gigabytes:.1f} GB, {done:,} events, {num_frames} frames in {seconds:.0f} s "
        f"({done / seconds / 1e6:.0f} Mev/s by the clock); resident memory {settled.min():.0f} to "
        f"{settled.max():.0f} MB after the first tenth"
    )
    draw(read, memory, options.png)
    if rise > 0.05:
        sys.exit(f"memory rose by {rise:.0%} after the first tenth; expected at most 5 %")


def draw(read: np.ndarray, memory: np.ndarray, path: Path) -> None:
    """Memory over what was read."""
    figure, axes = plt.subplots(figsize=(7, 3), layout="constrained")
    axes.plot(read, memory, color="#2a6f97")
    axes.set(xlabel="gigabytes read", ylabel="resident memory, MB", ylim=(0, memory.max() * 1.2))
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title("Raw recording to 224x224 frames", loc="left", fontsize=10)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
