"""Promises of gc, compact, lineage and unpin, and of versions while they run."""

import json
import os
import threading
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from outspike.errors import CorruptionError, StoreError
from outspike.store import cli
from outspike.store.bags import BagReader
from outspike.store.compact import compact
from outspike.store.fsck import fsck
from outspike.store.gc import gc
from outspike.store.store import FeatureStore

LATER = datetime.now(UTC) + timedelta(days=10)


def segments_in(store):
    (spec,) = store.feature_sets().values()
    folder = os.path.join(store.url, "features", spec.address)
    return {name for name in os.listdir(folder) if name != "zarr.json"}


@pytest.fixture
def changed(store, kit):
    """Version 1: three recordings. Version 2: one of them anew. An orphan beside them."""
    spec = kit.spec()
    videos = [kit.video(f"v{i}", 16 * 40, spec) for i in range(3)]
    store.commit(kit.write(store, spec, videos, max_bytes=1))
    store.commit(kit.write(store, spec, [kit.video("v0", 16 * 30, spec, seed=5, etag="new")]))
    store.forget([r["attempt"] for r in store.catalog().to_pylist() if r["source_etag"] == "etag-1"
                  and r["video_id"] == "v0"])  # fmt: skip
    kit.write(store, spec, [kit.video("lost", 64, spec)])
    return FeatureStore.open(store.url)


# ------------------------------------------------------------------------------------ gc


def test_gc_removes_what_no_version_names(changed):
    """The superseded segment and the orphan go; every reader of the newest version is served."""
    digest = changed.digest()
    assert len(segments_in(changed)) == 5
    told = gc(changed.url, now=LATER, dry_run=True)
    assert len(told.removed) == 2
    assert len(segments_in(changed)) == 5, "a dry run removes nothing"
    report = gc(changed.url, now=LATER)
    assert report.removed == told.removed
    assert len(segments_in(changed)) == 3
    assert "removed 2 segments" in report.text()
    store = FeatureStore.open(changed.url)
    assert store.digest() == digest
    assert fsck(store).ok
    assert fsck(store).orphans == ()
    assert gc(changed.url, now=LATER).removed == ()


def test_gc_never_removes_what_a_pinned_or_kept_version_names(changed):
    """Until unpinned, a run's version opens on exactly its rows."""
    old = FeatureStore.open(changed.url, version=1)
    digest = old.digest()
    old.pin("run-1")
    assert len(gc(changed.url, now=LATER).removed) == 1, "only the orphan"
    assert FeatureStore.open(changed.url, version=1).digest() == digest
    assert BagReader(FeatureStore.open(changed.url, version=1), ["tiny"]).read(
        ("ds", "v0")
    ).num_snippets == 40  # fmt: skip
    text, code = cli.unpin(changed.url, "run-1")
    assert (code, "version 1" in text) == (0, True)
    assert cli.unpin(changed.url, "run-1")[1] == 1
    assert gc(changed.url, now=LATER, keep_versions=[1]).removed == ()
    assert FeatureStore.open(changed.url, version=1).digest() == digest
    assert len(gc(changed.url, now=LATER).removed) == 1
    with pytest.raises((CorruptionError, StoreError)):
        FeatureStore.open(changed.url, version=1).digest()
    assert FeatureStore.open(changed.url).digest()


def test_versions_that_were_let_go_of_are_no_obstacle(changed, kit):
    """After a gc without grace, versions of the last day cannot be read any more: fsck and a gc
    with the usual grace go on with those that can, and pinned ones stay whole.
    """
    pinned = FeatureStore.open(changed.url, version=1)
    pinned.pin("run")
    digest = pinned.digest()
    compact(changed.url)
    gc(changed.url, grace_s=0.0)
    store = FeatureStore.open(changed.url)
    kit.write(store, kit.spec(), [kit.video("lost", 64, kit.spec())])
    report = fsck(store)
    assert report.ok
    assert len(report.orphans) == 1
    assert gc(changed.url).removed == ()
    assert FeatureStore.open(changed.url, version=1).digest() == digest
    with pytest.raises(StoreError, match=r"version 2: files of it are gone.*gc.*pinned") as caught:
        FeatureStore.open(changed.url, version=2).digest()
    assert len(str(caught.value)) < 400


def test_gc_leaves_what_is_young(changed):
    """Within the grace period a writer may be about to commit, and a reader may hold a version."""
    report = gc(changed.url)
    assert report.removed == ()
    assert len(report.young) == 1
    assert FeatureStore.open(changed.url, version=1).digest()
    assert "within the grace period" in cli.gc(changed.url, grace_s=3600)[0]


def test_gc_leaves_folders_that_are_no_segments(changed):
    (spec,) = changed.feature_sets().values()
    mine = os.path.join(changed.url, "features", spec.address, "notes-of-somebody")
    os.mkdir(mine)
    report = gc(changed.url, now=LATER)
    assert [name for _, name in report.unknown] == ["notes-of-somebody"]
    assert os.path.isdir(mine)


# ------------------------------------------------------------------------------- compact


@pytest.fixture
def scattered(store, kit):
    """Ten recordings in a segment each, one over several segments, one extracted three times."""
    spec = kit.spec()
    videos = [kit.video(f"v{i}", 16 * (20 + 7 * i), spec) for i in range(10)]
    store.put_recordings([video.recording for video in videos])
    store.commit(kit.write(store, spec, videos, max_bytes=1))
    store.commit(kit.write(store, spec, [kit.video("split", 16 * 90, spec)], split_bytes=500))
    for _ in range(2):
        store.commit(kit.write(store, spec, [videos[0]]))
    return store


def test_compact_makes_one_extent_of_every_bag(scattered):
    """Same digest, same work done, one segment; superseded attempts leave the newest version."""
    before, done = scattered.digest(), scattered.done(scattered.resolve("tiny").fingerprint)
    old_rows = scattered.catalog()
    report = compact(scattered.url)
    store = FeatureStore.open(scattered.url)
    assert store.digest() == before
    assert store.done(store.resolve("tiny").fingerprint) == done
    assert store.catalog().num_rows == store.extents.num_rows == 11
    assert len(set(store.extents["segment"].to_pylist())) == 1
    assert store.extents["video_id"].to_pylist() == sorted(store.extents["video_id"].to_pylist())
    assert report.moved == {store.resolve("tiny").address: 11}
    extracted = set(old_rows["extracted_at"].to_pylist())
    assert set(store.catalog()["extracted_at"].to_pylist()) <= extracted
    assert fsck(store).ok
    again = compact(scattered.url)
    assert (again.num_bytes, again.num_dropped) == (0, 0), "nothing is left to do"
    assert store.digest() == before


def test_an_old_version_gives_the_old_rows_after_compact_and_gc(scattered):
    version, digest = scattered.version, scattered.digest()
    old = FeatureStore.open(scattered.url, version=version)
    rows = old.extents
    old.pin("run")
    compact(scattered.url)
    gc(scattered.url, now=LATER)
    again = FeatureStore.open(scattered.url, version=version)
    assert again.extents == rows
    assert again.digest() == digest == FeatureStore.open(scattered.url).digest()
    again.unpin("run")
    gc(scattered.url, now=LATER)
    assert len(segments_in(scattered)) == 1
    assert FeatureStore.open(scattered.url).digest() == digest


def test_compact_is_safe_while_a_reader_and_a_writer_are_active(scattered, kit):
    """The reader sees the same rows throughout; what the writer commits meanwhile is kept, also of
    a recording that is being moved.
    """
    spec = kit.spec()
    reader = BagReader(scattered, ["tiny"])
    keys = reader.keys()
    expected = reader.read_bags(keys).features["tiny"]
    stop, wrong, number = threading.Event(), [], [0]

    def read():
        while not stop.is_set():
            if not np.array_equal(reader.read_bags(keys).features["tiny"], expected):
                wrong.append("rows")

    def write():
        mine = FeatureStore.open(scattered.url)
        while not stop.is_set():
            name = "v3" if number[0] % 2 else f"new{number[0]}"
            video = kit.video(name, 16 * 25, spec, seed=number[0], etag=f"e{number[0]}")
            mine.commit(kit.write(mine, spec, [video]))
            number[0] += 1

    threads = [threading.Thread(target=read), threading.Thread(target=write)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(2):
            compact(scattered.url)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert wrong == []
    store = FeatureStore.open(scattered.url)
    assert fsck(store).ok
    etags = {video: etag for _, video, etag in store.done(spec.fingerprint)}
    last = max((i for i in range(number[0]) if i % 2), default=None)
    assert etags["v3"] == ("etag-1" if last is None else f"e{last}"), "the newest, not the copy"
    assert {f"new{i}" for i in range(0, number[0], 2)} <= set(etags)


def test_a_copy_never_takes_the_place_of_a_newer_extraction(scattered, kit, monkeypatch):
    """Even where the extraction is committed first and the copy is made after it."""
    from outspike.store import compact as module

    spec = kit.spec()
    real = module.append_attempts
    newer = kit.video("v2", 16 * 11, spec, seed=9, etag="newer")
    receipts = kit.write(scattered, spec, [newer])

    def commit_in_between(url, copies):
        FeatureStore.open(url).commit(receipts)
        return real(url, copies)

    monkeypatch.setattr(module, "append_attempts", commit_in_between)
    compact(scattered.url)
    bag = BagReader(FeatureStore.open(scattered.url), ["tiny"]).read(("ds", "v2"))
    assert bag.num_snippets == 11


def test_compact_leaves_damaged_recordings_where_they_are(scattered):
    (spec,) = scattered.feature_sets().values()
    row = next(row for row in scattered.extents.to_pylist() if row["video_id"] == "v4")
    path = os.path.join(scattered.url, "features", spec.address, row["segment"])
    with open(os.path.join(path, "features/c/0/0/0"), "r+b") as file:
        file.write(b"\xff\xff")
    text, code = cli.compact(scattered.url)
    assert code == 1
    assert "damaged, left alone" in text
    assert "ds/v4" in text
    report = fsck(FeatureStore.open(scattered.url))
    assert [key for _, key in report.redo] == [("ds", "v4")]


# ------------------------------------------------------------------------------- lineage


def test_lineage_tells_every_attempt_its_source_and_who_holds_it(scattered):
    scattered.pin("run-7")
    compact(scattered.url)
    text, code = cli.lineage(scattered.url, "ds/v0", version=scattered.version)
    found = json.loads(text)
    assert code == 0
    states = [attempt["state"] for attempt in found["attempts"]]
    assert states == ["current", "superseded", "superseded"]
    assert found["attempts"][0]["source_etag"] == "etag-1"
    assert found["attempts"][0]["source_url"] == "/videos/v0.mp4"
    assert [pin["run_id"] for pin in found["pins"]] == ["run-7"]
    now = json.loads(cli.lineage(scattered.url, "ds/v0")[0])
    assert [attempt["copied"] for attempt in now["attempts"]] == [True]
    (of_set,) = json.loads(cli.lineage(scattered.url, "tiny")[0])["feature_sets"]
    assert of_set["recordings"] == {"ds": 11}
    assert of_set["document"]["encoder"] == "tiny"
    assert json.loads(cli.lineage(scattered.url)[0])["feature_sets"] == [of_set]
    for name in ("ds/nobody", "nothing"):
        with pytest.raises(StoreError, match=name):
            cli.lineage(scattered.url, name)


# ------------------------------------------------------------------------ stale sources


def test_fsck_finds_a_source_that_is_another_file_now(tmp_path, store, kit):
    """Changed: to be done again. Gone: counted, and no fault. The same: nothing."""
    from outspike import urls

    spec = kit.spec()
    videos = []
    for name in ("same", "changed", "gone"):
        path = tmp_path / f"{name}.mp4"
        path.write_bytes(name.encode())
        etag = urls.stat(str(path)).etag
        videos.append(kit.video(name, 16 * 20, spec, url=str(path), etag=etag))
    store.commit(kit.write(store, spec, videos))
    assert cli.fsck(store.url, sources=True)[1] == 0
    (tmp_path / "changed.mp4").write_bytes(b"something else")
    (tmp_path / "gone.mp4").unlink()
    report = fsck(FeatureStore.open(store.url), sources=True)
    assert [fault.kind for fault in report.faults] == ["stale"]
    assert report.redo == ((spec.address, ("ds", "changed")),)
    assert report.sources_gone == (str(tmp_path / "gone.mp4"),)
    text, code = cli.fsck(store.url, sources=True)
    assert code == 1
    assert f"redo    {spec.address} ds/changed" in text
    assert cli.fsck(store.url)[1] == 0, "sources are looked at only when asked for"
