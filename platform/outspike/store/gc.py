"""Removing segments that no version names any more which somebody may still read."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from outspike import urls
from outspike.store.delta import open_table, read_table, vacuum
from outspike.store.fsck import stored_segments
from outspike.store.layout import CATALOG, PINS, RECORDINGS, segment_url, size_text
from outspike.store.versions import GRACE_S, Segment, made_at, named_segments, retained

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class GcReport:
    """What was removed, or would be.

    ``kept_versions`` are those whose segments were spared. ``young`` segments are named by no
    version, but may be about to be; ``unknown`` folders do not look like segments and are left
    alone. ``table_files`` are files of the tables that only forgotten versions needed.
    """

    url: str
    removed: tuple[Segment, ...]
    num_bytes: int
    young: tuple[Segment, ...]
    unknown: tuple[Segment, ...]
    table_files: int
    kept_versions: tuple[int, ...]
    dry_run: bool

    def text(self) -> str:
        """The report for a terminal."""
        word = "would remove" if self.dry_run else "removed"
        lines = [f"{word} {address}/{segment}" for address, segment in self.removed]
        lines += [f"not a segment, left alone: {a}/{name}" for a, name in self.unknown]
        lines.append(
            f"{self.url}: {word} {len(self.removed)} segments ({size_text(self.num_bytes)}) and "
            f"{self.table_files} table files; {len(self.young)} unnamed segments are within the "
            f"grace period; kept all of versions {', '.join(map(str, self.kept_versions))}"
        )
        return "\n".join(lines)


def gc(
    store_url: str,
    *,
    grace_s: float = GRACE_S,
    keep_versions: Sequence[int] = (),
    dry_run: bool = False,
    now: datetime | None = None,
) -> GcReport:
    """Remove segments that no pinned, kept or recent catalog version names.

    A segment younger than ``grace_s`` stays in any case: its writer may be about to commit it, and
    may have outlived its driver. Readers of a version that is neither pinned nor was the newest
    within the grace period lose its rows. May run beside readers and writers, be killed, and be
    repeated.

    Args:
        store_url: the store.
        grace_s: longer than any job takes from writing a segment to committing it.
        keep_versions: catalog versions to spare besides the pinned ones.
        dry_run: only tell.
        now: the present, for tests.

    Raises:
        StoreError: no store there, or no such version to keep.
    """
    present = now or datetime.now(UTC)
    young: list[Segment] = []
    old: list[Segment] = []
    unknown: list[Segment] = []
    for address, segment in stored_segments(store_url):  # before the versions are looked up
        at = made_at(segment)
        kind = unknown if at is None else old if _age_s(at, present) > grace_s else young
        kind.append((address, segment))
    kept = retained(store_url, grace_s=grace_s, keep=keep_versions, now=present)
    named = named_segments(store_url, kept)
    garbage = sorted(set(old) - named)
    num_bytes = 0
    for address, segment in garbage:
        url = segment_url(store_url, address, segment)
        num_bytes += sum(found.size for found in urls.list_stats(url))
        if not dry_run:
            with urls.plain_errors(url):
                urls.filesystem(url).rm(urls.path_in(url), recursive=True)
            logger.debug("segment=%s removed", url)
    return GcReport(
        url=store_url,
        removed=tuple(garbage),
        num_bytes=num_bytes,
        young=tuple(sorted(set(young) - named)),
        unknown=tuple(unknown),
        table_files=_vacuum(store_url, kept, grace_s, dry_run),
        kept_versions=tuple(kept),
        dry_run=dry_run,
    )


def _vacuum(store_url: str, kept: Sequence[int], grace_s: float, dry_run: bool) -> int:
    pins = read_table(open_table(store_url, PINS), ["recordings_version"])
    hours = math.ceil(grace_s / 3600)
    spared = {CATALOG: list(kept), RECORDINGS: pins["recordings_version"].to_pylist()}
    return sum(
        len(vacuum(store_url, name, hours=hours, keep_versions=versions, dry_run=dry_run))
        for name, versions in spared.items()
    )


def _age_s(at: datetime, now: datetime) -> float:
    return (now - at).total_seconds()
