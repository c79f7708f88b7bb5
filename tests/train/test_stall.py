"""Two processes, one of which falls asleep in the middle: who it is, is told."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from outspike.config import to_json
from outspike.train import checkpoint as checkpoints
from outspike.train.watchdog import Beat, Watch


@pytest.mark.slow
def test_the_sleeping_rank_is_named_while_the_other_waits_for_it(config_of, tmp_path):
    """By what it is about and where it is; woken, both go on to the end."""
    config = tmp_path / "config.json"
    config.write_text(json.dumps(to_json(config_of(steps=12, checkpoint_every=4))))
    program = str(Path(__file__).with_name("stalling.py"))
    environment = os.environ | {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen(
            [sys.executable, program, str(config), str(tmp_path), str(rank), "2"],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        line = wait_for_line(tmp_path, ranks)
    finally:
        (tmp_path / "wake").touch()
        told = [rank.communicate(timeout=240)[1] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], "\n".join(told)
    assert f"rank 1 (host {os.uname().nodename}, pid {ranks[1].pid})" in line
    assert "at step 5, where it reads bags" in line
    assert "rank 0 at step 5 (computes) cannot go on" in line
    stack = tmp_path / "stacks" / "rank-1-step-5.txt"
    assert str(stack) in line
    assert "stalling.py" in stack.read_text()
    assert checkpoints.complete_steps(f"{tmp_path}/run") == [12]


def wait_for_line(folder: Path, ranks: list[subprocess.Popen[str]]) -> str:
    watch = Watch(1.0)
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and all(rank.poll() is None for rank in ranks):
        found = [Beat.from_bytes(path.read_bytes()) for path in folder.glob("beat-?")]
        line = watch.look({beat.rank: beat for beat in found}) if len(found) == 2 else None
        if line is not None and "step 5" in line:
            return line
        time.sleep(0.05)
    raise AssertionError("nobody told of a standstill")
