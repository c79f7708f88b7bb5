"""Pictures of a run: its learning curves, and how scores of a few recordings came to be."""

import io
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from outspike import urls
from outspike.train.history import History
from outspike.train.logging import RunLogger

_FOLDER = "figures"
_DPI = 110
_WIDTH_IN = 9.0
#: Metrics that share a panel, by how their names begin; the first that fits takes them.
_PANELS = (
    ("spikes a neuron and step", ("spikes/",)),
    ("bags a second", ("pace/bags_per_s",)),
    ("share of time waiting for bags", ("pace/waiting_share",)),
    ("memory, MB", ("memory/",)),
    ("learning rate", ("lr",)),
    ("norm of the gradient", ("gradient_norm",)),
    ("synthetic bags", ("ssls/",)),
    ("", ("pace/",)),
    ("held out", ("held_out/",)),
    ("loss", ("",)),
)
_LABELS = {0: "normal", 1: "anomalous", None: "unlabelled"}


def keep_figures(run_url: str, run_logger: RunLogger) -> None:
    """Draw what a run has written of itself; keep it beside the run and in its record."""
    drawn = draw(History.load(run_url))
    with tempfile.TemporaryDirectory(prefix="outspike-figures-") as folder:
        for name, image in drawn.items():
            urls.write_bytes(urls.join(run_url, _FOLDER, name), image)
            local = Path(folder) / name
            local.write_bytes(image)
            run_logger.log_artifact(local, _FOLDER)


def draw(history: History) -> dict[str, bytes]:
    """PNG images by file name; none of what there is nothing to draw from."""
    drawn = {}
    if history.metrics:
        drawn["learning-curves.png"] = _png(_curves(history))
    if history.timelines:
        drawn["timelines.png"] = _png(_timelines(history))
    return drawn


def _curves(history: History) -> Figure:
    panels: dict[str, list[str]] = {}
    for name in sorted(history.metrics):
        title = next(title for title, starts in _PANELS if name.startswith(starts))
        panels.setdefault(title, []).append(name)
    panels.pop("", None)
    if not any(share for _, share in history.metrics.get("ssls/share", ())):
        panels.pop("synthetic bags", None)
    titles = [title for title, _ in reversed(_PANELS) if title in panels]
    num_rows = -(-len(titles) // 2)
    figure = Figure(figsize=(_WIDTH_IN, 2.4 * num_rows), layout="constrained")
    axes = figure.subplots(num_rows, 2, squeeze=False).flatten()
    for place, title in zip(axes, titles, strict=False):
        _panel(place, title, panels[title], history)
    for place in axes[len(titles) :]:
        place.set_axis_off()
    return figure


def _panel(axes: Axes, title: str, names: Sequence[str], history: History) -> None:
    for name in names:
        steps, values = zip(*history.metrics[name], strict=True)
        few = "." if len(steps) < 30 else ""
        axes.plot(steps, values, linewidth=1.2, marker=few, label=name.rpartition("/")[2])
    axes.set_title(title, fontsize=9, loc="left")
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.25)
    axes.set_xlabel("step", fontsize=7)
    if len(names) > 1:
        axes.legend(fontsize=6, ncols=2, framealpha=0.4)


def _timelines(history: History) -> Figure:
    shown = sorted(history.timelines.items(), key=lambda item: (-(item[1]["label"] or 0), item[0]))
    figure = Figure(figsize=(_WIDTH_IN, 1.7 * len(shown)), layout="constrained")
    for axes, (key, timeline) in zip(
        figure.subplots(len(shown), 1, squeeze=False).flatten(), shown, strict=True
    ):
        _timeline(axes, key, timeline)
    return figure


def _timeline(axes: Axes, key: str, timeline: dict[str, Any]) -> None:
    for start, stop in timeline["intervals"] or ():
        axes.axvspan(start, stop, color="tab:red", alpha=0.15, linewidth=0)
    by_step = sorted(timeline["scores"].items(), key=lambda item: int(item[0]))
    colours = ["0.65", "tab:blue"][-len(by_step) :]
    for colour, (step, scores) in zip(colours, by_step, strict=True):
        axes.step(
            [*timeline["frames"], timeline["num_frames"]],
            [*scores, scores[-1]],
            where="post",
            color=colour,
            linewidth=1.1,
            label=f"step {step}",
        )
    axes.set_ylim(-0.02, 1.02)
    axes.set_xlim(0, timeline["num_frames"])
    axes.set_title(f"{key} ({_LABELS[timeline['label']]})", fontsize=8, loc="left")
    axes.set_xlabel("frame", fontsize=7)
    axes.tick_params(labelsize=7)
    axes.legend(fontsize=6, loc="upper right")


def _png(figure: Figure) -> bytes:
    FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI)
    return buffer.getvalue()
