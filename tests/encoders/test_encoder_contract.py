"""What every encoder known by name promises; a new one is tested here by adding its config."""

import json
from fractions import Fraction

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from outspike.config import EncoderConfig, canonical_json
from outspike.encoders import ENCODERS, build
from outspike.encoders.base import SourceInfo
from outspike.encoders.flow import TvL1
from outspike.encoders.frame_motion import FRAME_GRID
from outspike.encoders.gesture_cnn import _CONVOLUTIONS, _LINEAR
from outspike.encoders.i3d_model import I3d
from outspike.encoders.spikingformer_model import KNOWN, Spikingformer
from outspike.errors import AlignmentError, ConfigError
from outspike.events.columns import Events
from outspike.timebase import DVS_FPS, EventClock, SnippetGrid
from outspike.video.decode import FrameChunk

GRID = SnippetGrid(snippet_frames=3, stride=3)
LENGTHS = (1, 2, 3, 7)
CLOCK = EventClock(fps=DVS_FPS, anchor_us=1 << 50)  # camera times may be Unix times


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory):
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    torch.manual_seed(0)
    config = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=1,
        image_size=16,
        patch_size=8,
        projection_dim=8,
    )
    folder = tmp_path_factory.mktemp("clip")
    CLIPVisionModelWithProjection(config).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def spikingformer_file(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("spikingformer") / "model.safetensors"
    save_file(Spikingformer(KNOWN[256]).state_dict(), path)
    return str(path)


@pytest.fixture(scope="module")
def gesture_file(tmp_path_factory):
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("gesture") / "model.npz"
    shapes = {f"{n}.weight": shape for n, shape in (_CONVOLUTIONS | _LINEAR).items()}
    np.savez(path, **{k: rng.normal(0, 0.3, v).astype(np.float32) for k, v in shapes.items()})
    return str(path)


@pytest.fixture(scope="module")
def i3d_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("i3d")
    for name, channels in (("rgb", 3), ("flow", 2)):
        save_file(I3d(channels).state_dict(), folder / f"{name}.safetensors")
    return str(folder)


class CheapI3d(torch.nn.Module):
    """In place of the network, which takes seconds a clip: what it is given still matters."""

    def forward(self, clips):
        pooled = torch.nn.functional.adaptive_avg_pool3d(clips, (16, 8, 8)).flatten(1)
        return pooled[:, :1024]


_WEIGHTS = {
    "clip": "clip_folder",
    "event-clip": "clip_folder",
    "spikingformer": "spikingformer_file",
    "gesture-cnn": "gesture_file",
}


@pytest.fixture(params=sorted(ENCODERS))
def encoder(request):
    """Every encoder of the catalogue, on small weights where it needs some."""
    kind = request.param
    if kind.startswith("i3d"):
        folder = request.getfixturevalue("i3d_files")
        flow = f"{folder}/flow.safetensors"
        weights = flow if kind == "i3d-flow" else f"{folder}/rgb.safetensors"
        extra = {"flow_weights": flow} if kind == "i3d-combine" else {}
        made = build(EncoderConfig(kind=kind, weights=weights, **extra))
        made.networks = dict.fromkeys(made.streams, CheapI3d())
        made.flow = TvL1(num_scales=1, num_warps=1, num_iterations=1)
        return made
    grid = FRAME_GRID if kind == "frame-motion" else GRID
    path = request.getfixturevalue(_WEIGHTS[kind]) if kind in _WEIGHTS else None
    return build(EncoderConfig(kind=kind, grid=grid, weights=path))


def source_of(modality):
    clock = CLOCK if modality == "events" else None
    return SourceInfo(modality=modality, width=30, height=20, fps=Fraction(DVS_FPS), clock=clock)


def pieces_of(modality, num_frames):
    """A recording of ``num_frames`` frames in pieces of one frame or a few events."""
    rng = np.random.default_rng(num_frames)
    if modality == "video":
        frames = rng.integers(0, 256, (num_frames, 20, 30, 3), dtype=np.uint8)
        return [FrameChunk(i, frames[i : i + 1]) for i in range(num_frames)]
    times = np.arange(0, num_frames * 33_333, 9_999, dtype=np.int64) + CLOCK.anchor_us
    columns = [rng.integers(0, high, len(times)) for high in (30, 20, 2)]
    events = Events(
        times,
        columns[0].astype(np.uint16),
        columns[1].astype(np.uint16),
        columns[2].astype(np.uint8),
    )
    return [events.slice(i, i + 4) for i in range(0, len(events), 4)]


def rows_of(encoder, modality, num_frames):
    stream = encoder.open(source_of(modality))
    parts = [stream.push(piece) for piece in pieces_of(modality, num_frames)]
    return [*parts, stream.finish(num_frames)]


def test_rows_are_those_of_the_grid(encoder):
    """For every length: as many rows as the grid says, of the stated shape, finite float32."""
    for modality in encoder.modalities:
        for num_frames in LENGTHS:
            parts = rows_of(encoder, modality, num_frames)
            assert all(part.dtype == np.float32 for part in parts)
            assert all(part.shape[1:] == (encoder.num_crops, encoder.width) for part in parts)
            rows = np.concatenate(parts)
            assert len(rows) == encoder.grid.num_snippets(num_frames)
            assert np.isfinite(rows).all()


def test_rows_come_as_soon_as_the_frames_are_there(encoder):
    """Memory stays bounded: most rows of a long recording are out before its end."""
    modality = min(encoder.modalities)
    num_snippets = 40 if encoder.name == "event-clip" else 5  # that one batches 16 rows
    *pushed, last = rows_of(encoder, modality, num_snippets * encoder.grid.snippet_frames)
    assert sum(map(len, pushed)) >= len(last)


def test_a_recording_leaves_no_trace(encoder):
    """The second of two equal recordings gets the same bits as the first."""
    for modality in encoder.modalities:
        first, second = (np.concatenate(rows_of(encoder, modality, 7)) for _ in range(2))
        assert first.tobytes() == second.tobytes()


def test_a_wrong_frame_count_is_an_error(encoder):
    """finish() checks the number of frames against what was pushed."""
    for modality in encoder.modalities:
        stream = encoder.open(source_of(modality))
        for piece in pieces_of(modality, 5):
            stream.push(piece)
        with pytest.raises(AlignmentError, match="recording has 2"):
            stream.finish(2)


def test_the_identity_is_complete_json(encoder):
    """The spec names encoder, grid, dtype, decoder and revision, and survives JSON."""
    spec = encoder.spec()
    assert (spec.name, spec.width, spec.num_crops) == (
        encoder.name,
        encoder.width,
        encoder.num_crops,
    )
    assert {"encoder", "revision", "grid", "dtype", "decoder"} <= spec.document.keys()
    assert set(spec.document["decoder"]) == set(encoder.modalities)
    assert json.loads(canonical_json(spec.document)) == spec.document


def test_unknown_kinds_are_named():
    """A kind that is not in the catalogue is a configuration error that lists those that are."""
    config = EncoderConfig()
    object.__setattr__(config, "kind", "telepathy")
    with pytest.raises(ConfigError, match=r"telepathy.*event-pyramid"):
        build(config)


def test_sources_must_make_sense():
    """A picture without pixels, and events without a clock, are refused."""
    with pytest.raises(ConfigError, match="no picture"):
        SourceInfo(modality="video", width=0, height=4, fps=Fraction(25))
    with pytest.raises(ConfigError, match="clock"):
        SourceInfo(modality="events", width=4, height=4, fps=Fraction(25))
