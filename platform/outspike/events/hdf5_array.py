"""One-dimensional arrays of an HDF5 file, read from the first value to the last, chunk by chunk."""

import math
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from outspike.events.hdf5_tree import (
    FILTERS,
    LAYOUT,
    SPACE,
    TYPE,
    UNDEFINED,
    CutShortError,
    Hdf5Error,
    Message,
    Tree,
    parse_type,
)
from outspike.events.side_by_side import ColumnError

_COMPACT, _CONTIGUOUS, _CHUNKED = 0, 1, 2
_SINGLE_CHUNK = 1

#: A chunk is unpacked whole; nobody writes larger ones.
_MAX_CHUNK_BYTES = 1 << 26

#: Bytes read at once from an array that is not chunked.
_BLOCK_BYTES = 1 << 20

_DEFLATE, _SHUFFLE, _FLETCHER32, _BLOSC = 1, 2, 3, 32001

#: Filters that are met in event files and not undone here.
_ABSENT = {
    32000: "LZF; rewrite the file with h5repack -f GZIP=1",
    0x8ECF: "Prophesee's ECF; convert the file with the vendor's tools, or read the raw file",
    32004: "LZ4; rewrite the file with h5repack -f GZIP=1",
    32015: "Zstandard; rewrite the file with h5repack -f GZIP=1",
}


@dataclass(frozen=True)
class Filter:
    """A step of the pipeline that chunks went through, and its settings."""

    number: int
    values: tuple[int, ...]


@dataclass(frozen=True)
class Array:
    """A dataset.

    Args:
        shape: one long dimension; others are 1.
        dtype: of one value.
        filters: in the order in which they were applied.
        layout: how the values lie in the file.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    filters: tuple[Filter, ...]
    layout: Message

    @property
    def length(self) -> int:
        """Number of values."""
        return math.prod(self.shape)


def find_array(tree: Tree, address: int) -> Array | None:
    """The dataset at ``address``; None for groups and for types that are no numbers."""
    found = {message.kind: message for message in tree.messages(address)}
    if not {SPACE, TYPE, LAYOUT} <= found.keys():
        return None
    dtype, _ = parse_type(found[TYPE].data)
    if dtype is None:
        return None
    filters = _filters(found[FILTERS].data) if FILTERS in found else ()
    return Array(_shape(found[SPACE].data), dtype, filters, found[LAYOUT])


def demand_known(array: Array) -> None:
    """Refuse an array in a layout or through a filter that is not undone here."""
    data = array.layout.data
    version, kind = data[0], data[1]
    indexed = kind == _CHUNKED and version == 4 and _index_of(data) != _SINGLE_CHUNK
    if version not in (3, 4) or indexed:
        raise Hdf5Error(
            f"in a layout of the newest kind (byte {array.layout.offset}), which is not read here; "
            "rewrite the file with h5repack"
        )
    for step in array.filters:
        if step.number not in _UNDO:
            raise Hdf5Error(
                f"compressed by HDF5 filter {step.number} "
                f"({_ABSENT.get(step.number, 'which is not known here')})"
            )


def cursor(tree: Tree, array: Array) -> Callable[[int], NDArray[Any]]:
    """A function that gives the next so many values."""
    parts = _parts(tree, array)
    waiting = [np.zeros(0, dtype=array.dtype)]
    held = 0

    def read(count: int) -> NDArray[Any]:
        nonlocal held
        try:
            while held < count:
                part = next(parts, None)
                if part is None:
                    missing = f"it ends early, {count - held} values are missing"
                    raise ColumnError(missing, reason="truncated")
                waiting.append(part)
                held += len(part)
        except CutShortError as error:
            raise ColumnError(str(error), reason="truncated") from error
        except (Hdf5Error, struct.error) as error:
            raise ColumnError(str(error)) from error
        values = np.concatenate(waiting) if len(waiting) > 1 else waiting[0]
        waiting[:] = [values[count:]]
        held -= count
        return values[:count]

    return read


def _parts(tree: Tree, array: Array) -> Iterator[NDArray[Any]]:
    data = array.layout.data
    version = data[0]
    kind = data[1] if version in (3, 4) else -1
    total = array.length * array.dtype.itemsize
    if kind == _COMPACT:
        (size,) = struct.unpack_from("<H", data, 2)
        yield _values(data[4 : 4 + size][:total], array)
    elif kind == _CONTIGUOUS:
        address, _ = struct.unpack_from("<QQ", data, 2)
        step = max(1, _BLOCK_BYTES // array.dtype.itemsize) * array.dtype.itemsize
        for start in range(0, total, step):
            count = min(step, total - start)
            yield _values(tree.read(address + start, count, "values"), array)
    elif kind == _CHUNKED and version == 3:
        yield from _chunks_in_order(tree, array, data)
    elif kind == _CHUNKED and version == 4:
        yield from _single_chunk(tree, array, data)
    else:
        raise Hdf5Error(f"a layout of version {version} at byte {array.layout.offset}")


def _chunks_in_order(tree: Tree, array: Array, layout: bytes) -> Iterator[NDArray[Any]]:
    rank = layout[2] - 1
    (address,) = struct.unpack_from("<Q", layout, 3)
    sides = struct.unpack_from(f"<{rank + 1}I", layout, 11)
    along = _along(array)
    chunk = _chunk_length(array, sides[:-1], along)
    done = 0
    if address == UNDEFINED:
        return
    for key, place in tree.leaves(address, kind=1, key_bytes=8 + 8 * (rank + 1)):
        size, mask, *start = struct.unpack(f"<II{rank + 1}Q", key)
        if start[along] != done or any(start[:along]) or any(start[along + 1 :]):
            raise Hdf5Error(
                f"a chunk for value {start[along]} (byte {tree.place(place)}), not {done}"
            )
        if size > _MAX_CHUNK_BYTES:
            raise Hdf5Error(f"a chunk of {size} bytes at byte {tree.place(place)}")
        data = tree.read(place, size, "chunk")
        yield _unpacked(data, mask, array, chunk, tree.place(place))[: array.length - done]
        done += chunk
        if done >= array.length:
            return


def _single_chunk(tree: Tree, array: Array, layout: bytes) -> Iterator[NDArray[Any]]:
    """Version 4, whose other indexes only come from writers told to use the latest format."""
    flags, rank, width = layout[2], layout[3] - 1, layout[4]
    sides = [
        int.from_bytes(layout[5 + width * axis : 5 + width * (axis + 1)], "little")
        for axis in range(rank)
    ]
    chunk = _chunk_length(array, tuple(sides), _along(array))
    size, mask = chunk * array.dtype.itemsize, 0
    position = 5 + width * (rank + 1) + 1
    if flags & 2:
        size, mask = struct.unpack_from("<QI", layout, position)
        position += 12
    (address,) = struct.unpack_from("<Q", layout, position)
    if size > _MAX_CHUNK_BYTES:
        raise Hdf5Error(f"a chunk of {size} bytes")
    data = tree.read(address, size, "chunk")
    yield _unpacked(data, mask, array, chunk, tree.place(address))[: array.length]


def _index_of(layout: bytes) -> int:
    """How chunks of a version 4 layout are found."""
    return layout[5 + layout[4] * layout[3]]


def _along(array: Array) -> int:
    """The long dimension."""
    return int(np.argmax(array.shape)) if array.shape else 0


def _chunk_length(array: Array, sides: tuple[int, ...], along: int) -> int:
    if len(sides) != len(array.shape) or math.prod(sides) != sides[along] or not sides[along]:
        raise Hdf5Error(f"chunks of {sides} in an array of {array.shape}")
    if sides[along] * array.dtype.itemsize > _MAX_CHUNK_BYTES:
        raise Hdf5Error(f"chunks of {sides[along]} values, which are too many to unpack at once")
    return sides[along]


def _values(data: bytes, array: Array) -> NDArray[Any]:
    if len(data) % array.dtype.itemsize:
        raise Hdf5Error(f"{len(data)} bytes, which are no whole values")
    return np.frombuffer(data, dtype=array.dtype)


def _unpacked(data: bytes, mask: int, array: Array, chunk: int, offset: int) -> NDArray[Any]:
    """A chunk's values; bit ``n`` of ``mask`` says that filter ``n`` was left out for it."""
    wanted = chunk * array.dtype.itemsize
    for number in reversed(range(len(array.filters))):
        if not mask >> number & 1:
            step = array.filters[number]
            try:
                data = _UNDO[step.number](data, step, wanted)
            except (zlib.error, RuntimeError, ValueError) as error:
                raise Hdf5Error(f"the chunk at byte {offset} does not unpack: {error}") from error
    if len(data) != wanted:
        raise Hdf5Error(f"the chunk at byte {offset} unpacks to {len(data)} bytes, not {wanted}")
    return np.frombuffer(data, dtype=array.dtype)


def _inflate(data: bytes, step: Filter, wanted: int) -> bytes:
    return zlib.decompressobj().decompress(data, wanted + _CHECKSUM_BYTES)


_CHECKSUM_BYTES = 4


def _unshuffle(data: bytes, step: Filter, wanted: int) -> bytes:
    """Bytes were grouped by their place in the value."""
    width = step.values[0] if step.values else 1
    if not 0 < width <= len(data) or len(data) % width:
        raise Hdf5Error(f"{len(data)} bytes shuffled by {width}")
    return np.frombuffer(data, dtype=np.uint8).reshape(width, -1).T.tobytes()


def _without_checksum(data: bytes, step: Filter, wanted: int) -> bytes:
    return data[:-_CHECKSUM_BYTES]


def _blosc(data: bytes, step: Filter, wanted: int) -> bytes:
    from numcodecs import blosc

    claimed, stored = (int.from_bytes(data[at : at + 4], "little") for at in (4, 12))
    if len(data) < 16 or claimed > wanted or stored != len(data):
        raise Hdf5Error(f"a Blosc header of {stored} bytes for {claimed}, in {len(data)}")
    unpacked: bytes = blosc.decompress(data)
    return bytes(unpacked)


_UNDO: dict[int, Callable[[bytes, Filter, int], bytes]] = {
    _DEFLATE: _inflate,
    _SHUFFLE: _unshuffle,
    _FLETCHER32: _without_checksum,
    _BLOSC: _blosc,
}


def _shape(data: bytes) -> tuple[int, ...]:
    if len(data) < 4 or data[0] not in (1, 2) or data[1] > 8:
        raise Hdf5Error("a data space of unknown form")
    start = 8 if data[0] == 1 else 4
    return struct.unpack_from(f"<{data[1]}Q", data, start)


def _filters(data: bytes) -> tuple[Filter, ...]:
    version, count = data[0], data[1]
    if version not in (1, 2) or count > 32:
        raise Hdf5Error(f"a filter pipeline of version {version} and {count} steps")
    position, found = 8 if version == 1 else 2, []
    for _ in range(count):
        (number,) = struct.unpack_from("<H", data, position)
        named = version == 1 or number >= 256
        name_bytes = struct.unpack_from("<H", data, position + 2)[0] if named else 0
        position += 4 if named else 2
        _, num_values = struct.unpack_from("<HH", data, position)
        position += 4 + (-(-name_bytes // 8) * 8 if version == 1 else name_bytes)
        values = struct.unpack_from(f"<{num_values}I", data, position)
        position += 4 * num_values + (4 if version == 1 and num_values % 2 else 0)
        found.append(Filter(number, values))
    return tuple(found)
