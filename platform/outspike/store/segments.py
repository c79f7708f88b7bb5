"""Writing: whole recordings gathered into segments, read back, and answered for by receipts."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fractions import Fraction
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from outspike import __version__, urls
from outspike.errors import AlignmentError, BagError, CorruptionError, StoreError, UrlError
from outspike.recording import Recording
from outspike.store.arrays import SegmentContent, chunk_crcs, ensure_feature_set, write_segment
from outspike.store.catalog import Receipt
from outspike.store.files import RangeFiles
from outspike.store.fingerprint import FeatureSetSpec
from outspike.store.layout import ShardLayout, new_id, segment_url
from outspike.store.reader import SegmentReader

logger = logging.getLogger(__name__)

#: A recording above this many bytes may lie in several segments; no other does.
SPLIT_BYTES = 256_000_000


@dataclass(frozen=True)
class _Extent:
    segment: str
    row_start: int
    row_stop: int
    snippet_start: int

    @property
    def snippet_stop(self) -> int:
        return self.snippet_start + self.row_stop - self.row_start


@dataclass
class _Attempt:
    """One extraction of one recording: rows not yet in a segment, and extents that are."""

    recording: Recording
    stat: urls.SourceStat
    name: str
    blocks: list[NDArray[Any]] = field(default_factory=list)
    start: list[NDArray[np.int64]] = field(default_factory=list)
    stop: list[NDArray[np.int64]] = field(default_factory=list)
    num_rows: int = 0
    num_stored: int = 0
    last_start: int = -1
    last_stop: int = 0
    extents: list[_Extent] = field(default_factory=list)
    num_frames: int = 0
    fps: Fraction = Fraction(1)
    extracted_at: datetime | None = None

    @property
    def key(self) -> str:
        return self.recording.key

    @property
    def num_snippets(self) -> int:
        return self.num_stored + self.num_rows

    def add(self, rows: NDArray[Any], start: NDArray[np.int64], stop: NDArray[np.int64]) -> None:
        self.blocks.append(rows)
        self.start.append(start)
        self.stop.append(stop)
        self.num_rows += len(rows)
        self.last_start, self.last_stop = int(start[-1]), int(stop[-1])

    def gather(self) -> None:
        """Join many small blocks into one."""
        if len(self.blocks) > 1:
            self.blocks = [np.concatenate(self.blocks)]

    def stored_in(self, segment: str, row_start: int) -> None:
        """Note the extent that now holds the buffered rows, and let go of them."""
        extent = _Extent(segment, row_start, row_start + self.num_rows, self.num_stored)
        self.extents.append(extent)
        self.num_stored += self.num_rows
        self.num_rows = 0
        self.blocks, self.start, self.stop = [], [], []


class SegmentWriter:
    """Writes rows of one feature set; owns every segment it writes.

    ``begin``, ``append`` ..., ``end`` for each recording, then ``close``. A segment closes at a
    recording boundary, once ``max_bytes`` or ``max_seconds`` (since its first recording ended) are
    reached; only a recording above ``split_bytes`` is split. Memory is bounded by about
    ``max_bytes + split_bytes`` and a few shards. ``drain`` hands out the receipts of attempts whose
    segments are all closed and read back; committing them is the caller's part.

    A recording refused by ``append`` or ``end`` is dropped whole, and the next may begin.
    Not for use from several threads.
    """

    def __init__(
        self,
        store_url: str,
        spec: FeatureSetSpec,
        *,
        max_bytes: int = 64_000_000,
        max_seconds: float = 30.0,
        split_bytes: int = SPLIT_BYTES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.spec = spec
        self._store_url = store_url
        self._max_bytes, self._max_seconds = max_bytes, max_seconds
        self._split_bytes = split_bytes
        self._clock = clock
        self._open: _Attempt | None = None
        self._ended: list[_Attempt] = []
        self._ended_since = 0.0
        self._ended_bytes = 0
        self._receipts: list[Receipt] = []
        try:
            ensure_feature_set(store_url, spec)
        except UrlError as error:
            raise StoreError(f"{store_url}: {spec.address} cannot be written: {error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def begin(
        self, recording: Recording, *, stat: urls.SourceStat, attempt: str | None = None
    ) -> None:
        """Start a new attempt at a recording; ``stat`` identifies the source that was read.

        ``attempt`` names it where it is not to be the newest of all.

        Raises:
            StoreError: another recording is still open.
        """
        if self._open is not None:
            raise StoreError(
                f"{recording.key}: {self._open.key} is still open; end() or abort() it first."
            )
        self._open = _Attempt(recording=recording, stat=stat, name=attempt or new_id())

    def append(self, rows: NDArray[np.floating], start: ArrayLike, stop: ArrayLike) -> None:
        """Add snippets of the open recording.

        Args:
            rows: features ``[s, K, D]``.
            start, stop: ``[s]`` half-open frame range of each.

        Raises:
            BagError: wrong number of crops or width, or values that are not finite, also once
                rounded to the stored type.
            AlignmentError: ranges that do not go with the rows, or do not go forward.
            StoreError: a segment that was due could not be written.
        """
        attempt = self._required()
        try:
            features = self._checked_rows(attempt.key, rows)
            first, last = _checked_ranges(attempt, len(features), start, stop)
        except (BagError, AlignmentError):
            self.abort()
            raise
        if len(features):
            attempt.add(features, first, last)
        if self._ended and self._is_due():
            self.flush()
        if attempt.num_rows * self.spec.row_bytes >= self._split_bytes:
            self.flush()
            self._write([attempt])

    def end(self, num_frames: int, fps: Fraction) -> None:
        """Close the open recording, which decoded to ``num_frames`` frames.

        Raises:
            BagError: it has no snippets.
            AlignmentError: a snippet lies past its end.
            StoreError: a segment that was due could not be written; its recordings stay buffered,
                and the next call tries again.
        """
        attempt = self._required()
        self._open = None
        if not attempt.num_snippets:
            raise BagError(
                f"{attempt.key}: {num_frames} frames gave no snippets, so there is nothing to "
                "store; use a grid that keeps the tail, or leave the recording out."
            )
        if attempt.last_stop > num_frames:
            raise AlignmentError(
                f"{attempt.key}: the last snippet ends at frame {attempt.last_stop}, the recording "
                f"has {num_frames}."
            )
        attempt.num_frames, attempt.fps = num_frames, Fraction(fps)
        attempt.extracted_at = datetime.now(UTC)
        attempt.gather()
        if not self._ended:
            self._ended_since = self._clock()
        self._ended.append(attempt)
        self._ended_bytes += attempt.num_rows * self.spec.row_bytes
        if self._is_due():
            self.flush()

    def abort(self) -> None:
        """Drop the open recording, if there is one; what a split one wrote becomes an orphan."""
        self._open = None

    def flush(self) -> None:
        """Close the segment of all ended recordings now.

        Raises:
            StoreError: it could not be written or read back; the recordings stay buffered.
        """
        if not self._ended:
            return
        self._write([attempt for attempt in self._ended if attempt.num_rows])
        for attempt in self._ended:
            self._receipts.extend(self._receipts_of(attempt))
        self._ended, self._ended_bytes = [], 0

    def drain(self) -> list[Receipt]:
        """Receipts of attempts that became durable since the last call; closes a segment if due."""
        if self._ended and self._is_due():
            self.flush()
        receipts, self._receipts = self._receipts, []
        return receipts

    def close(self) -> None:
        """Drop a recording that never ended and close the last segment; ``drain`` comes after."""
        if self._open is not None:
            logger.warning(
                "recording=%s dropped: the writer closed before it ended", self._open.key
            )
            self.abort()
        self.flush()

    def _required(self) -> _Attempt:
        if self._open is None:
            raise StoreError(
                f"{self.spec.address}: no recording is open; call begin() first. A recording that "
                "was refused is closed already."
            )
        return self._open

    def _is_due(self) -> bool:
        age = self._clock() - self._ended_since
        return self._ended_bytes >= self._max_bytes or age >= self._max_seconds

    def _checked_rows(self, key: str, rows: NDArray[np.floating]) -> NDArray[Any]:
        spec = self.spec
        if rows.ndim != 3 or rows.shape[1:] != (spec.num_crops, spec.width):
            raise BagError(
                f"{key}: features {rows.shape}; {spec.address} takes [snippets, "
                f"{spec.num_crops} crops, {spec.width} wide]."
            )
        if not _all_finite(rows):
            bad = int((~np.isfinite(rows)).sum())
            raise BagError(
                f"{key}: {bad} of {rows.size} feature values are NaN or infinite; nothing of this "
                "recording is stored."
            )
        with np.errstate(over="ignore"):
            stored = rows.astype(spec.dtype)  # always a copy: the caller may reuse its buffer
        if stored.dtype != rows.dtype and not _all_finite(stored):
            raise BagError(
                f"{key}: feature values up to {np.abs(rows).max():g} overflow {spec.dtype}; scale "
                "them, or store float32."
            )
        return stored

    def _write(self, attempts: list[_Attempt]) -> None:
        """Write the buffered rows of some attempts as one segment and read it back."""
        if not attempts:
            return
        segment = new_id()
        url = segment_url(self._store_url, self.spec.address, segment)
        content = _content(self.spec, attempts)
        crcs = chunk_crcs(content)
        try:
            write_segment(url, content, crcs)
            _read_back(url, content, crcs)
        except (UrlError, CorruptionError) as error:
            _discard(url)
            keys = [attempt.key for attempt in attempts]
            names = ", ".join(keys[:5]) + (" ..." if len(keys) > 5 else "")
            raise StoreError(
                f"{url}: the segment with {names} could not be stored, nothing of it was "
                f"committed: {error}"
            ) from error
        row = 0
        for attempt in attempts:
            num_rows = attempt.num_rows
            attempt.stored_in(segment, row)
            row += num_rows
        logger.debug("segment=%s rows=%d recordings=%d", segment, row, len(attempts))

    def _receipts_of(self, attempt: _Attempt) -> list[Receipt]:
        assert attempt.extracted_at is not None
        recording, stat = attempt.recording, attempt.stat
        return [
            Receipt(
                dataset=recording.dataset,
                video_id=recording.video_id,
                feature_set=self.spec.address,
                fingerprint=self.spec.fingerprint,
                attempt=attempt.name,
                segment=extent.segment,
                row_start=extent.row_start,
                row_stop=extent.row_stop,
                snippet_start=extent.snippet_start,
                snippet_stop=extent.snippet_stop,
                num_snippets=attempt.num_snippets,
                num_frames=attempt.num_frames,
                fps=attempt.fps,
                source_url=stat.url,
                source_etag=stat.etag,
                source_size=stat.size,
                extracted_at=attempt.extracted_at,
                outspike_version=__version__,
            )
            for extent in attempt.extents
        ]


def _all_finite(rows: NDArray[np.floating]) -> bool:
    """Whether no value is NaN or infinite; numpy's own test is slow on float16."""
    if rows.dtype == np.float16:
        magnitude = np.ascontiguousarray(rows).view(np.uint16) & 0x7FFF
        return bool(magnitude.max(initial=0) < 0x7C00)  # the bits of infinity
    return bool(np.isfinite(rows).all())


def _content(spec: FeatureSetSpec, attempts: list[_Attempt]) -> SegmentContent:
    rows = sum(attempt.num_rows for attempt in attempts)
    return SegmentContent(
        layout=ShardLayout.plan(rows, spec.num_crops, spec.width, spec.dtype),
        blocks=tuple(block for attempt in attempts for block in attempt.blocks),
        start=np.concatenate([start for attempt in attempts for start in attempt.start]),
        stop=np.concatenate([stop for attempt in attempts for stop in attempt.stop]),
    )


def _read_back(url: str, content: SegmentContent, crcs: NDArray[np.uint32]) -> None:
    """Compare what lies in storage with what was meant to.

    Raises:
        CorruptionError: they differ.
    """
    reader = SegmentReader(url, RangeFiles())
    same = (
        reader.layout == content.layout
        and np.array_equal(reader.crc, crcs)
        and np.array_equal(reader.start, content.start)
        and np.array_equal(reader.stop, content.stop)
    )
    if not same:
        raise CorruptionError(f"{url}: what was written is not what can be read back.")
    for shard in range(content.layout.num_shards):
        first = shard * content.layout.shard_rows
        reader.read(first, first + content.layout.rows_in_shard(shard))
        if not reader.is_direct(shard):
            raise CorruptionError(f"{url}: shard {shard} does not have the layout of the format.")


def _discard(url: str) -> None:
    """Remove what was written of a segment that failed, so that retries do not fill a disk."""
    try:
        with urls.plain_errors(url):
            urls.filesystem(url).rm(urls.path_in(url), recursive=True)
    except UrlError as error:
        logger.warning("segment=%s not removed, fsck will list it as an orphan: %s", url, error)


def _checked_ranges(
    attempt: _Attempt, num_rows: int, start: ArrayLike, stop: ArrayLike
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    first, last = np.asarray(start), np.asarray(stop)
    if first.shape != (num_rows,) or last.shape != (num_rows,):
        raise AlignmentError(
            f"{attempt.key}: {num_rows} feature rows, {first.shape} starts and {last.shape} stops; "
            "one frame range a row."
        )
    if not num_rows:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    if first.dtype.kind not in "iu" or last.dtype.kind not in "iu":
        raise AlignmentError(f"{attempt.key}: frame ranges must be integers, found {first.dtype}.")
    first, last = first.astype(np.int64), last.astype(np.int64)
    if first[0] <= attempt.last_start or (np.diff(first) <= 0).any() or (first >= last).any():
        raise AlignmentError(
            f"{attempt.key}: snippets {first[:3].tolist()}.. to {last[:3].tolist()}.. after start "
            f"{attempt.last_start}; each starts later than the one before and is not empty."
        )
    if last[0] < attempt.last_stop or (np.diff(last) < 0).any():
        raise AlignmentError(f"{attempt.key}: a snippet ends before the one that precedes it.")
    return first, last
