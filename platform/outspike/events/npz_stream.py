"""Read the event columns of an ``.npz`` file side by side, without unpacking it into memory.

UCF-Crime-DVS is published so. The archive is read with the standard library; array headers are
matched literally, as evaluating them would run whatever somebody wrote there.
"""

import re
import zipfile
import zlib
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from outspike.events.codec import Facts, Source
from outspike.events.side_by_side import KEYS, Column, ColumnError, ColumnStream, demand_columns

_ZIP = b"PK\x03\x04"
_EMPTY_ZIP = b"PK\x05\x06"
_NPY = b"\x93NUMPY"
_MAX_HEADER_BYTES = 1 << 14
_HEADER = re.compile(
    rb"\{'descr': '([<>|=](?:b1|[iu][1248]|f[248]))', 'fortran_order': (?:True|False), "
    rb"'shape': \((\d{0,18}),?\), ?\}\s*"
)

#: What zipfile raises for damaged, encrypted or overlong entries.
_ZIP_ERRORS = (
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    zlib.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    OverflowError,
)


class Npz:
    """Arrays ``t, x, y, p`` of equal length and any integer type; scalars beside them are facts."""

    def sniff(self, head: bytes, num_bytes: int) -> bool:
        """A zip archive."""
        return head.startswith((_ZIP, _EMPTY_ZIP))

    def open(self, source: Source) -> ColumnStream:
        """Find the columns.

        Raises:
            MediaError: not a zip archive, or a column is absent or no array of numbers.
        """
        archive = _Archive(source)
        demand_columns(source, [key for key in KEYS if key in archive.entries], archive.entries)
        archive.columns()  # their headers are checked now, not with the first events
        width, height = archive.fact("width"), archive.fact("height")
        facts = Facts(
            format="npz",
            title="NumPy npz",
            size=None if width is None or height is None else (width, height),
            anchor_us=archive.fact("anchor_us"),
            duration_us=archive.fact("duration_us"),
        )
        return ColumnStream(source, facts, archive.columns)


class _Archive:
    """Entries of the zip file by the name of the array."""

    def __init__(self, source: Source) -> None:
        self._source = source
        try:
            self._archive = zipfile.ZipFile(source.file)
        except _ZIP_ERRORS as error:
            source.fail(
                f"a damaged npz file: {error}; expected a zip archive with its table before the "
                f"end at byte {source.num_bytes}."
            )
        self.entries = {
            info.filename.removesuffix(".npy"): info for info in self._archive.infolist()
        }

    def columns(self) -> dict[str, Column]:
        """Cursors at the beginning of the four columns."""
        return {key: self._column(key) for key in KEYS}

    def fact(self, key: str) -> int | None:
        """A whole number stored beside the columns."""
        if key not in self.entries:
            return None
        entry, dtype, length = self._open(key)
        if length not in (None, 1) or dtype.kind not in "iu":
            self._source.fail(f"{key!r} is no single whole number.")
        try:
            return int(_read(entry, dtype, 1)[0])
        except ColumnError as error:
            self._source.fail(f"{key!r} is damaged: {error}.")

    def _column(self, key: str) -> Column:
        entry, dtype, length = self._open(key)
        if length is None:
            self._source.fail(f"{key!r} is a single number; expected one for every event.")
        return Column(length, dtype, lambda count: _read(entry, dtype, count))

    def _open(self, key: str) -> tuple[IO[bytes], np.dtype[Any], int | None]:
        """An entry behind its header, its type, and its length (None for a single number)."""
        info = self.entries[key]
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            self._source.fail(
                f"{key!r} is compressed by method {info.compress_type}; expected 0 or 8, which are "
                "what NumPy writes."
            )
        try:
            entry = self._archive.open(info)
            start = entry.read(len(_NPY) + 2)
            major = start[-2] if start[: len(_NPY)] == _NPY and len(start) == 8 else 0
            length_bytes = entry.read(2 if major == 1 else 4)
            num_header = int.from_bytes(length_bytes, "little")
            header = entry.read(num_header) if 0 < num_header <= _MAX_HEADER_BYTES else b""
        except _ZIP_ERRORS as error:
            self._source.fail(f"array {key!r} is damaged: {error}.")
        match = _HEADER.fullmatch(header) if major in (1, 2, 3) else None
        if match is None:
            self._source.fail(f"{key!r} is no array of numbers of one dimension.")
        return entry, np.dtype(match[1].decode()), int(match[2]) if match[2] else None


def _read(entry: IO[bytes], dtype: np.dtype[Any], count: int) -> NDArray[Any]:
    try:
        data = entry.read(count * dtype.itemsize)
    except _ZIP_ERRORS as error:
        raise ColumnError(str(error)) from error
    if len(data) != count * dtype.itemsize:
        raise ColumnError(
            f"it ends early, {len(data)} of {count * dtype.itemsize} bytes are there",
            reason="truncated",
        )
    return np.frombuffer(data, dtype=dtype)
