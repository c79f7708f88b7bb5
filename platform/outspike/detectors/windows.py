"""How a bag of any length becomes a training window, in numpy.

Rules pick row indices or average rows; none of them pads, since padding is a matter of batching.
Published rules repeat their draws exactly when handed the same legacy generator.
"""

import random
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from outspike.config import WindowConfig
from outspike.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Window:
    """Rows of a bag: features ``{name: [K, S, D]}`` and their frame ranges ``[S]``."""

    features: dict[str, NDArray[np.floating]]
    start: NDArray[np.int64]
    stop: NDArray[np.int64]


def cut(
    window: Window,
    config: WindowConfig,
    *,
    label: int | None,
    rng: np.random.RandomState,
    frame_labels: NDArray[np.uint8] | None = None,
) -> Window:
    """Apply a window rule to all feature sets of a bag at once.

    ``frame_labels`` are those of the whole recording, where training may know them.
    """
    num_rows = len(window.start)
    if config.rule == "mean_segments":
        edges = segment_edges(num_rows, config.length)
        last = np.maximum(edges[1:], edges[:-1] + 1) - 1
        return Window(
            features={n: mean_segments(rows, edges) for n, rows in window.features.items()},
            start=window.start[edges[:-1]],
            stop=window.stop[last],
        )
    if config.rule == "mean_bins":
        edges = bin_edges(num_rows, config.length)
        return Window(
            features={name: mean_bins(rows, edges) for name, rows in window.features.items()},
            start=window.start[edges[:-1]],
            stop=window.stop[edges[1:] - 1],
        )
    anomalous = None if frame_labels is None else _holds(window, frame_labels)
    index = row_index(config, num_rows, label=label, rng=rng, anomalous_S=anomalous)
    return Window(
        features={name: rows[:, index] for name, rows in window.features.items()},
        start=window.start[index],
        stop=window.stop[index],
    )


def row_index(
    config: WindowConfig,
    num_rows: int,
    *,
    label: int | None,
    rng: np.random.RandomState,
    anomalous_S: NDArray[np.bool_] | None = None,
) -> NDArray[np.int64]:
    """Rows that a picking rule keeps, ascending, ``[S]``.

    ``anomalous_S`` says which rows hold an anomalous frame, where that is known.
    """
    if config.rule == "all" or num_rows <= config.length:
        return np.arange(num_rows)
    if config.rule == "uniform":
        return one_row_a_bin(num_rows, config.length, rng)
    if config.rule == "crop":
        return crop(num_rows, config.length, rng, anomalous_S=anomalous_S)
    if config.rule == "msf_2025":
        if label is None:
            raise ConfigError("The msf_2025 window differs by label; this bag has none.")
        draw = jittered_uniform if label else contiguous
        return draw(num_rows, config.length, rng)
    raise ConfigError(f"Window rule {config.rule!r} does not pick rows.")


def crop(
    num_rows: int,
    length: int,
    rng: np.random.RandomState,
    *,
    anomalous_S: NDArray[np.bool_] | None = None,
) -> NDArray[np.int64]:
    """A run of ``length`` rows, every start equally likely among those that hold an anomalous row.

    A bag without such a row, or of which nobody knows, may start anywhere.
    """
    starts = np.arange(num_rows - length + 1)
    if anomalous_S is not None and anomalous_S.any():
        before = np.concatenate([[0], np.cumsum(anomalous_S)])
        starts = starts[before[starts + length] > before[starts]]
    return np.arange(length) + int(starts[rng.randint(len(starts))])


def _holds(window: Window, frame_labels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which rows cover an anomalous frame, ``[S]``."""
    before = np.concatenate([[0], np.cumsum(frame_labels, dtype=np.int64)])
    held: NDArray[np.bool_] = before[window.stop] > before[window.start]
    return held


def segment_edges(num_rows: int, length: int) -> NDArray[np.int64]:
    """Borders of exactly ``length`` segments, ``[length + 1]``; some are empty in a short bag
    (``snippet_anomalous_attention.md`` section 1).
    """
    return np.linspace(0, num_rows, length + 1).astype(np.int64)


def mean_segments(rows_KSD: NDArray[np.floating], edges: NDArray[np.int64]) -> NDArray[np.floating]:
    """Mean of each segment in float32, ``[K, S, D] -> [K, segments, D]``; an empty segment takes
    the row it starts at.
    """
    rows = rows_KSD.astype(np.float32)
    segments = [rows[:, a : max(b, a + 1)].mean(axis=1) for a, b in pairwise(edges)]
    return np.stack(segments, axis=1)


def bin_edges(num_rows: int, length: int) -> NDArray[np.int64]:
    """Borders of at most ``length`` bins of rows, ``[bins + 1]`` (``ief_vad.md`` section 4)."""
    if num_rows <= length:
        return np.arange(num_rows + 1)
    return np.linspace(0, num_rows, length + 1).astype(np.int64)


def mean_bins(rows_KSD: NDArray[np.floating], edges: NDArray[np.int64]) -> NDArray[np.floating]:
    """Mean of each bin of rows, ``[K, S, D] -> [K, bins, D]``.

    Bins of one row are copied. Otherwise the mean is taken in the dtype of the input and returned
    as float32, as the reference does (numpy accumulates float16 means in float32).
    """
    if len(edges) == rows_KSD.shape[1] + 1:
        return rows_KSD
    bins = [rows_KSD[:, a:b].mean(axis=1) for a, b in pairwise(edges)]
    return np.stack(bins, axis=1).astype(np.float32)


def one_row_a_bin(num_rows: int, length: int, rng: np.random.RandomState) -> NDArray[np.int64]:
    """One row drawn evenly from each of ``length`` bins."""
    edges = bin_edges(num_rows, length)
    return edges[:-1] + (rng.random_sample(length) * np.diff(edges)).astype(np.int64)


def jittered_uniform(num_rows: int, length: int, rng: np.random.RandomState) -> NDArray[np.int64]:
    """Anomalous bags of ``ucf_crime_dvs_msf.md`` section 7.1: a jittered grid.

    A point moves up to and including the next one, so neighbours may coincide; the last stays. The
    draws are those of the published ``choice`` per point, taken at once.
    """
    here, reach, last = _grid(num_rows, length)
    return np.concatenate((here + rng.randint(0, reach), last))


@lru_cache(maxsize=1 << 14)
def _grid(
    num_rows: int, length: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Points of the grid but the last, places that each may take, and the last."""
    grid = np.arange(length) * num_rows // length
    return grid[:-1], np.diff(grid) + 1, grid[-1:]


def contiguous(
    num_rows: int, length: int, rng: np.random.RandomState, *, step: int = 1, last: bool = False
) -> NDArray[np.int64]:
    """Normal bags of section 7.1: a run of ``length`` rows, of which every ``step``-th is kept.

    The published draw never starts at the last possible position; ``last=True`` lets it.
    """
    spare = num_rows - step * length
    bound = spare + last if spare > 0 else step
    start = rng.randint(bound) if bound > 1 or spare > 0 else 0
    return np.arange(start, min(start + length, num_rows), step)


def published_bag_draw(
    rng: random.Random, num_anomalous: int, num_normal: int, size: int
) -> tuple[list[int], list[int]]:
    """Bags of one published iteration: two draws without replacement, anomalous first."""
    return rng.sample(range(num_anomalous), size), rng.sample(range(num_normal), size)


def split_windows(rows_SD: NDArray[np.floating], length: int) -> NDArray[np.floating]:
    """Test-time cut of ``ief_vad.md`` section 4: ``[S, D] -> [W, length, D]``, zero padded.

    A bag of an exact multiple of ``length`` gets one window of zeros more than it needs.
    """
    num_rows, width = rows_SD.shape
    num_windows = num_rows // length + 1
    padded = np.zeros((num_windows * length, width), dtype=rows_SD.dtype)
    padded[:num_rows] = rows_SD
    return padded.reshape(num_windows, length, width)
