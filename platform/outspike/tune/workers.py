"""A trial that is too large for one process: Ray Train workers share its batches.

Starting them costs more than a small trial does (five processes, half a minute on two cores), so a
search asks for it by ``workers_per_trial``.
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from queue import SimpleQueue

from outspike.cluster import cluster_cpus, enough_cpus
from outspike.config import TuneConfig
from outspike.errors import ConfigError
from outspike.train.plan import TrainingPlan
from outspike.train.ray_workers import train_with_ray

#: (steps done, metrics); None when training has ended well, or what ended it.
_News = tuple[int, Mapping[str, float]] | BaseException | None

#: CPUs of the process that waits for a trial's workers. What it computes is next to nothing, but
#: Tune places it like any other work.
_DRIVER_CPUS = 0.05


def train_with_workers(
    plan: TrainingPlan, url: str, run_id: str, tell: Callable[[int, Mapping[str, float]], None]
) -> None:
    """Train to the last step with the config's workers, and pass on every line of their log.

    ``tell`` is called in the caller's thread: Tune stops a trial by raising in a report, which has
    to end the trial and not a thread of it. Workers that are still at it then end with the trial's
    process, which Ray ends for that reason.

    Raises:
        OutspikeError: as :func:`outspike.train.ray_workers.train_with_ray`.
    """
    told: SimpleQueue[_News] = SimpleQueue()
    threading.Thread(
        target=partial(_drive, plan, url, run_id, told), name="trial-workers", daemon=True
    ).start()
    for step, metrics in _until_the_end(told):
        tell(step, metrics)


def _drive(plan: TrainingPlan, url: str, run_id: str, told: "SimpleQueue[_News]") -> None:
    try:
        train_with_ray(plan, url, lambda step, metrics: told.put((step, metrics)), run_id=run_id)
    except BaseException as error:  # raised again by the thread that waits
        told.put(error)
    else:
        told.put(None)


def _until_the_end(told: "SimpleQueue[_News]") -> Iterator[tuple[int, Mapping[str, float]]]:
    while (news := told.get()) is not None:
        if isinstance(news, BaseException):
            raise news
        yield news


def trial_process_cpus(config: TuneConfig) -> float:
    """What Tune sets aside for a trial's own process."""
    return _DRIVER_CPUS if config.workers_per_trial else config.cpus_per_trial


def local_cpus(config: TuneConfig) -> int | None:
    """CPUs a private Ray claims; None means the machine's."""
    if not config.workers_per_trial:
        return config.num_cpus
    return enough_cpus(_cpus_at_a_time(config, config.workers_per_trial), config.num_cpus)


def check_room(config: TuneConfig) -> None:
    """Trials of which none finds all of its workers would wait for ever.

    Raises:
        ConfigError: the cluster has not room for all trials that run at a time.
    """
    if not config.workers_per_trial:
        return
    fewest = config.train.min_workers or config.workers_per_trial
    needed = _cpus_at_a_time(config, fewest)
    if needed > cluster_cpus():
        raise ConfigError(
            f"max_concurrent={config.max_concurrent} trials of {fewest} workers need {needed:g} "
            f"CPUs, the cluster has {cluster_cpus():g}; lower --max-concurrent or "
            "--workers-per-trial."
        )


def _cpus_at_a_time(config: TuneConfig, workers: int) -> float:
    return config.max_concurrent * (_DRIVER_CPUS + workers * config.train.cpus_per_worker)
