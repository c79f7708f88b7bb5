"""Training on a real Ray: workers that die are replaced, and the result is the same."""

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

from outspike.cluster import ray_session
from outspike.config import TrainConfig
from outspike.errors import TrainingError
from outspike.registry.tracking import find_runs
from outspike.train import checkpoint as checkpoints
from outspike.train.job import train

SMALL = runpy.run_path(str(Path(__file__).parents[1] / "train" / "conftest.py"))


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> TrainConfig:
    folder = tmp_path_factory.mktemp("train")
    return SMALL["ddp_config"](folder, steps=150, cpus_per_worker=0.5)


@pytest.fixture(scope="module", autouse=True)
def small_ray() -> Iterator[None]:
    with ray_session(num_cpus=2):
        yield


def train_workers() -> list[int]:
    """Process ids of this cluster's Ray Train workers."""
    actors = ray._private.state.actors().values()
    return [
        actor["Pid"]
        for actor in actors
        if "RayTrainWorker" in actor["ActorClassName"] and actor["State"] == "ALIVE"
    ]


def kill_a_worker_after(step: int, storage: str, killed: list[int]) -> None:
    """Wait for the run's checkpoint at ``step``, then kill one of its workers."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        runs = list(Path(storage).iterdir()) if Path(storage).exists() else []
        if runs and any(done >= step for done in checkpoints.complete_steps(str(runs[0]))):
            victim, reached = train_workers()[-1], checkpoints.complete_steps(str(runs[0]))
            os.kill(victim, signal.SIGKILL)
            killed += [victim, reached[-1]]
            return
        time.sleep(0.02)


@pytest.mark.cluster
@pytest.mark.slow
def test_a_killed_worker_is_replaced_and_the_weights_are_those_of_one_process(config, tmp_path):
    """Two workers, one of them killed in the middle, end where one process without Ray ends."""
    killed: list[int] = []
    killer = threading.Thread(target=kill_a_worker_after, args=(20, config.storage, killed))
    killer.start()
    result = train(config)
    killer.join()
    assert killed
    assert killed[1] < config.steps
    alone = train(dataclasses.replace(config, num_workers=0, storage=str(tmp_path / "alone")))
    one, other = (checkpoints.load(found.checkpoint).model for found in (result, alone))
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-4, atol=1e-5)
    again = train(config)
    assert (again.checkpoint, again.is_new) == (result.checkpoint, False)


@pytest.mark.cluster
@pytest.mark.slow
def test_an_error_that_would_come_again_is_told_at_once(config, tmp_path):
    """A loss that is not finite ends the job with its own one line, without another attempt."""
    detector = dataclasses.replace(config.detector, smooth_weight=1e300)
    broken = dataclasses.replace(config, detector=detector, storage=str(tmp_path), max_failures=3)
    with pytest.raises(TrainingError, match="Step 0: loss or gradient is not finite") as caught:
        train(broken)
    assert "\n" not in str(caught.value)
    assert find_runs(broken.tracking_uri, {})[0].info.status == "FAILED"
