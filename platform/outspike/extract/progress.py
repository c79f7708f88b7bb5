"""What a person sees while extraction runs: one bar on a terminal, a line every 10 s in a log."""

import logging
import sys
import time
from dataclasses import dataclass, field

from tqdm import tqdm

logger = logging.getLogger(__name__)

_LOG_EVERY_S = 10.0


@dataclass
class Progress:
    """Counts of one job: recordings and seconds of footage done, retried and quarantined."""

    total: int
    done: int = 0
    quarantined: int = 0
    retried: int = 0
    footage_s: float = 0.0
    _began: float = field(default_factory=time.monotonic)
    _logged: float = field(default_factory=time.monotonic)
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

    def tick(self) -> None:
        """Write the log line when it is due and there is no bar."""
        now = time.monotonic()
        if self._bar is None and now - self._logged >= _LOG_EVERY_S:
            self._logged = now
            logger.info("%s", self.line())

    def line(self) -> str:
        """Counts, speed and time left as ``key=value``."""
        elapsed = max(1e-9, time.monotonic() - self._began)
        finished = self.done + self.quarantined
        eta = f"{(self.total - finished) * elapsed / finished:.0f}" if finished else "unknown"
        return (
            f"done={self.done}/{self.total} hours={self.footage_s / 3600:.3f} "
            f"speed={self.footage_s / elapsed:.1f}x eta_s={eta} retried={self.retried} "
            f"quarantined={self.quarantined}"
        )

    def close(self) -> None:
        """Finish the bar, or write the last line."""
        if self._bar is not None:
            self._bar.close()
        else:
            logger.info("%s", self.line())

    def _advance(self) -> None:
        if self._bar is not None:
            elapsed = max(1e-9, time.monotonic() - self._began)
            self._bar.set_postfix_str(
                f"{self.footage_s / 3600:.2f} h, {self.footage_s / elapsed:.0f}x real time, "
                f"{self.quarantined} quarantined"
            )
            self._bar.update()
        self.tick()
