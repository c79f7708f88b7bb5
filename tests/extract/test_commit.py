"""The committer writes whole attempts only, and knows what is still owed."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from outspike.config import EncoderConfig
from outspike.encoders import build
from outspike.extract.commit import Committer
from outspike.extract.ledger import Failure, Ledger
from outspike.extract.plan import WorkItem
from outspike.recording import Recording
from outspike.store.catalog import Receipt
from outspike.store.fingerprint import FeatureSetSpec
from outspike.store.store import FeatureStore
from outspike.urls import stat


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    return FeatureStore.open_or_create(str(tmp_path / "store"))


@pytest.fixture
def specs() -> list[FeatureSetSpec]:
    kinds = ("event-pyramid", "frame-pyramid")
    return [build(EncoderConfig(kind=kind)).spec() for kind in kinds]  # type: ignore[arg-type]


@pytest.fixture
def items(tmp_path: Path) -> list[WorkItem]:
    found = []
    for name in ("a", "b"):
        path = tmp_path / name
        path.write_bytes(b"film")
        recording = Recording(dataset="d", video_id=name, url=str(path))
        found.append(WorkItem(recording=recording, source=stat(str(path)), encoders=(0, 1)))
    return found


def _receipts(store: FeatureStore, spec: FeatureSetSpec, item: WorkItem) -> list[Receipt]:
    with store.segment_writer(spec) as writer:
        writer.begin(item.recording, stat=item.source)
        writer.append(np.ones((1, 1, spec.width), np.float32), [0], [16])
        writer.end(num_frames=16, fps=Fraction(25))
        writer.close()
        return writer.drain()


def _committer(
    store: FeatureStore, specs: list[FeatureSetSpec], items: list[WorkItem]
) -> Committer:
    return Committer(store, [spec.fingerprint for spec in specs], items)


def test_a_recording_is_owed_until_every_feature_set_has_it(
    store: FeatureStore, specs: list[FeatureSetSpec], items: list[WorkItem]
) -> None:
    committer = _committer(store, specs, items)
    committer.add_receipts(_receipts(store, specs[0], items[0]))
    committer.flush()
    assert (committer.unfinished(items), committer.num_new) == (tuple(items), 0)
    committer.add_receipts(_receipts(store, specs[1], items[0]))
    committer.flush()
    assert (committer.unfinished(items), committer.num_new) == ((items[1],), 1)


def test_a_recording_done_twice_counts_once(
    store: FeatureStore, specs: list[FeatureSetSpec], items: list[WorkItem]
) -> None:
    """An actor that was thought lost may report after its successor."""
    committer = _committer(store, specs, items)
    for _ in range(2):
        for spec in specs:
            committer.add_receipts(_receipts(store, spec, items[0]))
        committer.flush()
    assert committer.num_new == 1
    assert store.extents.num_rows == 2


def test_a_failed_recording_is_not_owed(
    store: FeatureStore, specs: list[FeatureSetSpec], items: list[WorkItem]
) -> None:
    committer = _committer(store, specs, items)
    failure = Failure(
        dataset="d",
        video_id="a",
        source_etag=items[0].source.etag,
        fingerprints=tuple(spec.fingerprint for spec in specs),
        stage="decode",
        reason="truncated",
        detail="it ends early",
    )
    committer.add_failures([failure])
    committer.flush()
    assert committer.unfinished(items) == (items[1],)
    assert [row["video_id"] for row in Ledger(store.url).rows()] == ["a"]
