"""Training with a range of workers: it goes on with those that are left, and ends the same."""

import dataclasses
import os
import runpy
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
import torch
from ray.cluster_utils import Cluster

from outspike.config import TrainConfig
from outspike.train import checkpoint as checkpoints
from outspike.train.job import train

SMALL = runpy.run_path(str(Path(__file__).parents[1] / "train" / "conftest.py"))
WAIT_S = 300

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """Two nodes with room for one worker each; the driver and Ray's controller are on the first."""
    nodes = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
    )
    nodes.second = nodes.add_node(num_cpus=1)
    ray.init(address=nodes.address, log_to_driver=False)
    try:
        yield nodes
    finally:
        ray.shutdown()
        nodes.shutdown()


@pytest.fixture
def config(tmp_path) -> TrainConfig:
    return SMALL["ddp_config"](tmp_path, steps=400, min_workers=1, max_failures=5)


def reached(storage: str, step: int) -> int | None:
    """The newest step that is checkpointed, once it is at least ``step``."""
    runs = list(Path(storage).iterdir()) if Path(storage).exists() else []
    done = checkpoints.complete_steps(str(runs[0])) if runs else []
    return done[-1] if done and done[-1] >= step else None


def workers() -> list[int]:
    """Process ids of the Ray Train workers that are alive."""
    return [
        actor["Pid"]
        for actor in ray._private.state.actors().values()
        if "RayTrainWorker" in actor["ActorClassName"] and actor["State"] == "ALIVE"
    ]


def test_a_lost_node_is_done_without(cluster, config, tmp_path, monkeypatch):
    """Two workers, one of whose nodes goes away for good: one goes on, to the same weights."""
    monkeypatch.setenv("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "10")
    at: list[int] = []

    def lose() -> None:
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            step = reached(config.storage, 20)
            if step is not None and len(workers()) == 2:
                cluster.remove_node(cluster.second, allow_graceful=False)
                at.append(step)
                return
            time.sleep(0.02)

    loser = threading.Thread(target=lose)
    loser.start()
    result = train(config)
    loser.join()
    assert at
    assert at[0] < config.steps
    alone = train(dataclasses.replace(config, num_workers=0, min_workers=None, name="alone"))
    one, other = (checkpoints.load(found.checkpoint).model for found in (result, alone))
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-4, atol=1e-5)


def test_a_stopped_worker_is_named_and_replaced(cluster, config, caplog):
    """A process that stands still: the log names it, the timeout ends the attempt, work goes on."""
    config = dataclasses.replace(
        config, min_workers=None, stall_after_s=4.0, collective_timeout_s=20.0
    )
    stopped: list[int] = []

    def stop() -> None:
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            if reached(config.storage, 20) is not None and len(workers()) == 2:
                stopped.append(workers()[-1])
                os.kill(stopped[0], signal.SIGSTOP)
                return
            time.sleep(0.02)

    stopper = threading.Thread(target=stop)
    stopper.start()
    try:
        with caplog.at_level("WARNING", logger="outspike.train.ray_news"):
            result = train(config)
    finally:
        stopper.join()
        for pid in stopped:
            if Path(f"/proc/{pid}").exists():
                os.kill(pid, signal.SIGKILL)
    assert checkpoints.load(result.checkpoint).step == config.steps
    lines = [record.getMessage() for record in caplog.records]
    assert any("stands still" in line and f"pid {stopped[0]})" in line for line in lines), lines
