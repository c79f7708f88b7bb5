"""Published checkpoints become bundles that read imported features, or are refused in one line."""

import dataclasses
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from outspike.config import IefVadConfig, MsfConfig
from outspike.detectors import build
from outspike.detectors.ief_vad import published as ief_vad
from outspike.detectors.msf import published as msf
from outspike.errors import CheckpointError, ConfigError, StoreError
from outspike.evaluate.stored import score_bundle
from outspike.recording import Recording
from outspike.scoring.bundle import Bundle
from outspike.scoring.import_model import import_model
from outspike.store.fingerprint import FeatureSetSpec
from outspike.store.importing import FeatureFiles, ImportSettings, import_features
from outspike.store.npy_layouts import save_array
from outspike.store.store import FeatureStore

WIDTH = 16
IEF = {"image_width": 8, "event_width": 8, "width": 8, "num_layers": 1, "refinement_steps": 1}
IEF_UNTOLD = ("num_heads=2", "refinement_rate=0.5", "nu=8", "epsilon=1e-8", "noise_model=gaussian")


@pytest.fixture
def msf_file(tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "iter_200.pkl"
    torch.save(msf.export_published(build(MsfConfig(width=WIDTH, hidden=4))), path)
    return str(path)


@pytest.fixture
def ief_file(tmp_path):
    path = tmp_path / "ucf.pth"
    config = IefVadConfig(**IEF, num_heads=2)
    torch.save(ief_vad.NAMES.export(build(config)), path)
    return str(path)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Imported rows of four test recordings."""
    folder = tmp_path_factory.mktemp("store")
    rng = np.random.default_rng(0)
    items = []
    for i in range(4):
        path = f"{folder}/v{i}.npy"
        save_array(path, rng.random((6, WIDTH), dtype=np.float32))
        recording = Recording(
            dataset="folder",
            video_id=f"v{i}",
            url=path,
            split="test",
            label=i % 2,
            intervals=((5, 20),) if i % 2 else (),
        )
        items.append(FeatureFiles(recording=recording, files=(path,)))
    made = FeatureStore.create(f"{folder}/store")
    settings = ImportSettings(name="spikes", origin="made up", layout="rows")
    import_features(made, items, settings)
    return made.url


def test_a_file_alone_is_checked_and_described(msf_file):
    """Nothing is written; the table says what the file holds."""
    rows = dict(import_model("msf", msf_file))
    assert rows["detector"] == "Msf"
    assert rows["parameters"] == sum(
        p.numel() for p in build(MsfConfig(width=WIDTH, hidden=4)).parameters()
    )
    assert "checked only" in rows["bundle"]


def test_a_bundle_of_published_weights_scores_the_imported_features(msf_file, store, tmp_path):
    """It comes back from disk, is bound to versions, and scores every stored test recording."""
    out = tmp_path / "model"
    import_model(
        "msf",
        msf_file,
        settings=["feature_set=spikes", "dropout=0.5"],
        store=store,
        protocol="folder",
        out=str(out),
    )
    bundle = Bundle.load(out)
    assert bundle.detector.config.dropout == 0.5
    assert bundle.provenance["imported_from"] == msf_file
    assert bundle.provenance["catalog_version"] == FeatureStore.open(store).version
    scores = score_bundle(bundle)
    assert [s.video_id for s in scores] == ["v0", "v1", "v2", "v3"]
    expected = msf.export_published(bundle.detector)["classifier.weight"]
    published = torch.load(msf_file, weights_only=True)["classifier.weight"]
    assert torch.equal(expected, published)
    with pytest.raises(ConfigError, match="evaluate it on the store"):
        _ = bundle.built_encoders


def test_what_a_file_does_not_tell_must_be_said(ief_file):
    """Each missing setting is named; the published ones are taken when asked for."""
    with pytest.raises(ConfigError, match="num_heads, refinement_rate, nu, epsilon, noise_model"):
        import_model("ief_vad", ief_file)
    with pytest.raises(ConfigError, match="does not tell nu;"):
        import_model("ief_vad", ief_file, settings=[s for s in IEF_UNTOLD if s != "nu=8"])
    assert dict(import_model("ief_vad", ief_file, settings=IEF_UNTOLD))["reads frame-pyramid"] == (
        "8 wide"
    )
    rows = dict(
        import_model("ief_vad", ief_file, settings=["num_heads=4"], published_settings=True)
    )
    assert rows["parameters"] == sum(
        p.numel() for p in build(IefVadConfig(**IEF, num_heads=4)).parameters()
    )


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


def test_bad_files_and_settings_are_one_clear_error(msf_file, store, tmp_path):
    """Code, extra keys, unknown settings, wrong types, other features."""
    trap = Trap(tmp_path / "sprung")
    (tmp_path / "trap.pkl").write_bytes(pickle.dumps({"classifier.weight": trap}))
    with pytest.raises(CheckpointError, match="never run"):
        import_model("msf", str(tmp_path / "trap.pkl"))
    assert not trap.path.exists()
    state = torch.load(msf_file, weights_only=True) | {"stranger": torch.zeros(1)}
    torch.save(state, tmp_path / "extra.pkl")
    with pytest.raises(CheckpointError, match="unknown: stranger"):
        import_model("msf", str(tmp_path / "extra.pkl"))
    with pytest.raises(ConfigError, match="no setting colour"):
        import_model("msf", msf_file, settings=["colour=red"])
    with pytest.raises(ConfigError, match="dropout"):
        import_model("msf", msf_file, settings=["dropout=high"])
    with pytest.raises(ConfigError, match="FIELD=VALUE"):
        import_model("msf", msf_file, settings=["dropout"])
    with pytest.raises(ConfigError, match="three things"):
        import_model("msf", msf_file, out=str(tmp_path / "m"))
    place = {"store": store, "protocol": "folder", "out": str(tmp_path / "m")}
    with pytest.raises(StoreError, match="no feature set 'event-pyramid'"):
        import_model("msf", msf_file, **place)
    with pytest.raises(ConfigError, match="Set its feature set"):
        import_model("msf", msf_file, settings=["feature_set=spi"], **place)
    assert not (tmp_path / "m").exists()


def test_only_imported_features_go_without_an_encoder(msf_file, store, tmp_path):
    """A bundle whose features were extracted needs the encoder that made them."""
    out = tmp_path / "model"
    place = {"store": store, "protocol": "folder", "out": str(out)}
    import_model("msf", msf_file, settings=["feature_set=spikes"], **place)
    bundle = Bundle.load(out)
    (spec,) = bundle.feature_sets
    extracted = FeatureSetSpec(
        name=spec.name,
        document=spec.document | {"encoder": "spikingformer"},
        num_crops=1,
        width=WIDTH,
        dtype="float32",
    )
    with pytest.raises(ConfigError, match="features described"):
        dataclasses.replace(bundle, feature_sets=(extracted,))
