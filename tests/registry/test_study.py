"""``jobs/evaluate.py --study perturbation`` on a bundle and the store that it names."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from outspike import cli
from outspike.config import EncoderConfig, EvaluateConfig, IefVadConfig
from outspike.detectors.build import build
from outspike.errors import ConfigError
from outspike.evaluate.stored import provenance_of
from outspike.recording import Recording
from outspike.registry.study import perturbation_study
from outspike.scoring.bundle import Bundle
from outspike.store.fingerprint import FeatureSetSpec
from outspike.store.store import FeatureStore
from outspike.timebase import SnippetGrid
from outspike.urls import SourceStat

SETS, WIDTH, NUM_FRAMES = ("frame-pyramid", "event-pyramid"), 6, 80


@pytest.fixture
def fusion_bundle(tmp_path: Path) -> Path:
    """A network with fresh weights, and four annotated test recordings in its store."""
    store = FeatureStore.create(str(tmp_path / "store"))
    recordings = [
        Recording(
            dataset="tiny",
            video_id=f"v{number}",
            url=f"/videos/v{number}.mp4",
            split="test",
            label=number % 2,
            class_name="Fall" if number % 2 else "Normal",
            intervals=((20, 60),) if number % 2 else (),
        )
        for number in range(4)
    ]
    store.put_recordings(recordings)
    start, stop = SnippetGrid().ranges(NUM_FRAMES)
    for name in SETS:
        spec = FeatureSetSpec(
            name=name, document={"encoder": name}, num_crops=1, width=WIDTH, dtype="float32"
        )
        writer = store.segment_writer(spec)
        for recording in recordings:
            rng = np.random.default_rng([*recording.key.encode(), *name.encode()])
            writer.begin(recording, stat=SourceStat(url=recording.url, size=1, etag="1"))
            rows = rng.standard_normal((len(start), 1, WIDTH)).astype(np.float32)
            writer.append(rows, start, stop)
            writer.end(NUM_FRAMES, Fraction(25))
        writer.close()
        store.commit(writer.drain())
    store = FeatureStore.open(store.url)
    torch.manual_seed(0)
    sizes = IefVadConfig(image_width=WIDTH, event_width=WIDTH, width=8, num_heads=2)
    bundle = Bundle.of(
        build(sizes),
        tuple(EncoderConfig(kind=name) for name in SETS),  # type: ignore[arg-type]
        tuple(store.resolve(name) for name in SETS),
        protocol="folder",
        provenance=provenance_of(store, SETS),
    )
    bundle.save(tmp_path / "bundle")
    return tmp_path / "bundle"


def test_the_job_writes_tables_and_plots_and_tells_every_case(
    fusion_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the command to the files: the clean run and five shares of each stream."""
    out = tmp_path / "study"
    arguments = ["--model", str(fusion_bundle), "--study", "perturbation", "--out", str(out)]
    assert cli.evaluate(arguments) == 0
    told = capsys.readouterr().out
    assert "4" in next(line for line in told.splitlines() if "recordings" in line)
    assert told.count("AUC 0.") + told.count("AUC 1.") == 11
    assert {path.name for path in out.iterdir()} == {
        "perturbation.csv",
        "weight_change_image.csv",
        "weight_change_event.csv",
        "perturbation.png",
        *(
            f"{kind}-{name}-1.png"
            for kind in ("weights", "closeness")
            for name in ("Fall", "normal")
        ),
    }


def test_a_model_without_two_streams_is_refused(saved: Callable[..., Path]) -> None:
    """The message says what the study is of."""
    with pytest.raises(ConfigError, match=r"'motion_floor' model.*two fused streams"):
        perturbation_study(EvaluateConfig(model=str(saved("event-pyramid"))))
