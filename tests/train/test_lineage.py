"""A registered model leads back to its source files, and a source file to the models it made."""

import csv
import dataclasses
from pathlib import Path

import pytest

from outspike.config import SelectionConfig
from outspike.errors import RegistryError
from outspike.registry.models import register
from outspike.registry.tracking import start_run
from outspike.scoring.bundle import Bundle
from outspike.store.store import FeatureStore
from outspike.train import job
from outspike.train.lineage import lineage, models_that_saw, write_sources


@pytest.fixture
def config(pyramid_config, request):
    return pyramid_config(steps=2, name=request.node.name[:40])


def test_a_model_leads_to_every_source_file_with_its_etag(
    config, tracking_uri, pyramid_store, tmp_path
):
    """Every training and test recording, the segment its rows lie in, and its etag; later
    extractions into the store change nothing."""
    config = dataclasses.replace(
        config, selection=SelectionConfig(split="holdout", share=0.25, every_steps=1)
    )
    result = job.train(config)
    found = lineage(tracking_uri, result.version)
    store = FeatureStore.open(pyramid_store)
    parts = found.recordings()
    assert len(parts["training"]) + len(parts["held out"]) == 16
    assert len(parts["held out"]) == 4
    assert len(parts["test"]) == 8
    assert not {*parts["training"], *parts["held out"]} & {*parts["test"]}
    rows = [r for r in store.extents.to_pylist() if r["feature_set"].startswith("event-pyramid-")]
    expected = {(f"{r['dataset']}/{r['video_id']}", r["segment"], r["source_etag"]) for r in rows}
    assert {(s.recording, s.segment, s.source_etag) for s in found.sources} == expected
    assert "12 training, 4 held out, 8 test" in found.table()

    table = tmp_path / "lineage.csv"
    write_sources(found, str(table))
    with table.open() as file:
        assert len(list(csv.DictReader(file))) == 24


def test_a_recording_leads_to_the_models_that_saw_it(config, tracking_uri):
    """With the part it had; a recording that is nowhere was seen by none."""
    result = job.train(config)
    found = lineage(tracking_uri, result.version).recordings()
    for part in ("training", "test"):
        saw, _ = models_that_saw(tracking_uri, found[part][0])
        assert (result.version, part) in [(version.address, p) for version, p in saw]
    assert models_that_saw(tracking_uri, "nobody/nothing")[0] == []


def test_a_model_that_does_not_say_is_named(config, tracking_uri, tmp_path):
    """A version registered from elsewhere is refused by itself, and listed beside the others."""
    result = job.train(config, register_model=False)
    bundle = Bundle.load(Path(result.bundle))
    kept = {k: v for k, v in bundle.provenance.items() if k != "config"}
    dataclasses.replace(bundle, provenance=kept).save(tmp_path / "bundle")
    run = start_run(tracking_uri, "elsewhere")
    version = register(run, "elsewhere", tmp_path / "bundle", {})
    with pytest.raises(RegistryError, match="does not say what it was trained on"):
        lineage(tracking_uri, version.address)
    _, untold = models_that_saw(tracking_uri, "any/thing")
    assert [told.address for told, _ in untold] == [version.address]
