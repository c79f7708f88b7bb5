"""Frame annotations in other forms: 0/1 vectors and MATLAB label files, as half-open ranges."""

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.io import loadmat
from scipy.io.matlab import MatReadError

from outspike import urls
from outspike.errors import DatasetError

Intervals = tuple[tuple[int, int], ...]


def to_intervals(labels: Sequence[int] | NDArray[np.generic]) -> Intervals:
    """Runs of non-zero labels ``[F]`` as half-open frame ranges."""
    positive = np.concatenate([[0], np.asarray(labels) != 0, [0]]).astype(np.int8)
    steps = np.diff(positive)
    starts, stops = np.flatnonzero(steps == 1), np.flatnonzero(steps == -1)
    return tuple((int(start), int(stop)) for start, stop in zip(starts, stops, strict=True))


def read_mat(url: str) -> Intervals:
    """Anomalous ranges of a MATLAB label file; see :func:`read_mat_labels`."""
    return to_intervals(read_mat_labels(url))


def read_mat_labels(url: str) -> NDArray[np.uint8]:
    """Labels ``[F]`` of a MATLAB label file.

    ``gt`` is a 0/1 vector (LAD2000); ``volLabel`` is one pixel mask a frame, and a frame with any
    pixel set is anomalous (Avenue).

    Raises:
        DatasetError: not a MATLAB file (before version 7.3), or neither variable is in it.
    """
    try:
        content = loadmat(io.BytesIO(urls.read_bytes(url)))
    except (MatReadError, ValueError, NotImplementedError, TypeError) as error:
        raise DatasetError(f"{url}: not a readable MATLAB label file ({error}).") from error
    if "gt" in content:
        return np.asarray(np.ravel(content["gt"]) != 0, dtype=np.uint8)
    if "volLabel" in content:
        masks = np.ravel(content["volLabel"])
        return np.array([np.any(mask) for mask in masks], dtype=np.uint8)
    names = ", ".join(name for name in content if not name.startswith("__"))
    raise DatasetError(f"{url}: expected a variable gt or volLabel, found {names or 'none'}.")
