"""What the driver does with what actors report: catalog rows, ledger rows, and what is missing."""

import logging
import time
from collections.abc import Iterable, Sequence

from outspike.extract.ledger import Failure, Ledger
from outspike.extract.plan import WorkItem
from outspike.store.catalog import Receipt
from outspike.store.store import FeatureStore

logger = logging.getLogger(__name__)

Key = tuple[str, str]


class Committer:
    """The one place that writes the catalog and the ledger during a job.

    It also knows what is still owed: a recording is over once every feature set asked of it is in
    the catalog, or once it has failed.
    """

    def __init__(
        self, store: FeatureStore, fingerprints: Sequence[str], items: Iterable[WorkItem]
    ) -> None:
        self.failures: list[Failure] = []
        self.num_new = 0
        self._store = store
        self._ledger = Ledger(store.url)
        self._owed = {item.key: {fingerprints[i] for i in item.encoders} for item in items}
        self._receipts: list[Receipt] = []
        self._unwritten: list[Failure] = []
        self._committed = time.monotonic()

    def add_receipts(self, receipts: Iterable[Receipt]) -> None:
        """Take receipts of closed segments; they are committed when their attempt is whole."""
        self._receipts.extend(receipts)

    def add_failures(self, failures: Iterable[Failure]) -> None:
        """Take failures, and say each as it arrives."""
        for failure in failures:
            logger.warning("%s", failure)
            self.failures.append(failure)
            self._unwritten.append(failure)

    def flush_if_due(self, every_s: float) -> None:
        """Commit unless that was done a moment ago."""
        if time.monotonic() - self._committed >= every_s:
            self.flush()

    def flush(self) -> None:
        """Commit what has arrived. May be called again after it was interrupted.

        Raises:
            StoreError: the catalog or the ledger cannot be changed.
        """
        whole, waiting = split_whole(self._receipts)
        if whole:
            self._store.commit(whole)
            self._receipts = waiting
            self._settle(whole)
        if self._unwritten:
            self._ledger.append(self._unwritten)
            for failure in self._unwritten:
                self._owed.pop((failure.dataset, failure.video_id), None)
            self._unwritten = []
        self._committed = time.monotonic()

    def unfinished(self, items: Sequence[WorkItem]) -> tuple[WorkItem, ...]:
        """Items that are neither catalogued nor failed: whoever had them was lost."""
        return tuple(item for item in items if item.key in self._owed)

    def _settle(self, receipts: Iterable[Receipt]) -> None:
        for receipt in receipts:
            key = (receipt.dataset, receipt.video_id)
            owed = self._owed.get(key)
            if owed is not None:
                owed.discard(receipt.fingerprint)
                if not owed:
                    del self._owed[key]
                    self.num_new += 1


def split_whole(receipts: list[Receipt]) -> tuple[list[Receipt], list[Receipt]]:
    """Receipts of attempts that tile their recording, and those of attempts still open."""
    rows: dict[str, int] = {}
    for receipt in receipts:
        rows[receipt.attempt] = rows.get(receipt.attempt, 0) + (
            receipt.snippet_stop - receipt.snippet_start
        )
    whole = [r for r in receipts if rows[r.attempt] == r.num_snippets]
    waiting = [r for r in receipts if rows[r.attempt] != r.num_snippets]
    return whole, waiting
