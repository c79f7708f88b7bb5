"""Damage recordings at random and read them: nothing but a :class:`MediaError` may come of it.

    python tests/events/fuzz_codecs.py --codec es --inputs 200000
    NUMBA_DISABLE_JIT=1 python tests/events/fuzz_codecs.py --codec es --guided --seconds 180

Plain mutation runs the compiled kernels in child processes, so that a crash, a hang or a wild
allocation is caught with the input that caused it. ``--guided`` lets atheris (``pip install
atheris``) look for new branches; it wants ``NUMBA_DISABLE_JIT=1``, which turns the kernels into
Python that it can see. Its corpus stays in ``--keep`` and is where the next run begins; what it
reaches of the code, ``--replay`` tells with ``coverage run --branch``. What fails is written to
``--keep`` too and belongs into ``regressions/`` beside this file once it is mended.
"""

import argparse
import hashlib
import io
import logging
import mmap
import os
import random
import resource
import signal
import struct
import sys
import time
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import numba
import numpy as np
from event_samples import Sample, samples

from outspike.errors import MediaError
from outspike.events import reader as reader_module
from outspike.events.check import MAX_ABS_US
from outspike.events.raw_words import MAX_JITTER_US
from outspike.events.reader import EventReader

URL = "fuzzed"
_SECONDS_PER_INPUT = 5
_MEMORY_BYTES = 3 << 30
_BATCH = 2000
_MAX_BYTES = 1 << 14
_MAX_EVENTS_PER_BYTE = 1 << 14  # HDF5 and its filters; the others stay far below

_INTERESTING = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def check(data: bytes, size: tuple[int, int] | None, on_error: str, num_events: int) -> str:
    """Read ``data`` and judge the outcome; the reason of the error, or ``read``.

    Raises:
        Exception: whatever is not a MediaError, and any broken promise.
    """
    reader_module.open_url = lambda url: io.BytesIO(data)  # type: ignore[assignment]
    try:
        reader = EventReader(URL, size=size, on_error=on_error)
        latest, total = -MAX_ABS_US, 0
        for chunk in reader.chunks(num_events):
            total += len(chunk)
            dtypes = [getattr(chunk, key).dtype for key in "txyp"]
            assert dtypes == [np.int64, np.uint16, np.uint16, np.uint8], dtypes
            if not len(chunk):
                continue
            assert int(chunk.p.max()) <= 1
            if reader.info.width is not None and reader.info.height is not None:
                assert int(chunk.x.max()) < reader.info.width, "x outside"
                assert int(chunk.y.max()) < reader.info.height, "y outside"
            times = np.maximum.accumulate(np.append(latest, chunk.t))
            assert (chunk.t >= times[:-1] - MAX_JITTER_US).all(), "time runs backwards"
            latest = int(times[-1])
        assert total <= _MAX_EVENTS_PER_BYTE * len(data), "more events than bytes can tell"
        if on_error == "raise":
            assert set(reader.skipped) <= {"untimed_events"}, reader.skipped
    except MediaError as error:
        told, reason = str(error), error.reason
    else:
        return "read"
    assert told.startswith(f"{URL}: ")
    assert reason
    return reason


def mutate(rng: random.Random, sample: bytes, other: bytes) -> bytes:
    """One to eight small damages, headers preferred."""
    data = bytearray(sample)
    for _ in range(1 << rng.randrange(4)):
        if not data:
            break
        place = rng.randrange(min(len(data), 256) if rng.random() < 0.4 else len(data))
        match rng.randrange(9):
            case 0:
                data[place] ^= 1 << rng.randrange(8)
            case 1:
                data[place] = rng.choice((0, 1, 0x7F, 0x80, 0xFE, 0xFF, rng.randrange(256)))
            case 2:
                code = rng.choice(("<H", "<I", "<Q", ">I"))
                packed = struct.pack(
                    code, rng.choice(_INTERESTING) & (256 ** struct.calcsize(code) - 1)
                )
                data[place : place + len(packed)] = packed
            case 3:
                del data[place:]
            case 4:
                del data[place : place + rng.randrange(1, 17)]
            case 5:
                data[place:place] = rng.randbytes(rng.randrange(1, 17))
            case 6:
                piece = data[place : place + rng.randrange(1, 65)]
                data[place:place] = piece
            case 7:
                start = rng.randrange(len(other))
                data[place:] = other[start:]
            case 8:
                value = struct.unpack_from("<I", data, place)[0] if place + 4 <= len(data) else 0
                step = rng.choice((-1, 1, 16, -16, 256)) + value
                data[place : place + 4] = struct.pack("<I", step & 0xFFFFFFFF)
    return bytes(data[:_MAX_BYTES])


def make_input(
    codec: str, seed: int, number: int
) -> tuple[bytes, tuple[int, int] | None, str, int]:
    """Input ``number`` of a run, from nothing but its name."""
    rng = random.Random(f"{codec} {seed} {number}")
    sample: Sample = rng.choice(samples_of(codec))
    other = rng.choice(samples_of(codec)).data
    size = sample.size if rng.random() < 0.8 else None
    on_error = rng.choice(("raise", "resync", "resync"))
    damage = _mutate_entries if codec == "npz" and rng.random() < 0.6 else mutate
    return damage(rng, sample.data, other), size, on_error, rng.choice((9, 1 << 10, 1 << 20))


def _mutate_entries(rng: random.Random, sample: bytes, other: bytes) -> bytes:
    """A sound zip archive of damaged arrays: its checksums would hide what is in them."""
    whole, file = zipfile.ZipFile(io.BytesIO(sample)), io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in whole.namelist():
            data = whole.read(name)
            archive.writestr(name, mutate(rng, data, other) if rng.random() < 0.4 else data)
    return file.getvalue()


_SAMPLES: dict[str, list[Sample]] = {}


def samples_of(codec: str) -> list[Sample]:
    if not _SAMPLES:
        _SAMPLES.update(samples())
    return _SAMPLES[codec]


def run_plain(codec: str, inputs: int, seed: int, keep: Path) -> int:
    """Mutated inputs in child processes; the number of failures."""
    for sample in samples_of(codec):  # compiles before the clock and the limits run
        for on_error in ("raise", "resync"):
            check(sample.data, sample.size, on_error, 1 << 20)
    progress = mmap.mmap(-1, 8)
    outcomes: Counter[str] = Counter()
    failures, number, begun = 0, 0, time.monotonic()
    while number < inputs:
        stop = min(number + _BATCH, inputs)
        read_end, write_end = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(read_end)
            _batch(codec, seed, range(number, stop), progress, write_end)
        os.close(write_end)
        with os.fdopen(read_end) as pipe:
            tally = pipe.read()
        _, status = os.waitpid(child, 0)
        outcomes.update(tally.split())
        if status == 0:
            number = stop
            continue
        failures += 1
        number = struct.unpack("<q", progress[:8])[0]
        data = make_input(codec, seed, number)[0]
        place = keep_input(codec, data, keep)
        how = f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else "an exception"
        print(
            f"{codec}: input {number} of seed {seed} ends with {how}; kept as {place}", flush=True
        )
        number += 1
    rate = inputs / (time.monotonic() - begun)
    told = " ".join(f"{reason}={count}" for reason, count in outcomes.most_common())
    print(f"{codec}: inputs={inputs} failures={failures} per_second={rate:.0f} {told}", flush=True)
    return failures


def keep_input(codec: str, data: bytes, keep: Path) -> Path:
    """Write an input that failed, under a name of its own."""
    place = keep / f"{codec}_{hashlib.sha256(data).hexdigest()[:12]}"
    place.write_bytes(data)
    return place


def _batch(codec: str, seed: int, numbers: range, progress: mmap.mmap, out: int) -> None:
    """In the child: exits 0 if all is well, and says what came of the inputs."""
    logging.disable(logging.CRITICAL)
    resource.setrlimit(resource.RLIMIT_AS, (_address_space() + _MEMORY_BYTES,) * 2)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # a hang ends the child
    outcomes = []
    try:
        for number in numbers:
            progress[:8] = struct.pack("<q", number)
            data, size, on_error, num_events = make_input(codec, seed, number)
            signal.alarm(_SECONDS_PER_INPUT)
            outcomes.append(check(data, size, on_error, num_events))
        signal.alarm(0)
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        os._exit(1)
    finally:
        os.write(out, " ".join(outcomes).encode()[: 1 << 16])
    os._exit(0)


def _address_space() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * mmap.PAGESIZE


def run_guided(codec: str, inputs: int, seconds: int, seed: int, keep: Path) -> None:
    """Coverage-guided: atheris mutates what reached new branches. Does not return."""
    import atheris

    if not numba.config.DISABLE_JIT:
        sys.exit("--guided sees no branches of compiled code; set NUMBA_DISABLE_JIT=1.")
    _pass_checksums()
    for name, module in list(sys.modules.items()):
        if name.startswith("outspike.events"):
            _instrument_module(atheris.instrument_func, module)
    corpus = corpus_of(codec, keep)
    for index, sample in enumerate(samples_of(codec)):
        for flags in range(8):
            (corpus / f"sample_{index}_{flags}").write_bytes(bytes([flags]) + sample.data)

    def one(data: bytes) -> None:
        try:
            check_flagged(data)
        except Exception:
            keep_input(codec, data[1:], keep)
            raise

    arguments = [f"-runs={inputs}", f"-seed={seed + 1}", f"-max_len={_MAX_BYTES}", "-timeout=20"]
    arguments += [f"-max_total_time={seconds}", "-rss_limit_mb=3000"]
    arguments += [f"-artifact_prefix={keep}/raw_{codec}_", "-print_final_stats=1"]
    atheris.Setup([sys.argv[0], *arguments, str(corpus)], one)
    atheris.Fuzz()


def _pass_checksums() -> None:
    """Zip archives are read whatever their checksums say: blind changes would break all of them."""
    zipfile.ZipExtFile._update_crc = lambda self, newdata: None  # type: ignore[attr-defined]


def corpus_of(codec: str, keep: Path) -> Path:
    """Inputs of a guided run that reached something of their own."""
    corpus = keep / f"corpus_{codec}"
    corpus.mkdir(parents=True, exist_ok=True)
    return corpus


def check_flagged(data: bytes) -> None:
    """An input of a guided run: a byte that says how to read, then the file."""
    if data:
        size = (346, 260) if data[0] & 1 else None
        on_error = "resync" if data[0] & 2 else "raise"
        check(data[1:], size, on_error, 7 if data[0] & 4 else 1 << 20)


def replay(codec: str, keep: Path) -> int:
    """Read a guided run's corpus again; the number of failures."""
    _pass_checksums()
    failures, paths = 0, sorted(corpus_of(codec, keep).iterdir())
    for path in paths:
        try:
            check_flagged(path.read_bytes())
        except Exception as error:
            failures += 1
            print(f"{path}: {type(error).__name__}: {error}", flush=True)
    print(f"{codec}: replayed={len(paths)} failures={failures}", flush=True)
    return failures


def _instrument_module(instrument: Callable[[Any], Any], module: ModuleType) -> None:
    """Let the fuzzer see the branches of a module's functions and methods."""
    for key, value in list(vars(module).items()):
        if getattr(value, "__module__", None) != module.__name__:
            continue
        if isinstance(value, type):
            for name, method in list(vars(value).items()):
                if isinstance(method, FunctionType):
                    setattr(value, name, instrument(method))
        elif isinstance(value, FunctionType):
            setattr(module, key, instrument(value))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--codec", choices=[*samples(), "all"], default="all")
    parser.add_argument("--inputs", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path("fuzz-findings"))
    parser.add_argument("--guided", action="store_true")
    parser.add_argument("--replay", action="store_true")
    parser.add_argument("--seconds", type=int, default=0, help="of a guided run; 0: --inputs")
    arguments = parser.parse_args()
    arguments.keep.mkdir(parents=True, exist_ok=True)
    logging.disable(logging.CRITICAL)
    codecs = list(samples()) if arguments.codec == "all" else [arguments.codec]
    if arguments.guided:
        inputs = -1 if arguments.seconds else arguments.inputs
        run_guided(codecs[0], inputs, arguments.seconds, arguments.seed, arguments.keep)
    if arguments.replay:
        return 1 if sum(replay(codec, arguments.keep) for codec in codecs) else 0
    failures = [
        run_plain(codec, arguments.inputs, arguments.seed, arguments.keep) for codec in codecs
    ]
    return 1 if any(failures) else 0


if __name__ == "__main__":
    raise SystemExit(main())
