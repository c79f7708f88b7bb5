"""Every frame that really decodes, in presentation order, upright, as RGB.

Frame indices count decoded frames: index ``i`` is the ``i``-th frame shown, whatever the container
claims. Decoding is single threaded; parallelism is over recordings.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray

from outspike.errors import ConfigError, MediaError
from outspike.video.probe import (
    VideoInfo,
    choose_stream,
    describe,
    first_rotation,
    is_cut_short,
    open_container,
)

#: Decoder identity for the fingerprint of features made from decoded frames.
DECODER = {"decoder": "pyav", "version": av.__version__}


@dataclass(frozen=True)
class FrameChunk:
    """Consecutive frames ``[F, H, W, 3]`` (RGB, as shown); ``start`` is the index of the first."""

    start: int
    frames: NDArray[np.uint8]


def decode(url: str, *, chunk_frames: int = 64) -> Iterator[FrameChunk]:
    """Decode a local or ``s3://`` video in chunks of at most ``chunk_frames`` frames.

    A file that breaks off yields what decodes before it raises, so that a caller who streams must
    treat rows already made as provisional until the iterator ends.

    Raises:
        MediaError: see :func:`outspike.video.probe.probe`; further ``truncated`` (the file ends
            before its data), ``corrupt`` (packets that do not decode, frames that change size).
    """
    yield from in_chunks(decode_frames(url), chunk_frames)


def decode_frames(url: str) -> Iterator[tuple[VideoInfo, NDArray[np.uint8]]]:
    """Each frame ``[H, W, 3]`` with the facts of its stream (the same object every time)."""
    with open_container(url) as container:
        stream = choose_stream(container, url)
        reformatter = VideoReformatter()
        info: VideoInfo | None = None
        for frame in presented_frames(container, stream, url):
            if info is None:
                info = describe(container, stream, first_rotation(frame.rotation, url), url)
            check_size(frame, info, url)
            yield info, _upright_rgb(reformatter, frame, info)


def in_chunks(
    frames: Iterator[tuple[VideoInfo, NDArray[np.uint8]]], chunk_frames: int
) -> Iterator[FrameChunk]:
    """Gather frames into chunks; what came before an error is yielded before it is raised."""
    if chunk_frames < 1:
        raise ConfigError(f"chunk_frames={chunk_frames}: a chunk holds at least one frame.")
    start, held = 0, 0
    chunk = np.empty((0, 0, 0, 3), dtype=np.uint8)
    try:
        for _, frame in frames:
            if held == 0:  # a fresh array each time: consumers may keep what they were given
                chunk = np.empty((chunk_frames, *frame.shape), dtype=np.uint8)
            chunk[held] = frame
            held += 1
            if held == chunk_frames:
                yield FrameChunk(start, chunk)
                start, held = start + held, 0
    except MediaError:
        if held:
            yield FrameChunk(start, chunk[:held])
        raise
    if held:
        yield FrameChunk(start, chunk[:held])


def presented_frames(
    container: InputContainer, stream: VideoStream, url: str
) -> Iterator[VideoFrame]:
    """Frames in presentation order, as the decoder gives them.

    What fails on the way is counted, and raised at the end.

    Raises:
        MediaError: ``truncated``, ``corrupt``, ``no_frames``.
    """
    num_frames = num_failed = 0
    last_corrupt = False
    try:
        for packet in container.demux(stream):
            if packet.size:
                last_corrupt = packet.is_corrupt
            try:
                frames = packet.decode()
            except av.error.InvalidDataError:
                num_failed += 1
                continue
            num_frames += len(frames)
            yield from frames
    except MemoryError:  # also an FFmpegError; the child process reports it as what it is
        raise
    except av.error.FFmpegError as error:
        raise MediaError(
            f"{url}: decoding stopped after {num_frames} frames: {error}", reason="corrupt"
        ) from error
    _check_complete(stream, url, num_frames, num_failed, last_corrupt)


def _check_complete(
    stream: VideoStream, url: str, num_frames: int, num_failed: int, last_corrupt: bool
) -> None:
    claimed = stream.frames
    missing = num_failed > 0 or num_frames < claimed
    if missing and (last_corrupt or is_cut_short(url)):
        raise MediaError(
            f"{url}: {num_frames} frames decode"
            + (f" of {claimed} in its index" if claimed else "")
            + ", then the file breaks off; it was not copied or recorded whole.",
            reason="truncated",
        )
    if num_failed:
        raise MediaError(
            f"{url}: {num_failed} packets do not decode beside {num_frames} frames that do; frame "
            "numbers after the first are uncertain, so it is not used.",
            reason="corrupt",
        )
    if num_frames == 0:
        raise MediaError(f"{url}: no frame decodes.", reason="no_frames")


def check_size(frame: VideoFrame, info: VideoInfo, url: str) -> None:
    """Every frame has the size of the first.

    Raises:
        MediaError: this one has not (``corrupt``).
    """
    if (frame.width, frame.height) != (info.width, info.height):
        raise MediaError(
            f"{url}: frames change from {info.width}x{info.height} to "
            f"{frame.width}x{frame.height}; re-encode it at one size.",
            reason="corrupt",
        )


def _upright_rgb(
    reformatter: VideoReformatter, frame: VideoFrame, info: VideoInfo
) -> NDArray[np.uint8]:
    rgb = reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray()
    picture = cast(NDArray[np.uint8], rgb)
    return np.rot90(picture, info.rotation // 90) if info.rotation else picture
