"""Checking a store: every checksum, every tiling, every segment that nothing names."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from outspike import urls
from outspike.errors import ConfigError, CorruptionError, StoreError, UrlError
from outspike.store.arrays import read_feature_set
from outspike.store.catalog import Extents, Key
from outspike.store.files import RangeFiles
from outspike.store.layout import FEATURES, feature_set_url, segment_url, size_text
from outspike.store.reader import SegmentReader
from outspike.store.store import FeatureStore
from outspike.store.versions import Segment, named_segments, retained

FaultKind = Literal["group", "segment", "crc", "rows", "tiling", "stale"]

_MAX_REQUESTS = 16


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One thing that is wrong.

    ``kind``: ``group`` (a feature set does not describe itself), ``segment`` (missing, cut short or
    contradicting itself), ``crc`` (rows that do not match their checksum), ``rows`` (catalog and
    segment disagree), ``tiling`` (an attempt in the catalog has a hole or an overlap), ``stale``
    (the source is another file now than the one that was read).
    """

    kind: FaultKind
    feature_set: str
    segment: str | None
    detail: str
    recordings: tuple[Key, ...]


@dataclass(frozen=True, kw_only=True)
class FsckReport:
    """What a check has found.

    ``redo`` are the recordings, by feature set address, that readers cannot be given intact.
    ``orphans`` are segments that no version names which is kept (see :func:`versions.retained`):
    left by jobs that were killed, superseded, or being written right now. They are harmless and no
    fault. ``damaged_attempts`` are
    what :meth:`FeatureStore.forget` takes, so that the next extraction does the work again; stale
    ones are done again without that. ``sources_gone`` are the addresses of sources that are not
    there to be compared, which is no fault: features outlive videos.
    """

    url: str
    version: int
    num_segments: int
    num_recordings: int
    num_bytes: int
    faults: tuple[Fault, ...]
    orphans: tuple[tuple[str, str], ...]
    redo: tuple[tuple[str, Key], ...]
    damaged_attempts: tuple[str, ...]
    sources_gone: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether everything the catalog names is intact."""
        return not self.faults

    @property
    def exit_code(self) -> int:
        """0 where all is well, else 1."""
        return 0 if self.ok else 1

    def text(self) -> str:
        """The report for a terminal: one line a fault, then what to do."""
        lines = [f"{f.kind:8}{f.feature_set}/{f.segment or '-'}: {f.detail}" for f in self.faults]
        lines += [f"orphan  {address}/{segment}" for address, segment in self.orphans]
        lines += [f"redo    {address} {'/'.join(key)}" for address, key in self.redo]
        lines.append(
            f"{self.url} version {self.version}: {self.num_segments} segments, "
            f"{self.num_recordings} recordings, {size_text(self.num_bytes)} checked; "
            f"{len(self.faults)} faults, {len(self.redo)} recordings to redo, "
            f"{len(self.orphans)} orphan segments (harmless)"
        )
        if self.sources_gone:
            lines.insert(-1, f"sources that are not there to be compared: {len(self.sources_gone)}")
        return "\n".join(lines)


def fsck(
    store: FeatureStore, feature_set: str | None = None, *, sources: bool = False
) -> FsckReport:
    """Read everything the catalog names at the store's version and check it.

    Attempts that were superseded are checked too; only what readers would be given is put on the
    list to redo.

    Args:
        store: checked as of its version.
        feature_set: name, address or the beginning of one; None checks all.
        sources: also compare the etag of every source file with the one that was read.

    Raises:
        StoreError: the catalog names no such feature set.
    """
    rows = store.catalog()
    if feature_set is not None:
        rows = rows.filter(pc.starts_with(rows["feature_set"], pattern=feature_set))
        if not rows.num_rows:
            raise StoreError(
                f"{store.url} version {store.version}: no feature set {feature_set!r}."
            )
    extents = Extents(rows)
    table = rows.take(extents.order).to_pylist()
    faults = [*_group_faults(store, table), *_tiling_faults(extents, table)]
    holed = {table[first]["attempt"] for first, _ in extents.broken_attempts()}
    by_segment: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in table:
        by_segment.setdefault((row["feature_set"], row["segment"]), []).append(row)
    damaged: set[tuple[str, str]] = set()  # (attempt, segment)
    num_bytes = 0
    for (address, segment), mine in by_segment.items():
        checked = _Segment(store.url, address, segment, mine)
        faults.extend(checked.faults)
        damaged.update((attempt, segment) for attempt in checked.damaged_attempts)
        num_bytes += checked.num_bytes
    current = [row for row in _current(store) if row["feature_set"].startswith(feature_set or "")]
    stale, gone = _stale_faults(current) if sources else ([], [])
    redo = {*_to_redo(store, table, damaged, faults)}
    redo.update((fault.feature_set, key) for fault in stale for key in fault.recordings)
    faults += stale
    return FsckReport(
        url=store.url,
        version=store.version,
        num_segments=len(by_segment),
        num_recordings=len({(row["dataset"], row["video_id"]) for row in table}),
        num_bytes=num_bytes,
        faults=tuple(faults),
        orphans=tuple(_orphans(store.url, feature_set or "", set(by_segment))),
        redo=tuple(sorted(redo)),
        damaged_attempts=tuple(sorted({attempt for attempt, _ in damaged} | holed)),
        sources_gone=tuple(gone),
    )


class _Segment:
    """The check of one segment against the catalog rows that name it."""

    def __init__(self, store_url: str, address: str, segment: str, rows: list[dict[str, Any]]):
        self.faults: list[Fault] = []
        self.damaged_attempts: set[str] = set()
        self.num_bytes = 0
        self._address, self._segment, self._rows = address, segment, rows
        try:
            reader = SegmentReader(segment_url(store_url, address, segment), RangeFiles())
        except CorruptionError as error:
            self._add("segment", str(error), rows)
            return
        self._check_rows(reader)
        self._check_bytes(reader)
        if reader.layout is not None:
            self.num_bytes = reader.rows * reader.layout.row_bytes

    def _add(self, kind: FaultKind, detail: str, rows: Iterable[dict[str, Any]]) -> None:
        hit = list(rows)
        self.damaged_attempts.update(row["attempt"] for row in hit)
        self.faults.append(
            Fault(
                kind=kind,
                feature_set=self._address,
                segment=self._segment,
                detail=detail,
                recordings=tuple(sorted({(row["dataset"], row["video_id"]) for row in hit})),
            )
        )

    def _check_rows(self, reader: SegmentReader) -> None:
        """Extents lie inside the segment, apart from each other, on frames of the recording."""
        taken: NDArray[np.bool_] = np.zeros(reader.rows, dtype=np.bool_)
        for row in self._rows:
            first, last = row["row_start"], row["row_stop"]
            key = f"{row['dataset']}/{row['video_id']}"
            if not 0 <= first < last <= reader.rows:
                self._add("rows", f"{key}: rows [{first}, {last}) of {reader.rows}", [row])
                continue
            if taken[first:last].any():
                self._add("rows", f"{key}: rows [{first}, {last}) belong to another too", [row])
            taken[first:last] = True
            start, stop = reader.start[first:last], reader.stop[first:last]
            if (start >= stop).any() or start.min() < 0 or stop.max() > row["num_frames"]:
                self._add(
                    "rows", f"{key}: frame ranges leave its {row['num_frames']} frames", [row]
                )

    def _check_bytes(self, reader: SegmentReader) -> None:
        for first, last, message in _damaged(reader):
            hit = [row for row in self._rows if row["row_start"] < last and row["row_stop"] > first]
            if hit:  # rows that only a forgotten attempt named are no concern of this version
                self._add("crc", f"rows [{first}, {last}): {message}", hit)


def _damaged(reader: SegmentReader) -> Iterator[tuple[int, int, str]]:
    """Damaged row ranges: a shard at a time, and chunk by chunk only where one fails."""
    step = reader.layout.shard_rows if reader.layout else reader.rows
    for first in range(0, reader.rows, step):
        last = min(first + step, reader.rows)
        try:
            reader.read(first, last)
        except CorruptionError:
            yield from reader.damage(first, last)


def _group_faults(store: FeatureStore, table: list[dict[str, Any]]) -> Iterator[Fault]:
    for address in sorted({row["feature_set"] for row in table}):
        try:
            read_feature_set(store.url, address)
        except (CorruptionError, UrlError) as error:
            mine = {(r["dataset"], r["video_id"]) for r in table if r["feature_set"] == address}
            yield Fault(
                kind="group",
                feature_set=address,
                segment=None,
                detail=str(error),
                recordings=tuple(sorted(mine)),
            )


def _tiling_faults(extents: Extents, table: list[dict[str, Any]]) -> Iterator[Fault]:
    for first, last in extents.broken_attempts():
        rows = table[first:last]
        row = rows[0]
        spans = [(row["snippet_start"], row["snippet_stop"]) for row in rows[:8]]
        yield Fault(
            kind="tiling",
            feature_set=row["feature_set"],
            segment=None,
            detail=(
                f"{row['dataset']}/{row['video_id']}: attempt {row['attempt']} has snippets "
                f"{spans}{' ...' if last - first > 8 else ''} of {row['num_snippets']}"
            ),
            recordings=((row["dataset"], row["video_id"]),),
        )


def _current(store: FeatureStore) -> list[dict[str, Any]]:
    """First extent of what readers are given of every recording."""
    extents = store.extents
    rows: list[dict[str, Any]] = extents.filter(pc.equal(extents["snippet_start"], 0)).to_pylist()
    return rows


def _stale_faults(current: list[dict[str, Any]]) -> tuple[list[Fault], list[str]]:
    """Recordings whose source has changed, and sources that are gone."""
    addresses = sorted({row["source_url"] for row in current})
    with ThreadPoolExecutor(_MAX_REQUESTS) as pool:
        etags = dict(zip(addresses, pool.map(_etag, addresses), strict=True))
    faults = [
        Fault(
            kind="stale",
            feature_set=row["feature_set"],
            segment=None,
            detail=(
                f"{row['dataset']}/{row['video_id']}: {row['source_url']} has etag "
                f"{etags[row['source_url']]}, features were made from {row['source_etag']}"
            ),
            recordings=((row["dataset"], row["video_id"]),),
        )
        for row in current
        if etags[row["source_url"]] not in (None, row["source_etag"])
    ]
    return faults, [url for url, etag in etags.items() if etag is None]


def _etag(url: str) -> str | None:
    try:
        return urls.stat(url).etag
    except (UrlError, ConfigError):  # gone, or a made-up address that no file ever had
        return None


def _to_redo(
    store: FeatureStore,
    table: list[dict[str, Any]],
    damaged: set[tuple[str, str]],
    faults: list[Fault],
) -> list[tuple[str, Key]]:
    """Recordings that readers cannot be given: no whole attempt, or damage in the newest."""
    broken_sets = {fault.feature_set for fault in faults if fault.kind == "group"}
    wanted = {(row["feature_set"], (row["dataset"], row["video_id"])) for row in table}
    served, hurt = set(), set()
    for row in store.extents.to_pylist():
        what = (row["feature_set"], (row["dataset"], row["video_id"]))
        served.add(what)
        if what not in wanted:
            continue
        if (row["attempt"], row["segment"]) in damaged or row["feature_set"] in broken_sets:
            hurt.add(what)
    return sorted((wanted - served) | hurt)


def stored_segments(store_url: str) -> list[Segment]:
    """Folders below the feature sets, named by a catalog or not."""
    return [
        (address, segment)
        for address in _folders(urls.join(store_url, FEATURES))
        for segment in _folders(feature_set_url(store_url, address))
    ]


def _orphans(store_url: str, prefix: str, named: set[Segment]) -> Iterator[Segment]:
    """Segments that neither the version checked nor any that is kept names."""
    unnamed = [found for found in stored_segments(store_url) if found not in named]
    if unnamed:
        kept = named_segments(store_url, retained(store_url))
        yield from (s for s in unnamed if s not in kept and s[0].startswith(prefix))


def _folders(url: str) -> list[str]:
    fs = urls.filesystem(url)
    with urls.plain_errors(url):
        if not fs.exists(urls.path_in(url)):
            return []
        entries = fs.ls(urls.path_in(url), detail=True)
    return sorted(
        entry["name"].rstrip("/").rsplit("/", 1)[-1]
        for entry in entries
        if entry["type"] == "directory"
    )
