"""Batches that are read ahead are the batches, in their order, and nothing is left behind."""

import threading
from contextlib import closing

import pytest

from outspike.config import ComputeConfig
from outspike.errors import BagError
from outspike.train.feed import fed


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate()}


@pytest.mark.parametrize("ahead", [0, 1, 5])
def test_every_step_gets_its_own_batch(ahead):
    """Whatever is read ahead, and no step twice."""
    asked: list[int] = []

    def batch(step):
        asked.append(step)
        return step

    assert list(fed(batch, ComputeConfig(prefetch=ahead), start=3, stop=9)) == list(range(3, 9))
    assert asked == list(range(3, 9))
    assert "train-feed" not in threads()


def test_at_most_so_many_are_read_ahead():
    """Memory is bounded: the thread waits while its queue is full."""
    asked = threading.Semaphore(0)

    def batch(step):
        asked.release()
        return step

    with closing(fed(batch, ComputeConfig(prefetch=2), start=0, stop=100)) as batches:
        assert next(batches) == 0
        for _ in range(4):  # one taken, two in the queue, one in the thread's hands
            assert asked.acquire(timeout=60)
        assert not asked.acquire(timeout=0.2)
    assert "train-feed" not in threads()


def test_an_error_comes_where_its_batch_would_have():
    """After the batches before it, of its own class; the thread has ended."""

    def batch(step):
        if step == 2:
            raise BagError("bag x is broken")
        return step

    batches = fed(batch, ComputeConfig(prefetch=4), start=0, stop=5)
    assert [next(batches), next(batches)] == [0, 1]
    with pytest.raises(BagError, match="bag x"):
        next(batches)
    assert "train-feed" not in threads()
