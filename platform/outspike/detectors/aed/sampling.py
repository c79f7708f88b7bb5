"""Training items of AED as published (``lad2000_aed.md`` section 5), draw for draw.

Training here cuts its windows by the rule ``crop`` of :mod:`outspike.detectors.windows`.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from outspike.detectors.windows import contiguous

_MAX_ATTEMPTS = 11


def crop_index(
    num_rows: int, length: int, rng: np.random.RandomState, *, step: int = 1
) -> NDArray[np.int64]:
    """Rows of one published crop, at most ``length``; the last possible start is never drawn."""
    return contiguous(num_rows, length, rng, step=step)


def padded(rows_SD: NDArray[np.floating], length: int) -> NDArray[np.floating]:
    """Rows filled with zeros at the end, ``[length, D]``."""
    filled = np.zeros((length, rows_SD.shape[1]), dtype=rows_SD.dtype)
    filled[: len(rows_SD)] = rows_SD
    return filled


def crop_labels(
    labels_F: NDArray[np.generic], start: int, length: int, *, snippet: int = 16
) -> NDArray[np.generic]:
    """Labels of the frames of ``length`` snippets from ``start`` on, zeros past the annotation."""
    taken = labels_F[snippet * start : snippet * (start + length)]
    filled = np.zeros(snippet * length, dtype=labels_F.dtype)
    filled[: len(taken)] = taken
    return filled


def item(
    rows_SD: NDArray[np.floating],
    labels_F: NDArray[np.generic],
    length: int,
    rng: np.random.RandomState,
    *,
    anomalous: bool,
    retry: Literal["aligned", "reference"] = "aligned",
) -> tuple[NDArray[np.floating], NDArray[np.generic], int]:
    """One recording of a training item: rows ``[length, D]``, frame labels, first row.

    The crop of an anomalous recording is drawn again, up to eleven draws in all, until its labels
    hold a positive.

    Args:
        retry: ``aligned`` crops the recording again. ``reference`` crops the crop, as published:
            its start is then always 0 and nothing changes any more, so the labels of the
            recording's beginning are given to rows from elsewhere.
    """
    whole = rows_SD
    for attempt in range(_MAX_ATTEMPTS):
        source = whole if attempt == 0 or retry == "aligned" else rows_SD
        index = crop_index(len(source), length, rng)
        start = int(index[0])
        rows_SD = padded(source[index], length)
        labels = crop_labels(labels_F, start, length)
        if not anomalous or labels.any():
            break
    return rows_SD, labels, start
