"""What a run says of itself while it trains."""

import logging
import math
import sys
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

from tqdm import tqdm

logger = logging.getLogger(__name__)

_LOG_EVERY_S = 10.0
#: Metrics that belong on the progress line, by how they begin; the record has all of them.
_ON_THE_LINE = ("total", "held_out/", "cross_validation/", "pace/bags_per_s")


class RunLogger(Protocol):
    """Where a run is recorded (``outspike.registry.tracking`` has the MLflow form).

    Picklable; only rank 0 writes, every rank knows ``run_id``.
    """

    @property
    def run_id(self) -> str:
        """Name of the run in the place it is recorded."""

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Settings, nested ones under dotted names."""

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Numbers at one step."""

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """What the run was made from."""

    def log_artifact(self, path: str | Path, folder: str | None = None) -> None:
        """A file or folder to keep with the run."""

    def finish(self, status: Literal["FINISHED", "FAILED", "KILLED"] = "FINISHED") -> None:
        """Nothing more will come."""


class Means:
    """Means of named numbers since they were last taken."""

    def __init__(self) -> None:
        self._values: dict[str, list[float]] = defaultdict(list)

    def add(self, values: Mapping[str, float]) -> None:
        """One step's numbers."""
        for name, value in values.items():
            self._values[name].append(value)

    def take(self) -> dict[str, float]:
        """The means, exactly rounded, and a fresh start."""
        means = {name: math.fsum(found) / len(found) for name, found in self._values.items()}
        self._values.clear()
        return means


class Progress:
    """One bar on a terminal; in a job's log a line every 10 s."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._began = self._logged = time.monotonic()
        self._first: int | None = None
        self._bar = tqdm(total=total, unit="step", desc="train") if sys.stderr.isatty() else None

    def show(self, step: int, metrics: Mapping[str, float]) -> None:
        """So many steps are done; what was measured last."""
        now = time.monotonic()
        if self._first is None:
            self._first, self._began = step, now
        told = " ".join(
            f"{name.rpartition('/')[2]}={value:.4g}"
            for name, value in metrics.items()
            if name.startswith(_ON_THE_LINE)
        )
        if self._bar is not None:
            self._bar.set_postfix_str(told)
            self._bar.update(step - self._bar.n)
        elif now - self._logged >= _LOG_EVERY_S or step >= self._total:
            self._logged = now
            rate = (step - self._first) / max(now - self._began, 1e-9)
            eta = f"{(self._total - step) / rate:.0f}" if rate > 0 else "unknown"
            logger.info("step=%d/%d eta_s=%s %s", step, self._total, eta, told)

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._bar is not None:
            self._bar.close()
