"""Read the event columns of an ``.npz`` file side by side, without unpacking it into memory."""

import zipfile
import zlib
from collections.abc import Iterator
from functools import partial
from typing import IO, Any, BinaryIO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from outspike.errors import MediaError
from outspike.events.codec import Facts, Piece, Source
from outspike.events.columns import Events

_ZIP = b"PK\x03\x04"
_KEYS = ("t", "x", "y", "p")


class Npz:
    """Archives of NumPy columns, as UCF-Crime-DVS is published."""

    def sniff(self, head: bytes, num_bytes: int) -> bool:
        """A zip archive."""
        return head.startswith(_ZIP)

    def open(self, source: Source) -> "NpzStream":
        """Find the columns."""
        return NpzStream(source)


class NpzStream:
    """The columns of one archive."""

    def __init__(self, source: Source) -> None:
        self._columns = NpzColumns(source.url, source.file)
        width, height = self._columns.fact("width"), self._columns.fact("height")
        self.facts = Facts(
            format="npz",
            title="NumPy npz",
            size=None if width is None or height is None else (width, height),
            anchor_us=self._columns.fact("anchor_us"),
            duration_us=self._columns.fact("duration_us"),
        )

    def pieces(self, num_events: int) -> Iterator[Piece]:
        """Consecutive events, at most ``num_events`` at a time."""
        start = 0
        for events in self._columns.chunks(num_events):
            yield Piece(events, partial(_numbered, start))
            start += len(events)


def _numbered(start: int, index: int) -> str:
    return f"event {start + index}"


class NpzColumns:
    """Keys ``t, x, y, p`` of equal length, of any integer type; scalars beside them are facts.

    Raises:
        MediaError: not a zip archive, a column is absent, not one-dimensional or not integer, or
            the columns differ in length.
    """

    def __init__(self, url: str, file: BinaryIO) -> None:
        self._url = url
        try:
            self._archive = zipfile.ZipFile(file)
        except zipfile.BadZipFile as error:
            raise MediaError(f"{url}: a damaged npz file ({error}).", reason="corrupt") from error
        names = {name.removesuffix(".npy") for name in self._archive.namelist()}
        absent = [key for key in _KEYS if key not in names]
        if absent:
            raise MediaError(
                f"{url}: no column {', '.join(absent)}; expected t, x, y and p, found "
                f"{', '.join(sorted(names)) or 'nothing'}.",
                reason="unknown_format",
            )
        self._names = names

    def fact(self, key: str) -> int | None:
        """A scalar stored beside the columns."""
        if key not in self._names:
            return None
        with self._archive.open(f"{key}.npy") as entry:
            shape, _, dtype = _header(self._url, key, entry)
            data = entry.read()
        if shape not in ((), (1,)) or dtype.kind not in "iu":
            raise MediaError(f"{self._url}: {key!r} is not one integer.", reason="corrupt")
        return int(np.frombuffer(data, dtype=dtype)[0])

    def chunks(self, num_events: int) -> Iterator[Events]:
        """Consecutive events, at most ``num_events`` at a time."""
        entries = {key: self._archive.open(f"{key}.npy") for key in _KEYS}
        try:
            headers = {key: _header(self._url, key, entry) for key, entry in entries.items()}
            lengths = {key: header[0] for key, header in headers.items()}
            total = _common_length(self._url, lengths)
            for start in range(0, total, num_events):
                count = min(num_events, total - start)
                columns = {
                    key: self._read(key, entries[key], headers[key][2], count) for key in _KEYS
                }
                yield self._events(columns)
        finally:
            for entry in entries.values():
                entry.close()

    def _read(self, key: str, entry: IO[bytes], dtype: np.dtype[Any], count: int) -> NDArray[Any]:
        try:
            data = entry.read(count * dtype.itemsize)
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise MediaError(
                f"{self._url}: column {key!r} is damaged ({error}).", reason="corrupt"
            ) from error
        if len(data) != count * dtype.itemsize:
            raise MediaError(f"{self._url}: column {key!r} ends early.", reason="truncated")
        return np.frombuffer(data, dtype=dtype)

    def _events(self, columns: dict[str, NDArray[Any]]) -> Events:
        for key in ("x", "y"):
            found = columns[key]
            if len(found) and not 0 <= int(found.min()) <= int(found.max()) < 1 << 16:
                raise MediaError(
                    f"{self._url}: {key} reaches from {found.min()} to {found.max()}, which are "
                    "no pixels.",
                    reason="corrupt",
                )
        polarity = columns["p"]
        if len(polarity) and not np.isin(polarity, (-1, 0, 1)).all():
            raise MediaError(
                f"{self._url}: polarities {np.unique(polarity)[:5]}; expected 0 and 1 (or -1 "
                "and 1).",
                reason="corrupt",
            )
        return Events(
            columns["t"].astype(np.int64),
            columns["x"].astype(np.uint16),
            columns["y"].astype(np.uint16),
            (polarity > 0).astype(np.uint8),
        )


def _header(url: str, key: str, entry: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    try:
        version = npy.read_magic(entry)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran, dtype = read(entry)
    except ValueError as error:
        raise MediaError(f"{url}: {key!r} is no array ({error}).", reason="corrupt") from error
    if dtype.kind not in "iu":
        raise MediaError(f"{url}: {key!r} is {dtype}; expected integers.", reason="corrupt")
    return shape, fortran, dtype


def _common_length(url: str, shapes: dict[str, tuple[int, ...]]) -> int:
    if any(len(shape) != 1 for shape in shapes.values()) or len(set(shapes.values())) != 1:
        raise MediaError(
            f"{url}: columns have shapes {shapes}; expected one length for all.", reason="corrupt"
        )
    return next(iter(shapes.values()))[0]
