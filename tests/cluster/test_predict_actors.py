"""Scoring on Ray actors gives the files of scoring in this process."""

from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import ray
import torch

from outspike.config import EncoderConfig, MsfConfig, PredictConfig
from outspike.detectors.build import build as build_detector
from outspike.encoders.catalog import build as build_encoder
from outspike.predict.run import predict
from outspike.scoring.bundle import Bundle
from outspike.timebase import SnippetGrid
from outspike.video.write import write_mp4

pytestmark = pytest.mark.cluster


@pytest.fixture(autouse=True)
def _left_alone() -> Iterator[None]:
    yield
    assert not ray.is_initialized(), "the job must leave the Ray it started"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    torch.manual_seed(3)
    config = EncoderConfig(grid=SnippetGrid(snippet_frames=4, stride=4))
    spec = build_encoder(config).spec()
    detector = build_detector(MsfConfig(width=spec.width, hidden=8))
    Bundle.of(detector, (config,), (spec,), protocol="folder", provenance={}).save(tmp_path / "b")
    return tmp_path / "b"


@pytest.fixture
def videos(tmp_path: Path) -> Callable[[int], Path]:
    def write(count: int) -> Path:
        folder = tmp_path / "in"
        folder.mkdir()
        for number in range(count):
            rng = np.random.default_rng(number)
            frames = rng.integers(0, 256, (9, 6, 8, 3), dtype=np.uint8)
            large = frames.repeat(8, axis=1).repeat(8, axis=2)
            write_mp4(folder / f"v{number}.mp4", iter(large), fps=Fraction(25))
        (folder / "bad.mp4").write_text("text")
        return folder

    return write


def test_actors_write_the_same_files(
    bundle: Path, videos: Callable[[int], Path], tmp_path: Path
) -> None:
    """Tables and intervals are byte for byte those of one process; a bad input is told alike."""
    config = PredictConfig(
        model=str(bundle), input=str(videos(3)), out=str(tmp_path / "here"), overlay=False
    )
    here = predict(config)
    there = predict(
        PredictConfig(**{**config.__dict__, "out": str(tmp_path / "there"), "num_actors": 1})
    )
    assert [(p.video_id, p.reason, p.detail, p.highest) for p in there.predictions] == [
        (p.video_id, p.reason, p.detail, p.highest) for p in here.predictions
    ]
    names = sorted(path.name for path in (tmp_path / "here").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "there").iterdir())
    assert len(names) == 9
    for name in names:
        if not name.endswith(".png"):
            here_bytes = (tmp_path / "here" / name).read_bytes()
            assert here_bytes == (tmp_path / "there" / name).read_bytes()
