"""The byte layout of shards, byte for byte, and reading that relies on it."""

import json
import os
import tempfile

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from outspike.store import layout as layout_module
from outspike.store.arrays import SegmentContent, chunk_crcs, write_segment
from outspike.store.files import RangeFiles
from outspike.store.layout import CHUNK_ROWS, ShardLayout, crc32c, new_id, size_text
from outspike.store.reader import SegmentReader

quick = settings(max_examples=25, deadline=None)

shapes = st.tuples(
    st.integers(1, 200),
    st.integers(1, 3),
    st.integers(1, 5),
    st.sampled_from(["float16", "float32"]),
)


def segment(rows, crops, width, dtype, folder, *, shard_chunks=None, zero=False):
    """A segment of random (or all-zero) rows written where a test can look at it."""
    layout = ShardLayout.plan(rows, crops, width, dtype)
    if shard_chunks:
        layout = ShardLayout(
            rows=rows,
            num_crops=crops,
            width=width,
            dtype=dtype,
            shard_rows=shard_chunks * CHUNK_ROWS,
        )
    features = np.random.default_rng(rows).standard_normal((rows, crops, width)).astype(dtype)
    if zero:
        features[:] = 0
    cut = rows // 3
    blocks = tuple(block for block in (features[:cut], features[cut:]) if len(block))
    start = np.arange(rows, dtype=np.int64) * 16
    content = SegmentContent(layout=layout, blocks=blocks, start=start, stop=start + 16)
    url = os.path.join(folder, new_id())
    write_segment(url, content, chunk_crcs(content))
    return url, layout, features


@quick
@given(shape=shapes, shard_chunks=st.integers(1, 4), zero=st.booleans())
def test_every_row_lies_where_the_rule_says(shape, shard_chunks, zero):
    """Shard files are rebuilt from the rule alone and compared byte for byte, zeros included."""
    with tempfile.TemporaryDirectory() as folder:
        url, layout, features = segment(*shape, folder, shard_chunks=shard_chunks, zero=zero)
        seen = 0
        for shard in range(layout.num_shards):
            path = os.path.join(url, "features", "c", str(shard), "0", "0")
            with open(path, "rb") as file:
                data = file.read()
            rows = min(layout.shard_rows, layout.rows - seen)
            row_bytes = features[0].nbytes
            stored = -(-rows // 32) * 32 * row_bytes
            assert len(data) == stored + 16 * (layout.shard_rows // 32) + 4
            assert len(data) == layout.shard_bytes(shard)
            expected = features[seen : seen + rows].tobytes()
            assert data[:stored] == expected + bytes(stored - len(expected))
            assert layout.is_sequential(shard, data[stored:])
            seen += rows
        assert seen == layout.rows


@quick
@given(shape=shapes, shard_chunks=st.integers(1, 4), data=st.data())
def test_any_row_range_equals_the_array(shape, shard_chunks, data):
    """Reads by byte range give what slicing the array gives, over chunk and shard bounds."""
    with tempfile.TemporaryDirectory() as folder:
        url, layout, features = segment(*shape, folder, shard_chunks=shard_chunks)
        reader = SegmentReader(url, RangeFiles())
        for _ in range(5):
            first = data.draw(st.integers(0, layout.rows - 1))
            last = data.draw(st.integers(first + 1, layout.rows))
            assert np.array_equal(reader.read(first, last), features[first:last])
        assert all(reader.is_direct(shard) for shard in range(layout.num_shards))


def test_large_segments_get_shards_of_bounded_size(monkeypatch):
    """A shard holds whole chunks and stays below the limit, unless one chunk is above it."""
    monkeypatch.setattr(layout_module, "SHARD_BYTES", 10_000)
    layout = ShardLayout.plan(1000, 1, 50, "float16")
    assert layout.shard_rows == 96
    assert layout.num_shards == 11
    assert ShardLayout.plan(10, 1, 50, "float16").shard_rows == 32
    assert ShardLayout.plan(1000, 10, 5000, "float32").shard_rows == 32


def test_metadata_is_what_zarr_writes(tmp_path):
    """The entries the direct reader compares are those zarr itself puts down."""
    url, layout, _ = segment(70, 2, 3, "float16", str(tmp_path))
    with open(os.path.join(url, "features", "zarr.json"), "rb") as file:
        text = file.read()
    assert ShardLayout.from_metadata(text) == layout
    for key, value in (("storage_transformers", [{}]), ("fill_value", 1.0), ("zarr_format", 2)):
        changed = {**json.loads(text), key: value}
        assert ShardLayout.from_metadata(json.dumps(changed).encode()) is None
    for broken in (b"", b"{}", b"[]", b'{"shape": 3}', text[:-5]):
        assert ShardLayout.from_metadata(broken) is None


@pytest.mark.parametrize(
    "settings_of_array",
    [
        {"compressors": "auto", "shards": (96, 2, 3)},
        {"compressors": None, "shards": None},
        {"compressors": None, "shards": (64, 2, 3), "config": {"write_empty_chunks": False}},
    ],
)
def test_other_layouts_are_left_to_zarr_and_still_checked(tmp_path, settings_of_array):
    """Compressed, unsharded or shifted shards are read through zarr, against the same crc."""
    url, _, features = segment(70, 2, 3, "float16", str(tmp_path))
    if "config" in settings_of_array:
        features[:32] = 0
    layout = ShardLayout.plan(70, 2, 3, "float16")
    content = SegmentContent(
        layout=layout,
        blocks=(features,),
        start=np.arange(70, dtype=np.int64),
        stop=np.arange(1, 71, dtype=np.int64),
    )
    url = str(tmp_path / "other")
    write_segment(url, content, chunk_crcs(content))
    group = zarr.open_group(url, mode="a", use_consolidated=False)
    array = group.create_array(
        "features", shape=(70, 2, 3), dtype="float16", chunks=(32, 2, 3), overwrite=True,
        **settings_of_array,
    )  # fmt: skip
    array[:] = features
    reader = SegmentReader(url, RangeFiles())
    assert not reader.is_direct(0)
    assert np.array_equal(reader.read(0, 70), features)
    assert np.array_equal(reader.read(33, 65), features[33:65])


def test_crc32c_is_the_published_one():
    """The check value of CRC-32C (RFC 3720, B.4)."""
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(np.frombuffer(b"123456789", np.uint8)[:]) == 0xE3069283


def test_ids_sort_by_time():
    ids = [new_id() for _ in range(50)]
    assert len(set(ids)) == 50
    assert [name.split("-")[0] for name in ids] == sorted(name.split("-")[0] for name in ids)


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (40_300, "40.3 kB"), (2e9, "2.0 GB"), (5e15, "5000.0 TB")],
)
def test_sizes_are_told_as_people_read_them(num_bytes, text):
    assert size_text(num_bytes) == text
