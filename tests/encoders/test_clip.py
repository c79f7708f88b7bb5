"""CLIP encoders with small random towers: weights, crops, pooling, batching."""

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from outspike.config import EncoderConfig
from outspike.encoders import build
from outspike.encoders.base import SourceInfo
from outspike.encoders.clip_weights import digest, load_tower
from outspike.encoders.crops import Crops
from outspike.errors import CheckpointError, ConfigError
from outspike.timebase import SnippetGrid
from outspike.video.decode import FrameChunk

GRID = SnippetGrid(snippet_frames=4, stride=4)
SOURCE = SourceInfo(modality="video", width=40, height=36, fps=Fraction(25))


def make_model(seed=0, image_size=32):
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    torch.manual_seed(seed)
    config = CLIPVisionConfig(
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=1,
        image_size=image_size,
        patch_size=8,
        projection_dim=12,
    )
    model = CLIPVisionModelWithProjection(config).eval()
    with torch.no_grad():  # the usual initialisation gives embeddings that hardly differ
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


@pytest.fixture(scope="module")
def model():
    return make_model()


@pytest.fixture(scope="module")
def weights(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip")
    model.save_pretrained(folder)
    return str(folder)


def config_of(weights, kind="clip", **changes):
    return EncoderConfig(**{"kind": kind, "grid": GRID, "weights": weights} | changes)


def make_frames(num_frames, seed=0, size=(36, 40)):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (num_frames, *size, 3), dtype=np.uint8)


def rows_of(encoder, frames, cuts=()):
    stream = encoder.open(SOURCE)
    borders = [0, *sorted(set(cuts) & set(range(1, len(frames)))), len(frames)]
    parts = [stream.push(FrameChunk(a, frames[a:b])) for a, b in pairwise(borders)]
    return np.concatenate([*parts, stream.finish(len(frames))])


@pytest.mark.parametrize("kind", ["clip", "event-clip"])
@pytest.mark.parametrize("crops", ["centre", "ten"])
def test_rows_do_not_depend_on_chunk_borders(weights, kind, crops):
    """Any cutting of the frames gives the same bits: batches have fixed shapes and places."""
    encoder = build(config_of(weights, kind, crops=crops))

    @settings(max_examples=5, deadline=None)
    @given(num_frames=st.integers(1, 14), cuts=st.lists(st.integers(1, 13), max_size=4))
    def check(num_frames, cuts):
        frames = make_frames(num_frames)
        whole = rows_of(encoder, frames)
        assert whole.tobytes() == rows_of(encoder, frames, cuts).tobytes()
        assert whole.shape == (GRID.num_snippets(num_frames), 10 if crops == "ten" else 1, 12)

    check()


def test_a_row_is_the_mean_embedding_of_its_frames(model, weights):
    """Rows equal the model applied by hand to normalised centre crops, short last row included."""
    frames = make_frames(6, size=(32, 32))
    rows = rows_of(build(config_of(weights)), frames)
    mean = np.array([0.48145466, 0.4578275, 0.40821073], dtype=np.float32)
    std = np.array([0.26862954, 0.26130258, 0.27577711], dtype=np.float32)
    pixels = torch.from_numpy((frames / np.float32(255) - mean) / std).permute(0, 3, 1, 2).float()
    with torch.inference_mode():
        embedded = model(pixel_values=pixels).image_embeds.numpy()
    np.testing.assert_allclose(rows[0, 0], embedded[:4].mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(rows[1, 0], embedded[4:].mean(axis=0), atol=1e-5)


def test_event_pictures_are_scaled_by_the_number_of_differences(model, weights):
    """A pixel that changes at every frame is 1 in the picture, in full and in short snippets."""
    frames = np.zeros((6, 32, 32, 3), dtype=np.uint8)
    frames[1::2, 8:16, 8:16] = 200
    rows = rows_of(build(config_of(weights, "event-clip")), frames)
    picture = torch.zeros((1, 3, 32, 32))
    picture[:, :, 8:16, 8:16] = 1
    with torch.inference_mode():
        expected = model(pixel_values=picture).image_embeds.numpy()
    np.testing.assert_allclose(rows[:, 0], np.repeat(expected, 2, axis=0), atol=1e-5)


def test_a_row_does_not_depend_on_its_neighbours(weights):
    """The same snippet gives the same event picture whatever comes before and after."""
    encoder = build(config_of(weights, "event-clip"))
    frames = make_frames(12)
    alone = rows_of(encoder, frames[4:8])
    np.testing.assert_allclose(rows_of(encoder, frames)[1], alone[0], atol=1e-5)


@pytest.mark.parametrize("size", [(32, 32), (36, 40), (90, 35), (20, 64)])
def test_ten_crops_are_one_resize_cut_ten_times(size):
    """Crops lie where they should, and the last five mirror the first five."""
    crops = Crops(size=32, layout="ten")
    resized = crops.resize(make_frames(2, size=size))
    assert min(resized.shape[1:3]) == 36
    cut = crops.cut(resized)
    assert cut.shape == (2, 10, 32, 32, 3)
    np.testing.assert_array_equal(cut[:, 5:], cut[:, :5, :, ::-1])
    np.testing.assert_array_equal(cut[:, 1], resized[:, :32, :32])
    np.testing.assert_array_equal(cut[:, 4], resized[:, -32:, -32:])


@pytest.mark.parametrize("layout", ["centre", "ten"])
def test_crops_of_tensors_are_those_of_arrays(layout):
    """What the device cuts has the same bytes, mirrored crops included."""
    crops = Crops(size=32, layout=layout)
    resized = crops.resize(make_frames(3, size=(41, 57)))
    batch = torch.empty((3, crops.num_crops, 3, 32, 32), dtype=torch.uint8)
    crops.cut_into(batch, torch.from_numpy(resized).permute(0, 3, 1, 2))
    np.testing.assert_array_equal(batch.permute(0, 1, 3, 4, 2).numpy(), crops.cut(resized))


@pytest.mark.parametrize("layout", ["centre", "ten"])
@pytest.mark.parametrize("size", [(36, 36), (41, 57), (90, 36)])
def test_crops_cut_and_normalised_in_one_pass_have_the_bits_of_two(weights, layout, size):
    """The table of 256 levels and the compiled loop are the device's arithmetic exactly."""
    encoder = build(config_of(weights, crops=layout))
    stream = encoder.open(SOURCE)
    list(stream.add(make_frames(4, seed=1, size=size)))
    frames = make_frames(3, size=size)
    list(stream.add(frames))
    levels = torch.from_numpy(frames).permute(0, 3, 1, 2).float().contiguous()
    expected = torch.empty((3, *stream._pictures.shape[1:]))
    encoder.crops.cut_into(expected, stream._normalised(levels))
    assert torch.equal(stream._pictures[:3], expected)
    assert not stream._pictures[3:].any()
    assert stream._pictures.data_ptr() % 64 == 0  # else the crops do not go past the caches


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["clip", "event-clip"])
def test_a_gpu_gives_the_rows_of_the_cpu(weights, kind):
    """Ten crops cut and embedded on the device, within rounding; full and short snippets."""
    frames = make_frames(10, size=(60, 90))
    there, here = (
        rows_of(build(config_of(weights, kind, crops="ten", device=device)), frames)
        for device in ("cuda", "cpu")
    )
    np.testing.assert_allclose(there, here, atol=2e-3 * np.abs(here).max())


def test_preprocessing_is_close_to_pil():
    """Antialiased bicubic on uint8 is within one grey level of PIL's on nearly all values."""
    image = pytest.importorskip("PIL.Image")
    frame = make_frames(1, size=(120, 90))
    ours = Crops(size=32).resize(frame)[0].astype(int)
    theirs = np.asarray(image.fromarray(frame[0]).resize((32, 43), image.Resampling.BICUBIC))
    difference = np.abs(ours - theirs)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.02


def openai_names(model):
    """The state of a transformers tower under OpenAI's names."""
    state = {k: v.detach().clone() for k, v in model.state_dict().items()}
    vision = "vision_model."
    renamed = {
        "class_embedding": state[f"{vision}embeddings.class_embedding"],
        "positional_embedding": state[f"{vision}embeddings.position_embedding.weight"],
        "conv1.weight": state[f"{vision}embeddings.patch_embedding.weight"],
        "proj": state["visual_projection.weight"].T,
    }
    for ours, theirs in (("ln_pre", "pre_layrnorm"), ("ln_post", "post_layernorm")):
        for kind in ("weight", "bias"):
            renamed[f"{ours}.{kind}"] = state[f"{vision}{theirs}.{kind}"]
    pairs = {
        "ln_1": "layer_norm1",
        "ln_2": "layer_norm2",
        "attn.out_proj": "self_attn.out_proj",
        "mlp.c_fc": "mlp.fc1",
        "mlp.c_proj": "mlp.fc2",
    }
    for i in range(2):
        block, layer = f"transformer.resblocks.{i}.", f"{vision}encoder.layers.{i}."
        for kind in ("weight", "bias"):
            renamed[f"{block}attn.in_proj_{kind}"] = torch.cat(
                [state[f"{layer}self_attn.{letter}_proj.{kind}"] for letter in "qkv"]
            )
            for ours, theirs in pairs.items():
                renamed[f"{block}{ours}.{kind}"] = state[f"{layer}{theirs}.{kind}"]
    return renamed


@pytest.mark.parametrize("published", [True, False])
def test_published_event_clip_files_load(model, tmp_path, published):
    """A checkpoint with OpenAI names, also under encoder_k beside other entries, is the tower."""
    prefix = "module.encoder_k.visual." if published else "visual."
    state = {prefix + name: value for name, value in openai_names(model).items()}
    if published:
        state = {"checkpoint": state | {"module.encoder_q.visual.proj": torch.zeros(2, 2)}}
    torch.save(state, tmp_path / "vit.pt")
    tower = load_tower(str(tmp_path / "vit.pt"), "event-clip")
    assert tower.digest == digest(model.state_dict())
    pixels = torch.rand(2, 3, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(tower(pixels), model(pixel_values=pixels).image_embeds)


def test_incomplete_weights_are_refused(model, tmp_path):
    """A missing tensor is named in the error; it never becomes random numbers."""
    folder = tmp_path / "folder"
    state = {k: v for k, v in model.state_dict().items() if "fc1.bias" not in k}
    model.save_pretrained(folder, state_dict=state)
    with pytest.raises(CheckpointError, match="fc1"):
        load_tower(str(folder), "clip")
    names = openai_names(model)
    del names["transformer.resblocks.1.ln_2.bias"]
    torch.save({f"visual.{k}": v for k, v in names.items()}, tmp_path / "vit.pt")
    with pytest.raises(CheckpointError, match=r"layers\.1\.layer_norm2\.bias"):
        load_tower(str(tmp_path / "vit.pt"), "event-clip")


def test_missing_and_foreign_weights_are_refused(tmp_path):
    """No weights, an absent folder, an empty folder and a foreign file each say what to do."""
    with pytest.raises(ConfigError, match="set weights="):
        load_tower(None, "clip")
    with pytest.raises(ConfigError, match="holds no CLIP"):
        load_tower(str(tmp_path), "clip")
    with pytest.raises(ConfigError, match="no local folder"):
        load_tower(str(tmp_path / "absent"), "clip")
    (tmp_path / "text.pt").write_text("not a checkpoint")
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        load_tower(str(tmp_path / "text.pt"), "event-clip")
    torch.save({"weight": torch.zeros(2)}, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match="visual"):
        load_tower(str(tmp_path / "other.pt"), "event-clip")


def test_weights_and_settings_are_in_the_fingerprint(weights, tmp_path):
    """Other weights, crops, threshold or kind give another fingerprint; another path does not."""
    make_model(seed=1).save_pretrained(tmp_path / "other")
    make_model(seed=0).save_pretrained(tmp_path / "copy")
    configs = [
        config_of(weights),
        config_of(str(tmp_path / "other")),
        config_of(weights, crops="ten"),
        config_of(weights, "event-clip"),
        config_of(weights, "event-clip", event_threshold=25.0),
    ]
    prints = [build(config).spec().fingerprint for config in configs]
    assert len(set(prints)) == len(prints)
    assert build(config_of(str(tmp_path / "copy"))).spec().fingerprint == prints[0]


def test_settings_that_contradict_each_other_are_refused(weights):
    """The published form fixes grid and crop size; a pyramid takes no crops or weights."""
    with pytest.raises(ConfigError, match="defined on the grid"):
        build(config_of(weights, compat="ief_vad_2025"))
    with pytest.raises(ConfigError, match="224"):
        build(config_of(weights, compat="ief_vad_2025", grid=SnippetGrid(tail="ief_vad_2025")))
    for setting in ({"crops": "ten"}, {"weights": "x"}, {"compat": "ief_vad_2025"}):
        with pytest.raises(ConfigError, match="event-pyramid takes no"):
            build(EncoderConfig(kind="event-pyramid", **setting))
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="not available here"):
            build(config_of(weights, device="cuda"))
