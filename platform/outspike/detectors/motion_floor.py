"""The floor under every results table: what frame differences alone can say.

Both forms read the feature set ``frame-motion``, one row a frame: the mean absolute grey difference
to the previous frame on a 24 x 36 grid, then four statistics of the difference at 64 x 48 (mean,
deviation, maximum, share above 15), all in grey levels of 255.
"""

import math
from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from outspike.config import MotionFloorConfig
from outspike.detectors.bags import Bags, Scores
from outspike.detectors.base import Detector, LossTerm, require_labels
from outspike.errors import BagError, ConfigError

GRID_ROWS, GRID_COLUMNS = 24, 36
NUM_CELLS = GRID_ROWS * GRID_COLUMNS
NUM_FRAME_STATS = 4
WIDTH = NUM_CELLS + NUM_FRAME_STATS
_CLIP_STATS = 3 * NUM_FRAME_STATS

_HIGHEST_CELLS = 5
_SIGMA_FRAMES = 5.0
#: A cell that hardly ever changes must not turn coding noise into a large z-score.
_MIN_DEVIATION = 1.0
_ALARM_QUANTILE = 0.99
_NEWTON_STEPS = 50


class MotionFloor(Detector):
    """Frame-difference baseline, fitted at once.

    ``normal_deviation``: per cell, the mean and deviation of the difference over real normal
    training frames; a frame's score is the mean of its five largest z-scores, smoothed over time
    (Gaussian, sigma 5 frames). It is squashed so that 1 % of the normal training frames lie above
    0.5.
    ``logistic``: logistic regression (unit L2 penalty, standardised inputs) on mean, deviation and
    maximum over a clip of the four frame statistics; every frame of a clip gets the clip's score.
    """

    trainable = False
    config: MotionFloorConfig

    def __init__(self, config: MotionFloorConfig) -> None:
        super().__init__()
        self.config = config
        sizes = {
            "normal_deviation": {"mean": NUM_CELLS, "deviation": NUM_CELLS, "squash": 2},
            "logistic": {"mean": _CLIP_STATS, "deviation": _CLIP_STATS, "weight": _CLIP_STATS + 1},
        }
        if config.form not in sizes:
            raise ConfigError(f"motion_floor: form={config.form!r}; known are {sorted(sizes)}.")
        self.fitted = nn.ParameterDict()
        for name, size in sizes[config.form].items():
            blank = torch.full((size,), torch.nan, dtype=torch.float64)
            self.fitted[name] = nn.Parameter(blank, requires_grad=False)

    @property
    def feature_sets(self) -> dict[str, int]:
        """The frame-difference features."""
        return {self.config.feature_set: WIDTH}

    def fit(self, batches: Iterable[Bags]) -> None:
        """Learn from training bags, which are gone through twice; an iterator is kept in memory.

        Raises:
            BagError: a bag without label, or no bags of a kind that the form needs.
        """
        batches = batches if isinstance(batches, Sequence) else list(batches)
        for bags in batches:
            require_labels(bags)
        if self.config.form == "logistic":
            self._fit_logistic(batches)
        else:
            self._fit_deviation(batches)

    def forward(self, bags: Bags) -> Scores:
        """Probability of each frame, ``[B, S]``."""
        rows = self._rows(bags)
        if not bool(torch.isfinite(self.fitted["mean"]).all()):
            raise ConfigError(
                "motion_floor has not been fitted: call fit(batches), or load weights."
            )
        if self.config.form == "logistic":
            clip = (clip_stats(rows, bags.mask) - self._value("mean")) / self._value("deviation")
            score = torch.sigmoid(_with_one(clip) @ self._value("weight"))
            score = score[:, None].expand(-1, rows.shape[1])
        else:
            centre, scale = self._value("squash").unbind()
            raw = self._deviation(rows, bags.mask)
            score = 0.5 + torch.atan((raw - centre) / scale) / math.pi
        return Scores(snippet=torch.where(bags.mask, score, 0.0).float())

    def loss(self, bags: Bags, scores: Scores) -> list[LossTerm]:
        """Nothing to descend on."""
        return []

    def _rows(self, bags: Bags) -> Tensor:
        rows = self.inputs(bags)[self.config.feature_set]
        if rows.shape[1] != 1:
            raise BagError(
                f"{bags.bag_ids[0]}: {rows.shape[1]} crops; motion_floor reads whole frames only."
            )
        return rows[:, 0].double()

    def _value(self, name: str) -> Tensor:
        value: Tensor = self.fitted[name]
        return value.double()  # a trainer may have cast the module

    def _deviation(self, rows: Tensor, mask: Tensor) -> Tensor:
        """Mean of the five largest z-scores of each frame, smoothed over time, ``[B, S]``."""
        z = (rows[..., :NUM_CELLS] - self._value("mean")) / self._value("deviation")
        return smooth(z.topk(_HIGHEST_CELLS, dim=2).values.mean(dim=2), mask, _SIGMA_FRAMES)

    def _fit_deviation(self, batches: Sequence[Bags]) -> None:
        count, total = 0, torch.zeros(NUM_CELLS, dtype=torch.float64)
        for cells in map(self._normal_cells, batches):
            count, total = count + len(cells), total + cells.sum(dim=0)
        if count == 0:
            raise BagError("motion_floor: no real normal bags among the training bags.")
        mean = total / count
        squares = torch.zeros_like(mean)
        for cells in map(self._normal_cells, batches):
            squares += (cells - mean).square().sum(dim=0)
        self.fitted["mean"].copy_(mean)
        self.fitted["deviation"].copy_((squares / count).sqrt().clamp_min(_MIN_DEVIATION))
        raw = torch.cat(
            [self._deviation(self._rows(bags), bags.mask)[_normal(bags)] for bags in batches]
        )
        spread = raw.std(correction=0).clamp_min(1e-6)
        centre = torch.quantile(raw[:: max(1, len(raw) // 1_000_000)], _ALARM_QUANTILE)
        self.fitted["squash"].copy_(torch.stack([centre, spread]))

    def _normal_cells(self, bags: Bags) -> Tensor:
        return self._rows(bags)[_normal(bags)][:, :NUM_CELLS].cpu()

    def _fit_logistic(self, batches: Sequence[Bags]) -> None:
        stats = torch.cat([clip_stats(self._rows(bags), bags.mask).cpu() for bags in batches])
        labels = torch.cat([bags.labels.double().cpu() for bags in batches])
        if labels.min() == labels.max():
            raise BagError(
                f"motion_floor: all {len(labels)} training bags have label {int(labels[0])}; the "
                "logistic form needs both kinds."
            )
        mean, deviation = stats.mean(dim=0), stats.std(dim=0, correction=0)
        deviation = torch.where(deviation > 0, deviation, torch.ones_like(deviation))
        weight = logistic_regression((stats - mean) / deviation, labels)
        for name, value in (("mean", mean), ("deviation", deviation), ("weight", weight)):
            self.fitted[name].copy_(value)


def clip_stats(rows_BSD: Tensor, mask_BS: Tensor) -> Tensor:
    """Mean, deviation and maximum over the frames of each clip of four statistics, ``[B, 12]``."""
    stats = rows_BSD[..., NUM_CELLS:]
    inside = mask_BS[..., None]
    number = inside.sum(dim=1)
    mean = torch.where(inside, stats, 0.0).sum(dim=1) / number
    squares = torch.where(inside, stats - mean[:, None], 0.0).square().sum(dim=1)
    highest = stats.masked_fill(~inside, -torch.inf).amax(dim=1)
    return torch.cat([mean, (squares / number).sqrt(), highest], dim=1)


def smooth(values_BS: Tensor, mask_BS: Tensor, sigma: float) -> Tensor:
    """Gaussian mean over time within each bag; near its ends over the frames that exist."""
    radius = math.ceil(4 * sigma)
    steps = torch.arange(-radius, radius + 1, device=values_BS.device, dtype=values_BS.dtype)
    kernel = torch.exp(-0.5 * (steps / sigma).square())[None, None]
    weight = mask_BS.to(values_BS.dtype)
    total = F.conv1d((values_BS * weight)[:, None], kernel, padding=radius)[:, 0]
    norm = F.conv1d(weight[:, None], kernel, padding=radius)[:, 0]
    return torch.where(mask_BS, total / norm.clamp_min(torch.finfo(norm.dtype).tiny), 0.0)


def logistic_regression(x_ND: Tensor, y_N: Tensor) -> Tensor:
    """Weights and, last, the intercept that minimise summed cross-entropy + |w|^2 / 2, ``[D + 1]``.

    Newton's method with halved steps; the problem is strictly convex in the weights.
    """
    x = _with_one(x_ND)
    penalty = torch.ones(x.shape[1], dtype=x.dtype)
    penalty[-1] = 0.0

    def objective(weight: Tensor) -> Tensor:
        entropy = F.binary_cross_entropy_with_logits(x @ weight, y_N, reduction="sum")
        return entropy + 0.5 * (penalty * weight.square()).sum()

    weight = torch.zeros_like(penalty)
    for _ in range(_NEWTON_STEPS):
        p = torch.sigmoid(x @ weight)
        gradient = x.T @ (p - y_N) + penalty * weight
        hessian = (x * (p * (1 - p))[:, None]).T @ x + torch.diag(penalty)
        step = torch.linalg.solve(hessian, gradient)
        size = 1.0
        while objective(weight - size * step) > objective(weight) and size > 1e-6:
            size /= 2
        weight = weight - size * step
        if step.abs().max() < 1e-10:
            break
    return weight


def _normal(bags: Bags) -> Tensor:
    """Frames of real normal bags, bool ``[B, S]``."""
    return bags.mask & (bags.labels == 0)[:, None] & ~bags.synthetic[:, None]


def _with_one(x: Tensor) -> Tensor:
    return torch.cat([x, torch.ones_like(x[:, :1])], dim=1)
