"""Inline SVG of the report: curves, interval bars, timelines. Colours come from the page's CSS.

Everything is drawn in the units of a fixed view box and scales with the page. Long series are
thinned to what a screen can show, keeping the extremes of every step, so that no peak gets lost.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray

Array = NDArray[np.float64]

PANEL = 268.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 36.0, 8.0, 8.0, 34.0

TIMELINE_WIDTH = 1000.0
_PLOT_WIDTH = 974.0
_LINE_TOP, _LINE_HEIGHT, _AXIS_HEIGHT = 6.0, 92.0, 16.0
_CONNECTOR_HEIGHT = 16.0
_MAX_STEPS = 900

SPARK_WIDTH, SPARK_HEIGHT = 220.0, 34.0
_SPARK_STEPS = 110

BAR_WIDTH, BAR_HEIGHT = 190.0, 18.0


@dataclass(frozen=True, kw_only=True)
class Line:
    """One curve of a panel; ``kind`` is its CSS class."""

    x: Array
    y: Array
    kind: str


def number(value: float) -> str:
    """A coordinate with one decimal at most."""
    return f"{value:.1f}".removesuffix(".0")


def panel(
    lines: Sequence[Line],
    *,
    label: str,
    x_label: str,
    y_label: str,
    x_max: float = 1.0,
    diagonal: bool = False,
    baseline: float | None = None,
) -> Markup:
    """A square plot of curves over ``[0, x_max] x [0, 1]``.

    Args:
        lines: Curves, drawn in order.
        label: What it shows, for screen readers.
        x_label, y_label: Axis titles.
        x_max: Right end of the x axis.
        diagonal: Draw the line of chance.
        baseline: Height of a dashed horizontal line.
    """
    width, height = PANEL - _LEFT - _RIGHT, PANEL - _TOP - _BOTTOM
    parts = []
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        x, y = _LEFT + share * width, _TOP + (1 - share) * height
        parts.append(f'<path class="grid" d="M{number(x)} {number(_TOP)}v{number(height)}"/>')
        parts.append(f'<path class="grid" d="M{number(_LEFT)} {number(y)}h{number(width)}"/>')
        if share in (0.0, 0.5, 1.0):
            tick = f"{share * x_max:.3g}"
            parts.append(_text(x, PANEL - 19, tick, "middle"))
            parts.append(_text(_LEFT - 5, y + 3, f"{share:g}", "end"))
    if diagonal:
        parts.append(
            f'<path class="chance" d="M{number(_LEFT)} {number(_TOP + height)}'
            f'L{number(_LEFT + width)} {number(_TOP)}"/>'
        )
    if baseline is not None:
        y = _TOP + (1 - baseline) * height
        parts.append(f'<path class="chance" d="M{number(_LEFT)} {number(y)}h{number(width)}"/>')
    for line in lines:
        x_all = _LEFT + np.clip(line.x / x_max, 0, 1) * width
        y_all = _TOP + (1 - np.clip(line.y, 0, 1)) * height
        parts.append(f'<path class="{line.kind}" d="{_polyline(x_all, y_all)}"/>')
    parts.append(_text(_LEFT + width / 2, PANEL - 4, x_label, "middle", "axis"))
    parts.append(
        f'<text class="axis" text-anchor="middle" transform="translate(9 '
        f'{number(_TOP + height / 2)}) rotate(-90)">{escape(y_label)}</text>'
    )
    return _svg(PANEL, PANEL, label, parts, "panel")


def histogram(
    normal: Array, anomalous: Array, edges: Array, *, label: str, x_label: str, y_label: str
) -> Markup:
    """Two overlaid densities, each scaled to its own highest bar."""
    width, height = PANEL - _LEFT - _RIGHT, PANEL - _TOP - _BOTTOM
    span = edges[-1] - edges[0]
    x_all = _LEFT + (edges - edges[0]) / span * width
    parts = []
    for share in (0.0, 0.5, 1.0):
        x = _LEFT + share * width
        parts.append(_text(x, PANEL - 19, f"{edges[0] + share * span:.3g}", "middle"))
    bottom = _TOP + height
    parts.append(f'<path class="grid" d="M{number(_LEFT)} {number(bottom)}h{number(width)}"/>')
    for counts, kind in ((normal, "fill-normal"), (anomalous, "fill-anomalous")):
        if counts.max(initial=0) == 0:
            continue
        tops = bottom - counts / counts.max() * height * 0.96
        steps = "".join(f"V{number(y)}H{number(x)}" for x, y in zip(x_all[1:], tops, strict=True))
        parts.append(
            f'<path class="{kind}" d="M{number(_LEFT)} {number(bottom)}{steps}V{number(bottom)}Z"/>'
        )
    parts.append(_text(_LEFT + width / 2, PANEL - 4, x_label, "middle", "axis"))
    parts.append(
        f'<text class="axis" text-anchor="middle" transform="translate(20 '
        f'{number(_TOP + height / 2)}) rotate(-90)">{escape(y_label)}</text>'
    )
    return _svg(PANEL, PANEL, label, parts, "panel")


def interval_bar(
    value: float,
    low: float | None,
    high: float | None,
    *,
    floor: float | None,
    scale: float,
    chance: float | None,
    label: str,
) -> Markup:
    """A point with its interval on ``[0, scale]``; the floor as an open ring, chance as a tick."""
    middle = BAR_HEIGHT / 2

    def at(position: float) -> float:
        return 5 + min(max(position / scale, 0.0), 1.0) * (BAR_WIDTH - 10)

    parts = [f'<path class="track" d="M5 {number(middle)}H{number(BAR_WIDTH - 5)}"/>']
    if chance is not None:
        parts.append(f'<path class="tick" d="M{number(at(chance))} {number(middle - 5)}v10"/>')
    if low is not None and high is not None:
        parts.append(
            f'<path class="whisker" d="M{number(at(low))} {number(middle)}H{number(at(high))}"/>'
        )
    if floor is not None:
        parts.append(
            f'<circle class="ring" cx="{number(at(floor))}" cy="{number(middle)}" r="3.6"/>'
        )
    parts.append(f'<circle class="dot" cx="{number(at(value))}" cy="{number(middle)}" r="4.2"/>')
    return _svg(BAR_WIDTH, BAR_HEIGHT, label, parts, "bar")


@dataclass(frozen=True, kw_only=True)
class Series:
    """Snippet scores of one video as steps over frames."""

    score: Array
    start: Array
    stop: Array
    num_frames: int


def timeline(
    series: Series,
    *,
    floor: Series | None,
    intervals: Sequence[tuple[int, int]],
    threshold: float | None,
    y_max: float,
    ticks: Sequence[tuple[float, str]],
    key_frames: Sequence[int],
    label: str,
) -> Markup:
    """Scores over time with ground truth shaded, and lines down to the key frames below.

    Args:
        series: The scores.
        floor: The floor's scores of the same video, drawn faintly.
        intervals: Half-open anomalous frames.
        threshold: Height of a dashed line.
        y_max: Top of the score axis.
        ticks: Frame and text of each mark on the time axis.
        key_frames: Frames shown below, in order, in columns of equal width.
        label: What it shows, for screen readers.
    """
    frames = max(series.num_frames, 1)
    bottom = _LINE_TOP + _LINE_HEIGHT

    def x_of(frame: float) -> float:
        return frame / frames * _PLOT_WIDTH

    parts = []
    for start, stop in intervals:
        span = max(x_of(stop) - x_of(start), 1.0)
        parts.append(
            f'<rect class="truth" x="{number(x_of(start))}" y="0" width="{number(span)}" '
            f'height="{number(bottom)}"/>'
        )
    for share in (0.0, 0.5, 1.0):
        y = bottom - share * _LINE_HEIGHT
        parts.append(f'<path class="grid" d="M0 {number(y)}H{number(_PLOT_WIDTH)}"/>')
        parts.append(_text(_PLOT_WIDTH + 6, y + 3.5, f"{share * y_max:g}", "start"))
    scaled = _Scale(_PLOT_WIDTH, bottom, _LINE_HEIGHT, y_max, frames)
    if floor is not None:
        parts.append(f'<path class="line-floor" d="{scaled.steps(floor, _MAX_STEPS)}"/>')
    path = scaled.steps(series, _MAX_STEPS)
    parts.append(f'<path class="area" d="{scaled.area(series, _MAX_STEPS)}"/>')
    parts.append(f'<path class="line" d="{path}"/>')
    if threshold is not None and 0 < threshold <= y_max:
        y = bottom - threshold / y_max * _LINE_HEIGHT
        parts.append(f'<path class="threshold" d="M0 {number(y)}H{number(_PLOT_WIDTH)}"/>')
    for frame, text in ticks:
        x = x_of(frame)
        anchor = "start" if x < 20 else "end" if x > _PLOT_WIDTH - 20 else "middle"
        parts.append(_text(x, bottom + 13, text, anchor))
    height = bottom + _AXIS_HEIGHT
    if key_frames:
        parts.extend(_connectors([x_of(frame + 0.5) for frame in key_frames], height))
        height += _CONNECTOR_HEIGHT
    return _svg(TIMELINE_WIDTH, height, label, parts, "timeline")


def sparkline(
    series: Series, *, intervals: Sequence[tuple[int, int]], y_max: float, label: str
) -> Markup:
    """The same in small, for an overview of many videos."""
    frames = max(series.num_frames, 1)
    parts = []
    for start, stop in intervals:
        x = start / frames * SPARK_WIDTH
        span = max((stop - start) / frames * SPARK_WIDTH, 1.0)
        parts.append(
            f'<rect class="truth" x="{number(x)}" y="0" width="{number(span)}" '
            f'height="{number(SPARK_HEIGHT)}"/>'
        )
    scaled = _Scale(SPARK_WIDTH, SPARK_HEIGHT - 1, SPARK_HEIGHT - 3, y_max, frames)
    parts.append(f'<path class="line" d="{scaled.steps(series, _SPARK_STEPS)}"/>')
    return _svg(SPARK_WIDTH, SPARK_HEIGHT, label, parts, "spark")


def thin(x: Array, y: Array, resolution: int = 240) -> tuple[Array, Array]:
    """Points of a curve on the unit square that are far enough apart to be told apart."""
    if len(x) < 3:
        return x, y
    travelled = np.concatenate([[0.0], np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y)))])
    _, kept = np.unique(np.floor(travelled * resolution), return_index=True)
    kept = np.union1d(kept, [len(x) - 1])
    return x[kept], y[kept]


@dataclass(frozen=True)
class _Scale:
    """Frames and scores to view-box units."""

    width: float
    bottom: float
    height: float
    y_max: float
    frames: int

    def steps(self, series: Series, max_steps: int) -> str:
        """Step curve; gaps between snippets are left open."""
        parts: list[str] = []
        previous = None
        for x0, x1, y in self._corners(series, max_steps):
            if previous is None or x0 > previous + 0.05:
                parts.append(f"M{number(x0)} {number(y)}H{number(x1)}")
            else:
                parts.append(f"V{number(y)}H{number(x1)}")
            previous = x1
        return "".join(parts)

    def area(self, series: Series, max_steps: int) -> str:
        """The same, closed down to zero."""
        parts: list[str] = []
        for x0, x1, y in self._corners(series, max_steps):
            if not parts:
                parts.append(f"M{number(x0)} {number(self.bottom)}")
            parts.append(f"L{number(x0)} {number(y)}H{number(x1)}")
        return "".join(parts) + f"V{number(self.bottom)}Z" if parts else ""

    def _corners(self, series: Series, max_steps: int) -> list[tuple[float, float, float]]:
        start, stop, score = _thin_steps(series, max_steps)
        unit = self.width / self.frames
        y = self.bottom - np.clip(score / self.y_max, 0, 1) * self.height
        return list(zip((start * unit).tolist(), (stop * unit).tolist(), y.tolist(), strict=True))


def _thin_steps(series: Series, max_steps: int) -> tuple[Array, Array, Array]:
    """At most about ``max_steps`` steps; of each group the lowest and the highest score survive."""
    count = len(series.score)
    if count <= max_steps:
        return series.start, series.stop, series.score
    groups = np.array_split(np.arange(count), max_steps // 2)
    starts, stops, scores = [], [], []
    for rows in groups:
        first, last = series.start[rows[0]], series.stop[rows[-1]]
        low, high = rows[series.score[rows].argmin()], rows[series.score[rows].argmax()]
        middle = (first + last) / 2
        for part, row in zip(((first, middle), (middle, last)), sorted((low, high)), strict=True):
            starts.append(part[0])
            stops.append(part[1])
            scores.append(series.score[row])
    return np.array(starts), np.array(stops), np.array(scores)


def _connectors(positions: Sequence[float], top: float) -> list[str]:
    parts = []
    for index, x in enumerate(positions):
        column = (index + 0.5) * TIMELINE_WIDTH / len(positions)
        parts.append(
            f'<path class="connector" d="M{number(x)} {number(top)}v4'
            f'L{number(column)} {number(top + _CONNECTOR_HEIGHT - 3)}v3"/>'
        )
        parts.append(f'<path class="mark" d="M{number(x)} {number(_LINE_TOP)}V{number(top)}"/>')
    return parts


def _polyline(x: Array, y: Array) -> str:
    points = [f"{number(a)} {number(b)}" for a, b in zip(x.tolist(), y.tolist(), strict=True)]
    return "M" + "L".join(points) if points else ""


def _text(x: float, y: float, text: str, anchor: str, kind: str = "tick-label") -> str:
    return (
        f'<text class="{kind}" x="{number(x)}" y="{number(y)}" text-anchor="{anchor}">'
        f"{escape(text)}</text>"
    )


def _svg(width: float, height: float, label: str, parts: Sequence[str], kind: str) -> Markup:
    return Markup(  # every part is built from numbers, fixed class names and escaped text
        f'<svg class="{kind}" viewBox="0 0 {number(width)} {number(height)}" role="img" '
        f'aria-label="{escape(label)}">{"".join(parts)}</svg>'
    )
