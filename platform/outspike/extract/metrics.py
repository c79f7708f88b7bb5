"""Counters for Prometheus, through Ray.

Ray serves those of every process at the metrics port of its node; names there begin with ``ray_``
and those of counters end with ``_total``. How fast a stage is, is the rate of its counter.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from ray.util.metrics import Counter, Gauge

from outspike.extract.ledger import Failure


class StageSeconds:
    """Where the time of an actor goes: ``decode`` (waiting for frames), ``encode``, ``write``.

    Of recordings that were extracted whole; reading events counts as encoding them.
    """

    def __init__(self) -> None:
        self._seconds = Counter(
            "outspike_extract_stage_seconds",
            "Seconds of actors by stage: decode (waiting for frames), encode, write.",
            tag_keys=("stage",),
        )

    def add(self, stage: str, seconds: float) -> None:
        """So much more time went into a stage."""
        if seconds > 0:  # a counter refuses zero
            self._seconds.inc(seconds, tags={"stage": stage})

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Count the time that the block takes."""
        began = time.monotonic()
        yield
        self.add(stage, time.monotonic() - began)


class JobCounters:
    """What the driver counts; made once Ray runs."""

    def __init__(self) -> None:
        self._queue = Gauge(
            "outspike_extract_queue", "Recordings that are neither extracted nor quarantined."
        )
        self._recordings = Counter(
            "outspike_extract_recordings", "Recordings that were extracted whole."
        )
        self._footage = Counter("outspike_extract_footage_seconds", "Footage that was extracted.")
        self._pixels = Counter("outspike_extract_pixels", "Pixels of video that were decoded.")
        self._retries = Counter(
            "outspike_extract_retries", "Recordings that went down with a worker and began anew."
        )
        self._quarantined = Counter(
            "outspike_extract_quarantined",
            "Recordings that were given up, by the stage that failed and why.",
            tag_keys=("stage", "reason"),
        )

    def waiting(self, number: int) -> None:
        """So many recordings are still to be done."""
        self._queue.set(max(0, number))

    def extracted(self, footage_s: float, pixels: int) -> None:
        """One more recording is extracted."""
        self._recordings.inc()
        for counter, value in ((self._footage, footage_s), (self._pixels, pixels)):
            if value > 0:
                counter.inc(value)

    def quarantined(self, failure: Failure) -> None:
        """One more recording is given up."""
        self._quarantined.inc(tags={"stage": failure.stage, "reason": failure.reason})

    def retried(self, number: int) -> None:
        """So many recordings begin anew."""
        self._retries.inc(number)
