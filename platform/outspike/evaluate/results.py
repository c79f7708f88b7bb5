"""What an evaluation found: plain frozen records that go to JSON and back without loss."""

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any, Literal

from outspike.errors import ConfigError
from outspike.evaluate.bootstrap import Difference

FORMAT = 1

LOWER_IS_BETTER = frozenset({"far", "far_normal", "far_abnormal", "false_alarms_per_hour"})
"""Metrics of which less is better."""

Verdict = Literal["better", "worse", "not shown"]


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A metric and its interval.

    ``value`` is None where the labels define none, and ``reason`` says why; a value may also stand
    without an interval, with the reason for that.
    """

    value: float | None = None
    low: float | None = None
    high: float | None = None
    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class ClassResult:
    """One anomaly class, over the videos of that class only."""

    name: str
    num_videos: int
    num_frames: int
    num_anomalous_frames: int | None
    mean_video_score: float
    auc: Estimate
    ap: Estimate


@dataclass(frozen=True, kw_only=True)
class VideoResult:
    """One video. A *ranking error* is a pair of an anomalous and a normal frame (of videos, where
    frames have no labels) in the wrong order; together they are what is missing from an AUC of 1.
    """

    video_id: str
    abnormal: bool | None
    class_name: str | None
    num_frames: int
    fps: float
    num_anomalous_frames: int | None
    num_unscored_frames: int
    num_clipped_frames: int
    score: float
    """Video score of the protocol."""
    auc: float | None
    false_alarm_rate: float | None
    """Share of its normal frames at or above the threshold."""
    missed: float | None
    """Share of all normal frames that outrank its anomalous ones, on average."""
    false_alarm: float | None
    """Share of all anomalous frames that its normal ones outrank, on average."""
    missed_share: float | None
    """Its anomalous frames' part in all ranking errors (half of them are counted here)."""
    false_alarm_share: float | None
    """Its normal frames' part in all ranking errors (the other half)."""

    @property
    def error_share(self) -> float:
        """Its part in all ranking errors; over all videos these sum to 1."""
        return (self.missed_share or 0.0) + (self.false_alarm_share or 0.0)


@dataclass(frozen=True, kw_only=True)
class FloorComparison:
    """The same protocol on the floor's scores of the same videos."""

    name: str
    metrics: dict[str, Estimate]
    differences: dict[str, Difference]
    """Paired difference, ours minus the floor's."""

    def verdict(self, metric: str) -> Verdict:
        """Whether the metric beats the floor; an interval that touches zero shows nothing."""
        difference = self.differences[metric]
        if not difference.shown or difference.value is None:
            return "not shown"
        return "better" if (difference.value > 0) != (metric in LOWER_IS_BETTER) else "worse"


@dataclass(frozen=True, kw_only=True)
class Results:
    """Everything :func:`outspike.evaluate.evaluate.evaluate` computes."""

    protocol: dict[str, Any]
    test_selected: bool
    num_videos: int
    num_abnormal: int
    num_normal: int
    num_frames: int
    num_anomalous_frames: int | None
    num_unscored_frames: int
    num_clipped_frames: int
    hours: float
    seed: int
    num_resamples: int
    stratified: bool
    level: float
    metrics: dict[str, Estimate]
    alarm_threshold: float | None
    """Threshold at which false alarms per hour were counted."""
    detection_by_iou: dict[str, float] | None
    per_class: tuple[ClassResult, ...]
    per_video: tuple[VideoResult, ...]
    floor: FloorComparison | None = None
    format: int = field(default=FORMAT)

    @property
    def primary(self) -> Estimate:
        """The protocol's headline metric."""
        return self.metrics[self.protocol["primary"]]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; floats keep every bit."""
        loaded: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self), allow_nan=False))
        return loaded

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> "Results":
        """Rebuild what :meth:`to_json` wrote.

        Raises:
            ConfigError: the document is of another format.
        """
        if document.get("format") != FORMAT:
            raise ConfigError(
                f"Evaluation results of format {document.get('format')!r}; this version reads "
                f"{FORMAT}. Evaluate again."
            )
        floor = document["floor"]
        return cls(
            **{
                **document,
                "metrics": _estimates(document["metrics"]),
                "per_class": tuple(_class_result(row) for row in document["per_class"]),
                "per_video": tuple(VideoResult(**row) for row in document["per_video"]),
                "floor": None if floor is None else _floor(floor),
            }
        )


def _estimates(document: dict[str, Any]) -> dict[str, Estimate]:
    return {name: Estimate(**values) for name, values in document.items()}


def _class_result(row: dict[str, Any]) -> ClassResult:
    return ClassResult(**{**row, "auc": Estimate(**row["auc"]), "ap": Estimate(**row["ap"])})


def _floor(document: dict[str, Any]) -> FloorComparison:
    return FloorComparison(
        name=document["name"],
        metrics=_estimates(document["metrics"]),
        differences={
            name: Difference(**values) for name, values in document["differences"].items()
        },
    )
