"""The time base: snippets, events and annotations meet on integer frame indices.

A *snippet grid* maps row ``i`` of a feature array to half-open frames ``[start, stop)``; an
*event clock* maps microseconds to frames. Labels, scores and features are only ever joined
through frame ranges, and a mismatch is an :class:`~outspike.errors.AlignmentError`.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from outspike.errors import AlignmentError, ConfigError

TailRule = Literal["keep", "drop", "ief_vad_2025"]

#: UCF-Crime-DVS counts 33,333 microseconds a frame, so a snippet of 16 is 533,328.
DVS_FPS = Fraction(1_000_000, 33_333)

_IEF_BUFFER_SNIPPETS = 32
_INT64_MAX = np.iinfo(np.int64).max


@dataclass(frozen=True, kw_only=True)
class SnippetGrid:
    """Rows of ``snippet_frames`` frames, one every ``stride`` frames.

    Tail rules: ``keep`` gives frames after the last full snippet a short row of their own;
    ``drop`` leaves them out; ``ief_vad_2025`` is the published buffering rule (``ief_vad.md``
    section 2.3), which drops up to a whole snippet and exists for parity only.
    """

    snippet_frames: int = 16
    stride: int = 16
    tail: TailRule = "keep"

    def __post_init__(self) -> None:
        if self.snippet_frames < 1 or self.stride < 1:
            raise ConfigError(
                f"snippet_frames={self.snippet_frames}, stride={self.stride}: both must be >= 1."
            )
        if self.stride > self.snippet_frames:
            raise ConfigError(
                f"stride={self.stride} is larger than snippet_frames={self.snippet_frames}, so "
                "frames between snippets would get no score; choose a stride of at most that."
            )
        if self.tail == "ief_vad_2025" and self.stride != self.snippet_frames:
            raise ConfigError("tail='ief_vad_2025' is defined for stride == snippet_frames only.")

    def num_snippets(self, num_frames: int) -> int:
        """Number of rows for a recording of ``num_frames`` frames."""
        if num_frames < 0:
            raise AlignmentError(f"A recording cannot have {num_frames} frames.")
        full = max(0, (num_frames - self.snippet_frames) // self.stride + 1)
        if self.tail == "drop":
            return full
        if self.tail == "ief_vad_2025":
            return self._num_snippets_ief(num_frames)
        if num_frames == 0:
            return 0
        covered = (full - 1) * self.stride + self.snippet_frames if full else 0
        return full + (covered < num_frames)

    def ranges(self, num_frames: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Half-open frame range of every row: ``start [S]``, ``stop [S]``."""
        start = np.arange(self.num_snippets(num_frames), dtype=np.int64) * self.stride
        return start, np.minimum(start + self.snippet_frames, num_frames)

    def document(self) -> dict[str, int | str]:
        """What the fingerprint of a feature set says about its grid."""
        return {
            "snippet_frames": self.snippet_frames,
            "stride": self.stride,
            "tail": self.tail,
        }

    def _num_snippets_ief(self, num_frames: int) -> int:
        buffers, rest = divmod(num_frames, _IEF_BUFFER_SNIPPETS * self.snippet_frames)
        tail = rest // self.snippet_frames if rest > self.snippet_frames else 0
        return _IEF_BUFFER_SNIPPETS * buffers + tail


@dataclass(frozen=True, kw_only=True)
class EventClock:
    """Microseconds of an event recording as frames of the annotation clock.

    ``frame = ((t_us - anchor_us) * fps_num) // (1_000_000 * fps_den)`` in int64. The anchor is the
    recorded start, else the first event; subtracting it first keeps Unix times (above 2**50) exact.
    """

    fps: Fraction
    anchor_us: int

    def __post_init__(self) -> None:
        if self.fps <= 0:
            raise ConfigError(f"fps={self.fps}: frames per second must be positive.")

    def frame_of(self, t_us: NDArray[np.int64]) -> NDArray[np.int64]:
        """Frame index of each time, ``[N] -> [N]``; times before the anchor are an error."""
        if t_us.size == 0:
            return np.zeros(0, dtype=np.int64)
        first, last = int(t_us.min()), int(t_us.max())
        if first < self.anchor_us:
            raise AlignmentError(
                f"An event at {first} us lies before the recording start {self.anchor_us} us; "
                "give the true start as the anchor."
            )
        if (last - self.anchor_us) * self.fps.numerator > _INT64_MAX:
            raise AlignmentError(
                f"Times up to {last} us from anchor {self.anchor_us} us overflow int64 at "
                f"{self.fps} frames/s; the anchor is probably missing."
            )
        elapsed = t_us.astype(np.int64) - np.int64(self.anchor_us)
        frames: NDArray[np.int64] = (elapsed * self.fps.numerator) // (
            1_000_000 * self.fps.denominator
        )
        return frames

    def time_of(self, frame: int) -> int:
        """First microsecond that belongs to ``frame``."""
        span = frame * 1_000_000 * self.fps.denominator
        return self.anchor_us + -(-span // self.fps.numerator)


def frame_labels(intervals: Iterable[tuple[int, int]], num_frames: int) -> NDArray[np.uint8]:
    """Paint half-open anomalous intervals into per-frame labels ``[F]``.

    Raises:
        AlignmentError: an interval is empty, negative, or ends past the recording.
    """
    labels = np.zeros(num_frames, dtype=np.uint8)
    for start, stop in intervals:
        if not 0 <= start < stop <= num_frames:
            raise AlignmentError(
                f"Anomalous frames [{start}, {stop}) do not lie inside the {num_frames} frames of "
                "the recording; correct the annotation, or clip it where the data set says so."
            )
        labels[start:stop] = 1
    return labels


def scores_to_frames(
    scores: NDArray[np.floating],
    start: NDArray[np.int64],
    stop: NDArray[np.int64],
    num_frames: int,
) -> NDArray[np.float64]:
    """Spread snippet scores over frames: a frame gets the mean of the snippets that cover it.

    Args:
        scores: ``[S]``.
        start, stop: ``[S]`` half-open frame range of each score.
        num_frames: ``F`` of the recording.

    Returns:
        ``[F]`` float64.

    Raises:
        AlignmentError: lengths differ, a range leaves the recording, or a frame has no score.
    """
    if not len(scores) == len(start) == len(stop):
        raise AlignmentError(
            f"{len(scores)} scores, {len(start)} starts and {len(stop)} stops: one range a score."
        )
    if len(scores) and (start.min() < 0 or stop.max() > num_frames or (start >= stop).any()):
        raise AlignmentError(
            f"Snippets cover frames [{start.min()}, {stop.max()}), the recording has {num_frames}."
        )
    covered = _difference_sum(start, stop, np.ones(len(scores)), num_frames)
    if (covered == 0).any():
        raise AlignmentError(
            f"{int((covered == 0).sum())} of {num_frames} frames are covered by no snippet (first: "
            f"{int(np.argmax(covered == 0))}); use a grid that tiles the recording (tail='keep')."
        )
    if (covered == 1).all():  # disjoint ranges: copy, so that no score moves by a rounding
        order = np.argsort(start)
        return np.repeat(scores.astype(np.float64)[order], (stop - start)[order])
    total = np.zeros(num_frames)
    for score, first, last in zip(scores.astype(np.float64), start, stop, strict=True):
        total[first:last] += score
    return total / covered


def _difference_sum(
    start: NDArray[np.int64],
    stop: NDArray[np.int64],
    weight: NDArray[np.float64],
    num_frames: int,
) -> NDArray[np.float64]:
    edges = np.zeros(num_frames + 1)
    np.add.at(edges, start, weight)
    np.add.at(edges, stop, -weight)
    return np.cumsum(edges)[:-1]
