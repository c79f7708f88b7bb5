"""Memory for time: what is inside a piece of a network is computed again on the way back."""

from collections.abc import Callable
from typing import TypeVar

import torch
from torch.utils.checkpoint import checkpoint

Result = TypeVar("Result")


def recomputed(run: Callable[..., Result], *args: object) -> Result:
    """``run(*args)`` that keeps its arguments for the way back, and nothing of what is inside.

    ``run`` must draw nothing from a generator: it would draw something else the second time.
    """
    if not torch.is_grad_enabled():
        return run(*args)
    result: Result = checkpoint(run, *args, use_reentrant=False, preserve_rng_state=False)
    return result
