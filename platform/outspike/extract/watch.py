"""What a job says of itself while it runs: progress for people, counters for Prometheus, rates."""

import time
from collections.abc import Sequence

from outspike.extract.actor import Message
from outspike.extract.metrics import JobCounters
from outspike.extract.plan import Plan
from outspike.extract.progress import Progress
from outspike.extract.rates import RateBook


class JobWatch:
    """Takes note of every message of a job, in the driver; made once Ray runs."""

    def __init__(self, plan: Plan, fingerprints: Sequence[str]) -> None:
        self.progress = Progress(total=len(plan.items))
        self.rates = RateBook(fingerprints, plan.items)
        self.first_began: float | None = None
        """When (monotonic clock) the first recording to end was begun by its actor."""
        self._counters = JobCounters()
        self._waiting = len(plan.items)
        self._counters.waiting(self._waiting)
        for failure in plan.unreadable:
            self._counters.quarantined(failure)

    def take(self, message: Message) -> None:
        """One more message of an actor."""
        if message.key is None:
            return
        if self.first_began is None:
            self.first_began = time.monotonic() - message.seconds
        self._waiting -= 1
        self._counters.waiting(self._waiting)
        if message.failure is not None:
            self._counters.quarantined(message.failure)
            self.progress.failed()
            return
        self._counters.extracted(message.footage_s, message.pixels)
        self.rates.add(message.key, message.pixels, message.seconds)
        self.progress.finished(message.footage_s)

    def lost(self, number: int) -> None:
        """That many recordings went down with a worker and begin anew."""
        self._waiting = number
        self._counters.waiting(number)
        self._counters.retried(number)
        self.progress.lost(number)
