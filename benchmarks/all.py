"""Every table of docs/performance.md, one after the other.

    python benchmarks/all.py [--only extraction crops] [--out benchmarks-out]
    python benchmarks/all.py --list

Each command runs alone, in a process of its own, and leaves what it prints in ``OUT/NAME.txt``
under a line with the command, the load before it and how long it took. One that fails does not
keep the others from running; the exit status says so at the end. All of them take an estimated hour
and a half on two cores, 12 GB of disk for the long recordings, and quiet: a figure from a machine
with other work is one from another machine.
"""

import argparse
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

#: What each file of results comes from.
COMMANDS = {
    "gv_vad": "gv_vad.py --half 8 --rounds 2",
    "detectors": "detectors.py",
    "training-loop": "training.py loop --steps 80",
    "training-options": "training.py options --recipe msf-ucf --steps 20",
    "training-workers": "training.py workers",
    "search": "search.py --trials 200 --steps 40",
    "rehearsal": "rehearsal.py write train sweep evaluate detectors --folder {out}/rehearsal",
    "events": "events.py --rounds 3 --markdown",
    "events-stream": "events_stream.py --gigabytes 10 --png {out}/events-memory.png",
    "crops": "crops.py --rounds 7",
    "crops-drift": "crops.py --drift --frames 32",
    "extraction-1": "extraction.py --workers 1",
    "extraction-2": "extraction.py --workers 2",
    "extraction-clip-1": "extraction.py --encoder clip --workers 1",
    "extraction-clip-2": "extraction.py --encoder clip --workers 2",
    "store": "read_bags.py",
    "feeding": "feeding.py",
}
_HERE = Path(__file__).parent


def main() -> int:
    """Run what is asked for; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", nargs="+", choices=list(COMMANDS), default=list(COMMANDS))
    parser.add_argument("--out", type=Path, default=Path("benchmarks-out"))
    parser.add_argument("--list", action="store_true", help="print the commands and run none")
    arguments = parser.parse_args()
    if arguments.list:
        print("\n".join(f"{name}: benchmarks/{line}" for name, line in COMMANDS.items()))
        return 0
    arguments.out.mkdir(parents=True, exist_ok=True)
    failed = [name for name in arguments.only if not run(name, arguments.out)]
    if failed:
        print(f"failed: {', '.join(failed)}; their files in {arguments.out} say why")
    return 1 if failed else 0


def run(name: str, out: Path) -> bool:
    """One command into its file; whether it ended well."""
    line = COMMANDS[name].format(out=out)
    load, began = os.getloadavg()[0], time.monotonic()
    print(f"{name}: benchmarks/{line}", flush=True)
    done = subprocess.run(
        [sys.executable, *shlex.split(f"{_HERE}/{line}")],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    took = f"load {load:.1f}, {time.monotonic() - began:.0f} s, exit status {done.returncode}"
    printed = done.stdout + (done.stderr if done.returncode else "")
    (out / f"{name}.txt").write_text(f"benchmarks/{line}   # {took}\n\n{printed}")
    print(f"  {took}", flush=True)
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
