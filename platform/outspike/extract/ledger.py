"""The ledger of inputs that failed: one row a failure, kept beside the store's catalog."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
from deltalake import DeltaTable, write_deltalake

from outspike.recording import Recording
from outspike.store.delta import change, create_table, open_table, read_table, table_exists

#: Name of the table inside a store.
LEDGER = "ledger"

#: The file could not be reached, which says nothing about its content.
UNREADABLE = "unreadable"
#: The file was replaced while it was read.
CHANGED = "changed"

_SCHEMA = pa.schema(
    [
        ("dataset", pa.string()),
        ("video_id", pa.string()),
        ("source_etag", pa.string()),
        ("annotation", pa.string()),
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
    annotation: str = ""
    """The annotated intervals, where they are what failed; corrected ones are tried again."""
    fingerprints: tuple[str, ...]
    """Feature sets that were asked for."""
    stage: str
    """``probe``, ``decode`` or ``align``."""
    reason: str
    """A short stable word: truncated, no_video_stream, timeout, ..."""
    detail: str
    """The sentence a person reads."""
    attempt: int = 1
    failed_at: str = field(default_factory=lambda: datetime.now(UTC).isoformat())

    def __str__(self) -> str:
        return (
            f"quarantined {self.dataset}/{self.video_id} stage={self.stage} "
            f"reason={self.reason}: {self.detail}"
        )

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> "Failure":
        """From the JSON form that actors send."""
        return cls(**(document | {"fingerprints": tuple(document["fingerprints"])}))


def annotation_of(recording: Recording) -> str:
    """The annotated intervals as the ledger writes them."""
    return ";".join(f"{start}:{stop}" for start, stop in recording.intervals or ())


class Quarantine:
    """Which recordings an earlier failure speaks against, for some feature sets."""

    def __init__(self, rows: Iterable[dict[str, Any]], fingerprints: Iterable[str]) -> None:
        wanted = set(fingerprints)
        relevant = [r for r in rows if not r["fingerprints"] or wanted & set(r["fingerprints"])]
        self._recordings = {(row["dataset"], row["video_id"]) for row in relevant}
        self._names = {
            (row["dataset"], row["video_id"], row["source_etag"], row["annotation"])
            for row in relevant
            if row["reason"] not in (UNREADABLE, CHANGED)
        }

    def holds(self, recording: Recording, etag: str) -> bool:
        """Whether this very file, or this very annotation of it, has failed before."""
        name = (recording.dataset, recording.video_id, etag)
        return (*name, "") in self._names or (*name, annotation_of(recording)) in self._names

    def names(self, recording: Recording) -> bool:
        """Whether this recording has failed before, for any reason and whatever file it was."""
        return (recording.dataset, recording.video_id) in self._recordings


class Ledger:
    """The ``ledger`` Delta table of a store; created at the first failure."""

    def __init__(self, store_url: str) -> None:
        self._url = store_url

    def append(self, failures: Sequence[Failure]) -> None:
        """Add failures in one commit; their ``attempt`` counts earlier rows of the same file.

        Raises:
            StoreError: the table cannot be changed.
        """
        create_table(self._url, LEDGER, _SCHEMA)

        def attempt(table: DeltaTable) -> None:
            there = read_table(table, _SCHEMA.names).to_pylist()
            earlier = Counter(_file_of(row) for row in there)
            known = {(_file_of(row), row["failed_at"]) for row in there}
            rows = []
            for row in map(asdict, failures):
                if (_file_of(row), row["failed_at"]) not in known:  # else an earlier try held
                    earlier[_file_of(row)] += 1
                    rows.append(row | {"attempt": earlier[_file_of(row)]})
            if rows:
                added = pa.Table.from_pylist(rows, schema=_SCHEMA)
                write_deltalake(table, added, mode="append")

        change(self._url, LEDGER, attempt)

    def quarantine(self, fingerprints: Iterable[str]) -> Quarantine:
        """What failed for any of these feature sets.

        Files that could not be reached, or changed under the reader, are not held: they are looked
        at again every time.
        """
        return Quarantine(self.rows(), fingerprints)

    def rows(self) -> list[dict[str, Any]]:
        """Every failure ever recorded, oldest first."""
        if not table_exists(self._url, LEDGER):
            return []
        rows = read_table(open_table(self._url, LEDGER), _SCHEMA.names).to_pylist()
        return sorted(rows, key=lambda row: str(row["failed_at"]))


def _file_of(row: dict[str, Any]) -> tuple[str, str, str]:
    return row["dataset"], row["video_id"], row["source_etag"]
