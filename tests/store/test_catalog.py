"""Promises of the catalog: order does not matter, writers do not lose rows, formats are told."""

import dataclasses
import multiprocessing
import tempfile
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from fractions import Fraction

import numpy as np
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import CommitFailedError
from hypothesis import given, settings
from hypothesis import strategies as st

from outspike.errors import StoreError
from outspike.recording import Recording
from outspike.store import catalog as catalog_module
from outspike.store.bags import BagReader
from outspike.store.catalog import CATALOG_SCHEMA, Extents, Receipt, receipts_table
from outspike.store.delta import FORMAT_KEY, open_table
from outspike.store.store import FeatureStore


def receipt(video, attempt, first, last, total, *, segment="s", fingerprint="f"):
    return Receipt(
        dataset="ds", video_id=video, feature_set=f"x-{fingerprint}", fingerprint=fingerprint,
        attempt=attempt, segment=segment, row_start=0, row_stop=last - first,
        snippet_start=first, snippet_stop=last, num_snippets=total, num_frames=total * 16,
        fps=Fraction(25), source_url="u", source_etag="e", source_size=1,
        extracted_at=datetime(2026, 1, 1, tzinfo=UTC), outspike_version="0",
    )  # fmt: skip


@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_segments_merge_in_any_order_to_the_same_store(kit, data):
    """Any split into segments, writers and commits gives the same arrays and the same digest."""
    spec = kit.spec()
    lengths = data.draw(st.lists(st.integers(1, 1200), min_size=1, max_size=4))
    videos = [kit.video(f"v{i}", length, spec) for i, length in enumerate(lengths)]
    digests, bags = set(), []
    for _ in range(2):
        with tempfile.TemporaryDirectory() as folder:
            store = FeatureStore.create(folder)
            split = data.draw(st.integers(1, 60)) * spec.row_bytes
            size = data.draw(st.integers(1, 60)) * spec.row_bytes
            step = data.draw(st.integers(1, 40))
            order = data.draw(st.permutations(videos))
            receipts = kit.write(store, spec, order, split_bytes=split, max_bytes=size, step=step)
            by_video = [[r for r in receipts if r.video_id == v.key[1]] for v in order]
            for group in data.draw(st.permutations(by_video)):
                store.commit(data.draw(st.permutations(group)))
            digests.add(store.digest())
            reader = BagReader(store, ["tiny"])
            keys = reader.keys()
            bags.append({key: reader.read(key) for key in keys})
    assert len(digests) == 1
    for video in videos:
        expected = video.features.astype(np.float16).transpose(1, 0, 2)
        for found in bags:
            assert np.array_equal(found[video.key].features["tiny"], expected)
            assert np.array_equal(found[video.key].start, video.ranges()[0])


extents = st.builds(
    lambda video, attempt, first, length, total: receipt(
        f"v{video}", f"a{attempt}", first, first + length, total
    ),
    st.integers(0, 1), st.integers(0, 2), st.integers(0, 4), st.integers(1, 4), st.integers(1, 5),
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(receipts=st.lists(extents, max_size=9), seed=st.integers(0, 99))
def test_the_newest_whole_attempt_wins_whatever_else_is_there(receipts, seed):
    """Against the rule written as plain loops, for heaps of whole, half and repeated attempts."""
    unique = [r for i, r in enumerate(receipts) if r not in receipts[:i]]
    expected = {}
    for video, attempt in sorted({(r.video_id, r.attempt) for r in receipts}):
        mine = sorted(
            (r for r in unique if (r.video_id, r.attempt) == (video, attempt)),
            key=lambda r: (r.snippet_start, r.snippet_stop),
        )
        covered = [i for r in mine for i in range(r.snippet_start, r.snippet_stop)]
        totals = {r.num_snippets for r in mine}
        if len(totals) == 1 and covered == list(range(*totals)):
            expected[video] = mine
    order = np.random.default_rng(seed).permutation(len(receipts))
    table = receipts_table([receipts[i] for i in order])
    found = Extents(table).current().to_pylist()
    assert found == receipts_table([r for mine in expected.values() for r in mine]).to_pylist()


def test_rows_committed_twice_count_once(store, kit):
    """Two drivers that hold the same receipt and commit at the same moment do no harm."""
    spec = kit.spec()
    receipts = kit.write(store, spec, [kit.video("v", 16 * 90, spec)], split_bytes=500)
    for _ in range(2):
        write_deltalake(open_table(store.url, "catalog"), receipts_table(receipts), mode="append")
    assert BagReader(FeatureStore.open(store.url), ["tiny"]).read(("ds", "v")).num_snippets == 90


def _commit_some(url, receipts, barrier):
    barrier.wait()
    store = FeatureStore.open(url)
    for each in receipts:
        store.commit([each])


def test_commits_from_many_processes_lose_no_row(store, kit):
    """Two processes start at once; every attempt is there once."""
    spec = kit.spec()
    receipts = kit.write(store, spec, [kit.video(f"v{i}", 32, spec) for i in range(12)])
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(2)
    workers = [
        context.Process(target=_commit_some, args=(store.url, receipts[i::2], barrier))
        for i in range(2)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    found = FeatureStore.open(store.url)
    assert sorted(found.catalog()["attempt"].to_pylist()) == sorted(r.attempt for r in receipts)


def test_a_store_may_be_made_by_several_at_once(tmp_path):
    """Whoever is first makes it, the others open it."""
    url = str(tmp_path / "store")
    with ThreadPoolExecutor(6) as pool:
        stores = list(pool.map(lambda _: FeatureStore.open_or_create(url), range(6)))
    assert {store.version for store in stores} == {0}
    assert FeatureStore.open(url).catalog().num_rows == 0


def test_labels_put_from_many_threads_lose_no_row(store):
    """Concurrent upserts conflict and are tried again."""

    def put(number):
        mine = FeatureStore.open(store.url)
        mine.put_recordings([Recording(dataset="d", video_id=str(number), url="u")])
        mine.put_recordings([Recording(dataset="d", video_id="shared", url=f"u{number}")])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(put, range(4)))
    keys = FeatureStore.open(store.url).recordings()["video_id"].to_pylist()
    assert sorted(keys) == ["0", "1", "2", "3", "shared"]


def test_a_conflict_is_tried_again_and_an_unknown_outcome_is_looked_up(store, kit, monkeypatch):
    """A commit that failed after it took effect is not made twice."""
    spec = kit.spec()
    receipts = kit.write(store, spec, [kit.video("v", 32, spec)])
    real, calls = catalog_module.write_deltalake, []

    def flaky(table, data, mode):
        calls.append(len(calls))
        if len(calls) == 1:
            raise CommitFailedError("another writer was first")
        real(table, data, mode=mode)
        raise OSError("the answer was lost")

    monkeypatch.setattr(catalog_module, "write_deltalake", flaky)
    version = store.commit(receipts)
    assert len(calls) == 2
    assert version == 1
    assert FeatureStore.open(store.url).catalog().num_rows == 1


def test_retries_end(store, kit, monkeypatch):
    """A table that never takes the change is an error that says so."""
    spec = kit.spec()
    receipts = kit.write(store, spec, [kit.video("v", 32, spec)])

    def never(table, data, mode):
        raise CommitFailedError("no")

    monkeypatch.setattr(catalog_module, "write_deltalake", never)
    monkeypatch.setattr("outspike.store.delta._FIRST_WAIT_S", 0.0)
    with pytest.raises(StoreError, match="not taken in 8 tries"):
        store.commit(receipts)


def test_a_store_of_another_format_is_refused(tmp_path):
    """The message tells the format found and the one expected."""
    url = str(tmp_path / "store")
    for name, configuration in (("catalog", {FORMAT_KEY: "2"}), ("recordings", {})):
        DeltaTable.create(
            f"{url}/{name}", schema=CATALOG_SCHEMA, configuration=configuration,
            raise_if_key_not_exists=False,
        )  # fmt: skip
    with pytest.raises(StoreError, match="format 2, expected 1"):
        FeatureStore.open(url)
    with pytest.raises(StoreError, match="not made by outspike"):
        open_table(url, "recordings")


def test_the_log_is_never_cleaned_up(store):
    for name in ("catalog", "recordings", "pins"):
        configuration = DeltaTable(f"{store.url}/{name}").metadata().configuration
        assert configuration["delta.enableExpiredLogCleanup"] == "false"


def test_a_receipt_is_a_catalog_row(store, kit):
    """Field for field in the order of the columns, so that nothing is lost on the way."""
    names = [field.name for field in dataclasses.fields(Receipt)]
    assert names == CATALOG_SCHEMA.names
    spec = kit.spec()
    receipts = kit.write(store, spec, [kit.video("v", 40, spec)])
    store.commit(receipts)
    (row,) = store.catalog().to_pylist()
    assert row == receipts_table(receipts).to_pylist()[0]
    assert (row["fps"], row["source_etag"], row["source_size"]) == ("30000/1001", "etag-1", 1040)
    assert pa.table(DeltaTable(f"{store.url}/catalog").scan()).num_columns == len(names)
