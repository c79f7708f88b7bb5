"""Classes told of windows: the accuracy and confusion that LAD2000 reports.

Every window of a video counts, so long videos weigh more than short ones
(``lad2000_aed.md`` section 7).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from outspike.errors import AlignmentError

Classes = NDArray[np.int64]


def window_accuracy(predicted: Sequence[Classes], truth: Sequence[int]) -> float:
    """Share of windows whose class is that of their video.

    Args:
        predicted: classes ``[W]`` of the windows of each video.
        truth: class of each video.

    Raises:
        AlignmentError: not one class a video, or no window at all.
    """
    found, expected = _pooled(predicted, truth)
    return float((found == expected).mean())


def window_confusion(
    predicted: Sequence[Classes], truth: Sequence[int], classes: Sequence[int]
) -> Classes:
    """How often windows of each class (rows) are given each class (columns), ``[C, C]``.

    Raises:
        AlignmentError: as above, or a class that is not among ``classes``.
    """
    found, expected = _pooled(predicted, truth)
    order = {name: number for number, name in enumerate(classes)}
    unknown = sorted({*found.tolist(), *expected.tolist()} - order.keys())
    if unknown:
        raise AlignmentError(f"Windows have classes {unknown}, known are {list(classes)}.")
    table = np.zeros((len(order), len(order)), dtype=np.int64)
    rows, columns = ([order[name] for name in part.tolist()] for part in (expected, found))
    np.add.at(table, (rows, columns), 1)
    return table


def row_shares(confusion: Classes) -> NDArray[np.float64]:
    """Each row divided by its sum, ``[C, C]``; NaN where no window has the class."""
    total = confusion.sum(axis=1, keepdims=True)
    blank = np.full(confusion.shape, np.nan)
    shares: NDArray[np.float64] = np.divide(confusion, total, out=blank, where=total > 0)
    return shares


def _pooled(predicted: Sequence[Classes], truth: Sequence[int]) -> tuple[Classes, Classes]:
    """Class told and class meant of every window, ``[W]`` each."""
    if len(predicted) != len(truth) or not sum(map(len, predicted)):
        raise AlignmentError(
            f"Window classes of {len(predicted)} videos and {len(truth)} true classes; need one "
            "true class a video, and a window."
        )
    lengths = [len(part) for part in predicted]
    return np.concatenate(list(predicted)), np.repeat(np.asarray(truth, dtype=np.int64), lengths)
