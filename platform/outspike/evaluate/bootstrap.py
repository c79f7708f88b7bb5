"""Intervals by resampling videos: frames of one video are not independent, videos nearly are.

A resample is a vector of counts: how often each video was drawn. All metrics of a run, and both
sides of a paired difference, see the same resamples.
"""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from outspike.errors import ConfigError
from outspike.evaluate.metrics import Statistic

_MAX_UNDEFINED_SHARE = 0.05


@dataclass(frozen=True, kw_only=True)
class Interval:
    """Percentile interval of a bootstrap; ``reason`` says why there is none."""

    low: float | None = None
    high: float | None = None
    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class Resamples:
    """Bootstrap draws of a fixed list of videos.

    Args:
        weights: ``[R, V]`` how often each video was drawn; every row sums to ``V``.
        level: Coverage of the intervals, such as 0.95.
    """

    weights: NDArray[np.float64]
    level: float

    def distribution(self, statistic: Statistic) -> NDArray[np.float64]:
        """The statistic on every resample, ``[R]``; NaN where a resample does not define it."""
        if statistic.undefined is not None:
            return np.full(len(self.weights), math.nan)
        return statistic.compute(self.weights)

    def interval(self, values: NDArray[np.float64]) -> Interval:
        """Percentile interval of a distribution ``[R]``.

        Without one, and with the reason, for a single video, for no resamples, and where more than
        1 in 20 resamples leave the metric undefined.
        """
        num_resamples, num_videos = self.weights.shape
        if num_resamples == 0:
            return Interval(reason="no resamples were asked for")
        if num_videos < 2:
            return Interval(reason="one video cannot be resampled")
        defined = values[~np.isnan(values)]
        undefined = num_resamples - len(defined)
        if undefined > _MAX_UNDEFINED_SHARE * num_resamples:
            return Interval(
                reason=f"too few videos: undefined in {undefined} of {num_resamples} resamples"
            )
        tail = (1 - self.level) / 2
        low, high = np.quantile(defined, [tail, 1 - tail])
        return Interval(low=float(low), high=float(high))


def resample(
    strata: Sequence[Hashable],
    *,
    num_resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    stratified: bool = True,
) -> Resamples:
    """Draw videos with replacement.

    Args:
        strata: Stratum of each video, normally its label.
        num_resamples: ``R``.
        seed: Of the draws; the same seed and strata give the same resamples.
        level: Coverage of the intervals.
        stratified: Draw inside each stratum, which keeps how many videos each has.
    """
    if num_resamples < 0 or not 0 < level < 1:
        raise ConfigError(
            f"num_resamples={num_resamples}, level={level}: need at least 0 resamples and a level "
            "between 0 and 1."
        )
    rng = np.random.default_rng(seed)
    weights = np.zeros((num_resamples, len(strata)))
    groups = list(dict.fromkeys(strata)) if stratified else [None]
    for group in groups:
        members = [i for i, stratum in enumerate(strata) if not stratified or stratum == group]
        share = np.full(len(members), 1 / len(members))
        weights[:, members] = rng.multinomial(len(members), share, size=num_resamples)
    return Resamples(weights=weights, level=level)


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Paired difference of a metric between two score sets on the same videos."""

    value: float | None = None
    low: float | None = None
    high: float | None = None
    reason: str | None = None

    @property
    def shown(self) -> bool:
        """Whether the interval lies on one side of zero; touching it counts as not shown."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


def paired_difference(first: Statistic, second: Statistic, resamples: Resamples) -> Difference:
    """``first - second`` with its interval, both on the same resamples."""
    num_videos = resamples.weights.shape[1]
    return difference_of(
        (first.value(num_videos), second.value(num_videos)),
        (resamples.distribution(first), resamples.distribution(second)),
        resamples,
    )


def difference_of(
    values: tuple[float, float],
    distributions: tuple[NDArray[np.float64], NDArray[np.float64]],
    resamples: Resamples,
) -> Difference:
    """The same from values and distributions that are already there."""
    if any(map(math.isnan, values)):
        return Difference(reason="not defined on both sides")
    interval = resamples.interval(distributions[0] - distributions[1])
    return Difference(
        value=values[0] - values[1],
        low=interval.low,
        high=interval.high,
        reason=interval.reason,
    )
