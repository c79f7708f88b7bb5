"""HDF5 event files: Prophesee's (``CD/events``), DSEC's (``events/{x,y,t,p}``), and MATLAB 7.3.

Prophesee keeps one compound array; the others keep four arrays. Both are often compressed by
filters that h5py does not bring along (ECF, Blosc); such a file is refused by the filter's name.
"""

import importlib
import math
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from outspike.errors import MediaError
from outspike.events.codec import MAX_SIDE, EventStream, Facts, Piece, Source
from outspike.events.extras import optional
from outspike.events.side_by_side import (
    KEYS,
    Column,
    ColumnError,
    ColumnStream,
    demand_columns,
    named,
    to_piece,
)

_MAGIC = b"\x89HDF\r\n\x1a\n"
_USER_BLOCKS = (0, 512)  # MATLAB writes a text of its own before the file

#: Where the four columns may lie: DSEC and others, MATLAB's structure, plain variables.
_GROUPS = ("events", "TD", "/")
_COMPOUND = "CD/events"

#: Filters that come as plugins, and how to get them.
_PLUGINS = {
    32001: "Blosc: pip install hdf5plugin",
    0x8ECF: "Prophesee's ECF: install its hdf5_ecf plugin and set HDF5_PLUGIN_PATH",
}

#: A chunk is unpacked whole; nobody writes larger ones, and no filter packs data of use tighter.
_MAX_CHUNK_BYTES = 1 << 28
_MAX_RATIO = 1 << 14

#: What h5py raises for damaged files, depending on where the library stumbles.
_ERRORS = (OSError, RuntimeError, ValueError, KeyError, TypeError, OverflowError, MemoryError)


class Hdf5:
    """Read through h5py, which takes any seekable file."""

    def sniff(self, head: bytes, num_bytes: int) -> bool:
        """The signature, at the beginning or behind MATLAB's text."""
        return any(head.startswith(_MAGIC, start) for start in _USER_BLOCKS)

    def open(self, source: Source) -> EventStream:
        """Find the arrays.

        Raises:
            MediaError: a damaged file, arrays of another layout, or a filter that is absent.
        """
        h5py = optional("h5py", "An HDF5 event file")
        _register_plugins()
        try:
            file = h5py.File(source.file, "r")
            source.closing.callback(file.close)
            return _stream(source, h5py, file)
        except MediaError:
            raise
        except _ERRORS as error:
            source.fail(f"a damaged HDF5 file ({_first_line(error)}).")


@cache
def _register_plugins() -> None:
    """Blosc and others become known to h5py where this package is installed."""
    with suppress(ImportError):
        importlib.import_module("hdf5plugin")


def _stream(source: Source, h5py: ModuleType, file: Any) -> EventStream:
    compound = file.get(_COMPOUND)
    if isinstance(compound, h5py.Dataset):
        _demand_readable(source, h5py, _COMPOUND, compound)
        return _CompoundStream(source, _prophesee_facts(source, file), compound)
    groups = [file[path] for path in _GROUPS if isinstance(file.get(path), h5py.Group)]
    names = [
        [name for name in group if isinstance(group.get(name), h5py.Dataset)] for group in groups
    ]
    best = max(range(len(groups)), key=lambda index: len(named(names[index])))
    found = named(names[best])
    demand_columns(source, found, names[best])
    arrays = {key: groups[best][name] for key, name in found.items()}
    for key, array in arrays.items():
        _demand_readable(source, h5py, key, array)
    offset = file.get("t_offset")
    facts = Facts(
        format="hdf5",
        title="HDF5 (DSEC layout)" if "ms_to_idx" in file else "HDF5 columns",
        clock_offset_us=_number(source, "t_offset", offset)
        if isinstance(offset, h5py.Dataset)
        else None,
    )
    return ColumnStream(
        source, facts, lambda: {key: _column(array) for key, array in arrays.items()}
    )


def _demand_readable(source: Source, h5py: ModuleType, name: str, array: Any) -> None:
    """Refuse an array that no filter here unpacks, or that claims more than the file can hold."""
    plan = array.id.get_create_plist()
    for index in range(plan.get_nfilters()):
        number = plan.get_filter(index)[0]
        if not h5py.h5z.filter_avail(number):
            how = _PLUGINS.get(number, "no source of it is known to us")
            source.fail(
                f"array {name!r} is compressed by HDF5 filter {number}, which is not installed "
                f"({how}).",
                reason="missing_package",
            )
    if max(array.shape, default=0) != array.size:
        source.fail(f"array {name!r} has shape {array.shape}; expected one dimension.")
    chunk_bytes = math.prod(array.chunks or (0,)) * array.dtype.itemsize
    stored = array.id.get_storage_size()
    claimed = array.size * array.dtype.itemsize
    if chunk_bytes > _MAX_CHUNK_BYTES or stored > source.num_bytes or claimed > stored * _MAX_RATIO:
        source.fail(
            f"array {name!r} claims {claimed} bytes in chunks of {chunk_bytes}, stored in {stored} "
            f"of the file's {source.num_bytes}; expected fewer."
        )


def _prophesee_facts(source: Source, file: Any) -> Facts:
    across, _, down = _text(file.attrs.get("geometry", "")).partition("x")
    size = None
    if across.isascii() and across.isdigit() and down.isascii() and down.isdigit():
        size = int(across[:9]), int(down[:9])
    if size is not None and not all(0 < side <= MAX_SIDE for side in size):
        source.fail(f"a sensor of {across}x{down} pixels, which there is none of.")
    return Facts(format="hdf5", title="HDF5 (Prophesee layout)", size=size)


def _text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def _number(source: Source, name: str, array: Any) -> int:
    if array.size != 1 or array.dtype.kind not in "iu":
        source.fail(f"{name!r} is no single whole number.")
    return int(np.asarray(array[()]).reshape(()))


def _column(array: Any) -> Column:
    position = 0

    def read(count: int) -> NDArray[Any]:
        nonlocal position
        start, position = position, position + count
        return _slice(array, start, position)

    return Column(array.size, array.dtype, read)


def _slice(array: Any, start: int, stop: int) -> NDArray[Any]:
    """Values ``[start, stop)`` of an array that is long in one dimension only."""
    along = array.shape.index(array.size) if array.size > 1 else 0
    window = tuple(
        slice(start, stop) if axis == along else slice(None) for axis in range(array.ndim)
    )
    try:
        return np.asarray(array[window]).reshape(-1)
    except _ERRORS as error:
        raise ColumnError(_first_line(error)) from error


class _CompoundStream:
    """Prophesee's single array of ``(x, y, p, t)``."""

    def __init__(self, source: Source, facts: Facts, array: Any) -> None:
        self.facts = facts
        self._source = source
        self._array = array
        fields = array.dtype.fields or {}
        demand_columns(source, [key for key in KEYS if key in fields], fields)
        for key in KEYS:
            if fields[key][0].kind not in "iu":
                source.fail(f"field {key!r} is of {fields[key][0]}; expected whole numbers.")

    def pieces(self, num_events: int) -> Iterator[Piece]:
        """Consecutive events, at most ``num_events`` at a time."""
        total = self._array.size
        for start in range(0, total, num_events):
            stop = min(start + num_events, total)
            try:
                values = _slice(self._array, start, stop)
            except ColumnError as error:
                self._source.fault(
                    "unreadable_events",
                    f"events {start} to {stop} cannot be read: {error}.",
                    count=total - start,
                )
                return
            yield to_piece(self._source, {key: values[key] for key in KEYS}, start)


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
