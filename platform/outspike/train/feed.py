"""Batches on their way to a step: read ahead by a thread, through pinned memory where asked for.

A batch is a pure function of its step, so reading ahead changes neither what is learnt nor what a
resumed run goes on with.
"""

import dataclasses
import queue
import threading
from collections.abc import Generator
from contextlib import closing
from typing import Any, Protocol

from torch import Tensor

from outspike.config import ComputeConfig
from outspike.detectors.bags import Bags

_LOOK_EVERY_S = 0.5


class Batches(Protocol):
    """The batches of a rank."""

    def __call__(self, step: int) -> Bags:
        """Those of one step."""


def fed(
    batch: Batches, config: ComputeConfig, *, start: int, stop: int
) -> Generator[Bags, None, None]:
    """The batches of steps ``[start, stop)`` in order, at most ``config.prefetch`` of them ahead.

    An error of ``batch`` is raised where its batch would have come. Closing the iterator ends the
    thread.
    """
    prepare = _pinned(batch) if config.pin_memory else batch
    if not config.prefetch:
        for step in range(start, stop):
            yield prepare(step)
        return
    with closing(_Ahead(prepare, config.prefetch, start, stop)) as ahead:
        for _ in range(start, stop):
            yield ahead.take()


class _Ahead:
    """A thread that fills a queue of a few batches."""

    def __init__(self, batch: Batches, size: int, start: int, stop: int) -> None:
        self._batch = batch
        self._ready: queue.Queue[Bags | BaseException] = queue.Queue(size)
        self._done = threading.Event()
        self._thread = threading.Thread(
            target=self._fill, args=(start, stop), name="train-feed", daemon=True
        )
        self._thread.start()

    def take(self) -> Bags:
        """The next batch."""
        found = self._ready.get()
        if isinstance(found, BaseException):
            raise found
        return found

    def close(self) -> None:
        """End the thread, after the batch it is reading."""
        self._done.set()
        self._thread.join()

    def _fill(self, start: int, stop: int) -> None:
        for step in range(start, stop):
            try:
                found: Bags | BaseException = self._batch(step)
            except BaseException as error:  # raised again by take(), in the thread that trains
                found = error
            if not self._put(found) or isinstance(found, BaseException):
                return

    def _put(self, found: Bags | BaseException) -> bool:
        """Wait for room, unless nobody wants more."""
        while not self._done.is_set():
            try:
                self._ready.put(found, timeout=_LOOK_EVERY_S)
            except queue.Full:
                continue
            return True
        return False


def _pinned(batch: Batches) -> Batches:
    """Batches whose tensors lie in pinned memory, from which copies to a GPU do not wait."""

    def read(step: int) -> Bags:
        bags = batch(step)
        pinned: dict[str, Any] = {
            field.name: value.pin_memory()
            for field in dataclasses.fields(bags)
            if isinstance(value := getattr(bags, field.name), Tensor)
        }
        pinned["features"] = {name: rows.pin_memory() for name, rows in bags.features.items()}
        return dataclasses.replace(bags, **pinned)

    return read
