"""What a search found, for people who would rather look: one self-contained HTML page.

Which settings mattered, where good values lie, how they go together, and every trial in a table.
"""

import base64
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
import optuna
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.importance import FanovaImportanceEvaluator, get_param_importances

from outspike.tune.result import Seeds, Trial, TuneResult, short

#: Trials below which a forest fitted to them says nothing about importance.
MIN_TRIALS = 8
_SLICES_A_ROW = 3
#: Where a line passes the axis of a setting that its trial does not have.
_ABSENT = -0.14
_COLOURS = "viridis_r"
_INK, _MUTED, _GRID = "#1f2733", "#6b7684", "#e6e9ee"
_BAR, _BEST = "#2457d6", "#e0563b"

Space = Mapping[str, BaseDistribution]


def render_search(result: TuneResult, space: Space) -> str:
    """The page.

    Args:
        result: every trial of the search.
        space: what was varied, by dotted name; settings that only some trials have may lack there.
    """
    judged = [trial for trial in result.trials if trial.metric is not None]
    found = importances(result, space)
    order = sorted(space, key=lambda name: (-(found or {}).get(name, 0.0), name))
    environment = Environment(
        loader=PackageLoader("outspike.tune"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["short"] = short
    gathered = [group for group in result.over_seeds() if group.metrics]
    partial = [name for name in order if not all(name in trial.values for trial in judged)]
    return environment.get_template("search.html.j2").render(
        result=result,
        best=judged[0] if judged else None,
        names=order,
        num_failed=sum(trial.error is not None for trial in result.trials),
        seconds=sum(trial.seconds for trial in result.trials),
        min_trials=MIN_TRIALS,
        partial=partial,
        lineage=_lineage(result),
        importances=None if found is None else _picture(_importance_figure(found)),
        gathered=gathered,
        seeds=_picture(_seeds_figure(gathered, result.metric)) if gathered else None,
        history=_picture(_history_figure(judged, result.metric)) if judged else None,
        slices=_picture(_slice_figure(judged, space, order, result.metric)) if judged else None,
        parallel=_picture(_parallel_figure(judged, space, order, result.metric))
        if judged
        else None,
    )


def _lineage(result: TuneResult) -> dict[str, int]:
    """Numbers of trials by name, where some went on with others' weights; else empty."""
    if not any(trial.continues for trial in result.trials):
        return {}
    return {trial.trial_id: trial.number for trial in result.trials}


def importances(result: TuneResult, space: Space) -> dict[str, float] | None:
    """Share of the metric's variance that each setting explains (fANOVA, Hutter et al. 2014).

    Over the settings that every trial has: where a setting is missing it has no value to compare.
    None where fewer than :data:`MIN_TRIALS` trials have a metric, where all reached the same, or
    where no setting is common to all.
    """
    rows = [trial for trial in result.trials if trial.metric is not None]
    common = {n: space[n] for n in space if all(n in trial.values for trial in rows)}
    if len(rows) < MIN_TRIALS or len({trial.metric for trial in rows}) == 1 or not common:
        return None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize")
    study.add_trials(
        [
            optuna.trial.create_trial(
                params={name: trial.values[name] for name in common},
                distributions=dict(common),
                value=trial.metric,
            )
            for trial in rows
        ]
    )
    found = get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))
    return {str(name): float(value) for name, value in found.items()}


# ------------------------------------------------------------------------------- the figures


def _importance_figure(found: Mapping[str, float]) -> Figure:
    figure = Figure(figsize=(5.4, 0.9 + 0.34 * len(found)), layout="constrained")
    axes = figure.add_subplot()
    names = sorted(found, key=lambda name: found[name])
    bars = axes.barh(names, [found[name] for name in names], color=_BAR, height=0.6)
    axes.bar_label(bars, fmt="%.2f", padding=4, color=_MUTED, fontsize=9)
    axes.set_xlim(0, 1.12 * max(found.values()))
    axes.set_xlabel("share of the variance explained", color=_MUTED)
    _plain(axes)
    axes.grid(visible=False, axis="y")
    return figure


def _seeds_figure(gathered: Sequence[Seeds], metric: str) -> Figure:
    """Mean, interval and single seeds of every configuration, the best on top."""
    figure = Figure(figsize=(11.2, 0.9 + 0.3 * len(gathered)), layout="constrained")
    axes = figure.add_subplot()
    for row, group in enumerate(gathered):
        axes.scatter(group.metrics, [row] * len(group.metrics), s=14, color=_MUTED, alpha=0.6, lw=0)
        if group.interval is not None:
            axes.hlines(row, *group.interval, color=_BAR, lw=2, alpha=0.45)
        axes.scatter(group.mean, row, s=44, color=_BAR, zorder=3)
    axes.set_yticks(range(len(gathered)), _told_apart(gathered))
    axes.set_ylim(len(gathered) - 0.4, -0.6)
    axes.set_xlabel(metric, color=_MUTED)
    _plain(axes)
    return figure


def _told_apart(gathered: Sequence[Seeds]) -> list[str]:
    """A name for every configuration: the settings in which they differ."""
    values = [group.values for group in gathered]
    names = [n for n in values[0] if any(v.get(n) != values[0][n] for v in values)]
    return [", ".join(short(v[n]) for n in names if n in v) or "as it is" for v in values]


def _history_figure(judged: Sequence[Trial], metric: str) -> Figure:
    figure = Figure(figsize=(5.4, 2.9), layout="constrained")
    axes = figure.add_subplot()
    ordered = sorted(judged, key=lambda trial: trial.number)
    numbers = [trial.number for trial in ordered]
    values = np.array([trial.metric for trial in ordered], dtype=float)
    axes.scatter(numbers, values, s=16, color=_MUTED, alpha=0.7, lw=0)
    axes.step(numbers, np.maximum.accumulate(values), where="post", color=_BEST, lw=1.8)
    axes.set_xlabel("trial", color=_MUTED)
    axes.set_ylabel(metric, color=_MUTED)
    _plain(axes)
    return figure


def _slice_figure(
    judged: Sequence[Trial], space: Space, names: Sequence[str], metric: str
) -> Figure:
    num_rows = math.ceil(len(names) / _SLICES_A_ROW)
    figure = Figure(figsize=(11.2, 2.7 * num_rows), layout="constrained")
    steps = np.array([trial.step for trial in judged])
    first: Axes | None = None
    for index, name in enumerate(names):
        axes = figure.add_subplot(num_rows, _SLICES_A_ROW, index + 1, sharey=first)
        first = first or axes
        having = [trial for trial in judged if name in trial.values]
        scale = _Scale(name, space[name], having)
        x = scale.jittered([trial.values[name] for trial in having])
        colours = Normalize(min(steps.min(), steps.max() - 1), steps.max())
        axes.scatter(
            x,
            [trial.metric or 0.0 for trial in having],
            c=[trial.step for trial in having],
            cmap=_COLOURS,
            norm=colours,
            s=22,
            lw=0,
        )
        if having[:1] == judged[:1]:  # the best of all has this setting
            axes.scatter(x[0], having[0].metric or 0.0, s=90, facecolor="none", edgecolor=_BEST)
        axes.set_xticks(*scale.ticks())
        axes.set_xlabel(name, color=_INK)
        if index % _SLICES_A_ROW == 0:
            axes.set_ylabel(metric, color=_MUTED)
        _plain(axes)
    return figure


def _parallel_figure(
    judged: Sequence[Trial], space: Space, names: Sequence[str], metric: str
) -> Figure:
    figure = Figure(figsize=(11.2, 3.6), layout="constrained")
    axes = figure.add_subplot()
    scores = np.array([trial.metric for trial in judged], dtype=float)
    low, high = float(scores.min(initial=np.inf)), float(scores.max(initial=-np.inf))
    colours = matplotlib.colormaps[_COLOURS]
    scales, columns = [], []
    for name in names:
        has = np.array([name in trial.values for trial in judged])
        having = [trial for trial in judged if name in trial.values]
        scales.append(_Scale(name, space[name], having))
        columns.append(np.full(len(judged), _ABSENT))
        columns[-1][has] = scales[-1].jittered([trial.values[name] for trial in having])
    height = (scores - low) / (high - low) if high > low else np.full(len(scores), 0.5)
    for row in np.argsort(scores):  # the best are drawn last
        line = [*(column[row] for column in columns), height[row]]
        axes.plot(line, color=colours(height[row]), alpha=0.35 + 0.6 * height[row], lw=1.4)
    for place, scale in enumerate(scales):
        axes.axvline(place, color=_GRID, zorder=0)
        for position, text in zip(*scale.ticks(), strict=True):
            _label(axes, place, position, text)
        if (columns[place] == _ABSENT).any():
            _label(axes, place, _ABSENT, "not set")
    axes.axvline(len(names), color=_GRID, zorder=0)
    for share in (0.0, 0.5, 1.0):
        _label(axes, len(names), share, f"{low + share * (high - low):.3f}")
    axes.set_xlim(-0.05, len(names) + 0.25)
    axes.set_ylim(_ABSENT - 0.05 if (np.array(columns) == _ABSENT).any() else -0.05, 1.05)
    axes.set_xticks(range(len(names) + 1), [*names, metric])
    axes.set_yticks([])
    _plain(axes)
    axes.grid(visible=False)
    return figure


class _Scale:
    """Where values of one setting lie between 0 and 1, whatever kind it is."""

    def __init__(self, name: str, distribution: BaseDistribution, trials: Sequence[Trial]) -> None:
        self._choices: tuple[Any, ...] | None = None
        self._is_log = bool(getattr(distribution, "log", False))
        if isinstance(distribution, CategoricalDistribution):
            self._choices = _in_order(distribution.choices)
        else:
            values = [float(trial.values[name]) for trial in trials]
            self._low = float(getattr(distribution, "low", min(values, default=0.0)))
            self._high = float(getattr(distribution, "high", max(values, default=1.0)))

    def jittered(self, values: Sequence[Any]) -> NDArray[np.float64]:
        """Positions; equal choices are spread a little, the same way every time."""
        if self._choices is None:
            return np.array([self._position(float(value)) for value in values])
        places = np.array([self._choices.index(value) for value in values], dtype=float)
        spread = np.random.default_rng(0).uniform(-0.2, 0.2, len(places))
        positions: NDArray[np.float64] = (places + 0.5 + spread) / len(self._choices)
        return positions

    def ticks(self) -> tuple[list[float], list[str]]:
        """Positions and their labels."""
        if self._choices is not None:
            places = [(i + 0.5) / len(self._choices) for i in range(len(self._choices))]
            return places, [str(choice) for choice in self._choices]
        shares = [0.0, 0.5, 1.0]
        return shares, [f"{self._value(share):.3g}" for share in shares]

    def _position(self, value: float) -> float:
        low, high = self._ends()
        return ((math.log(value) if self._is_log else value) - low) / ((high - low) or 1.0)

    def _value(self, share: float) -> float:
        low, high = self._ends()
        value = low + share * (high - low)
        return math.exp(value) if self._is_log else value

    def _ends(self) -> tuple[float, float]:
        if self._is_log:
            return math.log(self._low), math.log(self._high)
        return self._low, self._high


def _in_order(choices: Sequence[Any]) -> tuple[Any, ...]:
    """Numbers by their size, anything else as it was written."""
    if all(isinstance(choice, int | float) for choice in choices):
        return tuple(sorted(choices))
    return tuple(choices)


def _label(axes: Axes, x: float, y: float, text: str) -> None:
    """A value beside an upright axis, readable above the lines that cross it."""
    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.8}
    axes.text(x + 0.015, y, text, fontsize=8, color=_INK, va="center", bbox=box, zorder=5)


def _plain(axes: Axes) -> None:
    axes.grid(color=_GRID, lw=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=_MUTED, length=0, labelsize=9)
    for side in axes.spines.values():
        side.set_visible(False)


def _picture(figure: Figure) -> Markup:
    """The figure as an image that is part of the page."""
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "outspike"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    data = base64.b64encode(buffer.getvalue()).decode()
    return Markup('<img alt="" src="data:image/svg+xml;base64,{}">').format(data)
