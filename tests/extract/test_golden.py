"""The bundled sample, and the check that a store keeps getting the features it was begun with."""

import base64
import dataclasses
import json
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from outspike.config import EncoderConfig, ExtractConfig, StoreConfig
from outspike.encoders import build
from outspike.encoders.base import Encoder
from outspike.errors import CorruptionError, ExtractionError
from outspike.events.columns import Events
from outspike.events.reader import open_events
from outspike.events.write import write_events
from outspike.extract.actor import Extractor, Message
from outspike.extract.golden import check_sample, drift_of, reference_url
from outspike.extract.sample import NUM_FRAMES, SAMPLES, SIZE, encode_sample, sample_modality
from outspike.store.store import FeatureStore
from outspike.video.decode import decode
from outspike.video.write import write_mp4

WIDTH, HEIGHT = SIZE
LIMITS = {"min_cosine": 0.999, "max_abs": 0.05}


def drawn_frames() -> Iterator[NDArray[np.uint8]]:
    """What ``sample.mp4`` shows, in integers: a wall, one square that walks, one that shakes."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    wall = 90 + (x * 7 + y * 13) % 23 + (x // 16 + y // 12) % 2 * 30
    for number in range(NUM_FRAMES):
        picture = np.repeat(wall[..., None], 3, axis=2)
        left = 4 + 2 * number
        picture[40:72, left : left + 24] = (210, 180, 40)
        top = 84 + 6 * (number * number % 3)
        picture[top : top + 16, 110:126] = (30, 60, 200)
        yield picture.astype(np.uint8)


def drawn_events() -> Events:
    """What ``sample.raw`` holds: 4,000 events on a path across the sensor, by integer arithmetic.

    The two times at the ends make it two seconds long.
    """
    number = np.arange(4000, dtype=np.int64)
    t = number * 500
    t[-1] = NUM_FRAMES * 40_000 - 1
    x = (number // 32 + number * number % 17) % WIDTH
    y = (40 + number * 7 % 29 + number // 400) % HEIGHT
    return Events(
        t, x.astype(np.uint16), y.astype(np.uint16), (number * 5 % 3 % 2).astype(np.uint8)
    )


def write_samples(folder: Path) -> None:
    """How the bundled files were made."""
    write_mp4(folder / "sample.mp4", drawn_frames(), fps=Fraction(25), crf=24)
    write_events(folder / "sample.raw", drawn_events(), format="evt3", size=SIZE)


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    return FeatureStore.create(str(tmp_path / "store"))


@pytest.fixture(scope="module")
def encoders() -> list[Encoder]:
    kinds = ("event-pyramid", "frame-pyramid")
    return [build(EncoderConfig(kind=kind)) for kind in kinds]  # type: ignore[arg-type]


def _altered(store: FeatureStore, encoder: Encoder, change: float) -> None:
    """The reference of an encoder, as something else would have made it."""
    url = Path(reference_url(store.url, encoder.spec()))
    document = json.loads(url.read_text())
    (rows,) = encode_sample([encoder], sample_modality(encoder))
    moved = rows + rows.dtype.type(change) * np.abs(rows).max()
    document["features"] = base64.b64encode(moved.tobytes()).decode()
    url.write_text(json.dumps(document))


def test_the_bundled_video_shows_what_was_drawn() -> None:
    (chunk,) = decode(SAMPLES["video"].url)
    drawn = np.stack(list(drawn_frames()))
    assert chunk.frames.shape == drawn.shape
    assert np.abs(chunk.frames.astype(int) - drawn).mean() < 6
    assert Path(SAMPLES["video"].url).stat().st_size < 60_000


def test_the_bundled_events_are_those_that_were_drawn() -> None:
    found = [chunk for chunk in open_events(SAMPLES["events"].url).chunks() if len(chunk)]
    drawn = drawn_events()
    for column in ("t", "x", "y", "p"):
        together = np.concatenate([getattr(chunk, column) for chunk in found])
        np.testing.assert_array_equal(together, getattr(drawn, column))


def test_the_sample_gives_the_same_features_again(encoders: list[Encoder]) -> None:
    for once, again in zip(*[encode_sample(encoders, "video") for _ in range(2)], strict=True):
        assert once.shape[0] == 4, "50 frames are four snippets of 16"
        np.testing.assert_array_equal(once, again)


def test_the_first_check_writes_the_reference_and_the_next_compares(
    store: FeatureStore, encoders: list[Encoder]
) -> None:
    assert check_sample(store.url, encoders, **LIMITS) == [None, None]
    drifts = check_sample(store.url, encoders, **LIMITS)
    assert all(drift is not None and drift.max_abs == 0 for drift in drifts)
    assert all(drift is not None and drift.cosine == pytest.approx(1) for drift in drifts)


def test_an_encoder_of_events_is_tried_on_the_events(store: FeatureStore) -> None:
    encoder = build(EncoderConfig(kind="event-pyramid"))
    encoder.modalities = frozenset({"events"})
    (rows,) = encode_sample([encoder], sample_modality(encoder))
    assert rows.shape[0] == 4
    assert rows.any()


def test_features_that_drift_are_refused_with_how_far_and_since_when(
    store: FeatureStore, encoders: list[Encoder]
) -> None:
    check_sample(store.url, encoders, **LIMITS)
    _altered(store, encoders[1], 0.2)
    with pytest.raises(ExtractionError, match=r"frame-pyramid-.*cosine 0\.\d+.*numpy \d"):
        check_sample(store.url, encoders, **LIMITS)


def test_a_drift_within_the_limits_passes(store: FeatureStore, encoders: list[Encoder]) -> None:
    """Two devices round differently; that is no drift."""
    check_sample(store.url, encoders[:1], **LIMITS)
    _altered(store, encoders[0], 0.0005)
    (drift,) = check_sample(store.url, encoders[:1], **LIMITS)
    assert drift is not None
    assert 0 < drift.max_abs < 0.01


def test_a_damaged_reference_is_named(store: FeatureStore, encoders: list[Encoder]) -> None:
    check_sample(store.url, encoders[:1], **LIMITS)
    url = reference_url(store.url, encoders[0].spec())
    for text in ("", "[]", "{}", '{"sample": 1'):
        Path(url).write_text(text)
        with pytest.raises(CorruptionError, match="references"):
            check_sample(store.url, encoders[:1], **LIMITS)


def test_drift_counts_what_is_not_finite_and_other_shapes() -> None:
    ones = np.ones((2, 1, 4), np.float16)
    assert drift_of(ones, ones).within(0.999, 0.0)
    assert drift_of(ones * 0, ones * 0).within(0.999, 0.0)
    assert not drift_of(ones * 0, ones).within(0.999, 2.0)
    assert not drift_of(ones * np.float16("nan"), ones).within(-2, 10)
    assert not drift_of(ones[:1], ones).within(0, 10)


def test_an_actor_that_drifts_takes_no_recording(
    store: FeatureStore, encoders: list[Encoder]
) -> None:
    """The job ends with that line before anything is decoded; it can be told to go on."""
    config = ExtractConfig(
        store=StoreConfig(url=store.url),
        encoders=(EncoderConfig(kind="event-pyramid"), EncoderConfig(kind="frame-pyramid")),
    )
    check_sample(store.url, encoders, **LIMITS)
    _altered(store, encoders[1], 0.2)
    (message,) = [Message.from_json(str(b["message"][0])) for b in Extractor(config)({"item": []})]
    with pytest.raises(ExtractionError, match="bundled sample"):
        message.raise_fault()
    unchecked = dataclasses.replace(config, check_sample=False)
    (message,) = [
        Message.from_json(str(b["message"][0])) for b in Extractor(unchecked)({"item": []})
    ]
    assert message.fault is None
