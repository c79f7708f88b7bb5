"""Bundles: what was saved is what scores, and what does not fit is refused."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from outspike.config import EncoderConfig, MsfConfig, from_json, to_json
from outspike.detectors.build import build as build_detector
from outspike.encoders.catalog import build as build_encoder
from outspike.encoders.event_pyramid import EventPyramid
from outspike.errors import AlignmentError, CheckpointError, ConfigError
from outspike.scoring.bundle import Bundle
from outspike.timebase import SnippetGrid

ENCODER = EncoderConfig(kind="event-pyramid", grid=SnippetGrid(snippet_frames=4, stride=4))


def make_bundle(seed=0, encoder=ENCODER):
    torch.manual_seed(seed)
    spec = build_encoder(encoder).spec()
    detector = build_detector(MsfConfig(feature_set=spec.name, width=spec.width, hidden=8))
    return Bundle.of(
        detector, (encoder,), (spec,), protocol="miniature", provenance={"commit": "abc"}
    )


def test_a_bundle_survives_its_folder(tmp_path):
    """Weights, configs, fingerprints, protocol and provenance come back as they were."""
    bundle = make_bundle()
    bundle.save(tmp_path / "model")
    loaded = Bundle.load(tmp_path / "model")
    assert sorted(p.name for p in (tmp_path / "model").iterdir()) == [
        "bundle.json",
        "weights.safetensors",
    ]
    assert loaded.detector_config == bundle.detector_config
    assert loaded.encoders == bundle.encoders
    assert loaded.feature_sets == bundle.feature_sets
    assert (loaded.protocol, loaded.provenance) == ("miniature", {"commit": "abc"})
    for name, value in loaded.detector.state_dict().items():
        torch.testing.assert_close(value, bundle.weights[name], rtol=0, atol=0)
    assert not loaded.detector.training
    assert loaded.built_encoders[0].spec() == bundle.feature_sets[0]


def test_altered_and_foreign_folders_are_refused(tmp_path):
    """A changed byte, a missing file, another format and no bundle at all each say so."""
    bundle = make_bundle()
    bundle.save(tmp_path)
    weights = tmp_path / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(CheckpointError, match="altered"):
        Bundle.load(tmp_path)
    weights.unlink()
    with pytest.raises(CheckpointError, match="absent"):
        Bundle.load(tmp_path)
    (tmp_path / "bundle.json").write_text(json.dumps({"format": 99}))
    with pytest.raises(CheckpointError, match="format 99"):
        Bundle.load(tmp_path)
    (tmp_path / "bundle.json").write_text("{")
    with pytest.raises(CheckpointError, match="not JSON"):
        Bundle.load(tmp_path)
    with pytest.raises(CheckpointError, match="not a model bundle"):
        Bundle.load(tmp_path / "absent")


def test_weights_of_another_shape_are_listed():
    """Missing, unexpected and misshaped entries are named before anything is scored."""
    bundle = make_bundle()
    names = sorted(bundle.weights)
    state = dict(bundle.weights)
    del state[names[0]]
    state["stranger"] = torch.zeros(1)
    with pytest.raises(CheckpointError, match=f"missing {names[0]}.*unexpected stranger"):
        _ = replace(bundle, weights=state).detector


def test_features_of_another_fingerprint_are_refused(monkeypatch):
    """An encoder that no longer makes what was trained on is named with the difference."""
    bundle = make_bundle()
    plain = EventPyramid.document
    monkeypatch.setattr(EventPyramid, "document", lambda self: plain(self) | {"revision": 99})
    with pytest.raises(ConfigError, match=r"revision: \d+ then, 99 now"):
        _ = replace(bundle).built_encoders


def test_encoders_must_make_what_the_detector_reads():
    """A detector of another width than its features, and undescribed features, are refused."""
    bundle = make_bundle()
    narrow = replace(bundle.detector_config, width=64)
    detector = build_detector(narrow)
    with pytest.raises(ConfigError, match="64 wide"):
        _ = replace(bundle, detector_config=narrow, weights=detector.state_dict()).detector
    with pytest.raises(ConfigError, match="features described"):
        replace(bundle, feature_sets=())


def test_encoders_on_different_grids_are_refused():
    """Rows of different frames cannot be joined; the grids are named."""
    other = EncoderConfig(kind="frame-pyramid", grid=SnippetGrid(snippet_frames=8, stride=8))
    bundle = make_bundle()
    with pytest.raises(AlignmentError, match=r"event-pyramid.*frame-pyramid"):
        replace(
            bundle,
            encoders=(ENCODER, other),
            feature_sets=(*bundle.feature_sets, build_encoder(other).spec()),
        )


def test_stored_configs_are_read_strictly():
    """Every config comes back from its JSON; unknown fields and wrong types are named."""
    config = make_bundle().detector_config
    assert from_json(type(config), to_json(config)) == config
    document = to_json(ENCODER)
    assert from_json(EncoderConfig, document) == ENCODER
    with pytest.raises(ConfigError, match=r"grid\.colour"):
        from_json(EncoderConfig, document | {"grid": document["grid"] | {"colour": 1}})
    with pytest.raises(ConfigError, match="threads"):
        from_json(EncoderConfig, document | {"threads": "many"})
    with pytest.raises(ConfigError, match="stride"):
        from_json(EncoderConfig, document | {"grid": {"snippet_frames": 2, "stride": 5}})


def test_weights_are_copied():
    """Training on after a bundle was made does not change it."""
    spec = build_encoder(ENCODER).spec()
    detector = build_detector(MsfConfig(feature_set=spec.name, width=spec.width, hidden=8))
    bundle = Bundle.of(detector, (ENCODER,), (spec,), protocol="p", provenance={})
    before = {name: value.clone() for name, value in bundle.weights.items()}
    with torch.no_grad():
        for parameter in detector.parameters():
            parameter.add_(1.0)
    assert all(np.array_equal(before[name], bundle.weights[name]) for name in before)
