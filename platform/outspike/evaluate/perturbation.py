"""How a fusion model bears the loss of part of one modality (``ief_vad.md`` section 6.2).

A random share of the positions of one modality is scaled down to next to nothing, and the scores
and fusion weights are compared with those of the clean run. The model is any callable; nothing here
depends on a framework. All means are pooled over the frames of all videos.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from outspike.errors import AlignmentError, ConfigError
from outspike.evaluate.frames import Runs
from outspike.evaluate.metrics import PairTable, frame_ranking

Windows = Mapping[str, NDArray[np.float32]]
"""Features of one video as the model sees them: ``{modality: [W, T, D]}``, padding included."""

FRACTIONS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5)
"""Shares of a window that the published study perturbs."""

_SCALE = 0.01
_KL_EPSILON = 1e-8


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a model says of the windows of one video, padding included."""

    probability: NDArray[np.floating]
    """``[W, T]``."""
    weights: Mapping[str, NDArray[np.floating]]
    """Share of each modality in the fused features, ``{modality: [W, T, D]}``."""


Model = Callable[[Windows], Outcome]


@dataclass(frozen=True, kw_only=True)
class StudyVideo:
    """One video: ``labels [F]`` are ``frames_per_row`` for each row that is no padding."""

    name: str
    windows: Windows
    labels: NDArray[np.uint8]
    frames_per_row: int = 16

    def __post_init__(self) -> None:
        rows = {name: values.shape[0] * values.shape[1] for name, values in self.windows.items()}
        if len(self.labels) % self.frames_per_row or min(rows.values()) < self.num_rows:
            raise AlignmentError(
                f"{self.name}: {len(self.labels)} frame labels do not fit rows of "
                f"{self.frames_per_row} frames in windows of {rows} rows."
            )

    @property
    def num_rows(self) -> int:
        """Rows that are no padding; they come first."""
        return len(self.labels) // self.frames_per_row


@dataclass(frozen=True, kw_only=True)
class CaseResult:
    """One perturbation, over all videos. Frame-level means throughout."""

    modality: str | None
    """None for the clean run."""
    fraction: float
    brier: float
    kl: float
    """Mean Bernoulli KL divergence of the perturbed prediction from the clean one."""
    auc: float | None
    ap: float | None
    weight: dict[str, float]
    weight_abnormal: dict[str, float | None]
    """Over anomalous frames; None where there is none."""
    weight_normal: dict[str, float | None]
    weight_change: dict[str, NDArray[np.float64]]
    """Mean loss of weight against the clean run, ``{modality: [D]}``."""


def draw_positions(
    num_positions: int, fraction: float, rng: np.random.Generator
) -> NDArray[np.int64]:
    """The positions of a window to perturb: the first ``floor(fraction * T)`` of a permutation."""
    if not 0 <= fraction <= 1:
        raise ConfigError(f"fraction={fraction}: a share lies in [0, 1].")
    return rng.permutation(num_positions)[: int(fraction * num_positions)].astype(np.int64)


def perturb(windows: Windows, modality: str, positions: NDArray[np.int64]) -> Windows:
    """Scale the rows at these positions of every window of one modality by 0.01."""
    if modality not in windows:
        raise ConfigError(f"No modality {modality!r}; the video has {', '.join(windows)}.")
    changed = windows[modality].copy()
    changed[:, positions] *= _SCALE
    return {**windows, modality: changed}


def run_study(
    videos: Sequence[StudyVideo],
    model: Model,
    *,
    modalities: Sequence[str],
    fractions: Sequence[float] = FRACTIONS,
    seed: int = 0,
) -> list[CaseResult]:
    """The clean run, then every modality at every fraction above zero.

    Each video draws its positions from (seed, video, case), so that leaving a case or a video out
    moves no other figure.
    """
    clean = [model(video.windows) for video in videos]
    results = [summarise(videos, clean, clean, None, 0.0)]
    for modality in modalities:
        for fraction in fractions:
            if fraction == 0:
                continue
            positions = []
            for video in videos:
                rng = np.random.default_rng([seed, *f"{video.name}/{modality}/{fraction}".encode()])
                num_positions = video.windows[modality].shape[1]
                positions.append(draw_positions(num_positions, fraction, rng))
            results.append(run_case(videos, model, clean, modality, fraction, positions))
    return results


def run_case(
    videos: Sequence[StudyVideo],
    model: Model,
    clean: Sequence[Outcome],
    modality: str,
    fraction: float,
    positions: Sequence[NDArray[np.int64]],
) -> CaseResult:
    """One perturbation with the positions given for each video."""
    outcomes = [
        model(perturb(video.windows, modality, chosen))
        for video, chosen in zip(videos, positions, strict=True)
    ]
    return summarise(videos, clean, outcomes, modality, fraction)


def summarise(
    videos: Sequence[StudyVideo],
    clean: Sequence[Outcome],
    outcomes: Sequence[Outcome],
    modality: str | None,
    fraction: float,
) -> CaseResult:
    """Figures of a run against the clean one."""
    labels = np.concatenate([video.labels for video in videos]).astype(bool)
    before, after = _frame_scores(videos, clean), _frame_scores(videos, outcomes)
    names = list(outcomes[0].weights)
    weight = {name: _frame_weights(videos, outcomes, name) for name in names}
    auc, ap = _ranked(labels, after)
    return CaseResult(
        modality=modality,
        fraction=fraction,
        brier=float(np.mean((after - labels) ** 2)),
        kl=_bernoulli_kl(before, after),
        auc=auc,
        ap=ap,
        weight={name: float(weight[name].mean()) for name in names},
        weight_abnormal={name: _mean(weight[name][labels]) for name in names},
        weight_normal={name: _mean(weight[name][~labels]) for name in names},
        weight_change={name: _change(videos, clean, outcomes, name) for name in names},
    )


def _frame_scores(videos: Sequence[StudyVideo], outcomes: Sequence[Outcome]) -> NDArray[np.float64]:
    scores = []
    for video, outcome in zip(videos, outcomes, strict=True):
        rows = outcome.probability.reshape(-1)[: video.num_rows].astype(np.float64)
        scores.append(np.repeat(rows, video.frames_per_row))
    return np.concatenate(scores)


def _frame_weights(
    videos: Sequence[StudyVideo], outcomes: Sequence[Outcome], name: str
) -> NDArray[np.float64]:
    """Mean weight of a modality over the width, at every frame."""
    return np.concatenate(
        [
            np.repeat(_weights(video, outcome, name).mean(axis=1), video.frames_per_row)
            for video, outcome in zip(videos, outcomes, strict=True)
        ]
    )


def _weights(video: StudyVideo, outcome: Outcome, name: str) -> NDArray[np.float64]:
    """Weights of the rows that are no padding, ``[S, D]``."""
    weights = outcome.weights[name]
    return weights.reshape(-1, weights.shape[-1])[: video.num_rows].astype(np.float64)


def _change(
    videos: Sequence[StudyVideo],
    clean: Sequence[Outcome],
    outcomes: Sequence[Outcome],
    name: str,
) -> NDArray[np.float64]:
    total, frames = 0.0, 0
    for video, before, after in zip(videos, clean, outcomes, strict=True):
        lost = _weights(video, before, name) - _weights(video, after, name)
        total = total + lost.sum(axis=0) * video.frames_per_row
        frames += len(lost) * video.frames_per_row
    return np.asarray(total / frames, dtype=np.float64)


def _bernoulli_kl(clean: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    p = np.clip(clean, _KL_EPSILON, 1 - _KL_EPSILON)
    q = np.clip(other, _KL_EPSILON, 1 - _KL_EPSILON)
    return float(np.mean(p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))))


def _ranked(
    labels: NDArray[np.bool_], scores: NDArray[np.float64]
) -> tuple[float | None, float | None]:
    frames = np.arange(len(labels), dtype=np.int64)
    runs = Runs(
        video=np.zeros_like(frames),
        score=scores,
        positive=labels,
        start=frames,
        length=np.ones_like(frames),
        num_videos=1,
    )
    once = np.ones((1, 1))
    auc = float(PairTable(runs).auc(once)[0])
    ap = float(frame_ranking(runs).average_precision(once)[0])
    return (None if np.isnan(auc) else auc), (None if np.isnan(ap) else ap)


def _mean(values: NDArray[np.float64]) -> float | None:
    return float(values.mean()) if len(values) else None
