"""How far a recording is: told while it is read, and not more often than anybody looks."""

import time
from collections.abc import Callable

Reach = Callable[[float], None]
"""Takes seconds of footage that are done."""


def now_and_then(tell: Reach, every_s: float) -> Reach:
    """``tell``, at most once in ``every_s`` seconds, and not before as many have passed."""
    told = time.monotonic()

    def reach(footage_s: float) -> None:
        nonlocal told
        now = time.monotonic()
        if now - told >= every_s:
            told = now
            tell(footage_s)

    return reach
