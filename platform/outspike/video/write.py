"""Write H.264 mp4 files: the miniature data set and score overlays."""

import os
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from outspike.errors import ConfigError

#: x264's macroblock tree reads memory it never wrote where pictures are small: the same frames gave
#: five different files in thirty runs (x264 of PyAV 18.1), and one with it off.
_REPEATABLE = "no-mbtree=1"


def write_mp4(
    path: str | Path,
    frames: Iterable[NDArray[np.uint8]],
    *,
    fps: Fraction,
    crf: int = 18,
    preset: str = "veryfast",
) -> int:
    """Encode RGB frames ``[H, W, 3]`` into one local mp4 file and return how many there were.

    The file appears under its name only when complete. Equal frames give equal bytes (one encoder
    thread). 4:2:0 needs even sides; an odd picture is stored as 4:4:4.

    Raises:
        ConfigError: no frames, or frames of different sizes.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        options = {"crf": str(crf), "preset": preset, "x264-params": _REPEATABLE}
        num_frames = _encode(partial, frames, fps, options)
        if num_frames == 0:
            raise ConfigError(f"{path}: no frames to write.")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return num_frames


def _encode(
    path: Path, frames: Iterable[NDArray[np.uint8]], fps: Fraction, options: dict[str, str]
) -> int:
    num_frames, size = 0, None
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream("libx264", rate=fps, options=options)
        stream.thread_count = 1
        for picture in frames:
            if size is None:
                size = picture.shape
                stream.height, stream.width = size[:2]
                stream.pix_fmt = "yuv420p" if size[0] % 2 == size[1] % 2 == 0 else "yuv444p"
            if picture.shape != size:
                raise ConfigError(f"Frame {num_frames} is {picture.shape}, the first was {size}.")
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            container.mux(stream.encode(frame))
            num_frames += 1
        if num_frames:
            container.mux(stream.encode(None))
    return num_frames
