"""Where things lie in a store of format 1: addresses, and bytes inside a shard.

Row ``r`` of an array whose shards hold ``32 n`` rows starts in shard ``r // 32n`` at byte
``(r % 32n) * K * D * itemsize``. The shard file is ``ceil(rows / 32) * 32 * K * D * itemsize``
bytes of data (``rows`` being those in this shard), then ``n`` index entries of 16 bytes and their
crc32c of 4. This holds because arrays are uncompressed, empty chunks are written and ``K`` is never
split.
"""

import json
import secrets
import time
from dataclasses import dataclass
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from outspike import urls

FORMAT = 1
CHUNK_ROWS = 32
#: Longer arrays are cut here (rounded down to whole chunks): writing a shard needs memory for it.
SHARD_BYTES = 64_000_000

CATALOG, RECORDINGS, PINS, FEATURES = "catalog", "recordings", "pins", "features"

_INDEX_ENTRY_BYTES = 16
_INDEX_CRC_BYTES = 4
_EMPTY = np.iinfo(np.uint64).max


def feature_set_url(store_url: str, address: str) -> str:
    """Group of one feature set."""
    return urls.join(store_url, FEATURES, address)


def segment_url(store_url: str, address: str, segment: str) -> str:
    """Group of one segment."""
    return urls.join(store_url, FEATURES, address, segment)


def shard_url(segment: str, shard: int) -> str:
    """Shard file of the ``features`` array of a segment's address."""
    return urls.join(segment, "features", f"c/{shard}/0/0")


def new_id() -> str:
    """A unique id that sorts by the time it was made (UTC, microseconds)."""
    return f"{time.time_ns() // 1000:014x}-{secrets.token_hex(6)}"


def crc32c(data: bytes | NDArray[Any], before: int = 0) -> int:
    """crc32c of the bytes of ``data`` (C order), which follow others whose crc is ``before``."""
    if not isinstance(data, bytes):
        data = np.ascontiguousarray(data).view()
        data.flags.writeable = False  # the library takes read-only buffers, without a copy
    return int(google_crc32c.extend(before, data))


@dataclass(frozen=True, kw_only=True)
class ShardLayout:
    """Byte layout of a ``features`` array ``[rows, K, D]``."""

    rows: int
    num_crops: int
    width: int
    dtype: str
    shard_rows: int

    @classmethod
    def plan(cls, rows: int, num_crops: int, width: int, dtype: str) -> "ShardLayout":
        """The layout a writer chooses: one shard, or several of at most ``SHARD_BYTES``.

        Up to twice that stay in one, lest the last recording of a segment lie in two.
        """
        row_bytes = num_crops * width * np.dtype(dtype).itemsize
        chunks = -(-rows // CHUNK_ROWS)
        if chunks * CHUNK_ROWS * row_bytes > 2 * SHARD_BYTES:
            chunks = max(1, SHARD_BYTES // (row_bytes * CHUNK_ROWS))
        return cls(
            rows=rows,
            num_crops=num_crops,
            width=width,
            dtype=dtype,
            shard_rows=chunks * CHUNK_ROWS,
        )

    @classmethod
    def from_metadata(cls, text: bytes) -> "ShardLayout | None":
        """The layout a ``features/zarr.json`` describes; None where it is not that of format 1.

        Such an array can still be read through zarr.
        """
        try:
            document = json.loads(text)
            rows, num_crops, width = document["shape"]
            layout = cls(
                rows=rows,
                num_crops=num_crops,
                width=width,
                dtype=document["data_type"],
                shard_rows=document["chunk_grid"]["configuration"]["chunk_shape"][0],
            )
        except (ValueError, KeyError, TypeError, IndexError):
            return None
        expected = layout.metadata()
        found = {key: document.get(key) for key in expected}
        return layout if found == expected and layout.shard_rows % CHUNK_ROWS == 0 else None

    def metadata(self) -> dict[str, Any]:
        """The entries of ``zarr.json`` on which the byte layout depends."""
        little = {"name": "bytes", "configuration": {"endian": "little"}}
        inner = [CHUNK_ROWS, self.num_crops, self.width]
        sharding = {
            "chunk_shape": inner,
            "codecs": [little],
            "index_codecs": [little, {"name": "crc32c"}],
            "index_location": "end",
        }
        return {
            "zarr_format": 3,
            "node_type": "array",
            "shape": [self.rows, self.num_crops, self.width],
            "data_type": self.dtype,
            "chunk_grid": {
                "name": "regular",
                "configuration": {"chunk_shape": [self.shard_rows, self.num_crops, self.width]},
            },
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
            "fill_value": 0.0,
            "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
            "storage_transformers": [],
        }

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return self.num_crops * self.width * np.dtype(self.dtype).itemsize

    @property
    def chunk_bytes(self) -> int:
        """Bytes of one chunk; the last one is filled up with zeros."""
        return CHUNK_ROWS * self.row_bytes

    @property
    def num_chunks(self) -> int:
        """Chunks of the whole array."""
        return -(-self.rows // CHUNK_ROWS)

    @property
    def num_shards(self) -> int:
        """Shard files of the whole array."""
        return -(-self.rows // self.shard_rows)

    def rows_in_shard(self, shard: int) -> int:
        """Rows held by one shard."""
        return min(self.shard_rows, self.rows - shard * self.shard_rows)

    def row_offset(self, row: int) -> tuple[int, int]:
        """Shard number of a row and the byte it starts at."""
        shard, within = divmod(row, self.shard_rows)
        return shard, within * self.row_bytes

    def data_bytes(self, shard: int) -> int:
        """Bytes of a shard before its index: whole chunks."""
        return -(-self.rows_in_shard(shard) // CHUNK_ROWS) * self.chunk_bytes

    def index_bytes(self) -> int:
        """Bytes of the index of any shard, its crc included."""
        return self.shard_rows // CHUNK_ROWS * _INDEX_ENTRY_BYTES + _INDEX_CRC_BYTES

    def shard_bytes(self, shard: int) -> int:
        """Length of a shard file."""
        return self.data_bytes(shard) + self.index_bytes()

    def index(self, shard: int) -> bytes:
        """The index of a shard whose chunks follow one another, its crc included."""
        entries = np.full((self.shard_rows // CHUNK_ROWS, 2), _EMPTY, dtype="<u8")
        present = self.data_bytes(shard) // self.chunk_bytes
        entries[:present, 0] = np.arange(present) * self.chunk_bytes
        entries[:present, 1] = self.chunk_bytes
        body = entries.tobytes()
        return body + crc32c(body).to_bytes(_INDEX_CRC_BYTES, "little")

    def is_sequential(self, shard: int, index: bytes) -> bool:
        """Whether an index is intact and lists the chunks one after the other, none left out."""
        if len(index) != self.index_bytes():
            return False
        body, crc = index[:-_INDEX_CRC_BYTES], index[-_INDEX_CRC_BYTES:]
        if crc32c(body) != int.from_bytes(crc, "little"):
            return False
        entries = np.frombuffer(body, dtype="<u8").reshape(-1, 2)
        present = self.data_bytes(shard) // self.chunk_bytes
        offsets = np.arange(present, dtype=np.uint64) * np.uint64(self.chunk_bytes)
        return bool(
            (entries[:present, 0] == offsets).all()
            and (entries[:present, 1] == self.chunk_bytes).all()
            and (entries[present:] == _EMPTY).all()
        )


def size_text(num_bytes: float) -> str:
    """Bytes as people read them: ``512 bytes``, ``40.3 kB``, ``3.1 MB``, ``2.0 TB``."""
    size, units = float(num_bytes), ["kB", "MB", "GB", "TB"]
    if size < 1000:
        return f"{size:.0f} bytes"
    while size >= 1000 and units:
        size, unit = size / 1000, units.pop(0)
    return f"{size:.1f} {unit}"
