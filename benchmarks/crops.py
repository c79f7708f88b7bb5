"""Ten-crop CLIP preprocessing of a video: the published loop against one decode and one resize.

    python benchmarks/crops.py [--video FILE] [--frames 160] [--rounds 3]
    python benchmarks/crops.py --drift --frames 32 [--video FILE]

The published extraction (``ief_vad.md`` 2.1 and 2.2) makes one crop at a time: for each of ten it
decodes the video, resizes every frame to 340 x 256, cuts 224 x 224 and puts it through CLIP's
transform. Ours decodes once, resizes once, normalises once, and cuts ten crops out of that. Both
end with normalised batches for the tower; how far those of ``compat="ief_vad_2025"`` lie from the
published ones (two decoders turn YUV into RGB differently) is printed first. Forms take turns;
times are seconds of processor time of all processes.

``--drift`` measures instead how far features of the default geometry (aspect kept, antialiased
bicubic) lie from those of the published one: cosines of rows of a CLIP ViT-B/32 with random
weights. Some 50 ms of processor time a picture, and twice ten pictures a frame.
"""

import argparse
import statistics
import tempfile
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from PIL import Image
from textures import textured_video
from torch import Tensor

from outspike.config import EncoderConfig
from outspike.encoders.clip import ClipFrames
from outspike.recording import Recording
from outspike.scoring.encode import encode_recording
from outspike.timebase import SnippetGrid
from outspike.video.decode import decode
from outspike.video.write import write_mp4

SNIPPET = 16
_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)
#: Upper left corners of the crops that are not mirrored, of a picture of 340 x 256.
_CORNERS = ((16, 58), (0, 0), (0, 116), (32, 0), (32, 116))


class Sink(torch.nn.Module):
    """Takes batches as a tower does; keeps the first one if asked to."""

    image_size, width, digest, architecture = 224, 3, "none", {}

    def __init__(self, *, keeps_first: bool = False) -> None:
        super().__init__()
        self.first: Tensor | None = None
        self._keeps_first = keeps_first

    def forward(self, pictures: Tensor) -> Tensor:
        """Means of two pixel rows, so that next to nothing is computed."""
        if self.first is None and self._keeps_first:
            self.first = pictures.clone()
        return pictures[:, :, :2].mean(dim=(2, 3))


def published(video: str, num_frames: int) -> Iterator[Tensor]:
    """Batches ``[16, 3, 224, 224]``, crop after crop, each from a decode of its own."""
    for crop in range(10):
        top, left = _CORNERS[crop % 5]
        capture = cv2.VideoCapture(video)
        frames = _read(capture, num_frames)
        while snippet := list(islice(frames, SNIPPET)):
            cut = []
            for frame in snippet:
                small = cv2.cvtColor(cv2.resize(frame, (340, 256)), cv2.COLOR_BGR2RGB)
                picture = small[top : top + 224, left : left + 224]
                cut.append(clip_transform(picture[:, ::-1] if crop >= 5 else picture))
            yield torch.stack(cut)
        capture.release()


def _read(capture: "cv2.VideoCapture", num_frames: int) -> Iterator[NDArray[np.uint8]]:
    for _ in range(num_frames):
        more, frame = capture.read()
        if not more:
            return
        yield frame


def clip_transform(picture: NDArray[np.uint8]) -> Tensor:
    """CLIP's own: to PIL, resize and centre crop (identities here), to a tensor, normalise."""
    image = Image.fromarray(np.ascontiguousarray(picture))
    image = image.resize((224, 224), Image.Resampling.BICUBIC).convert("RGB")
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float().div(255)
    mean, std = (torch.tensor(values).reshape(3, 1, 1) for values in (_MEAN, _STD))
    return pixels.sub_(mean).div_(std)


def encoder_of(compat: str | None, sink: Sink) -> ClipFrames:
    """The product's encoder, which a job keeps from video to video."""
    grid = SnippetGrid(tail="ief_vad_2025") if compat else SnippetGrid()
    config = EncoderConfig(kind="clip", crops="ten", compat=compat, grid=grid)  # type: ignore[arg-type]
    return ClipFrames(config, sink)


def ours(video: str, encoder: ClipFrames) -> int:
    """The product's own path, decoding child included; returns the number of frames."""
    recording = Recording(dataset="bench", video_id="video", url=video)
    return encode_recording(recording, [encoder], emit=lambda *rows: None).num_frames


def check(video: str) -> None:
    """Same first batch, crop by crop, up to the decoder's conversion to RGB."""
    sink = Sink(keeps_first=True)
    ours(video, encoder_of("ief_vad_2025", sink))
    assert sink.first is not None
    mine = sink.first.reshape(SNIPPET, 10, 3, 224, 224)
    batches = published(video, SNIPPET)
    worst = max(float((mine[:, k] - batch).abs().max()) for k, batch in enumerate(batches))
    grey_levels = worst * max(_STD) * 255
    print(f"largest difference to the published batches: {grey_levels:.2f} grey levels")


def drift(video: str) -> None:
    """Cosines between features of both geometries, and between neighbouring snippets."""
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        CLIPVisionModelWithProjection(CLIPVisionConfig(patch_size=32)).save_pretrained(folder)
        found = {}
        for compat in ("ief_vad_2025", None):
            config = EncoderConfig(
                kind="clip",
                weights=folder,
                crops="ten",
                compat=compat,  # type: ignore[arg-type]
                grid=SnippetGrid(tail="ief_vad_2025"),
            )
            rows: list[NDArray[np.floating]] = []
            encode_recording(
                Recording(dataset="bench", video_id="video", url=video),
                [ClipFrames(config)],
                emit=lambda name, made, start, stop, rows=rows: rows.append(made),
            )
            found[compat] = np.concatenate(rows).astype(np.float64)
    reference = found["ief_vad_2025"]
    scale = np.abs(reference).max()
    shift = cosines(reference, found[None])
    steps = cosines(reference[1:], reference[:-1])
    print(
        f"{len(reference)} snippets x 10 crops: cosine to the published geometry at least "
        f"{shift.min():.4f}, mean {shift.mean():.4f}; largest difference "
        f"{np.abs(reference - found[None]).max() / scale:.3f} of the largest value; "
        f"neighbouring snippets of one video: at least {steps.min():.4f}, mean {steps.mean():.4f}"
    )


def cosines(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of rows that lie one upon the other."""
    lengths = np.linalg.norm(ours, axis=-1) * np.linalg.norm(theirs, axis=-1)
    found: NDArray[np.float64] = (ours * theirs).sum(axis=-1) / lengths
    return found


def processor_seconds(work: Callable[[], object]) -> float:
    """Of this process and of the children it has, which are kept from video to video."""

    def used() -> float:
        me = psutil.Process()
        times = [process.cpu_times() for process in (me, *me.children())]
        return sum(of_one.user + of_one.system for of_one in times)

    before = used()
    work()
    return used() - before


def generated(folder: str, num_frames: int, size: tuple[int, int]) -> str:
    """A video of a texture that moves over another."""
    path = Path(folder, "generated.mp4")
    textured_video(path, num_frames, size, (64, 96))
    return str(path)


def beginning(video: str, folder: str, num_frames: int) -> str:
    """The first frames of a real video, encoded again with hardly a loss."""
    path = Path(folder, "beginning.mp4")
    frames = (frame for chunk in decode(video, chunk_frames=8) for frame in chunk.frames)
    write_mp4(path, islice(frames, num_frames), fps=Fraction(25), crf=10)
    return str(path)


def main() -> None:
    """Check, measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--video", help="the beginning of a real one; else generated")
    parser.add_argument("--frames", type=int, default=160)
    parser.add_argument("--size", type=int, nargs=2, default=(432, 768), metavar=("H", "W"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--drift", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        if arguments.video:
            video = beginning(arguments.video, folder, arguments.frames)
        else:
            video = generated(folder, arguments.frames, arguments.size)
        if arguments.drift:
            drift(video)
            return
        check(video)
        exact, default = encoder_of("ief_vad_2025", Sink()), encoder_of(None, Sink())
        counted = ours(video, exact)
        ours(video, default)
        forms: dict[str, Callable[[], object]] = {
            "published loop": lambda: sum(len(batch) for batch in published(video, counted)),
            'outspike, compat="ief_vad_2025"': lambda: ours(video, exact),
            "outspike": lambda: ours(video, default),
        }
        times: dict[str, list[float]] = {name: [] for name in forms}
        for _ in range(arguments.rounds):
            for name, form in forms.items():
                times[name].append(processor_seconds(form))
    ratios = {
        name: statistics.median(
            base / mine for base, mine in zip(times["published loop"], own, strict=True)
        )
        for name, own in times.items()
    }
    print(f"{counted} frames, processor time\n\n| form | ms a frame | faster |\n|---|---:|---:|")
    for name, seconds in times.items():
        print(
            f"| {name} | {1e3 * statistics.median(seconds) / counted:.1f} | x{ratios[name]:.1f} |"
        )


if __name__ == "__main__":
    main()
