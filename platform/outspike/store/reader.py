"""Reading rows of a segment: one contiguous byte range per shard, checked against its crc."""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from outspike import urls
from outspike.errors import CorruptionError, MissingUrlError, UrlError
from outspike.store.arrays import ATTRIBUTES, padded, read_with_zarr
from outspike.store.files import RangeFiles
from outspike.store.layout import CHUNK_ROWS, FORMAT, ShardLayout, crc32c, shard_url

_SMALL = (("crc", "<u4"), ("start", "<i8"), ("stop", "<i8"))


class SegmentReader:
    """One segment: its frame ranges in memory, its features read by row range.

    Opening it costs one round of small reads; each shard is looked at once more when it is first
    used (length, index crc, sequential offsets). A shard that does not pass is left to zarr's own
    reader; the crc of every chunk is checked either way.

    Raises:
        CorruptionError: a part is missing, or contradicts its checksum or the others.
    """

    def __init__(self, url: str, files: RangeFiles) -> None:
        self.url = url
        self._files = files
        group, metadata, *small = self._read_metadata()
        self.rows, crcs = self._attributes(group)
        self.layout = ShardLayout.from_metadata(metadata)
        values = [
            self._small(name, data, np.dtype(dtype), crcs)
            for (name, dtype), data in zip(_SMALL, small, strict=True)
        ]
        self.crc: NDArray[np.uint32] = values[0]
        self.start: NDArray[np.int64] = values[1]
        self.stop: NDArray[np.int64] = values[2]
        if self.layout is not None and self.layout.rows != self.rows:
            raise CorruptionError(
                f"{url}: the group states {self.rows} rows, its features have {self.layout.rows}."
            )
        self._direct_shards: dict[int, bool] = {}

    def read(self, row_start: int, row_stop: int) -> NDArray[Any]:
        """Features of rows ``[row_start, row_stop)`` as ``[s, K, D]``; possibly a read-only view.

        Raises:
            CorruptionError: a chunk is missing or does not match its crc.
        """
        if not 0 <= row_start < row_stop <= self.rows:
            raise CorruptionError(
                f"{self.url}: rows [{row_start}, {row_stop}) asked for, the segment has "
                f"{self.rows}; the catalog and the segment disagree."
            )
        parts = [
            self._checked(first, last)[max(row_start - first, 0) : row_stop - first]
            for first, last in self._spans(row_start, row_stop)
        ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def is_direct(self, shard: int) -> bool:
        """Whether a shard has the byte layout of the format; looked up once.

        Raises:
            CorruptionError: the shard file is missing.
        """
        layout = self.layout
        if layout is None:
            return False
        if shard not in self._direct_shards:
            start = layout.data_bytes(shard)
            # one byte more than the index: a file that is too long shows as well
            stop = layout.shard_bytes(shard) + 1
            url = self.shard_url(shard)
            try:
                index = self._files.read_range(url, start, stop)
            except MissingUrlError as error:
                raise CorruptionError(f"{self.url}: shard {shard} is missing.") from error
            except UrlError:  # S3 refuses a range past the end of a truncated object
                index = np.zeros(0, dtype=np.uint8)
            self._direct_shards[shard] = layout.is_sequential(shard, index.tobytes())
        return self._direct_shards[shard]

    def shard_url(self, shard: int) -> str:
        """Address of a shard file of the format's layout."""
        return shard_url(self.url, shard)

    def damage(self, row_start: int, row_stop: int) -> Iterator[tuple[int, int, str]]:
        """Row ranges that cannot be read back intact, by whole chunks, with the first message."""
        found: tuple[int, int, str] | None = None
        for first in range(row_start // CHUNK_ROWS * CHUNK_ROWS, row_stop, CHUNK_ROWS):
            last = min(first + CHUNK_ROWS, self.rows)
            try:
                self.read(first, last)
            except CorruptionError as error:
                found = (first, last, str(error)) if found is None else (found[0], last, found[2])
            else:
                if found is not None:
                    yield found
                found = None
        if found is not None:
            yield found

    def _spans(self, row_start: int, row_stop: int) -> Iterator[tuple[int, int]]:
        """The rows asked for, widened to chunks and cut at shards."""
        first = row_start // CHUNK_ROWS * CHUNK_ROWS
        last = min(-(-row_stop // CHUNK_ROWS) * CHUNK_ROWS, self.rows)
        shard_rows = self.layout.shard_rows if self.layout else self.rows
        while first < last:
            cut = min(last, (first // shard_rows + 1) * shard_rows)
            yield first, cut
            first = cut

    def _checked(self, first: int, last: int) -> NDArray[Any]:
        """Rows of whole chunks inside one shard, each chunk checked."""
        if self.layout is not None and self.is_direct(first // self.layout.shard_rows):
            chunks = self._direct(self.layout, first, last)
        else:
            chunks = self._through_zarr(first, last)
        for number, chunk in enumerate(chunks, start=first // CHUNK_ROWS):
            if crc32c(chunk) != self.crc[number]:
                raise CorruptionError(damaged_rows(self.url, number))
        return chunks.reshape(-1, *chunks.shape[2:])[: last - first]

    def _direct(self, layout: ShardLayout, first: int, last: int) -> NDArray[Any]:
        shard, offset = layout.row_offset(first)
        num_chunks = -(-(last - first) // CHUNK_ROWS)
        wanted = num_chunks * layout.chunk_bytes
        data = self._files.read_range(self.shard_url(shard), offset, offset + wanted)
        if len(data) != wanted:
            raise CorruptionError(
                f"{self.url}: shard {shard} gave {len(data)} of {wanted} bytes at {offset}."
            )
        shape = (num_chunks, CHUNK_ROWS, layout.num_crops, layout.width)
        return data.view(np.dtype(layout.dtype).newbyteorder("<")).reshape(shape)

    def _through_zarr(self, first: int, last: int) -> NDArray[Any]:
        rows = read_with_zarr(self.url, "features", first, last)
        if rows.ndim != 3 or len(rows) != last - first:
            raise CorruptionError(
                f"{self.url}: features {rows.shape} for rows [{first}, {last}) of {self.rows}."
            )
        return np.stack([padded(rows[i : i + CHUNK_ROWS]) for i in range(0, len(rows), CHUNK_ROWS)])

    def _read_metadata(self) -> list[bytes]:
        names = ["zarr.json", "features/zarr.json", *(f"{name}/c/0" for name, _ in _SMALL)]
        try:
            return self._files.read_all([urls.join(self.url, name) for name in names])
        except MissingUrlError as error:
            raise CorruptionError(f"Segment {self.url} is not complete: {error}") from error

    def _attributes(self, group: bytes) -> tuple[int, dict[str, int]]:
        try:
            attributes = json.loads(group)["attributes"][ATTRIBUTES]
            number, rows, crcs = attributes["format"], attributes["rows"], attributes["crc32c"]
            stated = {name: int(crcs[name]) for name, _ in _SMALL}
        except (ValueError, KeyError, TypeError) as error:
            raise CorruptionError(f"{self.url}/zarr.json is damaged: {error!r}") from error
        if number != FORMAT or not isinstance(rows, int) or rows < 1:
            raise CorruptionError(
                f"{self.url}/zarr.json states format {number!r} and {rows!r} rows; expected format "
                f"{FORMAT} and at least one row."
            )
        return rows, stated

    def _small(
        self, name: str, data: bytes, dtype: np.dtype[Any], crcs: dict[str, int]
    ) -> NDArray[Any]:
        """One of the small arrays: its one chunk as it lies there, else what zarr makes of it."""
        expected = -(-self.rows // CHUNK_ROWS) if name == "crc" else self.rows
        if len(data) == expected * dtype.itemsize and crc32c(data) == crcs[name]:
            return np.frombuffer(data, dtype=dtype)
        values = np.ascontiguousarray(read_with_zarr(self.url, name, None, None), dtype=dtype)
        if values.shape != (expected,) or crc32c(values) != crcs[name]:
            raise CorruptionError(
                f"{self.url}: array {name!r} ({values.shape}) does not match the checksum in the "
                f"group; expected ({expected},)."
            )
        return values


def damaged_rows(url: str, chunk: int) -> str:
    """What to say of a chunk that fails its check."""
    return (
        f"{url}: rows [{chunk * CHUNK_ROWS}, {(chunk + 1) * CHUNK_ROWS}) do not match their "
        "crc32c; run `outspike store fsck` for the recordings to redo."
    )
