"""The ledger of inputs that failed: one row a failure, kept beside the store's catalog."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
from deltalake import DeltaTable, write_deltalake

from outspike.urls import join, storage_options

logger = logging.getLogger(__name__)

_SCHEMA = pa.schema(
    [
        ("dataset", pa.string()),
        ("video_id", pa.string()),
        ("source_etag", pa.string()),
        ("fingerprints", pa.list_(pa.string())),
        ("stage", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("attempt", pa.int64()),
        ("failed_at", pa.string()),
    ]
)


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why a recording could not be extracted."""

    dataset: str
    video_id: str
    source_etag: str
    """Identity of the file that failed; a replaced file is tried again. Empty if unreadable."""
    fingerprints: tuple[str, ...]
    """Feature sets that were asked for."""
    stage: str
    """``probe``, ``decode`` or ``align``."""
    reason: str
    """A short stable word: truncated, no_video_stream, timeout, ..."""
    detail: str
    """The sentence a person reads."""
    attempt: int = 1
    failed_at: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    def __str__(self) -> str:
        return (
            f"quarantined {self.dataset}/{self.video_id} stage={self.stage} "
            f"reason={self.reason}: {self.detail}"
        )

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> "Failure":
        """From the JSON form that actors send."""
        return cls(**(document | {"fingerprints": tuple(document["fingerprints"])}))


class Ledger:
    """The ``ledger`` Delta table of a store; created at the first failure."""

    def __init__(self, store_url: str) -> None:
        self._url = join(store_url, "ledger")
        self._options = storage_options().for_deltalake(store_url)

    def append(self, failures: Sequence[Failure]) -> None:
        """Add failures in one commit; their ``attempt`` counts earlier rows of the same file."""
        earlier = self._attempts()
        rows = []
        for failure in failures:
            name = (failure.dataset, failure.video_id, failure.source_etag)
            rows.append(asdict(failure) | {"attempt": earlier.get(name, 0) + 1})
        write_deltalake(
            self._url,
            pa.Table.from_pylist(rows, schema=_SCHEMA),
            mode="append",
            storage_options=self._options,
        )

    def quarantined(self, fingerprints: Iterable[str]) -> set[tuple[str, str, str]]:
        """``(dataset, video_id, etag)`` that failed for any of these feature sets.

        Files that could not even be read are not among them: they are looked at again every time.
        """
        wanted = set(fingerprints)
        return {
            (row["dataset"], row["video_id"], row["source_etag"])
            for row in self.rows()
            if wanted.intersection(row["fingerprints"])
        }

    def rows(self) -> list[dict[str, Any]]:
        """Every failure ever recorded, oldest first."""
        if not DeltaTable.is_deltatable(self._url, storage_options=self._options):
            return []
        table = pa.table(DeltaTable(self._url, storage_options=self._options).scan())
        return sorted(table.to_pylist(), key=lambda row: str(row["failed_at"]))

    def _attempts(self) -> dict[tuple[str, str, str], int]:
        counts: dict[tuple[str, str, str], int] = {}
        for row in self.rows():
            name = (row["dataset"], row["video_id"], row["source_etag"])
            counts[name] = counts.get(name, 0) + 1
        return counts
