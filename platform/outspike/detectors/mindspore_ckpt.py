"""MindSpore's ``.ckpt`` files without MindSpore: plain tables of tensors in protocol-buffer form.

A file is a run of ``value`` messages (field 1), each a ``tag`` (1, name) and a ``tensor`` (2) with
``dims`` (1), ``tensor_type`` (2) and little-endian ``tensor_content`` (3). Large parameters are cut
into several values of one tag. A file written with ``crc_check`` ends with ``crc_num`` and a
CRC-32 of all before it in ten bytes. Nothing in such a file is code, and nothing is run.
"""

import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from outspike.errors import CheckpointError

_TRAILER = b"crc_num"
_CRC_BYTES = 10
_DTYPES = {
    "Float16": "<f2",
    "Float32": "<f4",
    "Float64": "<f8",
    "Int8": "<i1",
    "Int16": "<i2",
    "Int32": "<i4",
    "Int64": "<i8",
    "UInt8": "<u1",
    "Bool": "?",
}
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MAX_VARINT_BYTES = 10


@dataclass
class _Entry:
    """A parameter as far as it has been read."""

    kind: str
    dims: tuple[int, ...]
    parts: list[bytes] = field(default_factory=list)


def read_mindspore(path: str | Path) -> dict[str, Tensor]:
    """Every tensor of a MindSpore checkpoint by name, in the file's order.

    Raises:
        CheckpointError: damaged, encrypted, or not such a file; a type without a counterpart; or
            content that does not fill its shape.
    """
    path = Path(path)
    data = path.read_bytes()
    try:
        entries = _entries(_checked(data))
    except (ValueError, UnicodeDecodeError) as error:
        raise CheckpointError(
            f"{path}: not a MindSpore checkpoint, damaged, or encrypted ({error}); save it again "
            "with mindspore.save_checkpoint."
        ) from error
    if not entries:
        raise CheckpointError(f"{path}: an empty file; a MindSpore checkpoint holds tensors.")
    return {name: _tensor(entry, f"{path}: {name}") for name, entry in entries.items()}


def _checked(data: bytes) -> memoryview:
    """The messages of a file, after their checksum has been compared where it carries one."""
    end = len(data) - _CRC_BYTES - len(_TRAILER)
    if end < 0 or data[end : end + len(_TRAILER)] != _TRAILER:
        return memoryview(data)
    stored = int.from_bytes(data[-_CRC_BYTES:], "big")
    if zlib.crc32(data[:end]) != stored:
        raise ValueError("its checksum is not that of its bytes")
    return memoryview(data)[:end]


def _entries(data: memoryview) -> dict[str, _Entry]:
    entries: dict[str, _Entry] = {}
    for number, value in _fields(data):
        if number != 1 or isinstance(value, int):
            raise ValueError(f"field {number} outside a value")
        name, kind, dims, content = _value(value)
        entry = entries.setdefault(name, _Entry(kind, dims))
        if (entry.kind, entry.dims) != (kind, dims):
            raise ValueError(f"{name} comes twice in different shapes")
        entry.parts.append(content)
    return entries


def _value(data: memoryview) -> tuple[str, str, tuple[int, ...], bytes]:
    """Name, type, shape and bytes of one message."""
    parts = dict(_fields(data))
    name, tensor = parts.get(1), parts.get(2)
    if not isinstance(name, memoryview) or not isinstance(tensor, memoryview):
        raise ValueError("a value without name or tensor")
    dims: list[int] = []
    kind, content = "", b""
    for number, part in _fields(tensor):
        if number == 1:
            dims.extend([part] if isinstance(part, int) else _varints(part))
        elif isinstance(part, memoryview) and number == 2:
            kind = str(part, "utf-8")
        elif isinstance(part, memoryview) and number == 3:
            content = bytes(part)
    return str(name, "utf-8"), kind, tuple(dims), content


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Number and value of each field of a message."""
    position = 0
    while position < len(data):
        tag, position = _varint(data, position)
        number, wire = tag >> 3, tag & 7
        if wire == _VARINT:
            value, position = _varint(data, position)
            yield number, value
            continue
        if wire == _BYTES:
            size, position = _varint(data, position)
        elif wire in (_FIXED32, _FIXED64):
            size = 4 if wire == _FIXED32 else 8
        else:
            raise ValueError(f"wire type {wire} at byte {position}")
        if position + size > len(data):
            raise ValueError(f"it ends {position + size - len(data)} bytes too early")
        yield number, data[position : position + size]
        position += size


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    value = 0
    for shift, byte in enumerate(data[position : position + _MAX_VARINT_BYTES]):
        value |= (byte & 0x7F) << (7 * shift)
        if byte < 0x80:
            return value, position + shift + 1
    raise ValueError(f"a number without end at byte {position}")


def _varints(data: memoryview) -> list[int]:
    """Numbers in packed form."""
    found, position = [], 0
    while position < len(data):
        value, position = _varint(data, position)
        found.append(value)
    return found


def _tensor(entry: _Entry, where: str) -> Tensor:
    if entry.kind not in _DTYPES:
        raise CheckpointError(
            f"{where}: values of type {entry.kind!r}; known are {', '.join(_DTYPES)}."
        )
    dtype = np.dtype(_DTYPES[entry.kind])
    content = b"".join(entry.parts)
    # Older versions write the shape of a single number as (0,).
    dims = () if entry.dims == (0,) and len(content) == dtype.itemsize else entry.dims
    expected = math.prod(dims) * dtype.itemsize
    if len(content) != expected:
        raise CheckpointError(
            f"{where}: {len(content)} bytes for shape {dims} of {entry.kind}, expected {expected}; "
            "the file is damaged."
        )
    return torch.from_numpy(np.frombuffer(content, dtype=dtype).reshape(dims).copy())
