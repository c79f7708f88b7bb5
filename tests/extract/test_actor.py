"""The actor writes whole recordings, reports receipts, and turns bad inputs into messages."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from outspike.config import EncoderConfig, ExtractConfig, StoreConfig
from outspike.errors import OutspikeError, StoreError
from outspike.extract import ahead
from outspike.extract.actor import Extractor, Message
from outspike.extract.commit import split_whole
from outspike.extract.plan import WorkItem
from outspike.recording import Recording
from outspike.store.segments import SegmentWriter
from outspike.store.store import FeatureStore
from outspike.urls import stat
from outspike.video.isolate import IsolatedVideo
from outspike.video.write import write_mp4

Film = Callable[..., Recording]


@pytest.fixture
def film(tmp_path: Path) -> Film:
    """Make a short video of noise."""

    def one(name: str, num_frames: int = 20, **facts: object) -> Recording:
        rng = np.random.default_rng(len(name))
        path = tmp_path / f"{name}.mp4"
        frames = rng.integers(0, 256, (num_frames, 48, 64, 3), dtype=np.uint8)
        write_mp4(path, frames, fps=Fraction(25))
        return Recording(dataset="d", video_id=name, url=str(path), **facts)  # type: ignore[arg-type]

    return one


@pytest.fixture
def config(tmp_path: Path) -> ExtractConfig:
    url = str(tmp_path / "store")
    FeatureStore.create(url)
    return ExtractConfig(
        store=StoreConfig(url=url),
        encoders=(EncoderConfig(kind="event-pyramid"), EncoderConfig(kind="frame-pyramid")),
    )


def _messages(config: ExtractConfig, recordings: list[Recording]) -> list[Message]:
    items = [
        WorkItem(recording=r, source=stat(r.url), encoders=(0, 1)).to_json() for r in recordings
    ]
    batches = Extractor(config)({"item": items})
    return [Message.from_json(str(batch["message"][0])) for batch in batches]


def test_every_recording_gets_one_outcome_and_whole_receipts(
    config: ExtractConfig, film: Film
) -> None:
    messages = _messages(config, [film("a"), film("bb", 40)])
    assert sum(message.key is not None for message in messages) == 2
    receipts = [receipt for message in messages for receipt in message.receipts]
    whole, waiting = split_whole(receipts)
    assert (len(whole), waiting) == (4, [])
    store = FeatureStore.open(config.store.url)
    store.commit(whole)
    assert store.extents.num_rows == 4


def test_the_next_video_is_opened_before_the_last_rows_of_this_one_are_made(
    config: ExtractConfig, film: Film, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The decoder does not wait while an encoder works off what it has, and rows are stored."""
    told: list[tuple[str, str]] = []
    end, open_video = SegmentWriter.end, ahead.IsolatedVideo

    def noted_end(writer: SegmentWriter, num_frames: int, fps: Fraction) -> None:
        told.append(("end", writer.spec.name))
        end(writer, num_frames, fps)

    def noted_open(url: str, *, timeout_s: float, memory_mb: int) -> IsolatedVideo:
        told.append(("open", Path(url).stem))
        return open_video(url, timeout_s=timeout_s, memory_mb=memory_mb)

    monkeypatch.setattr(SegmentWriter, "end", noted_end)
    monkeypatch.setattr(ahead, "IsolatedVideo", noted_open)
    messages = _messages(config, [film("a"), film("bb", 40), film("ccc")])
    assert not any(message.failure for message in messages)
    ends = [("end", "event-pyramid"), ("end", "frame-pyramid")]
    assert told == [("open", "bb"), *ends, ("open", "ccc"), *ends, *ends]


def test_a_text_file_named_mp4_becomes_a_failure_and_the_rest_goes_on(
    config: ExtractConfig, film: Film, tmp_path: Path
) -> None:
    path = tmp_path / "notes.mp4"
    path.write_text("not a film")
    bad = Recording(dataset="d", video_id="notes", url=str(path))
    messages = _messages(config, [film("a"), bad, film("bb")])
    failures = [message.failure for message in messages if message.failure is not None]
    assert [(f.video_id, f.stage) for f in failures] == [("notes", "decode")]
    assert "notes" in failures[0].detail
    assert {r.video_id for m in messages for r in m.receipts} == {"a", "bb"}


def test_an_annotation_past_the_end_is_a_failure_that_names_it(
    config: ExtractConfig, film: Film
) -> None:
    messages = _messages(config, [film("a", label=1, intervals=((5, 300),))])
    failures = [message.failure for message in messages if message.failure is not None]
    assert [(f.stage, f.reason) for f in failures] == [("align", "labels")]
    assert "300" in failures[0].detail
    assert all(not message.receipts for message in messages)


def test_a_file_replaced_while_it_is_read_is_no_success(config: ExtractConfig, film: Film) -> None:
    """Features never get the identity of a file they were not made from."""
    recording = film("a")
    item = WorkItem(recording=recording, source=stat(recording.url), encoders=(0, 1)).to_json()
    write_mp4(recording.url, np.zeros((30, 48, 64, 3), np.uint8), fps=Fraction(25))
    (failed, last) = [
        Message.from_json(str(batch["message"][0])) for batch in Extractor(config)({"item": [item]})
    ]
    assert failed.failure is not None
    assert (failed.failure.reason, failed.key) == ("changed", ("d", "a"))
    assert last.receipts == ()


def test_a_store_that_takes_no_more_bytes_ends_the_job_with_its_name(
    config: ExtractConfig, film: Film
) -> None:
    """No receipt is given for what was not written, and the message names store and recording."""
    recording = film("a")
    item = WorkItem(recording=recording, source=stat(recording.url), encoders=(0, 1)).to_json()
    extractor = Extractor(config)
    for group in Path(config.store.url, "features").iterdir():
        shutil.rmtree(group)
        group.write_bytes(b"")  # stands in the way of every segment
    messages = [
        Message.from_json(str(batch["message"][0])) for batch in extractor({"item": [item]})
    ]
    assert all(not message.receipts for message in messages)
    with pytest.raises(StoreError, match=r"store.*d/a.*nothing of it was\s+committed"):
        messages[-1].raise_fault()


def test_what_an_actor_lacks_ends_the_job_with_one_line(
    config: ExtractConfig, film: Film, tmp_path: Path
) -> None:
    """Weights that are not on this node are told as such, not as a worker that died."""
    absent = EncoderConfig(kind="clip", weights=str(tmp_path / "no-weights"))
    extractor = Extractor(dataclasses.replace(config, encoders=(absent,)))
    (message,) = [Message.from_json(str(b["message"][0])) for b in extractor({"item": []})]
    with pytest.raises(OutspikeError, match="no-weights"):
        message.raise_fault()


def test_a_message_survives_its_text_form(config: ExtractConfig, film: Film) -> None:
    for message in _messages(config, [film("a")]):
        text = str(message.to_batch()["message"][0])
        assert json.loads(text)
        assert Message.from_json(text) == message


def test_receipts_of_an_open_attempt_wait(config: ExtractConfig, film: Film) -> None:
    (receipt, *_) = [r for m in _messages(config, [film("a", 40)]) for r in m.receipts]
    half = dataclasses.replace(receipt, snippet_stop=1, row_stop=receipt.row_start + 1)
    assert split_whole([half]) == ([], [half])
