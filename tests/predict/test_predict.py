"""Recordings in, scores out: the bits of evaluation, and a line for each that cannot be scored."""

import csv
import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import boto3
import numpy as np
import pytest

from outspike.config import PredictConfig
from outspike.datasets import load
from outspike.encoders.catalog import build as build_encoder
from outspike.errors import CheckpointError, ConfigError, DatasetError, RegistryError
from outspike.predict import scorer
from outspike.predict.run import PredictResult, describe, predict
from outspike.predict.scorer import Prediction, Scorer
from outspike.recording import Recording
from outspike.scoring.bundle import Bundle
from outspike.scoring.encode import encode_recording
from outspike.scoring.score import score_bags
from outspike.store.bags import BagReader
from outspike.store.store import FeatureStore
from outspike.urls import join, stat, write_bytes


def config_of(
    bundle: Path, source: Path | str, out: Path | str, **changes: object
) -> PredictConfig:
    settings = {"model": str(bundle), "input": str(source), "out": str(out), "overlay": False}
    return PredictConfig(**(settings | changes))


def table_scores(path: Path) -> np.ndarray:
    rows = list(csv.DictReader(path.read_text().splitlines()))
    return np.array([float(row["score"]) for row in rows], dtype=np.float32)


def test_scores_are_those_of_evaluation(
    bundle: Path,
    tmp_path: Path,
    write_video: Callable[..., Path],
    write_event_file: Callable[..., Path],
) -> None:
    """From raw files, predict gives the very bits that evaluation computes from a store."""
    write_video(tmp_path / "in" / "a.mp4", 13, seed=1)
    write_event_file(tmp_path / "in" / "cam" / "b.raw")
    recordings = load("folder", str(tmp_path / "in"), "official").recordings
    loaded = Bundle.load(bundle)
    [encoder] = map(build_encoder, loaded.encoders)
    store = FeatureStore.create(str(tmp_path / "store"))
    store.put_recordings(recordings)
    writer = store.segment_writer(encoder.spec())
    for recording in recordings:
        writer.begin(recording, stat=stat(recording.url))
        facts = encode_recording(
            recording, [encoder], emit=lambda _, rows, start, stop: writer.append(rows, start, stop)
        )
        writer.end(facts.num_frames, facts.fps)
    writer.close()
    store.commit(writer.drain())
    reader = BagReader(store, [encoder.name])
    evaluated = score_bags(loaded.detector, list(map(reader.read, reader.keys())))
    result = predict(config_of(bundle, tmp_path / "in", tmp_path / "out"))
    assert [p.video_id for p in result.predictions] == ["a", "cam/b"]
    for video in evaluated:
        predicted = table_scores(tmp_path / "out" / f"{video.video_id}.csv")
        assert predicted.tobytes() == video.scores.tobytes()


@pytest.fixture
def bad_folder(tmp_path: Path, write_video: Callable[..., Path]) -> Path:
    """A good video among everything that is none."""
    folder = tmp_path / "in"
    good = write_video(folder / "good.mp4", 30)
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("this is not a video\n" * 50)
    (folder / "noise.raw").write_bytes(np.random.default_rng(0).bytes(256))
    data = good.read_bytes()
    (folder / "truncated.mp4").write_bytes(data[: len(data) * 2 // 3])
    _write_audio(folder / "audio.mp4")
    (folder / "labels.csv").write_text(
        "video_id,label,intervals\ngood,,\nlabelled,1,20:90\n", encoding="utf-8"
    )
    shutil.copy(good, folder / "labelled.mp4")
    return folder


def _write_audio(path: Path) -> None:
    import av

    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame(format="fltp", layout="mono", samples=1024)
        frame.sample_rate = 16000
        for plane in frame.planes:
            plane.update(bytes(plane.buffer_size))
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def test_bad_inputs_are_told_and_the_rest_goes_on(
    bundle: Path, bad_folder: Path, tmp_path: Path
) -> None:
    """Each file that cannot be scored gets one line with its name and cause; good ones are done."""
    result = predict(config_of(bundle, bad_folder, tmp_path / "out"))
    by_id = {p.video_id: p for p in result.predictions}
    assert by_id["good"].reason is None
    reasons = {name: p.reason for name, p in by_id.items() if p.reason is not None}
    assert reasons == {
        "audio": "no_video_stream",
        "empty": "empty",
        "labelled": "annotation",
        "noise": "unknown_format",
        "text": "not_media",
        "truncated": "truncated",
    }
    for name in reasons:
        line = str(by_id[name])
        assert "\n" not in line
        assert line.startswith(f"{name}: not scored, ")
        assert name in by_id[name].detail
    assert result.bad_share == pytest.approx(6 / 7)
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"good.csv", "good.json", "good.png"}
    assert result.table().splitlines()[-2:] == [
        f"1 recordings scored by {bundle}, 6 not",
        f"files in {tmp_path / 'out'}",
    ]


def test_a_file_that_vanished_is_a_reason_too(bundle: Path, tmp_path: Path) -> None:
    """A recording that cannot be read any more does not stop the others."""
    scorer = Scorer(config_of(bundle, tmp_path, tmp_path / "out"), Bundle.load(bundle))
    for modality, name in (("video", "gone.mp4"), ("events", "gone.raw")):
        recording = Recording(
            dataset="folder", video_id="gone", url=str(tmp_path / name), modality=modality
        )
        prediction = scorer.score(recording)
        assert prediction.reason == "unreadable"
        assert name in prediction.detail


def test_one_file_is_enough(bundle: Path, tmp_path: Path, write_video: Callable[..., Path]) -> None:
    """A single recording is scored, overlay and all."""
    video = write_video(tmp_path / "in" / "door.mp4", 6)
    result = predict(config_of(bundle, video, tmp_path / "out", overlay=True, threshold=0.0))
    [prediction] = result.predictions
    assert (prediction.num_frames, prediction.num_intervals) == (6, 1)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "door.csv",
        "door.json",
        "door.mp4",
        "door.png",
    ]


def test_a_long_recording_shows_that_it_moves(
    bundle: Path,
    tmp_path: Path,
    write_video: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Lines while it is read, here without the ten seconds between them."""
    monkeypatch.setattr(scorer, "_TELL_EVERY_S", 0.0)
    video = write_video(tmp_path / "in" / "door.mp4", 6)
    with caplog.at_level(logging.INFO):
        predict(config_of(bundle, video, tmp_path / "out"))
    assert any(text.startswith("door: 0.00 hours read, ") for text in caplog.messages)


def test_s3_in_and_out(
    bundle: Path,
    s3_bucket: str,
    s3_server: str,
    tmp_path: Path,
    write_video: Callable[..., Path],
) -> None:
    """Recordings and the model come from S3, and the files go there, with a bad key told."""
    video = write_video(tmp_path / "v.mp4", 9)
    write_bytes(join(s3_bucket, "in/cam/v.mp4"), video.read_bytes())
    write_bytes(join(s3_bucket, "in/bad.mp4"), b"nothing")
    for file in bundle.iterdir():
        write_bytes(join(s3_bucket, "model", file.name), file.read_bytes())
    config = config_of(bundle, f"{s3_bucket}/in", f"{s3_bucket}/out", overlay=True)
    config = PredictConfig(**{**config.__dict__, "model": f"{s3_bucket}/model"})
    result = predict(config)
    assert [(p.video_id, p.reason) for p in result.predictions] == [
        ("bad", "not_media"),
        ("cam/v", None),
    ]
    client = boto3.client("s3", endpoint_url=s3_server)
    listed = client.list_objects_v2(Bucket=s3_bucket.removeprefix("s3://"), Prefix="out/")
    assert [o["Key"] for o in listed["Contents"]] == [
        f"out/cam/v{suffix}" for suffix in (".csv", ".json", ".mp4", ".png")
    ]
    local = predict(config_of(bundle, video, tmp_path / "out"))
    assert local.predictions[0].highest == result.predictions[1].highest


@pytest.mark.parametrize("inside", ["", "scores", "cam/../scores"])
def test_output_never_lands_among_the_recordings(
    bundle: Path, tmp_path: Path, write_video: Callable[..., Path], inside: str
) -> None:
    """Overlays are called like the recordings, so the input folder is refused as output."""
    video = write_video(tmp_path / "in" / "cam" / "v.mp4", 6)
    before = video.read_bytes()
    with pytest.raises(ConfigError, match="lies among the recordings"):
        predict(config_of(bundle, tmp_path / "in", tmp_path / "in" / inside))
    with pytest.raises(ConfigError, match="lies among the recordings"):
        predict(config_of(bundle, video, video.parent))
    assert video.read_bytes() == before


def test_a_dry_run_only_looks(
    bundle: Path, tmp_path: Path, write_video: Callable[..., Path]
) -> None:
    """It names the model and counts the recordings, and writes nothing."""
    write_video(tmp_path / "in" / "v.mp4", 6)
    rows = dict(describe(config_of(bundle, tmp_path / "in", tmp_path / "out")))
    assert rows["model"] == f"{bundle}, a msf detector"
    assert (rows["videos"], rows["event recordings"]) == (1, 0)
    assert not (tmp_path / "out").exists()


def test_what_is_not_there_is_said(bundle: Path, tmp_path: Path) -> None:
    """No recordings, no model, no bundle: one line each, before anything is scored."""
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="no files there"):
        predict(config_of(bundle, tmp_path / "empty", tmp_path / "out"))
    with pytest.raises(DatasetError, match="no such folder"):
        predict(config_of(bundle, tmp_path / "nowhere", tmp_path / "out"))
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "v.mp4").touch()
    with pytest.raises(CheckpointError, match="not a model bundle"):
        predict(config_of(tmp_path / "in", tmp_path / "in", tmp_path / "out"))
    with pytest.raises(RegistryError, match="cannot be used"):
        predict(
            config_of(
                Path("models:/ped2@champion"),
                tmp_path / "in",
                tmp_path / "out",
                model="models:/ped2@champion",
                tracking_uri="http://127.0.0.1:9",
            )
        )


def test_the_summary_counts() -> None:
    """The share of bad inputs decides the exit code."""
    good = Prediction(video_id="a", seconds=1.0, num_frames=5, highest=0.25, num_intervals=1)
    bad = Prediction(video_id="b", seconds=0.0, reason="empty", detail="b.mp4: empty")
    result = PredictResult(model="m", out="o", predictions=(good, bad))
    assert result.bad_share == 0.5
    assert str(good) == "a: highest score 0.250, 1 interval, 5 frames in 1.0 s"
    assert json.dumps(str(bad)) == '"b: not scored, empty: b.mp4: empty"'
