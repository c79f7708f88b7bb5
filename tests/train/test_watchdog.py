"""A standstill is told once, in one line that names the rank the others wait for."""

import dataclasses
import re
import threading
from pathlib import Path

import pytest

from outspike.train.watchdog import Beat, Heart, Watch

BUSY = Beat(rank=0, number=1, step=7, phase="computes", idle_s=0.0, host="a", pid=1)


class Clock:
    """Seconds that a test sets."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def beats(*given: Beat) -> dict[int, Beat]:
    return {beat.rank: beat for beat in given}


def stuck(rank: int, **more: object) -> Beat:
    return dataclasses.replace(BUSY, rank=rank, idle_s=40.0, **more)


@pytest.mark.parametrize(
    ("waiting", "behind", "told"),
    [
        ({"step": 7}, {"step": 6}, r"rank 1 \(host a, pid 1\) is at step 6, where it computes"),
        ({"phase": "computes"}, {"phase": "reads bags"}, "rank 1 .* where it reads bags"),
        ({"phase": "reports"}, {"phase": "writes a checkpoint"}, "rank 1 .*writes a checkpoint"),
        ({"is_waiting": True}, {"where": "data.py:3 in batch"}, "rank 1 .*, in data.py:3 in batch"),
    ],
    ids=["by-step", "by-phase", "by-checkpoint", "by-stack"],
)
def test_the_rank_that_is_behind_is_named(waiting, behind, told):
    """By its step, by what it is about, else by whose stack is not in a collective."""
    line = Watch(30.0).look(beats(stuck(0, **waiting), stuck(1, **behind), stuck(2, **waiting)))
    assert line is not None
    assert "\n" not in line
    assert re.search(told, line), line
    assert "rank 0 at step 7" in line
    assert "cannot go on" in line


def test_nothing_is_said_while_anybody_moves_and_nothing_twice():
    """One line a standstill; after it has gone on, the next one is told again."""
    watch = Watch(30.0)
    assert watch.look(beats(BUSY, stuck(1))) is None
    assert watch.look(beats(stuck(0), stuck(1))) is not None
    assert watch.look(beats(stuck(0, number=2), stuck(1, number=2))) is None
    assert watch.look(beats(stuck(0, step=9), stuck(1, step=9))) is not None


def test_a_standstill_is_told_with_the_place_of_the_rank_that_is_behind():
    """A sign from just before the limit has no stack yet: the next one is waited for."""
    clock = Clock()
    watch = Watch(30.0, clock=clock)
    early = dataclasses.replace(stuck(1, step=6), idle_s=29.9)
    assert watch.look(beats(stuck(0), early)) is None
    clock.now = 1.0
    assert watch.look(beats(stuck(0), early)) is None
    late = dataclasses.replace(early, number=2, idle_s=31.9, stack="/stacks/rank-1")
    line = watch.look(beats(stuck(0), late))
    assert line is not None
    assert "; its stack: /stacks/rank-1" in line


def test_a_rank_that_sends_nothing_is_the_one():
    """A process that was stopped cannot say where it is; that all are gone is another matter."""
    clock = Clock()
    watch = Watch(30.0, clock=clock)
    silent = dataclasses.replace(BUSY, rank=1)
    assert watch.look(beats(BUSY, silent)) is None
    clock.now = 50.0
    assert watch.look(beats(BUSY, silent)) is None
    line = watch.look(beats(stuck(0, number=2), silent))
    assert line is not None
    assert "rank 1 (host a, pid 1) sends no sign of life, last at step 7" in line


def test_a_heart_tells_where_its_thread_stands_still(tmp_path: Path):
    """Step, phase and place in the code, and a file with the stacks of all threads."""
    found: list[Beat] = []
    seen = threading.Event()

    def publish(beat: Beat) -> None:
        found.append(beat)
        if beat.where:
            seen.set()

    def keep(name: str, text: str) -> str:
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    with Heart(3, publish, stall_after_s=0.2, keep_stack=keep, every_s=0.05) as heart:
        heart.at(12, "reads bags")
        assert seen.wait(timeout=60)
    last = next(beat for beat in found if beat.where)
    assert (last.rank, last.step, last.phase) == (3, 12, "reads bags")
    assert not last.is_waiting
    assert Path(last.stack).name == "rank-3-step-12.txt"
    assert "test_a_heart_tells" in Path(last.stack).read_text()
    assert Beat.from_bytes(last.to_bytes()) == last
    assert [beat.number for beat in found] == list(range(1, len(found) + 1))
