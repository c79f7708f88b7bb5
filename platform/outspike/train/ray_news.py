"""What workers tell the driver while they train, through the key-value store every Ray cluster has.

Rank 0 tells of the steps, which the driver shows and records; every rank gives signs of life. So
workers neither load the tracking library nor need to reach its server, and a slow server does not
hold up a step.
"""

import json
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from ray.experimental.internal_kv import (
    _internal_kv_del,
    _internal_kv_get,
    _internal_kv_list,
    _internal_kv_put,
)

from outspike.errors import (
    AlignmentError,
    BagError,
    CheckpointError,
    ConfigError,
    CorruptionError,
    DatasetError,
    OutspikeError,
    StoreError,
    TrainingError,
    UrlError,
)
from outspike.train.watchdog import Beat, Watch

logger = logging.getLogger(__name__)

_POLL_S = 0.5

#: Errors of ours that are made of a message alone, and that training can meet.
_PLAIN: dict[str, type[OutspikeError]] = {
    kind.__name__: kind
    for kind in (
        AlignmentError,
        BagError,
        CheckpointError,
        ConfigError,
        CorruptionError,
        DatasetError,
        StoreError,
        TrainingError,
        UrlError,
    )
}

Hear = Callable[[int, Mapping[str, float]], None]


def tell(run_url: str, step: int, metrics: Mapping[str, float]) -> None:
    """Rank 0 has this to say of a step."""
    _internal_kv_put(f"{_prefix(run_url)}{step:012d}".encode(), json.dumps(metrics).encode())


def give_up(run_url: str, error: OutspikeError) -> None:
    """This rank has met an error that another attempt would meet again."""
    told = {"kind": type(error).__name__, "message": str(error)}
    _internal_kv_put(_failure_key(run_url), json.dumps(told).encode())


def given_up(run_url: str) -> OutspikeError | None:
    """The error some rank has given up on, if any: of its class, with its message."""
    found = _internal_kv_get(_failure_key(run_url))
    if found is None:
        return None
    told = json.loads(found)
    return _PLAIN.get(told["kind"], TrainingError)(told["message"])


def live(run_url: str, beat: Beat) -> None:
    """A rank gives a sign of life."""
    _internal_kv_put(_beat_key(run_url, beat.rank), beat.to_bytes())


def forget_ranks(run_url: str, world_size: int) -> None:
    """Ranks of an earlier, larger world are no more."""
    for rank in _beats(run_url):
        if rank >= world_size:
            _internal_kv_del(_beat_key(run_url, rank))


@contextmanager
def heard(run_url: str, hear: Hear, watch: Watch | None = None) -> Iterator[None]:
    """Pass everything told inside the block to ``hear``, in the order of steps, each step once.

    What was told is passed on at the latest when the block ends. An error of ``hear`` in the
    meantime is logged and the same news is tried again; one at the end is raised. A standstill
    that ``watch`` sees is logged.
    """
    forget_ranks(run_url, 0)
    listener = _Listener(run_url, hear)
    _internal_kv_del(_failure_key(run_url))
    stop = threading.Event()

    def follow() -> None:
        while not stop.wait(_POLL_S):
            try:
                listener.pass_on()
                _look(watch, run_url)
            except Exception as error:  # whatever the recording library raises
                logger.warning("news could not be recorded, trying again: %s", error)

    thread = threading.Thread(target=follow, name="train-news", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    listener.pass_on()


class _Listener:
    def __init__(self, run_url: str, hear: Hear) -> None:
        self._prefix = _prefix(run_url)
        self._hear = hear
        self._heard: set[int] = set()

    def pass_on(self) -> None:
        for key in sorted(_internal_kv_list(self._prefix)):
            step = int(key[len(self._prefix) :])
            found = _internal_kv_get(key)
            if found is not None and step not in self._heard:
                self._hear(step, json.loads(found))
                self._heard.add(step)
            _internal_kv_del(key)


def _look(watch: Watch | None, run_url: str) -> None:
    line = watch.look(_beats(run_url)) if watch else None
    if line is not None:
        logger.warning("%s", line)


def _beats(run_url: str) -> dict[int, Beat]:
    found = map(_internal_kv_get, _internal_kv_list(_beat_prefix(run_url)))
    beats = [Beat.from_bytes(data) for data in found if data is not None]
    return {beat.rank: beat for beat in beats}


def _beat_prefix(run_url: str) -> str:
    return f"outspike/train/beat/{run_url}/"


def _beat_key(run_url: str, rank: int) -> bytes:
    return f"{_beat_prefix(run_url)}{rank}".encode()


def _prefix(run_url: str) -> str:
    return f"outspike/train/news/{run_url}/"


def _failure_key(run_url: str) -> bytes:
    return f"outspike/train/failure/{run_url}".encode()
