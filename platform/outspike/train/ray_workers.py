"""The Ray half of a training job: workers that share the batches, replaced when they are lost.

Checkpoints are the loop's own (:mod:`outspike.train.checkpoint`), written by rank 0 to the run's
address and found there by whoever goes on, so Ray is told of metrics and not given a second record
of the same files that could disagree with them.
"""

import errno
import logging
import math
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import ray
import ray.train as rt
import torch.distributed as dist
from ray.train.torch import TorchTrainer, get_device

from outspike import urls
from outspike.app import configure_logging, expected_cause
from outspike.cluster import enough_cpus, ray_session, ray_storage
from outspike.config import TrainConfig
from outspike.errors import OutspikeError, TrainingError
from outspike.train.plan import TrainingPlan
from outspike.train.ray_network import NamedInterface
from outspike.train.ray_news import Hear, forget_ranks, give_up, given_up, heard, live, tell
from outspike.train.watchdog import Heart, Watch

logger = logging.getLogger(__name__)

#: Ray's controller looks at its workers this often; every report waits for it. The default of 2 s
#: would be most of the time of a short run.
_POLL_S = 0.25
#: A group that cannot start, for a dead node is still listed, is planned anew after this long.
_START_TIMEOUT_S = 30
#: With a range of workers, how often Ray looks whether more have room.
_RESIZE_EVERY_S = 10.0


def train_with_ray(plan: TrainingPlan, run_url: str, hear: Hear, *, run_id: str) -> None:
    """Train to the last step with as many Ray Train workers as the config asks for.

    Lost workers are replaced up to ``max_failures`` times and go on from the newest checkpoint,
    with ``min_workers`` by as many as there is room for.

    Args:
        plan: what is trained.
        run_url: folder or prefix of the run.
        hear: told of every line of the log, in a thread of its own.
        run_id: of the record, for the workers' own logs.

    Raises:
        OutspikeError: what a worker raised on purpose.
        TrainingError: workers kept failing for another reason.
    """
    config = plan.config
    _set_defaults(config)
    watch = Watch(config.stall_after_s)
    num_cpus = enough_cpus(config.num_workers * config.cpus_per_worker, config.num_cpus)
    with ray_session(num_cpus), heard(run_url, hear, watch):
        trainer = TorchTrainer(
            _work,
            # A reference, so that Ray's controller does not load what only workers need.
            train_loop_config={
                "plan": ray.put(plan),
                "run_url": run_url,
                "run_id": run_id,
            },
            scaling_config=rt.ScalingConfig(**_scaling(config)),
            torch_config=NamedInterface(
                backend="nccl" if config.gpus_per_worker > 0 else "gloo",
                timeout_s=math.ceil(config.collective_timeout_s),
            ),
            run_config=rt.RunConfig(
                name="ray",
                failure_config=rt.FailureConfig(max_failures=config.max_failures),
                **ray_storage(run_url),
            ),
        )
        _fit(trainer, run_url)
        error = given_up(run_url)
        if error is not None:
            raise error


def _work(settings: dict[str, Any]) -> None:
    """What each worker runs, from the newest checkpoint or from the start."""
    from outspike.train.loop import run
    from outspike.train.step import World

    context = rt.get_context()
    rank = context.get_world_rank()
    configure_logging(rank=rank)
    run_url: str = settings["run_url"]
    logger.info(
        "run=%s run_id=%s world_size=%d", run_url, settings["run_id"], context.get_world_size()
    )

    def report(step: int, metrics: Mapping[str, float], _checkpoint: str | None) -> None:
        rt.report({"step": step, **metrics})

    plan: TrainingPlan = ray.get(settings["plan"])
    world = World(rank=rank, size=context.get_world_size(), device=str(get_device()))
    if rank == 0:
        forget_ranks(run_url, world.size)
    heart = Heart(
        rank,
        partial(live, run_url),
        stall_after_s=plan.config.stall_after_s,
        keep_stack=partial(_keep_stack, run_url),
    )
    try:
        with heart:
            run(
                plan,
                run_url,
                world=world,
                report=report,
                tell=partial(tell, run_url),
                note=heart.at,
            )
    except Exception as error:
        _leave(run_url, error)


def _keep_stack(run_url: str, name: str, text: str) -> str:
    """Write the stack of a rank that stands still beside its run."""
    url = urls.join(run_url, "stacks", name)
    urls.write_bytes(url, text.encode())
    return url


def _leave(run_url: str, error: Exception) -> None:
    """Leave without asking for another attempt where that would end the same way.

    Ray retries whatever a worker raises, half a minute each time. A loss that is not finite, a
    damaged bag or a full disk is found again by the next attempt, so such errors reach the driver
    as news; ranks that wait for this one are let go by closing the group, and find the same news.
    """
    if isinstance(error, OutspikeError) and (not isinstance(error, OSError) or is_full(error)):
        give_up(run_url, error)
        if dist.get_backend() == "gloo":
            dist.destroy_process_group()
        return
    if given_up(run_url) is None:
        raise error


def is_full(error: OSError) -> bool:
    """Whether a disk or a quota has no room left."""
    causes = (error, error.__cause__)
    return any(getattr(cause, "errno", None) in (errno.ENOSPC, errno.EDQUOT) for cause in causes)


def _fit(trainer: TorchTrainer, run_url: str) -> None:
    before = signal.getsignal(signal.SIGINT)
    try:
        trainer.fit()
    except SystemExit as error:  # Ray's own handler of ctrl-C ends the process with 0
        raise KeyboardInterrupt from error
    except rt.TrainingFailedError as error:
        causes = [found for found in _causes(error) if isinstance(found, OutspikeError)]
        if causes:
            raise causes[0] from error
        raise TrainingError(
            f"Training failed for good: {_last_line(error)}. What was checkpointed is in "
            f"{run_url}; the same command goes on from there."
        ) from error
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, before)


def _causes(error: rt.TrainingFailedError) -> Iterator[BaseException | None]:
    for failure in getattr(error, "worker_failures", {}).values():
        yield expected_cause(failure)
    yield expected_cause(error)


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


# ---------------------------------------------------------------------------------- settings


def _set_defaults(config: TrainConfig) -> None:
    """Settings Ray Train only takes from the environment; what the user has set stays."""
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", str(_POLL_S))
    if config.min_workers is not None:
        os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", str(_START_TIMEOUT_S))
    if not os.environ.get("RAY_ADDRESS"):  # nobody preempts a private Ray: one process less
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")


def _scaling(config: TrainConfig) -> dict[str, Any]:
    """How many workers, or from how many to how many, and what each needs."""
    scaling: dict[str, Any] = {
        "num_workers": config.num_workers,
        "use_gpu": config.gpus_per_worker > 0,
        "resources_per_worker": _resources(config),
    }
    if config.min_workers is not None and config.min_workers < config.num_workers:
        scaling["num_workers"] = (config.min_workers, config.num_workers)
        scaling["elastic_resize_monitor_interval_s"] = _RESIZE_EVERY_S
    return scaling


def _resources(config: TrainConfig) -> dict[str, float]:
    resources = {"CPU": config.cpus_per_worker}
    if config.gpus_per_worker > 0:
        resources["GPU"] = config.gpus_per_worker
    return resources
