"""A small model with fresh weights, and recordings for it."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from outspike.config import EncoderConfig, MsfConfig
from outspike.detectors.build import build as build_detector
from outspike.encoders.catalog import build as build_encoder
from outspike.events.columns import Events
from outspike.events.write import write_events
from outspike.scoring.bundle import Bundle
from outspike.timebase import SnippetGrid
from outspike.video.write import write_mp4

ENCODER = EncoderConfig(grid=SnippetGrid(snippet_frames=4, stride=4))


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a bundle that scores videos and event recordings."""
    torch.manual_seed(3)
    spec = build_encoder(ENCODER).spec()
    detector = build_detector(MsfConfig(width=spec.width, hidden=8))
    folder = tmp_path_factory.mktemp("model") / "bundle"
    Bundle.of(detector, (ENCODER,), (spec,), protocol="folder", provenance={}).save(folder)
    return folder


@pytest.fixture(scope="session")
def write_video() -> Callable[..., Path]:
    """Write a video of moving noise, ``[num_frames, 48, 64]``."""

    def write(path: Path, num_frames: int = 14, *, seed: int = 0) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(seed)
        coarse = rng.integers(0, 256, (num_frames, 6, 8, 3), dtype=np.uint8)
        write_mp4(path, iter(coarse.repeat(8, axis=1).repeat(8, axis=2)), fps=Fraction(25))
        return path

    return write


@pytest.fixture(scope="session")
def write_event_file() -> Callable[..., Path]:
    """Write random events over half a second on 40 x 30 pixels."""

    def write(path: Path, *, seed: int = 0) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(seed)
        t = np.sort(rng.integers(0, 500_000, 4000))
        x = rng.integers(0, 40, 4000).astype(np.uint16)
        y = rng.integers(0, 30, 4000).astype(np.uint16)
        p = rng.integers(0, 2, 4000).astype(np.uint8)
        events = Events(t.astype(np.int64), x, y, p)
        write_events(path, events, format="evt3", size=(40, 30), anchor_us=0)
        return path

    return write
