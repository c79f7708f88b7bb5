"""The catalog: one row per extent, appended by whole attempts; what is not in it does not exist."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from typing import Any

import numpy as np
import pyarrow as pa
from deltalake import DeltaTable, write_deltalake
from numpy.typing import NDArray

from outspike.errors import StoreError
from outspike.store.delta import change, read_table
from outspike.store.layout import CATALOG, new_id
from outspike.store.ranking import (
    Codes,
    combined,
    dense,
    distinct,
    is_constant,
    ranks_of_few,
    ranks_of_many,
)

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

_NUMBERS = ("row_start", "row_stop", "snippet_start", "snippet_stop", "num_snippets")
#: What :class:`Extents` looks at, of rows that are ranked by recording already.
ATTEMPT_COLUMNS = ("attempt", "segment", *_NUMBERS)
#: What it looks at of other rows.
EXTENT_COLUMNS = ("fingerprint", "dataset", "video_id", *ATTEMPT_COLUMNS)

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
    vectorised: a catalog of a million rows takes less than a second.

    Args:
        rows: of the catalog, with :data:`EXTENT_COLUMNS` and any others.
        recordings: integers that compare like the feature set, dataset and video of the rows, of
            which :data:`ATTEMPT_COLUMNS` are then enough; None makes them.
    """

    def __init__(self, rows: pa.Table, recordings: Codes | None = None) -> None:
        self.rows = rows
        self._numbers = {name: rows[name].to_numpy() for name in _NUMBERS}
        if recordings is None:
            recordings = combined([ranks_of_few(rows["fingerprint"]), recording_ranks(rows)])
        self.order: NDArray[np.int64] = np.argsort(recordings)
        self._recordings = recordings[self.order]
        self._attempts = np.zeros(rows.num_rows, dtype=np.int64)
        # most recordings have one row; the attempts of the others alone need comparing
        self._order_attempts(_in_company(self._recordings))
        self.bounds = _bounds([self._recordings, self._attempts])
        self.whole = self._tiles()

    def broken_attempts(self) -> list[tuple[int, int]]:
        """Positions ``[first, last)`` in ``order`` of attempts that do not tile their recording."""
        pairs = zip(self.bounds[:-1], self.bounds[1:], self.whole, strict=True)
        return [(int(first), int(last)) for first, last, whole in pairs if not whole]

    def current(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Rows of the newest whole attempt of every recording and feature set, in ``order``.

        ``columns`` names those to take along; None takes all.
        """
        rows = self.rows if columns is None else self.rows.select(columns)
        index = self.current_index()
        if np.array_equal(index, np.arange(rows.num_rows)):
            return rows  # as they lie
        return _taken(rows, index)

    def current_index(self) -> NDArray[np.int64]:
        """Which of the rows :meth:`current` gives."""
        newest = self._newest(self._recording_numbers())
        chosen = np.zeros(len(self.whole), dtype=np.bool_)
        chosen[newest[newest >= 0]] = True
        return self.order[np.repeat(chosen, np.diff(self.bounds))]

    def superseded(self) -> list[str]:
        """Attempts, whole or not, that are older than the newest whole one of their recording."""
        first = self.bounds[:-1]
        number = self._recording_numbers()
        newest = self._newest(number)
        older = np.arange(len(first)) < newest[number] if len(first) else np.zeros(0, np.bool_)
        names = self.rows["attempt"].take(pa.array(self.order[first[older]]))
        return sorted(set(names.to_pylist()))

    def _recording_numbers(self) -> NDArray[np.int64]:
        """Running number of the recording and feature set of every attempt."""
        of_attempts = self._recordings[self.bounds[:-1]]
        bounds = _bounds([of_attempts])
        return np.repeat(np.arange(len(bounds) - 1), np.diff(bounds))

    def _newest(self, number: NDArray[np.int64]) -> NDArray[np.int64]:
        """The newest whole attempt of every recording, -1 where there is none."""
        newest: NDArray[np.int64] = np.full(int(number[-1]) + 1 if len(number) else 0, -1)
        whole = np.flatnonzero(self.whole)
        np.maximum.at(newest, number[whole], whole)  # attempts of a recording are in order of time
        return newest

    def _order_attempts(self, places: NDArray[np.int64]) -> None:
        """Put the rows at some places of ``order``, those of whole recordings, in order of attempt
        and snippet, and drop the repeated ones.
        """
        if not len(places):
            return
        rows = self.order[places]
        attempts = ranks_of_many(self.rows["attempt"].take(pa.array(rows)))
        snippets = [dense(self._numbers[name][rows]) for name in ("snippet_start", "snippet_stop")]
        sort = np.argsort(combined([self._recordings[places], attempts, *snippets]))
        self.order[places] = rows[sort]
        self._attempts[places] = attempts[sort]
        repeated = places[self._repeated(places)]
        if len(repeated):
            self.order, self._recordings, self._attempts = (
                np.delete(values, repeated)
                for values in (self.order, self._recordings, self._attempts)
            )

    def _repeated(self, places: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Sorted rows equal to the one before: one receipt committed by two drivers at once."""
        rows = self.order[places]
        segments = distinct(self.rows["segment"].take(pa.array(rows)))[1]
        columns = [self._recordings[places], self._attempts[places], segments]
        columns += [values[rows] for values in self._numbers.values()]
        same = np.zeros(len(places), dtype=np.bool_)
        same[1:] = np.logical_and.reduce([column[1:] == column[:-1] for column in columns])
        return same

    def _tiles(self) -> NDArray[np.bool_]:
        """Per attempt, whether its extents follow one another from 0 to ``num_snippets``."""
        num_attempts = len(self.bounds) - 1
        if not num_attempts:
            return np.zeros(0, dtype=np.bool_)
        is_in_place = np.array_equal(self.order, np.arange(self.rows.num_rows))
        start, stop, total, row_start, row_stop = (
            self._numbers[name] if is_in_place else self._numbers[name][self.order]
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


def recording_ranks(rows: pa.Table) -> Codes:
    """Integers from 0 without gaps that compare like ``dataset`` and ``video_id`` of any rows."""
    datasets, videos = ranks_of_few(rows["dataset"]), ranks_of_many(rows["video_id"])
    return dense(combined([datasets, videos])) if datasets.any() else videos


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


def _taken(rows: pa.Table, index: NDArray[np.int64]) -> pa.Table:
    """Rows by number; a column of one and the same string is cut instead, which copies nothing."""
    numbers = pa.array(index)
    columns = [
        column.slice(0, len(index))
        if column.type == pa.string() and is_constant(column)
        else column.take(numbers)
        for column in rows.columns
    ]
    return pa.table(columns, schema=rows.schema)


def _in_company(sorted_codes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Places of sorted codes that are equal to one next to them."""
    found = np.zeros(len(sorted_codes), dtype=np.bool_)
    same = sorted_codes[1:] == sorted_codes[:-1]
    found[1:] |= same
    found[:-1] |= same
    return np.flatnonzero(found)
