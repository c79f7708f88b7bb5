"""What a video container says of itself, and the one place where containers are opened."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import IO, Any

import av
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from outspike.errors import MediaError

_ISO_BRANDS = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")
_REMOTE_BUFFER = 1 << 20


@dataclass(frozen=True, kw_only=True)
class VideoInfo:
    """Facts of the chosen video stream.

    ``width`` and ``height`` are those of the stored picture; ``rotation`` is the counter-clockwise
    turn in degrees (0, 90, 180 or 270) that shows it upright. ``header_frames`` is what the
    container claims (None when silent); what really decodes may differ.
    """

    codec: str
    container: str
    width: int
    height: int
    rotation: int
    fps: Fraction
    header_frames: int | None
    video_streams: int
    audio_streams: int

    @property
    def display_size(self) -> tuple[int, int]:
        """Width and height of the frames that :func:`outspike.video.decode.decode` yields."""
        upright = self.rotation % 180 == 0
        return (self.width, self.height) if upright else (self.height, self.width)

    def to_json(self) -> str:
        """The facts as text; the rate is kept as an exact ratio."""
        return json.dumps(asdict(self) | {"fps": str(self.fps)})

    @classmethod
    def from_json(cls, text: str) -> "VideoInfo":
        """Inverse of :meth:`to_json`."""
        document: dict[str, Any] = json.loads(text)
        return cls(**document | {"fps": Fraction(document["fps"])})


def probe(url: str) -> VideoInfo:
    """Open a video, read its headers and its first frame (the turn is stored with frames).

    Raises:
        MediaError: ``unreadable``, ``empty``, ``not_media``, ``truncated`` (the index is missing),
            ``no_video_stream``, ``no_rate``, ``no_frames``.
    """
    with open_container(url) as container:
        stream = choose_stream(container, url)
        return describe(container, stream, _first_rotation(container, stream, url), url)


def describe(container: InputContainer, stream: VideoStream, rotation: int, url: str) -> VideoInfo:
    """Collect the facts of an opened stream; ``rotation`` comes from its first frame."""
    fps = stream.average_rate or stream.guessed_rate or stream.base_rate
    if not fps:
        raise MediaError(
            f"{url}: the container states no frame rate; re-encode it with one.", reason="no_rate"
        )
    return VideoInfo(
        codec=stream.codec_context.name,
        container=container.format.name,
        width=stream.codec_context.width,
        height=stream.codec_context.height,
        rotation=rotation,
        fps=Fraction(fps),
        header_frames=stream.frames or None,
        video_streams=len(container.streams.video),
        audio_streams=len(container.streams.audio),
    )


@contextmanager
def open_container(url: str) -> Iterator[InputContainer]:
    """Open a local path or ``s3://`` address for demuxing.

    Local files go to FFmpeg by name, remote ones through a buffered file object.
    """
    try:
        with open_binary(url) as file:
            if file.seek(0, os.SEEK_END) == 0:
                raise MediaError(f"{url}: the file is empty (0 bytes).", reason="empty")
            file.seek(0)
            with _demuxer(file, url) as container:
                yield container
    except OSError as error:
        raise MediaError(f"{url}: cannot be read: {error}", reason="unreadable") from error


@contextmanager
def open_binary(url: str) -> Iterator[IO[bytes]]:
    """A seekable binary file for a local path or an object-store address.

    Raises:
        OSError: it cannot be opened, or a read inside the ``with`` block fails.
    """
    path = local_path(url)
    if path is not None:
        with open(path, "rb") as file:
            yield file
        return
    from outspike.urls import open_url, plain_errors  # loads fsspec: for remote files only

    with plain_errors(url), open_url(url) as file:
        yield file


def local_path(url: str) -> str | None:
    """The path of a local recording, None for a remote one."""
    if url.startswith("file://"):
        return url.removeprefix("file://")
    return None if "://" in url else url


def choose_stream(container: InputContainer, url: str) -> VideoStream:
    """The first moving-picture stream marked default, else the first; cover art is not video."""
    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not streams and is_cut_short(url):
        raise _no_index(url)
    if not streams:
        kinds = sorted({s.type for s in container.streams})
        raise MediaError(
            f"{url}: no video stream, only {', '.join(kinds) or 'none of any kind'}; leave it out.",
            reason="no_video_stream",
        )
    stream = next((s for s in streams if s.disposition & Disposition.default), streams[0])
    # One thread a recording: parallelism is over recordings, and frame threads are slower here.
    stream.thread_type = "NONE"
    stream.thread_count = 1
    return stream


def is_cut_short(url: str) -> bool:
    """Whether an ISO (mp4, mov) or RIFF (avi) file ends before its outermost boxes do."""
    with open_binary(url) as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        head = file.read(8)
        if head[:4] == b"RIFF":
            return 8 + int.from_bytes(head[4:8], "little") > size
        return head[4:8] in _ISO_BRANDS and _iso_length(file, size) > size


def _iso_length(file: IO[bytes], size: int) -> int:
    """Where the last outermost box of an ISO file says it ends."""
    offset = 0
    while offset < size:
        file.seek(offset)
        head = file.read(16)
        if len(head) < 8:
            return offset + 8
        length = int.from_bytes(head[:4], "big")
        if length == 1:  # a 64-bit length follows the type
            length = int.from_bytes(head[8:16], "big") if len(head) == 16 else 16
        elif length == 0:  # runs to the end of the file
            length = size - offset
        offset += max(length, 8)
    return offset


def _demuxer(file: IO[bytes], url: str) -> InputContainer:
    path = local_path(url)
    try:
        if path is not None:
            return av.open(f"file:{path}", mode="r")
        return av.open(file, mode="r", buffer_size=_REMOTE_BUFFER)
    except av.error.InvalidDataError as error:
        if is_cut_short(url) or _lacks_index(url):
            raise _no_index(url) from error
        raise MediaError(
            f"{url}: no known container format; it is not a video.", reason="not_media"
        ) from error
    except MemoryError:  # also an FFmpegError; the child process reports it as what it is
        raise
    except av.error.FFmpegError as error:
        raise MediaError(f"{url}: cannot be opened: {error}", reason="unreadable") from error


def _no_index(url: str) -> MediaError:
    return MediaError(
        f"{url}: the file ends before its index; it was not copied or recorded whole.",
        reason="truncated",
    )


def _lacks_index(url: str) -> bool:
    with open_binary(url) as file:
        return file.read(8)[4:8] in _ISO_BRANDS


def first_rotation(degrees: int, url: str) -> int:
    """Normalise the turn stored with a frame to 0, 90, 180 or 270."""
    turn = degrees % 360
    if turn % 90:
        raise MediaError(
            f"{url}: frames are to be shown turned by {degrees} degrees; only quarter turns are "
            "supported, re-encode it upright.",
            reason="rotation",
        )
    return turn


def _first_rotation(container: InputContainer, stream: VideoStream, url: str) -> int:
    try:
        for frame in container.decode(stream):
            return first_rotation(frame.rotation, url)
    except av.error.FFmpegError as error:
        raise MediaError(f"{url}: no frame decodes: {error}", reason="no_frames") from error
    raise MediaError(f"{url}: no frame decodes.", reason="no_frames")
