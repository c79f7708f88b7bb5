"""The videos of a report: which are shown large, their key frames, and what is said of each."""

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from outspike.errors import MediaError
from outspike.evaluate import svg
from outspike.evaluate.results import Results, VideoResult
from outspike.evaluate.words import clock, duration, percent
from outspike.scoring.scores import VideoScores

Thumbnails = Callable[[str, int], NDArray[np.uint8]]
"""``(video_id, frame) -> [H, W, 3]`` RGB; asked in rising order of frames, video by video."""

Kind = Literal["miss", "false_alarm", "other"]

_THUMBNAIL_WIDTH = 176
_THUMBNAIL_QUALITY = 70
_MAX_KEY_FRAMES = 6


@dataclass(frozen=True, kw_only=True)
class KeyFrame:
    """A frame shown under a timeline."""

    frame: int
    time: str
    score: str
    anomalous: bool
    image: str | None
    """JPEG as a data URI; None where it cannot be read."""
    missing: str | None
    """Why there is no image."""


@dataclass(frozen=True, kw_only=True)
class Card:
    """One video shown large."""

    result: VideoResult
    graph: Markup
    key_frames: tuple[KeyFrame, ...]
    sentence: str
    length: str
    error_share: str


@dataclass(frozen=True, kw_only=True)
class Spark:
    """One video shown small."""

    result: VideoResult
    graph: Markup
    length: str


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """All videos of a report: cards for the worst and sparklines for the rest."""

    misses: tuple[Card, ...]
    false_alarms: tuple[Card, ...]
    others: tuple[Card, ...]
    sparks: tuple[Spark, ...]

    @property
    def num_large(self) -> int:
        """Videos shown with a full timeline."""
        return len(self.misses) + len(self.false_alarms) + len(self.others)


def build_gallery(
    results: Results,
    videos: Sequence[VideoScores],
    *,
    floor: Sequence[VideoScores] | None,
    thumbnails: Thumbnails | None,
    max_large: int,
) -> Gallery:
    """Sort the videos by what they cost, worst first, and draw them."""
    scores = {video.video_id: video for video in videos}
    floors = {video.video_id: video for video in floor or ()}
    chosen = choose_large(results.per_video, max_large)
    y_max = score_ceiling(videos)
    cards: dict[Kind, list[Card]] = {"miss": [], "false_alarm": [], "other": []}
    for kind, rows in chosen.items():
        for row in rows:
            video, below = scores[row.video_id], floors.get(row.video_id)
            cards[kind].append(_card(results, row, video, below, kind, y_max, thumbnails))
    shown = {row.video_id for rows in chosen.values() for row in rows}
    rest = sorted(results.per_video, key=_cost)
    return Gallery(
        misses=tuple(cards["miss"]),
        false_alarms=tuple(cards["false_alarm"]),
        others=tuple(cards["other"]),
        sparks=tuple(
            _spark(row, scores[row.video_id], y_max) for row in rest if row.video_id not in shown
        ),
    )


def kind_of(row: VideoResult) -> Kind:
    """Whether a video costs more by misses or by false alarms, or next to nothing."""
    missed, false = row.missed_share or 0.0, row.false_alarm_share or 0.0
    if row.error_share == 0:
        return "other"
    return "miss" if missed >= false else "false_alarm"


def choose_large(rows: Sequence[VideoResult], max_large: int) -> dict[Kind, list[VideoResult]]:
    """The videos to show large: the worst of both kinds in equal parts, then whatever is left."""
    by_kind: dict[Kind, list[VideoResult]] = {"miss": [], "false_alarm": [], "other": []}
    for row in sorted(rows, key=_cost):
        by_kind[kind_of(row)].append(row)
    misses, false = len(by_kind["miss"]), len(by_kind["false_alarm"])
    num_misses = min(misses, max(max_large - max_large // 2, max_large - false))
    num_false = min(false, max_large - num_misses)
    num_other = max(0, max_large - num_misses - num_false)
    return {
        "miss": by_kind["miss"][:num_misses],
        "false_alarm": by_kind["false_alarm"][:num_false],
        "other": by_kind["other"][:num_other],
    }


def _cost(row: VideoResult) -> tuple[float, str]:
    return -row.error_share, row.video_id


def score_ceiling(videos: Sequence[VideoScores]) -> float:
    """Top of the common score axis: 1, or a round number below it where all scores are low."""
    highest = max(float(video.scores.max()) for video in videos)
    for ceiling in (0.05, 0.1, 0.2, 0.3, 0.5):
        if highest <= ceiling:
            return ceiling
    return max(1.0, highest)


def _card(
    results: Results,
    row: VideoResult,
    video: VideoScores,
    floor: VideoScores | None,
    kind: Kind,
    y_max: float,
    thumbnails: Thumbnails | None,
) -> Card:
    intervals = video.intervals or ()
    frames = _choose_key_frames(video, kind) if thumbnails is not None else []
    return Card(
        result=row,
        graph=svg.timeline(
            _series(video),
            floor=None if floor is None else _series(floor),
            intervals=intervals,
            threshold=results.alarm_threshold,
            y_max=y_max,
            ticks=_ticks(video),
            key_frames=frames,
            label=f"Scores of {row.video_id} over time",
        ),
        key_frames=tuple(_key_frame(video, frame, thumbnails) for frame in frames)
        if thumbnails is not None
        else (),
        sentence=_sentence(row, results),
        length=duration(row.num_frames / row.fps),
        error_share=percent(row.error_share),
    )


def _spark(row: VideoResult, video: VideoScores, y_max: float) -> Spark:
    return Spark(
        result=row,
        graph=svg.sparkline(
            _series(video),
            intervals=video.intervals or (),
            y_max=y_max,
            label=f"Scores of {row.video_id}",
        ),
        length=duration(row.num_frames / row.fps),
    )


def _series(video: VideoScores) -> svg.Series:
    return svg.Series(
        score=video.scores.astype(np.float64),
        start=video.start.astype(np.float64),
        stop=video.stop.astype(np.float64),
        num_frames=video.num_frames,
    )


def _sentence(row: VideoResult, results: Results) -> str:
    """What went wrong in one video, in words."""
    unit = "video" if results.num_anomalous_frames is None else "frame"
    parts = []
    if row.missed:
        subject = "its anomalous frames" if unit == "frame" else "it"
        parts.append(f"{percent(row.missed)} of all normal {unit}s score above {subject}")
    if row.false_alarm:
        subject = "its normal frames score" if unit == "frame" else "it scores"
        parts.append(f"{subject} above {percent(row.false_alarm)} of all anomalous {unit}s")
    if not parts:
        return "Ranked without an error." if row.abnormal is not None else "No label."
    text = "; ".join(parts)
    return f"On average {text}." if unit == "frame" else f"{text[0].upper()}{text[1:]}."


def _choose_key_frames(video: VideoScores, kind: Kind) -> list[int]:
    """One telling frame from each of up to six equal parts of the video, in order.

    That is the middle of the highest snippet of the part; where a miss is to be understood, the
    middle of the lowest snippet that lies in an annotated interval.
    """
    num_parts = min(_MAX_KEY_FRAMES, len(video.scores))
    middle = (video.start + video.stop - 1) // 2
    inside = np.zeros(len(middle), dtype=bool)
    for start, stop in video.intervals or ():
        inside |= (middle >= start) & (middle < stop)
    frames = []
    for rows in np.array_split(np.argsort(video.start, kind="stable"), num_parts):
        hidden = rows[inside[rows]]
        if kind == "miss" and len(hidden):
            frames.append(int(middle[hidden[video.scores[hidden].argmin()]]))
        else:
            frames.append(int(middle[rows[video.scores[rows].argmax()]]))
    return sorted(set(frames))


def _key_frame(video: VideoScores, frame: int, thumbnails: Thumbnails) -> KeyFrame:
    covering = video.scores[(video.start <= frame) & (frame < video.stop)]
    image, missing = None, None
    try:
        image = _data_uri(thumbnails(video.video_id, frame))
    except MediaError as error:  # the page then says so in the frame's place
        missing = f"not readable: {error.reason}"
    return KeyFrame(
        frame=frame,
        time=clock(frame / float(video.fps)),
        score=f"{covering.mean():.2f}",
        anomalous=any(start <= frame < stop for start, stop in video.intervals or ()),
        image=image,
        missing=missing,
    )


def _data_uri(frame: NDArray[np.uint8]) -> str:
    picture = Image.fromarray(frame)
    height = max(1, round(picture.height * _THUMBNAIL_WIDTH / picture.width))
    small = picture.resize((_THUMBNAIL_WIDTH, height), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, format="JPEG", quality=_THUMBNAIL_QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _ticks(video: VideoScores) -> list[tuple[float, str]]:
    """About eight round times along the video."""
    fps = float(video.fps)
    seconds = video.num_frames / fps
    steps = (0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400)
    step = next((step for step in steps if seconds / step <= 9), seconds / 8)
    times = np.arange(0, seconds, step)
    return [(float(time) * fps, clock(float(time))) for time in times]
