"""What the commands ``outspike store ...`` print: text and an exit code, no printing here."""

import json
from collections import Counter
from collections.abc import Sequence

from outspike.store.fingerprint import FeatureSetSpec
from outspike.store.fsck import fsck as check
from outspike.store.gc import gc as collect
from outspike.store.layout import size_text
from outspike.store.lineage import lineage as trace
from outspike.store.store import FeatureStore


def ls(url: str, feature_set: str | None = None, *, version: int | None = None) -> tuple[str, int]:
    """One line a feature set: recordings, snippets, size, shape."""
    store = FeatureStore.open(url, version=version)
    lines = [
        f"{url}: catalog version {store.version}, recordings version {store.recordings_version}"
        + (", one writer at a time" if store.is_single_writer else "")
    ]
    for spec in _chosen(store, feature_set):
        reader = store.features(spec.address)
        snippets = sum(reader.num_snippets(key) for key in reader)
        lines.append(
            f"{spec.address}  {len(reader.keys())} recordings  {snippets} snippets  "
            f"{size_text(snippets * spec.row_bytes)}  [{spec.num_crops}, {spec.width}] "
            f"{spec.dtype}"
        )
    return "\n".join(lines if len(lines) > 1 else [*lines, "no feature sets yet"]), 0


def show(
    url: str, feature_set: str | None = None, *, version: int | None = None
) -> tuple[str, int]:
    """Everything feature sets say of themselves, and how they are stored, as JSON."""
    store = FeatureStore.open(url, version=version)
    rows = store.extents.select(["fingerprint", "dataset", "video_id", "segment"]).to_pylist()
    shown = []
    for spec in _chosen(store, feature_set):
        mine = [row for row in rows if row["fingerprint"] == spec.fingerprint]
        recordings = Counter(dataset for dataset, _ in store.features(spec.address))
        shown.append(
            {
                "address": spec.address,
                **spec.attributes(),
                "recordings": dict(sorted(recordings.items())),
                "extents": len(mine),
                "segments": len({row["segment"] for row in mine}),
                "catalog_version": store.version,
            }
        )
    return json.dumps(shown if feature_set is None else shown[0], indent=2), 0


def digest(
    url: str, feature_set: str | None = None, *, version: int | None = None
) -> tuple[str, int]:
    """The order-independent digest of everything readers would be given."""
    store = FeatureStore.open(url, version=version)
    return store.digest(None if feature_set is None else [feature_set]), 0


def fsck(
    url: str,
    feature_set: str | None = None,
    *,
    version: int | None = None,
    forget: bool = False,
    sources: bool = False,
) -> tuple[str, int]:
    """Check everything; 1 where the catalog names anything that is not intact.

    With ``forget`` the damaged attempts leave the newest version of the catalog, so that the next
    extraction does those recordings again; the exit code still tells what was found.
    """
    store = FeatureStore.open(url, version=version)
    report = check(store, feature_set, sources=sources)
    text = report.text()
    if forget and report.damaged_attempts:
        now = store.forget(report.damaged_attempts)
        text += (
            f"\n{len(report.damaged_attempts)} attempts forgotten in version {now}; run the "
            "extraction again"
        )
    return text, report.exit_code


def gc(
    url: str, *, grace_s: float, keep: Sequence[int] = (), dry_run: bool = False
) -> tuple[str, int]:
    """Remove what no version that is kept names."""
    report = collect(url, grace_s=grace_s, keep_versions=keep, dry_run=dry_run)
    return report.text(), 0


def compact(url: str) -> tuple[str, int]:
    """Make large segments of small ones; 1 where damaged recordings had to be left alone."""
    from outspike.store.compact import compact as rewrite  # compiled

    report = rewrite(url)
    return report.text(), 1 if report.damaged else 0


def lineage(url: str, name: str | None = None, *, version: int | None = None) -> tuple[str, int]:
    """Where features come from, as JSON."""
    return json.dumps(trace(FeatureStore.open(url, version=version), name), indent=2), 0


def unpin(url: str, run_id: str) -> tuple[str, int]:
    """Release a run's pin; 1 where it had none."""
    store = FeatureStore.open(url)
    held = [row for row in store.pins().to_pylist() if row["run_id"] == run_id]
    if not held:
        return f"{url}: run {run_id} has pinned nothing", 1
    store.unpin(run_id)
    return f"{url}: run {run_id} no longer holds version {held[0]['catalog_version']}", 0


def _chosen(store: FeatureStore, feature_set: str | None) -> list[FeatureSetSpec]:
    if feature_set is None:
        return list(store.feature_sets().values())
    return [store.resolve(feature_set)]
