"""Events as four columns of equal length."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from outspike.errors import ConfigError


@dataclass(frozen=True)
class Events:
    """``N`` events in file order, which is order of time.

    Args:
        t: microseconds, int64 ``[N]``, as stored in the file.
        x, y: pixel, uint16 ``[N]``, counted from the top left.
        p: polarity, uint8 ``[N]``: 1 for brighter (ON), 0 for darker (OFF).
    """

    t: NDArray[np.int64]
    x: NDArray[np.uint16]
    y: NDArray[np.uint16]
    p: NDArray[np.uint8]

    def __post_init__(self) -> None:
        if not len(self.t) == len(self.x) == len(self.y) == len(self.p):
            raise ConfigError(
                f"Event columns differ in length: t {len(self.t)}, x {len(self.x)}, "
                f"y {len(self.y)}, p {len(self.p)}."
            )

    def __len__(self) -> int:
        return len(self.t)

    @classmethod
    def empty(cls) -> Self:
        """No events."""
        address = np.zeros(0, dtype=np.uint16)
        return cls(np.zeros(0, dtype=np.int64), address, address, np.zeros(0, dtype=np.uint8))

    @classmethod
    def room(cls, num: int) -> Self:
        """Columns for ``num`` events, with anything in them."""
        return cls(
            np.empty(num, dtype=np.int64),
            np.empty(num, dtype=np.uint16),
            np.empty(num, dtype=np.uint16),
            np.empty(num, dtype=np.uint8),
        )

    @property
    def columns(self) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
        """``t, x, y, p``."""
        return self.t, self.x, self.y, self.p

    def slice(self, start: int, stop: int) -> "Events":
        """Events ``[start, stop)`` as views."""
        return Events(
            self.t[start:stop], self.x[start:stop], self.y[start:stop], self.p[start:stop]
        )


def concatenate(parts: Sequence[Events]) -> Events:
    """One column set out of several, in the order given."""
    if not parts:
        return Events.empty()
    return Events(
        np.concatenate([part.t for part in parts]),
        np.concatenate([part.x for part in parts]),
        np.concatenate([part.y for part in parts]),
        np.concatenate([part.p for part in parts]),
    )
