"""Rows of one feature set by recording: catalog rows in memory, bytes read where they lie."""

import hashlib
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from outspike.errors import StoreError
from outspike.store import gather
from outspike.store.cache import ShardCache
from outspike.store.catalog import Key
from outspike.store.fingerprint import FeatureSetSpec
from outspike.store.ranking import distinct
from outspike.store.shards import OpenSegments, Rows

Numbers = NDArray[np.int64]


class FeatureReader:
    """Rows of one feature set at one version: catalog in memory, one ranged read per extent.

    Recordings have numbers, 0 to ``len(reader)``, in the order of their keys, by which any number
    of them is read in one call. Usable from several threads; pickles without its open files.

    Args:
        store_url: the store.
        spec: the feature set.
        extents: catalog rows of whole attempts in order (:attr:`FeatureStore.extents`).
        cache: for shards of a store on S3; None reads ranges from there each time.
    """

    def __init__(
        self,
        store_url: str,
        spec: FeatureSetSpec,
        extents: pa.Table,
        cache: ShardCache | None = None,
    ) -> None:
        self.spec = spec
        self._url = store_url
        rows = extents.filter(pc.equal(extents["fingerprint"], spec.fingerprint)).combine_chunks()
        segments, segment_of = distinct(rows["segment"])
        row_start, row_stop, snippet, num_snippets, num_frames = (
            rows[column].to_numpy()
            for column in ("row_start", "row_stop", "snippet_start", "num_snippets", "num_frames")
        )
        self._extents: gather.Table = np.empty(
            (rows.num_rows, gather.NUM_EXTENT_COLUMNS), dtype=np.int64
        )
        self._extents[:, gather.EXTENT_SEGMENT] = segment_of
        self._extents[:, gather.EXTENT_ROW] = row_start
        self._extents[:, gather.EXTENT_LENGTH] = row_stop - row_start
        self._extents[:, gather.EXTENT_SNIPPET] = snippet
        begins = np.flatnonzero(snippet == 0)  # extents of a recording lie next to each other
        self._first = np.append(begins, rows.num_rows).astype(np.int64)
        self._segments = OpenSegments(
            store_url, spec, segments.to_pylist(), self._first, self._extents, cache
        )
        self.lengths: Numbers = num_snippets[begins]
        """``S`` of every recording."""
        self.frames: Numbers = num_frames[begins]
        """Frames of every recording."""
        fps, fps_of = distinct(rows["fps"])
        self._fps: list[Fraction] = [Fraction(text) for text in fps.to_pylist()]
        self.fps_codes: Numbers = fps_of[begins]
        """Which of :meth:`rates` every recording has."""
        self._names = rows.select(["dataset", "video_id"]).take(pa.array(begins))

    @cached_property
    def _keys(self) -> list[Key]:
        names = (self._names[column].to_pylist() for column in ("dataset", "video_id"))
        return list(zip(*names, strict=True))

    @cached_property
    def _numbers(self) -> dict[Key, int]:
        return {key: number for number, key in enumerate(self._keys)}

    def keys(self) -> list[Key]:
        """``(dataset, video_id)`` of every recording with features, in order."""
        return list(self._keys)

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[Key]:
        return iter(self._keys)

    def __contains__(self, key: object) -> bool:
        return key in self._numbers

    def number(self, key: Key) -> int:
        """Number of a recording.

        Raises:
            StoreError: it has no features here.
        """
        found = self._numbers.get(key)
        if found is None:
            raise StoreError(
                f"{self._url}: {self.spec.address} has no features of {'/'.join(key)}."
            )
        return found

    @property
    def num_bytes(self) -> int:
        """Bytes of all rows."""
        return int(self.lengths.sum()) * self.spec.row_bytes

    def rates(self) -> list[Fraction]:
        """The different numbers of frames a second; see :attr:`fps_codes`."""
        return self._fps

    def num_snippets(self, key: Key) -> int:
        """``S`` of a recording, from the catalog alone."""
        return int(self.lengths[self.number(key)])

    def num_frames(self, key: Key) -> int:
        """Frames of a recording, from the catalog alone."""
        return int(self.frames[self.number(key)])

    def fps(self, key: Key) -> Fraction:
        """Frames a second of a recording, from the catalog alone."""
        return self._fps[int(self.fps_codes[self.number(key)])]

    def ranges(self, key: Key) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Frame range ``start [S], stop [S]`` of every snippet."""
        number = self.number(key)
        windows = np.array([[0, self.lengths[number]]])
        start, stop = self.read_ranges(np.array([number]), windows)
        return start[0], stop[0]

    def read(
        self, numbers: Numbers, windows: gather.Table, out: NDArray[Any] | None = None
    ) -> tuple[NDArray[Any], NDArray[np.int64], NDArray[np.int64]]:
        """Rows of some recordings as one batch, zero padded at the end to the longest window.

        Args:
            numbers: ``[B]`` recordings, any of them any number of times.
            windows: ``[B, 2]`` half-open ranges of their snippets, inside the recording.
            out: memory for the features, of the shape and type that is returned.

        Returns:
            Features ``[B, K, S, D]`` in the stored type, and frame ranges ``start [B, S]``,
            ``stop [B, S]``, (0, 0) at padding.

        Raises:
            CorruptionError: stored bytes are missing or do not match their checksum.
            UrlError: the storage does not answer.
        """
        spec = self.spec
        longest = _longest(windows)
        shape = (len(numbers), spec.num_crops, longest, spec.width)
        if out is None:
            out = np.empty(shape, dtype=spec.dtype)
        elif out.shape != shape or out.dtype != spec.dtype or not out.flags.c_contiguous:
            raise ValueError(f"out is {out.shape} {out.dtype}; this batch is {shape} {spec.dtype}.")
        start, stop = np.empty((2, len(numbers), longest), dtype=np.int64)
        segments = self._segments
        segments.enter()
        try:
            spans = segments.spans(numbers, windows)
            segments.copy(spans, out)
            segments.clear_padding(windows, out)
            segments.frame_ranges(spans, windows, start, stop)
        finally:
            segments.leave()
        return out, start, stop

    def read_one(self, number: int, low: int, high: int, *, copy: bool = True) -> Rows:
        """Snippets ``[low, high)`` of one recording: ``[K, s, D]``, ``start [s]``, ``stop [s]``.

        Without ``copy`` the features are a read-only view of the mapped shard, where they lie in
        one; elsewhere they are a copy all the same. Errors are those of :meth:`read`.
        """
        rows = self._segments.read_one(number, low, high, copy=copy)
        if rows is not None:
            return rows
        numbers, windows = np.array([number]), np.array([[low, high]])
        if not copy:
            self.read_ranges(numbers, windows)  # opens what is closed
            rows = self._segments.read_one(number, low, high, copy=False)
            if rows is not None:
                return rows
        found, start, stop = self.read(numbers, windows)
        return found[0], start[0], stop[0]

    def read_rows(self, numbers: Numbers, rows: gather.Table, *, wide: bool = False) -> Rows:
        """Single rows of some recordings as one batch; errors are those of :meth:`read`.

        Args:
            numbers: ``[B]`` recordings.
            rows: ``[B, S]`` snippets of each, inside the recording; -1 leaves a place zero.
            wide: give float32, whatever is stored.

        Returns:
            Features ``[B, K, S, D]`` and frame ranges ``start [B, S]``, ``stop [B, S]``.
        """
        found = self._segments.read_rows(numbers, rows, wide=wide)
        if found is not None:
            return found
        num_bags, longest = rows.shape
        windows = np.stack([rows, rows + (rows >= 0)], axis=2).reshape(-1, 2)
        values, start, stop = self.read(np.repeat(numbers, longest), windows)
        batch = values.reshape(num_bags, longest, *values.shape[1::2]).transpose(0, 2, 1, 3)
        return (
            np.ascontiguousarray(batch, dtype=np.float32 if wide else None),
            start.reshape(rows.shape),
            stop.reshape(rows.shape),
        )

    def read_ranges(
        self, numbers: Numbers, windows: gather.Table
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The frame ranges that :meth:`read` gives, without the features."""
        start, stop = np.empty((2, len(numbers), _longest(windows)), dtype=np.int64)
        self._segments.enter()
        try:
            spans = self._segments.spans(numbers, windows)
            self._segments.frame_ranges(spans, windows, start, stop)
        finally:
            self._segments.leave()
        return start, stop

    def when_closing(self, call: Callable[[], None]) -> None:
        """Have ``call`` called whenever segments are let go of, whose views may be at hand."""
        self._segments.when_closing(call)

    def digest(self, key: Key) -> str:
        """One line that changes with any snippet, frame range or byte of a recording."""
        spec, total = self.spec, self.num_snippets(key)
        start, stop = self.ranges(key)
        summary = hashlib.sha256(start.astype("<i8").tobytes() + stop.astype("<i8").tobytes())
        number = self.number(key)
        for extent in self._extents[self._first[number] : self._first[number + 1]].tolist():
            reader = self._segments.reader(extent[gather.EXTENT_SEGMENT])
            row = extent[gather.EXTENT_ROW]
            rows = reader.read(row, row + extent[gather.EXTENT_LENGTH])
            self._segments.check_shape(reader, rows.shape[1:], rows.dtype)
            summary.update(np.ascontiguousarray(rows).view(np.uint8).data)
        facts = (spec.address, spec.fingerprint, spec.num_crops, spec.width, spec.dtype, *key)
        counts = (total, self.num_frames(key), self.fps(key))
        return "\t".join(repr(str(value)) for value in (*facts, *counts, summary.hexdigest()))


def _longest(windows: gather.Table) -> int:
    return max((windows[:, 1] - windows[:, 0]).tolist(), default=0)
