"""The plan is the manifest minus what the store holds, by fingerprint and by file identity."""

import dataclasses
import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from outspike import cli_extract
from outspike.config import DataConfig, EncoderConfig, ExtractConfig, StoreConfig
from outspike.encoders import build
from outspike.encoders.base import Encoder
from outspike.errors import ConfigError
from outspike.extract.ledger import Failure, Ledger
from outspike.extract.plan import WorkItem, make_plan, select
from outspike.extract.quarantine import standing
from outspike.extract.run import describe
from outspike.recording import Recording
from outspike.store.store import FeatureStore
from outspike.urls import stat

Make = Callable[..., Recording]


@pytest.fixture
def encoder() -> Encoder:
    return build(EncoderConfig(kind="event-pyramid"))


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    return FeatureStore.open_or_create(str(tmp_path / "store"))


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def one(name: str, content: bytes = b"film", **facts: object) -> Recording:
        path = tmp_path / name
        path.write_bytes(content)
        return Recording(dataset="d", video_id=name, url=str(path), **facts)  # type: ignore[arg-type]

    return one


def _extracted(store: FeatureStore, encoder: Encoder, recording: Recording) -> None:
    with store.segment_writer(encoder.spec()) as writer:
        writer.begin(recording, stat=stat(recording.url))
        writer.append(np.zeros((2, 1, encoder.width), np.float32), [0, 16], [16, 20])
        writer.end(num_frames=20, fps=Fraction(25))
        writer.close()
        store.commit(writer.drain())


def _failure(recording: Recording, encoder: Encoder) -> Failure:
    return Failure(
        dataset=recording.dataset,
        video_id=recording.video_id,
        source_etag=stat(recording.url).etag,
        fingerprints=(encoder.spec().fingerprint,),
        stage="decode",
        reason="truncated",
        detail="it ends early",
    )


def test_what_the_store_holds_is_not_planned_again(
    store: FeatureStore, encoder: Encoder, make: Make, tmp_path: Path
) -> None:
    first, second = make("a"), make("b")
    _extracted(store, encoder, first)
    plan = make_plan([first, second], [encoder], store)
    assert [item.recording for item in plan.items] == [second]
    assert plan.num_done == 1


def test_a_replaced_file_is_planned_again(
    store: FeatureStore, encoder: Encoder, make: Make
) -> None:
    recording = make("a")
    _extracted(store, encoder, recording)
    changed = make("a", b"another film")
    plan = make_plan([changed], [encoder], store)
    assert len(plan.items) == 1


def test_only_the_missing_encoder_is_asked_for(
    store: FeatureStore, encoder: Encoder, make: Make
) -> None:
    other = build(EncoderConfig(kind="frame-pyramid"))
    recording = make("a")
    _extracted(store, encoder, recording)
    plan = make_plan([recording], [encoder, other], store)
    assert [item.encoders for item in plan.items] == [(1,)]


def test_a_quarantined_file_is_left_alone_until_asked_for(
    store: FeatureStore, encoder: Encoder, make: Make
) -> None:
    recording, ledger = make("a"), Ledger(store.url)
    ledger.append([_failure(recording, encoder)])
    plan = make_plan([recording], [encoder], store)
    assert (len(plan.items), plan.num_skipped) == (0, 1)
    again = make_plan([recording], [encoder], store, retry_quarantined=True)
    assert len(again.items) == 1


def test_a_file_that_cannot_be_read_becomes_a_ledger_row(
    store: FeatureStore, encoder: Encoder, make: Make, tmp_path: Path
) -> None:
    gone = Recording(dataset="d", video_id="gone", url=str(tmp_path / "gone.mp4"))
    plan = make_plan([make("a"), gone], [encoder], store)
    assert len(plan.items) == 1
    assert [(f.video_id, f.stage, f.reason) for f in plan.unreadable] == [
        ("gone", "probe", "unreadable")
    ]


def test_a_modality_no_encoder_takes_is_refused(store: FeatureStore, make: Make) -> None:
    recording = make("a.raw", modality="events")
    encoder = build(EncoderConfig(kind="frame-pyramid"))
    with pytest.raises(ConfigError, match="none of the encoders"):
        make_plan([recording], [encoder], store)


def test_a_work_item_survives_its_text_form(make: Make) -> None:
    recording = make("a", fps=Fraction(30_000, 1001), intervals=((1, 2),), label=1)
    item = WorkItem(recording=recording, source=stat(recording.url), encoders=(0, 2))
    assert WorkItem.from_json(item.to_json()) == item


def test_the_ledger_counts_the_attempts_at_a_file(
    store: FeatureStore, encoder: Encoder, make: Make
) -> None:
    ledger, recording = Ledger(store.url), make("a")
    for _ in range(3):
        ledger.append([_failure(recording, encoder)])
    assert [row["attempt"] for row in ledger.rows()] == [1, 2, 3]


def test_a_failure_appended_twice_is_one_row(
    store: FeatureStore, encoder: Encoder, make: Make
) -> None:
    """A commit whose outcome was unknown is repeated without harm."""
    ledger, failure = Ledger(store.url), _failure(make("a"), encoder)
    ledger.append([failure])
    ledger.append([failure])
    assert len(ledger.rows()) == 1


def test_a_corrected_annotation_is_planned_again(
    store: FeatureStore, encoder: Encoder, make: Make
) -> None:
    """The file has not changed, but what was wrong is not the file."""
    wrong = make("a", label=1, intervals=((0, 900),))
    failure = dataclasses.replace(
        _failure(wrong, encoder), annotation="0:900", stage="align", reason="labels"
    )
    Ledger(store.url).append([failure])
    assert make_plan([wrong], [encoder], store).num_skipped == 1
    right = dataclasses.replace(wrong, intervals=((0, 9),))
    assert len(make_plan([right], [encoder], store).items) == 1


@pytest.mark.parametrize("reason", ["unreadable", "changed"])
def test_what_says_nothing_about_the_file_is_planned_again(
    store: FeatureStore, encoder: Encoder, make: Make, reason: str
) -> None:
    recording = make("a")
    failure = dataclasses.replace(_failure(recording, encoder), reason=reason)
    Ledger(store.url).append([failure])
    assert len(make_plan([recording], [encoder], store).items) == 1


def test_without_a_store_everything_is_to_do(encoder: Encoder, make: Make) -> None:
    assert len(make_plan([make("a")], [encoder], None).items) == 1


def test_a_dry_run_writes_nothing(make: Make, tmp_path: Path) -> None:
    """Neither a store nor a data set comes into being by asking what would be done."""
    recording, url = make("a.mp4"), tmp_path / "new-store"
    data = DataConfig(dataset="folder", root=str(Path(recording.url).parent))
    config = ExtractConfig(data=data, store=StoreConfig(url=str(url)))
    said = describe(config)
    assert "to_do=1" in said
    assert "a new store" in said
    absent = DataConfig(root=str(tmp_path / "miniature"))
    assert "would generate" in describe(dataclasses.replace(config, data=absent))
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


def test_addresses_are_absolute_where_they_leave_this_process(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An actor on another node, or merely in another folder, finds the same file."""
    make("a")
    monkeypatch.chdir(tmp_path)
    recording = Recording(dataset="d", video_id="a", url="a")
    sent = WorkItem.from_json(
        WorkItem(recording=recording, source=stat("a"), encoders=(0,)).to_json()
    )
    assert sent.recording.url == sent.source.url == str(tmp_path / "a")


def test_only_names_recordings_by_id_or_pattern(make: Make) -> None:
    recordings = [make("Test001"), make("Test002"), make("Train[1]")]
    assert select(recordings, ()) == tuple(recordings)
    assert select(recordings, ["Test*"]) == tuple(recordings[:2])
    assert select(recordings, ["d/Test002", "Train[1]"]) == tuple(recordings[1:])
    with pytest.raises(ConfigError, match=r"Tets.*3 recordings"):
        select(recordings, ["Test001", "Tets*"])


def test_a_shuffled_order_is_that_of_its_seed(encoder: Encoder, make: Make) -> None:
    """The same seed takes the same sample, another takes another."""
    recordings = [make(f"v{i:02}") for i in range(20)]

    def chosen(seed: int | None) -> list[str]:
        plan = make_plan(recordings, [encoder], None, shuffle_seed=seed, limit=5)
        return [item.recording.video_id for item in plan.items]

    assert chosen(None) == [f"v{i:02}" for i in range(5)]
    assert chosen(1) == chosen(1) != chosen(2)


def test_a_retry_takes_what_the_ledger_names_and_nothing_else(
    store: FeatureStore, encoder: Encoder, make: Make
) -> None:
    """Files that were replaced meanwhile, too; what went well since is left alone."""
    failed, repaired, healed = make("failed"), make("repaired"), make("healed")
    Ledger(store.url).append([_failure(r, encoder) for r in (failed, repaired, healed)])
    repaired = make("repaired", b"a whole film")
    _extracted(store, encoder, healed)
    recordings = [failed, repaired, healed, make("never tried")]
    plan = make_plan(recordings, [encoder], store, retry_quarantined=True, only_quarantined=True)
    assert [item.recording for item in plan.items] == [failed, repaired]


def test_the_ledger_lists_failures_that_still_stand(
    store: FeatureStore, encoder: Encoder, make: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line a recording with stage, reason, attempts and detail; made good, it is gone."""
    failed, healed, gone = make("failed"), make("healed"), make("gone")
    ledger = Ledger(store.url)
    ledger.append([_failure(failed, encoder), _failure(healed, encoder)])
    ledger.append([_failure(failed, encoder)])
    unreachable = dataclasses.replace(_failure(gone, encoder), fingerprints=(), reason="unreadable")
    ledger.append([unreachable])
    _extracted(store, encoder, healed)
    assert cli_extract.extract_ledger(store.url) == 0
    first, second, count = capsys.readouterr().out.splitlines()
    assert first.startswith("d/failed  stage=decode  reason=truncated  attempts=2")
    assert first.endswith("it ends early")
    assert second.startswith("d/gone  stage=decode  reason=unreadable")
    assert count == "2 failures"
    cli_extract.extract_ledger(store.url, everything=True, as_json=True)
    assert len(json.loads(capsys.readouterr().out)) == 4
    _extracted(store, encoder, gone)
    assert [row["video_id"] for row in standing(store.url)] == ["failed"]


def test_a_store_that_never_failed_has_an_empty_ledger(tmp_path: Path, store: FeatureStore) -> None:
    assert standing(store.url) == []
    assert standing(str(tmp_path / "absent")) == []
