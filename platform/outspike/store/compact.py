"""Rewriting small and scattered segments, so that a bag is one range in a large shard."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from outspike.errors import CorruptionError
from outspike.recording import Recording
from outspike.store.catalog import (
    Receipt,
    append_attempts,
    compacted_attempt,
    drop_superseded,
)
from outspike.store.delta import optimize
from outspike.store.features import FeatureReader
from outspike.store.fingerprint import FeatureSetSpec
from outspike.store.layout import CATALOG, PINS, RECORDINGS, size_text
from outspike.store.segments import SPLIT_BYTES, SegmentWriter
from outspike.store.store import FeatureStore
from outspike.urls import SourceStat

logger = logging.getLogger(__name__)

#: Segments below the first are rewritten, into segments of about the second.
SMALL_BYTES = 32_000_000
LARGE_BYTES = 96_000_000
_PIECE_BYTES = 32_000_000


@dataclass(frozen=True, kw_only=True)
class CompactReport:
    """What a compaction did, by feature set: recordings moved, and segments before and after.

    ``damaged`` recordings could not be read and were left where they are.
    """

    url: str
    version: int
    moved: dict[str, int]
    segments: dict[str, tuple[int, int]]
    num_bytes: int
    num_dropped: int
    damaged: tuple[str, ...]

    def text(self) -> str:
        """The report for a terminal."""
        lines = []
        for address, (before, after) in self.segments.items():
            change = f"{before} segments, left as they are"
            if self.moved[address]:
                change = f"{before} segments -> {after}, {self.moved[address]} recordings moved"
            lines.append(f"{address}: {change}")
        lines += [
            f"damaged, left alone: {name}; run `outspike store fsck`" for name in self.damaged
        ]
        lines.append(
            f"{self.url} version {self.version}: {size_text(self.num_bytes)} rewritten, "
            f"{self.num_dropped} superseded attempts dropped; older versions keep their segments "
            "until `outspike store gc`"
        )
        return "\n".join(lines)


def compact(
    store_url: str,
    *,
    small_bytes: int = SMALL_BYTES,
    large_bytes: int = LARGE_BYTES,
) -> CompactReport:
    """Rewrite what lies small or scattered, then drop attempts that newer ones have replaced.

    Every recording is read with its checksums verified, written to new segments beside its
    neighbours, read back, and committed as an attempt of its own that takes the place of the one it
    was copied from. An attempt that a writer commits meanwhile is newer than both, so readers and
    writers may go on; nothing is removed from storage, and earlier versions stay as they are. May
    be killed and repeated.

    Args:
        store_url: the store.
        small_bytes: segments of less than this are rewritten.
        large_bytes: size at which a new segment closes.

    Raises:
        StoreError: the store cannot be opened or changed.
    """
    store = FeatureStore.open(store_url)
    rows = store.catalog()
    moved, segments, damaged, num_bytes = {}, {}, [], 0
    for address, spec in store.feature_sets().items():
        extents = store.extents
        mine = extents.filter(pc.equal(extents["fingerprint"], spec.fingerprint))
        chosen = _chosen(mine, rows, spec, small_bytes, large_bytes)
        before = len(mine["segment"].unique())
        moved[address], segments[address] = 0, (before, before)
        if not chosen:
            continue
        work = _Copy(store_url, spec, mine, large_bytes)
        for first, last in chosen:
            try:
                work.add(first, last)
            except CorruptionError as error:
                damaged.append(f"{address} {work.name(first)}")
                logger.warning("recording=%s not moved: %s", work.name(first), error)
        work.finish()
        moved[address], num_bytes = work.num_moved, num_bytes + work.num_bytes
        left = FeatureStore.open(store_url).extents
        left = left.filter(pc.equal(left["fingerprint"], spec.fingerprint))
        segments[address] = (before, len(left["segment"].unique()))
    version, num_dropped = drop_superseded(store_url)
    for table in (RECORDINGS, PINS, CATALOG):
        version = optimize(store_url, table)
    return CompactReport(
        url=store_url,
        version=version,
        moved=moved,
        segments=segments,
        num_bytes=num_bytes,
        num_dropped=num_dropped,
        damaged=tuple(damaged),
    )


class _Copy:
    """Copies attempts of one feature set into new segments and commits those that are closed."""

    def __init__(
        self, store_url: str, spec: FeatureSetSpec, extents: pa.Table, large_bytes: int
    ) -> None:
        self.num_moved = self.num_bytes = 0
        self._url, self._spec, self._extents = store_url, spec, extents
        self._reader = FeatureReader(store_url, spec, extents)
        self._writer = SegmentWriter(
            store_url, spec, max_bytes=large_bytes, max_seconds=float("inf")
        )
        self._sources: dict[str, dict[str, Any]] = {}

    def name(self, row: int) -> str:
        """``dataset/video_id`` of the recording whose extents begin at ``row``."""
        return "/".join(str(self._extents[c][row]) for c in ("dataset", "video_id"))

    def add(self, first: int, last: int) -> None:
        """Copy the recording whose extents are rows ``[first, last)``.

        Raises:
            CorruptionError: its bytes are damaged; nothing of it is written.
        """
        source = self._extents.slice(first, 1).to_pylist()[0]
        key = (source["dataset"], source["video_id"])
        name = compacted_attempt(source["attempt"])
        stat = SourceStat(
            url=source["source_url"], size=source["source_size"], etag=source["source_etag"]
        )
        recording = Recording(dataset=key[0], video_id=key[1], url=source["source_url"])
        self._writer.begin(recording, stat=stat, attempt=name)
        try:
            for rows, start, stop in self._pieces(key, source["num_snippets"]):
                self._writer.append(rows, start, stop)
        except CorruptionError:
            self._writer.abort()
            raise
        self._sources[name] = source
        self._writer.end(source["num_frames"], Fraction(source["fps"]))
        self.num_moved += 1
        self.num_bytes += source["num_snippets"] * self._spec.row_bytes
        self._commit()

    def finish(self) -> None:
        """Close and commit the last segment."""
        self._writer.close()
        self._commit()

    def _pieces(self, key: tuple[str, str], total: int) -> Iterator[tuple[Any, Any, Any]]:
        number = self._reader.number(key)
        step = max(1, _PIECE_BYTES // self._spec.row_bytes)
        for low in range(0, total, step):
            rows, start, stop = self._reader.read_one(number, low, min(low + step, total))
            yield rows.transpose(1, 0, 2), start, stop

    def _commit(self) -> None:
        receipts = self._writer.drain()
        if receipts:
            append_attempts(self._url, [self._as_extracted(receipt) for receipt in receipts])

    def _as_extracted(self, receipt: Receipt) -> Receipt:
        """A copy was extracted when, and by what, its source was."""
        source = self._sources[receipt.attempt]
        return replace(
            receipt,
            extracted_at=source["extracted_at"],
            outspike_version=source["outspike_version"],
        )


def _chosen(
    extents: pa.Table, rows: pa.Table, spec: FeatureSetSpec, small_bytes: int, large_bytes: int
) -> list[tuple[int, int]]:
    """Ranges of extents, one a recording, that are worth moving.

    Recordings in several segments, and those in a segment that is small or half of which nobody
    reads any more; none where the same number of segments would come out.
    """
    mine = rows.filter(pc.equal(rows["fingerprint"], spec.fingerprint))
    total = mine.group_by("segment").aggregate([("row_stop", "max")])
    length = pc.subtract(extents["row_stop"], extents["row_start"])
    live = extents.append_column("length", length).group_by("segment")
    live = live.aggregate([("length", "sum")])
    used = dict(zip(live["segment"].to_pylist(), live["length_sum"].to_pylist(), strict=True))
    worth = {
        segment
        for segment, num_rows in zip(
            total["segment"].to_pylist(), total["row_stop_max"].to_pylist(), strict=True
        )
        if num_rows * spec.row_bytes < small_bytes or 2 * used.get(segment, 0) < num_rows
    }
    first = np.flatnonzero(extents["snippet_start"].to_numpy() == 0)
    last = np.append(first[1:], extents.num_rows)
    in_segment = extents["segment"].to_pylist()
    snippets = extents["num_snippets"].to_numpy()
    chosen, from_segments, num_bytes, is_scattered = [], set(), 0, False
    for low, high in zip(first.tolist(), last.tolist(), strict=True):
        size = int(snippets[low]) * spec.row_bytes
        scattered = high - low > 1 and size < SPLIT_BYTES
        if not scattered and not worth.issuperset(in_segment[low:high]):
            continue
        if high - low > 1 and not scattered:
            continue  # too large for one segment
        chosen.append((low, high))
        from_segments.update(in_segment[low:high])
        num_bytes += size
        is_scattered |= scattered
    fewer = -(-num_bytes // large_bytes) < len(from_segments)
    wasted = any(
        2 * used[segment] < num_rows
        for segment, num_rows in zip(
            total["segment"].to_pylist(), total["row_stop_max"].to_pylist(), strict=True
        )
        if segment in from_segments
    )
    return chosen if fewer or wasted or is_scattered else []
