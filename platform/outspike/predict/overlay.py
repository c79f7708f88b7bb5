"""The recording with its score drawn under it, so that a person can watch what was found."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from outspike.evaluate.thumbnails import FrameReader
from outspike.evaluate.words import clock
from outspike.recording import Recording
from outspike.scoring.scores import VideoScores
from outspike.video.write import write_mp4

Picture = NDArray[np.uint8]
FrameScores = NDArray[np.float64]

_MIN_WIDTH, _MAX_WIDTH = 480, 960
_TEXT_ROWS, _CURVE_ROWS, _BORDER = 24, 56, 4
_PAPER = np.array([24, 26, 32], dtype=np.uint8)
_LINE = np.array([70, 74, 84], dtype=np.uint8)
_CALM = np.array([92, 158, 235], dtype=np.uint8)
_ALARM = np.array([240, 84, 72], dtype=np.uint8)
_CURSOR = np.array([250, 250, 250], dtype=np.uint8)


def write_overlay(
    recording: Recording,
    scores: VideoScores,
    path: Path,
    *,
    threshold: float,
    timeout_s: float = 3600.0,
    memory_mb: int = 4096,
) -> None:
    """Write an mp4 of every frame with the score curve below it and a red border during alarms.

    Event recordings show their events on the annotation clock, ON blue and OFF red.

    Raises:
        MediaError: the recording cannot be read any more.
    """
    reader = FrameReader({recording.video_id: recording}, timeout_s=timeout_s, memory_mb=memory_mb)
    with reader as frames:
        pictures = (frames(recording.video_id, index) for index in range(scores.num_frames))
        write_mp4(path, draw(pictures, scores, threshold), fps=scores.fps, crf=23)


def draw(pictures: Iterator[Picture], scores: VideoScores, threshold: float) -> Iterator[Picture]:
    """Pictures ``[H, W, 3]`` of a recording, enlarged or reduced, with the panel under each."""
    per_frame = frame_scores(scores)
    panel: _Panel | None = None
    for index, picture in enumerate(pictures):
        fitted = fit(picture)
        if panel is None:
            panel = _Panel(per_frame, fitted.shape[1], threshold, float(scores.fps))
        yield panel.under(fitted, index)


def frame_scores(scores: VideoScores) -> FrameScores:
    """A score per frame ``[F]``, NaN where no snippet covers the frame.

    Unlike :meth:`VideoScores.frame_scores`, which refuses grids that leave frames out.
    """
    total, covers = np.zeros(scores.num_frames), np.zeros(scores.num_frames)
    for score, start, stop in zip(scores.scores, scores.start, scores.stop, strict=True):
        total[start:stop] += float(score)
        covers[start:stop] += 1
    with np.errstate(invalid="ignore"):
        per_frame: FrameScores = total / covers
    return per_frame


def fit(picture: Picture) -> Picture:
    """The picture at a width made for watching, by whole steps, with even sides for H.264."""
    width = picture.shape[1]
    if width > _MAX_WIDTH:
        step = -(-width // _MAX_WIDTH)
        picture = picture[::step, ::step]
    elif width < _MIN_WIDTH:
        times = -(-_MIN_WIDTH // width)
        picture = picture.repeat(times, axis=0).repeat(times, axis=1)
    odd_rows, odd_columns = picture.shape[0] % 2, picture.shape[1] % 2
    return np.pad(picture, ((0, odd_rows), (0, odd_columns), (0, 0)), mode="edge")


class _Panel:
    """A line of text and the whole score curve, the part still to come dimmed."""

    def __init__(self, per_frame: FrameScores, width: int, threshold: float, fps: float) -> None:
        self._per_frame = per_frame
        self._threshold = threshold
        self._fps = fps
        self._played = curve_strip(per_frame, width, threshold)
        faded = 0.4 * self._played + 0.6 * _PAPER
        self._to_come = faded.astype(np.uint8)

    def under(self, picture: Picture, index: int) -> Picture:
        """The picture of one frame with its panel below it."""
        score = float(self._per_frame[index])
        alarm = score >= self._threshold
        width = picture.shape[1]
        cursor = min(width - 2, index * width // len(self._per_frame))
        curve = self._to_come.copy()
        curve[:, :cursor] = self._played[:, :cursor]
        curve[:, cursor : cursor + 2] = _CURSOR
        framed = _bordered(picture) if alarm else picture
        return np.concatenate([framed, self._text(index, score, alarm, width), curve])

    def _text(self, index: int, score: float, alarm: bool, width: int) -> Picture:
        image = Image.new("RGB", (width, _TEXT_ROWS), tuple(_PAPER.tolist()))
        pen = ImageDraw.Draw(image)
        colour = tuple((_ALARM if alarm else _CURSOR).tolist())
        told = "no score" if np.isnan(score) else f"score {score:.2f}"
        if alarm:
            told += "  anomaly"
        pen.text((8, 4), clock(index / self._fps), fill=tuple(_CALM.tolist()), font=_font())
        pen.text((80, 4), told, fill=colour, font=_font())
        return np.asarray(image)


def curve_strip(per_frame: FrameScores, width: int, threshold: float) -> Picture:
    """The whole curve as a picture ``[_CURVE_ROWS, width, 3]``; alarms are red.

    A column shows the highest of its frames, so that a short alarm in a long recording stays.
    """
    first = np.arange(width) * len(per_frame) // width
    level = np.fmax.reduceat(per_frame, first)
    row = np.arange(_CURVE_ROWS)[:, None]
    bottom = _CURVE_ROWS - 1
    with np.errstate(invalid="ignore"):  # nothing is drawn where there is no score
        filled = row >= bottom * (1 - level)[None, :]
        colour = np.where((level >= threshold)[:, None], _ALARM, _CALM)
    strip = np.where(filled[:, :, None], colour[None], _PAPER)
    line = round(bottom * (1 - threshold))
    strip[line, (np.arange(width) // 4 % 2 == 0) & ~filled[line]] = _LINE
    return strip.astype(np.uint8)


def _bordered(picture: Picture) -> Picture:
    framed = picture.copy()
    framed[:_BORDER] = framed[-_BORDER:] = framed[:, :_BORDER] = framed[:, -_BORDER:] = _ALARM
    return framed


@cache
def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(14)
