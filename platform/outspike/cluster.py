"""Joining Ray: the cluster this process was started on, else a small private one.

Only the rooms that compute in parallel (extract, train, tune, predict) import this module.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

import ray

logger = logging.getLogger(__name__)

#: Enough for receipts and a little slack; features never travel through the object store.
_LOCAL_OBJECT_STORE_BYTES = 200_000_000


@contextmanager
def ray_session(num_cpus: int | None = None) -> Iterator[None]:
    """Join the cluster of ``RAY_ADDRESS`` (set by ``ray job submit``), else start a local one.

    A Ray that is already initialised in this process is used as it is and left running; what this
    function started or joined is left again at the end.

    Args:
        num_cpus: CPUs of a local Ray; None means the machine's.
    """
    if ray.is_initialized():
        yield
        return
    if os.environ.get("RAY_ADDRESS"):
        ray.init(log_to_driver=False, logging_level=logging.ERROR)
        logger.info("ray=joined address=%s", os.environ["RAY_ADDRESS"])
    else:
        # Ray's C++ core reports routine events of its own actor pools as errors.
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
        ray.init(
            address="local",
            num_cpus=num_cpus,
            include_dashboard=False,
            object_store_memory=_LOCAL_OBJECT_STORE_BYTES,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
        logger.info("ray=local cpus=%d", int(cluster_cpus()))
    try:
        yield
    finally:
        ray.shutdown()


def cluster_cpus() -> float:
    """CPUs of the Ray this process has joined."""
    return float(ray.cluster_resources().get("CPU", 0.0))  # type: ignore[no-untyped-call]
