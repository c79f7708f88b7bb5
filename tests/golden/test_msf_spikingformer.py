"""Published Spikingformer extractor: stages, features, and the effect of resetting in chunks."""

import numpy as np
import pytest
import torch

from outspike.encoders.spikingformer_model import SpikingformerConfig, from_state_dict

TOLERANCE = {"atol": 1e-5, "rtol": 1e-5}


@pytest.fixture
def model(golden):
    width, depth, heads, size, mlp_ratio = golden["cfg/embed_dims_depth_heads_hw_mlpratio"].tolist()
    config = SpikingformerConfig(
        width=width, depth=depth, heads=heads, size=size, mlp_ratio=mlp_ratio
    )
    state = {name: torch.from_numpy(value) for name, value in golden.group("state/").items()}
    return from_state_dict(state, config)


def frames_of(golden):
    """Event frames, time first: ``[T, N, P, H, W]``."""
    return torch.from_numpy(golden["in/frames"]).float().transpose(0, 1)


@pytest.mark.golden("msf/spikingformer*.npz")
def test_every_stage_repeats_the_reference(golden, model):
    """Tokens, block outputs and features equal the published network's."""
    stages = model.stages(frames_of(golden))
    np.testing.assert_allclose(stages[0], golden["stage/patch_embed"], **TOLERANCE)
    for i, stage in enumerate(stages[1:]):
        np.testing.assert_allclose(stage, golden[f"stage/block_{i}"], **TOLERANCE)
    model.reset()
    features = model(frames_of(golden))
    np.testing.assert_allclose(features, golden["out/features"], **TOLERANCE)
    np.testing.assert_allclose(features.flatten(1), golden["out/features_flat"], **TOLERANCE)


@pytest.mark.golden("msf/spikingformer*.npz")
def test_membranes_carry_over_pieces_and_are_lost_at_resets(golden, model):
    """One step at a time equals the whole clip; a reset every second step is another feature."""
    clip = frames_of(golden)[:, :1]
    steps = torch.cat([model(clip[t : t + 1]) for t in range(len(clip))])[:, 0]
    np.testing.assert_allclose(steps, golden["out/first_clip_whole"], **TOLERANCE)
    chunks = []
    for t in range(0, len(clip), 2):
        model.reset()
        chunks.append(model(clip[t : t + 2])[:, 0])
    np.testing.assert_allclose(torch.cat(chunks), golden["out/first_clip_chunk2"], **TOLERANCE)
