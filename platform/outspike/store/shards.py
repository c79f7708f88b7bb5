"""Open segments of one feature set, as addresses that compiled code can read."""

import ctypes
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from threading import RLock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from outspike import urls
from outspike.errors import CorruptionError, MissingUrlError
from outspike.store import gather, gather_rows
from outspike.store.cache import ShardCache
from outspike.store.fetch import ByteRange, fetch_ranges
from outspike.store.files import RangeFiles, open_map
from outspike.store.fingerprint import FeatureSetSpec
from outspike.store.layout import CHUNK_ROWS, ShardLayout, crc32c, segment_url
from outspike.store.reader import SegmentReader, damaged_rows

_MAX_OPEN = 1024
_MAX_TRIES = 3
_MAX_REQUESTS = 16
_MAX_GET_BYTES = 16_000_000
#: Batches of more bytes than this are shared out over threads.
_BYTES_A_THREAD = 4_000_000
_MAX_THREADS = 4


#: Features ``[K, s, D]``, first frames ``[s]``, frames past the last ``[s]``; or a batch of them.
Rows = tuple[NDArray[Any], NDArray[np.int64], NDArray[np.int64]]


@dataclass(frozen=True, kw_only=True)
class _Open:
    """A segment, and the arrays whose addresses stand in the table."""

    reader: SegmentReader
    shards: tuple[NDArray[np.uint8] | None, ...]
    """Shard files in memory; None where rows have to be fetched, or read through zarr."""
    fetchable: tuple[bool, ...]
    """Shards without a map that have the layout of the format."""
    is_cached: bool
    addresses: NDArray[np.int64]
    checked: NDArray[np.uint8]
    crc: NDArray[np.uint32]

    def row(self, used: int) -> list[int]:
        """The segment's row of the table."""
        layout = self.reader.layout
        padded_rows = len(self.checked) * CHUNK_ROWS
        arrays = (self.crc, self.reader.start, self.reader.stop, self.checked, self.addresses)
        return [
            self.reader.rows,
            layout.shard_rows if layout else padded_rows,
            *(address(array) for array in arrays),
            used,
        ]


class OpenSegments:
    """The segments of a feature set that were read from lately, and copies out of them.

    A shard on a local disk is mapped once. On S3 it is fetched into the cache and mapped; where
    there is no cache every span is one ``GET``. An array that does not have the layout of the
    format (compressed, or rewritten by another program) is read through zarr.

    A chunk of a mapped shard is checked against its crc when it is first read; what is fetched is
    checked each time. Usable from several threads; pickles without what is open.

    Args:
        store_url: the store.
        spec: the feature set.
        names: its segments, by number.
        first, extents: where recordings lie; see :func:`gather.lay_out`.
        cache: for shards on S3.
    """

    def __init__(
        self,
        store_url: str,
        spec: FeatureSetSpec,
        names: Sequence[str],
        first: gather.Table,
        extents: gather.Table,
        cache: ShardCache | None,
    ) -> None:
        self.spec = spec
        self._arguments = (store_url, spec, names, first, extents, cache)
        self._first, self._extents = first, extents
        self._url = store_url
        self._names = names
        self._is_local = urls.is_local(store_url)
        self._cache = None if self._is_local else cache
        self._files = RangeFiles()
        self._lock = RLock()
        self._table: gather.Table = np.zeros((len(names), gather.NUM_SEGMENT_COLUMNS), np.int64)
        self._open: dict[int, _Open] = {}
        self._retired: list[_Open] = []
        self._all_mapped = True
        self._clock = 0
        self._width_bytes = spec.row_bytes // spec.num_crops
        self._dtype = np.dtype(spec.dtype)
        self._num_users = 0
        self._when_closing: list[Callable[[], None]] = []

    def __reduce__(self) -> tuple[Any, ...]:
        return OpenSegments, self._arguments

    def enter(self) -> None:
        """Until :meth:`leave` nothing that is open is let go, so that addresses stay good."""
        with self._lock:
            self._num_users += 1

    def leave(self) -> None:
        """The last one out closes what is no longer needed."""
        with self._lock:
            self._num_users -= 1
            if not self._num_users and (self._retired or len(self._open) > _MAX_OPEN):
                self._close_unused()

    def when_closing(self, call: Callable[[], None]) -> None:
        """Have ``call`` called whenever segments are let go of or replaced."""
        self._when_closing.append(call)

    def reader(self, number: int) -> SegmentReader:
        """A segment's reader, opened now if need be."""
        with self._lock:
            found = self._open.get(number)
        return (found or self._opened([number])[0]).reader

    def read_one(self, number: int, low: int, high: int, *, copy: bool) -> Rows | None:
        """Snippets of one recording in one step; None where they have to be read step by step.

        Without ``copy`` also where they do not lie in one place. See :func:`gather.read_one`.
        """
        if not gather.CHECKS_CHUNKS:
            return None
        spec = self.spec
        raw = np.empty((high - low) * spec.row_bytes if copy else 0, dtype=np.uint8)
        ranges = np.empty((2, high - low), dtype=np.int64)
        self.enter()
        try:
            self._clock += 1
            found, segment, row = gather.read_one(
                number,
                low,
                high,
                self._first,
                self._extents,
                self._table,
                self._clock,
                spec.num_crops,
                self._width_bytes,
                raw,
                ranges,
            )
            if not found:
                return None
            if copy:
                shape = (spec.num_crops, high - low, spec.width)
                return np.ndarray(shape, self._dtype, raw), ranges[0], ranges[1]
            view = None if segment < 0 else self._view(segment, row, high - low)
            return None if view is None else (view, ranges[0], ranges[1])
        finally:
            self.leave()

    def read_rows(self, numbers: gather.Table, rows: gather.Table, *, wide: bool) -> Rows | None:
        """Single rows ``[B, S]`` (-1 at padding) of recordings as one batch ``[B, K, S, D]``.

        With ``wide`` in float32. None where they have to be read step by step: they are not in
        memory, are damaged, or the processor lacks an instruction.
        """
        spec = self.spec
        widen = wide and self._dtype == np.float16
        if not gather.CHECKS_CHUNKS or (widen and (spec.width % 8 or not gather_rows.WIDENS)):
            return None
        dtype = np.dtype(np.float32) if widen else self._dtype
        shape = (len(numbers), spec.num_crops, rows.shape[1], spec.width)
        out = np.empty(shape, dtype)
        ranges = np.empty((2, *rows.shape), dtype=np.int64)
        self.enter()
        try:
            self._clock += 1
            found = gather_rows.gather_rows(
                numbers,
                rows,
                self._first,
                self._extents,
                self._table,
                self._clock,
                spec.num_crops,
                self._width_bytes,
                widen,
                out.reshape(-1).view(np.uint8),
                ranges,
            )
        finally:
            self.leave()
        return (out, ranges[0], ranges[1]) if found else None

    def _view(self, segment: int, row: int, count: int) -> NDArray[Any] | None:
        """Rows of one mapped shard where they lie, as ``[K, s, D]``."""
        found = self._open[segment]
        layout = found.reader.layout
        if layout is None:
            return None
        shard, offset = layout.row_offset(row)
        data = found.shards[shard]
        if data is None:
            return None
        shape = (count, layout.num_crops, layout.width)
        rows: NDArray[Any] = np.ndarray(shape, self._dtype, data, offset)
        return rows.transpose(1, 0, 2)

    def spans(self, bags: gather.Table, windows: gather.Table) -> gather.Table:
        """Spans of some snippets of some recordings; see :func:`gather.lay_out`.

        To be called, and its result used, between :meth:`enter` and :meth:`leave`.

        Raises:
            CorruptionError: a segment is damaged, or has no such rows.
        """
        room = 2 * len(bags) + 14
        chunk_bytes = CHUNK_ROWS * self.spec.row_bytes
        while True:  # each time round opens what is closed, or makes the room that is needed
            spans = np.empty((room, gather.NUM_SPAN_COLUMNS), dtype=np.int64)
            with self._lock:
                self._clock += 1
                count, closed, outside = gather.lay_out(
                    bags,
                    windows,
                    self._first,
                    self._extents,
                    self._table,
                    chunk_bytes,
                    self._clock,
                    spans,
                )
            if count > room:
                room = count
            elif outside:
                self._refuse_rows(spans[:count])
            elif closed:
                shut = spans[:count]
                shut = shut[shut[:, gather.NUM_ROWS] == 0, gather.SEGMENT]
                self._opened(np.unique(shut).tolist())
            else:
                return spans[:count]

    def copy(self, spans: gather.Table, out: NDArray[Any]) -> None:
        """Copy the rows of some spans to their places in ``out [B, K, S, D]``, checked.

        Raises:
            CorruptionError: a chunk is missing, or does not match its crc.
            UrlError: the storage does not answer.
        """
        fetched: list[bytes] = []
        if not self._all_mapped:
            fetched = self._fetch(spans)
            self._through_zarr(spans, out)
        check = gather.CHECK_ALWAYS if fetched else gather.CHECK_ONCE
        for left in reversed(range(_MAX_TRIES)):
            bad = self._gather(spans, check, out)
            if bad is None:
                return
            fetched += self._again(spans, *bad, left=left)

    def frame_ranges(
        self, spans: gather.Table, windows: gather.Table, start: gather.Table, stop: gather.Table
    ) -> None:
        """Frame ranges of the rows of some spans, to their places in ``[B, S]`` arrays."""
        gather.frame_ranges(spans, self._table, windows, start, stop)

    def clear_padding(self, windows: gather.Table, out: NDArray[Any]) -> None:
        """Zeros past each bag's rows of ``out [B, K, S, D]``."""
        gather.clear_padding(windows, address(out), _shape(out))

    def check_shape(self, reader: SegmentReader, shape: tuple[int, ...], dtype: object) -> None:
        """Raise a ``CorruptionError`` where rows are not what the feature set is said to hold."""
        spec = self.spec
        if shape != (spec.num_crops, spec.width) or np.dtype(str(dtype)) != spec.dtype:
            raise CorruptionError(
                f"{reader.url}: rows of {shape} {dtype}; {spec.address} has "
                f"({spec.num_crops}, {spec.width}) {spec.dtype}."
            )

    # ------------------------------------------------------------------------ opening

    def _opened(self, numbers: Sequence[int]) -> list[_Open]:
        """Open some segments, on S3 several at a time."""
        if self._is_local or len(numbers) == 1:
            found = [self._open_one(number) for number in numbers]
        else:
            with ThreadPoolExecutor(min(len(numbers), _MAX_REQUESTS)) as pool:
                found = list(pool.map(self._open_one, numbers))
        with self._lock:
            for number, segment in zip(numbers, found, strict=True):
                self._put(number, segment)
        return found

    def _put(self, number: int, segment: _Open) -> None:
        before = self._open.get(number)
        if before is not None:
            self._retired.append(before)
            self._tell()
        self._open[number] = segment
        self._table[number] = segment.row(self._clock)
        self._all_mapped = self._all_mapped and all(part is not None for part in segment.shards)

    def _close_unused(self) -> None:
        """Let go of what was replaced, and of the segments that were unused the longest."""
        self._retired.clear()
        if len(self._open) <= _MAX_OPEN:
            return
        numbers = np.fromiter(self._open, dtype=np.int64)
        oldest = np.argsort(self._table[numbers, gather.USED], kind="stable")
        for number in numbers[oldest[: len(numbers) - _MAX_OPEN * 3 // 4]].tolist():
            self._table[number] = 0
            del self._open[number]
        self._tell()

    def _tell(self) -> None:
        for call in self._when_closing:
            call()

    def _open_one(self, number: int, *, with_cache: bool = True) -> _Open:
        reader = SegmentReader(
            segment_url(self._url, self.spec.address, self._names[number]), self._files
        )
        layout = reader.layout
        cache = self._cache if with_cache else None
        shards: tuple[NDArray[np.uint8] | None, ...] = (None,)
        fetchable: tuple[bool, ...] = (False,)
        if layout is not None:
            self.check_shape(reader, (layout.num_crops, layout.width), layout.dtype)
            numbers = range(layout.num_shards)
            if self._is_local or cache is not None:
                shards = tuple(self._map(reader, layout, shard, cache) for shard in numbers)
            else:
                shards = (None,) * layout.num_shards
            fetchable = tuple(
                not self._is_local and part is None and _is_direct(reader, shard)
                for shard, part in zip(numbers, shards, strict=True)
            )
        addresses = [0 if part is None else address(part) for part in shards]
        return _Open(
            reader=reader,
            shards=shards,
            fetchable=fetchable,
            is_cached=cache is not None,
            addresses=np.array(addresses, dtype=np.int64),
            checked=np.zeros(-(-reader.rows // CHUNK_ROWS), dtype=np.uint8),
            crc=np.append(reader.crc, np.uint32(0)),
        )

    def _map(
        self, reader: SegmentReader, layout: ShardLayout, shard: int, cache: ShardCache | None
    ) -> NDArray[np.uint8] | None:
        """A shard file in memory; None where it is missing or not laid out as it should be."""
        url, size = reader.shard_url(shard), layout.shard_bytes(shard)
        try:
            if cache is None:
                data = open_map(urls.local_path(url))
            else:
                path = cache.get(url, size)
                if path is None:
                    return None
                data = open_map(path)
        except MissingUrlError:
            return None  # reading its rows says so
        if len(data) == size and layout.is_sequential(
            shard, data[layout.data_bytes(shard) :].tobytes()
        ):
            return data
        if cache is not None:
            cache.drop(url)
        return None

    def _refuse_rows(self, spans: gather.Table) -> None:
        span = spans[spans[:, gather.NUM_ROWS] < 0][0]
        reader = self.reader(int(span[gather.SEGMENT]))
        raise CorruptionError(
            f"{reader.url}: rows asked for beyond the {reader.rows} of the segment; the catalog "
            "and the segment disagree."
        )

    # ------------------------------------------------------------------------ copying

    def _gather(self, spans: gather.Table, check: int, out: NDArray[Any]) -> tuple[int, int] | None:
        """Copy what has an address; the number of a damaged span and its chunk, if there is one."""
        if not gather.CHECKS_CHUNKS:
            bad = self._check_slowly(spans)
            if bad is not None:
                return bad
            check = gather.CHECK_NEVER
        fixed = (self._table, check, address(out), _shape(out))
        num_threads = min(out.nbytes // _BYTES_A_THREAD, _num_threads(), len(spans))
        if num_threads < 2:
            number, chunk = gather.gather(spans, *fixed)
            return None if number < 0 else (number, chunk)
        parts = _even_parts(spans, num_threads)
        with ThreadPoolExecutor(num_threads) as pool:
            found = list(pool.map(lambda part: gather.gather(spans[part], *fixed), parts))
        for part, (number, chunk) in zip(parts, found, strict=True):
            if number >= 0:
                return part.start + number, chunk
        return None

    def _check_slowly(self, spans: gather.Table) -> tuple[int, int] | None:
        """The check of :func:`gather.gather` for processors without the instruction."""
        size = CHUNK_ROWS * self.spec.row_bytes
        for number, span in enumerate(spans):
            crcs = self._open[int(span[gather.SEGMENT])].crc
            for index in range(span[gather.NUM_CHUNKS] if span[gather.ADDRESS] else 0):
                chunk = int(span[gather.CHUNK]) + index
                data = ctypes.string_at(int(span[gather.ADDRESS]) + index * size, size)
                if crc32c(data) != crcs[chunk]:
                    return number, chunk
        return None

    def _fetch(self, spans: gather.Table) -> list[bytes]:
        """Fetch the chunks of spans that are not in memory and note where they now lie.

        Spans that touch or overlap are fetched together. Returns what has to be kept alive.
        """
        missing = [
            (int(segment), int(shard), int(chunk), int(chunk + num_chunks), int(number))
            for number, (segment, shard, chunk, num_chunks) in zip(
                np.flatnonzero(spans[:, gather.ADDRESS] == 0),
                spans[spans[:, gather.ADDRESS] == 0][
                    :, [gather.SEGMENT, gather.SHARD, gather.CHUNK, gather.NUM_CHUNKS]
                ],
                strict=True,
            )
            if self._open[int(segment)].fetchable[int(shard)]
        ]
        size = CHUNK_ROWS * self.spec.row_bytes
        wanted: list[ByteRange] = []
        places: list[tuple[int, int, int]] = []  # span, request, byte within it
        before: tuple[int, int] | None = None
        first = last = 0
        for segment, shard, chunk, stop, number in sorted(missing):
            touches = before == (segment, shard) and chunk <= last
            if touches and (max(last, stop) - first) * size <= _MAX_GET_BYTES:
                last = max(last, stop)
                wanted[-1] = self._range(segment, shard, first, last)
            else:
                before, first, last = (segment, shard), chunk, stop
                wanted.append(self._range(segment, shard, first, last))
            places.append((number, len(wanted) - 1, (chunk - first) * size))
        found = fetch_ranges(wanted)
        starts = [address(np.frombuffer(data, dtype=np.uint8)) for data in found]
        for number, request, offset in places:
            spans[number, gather.ADDRESS] = starts[request] + offset
        return found

    def _range(self, segment: int, shard: int, first: int, last: int) -> ByteRange:
        """Where chunks ``[first, last)`` of a segment lie in one of its shards."""
        reader = self._open[segment].reader
        assert reader.layout is not None
        before = shard * reader.layout.shard_rows // CHUNK_ROWS
        size = reader.layout.chunk_bytes
        url = reader.shard_url(shard)
        return ByteRange(url, (first - before) * size, (last - before) * size)

    def _through_zarr(self, spans: gather.Table, out: NDArray[Any]) -> None:
        """Copy the rows of spans that are neither in memory nor laid out as they should be."""
        for span in spans[spans[:, gather.ADDRESS] == 0]:
            reader = self._open[int(span[gather.SEGMENT])].reader
            row = int(span[gather.CHUNK]) * CHUNK_ROWS + int(span[gather.SKIP])
            count, place = int(span[gather.NUM_ROWS]), int(span[gather.PLACE])
            rows = reader.read(row, row + count)
            self.check_shape(reader, rows.shape[1:], rows.dtype)
            out[span[gather.BAG], :, place : place + count] = rows.transpose(1, 0, 2)

    def _again(self, spans: gather.Table, number: int, chunk: int, *, left: int) -> list[bytes]:
        """Fetch a damaged span anew, past the cache: the damage may not be the store's.

        Raises:
            CorruptionError: on a local disk, or after the last try.
        """
        segment, shard = int(spans[number, gather.SEGMENT]), int(spans[number, gather.SHARD])
        found = self._open[segment]
        if self._is_local or not left:
            raise CorruptionError(damaged_rows(found.reader.url, chunk))
        if found.is_cached:
            assert self._cache is not None
            self._cache.drop(found.reader.shard_url(shard))
            with self._lock:
                self._put(segment, self._open_one(segment, with_cache=False))
            spans[spans[:, gather.SEGMENT] == segment, gather.ADDRESS] = 0
        else:
            spans[number, gather.ADDRESS] = 0
        return self._fetch(spans)


def address(array: NDArray[Any]) -> int:
    """Where the bytes of an array begin."""
    start: int = array.__array_interface__["data"][0]
    return start


def _shape(out: NDArray[Any]) -> gather.Table:
    """``K``, ``S`` and the bytes of ``D`` values of a batch ``[B, K, S, D]``."""
    _, num_crops, num_snippets, width = out.shape
    return np.array((num_crops, num_snippets, width * out.itemsize), dtype=np.int64)


def _is_direct(reader: SegmentReader, shard: int) -> bool:
    try:
        return reader.is_direct(shard)
    except CorruptionError:
        return False  # missing: reading its rows says so


def _even_parts(spans: gather.Table, num_parts: int) -> list[slice]:
    """Cut spans into parts of about as many rows."""
    done = np.cumsum(spans[:, gather.NUM_ROWS])
    cuts = np.searchsorted(done, done[-1] * np.arange(1, num_parts) / num_parts)
    edges = [0, *cuts.tolist(), len(spans)]
    return [slice(first, last) for first, last in pairwise(edges)]


def _num_threads() -> int:
    return min(_MAX_THREADS, len(os.sched_getaffinity(0)))
