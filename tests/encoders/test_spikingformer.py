"""The spikingformer encoder: weights, event histograms, membranes over a recording."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from outspike.config import EncoderConfig
from outspike.encoders.base import SourceInfo
from outspike.encoders.spikingformer import SpikingformerFeatures
from outspike.encoders.spikingformer_model import (
    KNOWN,
    Spikingformer,
    SpikingformerConfig,
    from_state_dict,
)
from outspike.errors import AlignmentError, CheckpointError, ConfigError
from outspike.events.columns import Events
from outspike.timebase import DVS_FPS, EventClock, SnippetGrid

SIZES = SpikingformerConfig(width=32, depth=1, heads=4, size=32)
GRID = SnippetGrid(snippet_frames=4, stride=4)
CLOCK = EventClock(fps=DVS_FPS, anchor_us=0)
SOURCE = SourceInfo(modality="events", width=40, height=30, fps=Fraction(DVS_FPS), clock=CLOCK)


def make_state(seed=0, sizes=SIZES):
    torch.manual_seed(seed)
    model = Spikingformer(sizes)
    state = {}
    for name, value in model.state_dict().items():
        if name.endswith("running_var") or name.endswith("num_batches_tracked"):
            state[name] = value
        else:
            state[name] = torch.randn(value.shape) * 0.5
    return state


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("spikingformer") / "model.safetensors"
    save_file(make_state(), path)
    return str(path)


def encoder_of(weights, **changes):
    config = EncoderConfig(**{"kind": "spikingformer", "grid": GRID, "weights": weights} | changes)
    return SpikingformerFeatures(config, SIZES)


def make_events(num_events=4000, num_frames=30, seed=0):
    rng = np.random.default_rng(seed)
    return Events(
        np.sort(rng.integers(0, num_frames * 33_333, num_events)).astype(np.int64),
        rng.integers(0, 40, num_events).astype(np.uint16),
        rng.integers(0, 30, num_events).astype(np.uint16),
        rng.integers(0, 2, num_events).astype(np.uint8),
    )


def rows_of(encoder, events, chunk, num_frames=30):
    stream = encoder.open(SOURCE)
    parts = [stream.push(events.slice(a, a + chunk)) for a in range(0, len(events), chunk)]
    return np.concatenate([*parts, stream.finish(num_frames)])


def test_rows_do_not_depend_on_chunks_or_on_earlier_recordings(weights):
    """Every recording starts from rest, and any cutting of its events gives the same bits."""
    encoder = encoder_of(weights)
    events = make_events()
    whole = rows_of(encoder, events, 4000)
    assert whole.shape == (8, 1, 32)
    assert len(np.unique(whole[:, 0], axis=0)) == 8
    for chunk in (1, 333, 1501):
        assert rows_of(encoder, events, chunk).tobytes() == whole.tobytes()


def test_rows_are_the_network_on_resized_histograms(weights):
    """Rows equal the network on counts of each snippet, all time steps in one call."""
    events = make_events()
    frames = CLOCK.frame_of(events.t)
    counts = np.zeros((8, 2, 30, 40))
    np.add.at(counts, (frames // 4, events.p, events.y, events.x), 1)
    resized = torch.nn.functional.interpolate(
        torch.from_numpy(counts), (32, 32), mode="bilinear", align_corners=False
    )
    expected = from_state_dict(make_state(), SIZES)(resized.float()[:, None])
    found = rows_of(encoder_of(weights), events, 500)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_chunk_length_changes_rows_and_fingerprint(weights):
    """Neurons forget every chunk_steps rows: later rows differ, and so does the feature set."""
    events = make_events()
    whole, chunked = encoder_of(weights), encoder_of(weights, chunk_steps=3)
    first, second = rows_of(whole, events, 500), rows_of(chunked, events, 500)
    np.testing.assert_array_equal(first[:3], second[:3])
    assert (first[3:] != second[3:]).any()
    assert whole.spec().fingerprint != chunked.spec().fingerprint


def test_silence_keeps_its_rows(weights):
    """Snippets without events are time steps too, and the recording's end is kept or dropped."""
    events = make_events(10, num_frames=1)
    assert rows_of(encoder_of(weights), events, 10, num_frames=21).shape == (6, 1, 32)
    dropping = SnippetGrid(snippet_frames=4, stride=4, tail="drop")
    assert rows_of(encoder_of(weights, grid=dropping), events, 10, num_frames=21).shape[0] == 5
    with pytest.raises(AlignmentError, match="up to frame 0"):
        rows_of(encoder_of(weights), events, 10, num_frames=0)


def test_unused_entries_are_ignored_and_others_are_not():
    """head.* and the uncalled norms are dropped; missing, unknown and misshaped entries named."""
    state = make_state()
    extra = {"head.weight": torch.zeros(3), "block.0.norm1.weight": torch.zeros(32)}
    from_state_dict(state | extra, SIZES)
    with pytest.raises(CheckpointError, match=r"unknown tail\.weight"):
        from_state_dict(state | {"tail.weight": torch.zeros(3)}, SIZES)
    with pytest.raises(CheckpointError, match=r"missing patch_embed\.proj_bn\.bias"):
        from_state_dict({k: v for k, v in state.items() if k != "patch_embed.proj_bn.bias"}, SIZES)
    with pytest.raises(CheckpointError, match="expected"):
        from_state_dict(state | {"patch_embed.proj_bn.bias": torch.zeros(7)}, SIZES)
    with pytest.raises(ConfigError, match="none of the published"):
        from_state_dict(state)
    with pytest.raises(CheckpointError, match="not a Spikingformer"):
        from_state_dict({"weight": torch.zeros(3)})


def test_published_sizes():
    """The 768-wide network has the published number of parameters, the unused norms left out."""
    with torch.device("meta"):
        model = Spikingformer(KNOWN[768])
    assert sum(p.numel() for p in model.parameters()) == 65_593_344 - 24_576


def test_it_refuses_to_run_without_weights(weights, tmp_path):
    """No weights, an absent or foreign file and an overlapping grid are one clear line each."""
    with pytest.raises(ConfigError, match="needs pretrained weights"):
        encoder_of(None)
    with pytest.raises(ConfigError, match="no such file"):
        encoder_of(str(tmp_path / "absent.pth"))
    (tmp_path / "bad.safetensors").write_bytes(b"text")
    with pytest.raises(CheckpointError, match="safetensors"):
        encoder_of(str(tmp_path / "bad.safetensors"))
    torch.save({"state_dict": {"epoch": 3}}, tmp_path / "bad.pth")
    with pytest.raises(CheckpointError, match="named tensors"):
        encoder_of(str(tmp_path / "bad.pth"))
    with pytest.raises(ConfigError, match="stride"):
        encoder_of(weights, grid=SnippetGrid(snippet_frames=4, stride=2))


def test_torch_checkpoints_load(weights, tmp_path):
    """A checkpoint under 'state_dict' with data-parallel names gives the same features."""
    state = {f"module.{name}": value for name, value in make_state().items()}
    torch.save({"state_dict": state}, tmp_path / "model.pth")
    ours = encoder_of(str(tmp_path / "model.pth"))
    assert ours.spec().fingerprint == encoder_of(weights).spec().fingerprint
