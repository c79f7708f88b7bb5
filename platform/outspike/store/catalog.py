"""The catalog: one row per extent, appended by whole attempts; what is not in it does not exist."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable, write_deltalake
from numpy.typing import NDArray

from outspike.errors import StoreError
from outspike.store.delta import change, read_table
from outspike.store.layout import CATALOG, new_id

CATALOG_SCHEMA = pa.schema(
    [
        pa.field("dataset", pa.string(), nullable=False),
        pa.field("video_id", pa.string(), nullable=False),
        pa.field("feature_set", pa.string(), nullable=False),
        pa.field("fingerprint", pa.string(), nullable=False),
        pa.field("attempt", pa.string(), nullable=False),
        pa.field("segment", pa.string(), nullable=False),
        pa.field("row_start", pa.int64(), nullable=False),
        pa.field("row_stop", pa.int64(), nullable=False),
        pa.field("snippet_start", pa.int64(), nullable=False),
        pa.field("snippet_stop", pa.int64(), nullable=False),
        pa.field("num_snippets", pa.int64(), nullable=False),
        pa.field("num_frames", pa.int64(), nullable=False),
        pa.field("fps", pa.string(), nullable=False),
        pa.field("source_url", pa.string(), nullable=False),
        pa.field("source_etag", pa.string(), nullable=False),
        pa.field("source_size", pa.int64(), nullable=False),
        pa.field("extracted_at", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("outspike_version", pa.string(), nullable=False),
    ]
)

Key = tuple[str, str]

_MOST_LISTED = 1000


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """One catalog row: rows of a closed, read-back segment that belong to one recording.

    ``attempt`` names one extraction of the recording and sorts by time; its receipts together tile
    ``[0, num_snippets)``. ``feature_set`` is the address of the feature set.
    """

    dataset: str
    video_id: str
    feature_set: str
    fingerprint: str
    attempt: str
    segment: str
    row_start: int
    row_stop: int
    snippet_start: int
    snippet_stop: int
    num_snippets: int
    num_frames: int
    fps: Fraction
    source_url: str
    source_etag: str
    source_size: int
    extracted_at: datetime
    outspike_version: str

    @property
    def key(self) -> str:
        """``dataset/video_id``."""
        return f"{self.dataset}/{self.video_id}"


def receipts_table(receipts: Sequence[Receipt]) -> pa.Table:
    """Receipts as rows of the catalog."""
    rows = [{**vars(receipt), "fps": str(receipt.fps)} for receipt in receipts]
    return pa.Table.from_pylist(rows, schema=CATALOG_SCHEMA)


def append_attempts(store_url: str, receipts: Sequence[Receipt]) -> int:
    """Append whole attempts to the catalog and return the version that holds them.

    Attempts that are there already are left alone, so that the call can be repeated after a failure
    whose outcome is unknown.

    Raises:
        StoreError: an attempt does not tile its recording (nothing is appended), or the table
            cannot be changed.
    """
    rows = receipts_table(receipts)
    _check_whole(rows)
    wanted = set(rows["attempt"].to_pylist())
    # ids sort by time, so file statistics spare the read of everything older
    since = f"attempt >= '{min(wanted)}'" if wanted else "false"

    def attempt(table: DeltaTable) -> None:
        there = set(read_table(table, ["attempt"], since)["attempt"].to_pylist())
        missing = wanted - there
        if missing:
            keep = pa.array([name in missing for name in rows["attempt"].to_pylist()])
            write_deltalake(table, rows.filter(keep), mode="append")

    return change(store_url, CATALOG, attempt)


def remove_attempts(store_url: str, attempts: Sequence[str]) -> int:
    """Remove the rows of some attempts and return the version without them.

    Raises:
        StoreError: the table cannot be changed.
    """
    return change(store_url, CATALOG, lambda table: _remove(table, attempts))


def drop_superseded(store_url: str) -> tuple[int, int]:
    """Remove attempts that are older than the newest whole one of their recording.

    Returns:
        The version without them, and how many there were.
    """
    dropped: list[str] = []

    def attempt(table: DeltaTable) -> None:
        dropped[:] = Extents(read_table(table, CATALOG_SCHEMA.names)).superseded()
        _remove(table, dropped)

    return change(store_url, CATALOG, attempt), len(dropped)


def compacted_attempt(attempt: str) -> str:
    """Name of a copy of an attempt: newer than the attempt and its earlier copies, and older than
    any other that is newer than the attempt.
    """
    return f"{attempt.partition('.')[0]}.{new_id()}"


def _remove(table: DeltaTable, attempts: Sequence[str]) -> None:
    there = set(read_table(table, ["attempt"])["attempt"].to_pylist()) if attempts else set()
    gone = sorted(there.intersection(attempts))
    if 0 < len(gone) <= _MOST_LISTED:
        quoted = ", ".join("'{}'".format(name.replace("'", "''")) for name in gone)
        table.delete(f"attempt IN ({quoted})")  # never conflicts with appends
    elif gone:  # by a join: a longer list is slow, and would be kept in the log for good
        source = pa.table({"attempt": pa.array(gone, pa.string())})
        same = "target.attempt = source.attempt"
        merge = table.merge(source, same, source_alias="source", target_alias="target")
        merge.when_matched_delete().execute()


def _check_whole(rows: pa.Table) -> None:
    extents = Extents(rows)
    for first, last in extents.broken_attempts():
        row = rows.slice(int(extents.order[first]), 1).to_pylist()[0]
        raise StoreError(
            f"{row['dataset']}/{row['video_id']}: {last - first} receipts of attempt "
            f"{row['attempt']} do not tile its {row['num_snippets']} snippets; nothing was "
            "committed. Pass all receipts of an attempt in one call."
        )


class Extents:
    """Catalog rows put in order, and the attempts found among them.

    ``order`` sorts the rows by feature set, dataset, video, attempt and snippet; ``bounds`` are the
    positions in it at which attempts begin, with the number of rows at the end; ``whole`` says per
    attempt whether it tiles its recording. A row repeated word for word counts once. All of it is
    vectorised: a catalog of a million rows takes seconds.
    """

    def __init__(self, rows: pa.Table) -> None:
        self.rows = rows.combine_chunks()
        names = ("fingerprint", "dataset", "video_id", "attempt")
        codes = [_ranks(self.rows[name]) for name in names]
        self._numbers = {
            name: self.rows[name].to_numpy()
            for name in ("row_start", "row_stop", "snippet_start", "snippet_stop", "num_snippets")
        }
        snippets = self._numbers
        self.order: NDArray[np.int64] = np.lexsort(
            (snippets["snippet_stop"], snippets["snippet_start"], *reversed(codes))
        )
        self.order = self.order[~self._repeated(codes)]
        self._codes = [code[self.order] for code in codes]
        self.bounds = _bounds(self._codes)
        self.whole = self._tiles()

    def broken_attempts(self) -> list[tuple[int, int]]:
        """Positions ``[first, last)`` in ``order`` of attempts that do not tile their recording."""
        pairs = zip(self.bounds[:-1], self.bounds[1:], self.whole, strict=True)
        return [(int(first), int(last)) for first, last, whole in pairs if not whole]

    def current(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Rows of the newest whole attempt of every recording and feature set, in ``order``.

        ``columns`` names those to take along; None takes all.
        """
        first = self.bounds[:-1]
        newest = self._newest(_group_numbers([code[first] for code in self._codes[:-1]]))
        chosen = np.zeros(len(first), dtype=np.bool_)
        chosen[newest[newest >= 0]] = True
        rows = self.rows if columns is None else self.rows.select(columns)
        return rows.take(pa.array(self.order[np.repeat(chosen, np.diff(self.bounds))]))

    def superseded(self) -> list[str]:
        """Attempts, whole or not, that are older than the newest whole one of their recording."""
        first = self.bounds[:-1]
        number = _group_numbers([code[first] for code in self._codes[:-1]])
        newest = self._newest(number)
        older = np.arange(len(first)) < newest[number] if len(first) else np.zeros(0, np.bool_)
        names = self.rows["attempt"].take(pa.array(self.order[first[older]]))
        return sorted(set(names.to_pylist()))

    def _newest(self, number: NDArray[np.int64]) -> NDArray[np.int64]:
        """The newest whole attempt of every recording, -1 where there is none."""
        newest: NDArray[np.int64] = np.full(int(number[-1]) + 1 if len(number) else 0, -1)
        whole = np.flatnonzero(self.whole)
        np.maximum.at(newest, number[whole], whole)  # attempts of a recording are in order of time
        return newest

    def _repeated(self, codes: Sequence[NDArray[np.int64]]) -> NDArray[np.bool_]:
        """Sorted rows equal to the one before: one receipt committed by two drivers at once."""
        same = np.zeros(len(self.order), dtype=np.bool_)
        if len(same):
            columns = [*codes, _ranks(self.rows["segment"]), *self._numbers.values()]
            ordered = [column[self.order] for column in columns]
            same[1:] = np.logical_and.reduce([column[1:] == column[:-1] for column in ordered])
        return same

    def _tiles(self) -> NDArray[np.bool_]:
        """Per attempt, whether its extents follow one another from 0 to ``num_snippets``."""
        num_attempts = len(self.bounds) - 1
        if not num_attempts:
            return np.zeros(0, dtype=np.bool_)
        start, stop, total, row_start, row_stop = (
            self._numbers[name][self.order]
            for name in ("snippet_start", "snippet_stop", "num_snippets", "row_start", "row_stop")
        )
        first, last = self.bounds[:-1], self.bounds[1:] - 1
        follows = np.ones(len(start), dtype=np.bool_)
        follows[1:] = (start[1:] == stop[:-1]) & (total[1:] == total[:-1])
        follows[first] = start[first] == 0
        follows &= (start < stop) & (row_stop - row_start == stop - start)
        whole = np.logical_and.reduceat(follows, first)
        tiled: NDArray[np.bool_] = whole & (stop[last] == total[last])
        return tiled


def distinct(column: pa.ChunkedArray) -> tuple[pa.Array, NDArray[np.int64]]:
    """The different strings of a column, and which of them each row has."""
    encoded = column.combine_chunks().dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):  # more text than one array of 32-bit offsets holds
        encoded = encoded.unify_dictionaries().combine_chunks()
    codes = encoded.indices.to_numpy(zero_copy_only=False)
    return encoded.dictionary, codes.astype(np.int64)


def _ranks(column: pa.ChunkedArray) -> NDArray[np.int64]:
    """Integers that compare like the strings of a column."""
    words, codes = distinct(column)
    rank: NDArray[np.int64] = pc.rank(words, tiebreaker="dense").to_numpy().astype(np.int64)
    return rank[codes]


def _bounds(codes: Sequence[NDArray[Any]]) -> NDArray[np.int64]:
    """Where sorted rows change in any of ``codes``, with 0 and the number of rows."""
    size = len(codes[0])
    if not size:
        return np.zeros(1, dtype=np.int64)
    changes = np.zeros(size, dtype=np.bool_)
    changes[0] = True
    for code in codes:
        changes[1:] |= code[1:] != code[:-1]
    return np.append(np.flatnonzero(changes), size)


def _group_numbers(codes: Sequence[NDArray[Any]]) -> NDArray[np.int64]:
    """Running number of the group each sorted row belongs to."""
    bounds = _bounds(codes)
    return np.repeat(np.arange(len(bounds) - 1), np.diff(bounds))
