"""As much of FlatBuffers as AEDAT 4.0 needs: tables with scalars, strings and vectors of structs.

Every offset is checked against the buffer before it is followed, as the bytes may be anything.
"""

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray


class FlatbufferError(ValueError):
    """Bytes that are not the flatbuffer they should be."""


class Table:
    """The root table of a size-prefixed buffer.

    Args:
        data: the buffer from its size prefix on.
        identifier: the four letters that name its type.

    Raises:
        FlatbufferError: the prefix, the identifier or an offset is wrong.
    """

    def __init__(self, data: bytes, identifier: bytes) -> None:
        self._data = data
        size, root = self._unpack("<II", 0)
        if data[8:12] != identifier:
            raise FlatbufferError(f"identifier {data[8:12]!r}, expected {identifier!r}")
        if size + 4 > len(data):
            raise FlatbufferError(f"a size of {size} bytes, of which {len(data) - 4} are there")
        self._position = 4 + root
        (back,) = self._unpack("<i", self._position)
        self._vtable = self._position - back
        (self._vtable_size,) = self._unpack("<H", self._vtable)

    def scalar(self, field: int, code: str, default: int) -> int:
        """Field number ``field`` of ``struct`` type ``code``."""
        position = self._place(field)
        if position is None:
            return default
        (value,) = self._unpack(f"<{code}", position)
        return int(value)

    def text(self, field: int) -> str:
        """A string, empty where it is absent."""
        start, count = self._vector(field, 1)
        return self._data[start : start + count].decode("utf-8", errors="replace")

    def structs(self, field: int, dtype: np.dtype[Any]) -> NDArray[Any]:
        """A vector of structs ``[N]`` as a view, empty where it is absent."""
        start, count = self._vector(field, dtype.itemsize)
        return np.frombuffer(self._data, dtype=dtype, count=count, offset=start)

    def _vector(self, field: int, itemsize: int) -> tuple[int, int]:
        place = self._place(field)
        if place is None:
            return 0, 0
        (offset,) = self._unpack("<I", place)
        (count,) = self._unpack("<I", place + offset)
        start = place + offset + 4
        if start + count * itemsize > len(self._data):
            raise FlatbufferError(
                f"a vector of {count} items at byte {start} of {len(self._data)} bytes"
            )
        return start, count

    def _place(self, field: int) -> int | None:
        slot = 4 + 2 * field
        if slot + 2 > self._vtable_size:
            return None
        (offset,) = self._unpack("<H", self._vtable + slot)
        return self._position + int(offset) if offset else None

    def _unpack(self, code: str, position: int) -> tuple[Any, ...]:
        if position < 0 or position + struct.calcsize(code) > len(self._data):
            raise FlatbufferError(f"an offset to byte {position} of {len(self._data)} bytes")
        return struct.unpack_from(code, self._data, position)
