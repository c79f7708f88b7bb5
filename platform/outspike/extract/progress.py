"""What a person sees while extraction runs: one bar on a terminal, a line every 10 s in a log."""

import logging
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from tqdm import tqdm

from outspike.extract.under_way import Standing

logger = logging.getLogger(__name__)

_LOG_EVERY_S, _SHOW_EVERY_S = 10.0, 1.0

Look = Callable[[], Standing]
"""Asks what the workers are at."""


@dataclass
class Progress:
    """Counts of one job: recordings and seconds of footage done, retried and quarantined."""

    total: int
    done: int = 0
    quarantined: int = 0
    retried: int = 0
    footage_s: float = 0.0
    """Of recordings that are done; what is under way comes on top in what is shown."""
    _standing: Standing = field(default_factory=Standing)
    _has_begun: bool = False
    _since: float = field(default_factory=time.monotonic)
    """When the job began; once a worker has begun a recording, when that was seen."""
    _told: float = field(default_factory=time.monotonic)
    _bar: "tqdm[None] | None" = None

    def __post_init__(self) -> None:
        if sys.stderr.isatty():
            self._bar = tqdm(total=self.total, unit="rec", desc="extract", smoothing=0.1)

    def finished(self, footage_s: float) -> None:
        """One more recording is encoded and written."""
        self.done += 1
        self.footage_s += footage_s
        self._advance()

    def failed(self) -> None:
        """One more recording is quarantined."""
        self.quarantined += 1
        self._advance()

    def lost(self, number: int) -> None:
        """That many recordings went down with a worker and begin anew."""
        self.retried += number
        self.done = max(0, self.done - number)

    def tick(self, look: Look) -> None:
        """Show where the job is when that is due: on the bar every second, else in a line."""
        now = time.monotonic()
        is_due = now - self._told >= (_LOG_EVERY_S if self._bar is None else _SHOW_EVERY_S)
        if is_due or not self._has_begun:
            self._standing = look()
            if self._standing.num_recordings:
                self._begin()
        if not is_due:
            return
        self._told = now
        if self._bar is None:
            logger.info("%s", self.line())
        else:
            self._bar.set_postfix_str(self.short())

    def line(self) -> str:
        """Counts, speed and time left as ``key=value``; before the first recording, the wait."""
        elapsed = time.monotonic() - self._since
        if not self._has_begun:
            return f"done=0/{self.total} workers are starting, for {elapsed:.0f} s so far"
        finished = self.done + self.quarantined
        eta = f"{(self.total - finished) * elapsed / finished:.0f}" if finished else "unknown"
        return (
            f"done={self.done}/{self.total} under_way={self._standing.num_recordings} "
            f"hours={self._seen_s / 3600:.3f} speed={self._speed:.1f}x eta_s={eta} "
            f"retried={self.retried} quarantined={self.quarantined}"
        )

    def short(self) -> str:
        """What stands behind the bar."""
        if not self._has_begun:
            return "workers are starting"
        return (
            f"{self._standing.num_recordings} under way, {self._seen_s / 3600:.2f} h, "
            f"{self._speed:.0f}x real time, {self.quarantined} quarantined"
        )

    def close(self) -> None:
        """Finish the bar, or write the last line."""
        self._standing = Standing()
        if self._bar is not None:
            self._bar.close()
        else:
            logger.info("%s", self.line())

    @property
    def _seen_s(self) -> float:
        return self.footage_s + self._standing.footage_s

    @property
    def _speed(self) -> float:
        return self._seen_s / max(1e-9, time.monotonic() - self._since)

    def _begin(self) -> None:
        if not self._has_begun:
            self._has_begun, self._since = True, time.monotonic()

    def _advance(self) -> None:
        self._begin()
        if self._bar is not None:
            self._bar.update()
