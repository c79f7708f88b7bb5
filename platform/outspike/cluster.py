"""Joining Ray: the cluster this process was started on, else a small private one.

Only the rooms that compute in parallel (extract, train, tune, predict) import this module.
"""

import logging
import math
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow.fs

# Read when Ray is imported: a call after the session has ended (from a thread of Ray Data that an
# interruption left behind) must fail, not start another Ray.
os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")

import ray

from outspike import urls

logger = logging.getLogger(__name__)

#: Enough for receipts and a little slack; features never travel through the object store.
_LOCAL_OBJECT_STORE_BYTES = 200_000_000
_MOST_STARTS = 4
_CORE_LEVEL = "RAY_BACKEND_LOG_LEVEL"


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
    # Of the progress of Ray Data: that we turned its bars off is no news to the user.
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)
    with _core_messages_held_back():
        _init(num_cpus)
    try:
        yield
    finally:
        ray.shutdown()


def ray_storage(url: str) -> dict[str, Any]:
    """``storage_path`` and, for S3, ``storage_filesystem`` of Ray's run configs.

    Ray then uses the file system that everything else here does, with the same settings.
    """
    if urls.is_local(url):
        return {"storage_path": urls.path_in(url)}
    filesystem = pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(urls.filesystem(url)))
    return {"storage_path": urls.path_in(url), "storage_filesystem": filesystem}


def enough_cpus(wanted: float, num_cpus: int | None) -> int:
    """CPUs that a private Ray claims for workers: ``num_cpus``, or those of the machine, and no
    fewer than ``wanted``, or workers would be waited for for ever."""
    return max(num_cpus or os.cpu_count() or 1, math.ceil(wanted))


def cluster_cpus() -> float:
    """CPUs of the Ray this process has joined."""
    return float(ray.cluster_resources().get("CPU", 0.0))  # type: ignore[no-untyped-call]


def in_temporary_copy() -> bool:
    """Whether this job runs in an uploaded copy of its folder, which goes away with the job."""
    if not ray.is_initialized():
        return False
    folder = ray.get_runtime_context().runtime_env.get("working_dir", "")
    return bool(folder) and "://" in str(folder)


def _init(num_cpus: int | None) -> None:
    address = os.environ.get("RAY_ADDRESS")
    if address:
        ray.init(log_to_driver=False, logging_level=logging.ERROR)
        logger.info("ray=joined address=%s cpus=%d", address, int(cluster_cpus()))
        return
    _start_local(num_cpus)
    logger.info("ray=local cpus=%d", int(cluster_cpus()))


def _start_local(num_cpus: int | None) -> None:
    """A Ray of this process's own; Ray gives a node half a minute, which a busy machine exceeds."""
    for left in reversed(range(_MOST_STARTS)):
        try:
            ray.init(
                address="local",
                num_cpus=num_cpus,
                include_dashboard=False,
                object_store_memory=_LOCAL_OBJECT_STORE_BYTES,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        except Exception as error:  # Ray raises no narrower kind
            if "timed out during startup" not in str(error) or not left:
                raise
            logger.warning("ray=not up within its time, starting it again")
        else:
            return


@contextmanager
def _core_messages_held_back() -> Iterator[None]:
    """Keep one line of Ray's C++ core off standard error; whatever else is said there passes.

    The core reports routine events of its own actor pools as errors, so its level is set to fatal;
    that it took notice of the level it announces in a line nothing else can switch off.
    """
    os.environ.setdefault(_CORE_LEVEL, "fatal")
    sys.stderr.flush()
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(terminal, 2)
            os.close(terminal)
            held.seek(0)
            for line in held:
                if _CORE_LEVEL.encode() not in line:
                    os.write(2, line)
