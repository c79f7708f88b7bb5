"""MATLAB ``.mat`` files of version 5 (and 7, which compresses it), as far as they are plain.

Plain: vectors ``x``, ``y``, ``t`` (or ``ts``) and ``p``, as variables or fields of one structure.
Follows MathWorks' published description of the file format. Version 7.3 is HDF5 and read there.
"""

import math
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from outspike.events.codec import Facts, Source
from outspike.events.side_by_side import Column, ColumnError, ColumnStream, demand_columns, named

_MAGIC = b"MATLAB 5.0 MAT-file"
_HEADER_BYTES = 128
_STEP = 1 << 16

_MATRIX, _COMPRESSED = 14, 15
_STRUCT_CLASS, _NUMERIC_CLASSES, _COMPLEX = 2, range(6, 16), 0x08
_STORED = {
    1: "i1",
    2: "u1",
    3: "i2",
    4: "u2",
    5: "i4",
    6: "u4",
    7: "f4",
    9: "f8",
    12: "i8",
    13: "u8",
}

#: Limits on what describes the data, far above what anybody writes.
_MAX_NAME_BYTES, _MAX_FIELDS, _MAX_DIMS_BYTES, _MAX_DEPTH = 1 << 12, 1 << 10, 1 << 8, 3


class Mat5:
    """Structures and vectors of numbers; everything else in the file is passed over."""

    def sniff(self, head: bytes, num_bytes: int) -> bool:
        """The words it begins with."""
        return head.startswith(_MAGIC)

    def open(self, source: Source) -> ColumnStream:
        """Find the columns.

        Raises:
            MediaError: a damaged element, or no variables that are event columns.
        """
        header = source.read_exactly(_HEADER_BYTES, 0, "MAT-file header")
        order = {b"IM": "<", b"MI": ">"}.get(header[126:128])
        if order is None:
            source.fail(f"byte order mark {header[126:128]!r} at byte 126; expected 'IM' or 'MI'.")
        found: dict[str, dict[str, _Vector]] = {}
        try:
            for vector in _vectors(source, order):
                found.setdefault(vector.owner, {})[vector.name] = vector
        except ColumnError as error:
            source.fail(f"a damaged MAT-file: {error}.", reason=error.reason)
        chosen = max(found.values(), key=lambda names: len(named(names)), default={})
        columns = {key: chosen[name] for key, name in named(chosen).items()}
        demand_columns(source, columns, chosen)
        facts = Facts(format="mat", title="MATLAB mat")
        return ColumnStream(
            source, facts, lambda: {key: vector.column(source) for key, vector in columns.items()}
        )


@dataclass(frozen=True)
class _Vector:
    """Where a vector of numbers lies.

    Args:
        owner: structure that it is a field of; empty for a variable.
        element: the top element that holds it, and position in its bytes.
    """

    owner: str
    name: str
    element: "_Element"
    position: int
    dtype: np.dtype[Any]
    length: int

    def column(self, source: Source) -> Column:
        """A cursor at its beginning."""
        cursor: _Cursor | None = None

        def read(count: int) -> NDArray[Any]:
            nonlocal cursor
            if cursor is None:
                cursor = _Cursor(source, self.element)
                cursor.skip(self.position)
            return np.frombuffer(cursor.read(count * self.dtype.itemsize), dtype=self.dtype)

        return Column(self.length, self.dtype, read)


@dataclass(frozen=True)
class _Element:
    """A top-level element of the file: where its bytes begin, how many, whether compressed."""

    offset: int
    num_bytes: int
    compressed: bool
    order: str


class _Cursor:
    """Reads an element's bytes in order, unpacking them on the way."""

    def __init__(self, source: Source, element: _Element) -> None:
        self._source = source
        self._element = element
        self._next = element.offset
        self._inflate = zlib.decompressobj() if element.compressed else None
        self.position = 0

    def read(self, count: int) -> bytes:
        """Exactly ``count`` bytes, made piece by piece: a length is believed only as it comes."""
        parts, missing = [], count
        while missing:
            part = self._some(min(missing, _STEP))
            if not part:
                raise ColumnError(
                    f"it ends early, the element at byte {self._element.offset} lacks {missing} "
                    "bytes",
                    reason="truncated",
                )
            parts.append(part)
            missing -= len(part)
        self.position += count
        return b"".join(parts)

    def skip(self, count: int) -> None:
        """Pass over ``count`` bytes."""
        if self._inflate is None:
            self._next += count
            self.position += count
            return
        while count:
            step = min(count, _STEP)
            self.read(step)
            count -= step

    def unpack(self, code: str) -> tuple[Any, ...]:
        """Values of ``struct`` code ``code``."""
        code = self._element.order + code
        return struct.unpack(code, self.read(struct.calcsize(code)))

    def _some(self, most: int) -> bytes:
        if self._inflate is None:
            return self._raw(most)
        while True:
            fresh = self._inflate.unconsumed_tail or self._raw(_STEP)
            try:
                part = self._inflate.decompress(fresh, most)
            except zlib.error as error:
                raise ColumnError(f"{error} near byte {self._next}") from error
            if part or not fresh or self._inflate.eof:
                return part

    def _raw(self, most: int) -> bytes:
        end = min(self._element.offset + self._element.num_bytes, self._source.num_bytes)
        count = min(most, end - self._next)
        if count <= 0:
            return b""
        self._source.file.seek(self._next)
        data = self._source.file.read(count)
        self._next += len(data)
        return data


def _vectors(source: Source, order: str) -> Iterator[_Vector]:
    """Vectors of numbers among the variables of the file and the fields of its structures."""
    offset = _HEADER_BYTES
    while offset + 8 <= source.num_bytes:
        kind, num_bytes = struct.unpack(f"{order}II", source.read_exactly(8, offset, "element tag"))
        element = _Element(offset + 8, num_bytes, kind == _COMPRESSED, order)
        if kind not in (_MATRIX, _COMPRESSED):
            raise ColumnError(f"element of type {kind} at byte {offset}, expected 14 or 15")
        if element.offset + num_bytes > source.num_bytes:
            raise ColumnError(
                f"the element at byte {offset} takes {num_bytes} bytes, the file ends at byte "
                f"{source.num_bytes}",
                reason="truncated",
            )
        cursor = _Cursor(source, element)
        if element.compressed:
            cursor.unpack("II")  # the tag of the matrix inside
        yield from _matrix(cursor, element, owner="", label="", depth=0)
        offset += 8 + num_bytes
    if offset < source.num_bytes:
        source.fault(
            "truncated_bytes",
            f"ends inside the tag of an element at byte {offset}; the file was cut short.",
            reason="truncated",
            count=source.num_bytes - offset,
        )


def _matrix(
    cursor: _Cursor, element: _Element, *, owner: str, label: str, depth: int
) -> Iterator[_Vector]:
    """The vectors of one matrix, from behind its tag on; ``label`` names it if it is a field."""
    _, _, flags, _ = cursor.unpack("IIII")
    _, dims_bytes = cursor.unpack("II")
    if dims_bytes % 4 or not 8 <= dims_bytes <= _MAX_DIMS_BYTES:
        raise ColumnError(f"{dims_bytes} bytes of dimensions near byte {element.offset}")
    dims = cursor.unpack(f"{dims_bytes // 4}i")
    cursor.skip(-dims_bytes % 8)
    name = _short(cursor).decode("latin-1") or label
    length = math.prod(max(dim, 0) for dim in dims)
    kind, is_complex = flags & 0xFF, flags >> 8 & _COMPLEX
    if kind == _STRUCT_CLASS and length == 1 and depth < _MAX_DEPTH:
        yield from _fields(cursor, element, name, depth)
    elif kind in _NUMERIC_CLASSES and not is_complex and max(dims) == length:
        stored, num_bytes, _ = _tag(cursor)
        code = _STORED.get(stored)
        if code is not None and num_bytes == length * np.dtype(code).itemsize:
            dtype = np.dtype(element.order + code)
            yield _Vector(owner, name, element, cursor.position, dtype, length)


def _fields(cursor: _Cursor, element: _Element, owner: str, depth: int) -> Iterator[_Vector]:
    """The vectors among a structure's fields."""
    width_bytes = _short(cursor)
    width = struct.unpack(f"{element.order}i", width_bytes)[0] if len(width_bytes) == 4 else 0
    _, num_bytes, small = _tag(cursor)
    if not 0 < width <= _MAX_NAME_BYTES or num_bytes > width * _MAX_FIELDS:
        raise ColumnError(f"field names of {num_bytes} bytes, {width} each")
    names = cursor.read(num_bytes)
    cursor.skip(max(4 - num_bytes, 0) if small else -num_bytes % 8)
    for start in range(0, num_bytes - width + 1, width):
        label = names[start : start + width].split(b"\0")[0].decode("latin-1")
        kind, size = cursor.unpack("II")
        if kind != _MATRIX:
            raise ColumnError(f"field {label!r} is an element of type {kind}, expected {_MATRIX}")
        end = cursor.position + size
        if size:
            yield from _matrix(cursor, element, owner=owner, label=label, depth=depth + 1)
        if cursor.position > end:
            raise ColumnError(f"field {label!r} is longer than its {size} bytes")
        cursor.skip(end - cursor.position)


def _tag(cursor: _Cursor) -> tuple[int, int, bool]:
    """Type and length of an element; a small one keeps both in four bytes, its data behind."""
    (first,) = cursor.unpack("I")
    if first >> 16:
        return first & 0xFFFF, first >> 16, True
    (num_bytes,) = cursor.unpack("I")
    return first, num_bytes, False


def _short(cursor: _Cursor) -> bytes:
    """A short element and its padding: a name, a number."""
    _, num_bytes, small = _tag(cursor)
    if num_bytes > (4 if small else _MAX_NAME_BYTES):
        raise ColumnError(f"a name of {num_bytes} bytes")
    data = cursor.read(num_bytes)
    cursor.skip((4 if small else 8 * -(-num_bytes // 8)) - num_bytes)
    return data
