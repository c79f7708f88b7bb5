"""Whoever has only published features starts at once: three steps, judged, kept."""

import dataclasses
from pathlib import Path

import numpy as np

from outspike.config import DataConfig, MsfConfig, StoreConfig
from outspike.datasets.feature_import import FolderImport, import_folder
from outspike.evaluate.stored import score_bundle
from outspike.scoring.bundle import Bundle
from outspike.store.importing import ImportSettings
from outspike.store.npy_layouts import save_array
from outspike.train import job


def test_msf_trains_on_an_imported_store(config_of, tmp_path):
    """From .npy files to a judged bundle without a video, an encoder or an extraction."""
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for i in range(8):
            folder = "fight" if i % 2 else "normal"
            rows = rng.random((5 + i, 8), dtype=np.float32)
            save_array(f"{tmp_path}/in/{split}/{folder}/v{i}.npy", rows)
    settings = ImportSettings(name="spikes", origin="made up", layout="rows")
    url = str(tmp_path / "store")
    rows, complete = import_folder(url, FolderImport(root=str(tmp_path / "in"), settings=settings))
    assert (complete, dict(rows)["imported"]) == (True, 16)
    config = dataclasses.replace(
        config_of(MsfConfig(feature_set="spikes", width=8, hidden=4)),
        data=DataConfig(dataset="folder"),
        store=StoreConfig(url=url),
        protocol="folder",
        steps=3,
        checkpoint_every=3,
        bags_per_batch=4,
        tracking_uri=f"sqlite:///{tmp_path}/mlflow.db",
    )
    result = job.train(config, register_model=False)
    assert result.step == 3
    assert "test/video_auc" in result.metrics
    bundle = Bundle.load(Path(result.bundle))
    assert [spec.document["origin"] for spec in bundle.feature_sets] == ["made up"]
    assert len(score_bundle(bundle)) == 8
