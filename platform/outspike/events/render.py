"""Event recordings for people to look at: a video, or one picture of the whole recording."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from outspike.errors import ConfigError
from outspike.events.clips import FullCounts, grid_frames
from outspike.events.columns import Events
from outspike.events.frames import add_counts, check_inside
from outspike.events.reader import EventReader
from outspike.video.write import write_mp4

#: Counts above it look alike.
_BRIGHTEST = 4

#: Pictures of larger sensors have fewer, brighter pixels.
_WIDEST_VIDEO = 960

_BACKGROUND, _INK = (18, 20, 28), (225, 228, 235)
#: Lightest and strongest shade of each polarity.
_OFF = ((44, 92, 150), (88, 170, 255))
_ON = ((150, 120, 84), (255, 232, 190))


def paint(counts: NDArray[np.unsignedinteger]) -> NDArray[np.uint8]:
    """Counts ``[2, H, W]`` as a picture ``[H, W, 3]``: warm where brighter, blue where darker.

    A pixel with both polarities shows the one it has more of, ON where they are equal.
    """
    off, on = np.minimum(counts, _BRIGHTEST).astype(np.intp)
    picture: NDArray[np.uint8] = _PALETTE[off, on]
    return picture


def _palette() -> NDArray[np.uint8]:
    """Colours ``[OFF count, ON count, 3]``."""
    palette = np.empty((_BRIGHTEST + 1, _BRIGHTEST + 1, 3), dtype=np.uint8)
    for off in range(_BRIGHTEST + 1):
        for on in range(_BRIGHTEST + 1):
            low, high = np.array(_ON if on >= off else _OFF, dtype=float)
            share = (max(on, off) - 1) / (_BRIGHTEST - 1)
            palette[off, on] = low + share * (high - low) if on or off else _BACKGROUND
    return palette


_PALETTE = _palette()


def render_video(
    reader: EventReader,
    path: str | Path,
    *,
    fps: int = 30,
    slow: float = 1.0,
    crf: int = 20,
) -> int:
    """Write an mp4 file whose frames count the events of one window each; how many there were.

    Args:
        reader: an open recording whose size is known.
        path: local file.
        fps: frames a second.
        slow: how many times slower than life: a frame covers ``1 / (fps * slow)`` seconds.
        crf: quality of the video, lower is better.

    Raises:
        ConfigError: the size is not known, there are no events, or a frame would cover less than
            a microsecond.
    """
    size = known_size(reader)
    if fps < 1 or slow <= 0 or fps * slow > 1_000_000:
        raise ConfigError(f"fps={fps}, slow={slow}: a frame must cover at least a microsecond.")
    frames = grid_frames(
        reader.chunks(1 << 18),
        FullCounts(size),
        duration_us=round(1_000_000 / (fps * slow)),
        anchor_us=reader.info.anchor_us,
    )
    factor = -(-size[0] // _WIDEST_VIDEO)
    pictures = (paint(_pooled(frame, factor)) for frame in frames)
    return write_mp4(path, pictures, fps=Fraction(fps), crf=crf)


@dataclass(frozen=True, kw_only=True)
class SheetLayout:
    """How a contact sheet looks.

    Args:
        rows, columns: moments shown.
        window_us: duration of a moment; None divides the recording among them, to at most 33 ms.
        cell_width: of a moment's picture.
    """

    rows: int = 3
    columns: int = 4
    window_us: int | None = None
    cell_width: int = 320

    def __post_init__(self) -> None:
        if min(self.rows, self.columns) < 1 or self.cell_width < 16:
            raise ConfigError(
                f"A sheet of {self.columns}x{self.rows} cells {self.cell_width} wide; expected at "
                "least one cell, 16 wide."
            )
        if self.window_us is not None and self.window_us < 1:
            raise ConfigError(f"window_us={self.window_us}: expected at least a microsecond.")


_LONGEST_MOMENT_US = 33_333
_RATE_BINS, _STRIP_HEIGHT, _MARGIN, _LABEL_HEIGHT = 240, 90, 10, 18


def contact_sheet(reader: EventReader, path: str | Path, layout: SheetLayout | None = None) -> None:
    """Write a PNG with moments of the whole recording and the rate of events over time.

    Raises:
        ConfigError: the size is not known, or there are no events.
    """
    layout = layout or SheetLayout()
    size = known_size(reader)
    first_us, last_us, num_events = _span(reader.chunks())
    if not num_events:
        raise ConfigError(f"{reader.url}: no events, nothing to show.")
    num = layout.rows * layout.columns
    span_us = last_us - first_us + 1
    window_us = layout.window_us or max(1, min(_LONGEST_MOMENT_US, span_us // num))
    # Moments in the middle of equal parts, so that neither the first nor the last is cut short.
    starts_us = [
        first_us + max(0, (2 * i + 1) * span_us // (2 * num) - window_us // 2) for i in range(num)
    ]
    moments = np.zeros((num, 2, size[1], size[0]), dtype=np.uint16)
    rate = np.zeros((2, _RATE_BINS), dtype=np.int64)
    for chunk in reader.chunks():
        check_inside(chunk, size)
        for moment, start_us in zip(moments, starts_us, strict=True):
            add_counts(_within(chunk, start_us, start_us + window_us), moment)
        bins = (chunk.t - first_us) * _RATE_BINS // span_us
        for polarity in (0, 1):
            chosen = np.clip(bins[chunk.p == polarity], 0, _RATE_BINS - 1)
            rate[polarity] += np.bincount(chosen, minlength=_RATE_BINS)
    title = (
        f"{Path(reader.url).name}   {reader.info.title}   {size[0]}x{size[1]}   "
        f"{num_events:,} events in {_duration(span_us)}   "
        f"{num_events / span_us:.2f} million/s   a picture is {_duration(window_us)}"
    )
    labels = [_duration(start_us - first_us) for start_us in starts_us]
    picture = _sheet(
        moments, labels, rate.astype(np.float64) * (_RATE_BINS / span_us), title, layout
    )
    picture.save(path, format="PNG")


def known_size(reader: EventReader) -> tuple[int, int]:
    """Width and height of the sensor; a ConfigError where nobody tells."""
    width, height = reader.info.width, reader.info.height
    if width is None or height is None:
        raise ConfigError(
            f"{reader.url}: the sensor's size is not in the file; give it with --size WxH."
        )
    return width, height


def _span(chunks: Iterable[Events]) -> tuple[int, int, int]:
    """Earliest and latest time, and the number of events."""
    first_us, last_us, num = np.iinfo(np.int64).max, np.iinfo(np.int64).min, 0
    for chunk in chunks:
        if len(chunk):
            first_us, last_us = min(first_us, int(chunk.t.min())), max(last_us, int(chunk.t.max()))
            num += len(chunk)
    return first_us, last_us, num


def _within(events: Events, start_us: int, stop_us: int) -> Events:
    if not len(events) or int(events.t[-1]) < start_us or int(events.t[0]) >= stop_us:
        return Events.empty()
    inside = (events.t >= start_us) & (events.t < stop_us)
    return Events(events.t[inside], events.x[inside], events.y[inside], events.p[inside])


def _sheet(
    moments: NDArray[np.uint16],
    labels: list[str],
    rate: NDArray[np.float64],
    title: str,
    layout: SheetLayout,
) -> Image.Image:
    """Title, cells with their times, and the strip of rates (million events a second)."""
    height, width = moments.shape[-2:]
    cell = (layout.cell_width, max(1, round(layout.cell_width * height / width)))
    cell_height = cell[1] + _LABEL_HEIGHT + _MARGIN
    total_width = layout.columns * (cell[0] + _MARGIN) + _MARGIN
    top = 2 * _LABEL_HEIGHT + _MARGIN
    strip_top = top + layout.rows * cell_height
    sheet = Image.new(
        "RGB", (total_width, strip_top + _STRIP_HEIGHT + 2 * _LABEL_HEIGHT), (9, 10, 14)
    )
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=13)
    draw.text((_MARGIN, _MARGIN), title, fill=_INK, font=font)
    for number, (moment, label) in enumerate(zip(moments, labels, strict=True)):
        row, column = divmod(number, layout.columns)
        corner = (_MARGIN + column * (cell[0] + _MARGIN), top + row * cell_height)
        picture = Image.fromarray(paint(_pooled(moment, width // cell[0])))
        picture = picture.resize(cell, Image.Resampling.BOX)
        sheet.paste(picture, corner)
        draw.text((corner[0], corner[1] + cell[1] + 2), label, fill=_INK, font=font)
    box = (_MARGIN, strip_top, total_width - _MARGIN, strip_top + _STRIP_HEIGHT)
    highest = highest_shown(rate.sum(axis=0))
    _draw_rate(draw, rate, box, highest)
    caption = f"events over time, ON above OFF; peak {rate.sum(axis=0).max():.2f} million/s"
    if highest < rate.sum(axis=0).max():
        caption += f", cut off at {highest:.2f}"
    draw.text((_MARGIN, strip_top + _STRIP_HEIGHT + 4), caption, fill=_INK, font=font)
    return sheet


def highest_shown(rate: NDArray[np.float64]) -> float:
    """Top of the strip: the highest rate, unless a moment of bursts would flatten all the rest."""
    return min(float(rate.max()), 3.0 * float(np.percentile(rate, 95)) or np.inf)


def _pooled(counts: NDArray[np.uint16], factor: int) -> NDArray[np.uint32]:
    """Sums over blocks of pixels: averaging a few events of a large sensor would leave nothing."""
    wide = counts.astype(np.uint32)
    for axis in (1, 2):
        wide = np.add.reduceat(wide, np.arange(0, wide.shape[axis], max(1, factor)), axis=axis)
    return wide


def _duration(time_us: int) -> str:
    """A time in the unit that suits it."""
    if time_us < 1_000_000:
        return f"{time_us / 1000:.4g} ms"
    return f"{time_us / 1_000_000:.2f} s"


def _draw_rate(
    draw: ImageDraw.ImageDraw,
    rate: NDArray[np.float64],
    box: tuple[int, int, int, int],
    highest: float,
) -> None:
    left, top, right, bottom = box
    draw.rectangle(box, fill=_BACKGROUND)
    scale = (bottom - top) / max(highest, 1e-12)
    edges = np.linspace(left, right, rate.shape[1] + 1)
    for (begin, end), off, on in zip(_pairs(edges), rate[0], rate[1], strict=True):
        middle = max(bottom - off * scale, top)
        if off:
            draw.rectangle((begin, middle, end, bottom), fill=_OFF[1])
        if on and middle > top:
            draw.rectangle((begin, max(middle - on * scale, top), end, middle), fill=_ON[1])


def _pairs(edges: NDArray[np.float64]) -> Iterator[tuple[float, float]]:
    return zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)
