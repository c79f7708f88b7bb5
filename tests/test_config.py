"""Promises of the configuration: checked on construction, one text and one hash per meaning."""

import dataclasses
import json
from fractions import Fraction
from typing import Any

import pytest

from outspike.config import (
    ComputeConfig,
    EncoderConfig,
    ExtractConfig,
    TrainConfig,
    config_hash,
    to_json,
)
from outspike.errors import ConfigError, DatasetError
from outspike.recording import Recording


def test_the_hash_follows_every_nested_field() -> None:
    base = TrainConfig()
    changed = dataclasses.replace(base, optim=dataclasses.replace(base.optim, lr=1e-5))
    assert config_hash(base) == config_hash(TrainConfig())
    assert config_hash(base) != config_hash(changed)


def test_json_is_plain_values() -> None:
    document = to_json(ExtractConfig())
    assert document["encoders"][0]["grid"] == {"snippet_frames": 16, "stride": 16, "tail": "keep"}


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"bags_per_batch": 16, "num_workers": 9}, "8 bags a half"),
        ({"num_workers": 2, "min_workers": 3}, "min_workers <= num_workers"),
        ({"num_workers": 2, "min_workers": 0}, "1 <= min_workers"),
        ({"bags_per_batch": 8, "compute": ComputeConfig(accumulate=9)}, "at most as many"),
        ({"compute": ComputeConfig(pin_memory=True)}, "gpus_per_worker"),
    ],
)
def test_settings_that_workers_cannot_honour_are_refused(
    settings: dict[str, Any], told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        TrainConfig(**settings)


def test_the_same_encoder_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match="each kind once"):
        ExtractConfig(encoders=(EncoderConfig(), EncoderConfig()))


def test_a_generated_recording_outside_training_is_refused() -> None:
    with pytest.raises(DatasetError, match="training split only"):
        Recording(dataset="d", video_id="v", url="v.mp4", split="test", synthetic=True)


def test_a_normal_recording_with_anomalous_frames_is_refused() -> None:
    with pytest.raises(DatasetError, match="labelled normal"):
        Recording(dataset="d", video_id="v", url="v.mp4", label=0, intervals=((3, 5),))


def test_a_recording_survives_its_json_form() -> None:
    recording = Recording(
        dataset="d",
        video_id="a/b",
        url="s3://x/b.raw",
        modality="events",
        label=1,
        intervals=((3, 5), (9, 10)),
        fps=Fraction(1_000_000, 33_333),
        size=(1280, 720),
    )
    assert Recording.from_document(json.loads(json.dumps(recording.to_document()))) == recording
