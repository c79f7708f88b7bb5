"""What is done with models: predicting, evaluating, cross-fitting."""

from dataclasses import dataclass, field
from typing import Literal

from outspike.config.training import TrainConfig
from outspike.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """``jobs/predict.py``: a model and recordings in; tables, curves and overlays out."""

    model: str = "models:/miniature@champion"
    """``models:/NAME@champion``, ``models:/NAME/VERSION``, ``NAME`` for its newest version, or the
    folder or s3:// prefix of a bundle."""
    input: str = "outspike-data/miniature/unseen"
    """A recording, a folder, or an s3:// prefix."""
    out: str = "predictions"
    """Folder (on a cluster, one that every node sees) or s3:// prefix for ``<video_id>.csv``,
    ``.json``, ``.png`` and ``.mp4``."""
    threshold: float = 0.5
    """Snippets scored at least this form the intervals of the ``.json``."""
    overlay: bool = True
    """Write ``.mp4``, the recording with its score drawn under it."""
    tracking_uri: str = "sqlite:///mlflow.db"
    num_actors: int | None = None
    """Ray actors; None scores a few recordings in this process and more of them with two actors."""
    cpus_per_actor: float = 0.5
    gpus_per_actor: float = 0.0
    decode_timeout_s: float = 3600.0
    decode_memory_mb: int = 4096
    max_bad_share: float = 0.1
    """Share of inputs that cannot be scored above which the job exits with 3."""
    dry_run: bool = False
    """Say what would be scored by which model, and stop."""

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1:
            raise ConfigError(f"threshold={self.threshold}: scores lie in [0, 1].")
        if not 0 <= self.max_bad_share <= 1:
            raise ConfigError(f"max_bad_share={self.max_bad_share}: a share lies in [0, 1].")
        if self.num_actors is not None and self.num_actors < 1:
            raise ConfigError(f"num_actors={self.num_actors}: at least one, or leave it out.")


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """``jobs/evaluate.py``: a model in; figures with intervals and the HTML report out."""

    model: str = "models:/miniature@champion"
    """``models:/NAME@champion``, ``models:/NAME/VERSION``, or a bundle folder."""
    protocol: str | None = None
    """Evaluation rule; None takes the one the model was registered under."""
    out: str = "outspike-report"
    """Local folder or s3:// prefix for ``report.html`` and ``results.json``."""
    against: str = "motion_floor"
    """What to compare with on the very same recordings: ``motion_floor``, another model's address
    or bundle folder, or ``none``."""
    num_resamples: int = 1000
    """Bootstrap resamples behind each interval."""
    seed: int = 0
    key_frames: bool = True
    """Decode frames of the recordings and show them under the timelines."""
    max_large: int = 24
    """Recordings shown with a full timeline; the others are small curves."""
    study: Literal["none", "perturbation"] = "none"
    """``perturbation``: instead of the report, how an IEF-VAD model bears the loss of part of one
    stream, as tables and plots in ``out``."""
    tracking_uri: str = "sqlite:///mlflow.db"
    dry_run: bool = False
    """Say what would be scored, from the catalog, and stop."""

    def __post_init__(self) -> None:
        if self.num_resamples < 0 or self.max_large < 0:
            raise ConfigError(
                f"num_resamples={self.num_resamples}, max_large={self.max_large}: not negative."
            )


@dataclass(frozen=True, kw_only=True)
class CrossfitConfig:
    """``jobs/crossfit.py``: a training repeated over folds; every recording scored unseen."""

    train: TrainConfig = field(default_factory=TrainConfig)
    """What each fold trains, in this process; ``train.seed`` seeds its weights."""
    protocol: str = "surv-fight-cross"
    """A protocol that cross-fits; it says which recordings are dealt out."""
    num_folds: int = 5
    against: Literal["motion_floor", "none"] = "motion_floor"
    """What to compare with, fitted on the very same folds."""
    out: str = "outspike-crossfit"
    """Local folder or s3:// prefix for ``report.html``, ``results.json`` and ``folds.json``."""
    num_resamples: int = 1000
    """Bootstrap resamples behind each interval."""
    seed: int = 0
    """Of the dealing and of the resamples."""
    key_frames: bool = True
    """Decode frames of the recordings and show them under the timelines."""
    max_large: int = 24
    """Recordings shown with a full timeline; the others are small curves."""
    dry_run: bool = False
    """Say which folds would be trained, from the catalog, and stop."""

    def __post_init__(self) -> None:
        if self.num_folds < 2 or self.num_resamples < 0 or self.max_large < 0:
            raise ConfigError(
                f"num_folds={self.num_folds}, num_resamples={self.num_resamples}, "
                f"max_large={self.max_large}: need at least 2 folds and nothing negative."
            )
        if self.train.selection.split != "last":
            raise ConfigError(
                f"train.selection.split={self.train.selection.split!r}: each fold trains "
                "train.steps and keeps the last one; use 'last'."
            )
