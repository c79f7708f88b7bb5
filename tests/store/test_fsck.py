"""Damage of every kind is found, told from harmless leftovers, and named by recording."""

import json
import os
import shutil

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from outspike.errors import CorruptionError, StoreError
from outspike.store import cli
from outspike.store.bags import BagReader
from outspike.store.catalog import receipts_table
from outspike.store.delta import open_table
from outspike.store.fsck import fsck
from outspike.store.store import FeatureStore


@pytest.fixture
def filled(store, kit):
    """Three recordings in one segment, a fourth in another."""
    spec = kit.spec()
    videos = [kit.video(f"v{i}", 16 * 50, spec) for i in range(3)]
    store.commit(kit.write(store, spec, videos))
    store.commit(kit.write(store, spec, [kit.video("alone", 16 * 50, spec)]))
    return store


def segment_folder(store, video):
    (spec,) = store.feature_sets().values()
    row = next(row for row in store.extents.to_pylist() if row["video_id"] == video)
    return os.path.join(store.url, "features", spec.address, row["segment"])


def flip(path, offset):
    with open(path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 0x10]))


def redo(store):
    report = fsck(FeatureStore.open(store.url))
    return report, sorted(key[1] for _, key in report.redo)


def test_a_healthy_store_passes(filled):
    report = fsck(filled)
    assert (report.ok, report.exit_code, report.redo, report.orphans) == (True, 0, (), ())
    assert (report.num_segments, report.num_recordings) == (2, 4)
    assert report.num_bytes == 4 * 50 * 24
    text, code = cli.fsck(filled.url)
    assert code == 0
    assert "0 faults" in text


def test_a_flipped_byte_names_the_recordings_of_its_chunk(filled):
    """Rows 32 to 63 belong to v0 and v1; v2 and alone are untouched."""
    flip(os.path.join(segment_folder(filled, "v0"), "features/c/0/0/0"), 40 * 24 + 3)
    report, names = redo(filled)
    assert names == ["v0", "v1"]
    assert [fault.kind for fault in report.faults] == ["crc"]
    text, code = cli.fsck(filled.url)
    assert code == 1
    assert "redo    " in text
    assert "ds/v1" in text
    reader = BagReader(FeatureStore.open(filled.url), ["tiny"])
    with pytest.raises(CorruptionError, match="crc32c"):
        reader.read(("ds", "v0"))
    assert reader.read(("ds", "v2")).num_snippets == 50, "intact recordings still read"


@pytest.mark.parametrize(
    ("name", "offset"),
    [
        ("features/c/0/0/0", -8),
        ("start/c/0", 9),
        ("stop/c/0", 9),
        ("crc/c/0", 2),
        ("zarr.json", 30),
        ("features/zarr.json", 15),
    ],
)
def test_a_flipped_byte_anywhere_in_a_segment_is_found(filled, name, offset):
    """Index, frame ranges, checksums and metadata are covered as well as features."""
    path = os.path.join(segment_folder(filled, "v0"), name)
    flip(path, offset % os.path.getsize(path))
    report, names = redo(filled)
    assert not report.ok
    assert set(names) <= {"v0", "v1", "v2"}
    assert names


@pytest.mark.parametrize("name", ["", "features/c/0/0/0", "start/c/0", "crc/c/0", "zarr.json"])
def test_a_missing_part_is_found(filled, name):
    path = os.path.join(segment_folder(filled, "v0"), name)
    shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)
    report, names = redo(filled)
    assert not report.ok
    assert names == ["v0", "v1", "v2"]
    with pytest.raises(CorruptionError):
        BagReader(FeatureStore.open(filled.url), ["tiny"]).read(("ds", "v0"))


@pytest.mark.parametrize("length", [0, 10, 3000, 3848, 4000])
def test_a_shard_of_another_length_is_found(filled, length):
    """Cut short or grown; a read never returns other rows in place of the missing ones."""
    path = os.path.join(segment_folder(filled, "v0"), "features/c/0/0/0")
    whole = os.path.getsize(path)
    assert length != whole
    os.truncate(path, length)
    report, names = redo(filled)
    assert not report.ok
    assert "v2" in names


def test_a_hole_in_an_attempt_is_found(filled, kit):
    """Rows written by another program's mistake: readers ignore them, fsck names them."""
    spec = kit.spec()
    receipts = kit.write(filled, spec, [kit.video("holed", 16 * 90, spec)], split_bytes=500)
    assert len(receipts) > 2
    table = open_table(filled.url, "catalog")
    write_deltalake(table, receipts_table([receipts[0], *receipts[2:]]), mode="append")
    store = FeatureStore.open(filled.url)
    keys = BagReader(store, ["tiny"]).keys()
    assert ("ds", "holed") not in keys
    assert "holed" not in {video for _, video, _ in store.done(spec.fingerprint)}
    report, names = redo(store)
    assert [fault.kind for fault in report.faults] == ["tiling"]
    assert names == ["holed"]
    assert len(report.orphans) == 1, "the segment that no row names"


def test_rows_that_point_outside_a_segment_or_at_each_other_are_found(filled, kit):
    spec = kit.spec()
    (receipt,) = kit.write(filled, spec, [kit.video("wrong", 16 * 50, spec)])
    rows = receipts_table([receipt])
    for start, attempt in ((10, "a"), (0, "b"), (0, "c")):
        moved = {
            "row_start": start,
            "row_stop": start + 50,
            "attempt": attempt,
            "video_id": attempt,
        }
        changed = rows
        for name, value in moved.items():
            index = rows.schema.get_field_index(name)
            column = pa.array([value], type=rows.schema.field(name).type)
            changed = changed.set_column(index, rows.schema.field(name), column)
        write_deltalake(open_table(filled.url, "catalog"), changed, mode="append")
    report, names = redo(filled)
    assert {fault.kind for fault in report.faults} == {"rows"}
    assert "a" in names
    assert {"b", "c"} & set(names)


def test_a_damaged_description_of_a_feature_set_is_found(filled, kit):
    (spec,) = filled.feature_sets().values()
    path = os.path.join(filled.url, "features", spec.address, "zarr.json")
    with open(path, encoding="utf-8") as file:
        text = file.read()
    with open(path, "w", encoding="utf-8") as file:
        file.write(text.replace('"encoder": "tiny"', '"encoder": "tinY"'))
    report, names = redo(filled)
    assert [fault.kind for fault in report.faults] == ["group"]
    assert names == ["alone", "v0", "v1", "v2"]
    with pytest.raises(CorruptionError, match="altered"):
        FeatureStore.open(filled.url).feature_sets()


def test_damaged_recordings_can_be_forgotten_and_done_again(filled, kit):
    """After that the next extraction finds the gap, and older versions stay as they were."""
    spec = kit.spec()
    before = filled.version
    flip(os.path.join(segment_folder(filled, "v0"), "features/c/0/0/0"), 40 * 24 + 3)
    text, code = cli.fsck(filled.url, forget=True)
    assert code == 1
    assert "2 attempts forgotten" in text
    store = FeatureStore.open(filled.url)
    assert {video for _, video, _ in store.done(spec.fingerprint)} == {"alone", "v2"}
    store.commit(kit.write(store, spec, [kit.video(f"v{i}", 16 * 50, spec) for i in range(2)]))
    assert cli.fsck(filled.url)[1] == 0
    old = FeatureStore.open(filled.url, version=before)
    assert len(old.done(spec.fingerprint)) == 4
    with pytest.raises(StoreError, match="never changes"):
        old.forget(["x"])


def test_orphans_are_listed_and_are_no_fault(filled, kit):
    """A killed job leaves segments that no reader sees."""
    spec = kit.spec()
    kit.write(filled, spec, [kit.video("lost", 40, spec)])
    report = fsck(filled)
    assert report.ok
    assert len(report.orphans) == 1
    text, code = cli.fsck(filled.url)
    assert code == 0
    assert "1 orphan" in text


def test_damage_in_a_superseded_attempt_asks_for_nothing(filled, kit):
    """The fault is told, but readers are served by the newer attempt."""
    folder = segment_folder(filled, "alone")
    spec = kit.spec()
    filled.commit(kit.write(filled, spec, [kit.video("alone", 16 * 50, spec)]))
    flip(os.path.join(folder, "features/c/0/0/0"), 5)
    report, names = redo(filled)
    assert not report.ok
    assert names == []


def test_listing_and_showing(filled, kit):
    """What the command line prints, with no more than the store in hand."""
    (spec,) = filled.feature_sets().values()
    text, code = cli.ls(filled.url)
    assert code == 0
    assert spec.address in text
    assert "4 recordings  200 snippets" in text
    text, code = cli.show(filled.url, "tiny")
    assert code == 0
    assert spec.fingerprint in text
    assert json.loads(text)["recordings"] == {"ds": 4}
    assert json.loads(cli.show(filled.url)[0]) == [json.loads(text)]
    assert cli.fsck(filled.url, "tiny")[1] == 0
    for action in (cli.ls, cli.show, cli.digest, cli.fsck):
        with pytest.raises(StoreError, match="'nothing'"):
            action(filled.url, "nothing")
    text, code = cli.digest(filled.url)
    assert (text, code) == (filled.digest(), 0)
    empty = FeatureStore.create(filled.url + "-empty")
    assert "no feature sets yet" in cli.ls(empty.url)[0]
    assert fsck(empty).ok
