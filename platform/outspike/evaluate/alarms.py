"""False alarms an hour, at the threshold that catches a chosen share of the anomalies.

An *alarm* is a maximal run of consecutive frames at or above the threshold. It is false when it
touches no anomalous frame. An *interval*, a maximal run of anomalous frames, is caught when an
alarm touches it. Hours are hours of all scored footage.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from outspike.evaluate.frames import Runs

_SECONDS_PER_HOUR = 3600.0


class AlarmTable:
    """False alarms of each video at each threshold that catches one interval more.

    Args:
        runs: Labelled frames of all videos, in time order.
        fps: Frames per second of each video, ``[V]``.
    """

    def __init__(self, runs: Runs, fps: Sequence[float]) -> None:
        frames_V = np.bincount(runs.video, weights=runs.length, minlength=runs.num_videos)
        self._hours_V = frames_V / (np.asarray(fps, dtype=np.float64) * _SECONDS_PER_HOUR)
        # Whether a run goes on where the one before it stopped, in the same video.
        stop = runs.start + runs.length
        self._linked = np.concatenate(
            [[False], (runs.video[1:] == runs.video[:-1]) & (runs.start[1:] == stop[:-1])]
        )[: len(runs.video)]
        first = runs.positive & ~(self._linked & _previous(runs.positive))
        interval = np.cumsum(first)[runs.positive] - 1
        peak = np.full(int(first.sum()), -math.inf)
        np.maximum.at(peak, interval, runs.score[runs.positive])
        order = np.argsort(-peak, kind="stable")
        self._interval_video = runs.video[first][order]
        self.thresholds: NDArray[np.float64] = peak[order]
        """Peak score of each interval ``[I]``, falling: at entry i, i + 1 intervals are caught."""
        self._false = self._count(runs)

    @property
    def num_intervals(self) -> int:
        """Number of anomalous intervals ``I``."""
        return len(self.thresholds)

    def curve(
        self, weight_V: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Share of intervals caught and false alarms an hour, at every threshold; ``[I]`` each."""
        caught = np.cumsum(weight_V[self._interval_video])
        return caught / caught[-1], weight_V @ self._false / (weight_V @ self._hours_V)

    def per_hour(self, weights: NDArray[np.float64], recall: float) -> NDArray[np.float64]:
        """False alarms an hour at the highest threshold that catches ``recall`` of the intervals.

        ``[R, V] -> [R]``; NaN where the weights leave no interval.
        """
        index, defined = self._index(weights, recall)
        false = np.take_along_axis(weights @ self._false, index[:, None], axis=1)[:, 0]
        return np.where(defined, false / (weights @ self._hours_V), math.nan)

    def threshold(self, weight_V: NDArray[np.float64], recall: float) -> float:
        """That threshold; NaN where the weights leave no interval."""
        if not self.num_intervals:
            return math.nan
        index, defined = self._index(weight_V[None], recall)
        return float(self.thresholds[index[0]]) if defined[0] else math.nan

    def _index(
        self, weights: NDArray[np.float64], recall: float
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """First threshold that catches enough, ``[R]``, and whether there is anything to catch."""
        caught = np.cumsum(weights[:, self._interval_video], axis=1)
        total = caught[:, -1:]
        # The slack keeps a share such as 0.8 of 10 intervals at 8 despite its rounding.
        return np.argmax(caught >= recall * total * (1 - 1e-12), axis=1), total[:, 0] > 0

    def _count(self, runs: Runs) -> NDArray[np.float64]:
        """False alarms ``[V, I]`` of each video at each threshold."""
        counts = np.zeros((runs.num_videos, self.num_intervals))
        for index, threshold in enumerate(self.thresholds):
            if index and threshold == self.thresholds[index - 1]:
                counts[:, index] = counts[:, index - 1]
                continue
            alarm = runs.score >= threshold
            first = alarm & ~(self._linked & _previous(alarm))
            episode = np.cumsum(first) - 1
            true = np.zeros(int(first.sum()), dtype=bool)
            true[episode[alarm & runs.positive]] = True
            counts[:, index] = np.bincount(runs.video[first][~true], minlength=runs.num_videos)
        return counts


def _previous(flag: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return np.concatenate([[False], flag[:-1]])[: len(flag)]
