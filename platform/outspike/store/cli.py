"""What ``outspike store ls|show|digest|fsck`` print: text and an exit code, no printing here."""

import json
from typing import Any

from outspike.store.fsck import fsck as check
from outspike.store.store import FeatureStore


def ls(url: str, *, version: int | None = None) -> tuple[str, int]:
    """One line a feature set: recordings, snippets, megabytes, shape."""
    store = FeatureStore.open(url, version=version)
    lines = [
        f"{url}: catalog version {store.version}, recordings version {store.recordings_version}"
    ]
    rows = store.extents.select(["feature_set", "dataset", "video_id", "num_snippets"]).to_pylist()
    for address, spec in store.feature_sets().items():
        mine = {
            (row["dataset"], row["video_id"]): row["num_snippets"]
            for row in rows
            if row["feature_set"] == address
        }
        snippets = sum(mine.values())
        lines.append(
            f"{address}  {len(mine)} recordings  {snippets} snippets  "
            f"{snippets * spec.row_bytes / 1e6:.1f} MB  [{spec.num_crops}, {spec.width}] "
            f"{spec.dtype}"
        )
    return "\n".join(lines if len(lines) > 1 else [*lines, "no feature sets yet"]), 0


def show(url: str, address: str, *, version: int | None = None) -> tuple[str, int]:
    """Everything one feature set says of itself, and how it is stored."""
    store = FeatureStore.open(url, version=version)
    spec = store.resolve(address)
    rows = [
        row for row in store.extents.to_pylist() if row["fingerprint"] == spec.fingerprint
    ]  # fmt: skip
    datasets: dict[str, set[str]] = {}
    for row in rows:
        datasets.setdefault(row["dataset"], set()).add(row["video_id"])
    facts: dict[str, Any] = {
        "address": spec.address,
        **spec.attributes(),
        "recordings": {name: len(videos) for name, videos in sorted(datasets.items())},
        "extents": len(rows),
        "segments": len({row["segment"] for row in rows}),
        "catalog_version": store.version,
    }
    return json.dumps(facts, indent=2), 0


def digest(url: str, *, version: int | None = None) -> tuple[str, int]:
    """The order-independent digest of everything readers would be given."""
    return FeatureStore.open(url, version=version).digest(), 0


def fsck(url: str, *, version: int | None = None) -> tuple[str, int]:
    """Check everything; 1 where the catalog names anything that is not intact."""
    report = check(FeatureStore.open(url, version=version))
    return report.text(), report.exit_code
