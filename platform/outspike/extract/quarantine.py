"""The quarantine as a person looks at it: failures that nothing has made good since."""

from datetime import datetime
from typing import Any

from outspike.extract.ledger import Ledger
from outspike.store.delta import table_exists
from outspike.store.layout import CATALOG
from outspike.store.store import FeatureStore

Row = dict[str, Any]


def standing(store_url: str) -> list[Row]:
    """The newest failure of every recording that has not been extracted since, oldest first.

    A failure is made good once each of the feature sets it names holds the recording by a later
    attempt; one that names none (the file could not be reached) by a later attempt of any.
    """
    if not table_exists(store_url, CATALOG):
        return []
    newest: dict[tuple[str, str], Row] = {}
    for row in Ledger(store_url).rows():
        newest[row["dataset"], row["video_id"]] = row
    if not newest:
        return []
    extracted = _extracted(FeatureStore.open(store_url))
    rows = [row for key, row in newest.items() if not _made_good(row, extracted.get(key, {}))]
    return sorted(rows, key=lambda row: str(row["failed_at"]))


def text(rows: list[Row]) -> str:
    """One line a failure: recording, stage, reason, how often this file was tried, detail."""
    lines = [
        f"{row['dataset']}/{row['video_id']}  stage={row['stage']}  reason={row['reason']}  "
        f"attempts={row['attempt']}  at={row['failed_at']}  {row['detail']}"
        for row in rows
    ]
    return "\n".join([*lines, f"{len(rows)} failures"])


def _extracted(store: FeatureStore) -> dict[tuple[str, str], dict[str, datetime]]:
    """When each recording was last extracted, by fingerprint."""
    found: dict[tuple[str, str], dict[str, datetime]] = {}
    columns = ["dataset", "video_id", "fingerprint", "extracted_at"]
    for row in store.extents.select(columns).to_pylist():
        of_recording = found.setdefault((row["dataset"], row["video_id"]), {})
        of_recording[row["fingerprint"]] = row["extracted_at"]
    return found


def _made_good(row: Row, extracted: dict[str, datetime]) -> bool:
    failed_at = datetime.fromisoformat(row["failed_at"])
    later = {name for name, at in extracted.items() if at > failed_at}
    return later.issuperset(row["fingerprints"]) if row["fingerprints"] else bool(later)
