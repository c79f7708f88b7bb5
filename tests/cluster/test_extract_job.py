"""``jobs/extract.py`` on a real Ray: does the gap only, survives kills, quarantines what is bad."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from outspike.extract.ledger import Ledger
from outspike.store.store import FeatureStore
from outspike.synth.miniature import generate
from outspike.video.write import write_mp4

pytestmark = pytest.mark.cluster

_TIMEOUT_S = 240
_LONG, _LONG_FRAMES = "zz-long.mp4", 600


@pytest.fixture(scope="module")
def miniature(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("miniature")
    generate(root)
    return root


@pytest.fixture(scope="module")
def few(miniature: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of five of its videos and, last, one long enough for a job to be caught at it."""
    root = tmp_path_factory.mktemp("few")
    for path in sorted((miniature / "videos").glob("*.mp4"))[:5]:
        shutil.copy(path, root / path.name)
    wall = np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8)
    frames = (np.roll(wall, i, axis=1) for i in range(_LONG_FRAMES))
    write_mp4(root / _LONG, frames, fps=Fraction(25), preset="ultrafast", crf=40)
    return root


def _command(repository: Path, root: Path, store: Path, *more: str) -> list[str]:
    arguments = ["folder", "--data.root", str(root), "--store.url", str(store), *more]
    return [sys.executable, str(repository / "jobs" / "extract.py"), *arguments]


def _environment(repository: Path) -> dict[str, str]:
    own = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    return own | {"PYTHONPATH": str(repository / "platform"), "OMP_NUM_THREADS": "1"}


def _run(
    repository: Path, root: Path, store: Path, *more: str
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        _command(repository, root, store, *more),
        env=_environment(repository),
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
    )


def _strangers(said: str) -> list[str]:
    """Lines that somebody else than this package wrote."""
    return [line for line in said.splitlines() if " outspike." not in line]


@pytest.fixture(scope="module")
def undisturbed(repository: Path, few: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("undisturbed") / "store"
    done = _run(repository, few, store)
    assert done.returncode == 0, done.stderr
    assert "new 6" in done.stdout
    assert _strangers(done.stderr) == [], "only our own lines reach the screen"
    return store


def test_a_second_run_finds_everything_done(repository: Path, few: Path, undisturbed: Path) -> None:
    """Nothing is decoded again, and the store does not change."""
    before = FeatureStore.open(str(undisturbed))
    done = _run(repository, few, undisturbed)
    assert done.returncode == 0, done.stderr
    assert "done 6   new 0" in done.stdout
    after = FeatureStore.open(str(undisturbed))
    assert (after.version, after.digest()) == (before.version, before.digest())


def test_bad_inputs_become_ledger_rows_and_an_exit_code(
    repository: Path, few: Path, tmp_path: Path
) -> None:
    """Each failure names its file and cause; good recordings are stored all the same."""
    root, store = tmp_path / "recordings", tmp_path / "store"
    shutil.copytree(few, root)
    good = next(root.glob("*.mp4"))
    (root / "empty.mp4").write_bytes(b"")
    (root / "text.mp4").write_text("these are minutes of a meeting")
    (root / "cut.mp4").write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    done = _run(repository, root, store, "--max-bad-share", "0.1")
    assert done.returncode == 3, done.stderr
    rows = Ledger(str(store)).rows()
    assert {row["video_id"] for row in rows} == {"empty", "text", "cut"}
    assert all(row["video_id"] in row["detail"] and row["reason"] for row in rows)
    assert "quarantined 3" in done.stdout
    assert len(FeatureStore.open(str(store)).extents) == 3 * 6

    shutil.copy(good, root / "cut.mp4")
    outspike = [sys.executable, "-c", "from outspike.cli import main; main()"]
    again = [*outspike, "extract", "retry", *done.args[2:]]
    retried = subprocess.run(
        again,
        env=_environment(repository),
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
    )
    assert retried.returncode == 3, retried.stderr
    assert retried.stdout.splitlines()[3] == "3 failures", "what is tried is listed first"
    assert "done 0   new 1" in retried.stdout
    assert "quarantined 2   of 3 recordings" in retried.stdout


def _start(
    repository: Path, root: Path, store: Path, *more: str, errors: Path
) -> "subprocess.Popen[str]":
    """The job in a session of its own, as a terminal would run it."""
    with errors.open("w") as file:
        return subprocess.Popen(
            _command(repository, root, store, *more),
            env=_environment(repository),
            stdout=subprocess.PIPE,
            stderr=file,
            text=True,
            start_new_session=True,
        )


def _finish(repository: Path, root: Path, store: Path) -> tuple[int, str]:
    """Run a killed job again; recordings that were in the catalog before, and what it said."""
    catalogued = _catalogued(store)
    done = _run(repository, root, store)
    assert done.returncode == 0, done.stderr
    return catalogued, done.stdout


def _catalogued(store: Path) -> int:
    """Recordings in the catalog, of which each has three feature sets."""
    exists = (store / "catalog" / "_delta_log").exists()
    return len(FeatureStore.open(str(store)).extents) // 3 if exists else 0


def _wait_for(
    look: Callable[[], int | None], process: "subprocess.Popen[str]", errors: Path
) -> int:
    """What ``look`` finds once it finds anything, while the job runs."""
    until = time.monotonic() + _TIMEOUT_S
    while process.poll() is None and time.monotonic() < until:
        if found := look():
            return found
        time.sleep(0.02)
    raise AssertionError(f"not seen while the job ran: {errors.read_text()}")


def _actor_with(driver: int, recording: Path) -> int | None:
    """The actor of this driver whose decoding child has a recording open."""
    parents, titles = _processes()
    for pid, title in titles.items():
        if "outspike.video.worker" in title and driver in _ancestors(pid, parents):
            with suppress(OSError):  # it has ended, or has just closed a file
                files = [os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir()]
                if str(recording) in files:
                    return parents[pid]
    return None


def _processes() -> tuple[dict[int, int], dict[int, str]]:
    """Parent and command line of every process."""
    parents, titles = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            status = (folder / "stat").read_text()
            titles[int(folder.name)] = (folder / "cmdline").read_text()
        except OSError:  # it has ended
            continue
        parents[int(folder.name)] = int(status.rpartition(")")[2].split()[1])
    return parents, titles


def _ancestors(pid: int, parents: dict[int, int]) -> list[int]:
    found = []
    while pid := parents.get(pid, 0):
        found.append(pid)
    return found


def test_a_killed_job_goes_on_where_it_was(
    repository: Path, few: Path, undisturbed: Path, tmp_path: Path
) -> None:
    """After a re-run the digest is that of an undisturbed run; catalogued work is not repeated.

    The driver goes down in the middle of the last recording: all before it are in the catalog,
    since what became of a recording is told when it ends and not with the next.
    """
    store, errors = tmp_path / "store", tmp_path / "errors"
    at_once = ("--commit-every-s", "0.1", "--segment-seconds", "0")
    process = _start(repository, few, store, *at_once, errors=errors)
    _wait_for(lambda: _catalogued(store) == 5, process, errors)
    process.kill()
    process.communicate()
    catalogued, output = _finish(repository, few, store)
    assert catalogued == 5
    assert "done 5   new 1" in output
    expected = FeatureStore.open(str(undisturbed)).digest()
    assert FeatureStore.open(str(store)).digest() == expected


def test_an_actor_that_is_killed_changes_nothing(
    repository: Path, few: Path, undisturbed: Path, tmp_path: Path
) -> None:
    """In the middle of a recording: what it had is done again by another, in the same job, with
    the same bytes."""
    store, errors = tmp_path / "store", tmp_path / "errors"
    process = _start(repository, few, store, "--segment-seconds", "0.1", errors=errors)
    actor = _wait_for(lambda: _actor_with(process.pid, few / _LONG), process, errors)
    os.kill(actor, signal.SIGKILL)
    output, _ = process.communicate(timeout=_TIMEOUT_S)
    assert process.returncode == 0, errors.read_text()
    assert "new 6" in output
    expected = FeatureStore.open(str(undisturbed)).digest()
    assert FeatureStore.open(str(store)).digest() == expected


@pytest.mark.slow
def test_an_interrupted_job_says_so_and_goes_on_later(
    repository: Path, few: Path, undisturbed: Path, tmp_path: Path
) -> None:
    """Control-C: exit code 130, one line, nothing lost that was committed."""
    store, errors = tmp_path / "store", tmp_path / "errors"
    process = _start(repository, few, store, "--segment-seconds", "0.1", errors=errors)
    _wait_for(lambda: _actor_with(process.pid, few / _LONG), process, errors)
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=_TIMEOUT_S)
    said = errors.read_text()
    assert process.returncode == 130, said
    assert said.splitlines()[-1].endswith("run the same command again to go on where it stopped")
    assert _strangers(said) == []
    catalogued = len(FeatureStore.open(str(store)).extents) // 3
    done = _run(repository, few, store)
    assert f"done {catalogued}   new {6 - catalogued}" in done.stdout
    expected = FeatureStore.open(str(undisturbed)).digest()
    assert FeatureStore.open(str(store)).digest() == expected


def test_a_store_that_cannot_be_written_is_one_line_and_exit_code_1(
    repository: Path, few: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    FeatureStore.create(str(store))
    (store / "features").write_text("a file where a folder should be")
    done = _run(repository, few, store)
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if " ERROR " in line]
    assert str(store) in line
    assert "Traceback" not in done.stderr
    assert len(FeatureStore.open(str(store)).extents) == 0


@pytest.mark.slow
def test_five_kills_at_random_moments_change_nothing(
    repository: Path, miniature: Path, tmp_path: Path
) -> None:
    """The same over the whole miniature set, killed five times at random moments."""
    videos = miniature / "videos"
    num_videos = len(list(videos.glob("*.mp4")))
    clean = tmp_path / "clean"
    began = time.monotonic()
    assert _run(repository, videos, clean).returncode == 0
    length = time.monotonic() - began
    expected = FeatureStore.open(str(clean)).digest()
    moments = random.Random(0)
    for number in range(5):
        store, errors = tmp_path / f"killed-{number}", tmp_path / "errors"
        process = _start(repository, videos, store, "--commit-every-s", "0.5", errors=errors)
        with suppress(subprocess.TimeoutExpired):  # it may have ended by then
            process.communicate(timeout=moments.uniform(1, length))
        process.kill()
        process.communicate()
        catalogued, output = _finish(repository, videos, store)
        assert f"done {catalogued}   new {num_videos - catalogued}" in output
        assert FeatureStore.open(str(store)).digest() == expected
