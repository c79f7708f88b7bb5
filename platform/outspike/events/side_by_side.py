"""Files that keep times, columns, rows and polarities in four arrays of their own.

The arrays lie one behind the other and are mostly compressed, so each is read by a cursor of its
own and the four advance together.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from outspike.events.codec import Facts, Piece, Source
from outspike.events.columns import Events

KEYS = ("t", "x", "y", "p")

#: Other names that the columns go by, in lower case.
ALIASES = {
    "t": ("t", "ts", "timestamp", "timestamps"),
    "x": ("x", "xs"),
    "y": ("y", "ys"),
    "p": ("p", "ps", "pol", "polarity"),
}

_COORDINATES = 1 << 16


class ColumnError(ValueError):
    """An array that cannot be read further; ``reason`` is a word for the ledger."""

    def __init__(self, message: str, *, reason: str = "corrupt") -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class Column:
    """One array ``[N]`` of numbers.

    Args:
        length: ``N``.
        dtype: as stored.
        read: the next so many values; raises :class:`ColumnError`.
    """

    length: int
    dtype: np.dtype[Any]
    read: Callable[[int], NDArray[Any]]


def named(names: Iterable[str]) -> dict[str, str]:
    """Which of ``names`` holds which of :data:`KEYS`; those that are absent are left out."""
    lower = {name.lower(): name for name in names}
    found = {}
    for key, aliases in ALIASES.items():
        match = next((lower[alias] for alias in aliases if alias in lower), None)
        if match is not None:
            found[key] = match
    return found


def demand_columns(source: Source, found: Iterable[str], names: Iterable[str]) -> None:
    """Refuse a file that lacks a column."""
    present = set(found)
    absent = [key for key in KEYS if key not in present]
    if absent:
        there = ", ".join(sorted(names)[:12]) or "nothing"
        source.fail(
            f"no column {', '.join(absent)}; expected t, x, y and p, found {there}.",
            reason="unknown_format",
        )


class ColumnStream:
    """The four columns of one file."""

    def __init__(
        self, source: Source, facts: Facts, open_: Callable[[], dict[str, Column]]
    ) -> None:
        self.facts = facts
        self._source = source
        self._open = open_

    def pieces(self, num_events: int) -> Iterator[Piece]:
        """Consecutive events, at most ``num_events`` at a time."""
        columns = self._open()
        total = common_length(self._source, columns)
        for start in range(0, total, num_events):
            values = self._read(columns, start, min(num_events, total - start), total)
            if values is None:
                return
            yield to_piece(self._source, values, start)

    def _read(
        self, columns: dict[str, Column], start: int, count: int, total: int
    ) -> dict[str, NDArray[Any]] | None:
        values = {}
        for key in KEYS:
            try:
                values[key] = columns[key].read(count)
            except ColumnError as error:
                self._source.fault(
                    "unreadable_events",
                    f"column {key!r} is damaged at events {start} to {start + count}: {error}.",
                    reason=error.reason,
                    count=total - start,
                )
                return None
        return values


def common_length(source: Source, columns: Mapping[str, Column]) -> int:
    """Length of all columns, the shortest where they differ and faults are passed over."""
    lengths = {key: columns[key].length for key in KEYS}
    shortest, longest = min(lengths.values()), max(lengths.values())
    if shortest != longest:
        source.fault(
            "events_without_all_columns",
            f"columns have lengths {lengths}; expected one length for all.",
            count=longest - shortest,
        )
    for key in KEYS:
        if columns[key].dtype.kind not in "iufb":
            source.fail(f"column {key!r} is of {columns[key].dtype}; expected whole numbers.")
    return shortest


def to_piece(source: Source, values: Mapping[str, NDArray[Any]], start: int) -> Piece:
    """Stored values as events; ``start`` is the number of the first."""
    wrong = np.zeros(len(values["t"]), dtype=np.bool_)
    columns = {key: _whole(source, key, values[key], start, wrong) for key in KEYS}
    for key in ("x", "y"):
        found = columns[key]
        outside = (found < 0) | (found >= _COORDINATES)
        _report(source, key, found, start, outside & ~wrong, "a pixel of at most 65535")
        wrong |= outside
    polarity = columns["p"]
    strange = (polarity < -1) | (polarity > 1)
    _report(source, "p", polarity, start, strange & ~wrong, "0 and 1 (or -1 and 1)")
    wrong |= strange
    kept = np.flatnonzero(~wrong) if wrong.any() else slice(None)
    events = Events(
        np.ascontiguousarray(columns["t"][kept], dtype=np.int64),
        columns["x"][kept].astype(np.uint16),
        columns["y"][kept].astype(np.uint16),
        (polarity[kept] > 0).astype(np.uint8),
    )
    return Piece(events, partial(_numbered, start, None if isinstance(kept, slice) else kept))


def _whole(
    source: Source, key: str, values: NDArray[Any], start: int, wrong: NDArray[np.bool_]
) -> NDArray[Any]:
    """Integers; a fraction, an infinity or a time past int64 is a fault of its event."""
    if values.dtype.kind == "b":
        return values.astype(np.int64)
    if values.dtype.kind == "u" and values.dtype.itemsize == 8:
        bad = values > np.uint64(np.iinfo(np.int64).max)
    elif values.dtype.kind == "f":
        bad = ~((np.abs(values) < 2.0**62) & (np.floor(values) == values))
    else:
        return values.astype(np.int64) if key == "t" else values.astype(np.int64, copy=False)
    _report(source, key, values, start, bad & ~wrong, "whole numbers (times in microseconds)")
    wrong |= bad
    return np.where(bad, values.dtype.type(0), values).astype(np.int64)


def _report(
    source: Source,
    key: str,
    values: NDArray[Any],
    start: int,
    bad: NDArray[np.bool_],
    expected: str,
) -> None:
    if bad.any():
        first = int(np.argmax(bad))
        source.fault(
            "impossible_values",
            f"{key} of event {start + first} is {values[first]}; expected {expected}.",
            count=int(bad.sum()),
        )


def _numbered(start: int, kept: NDArray[np.int64] | None, index: int) -> str:
    return f"event {start + (index if kept is None else int(kept[index]))}"
