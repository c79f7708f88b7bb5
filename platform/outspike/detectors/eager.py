"""Functions that ``torch.compile`` is to call and not to look into."""

from collections.abc import Callable
from typing import TypeVar

import torch

Function = TypeVar("Function", bound=Callable[..., object])


def eager(function: Function) -> Function:
    """Run as it is inside compiled code: tracing breaks on numba, which compiles by itself."""
    kept: Function = torch.compiler.disable(function)  # type: ignore[no-untyped-call]
    return kept
