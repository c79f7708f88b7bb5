from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from outspike.video.write import write_mp4


def numbered_frames(num_frames, height=48, width=64):
    """Frames whose brightness tells their index: mean grey = 10 + 2 * index (mod 120)."""
    for index in range(num_frames):
        yield np.full((height, width, 3), 10 + 2 * (index % 120), dtype=np.uint8)


def noisy_frames(num_frames, height=96, width=128, seed=0):
    rng = np.random.default_rng(seed)
    for _ in range(num_frames):
        yield rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture
def numbered_video(tmp_path):
    """Make a video of ``num_frames`` numbered frames and return its path."""

    def make(num_frames, name="numbered.mp4", fps=Fraction(25)):
        path = tmp_path / name
        write_mp4(path, numbered_frames(num_frames), fps=fps)
        return str(path)

    return make


@pytest.fixture
def noisy_video(tmp_path):
    path = tmp_path / "noisy.mp4"
    write_mp4(path, noisy_frames(40), fps=Fraction(25))
    return str(path)


@pytest.fixture
def audio_only(tmp_path):
    path = tmp_path / "audio.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100, layout="mono")
        for _ in range(4):
            frame = av.AudioFrame.from_ndarray(
                np.zeros((1, 1024), dtype=np.float32), format="fltp", layout="mono"
            )
            frame.sample_rate = 44100
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return str(path)


@pytest.fixture(params=["empty", "text", "truncated", "no_index", "audio", "absent", "folder"])
def bad_input(request, tmp_path, noisy_video, audio_only):
    """A file that cannot be used, and the reason the ledger is to give."""
    path = tmp_path / f"{request.param}.mp4"
    whole = Path(noisy_video).read_bytes()
    match request.param:
        case "empty":
            path.write_bytes(b"")
            return str(path), "empty"
        case "text":
            path.write_text("This is not a video.\n" * 50)
            return str(path), "not_media"
        case "truncated":
            path.write_bytes(whole[: len(whole) // 2])
            return str(path), "truncated"
        case "no_index":
            path.write_bytes(whole[:200])
            return str(path), "truncated"
        case "audio":
            return audio_only, "no_video_stream"
        case "folder":
            path.mkdir()
            return str(path), "unreadable"
    return str(path), "unreadable"
