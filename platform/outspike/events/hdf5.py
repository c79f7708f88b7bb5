"""HDF5 event files: Prophesee's (``CD/events``), DSEC's (``events/{x,y,t,p}``), and MATLAB 7.3.

Prophesee keeps one compound array; the others keep four. Both kinds may be compressed by Blosc or
deflate; Prophesee's own filter (ECF) is not undone, such a file is refused by the filter's name.
"""

import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from numpy.typing import NDArray

from outspike.events.codec import MAX_SIDE, EventStream, Facts, Piece, Source
from outspike.events.hdf5_array import Array, cursor, demand_known, find_array
from outspike.events.hdf5_tree import (
    SIGNATURE,
    USER_BLOCKS,
    CutShortError,
    Hdf5Error,
    Tree,
)
from outspike.events.side_by_side import (
    KEYS,
    Column,
    ColumnError,
    ColumnStream,
    demand_columns,
    named,
    to_piece,
)

#: Where the four columns may lie: DSEC and others, MATLAB's structure, plain variables.
_GROUPS = ("events", "TD", "")

#: No filter packs data of use tighter than this.
_MAX_RATIO = 1 << 12


class Hdf5:
    """Files in the layouts named above."""

    def sniff(self, head: bytes, num_bytes: int) -> bool:
        """The signature, at the beginning or behind MATLAB's text."""
        return any(head.startswith(SIGNATURE, start) for start in USER_BLOCKS)

    def open(self, source: Source) -> EventStream:
        """Find the arrays.

        Raises:
            MediaError: a damaged file, arrays of another layout, or a filter that is not undone.
        """
        with _told(source):
            tree = Tree(partial(_read, source), source.head)
            root = tree.children(tree.root)
            if "CD" in root:
                inside = tree.children(root["CD"])
                array = find_array(tree, inside["events"]) if "events" in inside else None
                if array is not None and array.dtype.names is not None:
                    _demand_readable(source, "CD/events", array)
                    return _CompoundStream(source, _prophesee_facts(source, tree), tree, array)
            return _columns(source, tree, root)


def _read(source: Source, offset: int, num_bytes: int, what: str) -> bytes:
    if offset + num_bytes > source.num_bytes:
        raise CutShortError(
            f"{what} of {num_bytes} bytes at byte {offset} reaches past the end of the file at "
            f"byte {source.num_bytes}"
        )
    return source.read_exactly(num_bytes, offset, what)


@contextmanager
def _told(source: Source) -> Iterator[None]:
    """Structures that cannot be read are faults of the file."""
    try:
        yield
    except CutShortError as error:
        source.fail(f"an HDF5 file that was cut short: {error}.", reason="truncated")
    except (Hdf5Error, struct.error, IndexError) as error:
        source.fail(f"a damaged HDF5 file, or one that is not read here: {error}.")


def _columns(source: Source, tree: Tree, root: dict[str, int]) -> EventStream:
    """The group that holds most of the four columns."""
    best: dict[str, int] = {}
    for path in _GROUPS:
        if path in root or not path:
            found = tree.children(root[path]) if path else root
            if len(named(found)) > len(named(best)):
                best = found
    names = named(best)
    demand_columns(source, names, best)
    arrays: dict[str, Array] = {}
    for key, name in names.items():
        array = find_array(tree, best[name])
        if array is None or array.dtype.names is not None:
            source.fail(f"{name!r} is no array of numbers.")
        _demand_readable(source, name, array)
        arrays[key] = array
    facts = Facts(
        format="hdf5",
        title="HDF5 (DSEC layout)" if "ms_to_idx" in root else "HDF5 columns",
        clock_offset_us=_clock_offset(source, tree, root),
    )
    return ColumnStream(
        source,
        facts,
        lambda: {
            key: Column(array.length, array.dtype, cursor(tree, array))
            for key, array in arrays.items()
        },
    )


def _clock_offset(source: Source, tree: Tree, root: dict[str, int]) -> int | None:
    array = find_array(tree, root["t_offset"]) if "t_offset" in root else None
    if array is None:
        return None
    if array.length != 1 or array.dtype.kind not in "iu":
        source.fail("'t_offset' is no single whole number.")
    demand_known(array)
    try:
        return int(cursor(tree, array)(1)[0])
    except ColumnError as error:
        source.fail(f"'t_offset' is damaged: {error}.")


def _demand_readable(source: Source, name: str, array: Array) -> None:
    """Refuse an array that is not undone here, or that claims more than the file can hold."""
    try:
        demand_known(array)
    except Hdf5Error as error:
        source.fail(f"array {name!r} is {error}.", reason="unknown_format")
    claimed = array.length * array.dtype.itemsize
    if max(array.shape, default=0) != array.length or claimed > source.num_bytes * _MAX_RATIO:
        source.fail(
            f"array {name!r} has shape {array.shape} in a file of {source.num_bytes} bytes; "
            "expected one dimension and less data."
        )


def _prophesee_facts(source: Source, tree: Tree) -> Facts:
    geometry = tree.text_attribute(tree.root, "geometry") or ""
    across, _, down = geometry.strip().partition("x")
    size = None
    if all(side.isascii() and side.isdigit() and len(side) < 9 for side in (across, down)):
        size = int(across), int(down)
    if size is not None and not all(0 < side <= MAX_SIDE for side in size):
        source.fail(f"a sensor of {across}x{down} pixels, which there is none of.")
    return Facts(format="hdf5", title="HDF5 (Prophesee layout)", size=size)


class _CompoundStream:
    """Prophesee's single array of ``(x, y, p, t)``."""

    def __init__(self, source: Source, facts: Facts, tree: Tree, array: Array) -> None:
        self.facts = facts
        self._source = source
        self._open: Callable[[], Callable[[int], NDArray[Any]]] = lambda: cursor(tree, array)
        self._length = array.length
        fields: Mapping[str, Any] = array.dtype.fields or {}
        demand_columns(source, [key for key in KEYS if key in fields], fields)
        for key in KEYS:
            if fields[key][0].kind not in "iu":
                source.fail(f"field {key!r} is of {fields[key][0]}; expected whole numbers.")

    def pieces(self, num_events: int) -> Iterator[Piece]:
        """Consecutive events, at most ``num_events`` at a time."""
        read = self._open()
        for start in range(0, self._length, num_events):
            stop = min(start + num_events, self._length)
            try:
                values = read(stop - start)
            except ColumnError as error:
                self._source.fault(
                    "unreadable_events",
                    f"events {start} to {stop} cannot be read: {error}.",
                    reason=error.reason,
                    count=self._length - start,
                )
                return
            yield to_piece(self._source, {key: values[key] for key in KEYS}, start)
