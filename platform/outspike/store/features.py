"""Rows of one feature set by recording: catalog rows in memory, bytes read where they lie."""

import hashlib
from collections import OrderedDict
from collections.abc import Iterator
from fractions import Fraction
from threading import Lock
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from outspike.errors import CorruptionError, StoreError
from outspike.store.catalog import Key, distinct
from outspike.store.files import RangeFiles
from outspike.store.fingerprint import FeatureSetSpec
from outspike.store.layout import segment_url
from outspike.store.reader import SegmentReader

_MAX_SEGMENTS = 512


class FeatureReader:
    """Rows of one feature set at one version: catalog in memory, one ranged read per extent.

    ``extents`` are catalog rows of whole attempts in order (:attr:`FeatureStore.extents`). Usable
    from several threads; pickles without its open files.
    """

    def __init__(self, store_url: str, spec: FeatureSetSpec, extents: pa.Table) -> None:
        self.spec = spec
        self._url = store_url
        rows = extents.filter(pc.equal(extents["fingerprint"], spec.fingerprint))
        segments, self._segment_of = distinct(rows["segment"])
        self._segments: list[str] = segments.to_pylist()
        self._numbers = {
            column: rows[column].to_numpy()
            for column in ("row_start", "row_stop", "snippet_start", "num_snippets", "num_frames")
        }
        fps, self._fps_of = distinct(rows["fps"])
        self._fps: list[Fraction] = [Fraction(text) for text in fps.to_pylist()]
        self._first = self._group(rows)
        self._readers: OrderedDict[str, SegmentReader] = OrderedDict()
        self._files = RangeFiles()
        self._lock = Lock()

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        del state["_readers"], state["_lock"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._readers = OrderedDict()
        self._lock = Lock()

    def keys(self) -> list[Key]:
        """``(dataset, video_id)`` of every recording with features, in order."""
        return list(self._first)

    def __iter__(self) -> Iterator[Key]:
        return iter(self._first)

    def __contains__(self, key: object) -> bool:
        return key in self._first

    def num_snippets(self, key: Key) -> int:
        """``S`` of a recording, from the catalog alone."""
        return int(self._numbers["num_snippets"][self._span(key)[0]])

    def num_frames(self, key: Key) -> int:
        """Frames of a recording, from the catalog alone."""
        return int(self._numbers["num_frames"][self._span(key)[0]])

    def fps(self, key: Key) -> Fraction:
        """Frames a second of a recording, from the catalog alone."""
        return self._fps[int(self._fps_of[self._span(key)[0]])]

    def ranges(self, key: Key) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Frame range ``start [S], stop [S]`` of every snippet."""
        parts = [
            (reader.start[first:last], reader.stop[first:last])
            for reader, first, last in self._extents(key, 0, self.num_snippets(key))
        ]
        start, stop = (np.concatenate(part) for part in zip(*parts, strict=True))
        return start, stop

    def rows(self, key: Key, start: int, stop: int) -> NDArray[Any]:
        """Features of snippets ``[start, stop)`` as they are stored, ``[s, K, D]``; a copy."""
        out = np.empty((stop - start, self.spec.num_crops, self.spec.width), dtype=self.spec.dtype)
        offset = 0
        for reader, first, last in self._extents(key, start, stop):
            out[offset : offset + last - first] = self._read(reader, first, last)
            offset += last - first
        return out

    def digest(self, key: Key) -> str:
        """One line that changes with any snippet, frame range or byte of a recording."""
        spec, total = self.spec, self.num_snippets(key)
        start, stop = self.ranges(key)
        summary = hashlib.sha256(start.astype("<i8").tobytes() + stop.astype("<i8").tobytes())
        for reader, first, last in self._extents(key, 0, total):
            rows = self._read(reader, first, last)
            summary.update(np.ascontiguousarray(rows).view(np.uint8).data)
        facts = (spec.address, spec.fingerprint, spec.num_crops, spec.width, spec.dtype, *key)
        counts = (total, self.num_frames(key), self.fps(key))
        return "\t".join(repr(str(value)) for value in (*facts, *counts, summary.hexdigest()))

    def _read(self, reader: SegmentReader, first: int, last: int) -> NDArray[Any]:
        rows = reader.read(first, last)
        if (
            rows.shape[1:] != (self.spec.num_crops, self.spec.width)
            or rows.dtype != self.spec.dtype
        ):
            raise CorruptionError(
                f"{reader.url}: rows of {rows.shape[1:]} {rows.dtype}; {self.spec.address} has "
                f"({self.spec.num_crops}, {self.spec.width}) {self.spec.dtype}."
            )
        return rows

    def _extents(self, key: Key, start: int, stop: int) -> Iterator[tuple[SegmentReader, int, int]]:
        """Segment and row range of every extent that snippets ``[start, stop)`` touch."""
        first, last = self._span(key)
        for number in range(first, last):
            snippet = int(self._numbers["snippet_start"][number])
            row = int(self._numbers["row_start"][number])
            length = int(self._numbers["row_stop"][number]) - row
            low, high = max(start - snippet, 0), min(stop - snippet, length)
            if low < high:
                yield (
                    self._segment(self._segments[int(self._segment_of[number])]),
                    row + low,
                    row + high,
                )

    def _segment(self, name: str) -> SegmentReader:
        with self._lock:
            reader = self._readers.get(name)
        if reader is None:
            reader = SegmentReader(segment_url(self._url, self.spec.address, name), self._files)
        with self._lock:
            self._readers[name] = reader
            self._readers.move_to_end(name)
            while len(self._readers) > _MAX_SEGMENTS:
                self._readers.popitem(last=False)
        return reader

    def _span(self, key: Key) -> tuple[int, int]:
        try:
            return self._first[key]
        except KeyError:
            raise StoreError(
                f"{self._url}: {self.spec.address} has no features of {'/'.join(key)}."
            ) from None

    @staticmethod
    def _group(rows: pa.Table) -> dict[Key, tuple[int, int]]:
        """Range of extents of every recording; those of one lie next to each other."""
        first = np.flatnonzero(rows["snippet_start"].to_numpy() == 0)
        stop = np.append(first[1:], rows.num_rows)
        names = rows.select(["dataset", "video_id"]).take(pa.array(first))
        keys = zip(names["dataset"].to_pylist(), names["video_id"].to_pylist(), strict=True)
        spans = zip(first.tolist(), stop.tolist(), strict=True)
        return dict(zip(keys, spans, strict=True))
