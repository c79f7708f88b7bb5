"""The score curve of one recording as a picture."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from outspike.evaluate.words import clock
from outspike.scoring.scores import VideoScores

_INK = "#1f2733"
_MUTED = "#6b7684"
_GRID = "#e6e9ee"
_SCORE = "#2457d6"
_FOUND = "#e0563b"
_SIZE = (10.0, 2.9)


def score_curve_png(
    scores: VideoScores, path: str | Path, intervals: Sequence[tuple[int, int]] = ()
) -> None:
    """Draw snippet scores over time, the given intervals shaded, as a PNG at ``path``.

    Args:
        scores: Scores of one recording. Its annotated intervals, where known, are a bar on top.
        path: File to write; it appears under this name only when complete.
        intervals: Half-open frame ranges to shade, normally those above a threshold.
    """
    fps = float(scores.fps)
    figure = Figure(figsize=_SIZE, dpi=130, layout="constrained", facecolor="white")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for start, stop in intervals:
        axes.axvspan(start / fps, stop / fps, color=_FOUND, alpha=0.16, lw=0)
    for start, stop in scores.intervals or ():
        axes.axvspan(start / fps, stop / fps, ymin=0.965, color=_INK, alpha=0.75, lw=0)
    times, values = _steps(scores)
    axes.fill_between(times, values, color=_SCORE, alpha=0.10, lw=0)
    axes.plot(times, values, color=_SCORE, lw=1.6, solid_joinstyle="round")
    axes.set_ylim(0, 1.03)
    axes.set_xlim(0, max(scores.num_frames, 1) / fps)
    axes.set_ylabel("anomaly score", color=_MUTED)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=9, steps=[1, 1.5, 2, 3, 5, 6, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda seconds, _: clock(seconds)))
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1.0])
    axes.grid(color=_GRID, lw=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=_MUTED, length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    found = f"{len(intervals)} interval{'' if len(intervals) == 1 else 's'} found"
    axes.set_title(scores.video_id, loc="left", color=_INK, fontweight="bold", fontsize=11)
    axes.set_title(found, loc="right", color=_FOUND if intervals else _MUTED, fontsize=10)
    _save(canvas, Path(path))


def _steps(scores: VideoScores) -> tuple[np.ndarray, np.ndarray]:
    """Corners of the step curve in seconds; gaps between snippets break the line."""
    fps = float(scores.fps)
    times, values = [], []
    for index in range(len(scores.scores)):
        start, stop = int(scores.start[index]), int(scores.stop[index])
        if index and start > int(scores.stop[index - 1]):
            times.append(start / fps)
            values.append(np.nan)
        times += [start / fps, stop / fps]
        values += [float(scores.scores[index])] * 2
    return np.array(times), np.array(values)


def _save(canvas: FigureCanvasAgg, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.part")
    canvas.figure.savefig(partial, format="png")
    partial.replace(path)
