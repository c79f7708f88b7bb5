"""One self-contained HTML page about an evaluation: it opens by double click and asks nobody.

Every figure on it comes from :class:`~outspike.evaluate.results.Results`, which is also embedded
whole as JSON (``<script id="results">``).
"""

import datetime
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from outspike import urls
from outspike.errors import AlignmentError
from outspike.evaluate import svg, words
from outspike.evaluate.bootstrap import Difference
from outspike.evaluate.frames import on_frames
from outspike.evaluate.metrics import (
    Evaluated,
    frame_ranking,
    video_ranking,
    video_score,
)
from outspike.evaluate.protocols import Protocol
from outspike.evaluate.report_videos import Thumbnails, build_gallery
from outspike.evaluate.results import Estimate, Results, Verdict
from outspike.scoring.scores import VideoScores

MAX_LARGE = 24
"""Videos shown with a full timeline and key frames; the others are sparklines."""

_HISTOGRAM_BINS = 40
_CHANCE = {"auc": 0.5, "auc_abnormal": 0.5, "auc_per_video": 0.5, "video_auc": 0.5}
_PROVENANCE_TITLES = {
    "model": "Model",
    "store": "Feature store",
    "catalog_version": "Catalog version",
    "recordings_version": "Label version",
    "feature_sets": "Feature sets",
    "fingerprints": "Fingerprints",
    "fingerprint": "Fingerprint",
    "config_hash": "Config",
    "command": "Command",
    "git": "Git revision",
}


@dataclass(frozen=True, kw_only=True)
class MetricRow:
    """A metric as the page shows it."""

    name: str
    title: str
    meaning: str
    estimate: Estimate
    value: str
    interval: str
    bar: Markup | None
    floor_value: str | None
    difference: Difference | None
    difference_text: str
    difference_interval: str
    verdict: Verdict | None


def write_report(
    results: Results,
    videos: Sequence[VideoScores],
    url: str,
    *,
    provenance: Mapping[str, Any],
    floor: Sequence[VideoScores] | None = None,
    thumbnails: Thumbnails | None = None,
    max_large: int = MAX_LARGE,
    title: str | None = None,
) -> str:
    """Write the page to a local path or ``s3://`` address and return that address.

    Args:
        results: What :func:`~outspike.evaluate.evaluate.evaluate` found for ``videos``.
        videos: The scores, for curves and timelines.
        url: Where to write; readers see the old page or the new one, never a part.
        provenance: What made it, shown in the footer as given: ``store``, ``catalog_version``,
            ``fingerprints``, ``command``, ``git``, ``model``, ... A value may be a list.
        floor: The floor's scores, for its curves.
        thumbnails: ``(video_id, frame) -> [H, W, 3]`` RGB; a ``MediaError`` from it is shown in the
            frame's place. None leaves key frames out.
        max_large: Videos shown with a full timeline.
        title: Heading; the model's name by default.

    Raises:
        AlignmentError: ``videos`` are not those of ``results``.
    """
    page = render_report(
        results,
        videos,
        provenance=provenance,
        floor=floor,
        thumbnails=thumbnails,
        max_large=max_large,
        title=title,
    )
    urls.write_bytes(url, page.encode())
    return url


def render_report(
    results: Results,
    videos: Sequence[VideoScores],
    *,
    provenance: Mapping[str, Any],
    floor: Sequence[VideoScores] | None = None,
    thumbnails: Thumbnails | None = None,
    max_large: int = MAX_LARGE,
    title: str | None = None,
) -> str:
    """The page of :func:`write_report` as text."""
    found = [video.video_id for video in videos]
    if found != [row.video_id for row in results.per_video]:
        raise AlignmentError(
            f"A report needs the scores its results were computed from, in the same order; got "
            f"{len(found)} videos for {len(results.per_video)} results."
        )
    protocol = Protocol.from_json(results.protocol)
    rows = [_metric_row(results, name) for name in results.metrics]
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            title=title or str(provenance.get("model") or f"{protocol.name} evaluation"),
            results=results,
            protocol=protocol,
            headline=next(row for row in rows if row.name == protocol.primary),
            metrics=rows,
            undefined=_grouped_reasons(rows),
            panels=_panels(results, videos, floor, protocol),
            classes=_class_rows(results),
            detection=results.detection_by_iou or {},
            gallery=build_gallery(
                results, videos, floor=floor, thumbnails=thumbnails, max_large=max_large
            ),
            facts=_facts(results),
            provenance=_provenance(provenance, protocol, results),
            written=datetime.datetime.now(tz=datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
            results_json=_embedded_json(results),
            words=words,
        )
    )


def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("outspike.evaluate"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _metric_row(results: Results, name: str) -> MetricRow:
    estimate = results.metrics[name]
    floor = results.floor
    floor_estimate = None if floor is None else floor.metrics[name]
    difference = None if floor is None else floor.differences[name]
    return MetricRow(
        name=name,
        title=words.METRIC_TITLES[name],
        meaning=words.METRIC_MEANINGS[name],
        estimate=estimate,
        value=words.figure(name, estimate.value),
        interval=words.interval(name, estimate),
        bar=_bar(name, estimate, floor_estimate),
        floor_value=None if floor_estimate is None else words.figure(name, floor_estimate.value),
        difference=difference,
        difference_text="" if difference is None else words.signed(name, difference.value),
        difference_interval=""
        if difference is None or difference.low is None
        else f"{words.signed(name, difference.low)} to {words.signed(name, difference.high)}",
        verdict=None if floor is None else floor.verdict(name),
    )


def _bar(name: str, estimate: Estimate, floor: Estimate | None) -> Markup | None:
    if estimate.value is None:
        return None
    scale = 1.0
    if name == "false_alarms_per_hour":
        reached = [estimate.value, estimate.high, *((floor.value, floor.high) if floor else ())]
        scale = max([value for value in reached if value is not None] + [1e-9]) * 1.05
    return svg.interval_bar(
        estimate.value,
        estimate.low,
        estimate.high,
        floor=None if floor is None else floor.value,
        scale=scale,
        chance=_CHANCE.get(name),
        label=f"{words.METRIC_TITLES[name]} {words.figure(name, estimate.value)}",
    )


def _grouped_reasons(rows: Sequence[MetricRow]) -> dict[str, list[str]]:
    """Why metrics have no value or no interval, each reason once with the metrics it holds for."""
    grouped: dict[str, list[str]] = {}
    for row in rows:
        if row.estimate.reason is not None:
            grouped.setdefault(row.estimate.reason, []).append(row.title)
    return grouped


@dataclass(frozen=True, kw_only=True)
class _Curves:
    """ROC and precision-recall points of one score set."""

    false_rate: svg.Array
    true_rate: svg.Array
    precision: svg.Array
    recall: svg.Array
    prevalence: float


def _panels(
    results: Results,
    videos: Sequence[VideoScores],
    floor: Sequence[VideoScores] | None,
    protocol: Protocol,
) -> list[tuple[str, Markup]]:
    """Title and drawing of each plot; none where the labels have one class only."""
    data = _evaluated(videos, protocol)
    ours = _curves(data, protocol)
    if ours is None:
        return []
    unit = "frames" if data.runs is not None else "videos"
    below = None
    if floor is not None:
        by_id = {video.video_id: video for video in floor}
        below = _curves(_evaluated([by_id[v.video_id] for v in videos], protocol), protocol)
    panels = [
        ("ROC", _roc_panel(ours, below, unit)),
        ("Precision and recall", _precision_panel(ours, below, unit)),
    ]
    if data.runs is not None and data.alarms.num_intervals:
        panels.append(("Alarms and recall", _alarm_panel(data)))
    panels.append(("Scores", _score_panel(data, protocol, unit)))
    return panels


def _evaluated(videos: Sequence[VideoScores], protocol: Protocol) -> Evaluated:
    return Evaluated([on_frames(video, protocol) for video in videos], protocol)


def _curves(data: Evaluated, protocol: Protocol) -> _Curves | None:
    if data.runs is not None:
        ranking = frame_ranking(data.runs)
    else:
        ranking = video_ranking(data.scores, protocol)
    true, false = ranking.counts(np.ones(len(data.videos)))
    if not len(true) or true[-1] == 0 or false[-1] == 0:
        return None
    recall, false_rate = true / true[-1], false / false[-1]
    roc = svg.thin(np.append(0.0, false_rate), np.append(0.0, recall))
    kept = true > 0
    shares = (true / np.maximum(true + false, 1.0))[kept]
    # Precision is constant down to no recall: nothing scores higher than the first threshold.
    precision = svg.thin(np.append(0.0, recall[kept]), np.append(shares[:1], shares))
    return _Curves(
        false_rate=roc[0],
        true_rate=roc[1],
        recall=precision[0],
        precision=precision[1],
        prevalence=float(true[-1] / (true[-1] + false[-1])),
    )


def _roc_panel(ours: _Curves, floor: _Curves | None, unit: str) -> Markup:
    lines = [svg.Line(x=ours.false_rate, y=ours.true_rate, kind="line")]
    if floor is not None:
        lines.insert(0, svg.Line(x=floor.false_rate, y=floor.true_rate, kind="line-floor"))
    return svg.panel(
        lines,
        label=f"ROC curve over {unit}",
        x_label=f"false-positive rate over {unit}",
        y_label="true-positive rate",
        diagonal=True,
    )


def _precision_panel(ours: _Curves, floor: _Curves | None, unit: str) -> Markup:
    lines = [svg.Line(x=ours.recall, y=ours.precision, kind="line")]
    if floor is not None:
        lines.insert(0, svg.Line(x=floor.recall, y=floor.precision, kind="line-floor"))
    return svg.panel(
        lines,
        label=f"Precision-recall curve over {unit}",
        x_label=f"recall over {unit}",
        y_label="precision",
        baseline=ours.prevalence,
    )


def _alarm_panel(data: Evaluated) -> Markup:
    recall, per_hour = data.alarms.curve(np.ones(len(data.videos)))
    wanted = max(data.protocol.recall, 0.9)
    knee = float(per_hour[min(int(np.searchsorted(recall, wanted)), len(recall) - 1)])
    x_max = min(max(float(per_hour.max()), 1.0), max(10.0, 4 * knee))
    shown = per_hour <= x_max
    steps = np.repeat(np.append(per_hour[shown], x_max), 2)[:-1]
    caught = np.repeat(np.append(0.0, recall[shown]), 2)[1:]
    return svg.panel(
        [svg.Line(x=steps, y=caught, kind="line")],
        label="Share of annotated intervals caught against false alarms per hour",
        x_label="false alarms per hour",
        y_label="intervals caught",
        x_max=x_max,
        baseline=data.protocol.recall,
    )


def _score_panel(data: Evaluated, protocol: Protocol, unit: str) -> Markup:
    """Histograms of normal and anomalous scores."""
    if data.runs is not None:
        score, positive = data.runs.score, data.runs.positive
        weight = data.runs.length.astype(np.float64)
    else:
        score = np.array([video_score(video, protocol) for video in data.scores])
        positive, weight = data.is_class(True), np.ones(len(data.videos))
    low, high = min(0.0, float(score.min())), max(float(score.max()), 1e-9)
    edges = np.linspace(low, high, _HISTOGRAM_BINS + 1)
    normal = np.histogram(score[~positive], bins=edges, weights=weight[~positive])[0]
    anomalous = np.histogram(score[positive], bins=edges, weights=weight[positive])[0]
    return svg.histogram(
        normal.astype(np.float64),
        anomalous.astype(np.float64),
        edges,
        label=f"Distribution of the scores of normal and anomalous {unit}",
        x_label="score",
        y_label="relative frequency",
    )


def _class_rows(results: Results) -> list[dict[str, Any]]:
    return [
        {
            "result": found,
            "score_bar": svg.interval_bar(
                found.mean_video_score,
                None,
                None,
                floor=None,
                scale=1.0,
                chance=None,
                label=f"Mean video score of {found.name}",
            ),
            "auc_bar": _bar("auc", found.auc, None),
            "ap_bar": _bar("ap", found.ap, None),
        }
        for found in results.per_class
    ]


def _facts(results: Results) -> list[tuple[str, str]]:
    """Size of the test set, and what was left out or clipped."""
    facts = [
        (str(results.num_videos), "videos" if results.num_videos != 1 else "video"),
        (str(results.num_abnormal), "anomalous"),
        (str(results.num_normal), "normal"),
        (f"{results.num_frames:,}", "frames"),
        (words.duration(results.hours * 3600), "of footage"),
    ]
    if results.num_anomalous_frames is not None:
        share = results.num_anomalous_frames / max(results.num_frames, 1)
        facts.append((words.percent(share), "of frames anomalous"))
    return facts


def _provenance(
    given: Mapping[str, Any], protocol: Protocol, results: Results
) -> list[tuple[str, list[str]]]:
    rows = [
        (
            "Protocol",
            [f"{protocol.label}, data set {protocol.dataset}, split {protocol.split}"],
        ),
        (
            "Intervals",
            [
                f"{100 * results.level:g} %, {results.num_resamples} resamples of "
                f"{'normal and anomalous videos' if results.stratified else 'videos'}, "
                f"seed {results.seed}"
            ],
        ),
    ]
    order = [key for key in _PROVENANCE_TITLES if key in given]
    order += [key for key in given if key not in _PROVENANCE_TITLES]
    for key in order:
        value = given[key]
        values = [str(item) for item in value] if isinstance(value, list | tuple) else [str(value)]
        rows.append((_PROVENANCE_TITLES.get(key, key.replace("_", " ").capitalize()), values))
    return rows


def _embedded_json(results: Results) -> Markup:
    """JSON that cannot end its script element."""
    return Markup(json.dumps(results.to_json()).replace("<", "\\u003c"))  # "<" only inside strings
