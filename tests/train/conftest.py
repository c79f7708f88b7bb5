"""A small feature store with a rule to learn: anomalous bags have a few bright snippets."""

import dataclasses
import zlib
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from outspike.config import (
    AedConfig,
    DataConfig,
    DetectorConfig,
    EncoderConfig,
    GvVadConfig,
    IefVadConfig,
    MsfConfig,
    OptimConfig,
    SaaConfig,
    StoreConfig,
    TrainConfig,
    WindowConfig,
)
from outspike.encoders.catalog import build
from outspike.recipes import FRAME_MOTION
from outspike.recording import Recording
from outspike.store.fingerprint import FeatureSetSpec
from outspike.store.store import FeatureStore
from outspike.timebase import SnippetGrid
from outspike.urls import SourceStat

WIDTHS = {"motion": 8, "image": 12}


def spec_of(name: str, *, width: int | None = None, version: int = 1) -> FeatureSetSpec:
    return FeatureSetSpec(
        name=name,
        document={"encoder": name, "version": version},
        num_crops=1,
        width=width or WIDTHS[name],
        dtype="float32",
    )


def recordings_of(
    normal: int, anomalous: int, *, made: int = 0, unlabelled: int = 0, split: str = "train"
) -> list[Recording]:
    kinds = [("normal", 0, normal), ("anomalous", 1, anomalous), ("unlabelled", None, unlabelled)]
    found = [
        Recording(
            dataset="tiny",
            video_id=f"{split}/{name}{i:02d}",
            url=f"/videos/{split}/{name}{i:02d}.mp4",
            split=split,
            label=label,
            group=f"{split}-{name}-{i // 2}",
        )
        for name, label, count in kinds
        for i in range(count)
    ]
    return found + [
        Recording(
            dataset="made",
            video_id=f"made{i:02d}",
            url=f"/videos/made{i:02d}.mp4",
            split="train",
            label=i % 2,
            synthetic=True,
        )
        for i in range(made)
    ]


def features_of(recording: Recording, spec: FeatureSetSpec, num_snippets: int) -> np.ndarray:
    seed = [*recording.key.encode(), *spec.name.encode()]
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((num_snippets, spec.num_crops, spec.width)) * 0.5
    if recording.label == 1:
        first = int(np.random.default_rng([*recording.key.encode()]).integers(num_snippets // 2))
        rows[first : first + 1 + num_snippets // 4, :, : spec.width // 2] += 2.0
    return rows.astype(np.float32)


def annotated(recordings: Sequence[Recording], dataset: str) -> list[Recording]:
    """The recordings under another data set's name, anomalous from frame 8 to 40."""
    return [
        dataclasses.replace(r, dataset=dataset, intervals=((8, 40),) if r.label else ())
        for r in recordings
    ]


def fill(
    store: FeatureStore, recordings: Sequence[Recording], specs: Sequence[FeatureSetSpec]
) -> None:
    store.put_recordings(recordings)
    for spec in specs:
        writer = store.segment_writer(spec)
        for number, recording in enumerate(recordings):
            num_frames = 16 * (6 + number % 7) + number % 16
            start, stop = SnippetGrid().ranges(num_frames)
            stat = SourceStat(url=recording.url, size=num_frames, etag="1")
            writer.begin(recording, stat=stat)
            writer.append(features_of(recording, spec, len(start)), start, stop)
            writer.end(num_frames, Fraction(25))
        writer.close()
        store.commit(writer.drain())


def ddp_config(folder: Path, **changes: Any) -> TrainConfig:
    """A training of MSF by two workers on a small store in ``folder``, with what a test changes."""
    store = FeatureStore.create(str(folder / "store"))
    fill(store, recordings_of(8, 8), [spec_of("motion")])
    settings: dict[str, Any] = {
        "data": DataConfig(dataset="tiny"),
        "store": StoreConfig(url=store.url),
        "detector": DETECTORS["msf"],
        "encoders": (),
        "window": WindowConfig(length=8),
        "optim": OptimConfig(optimiser="sgd", lr=0.05),
        "protocol": "folder",
        "bags_per_batch": 8,
        "num_workers": 2,
        "checkpoint_every": 10,
        "storage": str(folder / "runs"),
        "tracking_uri": f"sqlite:///{folder}/mlflow.db",
    }
    return TrainConfig(**(settings | changes))


@pytest.fixture(scope="session")
def store_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Ten normal and ten anomalous training bags, some generated ones, and a small test split."""
    url = str(tmp_path_factory.mktemp("store"))
    recordings = [*recordings_of(10, 10, made=6), *recordings_of(4, 4, split="test")]
    fill(FeatureStore.create(url), recordings, [spec_of(name) for name in WIDTHS])
    return url


DETECTORS = {
    "msf": MsfConfig(feature_set="motion", width=8, hidden=4, dropout=0.0, smooth_weight=8.0),
    "ief_vad": IefVadConfig(
        image_set="image",
        event_set="motion",
        image_width=12,
        event_width=8,
        width=16,
        num_layers=1,
        num_heads=2,
        refinement_steps=2,
        attention_dropout=0.0,
    ),
    "gv_vad": GvVadConfig(
        visual_set="image",
        text_set="motion",
        visual_width=12,
        text_width=8,
        hidden=8,
        dropout=0.0,
        topk_divisor=2,
        pal_weight=0.1,
        mpl_weight=0.5,
    ),
    "saa": SaaConfig(
        feature_set="motion",
        width=8,
        attention_width=8,
        classifier_widths=(8, 4),
        dropout=0.0,
        guide_steps=10,
    ),
    "aed_t": AedConfig(feature_set="motion", width=8, window=3, hidden=4, down=8, head=8),
}


@pytest.fixture
def config_of(store_url: str, tmp_path: Path) -> Callable[..., TrainConfig]:
    """Configs over the small store: ``config_of("msf", steps=3)``, or any detector's config."""

    def make(detector: str | DetectorConfig = "msf", **changes: object) -> TrainConfig:
        settings: dict[str, object] = {
            "data": DataConfig(dataset="tiny"),
            "store": StoreConfig(url=store_url),
            "detector": DETECTORS[detector] if isinstance(detector, str) else detector,
            "encoders": (),
            "window": WindowConfig(rule="uniform", length=8),
            "optim": OptimConfig(lr=3e-3),
            "steps": 20,
            "bags_per_batch": 8,
            "num_workers": 0,
            "checkpoint_every": 10,
            "storage": str(tmp_path / "runs"),
        }
        return TrainConfig(**(settings | changes))

    return make


@pytest.fixture
def filled_store() -> Callable[..., None]:
    """Fill a store of its own at a path, with what a test wants to be wrong with it."""

    def make(
        path: Path, *, anomalous: int = 4, versions: Sequence[int] = (1,), without: int = 0
    ) -> None:
        store = FeatureStore.create(str(path))
        recordings = recordings_of(6, anomalous)
        have = recordings[: len(recordings) - without]
        fill(store, have, [spec_of("motion", version=version) for version in versions])
        store.put_recordings(recordings)

    return make


@pytest.fixture(scope="session")
def small_data() -> SimpleNamespace:
    """The makers of this file, for tests with stores of their own."""
    return SimpleNamespace(recordings=recordings_of, fill=fill, spec=spec_of, annotated=annotated)


@pytest.fixture(scope="session")
def pyramid_store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Random features under the identities of the event pyramid and of the floor's input."""
    url = str(tmp_path_factory.mktemp("pyramid"))
    recordings = [*recordings_of(8, 8), *recordings_of(4, 4, split="test")]
    specs = [build(encoder).spec() for encoder in (EncoderConfig(), FRAME_MOTION)]
    fill(FeatureStore.create(url), recordings, specs)
    return url


@pytest.fixture(scope="session")
def tracking_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One database for all tests, since a fresh one takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('tracking')}/mlflow.db"


@pytest.fixture
def pyramid_config(
    config_of: Callable[..., TrainConfig],
    pyramid_store: str,
    tracking_uri: str,
    request: pytest.FixtureRequest,
) -> Callable[..., TrainConfig]:
    """Configs of small runs that end in a bundle; a run of its own for each test by its seed."""

    def make(**changes: object) -> TrainConfig:
        settings: dict[str, object] = {
            "store": StoreConfig(url=pyramid_store),
            "encoders": (EncoderConfig(),),
            "protocol": "folder",
            "tracking_uri": tracking_uri,
            "seed": zlib.crc32(request.node.name.encode()),
        }
        width = build(EncoderConfig()).spec().width
        return config_of(MsfConfig(width=width, hidden=4, dropout=0.2), **(settings | changes))

    return make
