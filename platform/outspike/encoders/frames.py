"""Frames at an encoder's working size, in colour or grey, in integer arithmetic.

Everything here works on one frame at a time in ``uint8``, so the result for a frame does not
depend on its neighbours, on chunk borders or on the number of threads.
"""

import threading
import weakref

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from outspike.encoders.kernels import grey_of
from outspike.video.decode import FrameChunk

#: Part of every fingerprint that builds on :func:`working_grey`.
GREY = "area-weighted bilinear uint8 RGB resize; (77 R + 150 G + 29 B + 128) >> 8"


def resize_uint8(frames: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Antialiased bilinear resize ``[F, H, W, C] -> [F, height, width, C]``, uint8 throughout."""
    if frames.shape[1:3] == (height, width):
        return frames
    writable = np.require(frames, requirements=["C", "W"])  # torch takes no other array
    channels_last = torch.from_numpy(writable).permute(0, 3, 1, 2)
    resized = functional.interpolate(
        channels_last, (height, width), mode="bilinear", antialias=True
    )
    return np.ascontiguousarray(resized.permute(0, 2, 3, 1).numpy())


def grey(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Luma of RGB frames by the BT.601 weights in 8 bits, ``[..., H, W, 3] -> [..., H, W]``."""
    luma = np.empty(frames.shape[:-1], dtype=np.uint8)
    size = frames.shape[-3:]
    for frame, target in zip(frames.reshape(-1, *size), luma.reshape(-1, *size[:2]), strict=True):
        grey_of(np.ascontiguousarray(frame).reshape(-1), target.reshape(-1))
    return luma


class _LastChunk(threading.local):
    """The grey frames made last, so that several encoders on one decode share the work."""

    chunk: "weakref.ref[FrameChunk] | None" = None
    size: tuple[int, int] = (0, 0)
    frames: NDArray[np.uint8] | None = None


_last = _LastChunk()


def working_grey(chunk: FrameChunk, height: int, width: int) -> NDArray[np.uint8]:
    """Grey frames of a chunk at working size ``[F, height, width]``; read-only, made once."""
    known = _last.chunk() if _last.chunk is not None else None
    if known is chunk and _last.size == (height, width) and _last.frames is not None:
        return _last.frames
    frames = np.empty((len(chunk.frames), height, width), dtype=np.uint8)
    for i in range(len(frames)):  # frame by frame stays in the cache and bounds memory
        frames[i] = grey(resize_uint8(chunk.frames[i : i + 1], height, width))[0]
    frames.flags.writeable = False
    _last.chunk, _last.size, _last.frames = weakref.ref(chunk), (height, width), frames
    return frames
