"""A fixed number of CPU threads around a computation whose bits must not depend on the host."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def fixed_threads(number: int) -> Iterator[None]:
    """Run with that many torch threads: split sums may round differently for another number."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
