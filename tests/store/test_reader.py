"""Promises of the batched reader on a local disk."""

import os
import pickle
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from outspike.errors import BagError, CorruptionError, StoreError
from outspike.store import gather, shards
from outspike.store.bags import BagReader
from outspike.store.store import FeatureStore


def flip(path, offset):
    with open(path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 0x20]))


def shard_paths(store):
    (spec,) = store.feature_sets().values()
    rows = {row["video_id"]: row["segment"] for row in store.extents.to_pylist()}
    return {
        video: os.path.join(store.url, "features", spec.address, segment, "features/c/0/0/0")
        for video, segment in rows.items()
    }


def expected(batch_of, windows):
    """The batch that plain indexing gives, padded by hand."""
    longest = max(high - low for low, high in windows)
    num_crops, width = batch_of[0].features.shape[1:]
    out = np.zeros((len(windows), num_crops, longest, width), np.float16)
    start, stop = np.zeros((2, len(windows), longest), np.int64)
    for number, (video, (low, high)) in enumerate(zip(batch_of, windows, strict=True)):
        rows = video.features.astype(np.float16)[low:high]
        out[number, :, : high - low] = rows.transpose(1, 0, 2)
        first, last = video.ranges()
        start[number, : high - low] = first[low:high]
        stop[number, : high - low] = last[low:high]
    return out, start, stop


@settings(max_examples=12)
@given(data=st.data())
def test_a_batch_is_what_plain_indexing_gives(data, tmp_path_factory, kit):
    """Any lengths, windows, order and repetition, over split recordings and many segments."""
    num_crops = data.draw(st.sampled_from([1, 3]))
    width = data.draw(st.sampled_from([6, 16]))
    spec = kit.spec(num_crops=num_crops, width=width, dtype="float16")
    frames = data.draw(st.lists(st.integers(1, 16 * 150), min_size=1, max_size=6))
    videos = [kit.video(f"v{i}", count, spec) for i, count in enumerate(frames)]
    store = FeatureStore.create(str(tmp_path_factory.mktemp("store")))
    limit = data.draw(st.sampled_from([40, 100, 10_000])) * spec.row_bytes
    store.commit(kit.write(store, spec, videos, split_bytes=limit, max_bytes=2 * limit))
    chosen = data.draw(st.lists(st.sampled_from(videos), min_size=1, max_size=9))
    windows = []
    for video in chosen:
        total = len(video.features)
        low = data.draw(st.integers(0, total - 1))
        windows.append((low, data.draw(st.integers(low + 1, total))))
    reader = BagReader(store, ["tiny"])
    batch = reader.read_bags([video.key for video in chosen], windows)
    features, start, stop = expected(chosen, windows)
    assert np.array_equal(batch.features["tiny"], features)
    assert np.array_equal(batch.start, start)
    assert np.array_equal(batch.stop, stop)
    assert batch.num_snippets.tolist() == [high - low for low, high in windows]
    assert batch.num_frames.tolist() == [video.num_frames for video in chosen]
    whole = reader.read_bags([video.key for video in chosen])
    lengths = [(0, len(video.features)) for video in chosen]
    assert np.array_equal(whole.features["tiny"], expected(chosen, lengths)[0])
    some = [
        np.array(data.draw(st.lists(st.integers(0, len(v.features) - 1), min_size=1, max_size=5)))
        for v in chosen
    ]
    wide = data.draw(st.booleans())
    picked = reader.read_rows([video.key for video in chosen], some, wide=wide)
    assert picked.features["tiny"].dtype == (np.float32 if wide else np.float16)
    for number, rows in enumerate(some):
        mine = whole.features["tiny"][number][:, rows]
        assert np.array_equal(picked.features["tiny"][number, :, : len(rows)], mine)
        assert not picked.features["tiny"][number, :, len(rows) :].any()
        assert np.array_equal(picked.start[number, : len(rows)], whole.start[number, rows])
        assert np.array_equal(picked.stop[number, : len(rows)], whole.stop[number, rows])


@pytest.fixture
def filled(store, kit):
    """Twenty recordings, each in a segment of its own."""
    spec = kit.spec()
    videos = [kit.video(f"v{i:02d}", 16 * (30 + 5 * i), spec) for i in range(20)]
    store.commit(kit.write(store, spec, videos, max_bytes=1))
    store.put_recordings([video.recording for video in videos[:10]])
    return store


def test_the_work_in_python_does_not_grow_with_the_batch(filled):
    """As many calls of Python functions for eighty bags as for five."""
    reader = BagReader(filled, ["tiny"])
    keys = reader.keys()
    reader.read_bags(keys)
    calls = []

    def count(frame, event, argument):
        calls.append(frame.f_code.co_name)

    counts = []
    for size in (5, 80):
        calls.clear()
        sys.setprofile(count)
        try:
            reader.read_bags((keys * 4)[:size])
        finally:
            sys.setprofile(None)
        counts.append(len(calls))
    few, many = counts
    assert few == many, calls


def test_labels_come_with_the_batch(filled, kit):
    spec = kit.spec()
    known = kit.video("v03", 16, spec, label=1, synthetic=True, split="train").recording
    filled.put_recordings([known, kit.video("v04", 16, spec, label=0).recording])
    reader = BagReader(filled, ["tiny"])
    batch = reader.read_bags([("ds", "v04"), ("ds", "v19"), ("ds", "v03")])
    assert batch.labels.tolist() == [0, -1, 1]
    assert batch.synthetic.tolist() == [False, False, True]
    assert batch.keys == (("ds", "v04"), ("ds", "v19"), ("ds", "v03"))
    assert reader.lengths(batch.keys).tolist() == [50, 125, 45]


def test_memory_can_be_used_again(filled):
    """``out`` is filled and handed back, padding included; another shape is refused."""
    reader = BagReader(filled, ["tiny"])
    keys = reader.keys()
    first = reader.read_bags(keys[:3]).features["tiny"]
    kept = first.copy()
    first[:] = 7
    again = reader.read_bags(keys[:3], out={"tiny": first}).features["tiny"]
    assert again is first
    assert np.array_equal(first, kept)
    with pytest.raises(ValueError, match=r"out is .* this batch is"):
        reader.read_bags(keys[:4], out={"tiny": first})


def test_a_view_is_the_stored_bytes_and_read_only(filled, kit):
    reader = BagReader(filled, ["tiny"])
    key = reader.keys()[7]
    view, copy = reader.read(key, slice(3, 60), copy=False), reader.read(key, slice(3, 60))
    assert np.array_equal(view.features["tiny"], copy.features["tiny"])
    assert not view.features["tiny"].flags.writeable
    assert not view.features["tiny"].flags.owndata
    assert copy.features["tiny"].flags.writeable
    assert view.start.tolist() == copy.start.tolist()
    spec = kit.spec()
    split = kit.video("split", 16 * 90, spec)
    filled.commit(kit.write(filled, spec, [split], split_bytes=500))
    bag = BagReader(filled, ["tiny"]).read(split.key, copy=False)
    assert np.array_equal(bag.features["tiny"].transpose(1, 0, 2), split.features.astype("f2"))


def test_bad_windows_and_unknown_recordings_are_named(filled):
    reader = BagReader(filled, ["tiny"])
    keys = reader.keys()[:2]
    for window, message in (
        ([[0, 5], [0, 36]], "ds/v01: rows 0:36 of 35"),
        ([[4, 4], [0, 5]], "ds/v00: rows 4:4"),
        ((-1, 3), "ds/v00: rows -1:3"),
        ([[0.0, 1.0]] * 2, "expected integers"),
        ([[0, 1]] * 3, r"\[2, 2\]"),
    ):
        with pytest.raises(BagError, match=message):
            reader.read_bags(keys, window)
    with pytest.raises(StoreError, match="no features of ds/nobody"):
        reader.read_bags([*keys, ("ds", "nobody")])
    assert reader.read_bags(keys, (2, 9)).num_snippets.tolist() == [7, 7]


@pytest.mark.parametrize("by_instruction", [True, False])
def test_a_flipped_byte_never_comes_through_a_batch(filled, monkeypatch, by_instruction):
    """Found on first reading, with and without the processor's crc instruction."""
    if by_instruction and not gather.CHECKS_CHUNKS:
        pytest.skip("this processor has no crc32c instruction that the reader knows")
    monkeypatch.setattr(gather, "CHECKS_CHUNKS", by_instruction)
    reader = BagReader(filled, ["tiny"])
    keys = reader.keys()
    healthy = reader.read_bags(keys).features["tiny"]
    assert np.array_equal(BagReader(filled, ["tiny"]).read_bags(keys).features["tiny"], healthy)
    flip(shard_paths(filled)["v05"], 40 * 24 + 3)
    fresh = BagReader(filled, ["tiny"])
    with pytest.raises(CorruptionError, match=r"rows \[32, 64\) do not match their crc32c"):
        fresh.read_bags(keys)
    with pytest.raises(CorruptionError, match="crc32c"):
        fresh.read(("ds", "v05"))
    with pytest.raises(CorruptionError, match="crc32c"):
        fresh.read(("ds", "v05"), copy=False)
    others = [key for key in keys if key[1] != "v05"]
    assert len(fresh.read_bags(others).keys) == 19
    assert fresh.read_bags([("ds", "v05")], (0, 32)).num_snippets.tolist() == [32], "intact chunk"


def test_a_truncated_or_missing_shard_never_comes_through_a_batch(filled):
    paths = shard_paths(filled)
    os.truncate(paths["v03"], 200)
    os.unlink(paths["v04"])
    reader = BagReader(filled, ["tiny"])
    for name in ("v03", "v04"):
        with pytest.raises(CorruptionError):
            reader.read_bags([("ds", "v02"), ("ds", name)])
    assert reader.read_bags([("ds", "v02")]).num_snippets.tolist() == [40]


def test_compressed_arrays_are_read_through_zarr(filled):
    """Features rewritten by another program, next to ones that were not."""
    reader = BagReader(filled, ["tiny"])
    keys = reader.keys()
    healthy = reader.read_bags(keys).features["tiny"]
    path = shard_paths(filled)["v08"].removesuffix("/c/0/0/0")
    rows = zarr.open_array(path, mode="r")[:]
    zarr.create_array(path, data=rows, chunks=(50, 1, 6), overwrite=True)
    fresh = BagReader(filled, ["tiny"])
    assert np.array_equal(fresh.read_bags(keys).features["tiny"], healthy)
    assert np.array_equal(
        fresh.read(keys[8], copy=False).features["tiny"], healthy[8, :, : fresh.lengths(keys)[8]]
    )
    rows[3, 0, 0] += 1
    zarr.create_array(path, data=rows, chunks=(50, 1, 6), overwrite=True)
    with pytest.raises(CorruptionError, match="crc32c"):
        BagReader(filled, ["tiny"]).read_bags(keys)


def test_more_segments_than_may_be_open_are_read_by_many_threads(filled, monkeypatch):
    """Segments are closed and opened again; nobody reads from one that was closed meanwhile."""
    monkeypatch.setattr(shards, "_MAX_OPEN", 4)
    monkeypatch.setattr(shards, "_BYTES_A_THREAD", 1000)
    reader = BagReader(filled, ["tiny"])
    keys = reader.keys()
    whole = reader.read_bags(keys)

    def some(seed):
        for number in np.random.default_rng(seed).permutation(20).tolist():
            chosen = [keys[number], keys[(number + 7) % 20]]
            batch = reader.read_bags(chosen)
            length = int(batch.num_snippets[0])
            found, wanted = batch.features["tiny"][0, :, :length], whole.features["tiny"][number]
            assert np.array_equal(found, wanted[:, :length])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(some, range(8)))
    assert len(reader._first._segments._open) <= 4


def test_a_reader_that_was_used_travels(filled):
    reader = BagReader(filled, ["tiny"])
    keys = reader.keys()
    before = reader.read_bags(keys)
    after = pickle.loads(pickle.dumps(reader)).read_bags(keys)
    assert np.array_equal(after.features["tiny"], before.features["tiny"])


def test_a_bag_read_again_is_memory_of_ones_own(filled, monkeypatch):
    """What is kept at hand for the next time is never given away to be changed, does not travel,
    and goes with the segments it lies in.
    """
    reader = BagReader(filled, ["tiny"])
    keys = reader.keys()
    first = reader.read(keys[3])
    kept = first.features["tiny"].copy()
    for _ in range(2):
        again = reader.read(keys[3])
        assert np.array_equal(again.features["tiny"], kept)
        assert again.start.tolist() == list(range(0, 16 * len(again.start), 16))
        again.features["tiny"][:] = 7
        again.start[:] = again.stop[:] = 7
    view = reader.read(keys[3], copy=False)
    assert np.array_equal(view.features["tiny"], kept)
    with pytest.raises(ValueError, match="read-only"):
        view.start[0] = 1
    for key in keys:
        reader.read(key)
    assert reader._ready
    after = pickle.loads(pickle.dumps(reader))
    assert not after._ready
    monkeypatch.setattr(shards, "_MAX_OPEN", 4)
    for key in keys * 2:
        for found in (after.read(key), reader.read(key)):
            assert found.num_snippets == reader.num_snippets(key)
    assert len(after._ready) <= len(after._first._segments._open) + 1 <= 5


def test_held_views_keep_no_file_open_and_outlive_their_segment(filled, monkeypatch):
    """A training run may hold views of more shards than a process may have files open; what was
    mapped stays readable after the reader is gone and the file is removed.
    """
    monkeypatch.setattr(shards, "_MAX_OPEN", 4)
    reader = BagReader(filled, ["tiny"])
    keys = reader.keys()
    before = len(os.listdir("/proc/self/fd"))
    views = [reader.read(key, copy=False).features["tiny"] for key in keys]
    assert len(os.listdir("/proc/self/fd")) <= before
    whole = reader.read_bags(keys).features["tiny"].copy()
    for path in shard_paths(filled).values():
        os.unlink(path)
    del reader
    for number, view in enumerate(views):
        assert np.array_equal(view, whole[number, :, : view.shape[1]])
