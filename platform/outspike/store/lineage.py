"""Where the features of a store come from, and who holds on to them."""

from collections import Counter
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from outspike.errors import StoreError
from outspike.store.catalog import Extents
from outspike.store.store import FeatureStore


def lineage(store: FeatureStore, name: str | None = None) -> dict[str, Any]:
    """What is known of one recording, one feature set, or the store.

    Args:
        store: asked as of its version.
        name: ``dataset/video_id``; or a feature set by name, address or fingerprint; None for all
            feature sets.

    Returns:
        Plain JSON values. Of a recording: every attempt by feature set, the source file it was made
        from, what made it and where it lies. Of a feature set: its whole fingerprint document,
        sources, and what made it when. In both cases the runs that have pinned a version.

    Raises:
        StoreError: no such recording or feature set.
    """
    rows = store.catalog()
    dataset, slash, video = (name or "").partition("/")
    if slash:
        mine = rows.filter(
            pc.and_(pc.equal(rows["dataset"], dataset), pc.equal(rows["video_id"], video))
        )
        if not mine.num_rows:
            raise StoreError(
                f"{store.url} version {store.version}: no features of {name}; a recording is named "
                "dataset/video_id."
            )
        found: dict[str, Any] = {"recording": name, "attempts": _attempts(mine)}
    else:
        specs = store.feature_sets().values() if name is None else [store.resolve(name)]
        found = {
            "feature_sets": [
                {
                    "address": spec.address,
                    **spec.attributes(),
                    **_summary(rows.filter(pc.equal(rows["fingerprint"], spec.fingerprint))),
                }
                for spec in specs
            ]
        }
    return {"store": store.url, "catalog_version": store.version, **found, "pins": _pins(store)}


def _attempts(rows: pa.Table) -> list[dict[str, Any]]:
    """Attempts at one recording, newest first, and what readers make of each."""
    current = set(Extents(rows).current(("attempt",))["attempt"].to_pylist())
    superseded = set(Extents(rows).superseded())
    by_attempt: dict[str, list[dict[str, Any]]] = {}
    for row in rows.to_pylist():
        by_attempt.setdefault(row["attempt"], []).append(row)
    found = []
    for attempt, extents in sorted(by_attempt.items(), reverse=True):
        first = extents[0]
        state = "superseded" if attempt in superseded else "broken"
        found.append(
            {
                "feature_set": first["feature_set"],
                "fingerprint": first["fingerprint"],
                "attempt": attempt,
                "state": "current" if attempt in current else state,
                "copied": "." in attempt,
                "source_url": first["source_url"],
                "source_etag": first["source_etag"],
                "source_size": first["source_size"],
                "num_frames": first["num_frames"],
                "num_snippets": first["num_snippets"],
                "extracted_at": first["extracted_at"].isoformat(),
                "outspike_version": first["outspike_version"],
                "extents": [
                    [e["segment"], e["row_start"], e["row_stop"]]
                    for e in sorted(extents, key=lambda row: int(row["snippet_start"]))
                ],
            }
        )
    return found


def _summary(rows: pa.Table) -> dict[str, Any]:
    current = Extents(rows).current()
    firsts = current.filter(pc.equal(current["snippet_start"], 0))
    return {
        "recordings": dict(sorted(Counter(firsts["dataset"].to_pylist()).items())),
        "source_bytes": pc.sum(firsts["source_size"]).as_py() or 0,
        "extracted": [at.isoformat() for at in pc.min_max(firsts["extracted_at"]).as_py().values()],
        "outspike_versions": sorted(set(firsts["outspike_version"].to_pylist())),
    }


def _pins(store: FeatureStore) -> list[dict[str, Any]]:
    return [
        {**row, "pinned_at": row["pinned_at"].isoformat()}
        for row in store.pins().sort_by("pinned_at").to_pylist()
    ]
