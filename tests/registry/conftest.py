"""A registry in a file, and a store on which one feature set tells anomalies and others do not."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from outspike.config import EncoderConfig, MotionFloorConfig, MsfConfig
from outspike.detectors.bags import collate
from outspike.detectors.build import build
from outspike.detectors.motion_floor import WIDTH
from outspike.encoders.catalog import build as build_encoder
from outspike.evaluate.evaluate import evaluate
from outspike.evaluate.protocols import get_protocol
from outspike.evaluate.stored import provenance_of, renamed, score_bundle
from outspike.recording import Recording
from outspike.scoring.bundle import Bundle
from outspike.store.bags import BagReader
from outspike.store.fingerprint import FeatureSetSpec
from outspike.store.store import FeatureStore
from outspike.timebase import SnippetGrid
from outspike.urls import SourceStat
from outspike.video.write import write_mp4

#: How far anomalous recordings stand out, in deviations, by feature set; the floor's come last.
TELLING = {"clip": 0.0, "frame-pyramid": 1.0, "event-pyramid": 6.0, "frame-motion": 0.0}
PROTOCOL = "folder"
#: A server on a busy machine.
START_S = 180.0


@pytest.fixture(scope="session")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One registry for all tests: MLflow takes seconds to make its tables."""
    return f"sqlite:///{tmp_path_factory.mktemp('registry')}/mlflow.db"


def recordings() -> list[Recording]:
    return [
        Recording(
            dataset="tiny",
            video_id=f"{split}-{'fall' if label else 'walk'}-{number:02d}",
            url=f"/videos/{split}{label}{number}.mp4",
            split=split,
            label=label,
        )
        for split, count in (("train", 8), ("test", 10))
        for label in (0, 1)
        for number in range(count)
    ]


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """Every feature set has the width of the motion floor, which can then be fitted on any."""
    store = FeatureStore.create(str(tmp_path_factory.mktemp("store") / "s"))
    store.put_recordings(recordings())
    start, stop = SnippetGrid().ranges(64)
    for name, distance in TELLING.items():
        spec = FeatureSetSpec(
            name=name, document={"encoder": name}, num_crops=1, width=WIDTH, dtype="float32"
        )
        writer = store.segment_writer(spec)
        for recording in recordings():
            rng = np.random.default_rng([*recording.key.encode(), *name.encode()])
            rows = rng.standard_normal((len(start), 1, WIDTH)) + distance * (recording.label or 0)
            writer.begin(recording, stat=SourceStat(url=recording.url, size=1, etag="1"))
            writer.append(rows.astype(np.float32), start, stop)
            writer.end(64, Fraction(25))
        writer.close()
        store.commit(writer.drain())
    return FeatureStore.open(store.url)


@pytest.fixture(scope="session")
def bundle_of(store: FeatureStore) -> Callable[[str], Bundle]:
    """A judged bundle of the detector that reads one feature set."""

    def make(feature_set: str) -> Bundle:
        detector = build(MotionFloorConfig(feature_set=feature_set, form="logistic"))
        spec = store.resolve(feature_set)
        reader = BagReader(store, [spec.address])
        training = [r.video_id for r in recordings() if r.split == "train"]
        names = {feature_set: spec.address}
        bags = [renamed(reader.read(("tiny", video)), names) for video in training]
        detector.fit([collate([bag]) for bag in bags])
        bundle = Bundle.of(
            detector,
            (EncoderConfig(kind=feature_set),),
            (spec,),
            protocol=PROTOCOL,
            provenance=provenance_of(store, [feature_set]),
        )
        results = evaluate(score_bundle(bundle), get_protocol(PROTOCOL), num_resamples=100)
        return replace(bundle, provenance={**bundle.provenance, "results": results.to_json()})

    return make


@pytest.fixture
def saved(bundle_of: Callable[[str], Bundle], tmp_path: Path) -> Callable[..., Path]:
    """The folder of a judged bundle, optionally with another origin."""

    def save(feature_set: str, **provenance: object) -> Path:
        bundle = bundle_of(feature_set)
        folder = tmp_path / f"bundle-{feature_set}"
        replace(bundle, provenance={**bundle.provenance, **provenance}).save(folder)
        return folder

    return save


@pytest.fixture(scope="session")
def scoring_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detector with fresh weights that scores raw video."""
    torch.manual_seed(3)
    config = EncoderConfig(grid=SnippetGrid(snippet_frames=4, stride=4))
    spec = build_encoder(config).spec()
    detector = build(MsfConfig(width=spec.width, hidden=8))
    bundle = Bundle.of(detector, (config,), (spec,), protocol="folder", provenance={})
    folder = tmp_path_factory.mktemp("scoring") / "bundle"
    bundle.save(folder)
    return folder


@pytest.fixture(scope="session")
def video(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    rng = np.random.default_rng(5)
    path = tmp_path_factory.mktemp("video") / "street.mp4"
    coarse = rng.integers(0, 256, (22, 6, 8, 3), dtype=np.uint8)
    write_mp4(path, iter(coarse.repeat(8, axis=1).repeat(8, axis=2)), fps=Fraction(25))
    return Recording(dataset="folder", video_id="street", url=str(path))


# --------------------------------------------------------------------------------- a server


@contextmanager
def serve(
    folder: Path,
    *,
    port: int | None = None,
    backend: str | None = None,
    artifacts: str | None = None,
) -> Iterator[str]:
    """Address of ``mlflow server``, by default over files in ``folder``; it ends with the block."""
    port = free_port() if port is None else port
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--workers", "1"]
    places = ["--backend-store-uri", backend or f"sqlite:///{folder}/mlflow.db"]
    places += ["--artifacts-destination", artifacts or str(folder / "artifacts")]
    with (folder / "log.txt").open("ab") as log:
        process = subprocess.Popen(
            [*command, *places, "--port", str(port)],
            stdout=log,
            stderr=log,
            cwd=folder,
            start_new_session=True,
            env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        )
        try:
            url = f"http://127.0.0.1:{port}"
            wait_for(url, process, folder / "log.txt")
            yield url
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(30)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    began = time.monotonic()
    while time.monotonic() - began < START_S:
        assert process.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=2):
                return
        except OSError:
            time.sleep(0.5)
    raise AssertionError(log.read_text())


@pytest.fixture(scope="session")
def served() -> Callable[..., AbstractContextManager[str]]:
    """Starts a tracking server: ``with served(folder, backend=...) as url``."""
    return serve


@pytest.fixture(scope="session")
def unused_port() -> Callable[[], int]:
    """A port nobody listens on, for a server that is to come back on it."""
    return free_port
