"""Promises of a feature store on a local disk: writing, committing, versions, reading."""

import pickle
from fractions import Fraction

import numpy as np
import pytest

from outspike.errors import AlignmentError, BagError, StoreError
from outspike.recording import Recording
from outspike.store.bags import BagReader
from outspike.store.store import FeatureStore


def test_what_was_written_is_what_is_read(store, kit):
    """Features, frame ranges and facts come back exactly, one bag a recording."""
    spec = kit.spec()
    videos = [kit.video(f"v{i}", 16 * 40 * i + 5, spec) for i in range(1, 4)]
    store.commit(kit.write(store, spec, videos))
    reader = BagReader(store, ["tiny"])
    assert reader.keys() == [video.key for video in videos]
    for video in videos:
        bag = reader.read(video.key)
        expected = video.features.astype(np.float16).transpose(1, 0, 2)
        assert np.array_equal(bag.features["tiny"], expected)
        assert bag.features["tiny"].flags.writeable
        start, stop = video.ranges()
        assert np.array_equal(bag.start, start)
        assert np.array_equal(bag.stop, stop)
        assert (bag.num_frames, bag.fps) == (video.num_frames, Fraction(30000, 1001))
        assert (bag.num_snippets, bag.key) == (len(start), f"ds/{video.recording.video_id}")


def test_row_ranges_are_parts_of_the_bag(store, kit):
    spec = kit.spec()
    video = kit.video("v", 16 * 100, spec)
    store.commit(kit.write(store, spec, [kit.video("w", 16 * 45, spec), video]))
    reader = BagReader(store, ["tiny"])
    whole = reader.read(video.key)
    part = reader.read(video.key, slice(31, 70))
    assert np.array_equal(part.features["tiny"], whole.features["tiny"][:, 31:70])
    assert np.array_equal(part.start, whole.start[31:70])
    assert part.num_frames == whole.num_frames
    for rows in (slice(5, 5), slice(0, 101), slice(-3, None), slice(0, 10, 2)):
        with pytest.raises(BagError, match="ds/v"):
            reader.read(video.key, rows)


def test_nothing_uncommitted_exists(store, kit):
    """Segments without a commit are invisible, and the store has no feature set yet."""
    spec = kit.spec()
    receipts = kit.write(store, spec, [kit.video("v", 40, spec)])
    assert FeatureStore.open(store.url).feature_sets() == {}
    assert store.done(spec.fingerprint) == set()
    store.commit(receipts)
    assert FeatureStore.open(store.url).feature_sets() == {spec.address: spec}
    assert store.done(spec.fingerprint) == {("ds", "v", "etag-1")}


def test_a_version_pins_its_rows_for_good(store, kit):
    spec = kit.spec()
    first = store.commit(kit.write(store, spec, [kit.video("a", 40, spec)]))
    digest = store.digest()
    store.commit(kit.write(store, spec, [kit.video("b", 40, spec)]))
    assert store.digest() != digest
    old = FeatureStore.open(store.url, version=first)
    assert old.digest() == digest
    assert BagReader(old, ["tiny"]).keys() == [("ds", "a")]
    with pytest.raises(StoreError, match=f"version {first}"):
        old.commit(kit.write(store, spec, [kit.video("c", 40, spec)]))


def test_a_missing_version_is_named_with_the_range_there_is(store, kit):
    spec = kit.spec()
    store.commit(kit.write(store, spec, [kit.video("a", 40, spec)]))
    for version in (7, -1):
        with pytest.raises(StoreError, match=rf"no version {version}; there are versions 0 to 1"):
            FeatureStore.open(store.url, version=version)


def test_opening_nothing_and_creating_twice_are_refused(tmp_path, store):
    with pytest.raises(StoreError, match="no feature store there"):
        FeatureStore.open(str(tmp_path / "nowhere"))
    assert not (tmp_path / "nowhere").exists()
    with pytest.raises(StoreError, match="already"):
        FeatureStore.create(store.url)
    assert FeatureStore.open_or_create(store.url).version == 0
    assert FeatureStore.open_or_create(str(tmp_path / "new")).version == 0


def test_a_newer_attempt_takes_the_place_of_an_older_one(store, kit):
    """Readers see the newest whole attempt; its etag is the one that counts as done."""
    spec = kit.spec()
    old = kit.video("v", 16 * 3, spec, seed=1)
    new = kit.video("v", 16 * 5, spec, seed=2, etag="etag-2")
    receipts_old, receipts_new = kit.write(store, spec, [old]), kit.write(store, spec, [new])
    store.commit(receipts_new)
    store.commit(receipts_old)  # the older attempt arrives later
    bag = BagReader(store, ["tiny"]).read(("ds", "v"))
    assert bag.num_snippets == 5
    assert np.array_equal(bag.features["tiny"][0], new.features.astype(np.float16)[:, 0])
    assert store.done(spec.fingerprint) == {("ds", "v", "etag-2")}


def test_missing_is_what_is_not_done(store, kit):
    """Whatever is asked for, in any order and more than once; also of an empty or pinned store."""
    spec = kit.spec()
    keys = [(dataset, f"v{n}") for dataset in ("ds", "other") for n in (2, 10, 1)]
    asked = [(*key, etag) for key in keys for etag in ("etag-1", "etag-2", "")] * 2
    columns = list(zip(*asked, strict=True))
    assert store.missing(spec.fingerprint, *columns).all()
    store.commit(kit.write(store, spec, [kit.video("v2", 16 * 90, spec)], split_bytes=500))
    version = store.commit(kit.write(store, spec, [kit.video("v10", 40, spec)]))
    store.commit(kit.write(store, spec, [kit.video("v2", 40, spec, etag="etag-2")]))
    for found in (store, FeatureStore.open(store.url, version=version)):
        done = found.done(spec.fingerprint)
        assert len(done) == 2
        assert found.missing(spec.fingerprint, *columns).tolist() == [n not in done for n in asked]
    assert store.missing(kit.spec("other").fingerprint, *columns).all()
    assert not len(store.missing(spec.fingerprint, (), (), ()))


def test_half_an_attempt_is_never_committed(store, kit):
    """A split recording is committed with all its receipts or not at all."""
    spec = kit.spec()
    whole = kit.video("whole", 16, spec)
    receipts = kit.write(store, spec, [kit.video("v", 16 * 90, spec), whole], split_bytes=500)
    mine = [receipt for receipt in receipts if receipt.video_id == "v"]
    assert len(mine) > 2
    with pytest.raises(StoreError, match=r"ds/v: .* do not tile its 90 snippets"):
        store.commit([*mine[1:], *(r for r in receipts if r.video_id == "whole")])
    assert FeatureStore.open(store.url).version == 0, "nothing at all was committed"
    store.commit(receipts)
    assert BagReader(store, ["tiny"]).read(("ds", "v")).num_snippets == 90


def test_committing_twice_changes_nothing(store, kit):
    spec = kit.spec()
    receipts = kit.write(store, spec, [kit.video("v", 40, spec)])
    version = store.commit(receipts)
    assert store.commit(receipts) == version
    assert store.commit([]) == version
    assert store.catalog().num_rows == 1


def test_labels_are_joined_and_can_be_corrected_without_extraction(store, kit):
    """A corrected label changes what readers say, not the catalog."""
    spec = kit.spec()
    video = kit.video("v", 80, spec)
    version = store.commit(kit.write(store, spec, [video]))
    bag = BagReader(store, ["tiny"]).read(video.key)
    assert (bag.label, bag.intervals, bag.split) == (None, None, "predict")
    known = Recording(
        dataset="ds", video_id="v", url="/v.mp4", split="test", label=1, class_name="fight",
        intervals=((10, 20), (60, 80)), group="scene-3",
    )  # fmt: skip
    store.put_recordings([known])
    before = store.recordings_version
    bag = BagReader(store, ["tiny"]).read(video.key)
    assert (bag.label, bag.class_name, bag.split, bag.group) == (1, "fight", "test", "scene-3")
    assert bag.intervals == ((10, 20), (60, 80))
    assert bag.frame_labels().sum() == 30
    store.put_recordings([Recording(dataset="ds", video_id="v", url="/v.mp4", label=0)])
    assert BagReader(store, ["tiny"]).read(video.key).label == 0
    assert store.version == version
    pinned = FeatureStore.open(store.url, version=version, recordings_version=before)
    assert BagReader(pinned, ["tiny"]).read(video.key).label == 1


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"label": 0, "intervals": ()},
        {"label": 1, "intervals": ((0, 5),), "split": "train", "synthetic": True},
        {"modality": "events", "fps": Fraction(1_000_000, 33_333), "size": (346, 260)},
    ],
)
def test_a_recording_survives_the_table(store, fields):
    """Unknown and known-to-be-none stay apart; rationals stay exact."""
    recording = Recording(dataset="ds", video_id="x'y/1", url="s3://b/x", **fields)
    other = Recording(dataset="ds2", video_id="x'y/1", url="s3://b/y")
    store.put_recordings([recording, other])
    assert FeatureStore.open(store.url).recording("ds", "x'y/1") == recording
    with pytest.raises(StoreError, match="ds/unknown"):
        store.recording("ds", "unknown")


def test_putting_the_same_recordings_again_makes_no_version(store):
    recordings = [Recording(dataset="d", video_id=str(i), url="u") for i in range(5)]
    store.put_recordings(recordings)
    version = store.recordings_version
    store.put_recordings(recordings[::-1])
    assert store.recordings_version == version
    with pytest.raises(StoreError, match="d/3"):
        store.put_recordings([*recordings, recordings[3]])


def test_feature_sets_are_found_by_name_and_prefix(store, kit):
    one, two = kit.spec(stride=16), kit.spec(stride=8)
    other = kit.spec("other")
    for spec in (one, two, other):
        store.commit(kit.write(store, spec, [kit.video("v", 40, spec)]))
    assert store.resolve("other") == other
    assert store.resolve(other.fingerprint[:8]) == other
    assert store.resolve(one.address) == one
    assert store.resolve(one.address[:-3]) == one
    with pytest.raises(
        StoreError, match=f"{one.address}.*{two.address}|{two.address}.*{one.address}"
    ):
        store.resolve("tiny")
    with pytest.raises(StoreError, match=f"'nothing'.*{other.address}"):
        store.resolve("nothing")


def test_sets_on_one_grid_are_joined_and_others_refused(store, kit):
    """The join is on identical frame ranges; where grids differ the numbers are told."""
    wide, narrow = kit.spec("wide", width=9), kit.spec("narrow", width=3, num_crops=1)
    videos = [kit.video("a", 100, wide), kit.video("b", 100, wide)]
    store.commit(kit.write(store, wide, videos))
    store.commit(kit.write(store, narrow, [kit.video("a", 100, narrow)]))
    reader = BagReader(store, ["wide", "narrow"])
    assert reader.keys() == [("ds", "a")]
    bag = reader.read(("ds", "a"))
    assert bag.features["wide"].shape == (2, 7, 9)
    assert bag.features["narrow"].shape == (1, 7, 3)
    store.commit(kit.write(store, narrow, [kit.video("b", 16 * 5 + 10, narrow)]))
    with pytest.raises(AlignmentError, match=r"ds/b: wide saw 100 frames .* narrow 90"):
        BagReader(store, ["wide", "narrow"]).read(("ds", "b"))


def test_grids_that_differ_over_the_same_frames_are_refused(store, kit):
    spec, other = kit.spec("one"), kit.spec("other")
    store.commit(kit.write(store, spec, [kit.video("a", 64, spec)]))
    with store.segment_writer(other) as writer:
        video = kit.video("a", 64, other)
        writer.begin(video.recording, stat=video.stat)
        writer.append(np.zeros((2, 2, 6), np.float32), [0, 32], [32, 64])
        writer.end(64, video.fps)
    store.commit(writer.drain())
    with pytest.raises(AlignmentError, match=r"4 snippets, other 2 .* row 0 \(\[0, 16\) and"):
        BagReader(store, ["one", "other"]).read(("ds", "a"))


def test_readers_and_stores_travel_to_other_processes(store, kit):
    """A pickled reader works after use, and carries no open files."""
    spec = kit.spec()
    video = kit.video("v", 40, spec)
    store.commit(kit.write(store, spec, [video]))
    reader = BagReader(store, ["tiny"])
    bag = reader.read(video.key)
    again = pickle.loads(pickle.dumps(reader)).read(video.key)
    assert np.array_equal(again.features["tiny"], bag.features["tiny"])
    assert pickle.loads(pickle.dumps(store)).digest() == store.digest()


def test_pins_hold_versions_until_released(store, kit):
    spec = kit.spec()
    store.commit(kit.write(store, spec, [kit.video("v", 40, spec)]))
    store.pin("run'1")
    store.pin("run'1")
    row = store.pins().to_pylist()
    assert [(r["run_id"], r["catalog_version"]) for r in row] == [("run'1", 1)]
    store.commit(kit.write(store, spec, [kit.video("w", 40, spec)]))
    with pytest.raises(StoreError, match="run'1"):
        store.pin("run'1")
    store.unpin("run'1")
    store.unpin("never pinned")
    assert store.pins().num_rows == 0


def test_the_digest_sees_every_byte_and_nothing_else(store, kit, tmp_path):
    """Order, segments and superseded attempts do not show; a changed bit does."""
    spec = kit.spec()
    videos = [kit.video(f"v{i}", 16 * 10 * i, spec) for i in range(1, 5)]
    store.commit(kit.write(store, spec, videos))
    other = FeatureStore.create(str(tmp_path / "other"))
    for video in reversed(videos):
        other.commit(kit.write(other, spec, [video], split_bytes=200, step=3))
    other.commit(kit.write(other, spec, videos[:2]))
    assert other.digest() == store.digest() == other.digest(["tiny"])
    changed = kit.video("v1", 160, spec)
    changed.features[3, 1, 2] *= np.float32(1.01)
    other.commit(kit.write(other, spec, [changed]))
    assert other.digest() != store.digest()
