"""One recording through any number of encoders, decoded once.

What comes out is already rounded as the feature store keeps it, so that features read back from a
store and features made on the spot are the same numbers.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from outspike.encoders.base import Encoder, EncoderStream, Piece, Rows, SourceInfo
from outspike.errors import AlignmentError, ConfigError, DatasetError, MediaError
from outspike.events.columns import Events
from outspike.events.reader import EventInfo, open_events
from outspike.recording import Recording
from outspike.scoring.reach import Reach
from outspike.timebase import DVS_FPS, EventClock
from outspike.video.decode import FrameChunk, decode
from outspike.video.isolate import IsolatedVideo
from outspike.video.probe import VideoInfo, probe

Frames = NDArray[np.int64]
Emit = Callable[[str, NDArray[np.floating], Frames, Frames], None]

#: No event for this long means a broken clock; following it would make millions of empty rows.
MAX_SILENCE_S = 6 * 3600

#: Of frames decoded ahead in one piece; some pieces are under way at once.
_CHUNK_BYTES = 4 << 20


@dataclass(frozen=True, kw_only=True)
class RecordingFacts:
    """What decoding a recording to its end has shown.

    ``num_rows`` counts the feature rows of each encoder by name.
    """

    num_frames: int
    fps: Fraction
    width: int
    height: int
    num_rows: dict[str, int]
    waited_s: float = field(default=0.0, compare=False)
    """Seconds spent waiting for frames of a video to be decoded."""

    @property
    def hours(self) -> float:
        """Length in hours."""
        return float(self.num_frames / self.fps) / 3600


def encode_recording(
    recording: Recording,
    encoders: Sequence[Encoder],
    *,
    emit: Emit,
    isolate: bool = True,
    timeout_s: float = 3600.0,
    memory_mb: int = 4096,
    video: IsolatedVideo | None = None,
    when_decoded: Callable[[], None] = lambda: None,
    reach: Reach = lambda footage_s: None,
) -> RecordingFacts:
    """Decode a recording once and give its feature rows to ``emit`` as they are completed.

    ``emit(name, rows [s, K, D], start [s], stop [s])`` gets the rows of encoder ``name`` in order,
    in the dtype of its feature set. Rows emitted before an error is raised are provisional: the
    caller drops them. With ``isolate`` a video is decoded in a child process under ``timeout_s``
    and ``memory_mb``; ``video`` is one that was opened before, with limits of its own, and
    ``when_decoded`` is called once the last frame of a video has come, and ``reach`` after every
    piece. Event times become frames at the recording's ``fps``, or at that of UCF-Crime-DVS where
    it gives none, from the stated start of the file, else its first event.

    Raises:
        MediaError: the recording cannot be read or encoded; ``reason`` says why.
        DatasetError: an annotated interval ends after the last frame that decodes.
        ConfigError: two encoders share a name.
    """
    names = [encoder.name for encoder in encoders]
    if not names or len(set(names)) != len(names):
        raise ConfigError(f"encoders {names}: name at least one, and each once.")
    for encoder in encoders:
        if recording.modality not in encoder.modalities:
            raise MediaError(
                f"{recording.key}: {encoder.name} reads {' and '.join(sorted(encoder.modalities))}"
                f", this is a recording of {recording.modality}; leave one of the two out.",
                reason="modality",
            )
    if recording.modality == "video":
        if video is None and isolate:
            video = IsolatedVideo(recording.url, timeout_s=timeout_s, memory_mb=memory_mb)
        return _encode_video(recording, encoders, emit, video, when_decoded, reach)
    return _encode_events(recording, encoders, emit, reach)


# --------------------------------------------------------------------------------- videos


def _encode_video(
    recording: Recording,
    encoders: Sequence[Encoder],
    emit: Emit,
    video: IsolatedVideo | None,
    when_decoded: Callable[[], None],
    reach: Reach,
) -> RecordingFacts:
    with _opened_video(recording.url, video) as (info, chunks):
        width, height = info.display_size
        source = SourceInfo(modality="video", width=width, height=height, fps=info.fps)
        fan_out = _FanOut(recording, encoders, source, emit)
        num_frames, waited_s = _push_all(chunks, fan_out, reach)
    when_decoded()
    return replace(fan_out.finish(num_frames), waited_s=waited_s)


@contextmanager
def _opened_video(
    url: str, video: IsolatedVideo | None
) -> Iterator[tuple[VideoInfo, Iterator[FrameChunk]]]:
    if video is not None:
        with video:
            yield video.info, video.chunks(_chunk_frames(video.info))
    else:
        info = probe(url)
        yield info, decode(url, chunk_frames=_chunk_frames(info))


def _push_all(chunks: Iterator[FrameChunk], fan_out: "_FanOut", reach: Reach) -> tuple[int, float]:
    """Number of frames, and seconds waited for them; no chunk is held on to afterwards."""
    num_frames, waited_s, asked = 0, 0.0, time.monotonic()
    for chunk in chunks:
        waited_s += time.monotonic() - asked
        fan_out.push(chunk)
        num_frames += len(chunk.frames)
        reach(fan_out.seconds(num_frames))
        asked = time.monotonic()
    return num_frames, waited_s


def _chunk_frames(info: VideoInfo) -> int:
    """Frames decoded ahead: at most ``_CHUNK_BYTES`` of them, so that 4K fits as VGA does."""
    return min(64, max(1, _CHUNK_BYTES // (3 * info.width * info.height)))


# --------------------------------------------------------------------------------- events


def _encode_events(
    recording: Recording, encoders: Sequence[Encoder], emit: Emit, reach: Reach
) -> RecordingFacts:
    reader = open_events(recording.url, size=recording.size)
    chunks = (chunk for chunk in reader.chunks() if len(chunk))
    first = next(chunks, None)
    if first is None:
        raise MediaError(f"{recording.url}: the recording holds no event.", reason="no_events")
    source = event_source(recording, reader.info, first)
    fan_out = _FanOut(recording, encoders, source, emit)
    end_us = int(first.t[0])
    with _clock_faults_of(recording):
        for chunk in chain([first], chunks):
            _check_silence(recording, end_us, chunk.t)
            fan_out.push(chunk)
            end_us = max(end_us, int(chunk.t.max()))
            reach((end_us - source.event_clock.anchor_us) / 1e6)
        if reader.info.duration_us is not None:
            stated_us = source.event_clock.anchor_us + reader.info.duration_us - 1
            _check_silence(recording, end_us, np.array([stated_us], dtype=np.int64))
            end_us = max(end_us, stated_us)
        num_frames = int(source.event_clock.frame_of(np.array([end_us]))[0]) + 1
        return fan_out.finish(num_frames)


def event_source(recording: Recording, info: EventInfo, first: Events) -> SourceInfo:
    """Sensor size and clock of an event recording, whose first events are ``first``.

    The clock starts where the file says it does, else at the first event.

    Raises:
        MediaError: neither the file nor the recording tells the sensor size.
    """
    if info.width is None or info.height is None:
        raise MediaError(
            f"{recording.url}: a {info.format} file that does not tell its sensor size; give it "
            "as the recording's size.",
            reason="unknown_size",
        )
    anchor_us = int(first.t[0]) if info.anchor_us is None else info.anchor_us
    clock = EventClock(fps=recording.fps or DVS_FPS, anchor_us=anchor_us)
    return SourceInfo(
        modality="events", width=info.width, height=info.height, fps=clock.fps, clock=clock
    )


def _check_silence(recording: Recording, last_us: int, times_us: NDArray[np.int64]) -> None:
    span_us = int(times_us.max()) - min(last_us, int(times_us.min()))
    if span_us <= MAX_SILENCE_S * 1_000_000:  # as ever: no pause is longer than all of it
        return
    silence_s = int(np.diff(times_us, prepend=last_us).max()) / 1e6
    if silence_s > MAX_SILENCE_S:
        raise MediaError(
            f"{recording.url}: no event for {silence_s:.0f} s, which no camera does; the time "
            "stamps are damaged.",
            reason="time_jump",
        )


@contextmanager
def _clock_faults_of(recording: Recording) -> Iterator[None]:
    """Times and pixels that contradict the header are faults of this file."""
    try:
        yield
    except AlignmentError as error:
        raise MediaError(f"{recording.url}: {error}", reason="inconsistent") from error


# --------------------------------------------------------------------------------- fan-out


class _FanOut:
    """Hands every piece to every encoder, and every row to ``emit`` with its frames."""

    def __init__(
        self, recording: Recording, encoders: Sequence[Encoder], source: SourceInfo, emit: Emit
    ) -> None:
        self._recording = recording
        self._source = source
        self._emit = emit
        self._streams: list[tuple[Encoder, EncoderStream]] = [
            (encoder, encoder.open(source)) for encoder in encoders
        ]
        self._dtypes = {encoder.name: np.dtype(encoder.spec().dtype) for encoder in encoders}
        self._num_rows = {encoder.name: 0 for encoder in encoders}

    def seconds(self, num_frames: int) -> float:
        return float(num_frames / self._source.fps)

    def push(self, piece: Piece) -> None:
        for encoder, stream in self._streams:
            self._give(encoder, stream.push(piece), None)

    def finish(self, num_frames: int) -> RecordingFacts:
        recording = self._recording
        for encoder, stream in self._streams:
            self._give(encoder, stream.finish(num_frames), num_frames)
            expected, found = encoder.grid.num_snippets(num_frames), self._num_rows[encoder.name]
            assert found == expected, f"{encoder.name}: {found} rows, the grid has {expected}"
            if found == 0:
                raise MediaError(
                    f"{recording.url}: {num_frames} frames give no snippet of "
                    f"{encoder.grid.snippet_frames} under tail={encoder.grid.tail!r}; use "
                    "tail='keep', or leave the recording out.",
                    reason="too_short",
                )
        check_intervals(recording, num_frames)
        return RecordingFacts(
            num_frames=num_frames,
            fps=self._source.fps,
            width=self._source.width,
            height=self._source.height,
            num_rows=dict(self._num_rows),
        )

    def _give(self, encoder: Encoder, rows: Rows, num_frames: int | None) -> None:
        if len(rows) == 0:
            return
        first = self._num_rows[encoder.name]
        grid = encoder.grid
        start = np.arange(first, first + len(rows), dtype=np.int64) * grid.stride
        stop = start + grid.snippet_frames
        if num_frames is not None:
            stop = np.minimum(stop, num_frames)
        stored = self._as_stored(encoder.name, rows)
        self._num_rows[encoder.name] += len(rows)
        self._emit(encoder.name, stored, start, stop)

    def _as_stored(self, name: str, rows: Rows) -> NDArray[np.floating]:
        with np.errstate(over="ignore"):  # an overflow shows as infinity and is refused below
            stored = rows.astype(self._dtypes[name])
        if not np.isfinite(stored).all():
            raise MediaError(
                f"{self._recording.url}: {name} gave {int((~np.isfinite(stored)).sum())} values "
                f"that {self._dtypes[name]} cannot hold (largest {float(np.abs(rows).max())}).",
                reason="not_finite",
            )
        return stored


def check_intervals(recording: Recording, num_frames: int) -> None:
    """Compare annotated intervals with the frames there really are.

    Raises:
        DatasetError: an interval is empty or ends after the last frame; names the recording.
    """
    for start, stop in recording.intervals or ():
        if not 0 <= start < stop <= num_frames:
            raise DatasetError(
                f"{recording.key}: annotated frames [{start}, {stop}) do not lie inside the "
                f"{num_frames} frames that decode from {recording.url}; correct the annotation."
            )
