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


def make_state(seed=7, sizes=SIZES):  # a seed whose network listens to its input
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


def published_of(weights, **changes):
    """The published extraction: one time step a snippet, neurons that remember."""
    return encoder_of(weights, compat="msf_2025", **changes)


def make_events(num_events=4000, num_frames=30, seed=0):
    """A small cloud that jumps about, so that no part of the network is busy everywhere."""
    rng = np.random.default_rng(seed)
    times = np.sort(rng.integers(0, num_frames * 33_333, num_events)).astype(np.int64)
    frame = times // 33_333
    return Events(
        times,
        ((frame * 11 + rng.integers(0, 6, num_events)) % 40).astype(np.uint16),
        ((frame * 7 + rng.integers(0, 6, num_events)) % 30).astype(np.uint16),
        rng.integers(0, 2, num_events).astype(np.uint8),
    )


def rows_of(encoder, events, chunk, num_frames=30):
    stream = encoder.open(SOURCE)
    parts = [stream.push(events.slice(a, a + chunk)) for a in range(0, len(events), chunk)]
    return np.concatenate([*parts, stream.finish(num_frames)])


@pytest.mark.parametrize("compat", [None, "msf_2025"])
def test_rows_do_not_depend_on_chunks_or_on_earlier_recordings(weights, compat):
    """Every recording starts from rest, and any cutting of its events gives the same bits."""
    encoder = encoder_of(weights, compat=compat)
    events = make_events()
    whole = rows_of(encoder, events, 4000)
    assert whole.shape == (8, 1, 32)
    assert len(np.unique(whole[:, 0], axis=0)) == 8
    for chunk in (1, 333, 1501):
        assert rows_of(encoder, events, chunk).tobytes() == whole.tobytes()


def histograms(events, step_frames, num_steps):
    """Counts of each time step, resized as the network takes them: ``[T, 1, P, H, W]``."""
    frames = CLOCK.frame_of(events.t)
    counts = np.zeros((num_steps, 2, 30, 40))
    np.add.at(counts, (frames // step_frames, events.p, events.y, events.x), 1)
    resized = torch.nn.functional.interpolate(
        torch.from_numpy(counts), (32, 32), mode="bilinear", align_corners=False
    )
    return resized.float()[:, None]


def test_published_rows_are_the_network_on_resized_histograms(weights):
    """Rows equal the network on counts of each snippet, all time steps in one call."""
    events = make_events()
    expected = from_state_dict(make_state(), SIZES)(histograms(events, 4, 8))
    found = rows_of(published_of(weights), events, 500)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("steps", [None, 2])
def test_a_row_is_the_mean_over_the_steps_of_its_own_snippet(weights, steps):
    """Each snippet starts at rest: its row is the network's mean over its steps, alone."""
    events = make_events()
    found = rows_of(encoder_of(weights, steps_per_snippet=steps), events, 500)
    length = 4 // (steps or 4)
    frames = histograms(events, length, -(-30 // length))
    network = from_state_dict(make_state(), SIZES)
    for row, part in zip(found, frames.split(steps or 4), strict=True):
        network.reset()
        np.testing.assert_allclose(row, network(part).mean(dim=0), atol=1e-5)


def test_a_row_does_not_depend_on_earlier_snippets(weights):
    """By default the same events give the same row wherever they stand; published rows do not."""
    events = make_events(600, num_frames=4)
    late = Events(events.t + 12 * 33_333, events.x, events.y, events.p)
    pairs = zip(_columns(events), _columns(late), strict=True)
    both = Events(*(np.concatenate(pair) for pair in pairs))
    alone = rows_of(encoder_of(weights), events, 500, num_frames=4)
    assert rows_of(encoder_of(weights), both, 500, num_frames=16)[3].tobytes() == alone.tobytes()
    remembered = rows_of(published_of(weights), both, 500, num_frames=16)
    assert (remembered[3] != remembered[0]).any()


def _columns(events):
    return events.t, events.x, events.y, events.p


def test_the_chunk_length_changes_rows_and_fingerprint(weights):
    """Neurons forget every chunk_steps rows: later rows differ, and so does the feature set."""
    events = make_events()
    whole, chunked = published_of(weights), published_of(weights, chunk_steps=3)
    prints = {e.spec().fingerprint for e in (whole, chunked, encoder_of(weights))}
    first, second = rows_of(whole, events, 500), rows_of(chunked, events, 500)
    np.testing.assert_array_equal(first[:3], second[:3])
    assert (first[3:] != second[3:]).any()
    assert len(prints) == 3


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
    with pytest.raises(ConfigError, match="must divide the 4 frames"):
        encoder_of(weights, steps_per_snippet=3)
    with pytest.raises(ConfigError, match="one time step"):
        published_of(weights, steps_per_snippet=2)
    with pytest.raises(ConfigError, match="belongs to compat"):
        encoder_of(weights, chunk_steps=3)
    with pytest.raises(ConfigError, match="the published form is msf_2025"):
        encoder_of(weights, compat="ief_vad_2025")


def test_torch_checkpoints_load(weights, tmp_path):
    """A checkpoint under 'state_dict' with data-parallel names gives the same features."""
    state = {f"module.{name}": value for name, value in make_state().items()}
    torch.save({"state_dict": state}, tmp_path / "model.pth")
    ours = encoder_of(str(tmp_path / "model.pth"))
    assert ours.spec().fingerprint == encoder_of(weights).spec().fingerprint
