"""Promises of the segment writer: when segments close, what is refused, what a failure leaves."""

import os
import shutil

import numpy as np
import pytest

from outspike.errors import AlignmentError, BagError, ConfigError, StoreError
from outspike.store import segments as segments_module
from outspike.store.bags import BagReader
from outspike.store.segments import SegmentWriter
from outspike.store.store import FeatureStore


class Clock:
    """A clock that moves when told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def segments_of(receipts):
    return [receipt.segment for receipt in receipts]


def test_recordings_share_a_segment_until_it_is_full(store, kit):
    """A segment closes at the first recording boundary past max_bytes, never inside one."""
    spec = kit.spec()
    videos = [kit.video(f"v{i}", 16 * 10, spec) for i in range(7)]
    receipts = kit.write(store, spec, videos, max_bytes=int(2.5 * 10 * spec.row_bytes))
    assert len(receipts) == 7
    counts = [segments_of(receipts).count(name) for name in sorted(set(segments_of(receipts)))]
    assert counts == [3, 3, 1]
    assert sorted(set(segments_of(receipts))) == list(dict.fromkeys(segments_of(receipts)))


def test_a_segment_closes_after_its_time(store, kit):
    """The clock counts from the first ended recording; draining closes a segment that is due."""
    clock, spec = Clock(), kit.spec()
    writer = SegmentWriter(store.url, spec, max_seconds=30, clock=clock)
    clock.now = 100.0
    kit.feed(writer, kit.video("a", 40, spec))
    clock.now = 129.0
    kit.feed(writer, kit.video("b", 40, spec))
    assert writer.drain() == []
    clock.now = 130.0
    assert [receipt.video_id for receipt in writer.drain()] == ["a", "b"]
    kit.feed(writer, kit.video("c", 40, spec))
    assert writer.drain() == []
    clock.now = 200.0
    video = kit.video("d", 40, spec)
    writer.begin(video.recording, stat=video.stat)
    writer.append(video.features, *video.ranges())
    assert [receipt.video_id for receipt in writer.drain()] == ["c"], "d is still being read"
    writer.close()
    assert writer.drain() == []


def test_only_a_recording_above_the_limit_is_split(store, kit):
    """What was pending is closed first, so that a small recording never lies in two segments."""
    spec = kit.spec()
    small, large = kit.video("small", 16 * 30, spec), kit.video("large", 16 * 200, spec)
    receipts = kit.write(store, spec, [small, large, small], split_bytes=60 * spec.row_bytes)
    by_video = {"small": [], "large": []}
    for receipt in receipts:
        by_video[receipt.video_id].append(receipt)
    assert len(by_video["small"]) == 2
    assert len(by_video["large"]) == 4
    spans = [(receipt.snippet_start, receipt.snippet_stop) for receipt in by_video["large"]]
    assert spans == [(0, 63), (63, 126), (126, 189), (189, 200)]
    assert len({receipt.attempt for receipt in by_video["large"]}) == 1
    store.commit(receipts)
    bag = BagReader(store, ["tiny"]).read(large.key)
    assert np.array_equal(bag.features["tiny"], large.features.astype("f2").transpose(1, 0, 2))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda rows: rows[:, :1], "2 crops, 6 wide"),
        (lambda rows: rows[:, :, :5], "2 crops, 6 wide"),
        (lambda rows: rows[:, 0], "2 crops, 6 wide"),
        (lambda rows: np.where(np.arange(6) == 2, np.nan, rows), "8 of 48 .*NaN"),
        (lambda rows: np.where(np.arange(6) == 2, -np.inf, rows), "infinite"),
        (lambda rows: rows * 0 + 70_000, "overflow float16"),
    ],
)
def test_rows_that_do_not_fit_are_refused_and_never_stored(store, kit, damage, message):
    """The recording is named and dropped whole; the next one goes through."""
    spec = kit.spec()
    video, good = kit.video("bad", 16 * 4, spec), kit.video("good", 40, spec)
    writer = store.segment_writer(spec)
    start, stop = video.ranges()
    writer.begin(video.recording, stat=video.stat)
    writer.append(video.features, start, stop)
    with pytest.raises(BagError, match=rf"ds/bad.*{message}"):
        writer.append(damage(video.features), start + 64, stop + 64)
    with pytest.raises(StoreError, match="no recording is open"):
        writer.end(128, video.fps)
    kit.feed(writer, good)
    writer.close()
    assert [receipt.video_id for receipt in writer.drain()] == ["good"]


@pytest.mark.parametrize(
    ("start", "stop"),
    [
        ([0, 16], [16, 32]),  # too few
        ([0, 16, 16], [16, 32, 48]),  # does not go forward
        ([0, 16, 32], [16, 16, 48]),  # empty
        ([0, 16, 32], [40, 32, 48]),  # ends before the one that precedes it
        ([0.0, 16.0, 32.0], [16.0, 32.0, 48.0]),  # not integers
    ],
)
def test_frame_ranges_must_go_with_the_rows(store, kit, start, stop):
    spec = kit.spec()
    video = kit.video("v", 48, spec)
    writer = store.segment_writer(spec)
    writer.begin(video.recording, stat=video.stat)
    with pytest.raises(AlignmentError, match="ds/v"):
        writer.append(video.features, start, stop)
    writer.abort()


def test_a_snippet_past_the_end_and_a_recording_without_snippets_are_refused(store, kit):
    spec = kit.spec()
    video = kit.video("v", 48, spec)
    writer = store.segment_writer(spec)
    writer.begin(video.recording, stat=video.stat)
    writer.append(video.features, *video.ranges())
    with pytest.raises(AlignmentError, match=r"ds/v.*48.*47"):
        writer.end(47, video.fps)
    writer.begin(video.recording, stat=video.stat)
    writer.append(video.features[:0], [], [])
    with pytest.raises(BagError, match="ds/v: 5 frames gave no snippets"):
        writer.end(5, video.fps)
    writer.begin(video.recording, stat=video.stat)
    with pytest.raises(StoreError, match=r"ds/w.*ds/v is still open"):
        writer.begin(kit.video("w", 10, spec).recording, stat=video.stat)
    writer.close()
    assert writer.drain() == []
    assert os.listdir(os.path.join(store.url, "features", spec.address)) == ["zarr.json"]


def test_the_caller_may_reuse_its_buffer(store, kit):
    spec = kit.spec(dtype="float32")
    video = kit.video("v", 64, spec)
    start, stop = video.ranges()
    buffer = np.empty((1, 2, 6), np.float32)
    with store.segment_writer(spec) as writer:
        writer.begin(video.recording, stat=video.stat)
        for row in range(4):
            buffer[0] = video.features[row]
            writer.append(buffer, start[row : row + 1], stop[row : row + 1])
        writer.end(64, video.fps)
    store.commit(writer.drain())
    bag = BagReader(store, ["tiny"]).read(video.key)
    assert np.array_equal(bag.features["tiny"], video.features.transpose(1, 0, 2))


def test_a_full_disk_leaves_nothing_committed_and_a_later_try_succeeds(store, kit, monkeypatch):
    """The recordings stay buffered, the catalog stays as it was, and fsck finds no fault."""
    spec = kit.spec()
    writer = SegmentWriter(store.url, spec, max_bytes=1)
    real = segments_module.write_segment

    def full(url, content, crcs):
        real(url, content, crcs)
        shutil.rmtree(os.path.join(url, "features", "c"))
        raise segments_module.UrlError(f"{url}: OSError: [Errno 28] No space left on device")

    monkeypatch.setattr(segments_module, "write_segment", full)
    with pytest.raises(StoreError, match=r"ds/a.*No space left"):
        kit.feed(writer, kit.video("a", 40, spec))
    assert os.listdir(os.path.join(store.url, "features", spec.address)) == ["zarr.json"]
    assert FeatureStore.open(store.url).catalog().num_rows == 0
    monkeypatch.setattr(segments_module, "write_segment", real)
    kit.feed(writer, kit.video("b", 40, spec))
    assert [receipt.video_id for receipt in writer.drain()] == ["a", "b"]


def test_an_address_that_cannot_be_written_says_so(tmp_path, store, kit):
    """A file where a folder should be stands for every denied write."""
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="file"):
        FeatureStore.create(str(tmp_path / "file" / "store"))
    (tmp_path / "store" / "features").write_text("x")
    with pytest.raises(StoreError, match="tiny"):
        store.segment_writer(kit.spec())


def test_bytes_that_change_while_being_written_give_no_receipt(store, kit, monkeypatch):
    """The read-back check stands between the segment and its receipts."""
    spec = kit.spec()
    real = segments_module.write_segment

    def damaged(url, content, crcs):
        real(url, content, crcs)
        path = os.path.join(url, "features", "c", "0", "0", "0")
        with open(path, "r+b") as file:
            file.seek(10)
            file.write(b"\xff")

    monkeypatch.setattr(segments_module, "write_segment", damaged)
    writer = store.segment_writer(spec)
    kit.feed(writer, kit.video("v", 40, spec))
    with pytest.raises(StoreError, match=r"ds/v.*crc32c"):
        writer.close()
    assert writer.drain() == []


def test_one_fingerprint_has_one_shape(store, kit):
    """A second encoder under the same document but another width is refused."""
    spec = kit.spec()
    store.segment_writer(spec)
    other = type(spec)(name="tiny", document=spec.document, num_crops=2, width=7)
    with pytest.raises(StoreError, match=r"2 crops x 6 .* 2 x 7"):
        store.segment_writer(other)


def test_the_fingerprint_follows_the_document_alone(kit):
    spec = kit.spec(a=1, b=[1, 2], c={"x": 0.5, "y": None})
    same = kit.spec(c={"y": None, "x": 0.5}, b=(1, 2), a=1)
    assert same == spec
    assert hash(same) == hash(spec)
    assert same.fingerprint == spec.fingerprint
    assert spec.address == f"tiny-{spec.fingerprint[:12]}"
    assert kit.spec(a=2, b=[1, 2]).fingerprint != spec.fingerprint
    for document in ({"x": float("nan")}, {"x": np.float32(1)}, {"x": object()}):
        with pytest.raises(ConfigError, match="plain JSON"):
            kit.spec(**document)
    for name in ("", "Tiny", "a/b", "-a", "a b"):
        with pytest.raises(ConfigError, match="name"):
            kit.spec(name)
