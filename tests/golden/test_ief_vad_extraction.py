"""Published IEF-VAD extraction: crops, synthetic events, and both encoders end to end."""

import hashlib
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
import torch

from outspike.config import EncoderConfig
from outspike.encoders.base import SourceInfo
from outspike.encoders.clip import ClipFrames, EventClip
from outspike.encoders.crops import Crops
from outspike.events.simulate import ief_event_images, ief_threshold_counts
from outspike.timebase import SnippetGrid
from outspike.video.decode import FrameChunk

GRID = SnippetGrid(tail="ief_vad_2025")


class ToyTower(torch.nn.Module):
    """The stand-in encoder of the golden run: 32 x 32 average pooling, then one matrix."""

    image_size = 224
    digest = "toy"

    def __init__(self, matrix):
        super().__init__()
        self.matrix = torch.from_numpy(matrix)
        self.width = matrix.shape[1]
        self.architecture = {}

    def forward(self, pictures):
        pooled = torch.nn.functional.avg_pool2d(pictures, 32)
        return pooled.flatten(1) @ self.matrix


def rows_of(encoder, frames, chunk_frames):
    source = SourceInfo(
        modality="video", width=frames.shape[2], height=frames.shape[1], fps=Fraction(30)
    )
    stream = encoder.open(source)
    borders = [*range(0, len(frames), chunk_frames), len(frames)]
    parts = [stream.push(FrameChunk(a, frames[a:b])) for a, b in pairwise(borders)]
    return np.concatenate([*parts, stream.finish(len(frames))])


@pytest.mark.golden("ief_vad/ten_crop*.npz")
def test_crops_have_the_published_bytes(golden):
    """Resized frames and all ten crops equal OpenCV's byte for byte."""
    crops = Crops(size=224, layout="ten", exact_ief_2025=True)
    for key, frames_bgr in golden.group("in/").items():
        case = key.removesuffix("_frames_bgr")
        resized = crops.resize(frames_bgr[..., ::-1])
        np.testing.assert_array_equal(resized, golden[f"out/{case}_resized_rgb"])
        cut = crops.cut(resized)
        for k, expected in enumerate(golden[f"out/{case}_crop_sha256"]):
            found = hashlib.sha256(np.ascontiguousarray(cut[:, k]).tobytes()).hexdigest()
            assert found == expected, f"{case}, crop {k}"


@pytest.mark.golden("ief_vad/synthetic_event*.npz")
def test_synthetic_events_are_the_published_ones(golden):
    """Counts, full and tail buffers equal the reference; a static buffer gives zeros, not NaN."""
    frames = golden["in/frames_rgb"]
    for key in golden.group("out/count_thr"):
        counts = ief_threshold_counts(frames, float(key))
        np.testing.assert_array_equal(counts, golden[f"out/count_thr{key}"])
        for name, tail in (("full_batch", False), ("tail", True)):
            found = ief_event_images(counts, tail=tail)
            np.testing.assert_allclose(found, golden[f"out/{name}_thr{key}"], atol=1e-6)
        static = ief_event_images(np.zeros_like(counts[:1]), tail=False)
        np.testing.assert_array_equal(static[:, 0], golden[f"out/static_only_xd_variant_thr{key}"])


@pytest.mark.golden("ief_vad/snippet_count*.npz")
def test_the_grid_counts_the_published_snippets(golden):
    """The tail rule writes as many rows as the reference loop (none where its event loop fails)."""
    for num_frames, expected in zip(
        golden["in/n_frames"], golden["out/rgb_n_snippets"], strict=True
    ):
        assert GRID.num_snippets(int(num_frames)) == expected


@pytest.mark.golden("ief_vad/extraction_toy*.npz")
@pytest.mark.parametrize("chunk_frames", [23])
def test_extraction_repeats_the_reference_loop(golden, chunk_frames):
    """Frames through both encoders, all ten crops, equal the reference whatever the chunks."""
    frames = np.ascontiguousarray(golden["in/frames_bgr"][..., ::-1])
    tower = ToyTower(golden["in/encoder_matrix"])

    def config(kind, threshold=10.0):
        return EncoderConfig(
            kind=kind, grid=GRID, crops="ten", compat="ief_vad_2025", event_threshold=threshold
        )

    def compare(rows, prefix):
        for k in range(10):
            expected = np.nan_to_num(golden[f"out/{prefix}_crop{k}"])  # static buffers: zeros here
            # The toy run has shorter buffers, so its tail rule may leave out one row more.
            assert len(expected) <= len(rows) <= len(expected) + 1
            np.testing.assert_allclose(
                rows[: len(expected), k], expected, atol=1e-5, rtol=1e-4, err_msg=f"{prefix} {k}"
            )

    compare(rows_of(ClipFrames(config("clip"), tower), frames, chunk_frames), "rgb")
    thresholds = {k.partition("_crop")[0] for k in golden.group("out/event_thr")}
    for threshold in thresholds:
        encoder = EventClip(
            config("event-clip", float(threshold)),
            tower,
            buffer_snippets=int(golden["in/batch_chunks"]),
        )
        compare(rows_of(encoder, frames, chunk_frames), f"event_thr{threshold}")
