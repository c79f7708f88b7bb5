"""How settings of a training are searched."""

from dataclasses import dataclass, field
from typing import Literal

from outspike.config.training import SelectionConfig, TrainConfig
from outspike.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class TuneConfig:
    """``jobs/tune.py``: a training to vary, what to vary, and how long."""

    name: str = "search"
    """Of the search; the same command again goes on with it."""
    train: TrainConfig = field(
        default_factory=lambda: TrainConfig(selection=SelectionConfig(split="holdout"))
    )
    """What every trial starts from."""
    space: tuple[str, ...] = ("optim.lr=log:1e-4:1e-1",)
    """``FIELD=log:LOW:HIGH``, ``uniform:LOW:HIGH``, ``int:LOW:HIGH`` or ``choice:A,B,C``, with the
    dotted name of a training setting; ``FIELD,FIELD=cases:A,B|C,D`` varies settings together, and
    ``... when FIELD=A|B`` varies one only where another has these values. With ``seed`` among them,
    results are gathered over the seeds."""
    num_trials: int = 16
    """At most; with ``pbt`` the members of the population."""
    hours: float | None = None
    """Draw no trial after so many hours; those that run then are finished."""
    patience: int | None = None
    """Draw no trial after so many in a row that were no better than the best."""
    sampler: Literal["tpe", "random", "grid", "pbt"] = "tpe"
    """``grid`` goes through every combination of ``choice`` and ``cases``, whatever
    ``num_trials`` says. ``pbt`` trains a population whose worst quarter takes over weights and
    varied settings of the best every ``grace_steps``."""
    early_stop: bool = True
    """Stop trials that are behind at an evaluation (ASHA)."""
    grace_steps: int = 50
    """Steps that every trial is given before it may be stopped."""
    max_concurrent: int = 2
    cpus_per_trial: float = 1.0
    """Of a trial that is one process."""
    workers_per_trial: int = 0
    """Ray Train workers that share a trial's batches, each with ``train.cpus_per_worker`` and
    ``train.gpus_per_worker``; 0 trains in the trial's own process, which starts much faster."""
    num_cpus: int | None = None
    """CPUs of a local Ray; ignored on a cluster."""
    seed: int = 0
    confirm_seeds: int = 0
    """Train the best configuration again with this many seeds, and report their mean."""
    resume: bool = False
    """Go on with the search of that name under the settings it was started with."""
    dry_run: bool = False
    """Say what would be searched, and stop."""

    def __post_init__(self) -> None:
        if self.num_trials < 1 or self.max_concurrent < 1:
            raise ConfigError(
                f"num_trials={self.num_trials}, max_concurrent={self.max_concurrent}: at least 1."
            )
        if not (self.hours is None or self.hours > 0) or not (
            self.patience is None or self.patience >= 1
        ):
            raise ConfigError(
                f"hours={self.hours}, patience={self.patience}: above 0, or leave them out."
            )
        if self.workers_per_trial and self.train.selection.split == "cross_validation":
            raise ConfigError(
                f"workers_per_trial={self.workers_per_trial}: the folds of a cross-validation are "
                "trained in the trial's own process; use 'holdout', or 0 workers."
            )
        if self.train.selection.split not in ("holdout", "cross_validation"):
            raise ConfigError(
                f"train.selection.split={self.train.selection.split!r}: a search needs held-out "
                "training recordings to compare trials; use 'holdout' or 'cross_validation'."
            )
