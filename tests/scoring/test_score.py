"""Scores from raw recordings are those from stored features, bit for bit."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch

from outspike.config import AedConfig, EncoderConfig, IefVadConfig, MsfConfig
from outspike.detectors.build import build as build_detector
from outspike.encoders.catalog import build as build_encoder
from outspike.errors import AlignmentError, BagError
from outspike.recording import Recording
from outspike.scoring.bundle import Bundle
from outspike.scoring.encode import encode_recording
from outspike.scoring.score import score_bags, score_recording, score_url
from outspike.scoring.scores import VideoScores
from outspike.store.bags import BagReader
from outspike.store.store import FeatureStore
from outspike.timebase import SnippetGrid
from outspike.urls import stat
from outspike.video.write import write_mp4

GRID = SnippetGrid(snippet_frames=4, stride=4)
CONFIGS = (
    EncoderConfig(kind="event-pyramid", grid=GRID),
    EncoderConfig(kind="frame-pyramid", grid=GRID),
)


def make_recording(folder, name, num_frames, seed):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (num_frames, 6, 8, 3), dtype=np.uint8)
    path = folder / f"{name}.mp4"
    write_mp4(path, iter(coarse.repeat(8, axis=1).repeat(8, axis=2)), fps=Fraction(25))
    return Recording(
        dataset="test", video_id=name, url=str(path), split="test", label=1, intervals=((2, 5),)
    )


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    return [make_recording(folder, f"v{n}", n, seed=n) for n in (6, 21, 40)]


def make_bundle(kind):
    torch.manual_seed(3)
    specs = tuple(build_encoder(config).spec() for config in CONFIGS)
    events, frames = specs
    if kind == "msf":
        config = MsfConfig(feature_set=events.name, width=events.width, hidden=16)
        used = slice(0, 1)
    else:
        config = IefVadConfig(
            image_set=frames.name,
            event_set=events.name,
            image_width=frames.width,
            event_width=events.width,
            width=32,
            num_heads=4,
            refinement_steps=2,
        )
        used = slice(0, 2)
    detector = build_detector(config)
    return Bundle.of(detector, CONFIGS[used], specs[used], protocol="p", provenance={})


@pytest.fixture(scope="module")
def store(recordings, tmp_path_factory):
    """A feature store filled as extraction fills it."""
    encoders = [build_encoder(config) for config in CONFIGS]
    store = FeatureStore.create(str(tmp_path_factory.mktemp("store") / "s"))
    store.put_recordings(recordings)
    writers = {
        encoder.name: store.segment_writer(encoder.spec(), max_bytes=1 << 20, max_seconds=60)
        for encoder in encoders
    }
    for recording in recordings:
        for writer in writers.values():
            writer.begin(recording, stat=stat(recording.url))
        facts = encode_recording(
            recording,
            encoders,
            emit=lambda name, rows, start, stop: writers[name].append(rows, start, stop),
            isolate=False,
        )
        for writer in writers.values():
            writer.end(num_frames=facts.num_frames, fps=facts.fps)
    for writer in writers.values():
        writer.close()
        store.commit(writer.drain())
    return store


@pytest.mark.parametrize("kind", ["msf", "ief_vad"])
def test_prediction_equals_evaluation_bit_for_bit(recordings, store, kind, tmp_path):
    """Stored features and a fresh decode give the same scores, loaded bundle included."""
    bundle = make_bundle(kind)
    bundle.save(tmp_path)
    loaded = Bundle.load(tmp_path)
    reader = BagReader(store, [spec.name for spec in bundle.feature_sets])
    stored = score_bags(bundle.detector, [reader.read(r_key(r)) for r in recordings])
    for recording, evaluated in zip(recordings, stored, strict=True):
        predicted = score_recording(recording, loaded, isolate=False)
        assert predicted.scores.tobytes() == evaluated.scores.tobytes()
        assert predicted.key == evaluated.key == recording.key
        np.testing.assert_array_equal(predicted.start, evaluated.start)
        np.testing.assert_array_equal(predicted.stop, evaluated.stop)
        assert (predicted.num_frames, predicted.fps) == (evaluated.num_frames, evaluated.fps)
        assert predicted.intervals == evaluated.intervals == ((2, 5),)
        assert len(predicted.frame_scores()) == predicted.num_frames


def r_key(recording):
    return (recording.dataset, recording.video_id)


def test_scores_do_not_depend_on_company_or_threads(recordings, store):
    """A bag scored alone, among others, or on two threads has the same bits."""
    bundle = make_bundle("msf")
    reader = BagReader(store, ["event-pyramid"])
    bags = [reader.read(r_key(r)) for r in recordings]
    together = score_bags(bundle.detector, bags)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        alone = [score_bags(bundle.detector, [bag])[0] for bag in reversed(bags)][::-1]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    for a, b in zip(together, alone, strict=True):
        assert a.scores.tobytes() == b.scores.tobytes()


def test_scoring_leaves_the_training_mode_as_found(recordings, store):
    """A detector in training is scored in evaluation mode and goes on training."""
    detector = make_bundle("msf").detector.train()
    reader = BagReader(store, ["event-pyramid"])
    score_bags(detector, [reader.read(r_key(recordings[0]))])
    assert detector.training


def test_a_file_is_scored_by_its_address(recordings):
    """score_url knows a recording by its path alone."""
    bundle = make_bundle("msf")
    by_url = score_url(recordings[1].url, bundle)
    expected = score_recording(recordings[1], bundle, isolate=False)
    assert by_url.scores.tobytes() == expected.scores.tobytes()


def test_bags_that_do_not_fit_are_named(recordings, store):
    """A bag without the features that the detector reads is a BagError naming it."""
    reader = BagReader(store, ["frame-pyramid"])
    bag = reader.read(r_key(recordings[0]))
    with pytest.raises(BagError, match=r"test/v6.*event-pyramid"):
        score_bags(make_bundle("msf").detector, [bag])


def test_scores_are_checked():
    """Ranges must match scores one to one, and scores are finite."""
    good = VideoScores(
        dataset="d",
        video_id="v",
        scores=np.array([0.5, 0.25], dtype=np.float32),
        start=np.array([0, 4]),
        stop=np.array([4, 6]),
        num_frames=6,
        fps=Fraction(25),
    )
    np.testing.assert_array_equal(good.frame_scores(), [0.5] * 4 + [0.25] * 2)
    with pytest.raises(AlignmentError, match="one value per snippet"):
        replace(good, start=np.array([0]))
    with pytest.raises(AlignmentError, match="not finite"):
        replace(good, scores=np.array([0.5, np.nan], dtype=np.float32))


def test_a_detector_of_frames_is_judged_frame_by_frame(recordings, store):
    """Stored and raw alike: single frames, the mean where snippets overlap, none without score."""
    torch.manual_seed(3)
    spec = build_encoder(CONFIGS[0]).spec()
    config = AedConfig(
        feature_set=spec.name,
        width=spec.width,
        window=2,
        frames_per_snippet=4,
        hidden=4,
        down=8,
        head=8,
    )
    bundle = Bundle.of(build_detector(config), CONFIGS[:1], (spec,), protocol="p", provenance={})
    reader = BagReader(store, [spec.name])
    for recording in recordings:
        bag = reader.read((recording.dataset, recording.video_id))
        stored = score_bags(bundle.detector, [bag])[0]
        assert (stored.stop - stored.start == 1).all()
        assert len(stored.scores) == bag.num_frames
        raw = score_recording(recording, bundle, isolate=False)
        assert np.array_equal(raw.scores, stored.scores)
        assert len(stored.frame_scores()) == bag.num_frames
