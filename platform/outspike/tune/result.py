"""What a search found: a table for people, files for the record."""

import csv
import json
import math
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from scipy.stats import t

from outspike.config import TrainConfig, from_json, to_json
from outspike.registry.tracking import RunLogger


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One trial: what it was given, and the best it reached."""

    trial_id: str
    """Hash of its settings; of a member of a population, also of what it goes on with."""
    number: int
    """Which one it was, from 0 in the order they were drawn."""
    values: dict[str, Any]
    """Settings by dotted name."""
    metric: float | None
    """Best held-out metric; None where it failed before its first evaluation."""
    step: int
    """Steps taken; fewer than asked for where it was stopped early."""
    seconds: float
    error: str | None = None
    continues: str | None = None
    """The trial whose weights it went on with, in a population."""


@dataclass(frozen=True, kw_only=True)
class Seeds:
    """Trials that differ in nothing but the seed."""

    values: dict[str, Any]
    """Settings by dotted name, without the seed."""
    metrics: tuple[float, ...]
    num_failed: int

    @property
    def mean(self) -> float:
        """Mean over the seeds; NaN where all failed."""
        return fmean(self.metrics) if self.metrics else math.nan

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % interval of the mean (Student's t); None below two seeds."""
        if len(self.metrics) < 2:
            return None
        half = float(t.ppf(0.975, len(self.metrics) - 1)) * stdev(self.metrics)
        half /= math.sqrt(len(self.metrics))
        return self.mean - half, self.mean + half


@dataclass(frozen=True, kw_only=True)
class TuneResult:
    """Every trial of a search, best first."""

    name: str
    metric: str
    run_id: str
    """The parent run."""
    trials: tuple[Trial, ...]
    best: TrainConfig | None
    """The base config with the best trial's settings."""
    ended: str | None = None
    """Why no more trials were drawn, where that was before their number was full."""

    def to_document(self) -> dict[str, Any]:
        """Plain JSON values."""
        best = None if self.best is None else to_json(self.best)
        return {**asdict(self), "best": best}

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> "TuneResult":
        """Inverse of :meth:`to_document`."""
        best = document["best"]
        restored = {
            "trials": tuple(Trial(**trial) for trial in document["trials"]),
            "best": None if best is None else from_json(TrainConfig, best),
        }
        return cls(**(document | restored))

    def over_seeds(self) -> list[Seeds]:
        """Trials gathered over their seeds, best mean first; empty where no seed was varied."""
        groups: dict[str, list[Trial]] = {}
        for trial in self.trials:
            if "seed" in trial.values:
                rest = {name: v for name, v in trial.values.items() if name != "seed"}
                groups.setdefault(json.dumps(rest, sort_keys=True), []).append(trial)
        found = [
            Seeds(
                values=json.loads(key),
                metrics=tuple(x.metric for x in trials if x.metric is not None),
                num_failed=sum(x.metric is None for x in trials),
            )
            for key, trials in groups.items()
        ]
        return sorted(found, key=lambda group: (not group.metrics, -group.mean))

    def table(self, rows: int = 10) -> str:
        """The lines that end the job."""
        seconds = sum(trial.seconds for trial in self.trials)
        gathered = self.over_seeds()
        why = f" ({self.ended})" if self.ended else ""
        work = f"{len(self.trials)} trials{why}, {seconds:.0f} s of work"
        lines = [f"{work}; best {self.metric} first:"]
        if gathered:
            lines += [_seeds_line(group) for group in gathered]
            lines.append("single trials:")
        for trial in self.trials[:rows]:
            values = ", ".join(f"{name}={short(value)}" for name, value in trial.values.items())
            score = f"{trial.metric:.4f}" if trial.metric is not None else "  none"
            ended = f"  failed: {trial.error}" if trial.error else ""
            lines.append(f"  {score}  step {trial.step:>5}  {values}{ended}")
        if len(self.trials) > rows:
            lines.append(f"  and {len(self.trials) - rows} more in trials.csv of the run")
        lines.append(
            f"search {self.name}, MLflow run {self.run_id} (search.html, trials.csv, best.json)"
        )
        return "\n".join(lines)


def log_result(parent: RunLogger, result: TuneResult, page: str) -> None:
    """Keep best metric, table of trials, best config and the HTML page with the search's run."""
    scores = [trial.metric for trial in result.trials if trial.metric is not None]
    if scores:
        parent.log_metrics({f"best/{result.metric}": max(scores)}, step=len(result.trials))
    with tempfile.TemporaryDirectory(prefix="outspike-tune-") as folder:
        table = Path(folder) / "trials.csv"
        _write_table(table, result)
        parent.log_artifact(table)
        report = Path(folder) / "search.html"
        report.write_text(page, encoding="utf-8")
        parent.log_artifact(report)
        if result.best is not None:
            best = Path(folder) / "best.json"
            best.write_text(json.dumps(to_json(result.best), indent=1), encoding="utf-8")
            parent.log_artifact(best)


def _write_table(path: Path, result: TuneResult) -> None:
    names = sorted({name for trial in result.trials for name in trial.values})
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(
            ["trial_id", "number", result.metric, "step", "seconds", "error", "continues", *names]
        )
        for trial in result.trials:
            ended = [trial.metric, trial.step, round(trial.seconds, 3), trial.error]
            ended.append(trial.continues)
            rows.writerow(
                [trial.trial_id, trial.number, *ended, *(trial.values.get(name) for name in names)]
            )


def _seeds_line(group: Seeds) -> str:
    values = ", ".join(f"{name}={short(value)}" for name, value in group.values.items())
    between = (
        "no interval" if group.interval is None else "[{:.4f}, {:.4f}]".format(*group.interval)
    )
    failed = f", {group.num_failed} failed" if group.num_failed else ""
    return f"  {group.mean:.4f} {between} over {len(group.metrics)} seeds{failed}  {values}"


def short(value: Any) -> str:
    """A setting as it is shown."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
