"""I3D: layer arithmetic, strict weights, crops, scales, flow channels, tails."""

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional

from outspike.config import EncoderConfig
from outspike.encoders import build
from outspike.encoders.base import SourceInfo
from outspike.encoders.flow import TvL1
from outspike.encoders.i3d_model import I3d, from_state_dict, same_padding
from outspike.errors import CheckpointError, ConfigError
from outspike.timebase import SnippetGrid
from outspike.video.decode import FrameChunk

SOURCE = SourceInfo(modality="video", width=64, height=48, fps=Fraction(25))
#: Output [C, T, H, W] of every stage for 16 x 224 x 224, from the specification's table.
STAGES = {
    "conv3d_1a_7x7": (64, 8, 112, 112),
    "maxPool3d_2a_3x3": (64, 8, 56, 56),
    "conv3d_2b_1x1": (64, 8, 56, 56),
    "conv3d_2c_3x3": (192, 8, 56, 56),
    "maxPool3d_3a_3x3": (192, 8, 28, 28),
    "mixed_3b": (256, 8, 28, 28),
    "mixed_3c": (480, 8, 28, 28),
    "maxPool3d_4a_3x3": (480, 4, 14, 14),
    "mixed_4b": (512, 4, 14, 14),
    "mixed_4c": (512, 4, 14, 14),
    "mixed_4d": (512, 4, 14, 14),
    "mixed_4e": (528, 4, 14, 14),
    "mixed_4f": (832, 4, 14, 14),
    "maxPool3d_5a_2x2": (832, 2, 7, 7),
    "mixed_5b": (832, 2, 7, 7),
    "mixed_5c": (1024, 2, 7, 7),
}


def published_state(channels, prefix=""):
    """A state as published: with classifier, without counters of batch norms."""
    torch.manual_seed(channels)
    state = {k: v for k, v in I3d(channels).state_dict().items() if v.is_floating_point()}
    state["conv3d_0c_1x1.conv3d.weight"] = torch.zeros(400, 1024, 1, 1, 1)
    state["conv3d_0c_1x1.conv3d.bias"] = torch.zeros(400)
    return {prefix + name: value for name, value in state.items()}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("i3d")
    for name, channels in (("rgb", 3), ("flow", 2)):
        save_file(published_state(channels), folder / f"{name}.safetensors")
    return {name: str(folder / f"{name}.safetensors") for name in ("rgb", "flow")}


def rows_of(encoder, frames, cuts=()):
    stream = encoder.open(SOURCE)
    borders = [0, *cuts, len(frames)]
    parts = [stream.push(FrameChunk(a, frames[a:b])) for a, b in pairwise(borders)]
    return np.concatenate([*parts, stream.finish(len(frames))])


def make_frames(num_frames, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (num_frames, 48, 64, 3), dtype=np.uint8)


class Recorder(torch.nn.Module):
    """In place of the network: keeps the clips it is given."""

    def __init__(self):
        super().__init__()
        self.clips = []

    def forward(self, clips):
        self.clips.append(clips.clone())
        return clips.mean(dim=(1, 2, 3, 4))[:, None].expand(-1, 1024)


def recording_encoder(weights, kind="i3d-rgb", **changes):
    path = weights["flow" if kind == "i3d-flow" else "rgb"]
    extra = {"flow_weights": weights["flow"]} if kind == "i3d-combine" else {}
    encoder = build(EncoderConfig(**{"kind": kind, "weights": path, **extra} | changes))
    encoder.networks = {stream: Recorder() for stream in encoder.streams}
    encoder.flow = TvL1(num_scales=1, num_warps=1, num_iterations=2)
    return encoder


@pytest.mark.slow
def test_every_stage_has_the_published_shape_and_the_feature_is_the_pooled_last(weights):
    """16 x 224 x 224 through every stage of the table, and 1024 values at the end."""
    model = I3d(2)
    x = torch.rand(1, 2, 16, 224, 224)
    whole = model(x)
    assert model.stage_names == tuple(STAGES)
    for name, shape in STAGES.items():
        x = model.get_submodule(name)(x)
        assert tuple(x.shape[1:]) == shape, name
    torch.testing.assert_close(whole, x.mean(dim=(2, 3, 4)))


def test_the_network_has_the_published_number_of_parameters():
    """12,287,264 values of RGB before the classifier; flow has 64 x 343 fewer."""
    with torch.device("meta"):
        rgb, flow = (sum(p.numel() for p in I3d(c).parameters()) for c in (3, 2))
    assert (rgb, rgb - flow) == (12_287_264, 64 * 343)


@pytest.mark.parametrize(
    ("kernel", "stride", "sizes"),
    [
        ((7, 7, 7), (2, 2, 2), (6, 8, 10)),
        ((1, 3, 3), (1, 2, 2), (3, 8, 6)),
        ((3,) * 3, (1,) * 3, (4, 5, 6)),
    ],
)
def test_padding_is_tensorflows(kernel, stride, sizes):
    """The smaller half first, kernel - stride in all; sizes that divide shrink by the stride."""
    padded = functional.pad(torch.zeros(1, 1, *sizes), same_padding(kernel, stride))
    assert [p - s for p, s in zip(padded.shape[2:], sizes, strict=True)] == [
        max(k - s, 0) for k, s in zip(kernel, stride, strict=True)
    ]
    out = functional.max_pool3d(padded, kernel, stride)
    assert list(out.shape[2:]) == [-(-n // s) for n, s in zip(sizes, stride, strict=True)]
    assert same_padding((7, 3, 1), (2, 2, 1)) == [0, 0, 0, 1, 2, 3]


def test_published_states_load_strictly():
    """Prefix and classifier are taken off; every other difference is listed."""
    from_state_dict(published_state(3, prefix="module."), 3)
    state = published_state(3)
    del state["mixed_4b.branch_1.0.batch3d.weight"]
    state["mixed_9z.conv3d.weight"] = torch.zeros(1)
    with pytest.raises(CheckpointError) as caught:
        from_state_dict(state, 2)
    message = str(caught.value)
    assert "missing mixed_4b.branch_1.0.batch3d.weight" in message
    assert "unknown mixed_9z.conv3d.weight" in message
    assert "conv3d_1a_7x7.conv3d.weight is (64, 3, 7, 7, 7), expected (64, 2, 7, 7, 7)" in message


def test_ten_crops_of_a_clip_have_the_published_places_and_scale(weights):
    """340 x 256, centre first, corners, mirrors; 2v/255 - 1."""
    encoder = recording_encoder(weights, crops="ten")
    frames = make_frames(16)
    rows = rows_of(encoder, frames)
    assert rows.shape == (1, 10, 1024)
    (clips,) = encoder.networks["rgb"].clips
    assert clips.shape == (10, 3, 16, 224, 224)
    resized = encoder.resized(frames[5]).astype(np.float32) * (2 / 255) - 1
    assert resized.shape == (256, 340, 3)
    picture = clips[:, :, 5].permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(picture[0], resized[16:240, 58:282], atol=1e-6)
    np.testing.assert_allclose(picture[4], resized[32:, 116:], atol=1e-6)
    np.testing.assert_allclose(picture[5:], picture[:5, :, ::-1], atol=0)
    assert clips.min() >= -1
    assert clips.max() <= 1


def test_the_lad_recipe_squashes_and_leaves_values_alone(weights):
    """The whole frame at 224 x 224, one crop, 0..255, tail dropped."""
    grid = SnippetGrid(tail="drop")
    encoder = recording_encoder(weights, crops="whole", scale="raw255", grid=grid)
    frames = np.full((20, 48, 64, 3), 200, dtype=np.uint8)
    assert rows_of(encoder, frames).shape == (1, 1, 1024)
    (clips,) = encoder.networks["rgb"].clips
    assert clips.shape == (1, 3, 16, 224, 224)
    assert (clips == 200).all()


def test_a_short_clip_repeats_its_last_frame(weights):
    """As many rows as clips begin, and nothing but real frames in the last."""
    encoder = recording_encoder(weights)
    frames = make_frames(19)
    assert rows_of(encoder, frames).shape[0] == 2
    last = encoder.networks["rgb"].clips[1][0]
    assert not torch.equal(last[:, 1], last[:, 2])
    for t in range(3, 16):
        assert torch.equal(last[:, t], last[:, 2])


@pytest.mark.parametrize("kind", ["i3d-rgb", "i3d-combine"])
def test_rows_do_not_depend_on_chunks(weights, kind):
    """A frame's flow needs the next frame, whichever chunk it comes in."""
    frames = make_frames(18)
    whole = rows_of(recording_encoder(weights, kind), frames)
    assert whole.shape == (2, 1, 1024 if kind == "i3d-rgb" else 2048)
    again = rows_of(recording_encoder(weights, kind), frames, cuts=(1, 2, 9, 16, 17))
    assert whole.tobytes() == again.tobytes()


def moving_frames(num_frames):
    """A bright square that moves two pixels to the right a frame, on the working size."""
    frames = np.zeros((num_frames, 256, 340, 3), dtype=np.uint8)
    for i, frame in enumerate(frames):
        frame[100:160, 100 + 2 * i : 160 + 2 * i] = 255
    return frames


def test_flow_fields_point_to_the_next_frame_and_mirrors_point_back(weights):
    """Right is positive in the first channel; mirrored crops see it move left; 20 pixels are 1."""
    encoder = recording_encoder(weights, "i3d-flow", crops="ten")
    encoder.flow = TvL1(num_scales=3, num_warps=2, num_iterations=10)
    rows_of(encoder, moving_frames(2))
    (clips,) = encoder.networks["flow"].clips
    assert clips.shape == (10, 2, 16, 224, 224)
    assert torch.equal(clips[5:, 0], -clips[:5, 0].flip(-1))
    assert torch.equal(clips[5:, 1], clips[:5, 1].flip(-1))
    moved = clips[0, 0, 0, 84:144, 42:104]
    assert 1.0 < float(moved.abs().amax()) * 20 < 4.0
    assert moved.mean() > 0
    assert torch.equal(clips[:, :, 0], clips[:, :, 15])  # the last field is repeated


def test_published_lad_flow_has_its_horizontal_field_twice(weights):
    """flow="xx" with raw255: grey levels of flow pictures, 127 or 128 where nothing moves."""
    encoder = recording_encoder(weights, "i3d-flow", crops="whole", scale="raw255", flow="xx")
    rows_of(encoder, moving_frames(3))
    (clips,) = encoder.networks["flow"].clips
    assert torch.equal(clips[:, 0], clips[:, 1])
    assert torch.equal(clips, clips.round())
    assert clips[0, 0, 0, 0, 0] in (127, 128)


def test_what_decides_a_feature_is_in_its_identity(weights):
    """Kind, crops, scale, flow channels and tail make other feature sets."""
    plain = {"kind": "i3d-flow", "weights": weights["flow"]}
    configs = [
        plain,
        {"kind": "i3d-rgb", "weights": weights["rgb"]},
        plain | {"crops": "ten"},
        plain | {"crops": "whole"},
        plain | {"scale": "raw255"},
        plain | {"flow": "xx"},
        plain | {"grid": SnippetGrid(tail="drop")},
    ]
    prints = {build(EncoderConfig(**config)).spec().fingerprint for config in configs}
    assert len(prints) == len(configs)


def test_it_refuses_what_it_cannot_do(weights, tmp_path):
    """No weights, weights of the other stream, other clips: one clear line each."""
    with pytest.raises(ConfigError, match="i3d-rgb needs pretrained weights"):
        build(EncoderConfig(kind="i3d-rgb"))
    with pytest.raises(ConfigError, match="flow_weights="):
        build(EncoderConfig(kind="i3d-combine", weights=weights["rgb"]))
    with pytest.raises(CheckpointError, match="3 input channels"):
        build(EncoderConfig(kind="i3d-rgb", weights=weights["flow"]))
    with pytest.raises(ConfigError, match="clips of 16 frames"):
        build(
            EncoderConfig(
                kind="i3d-rgb", weights=weights["rgb"], grid=SnippetGrid(snippet_frames=8, stride=8)
            )
        )
    with pytest.raises(ConfigError, match="takes no scale"):
        build(EncoderConfig(kind="clip", scale="raw255"))
    with pytest.raises(ConfigError, match="'whole' is I3D's"):
        build(EncoderConfig(kind="clip", crops="whole", weights="nowhere"))
