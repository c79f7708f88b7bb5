"""The columns of ``event-pyramid``: five blocks of what the changes of a snippet look like.

No column says *where* in the picture something happened: cells are sorted, or summed over. A
detector that only ever learns from a few recordings would otherwise learn their places by heart
(in cross-validation inside Ped2's training clips, columns per place reached 0.89, these 0.93).
What is left are ratios, orders and shapes, which mean the same for another camera.

Counts are means per frame, so that a short last snippet is like a full one. ``log`` below is
``log(1 + x)``, which keeps empty cells at zero.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from outspike.encoders.event_maps import (
    COARSE_CELLS,
    MOTION_CELLS,
    FrameCounts,
    PyramidConfig,
)

Values = NDArray[np.float64]

#: The width is brought to a multiple of this with zeros: MSF takes four equal branches of it.
_ALIGN = 8
_BUSIEST, _BUSIEST_LARGE, _BUSIEST_MOTION = 12, 8, 6
_SHARES = (3, 6, 12, 24, 48)
_OVERLAP_FRAMES = (1, 4)
#: Pixels or events added below fractions, so that a cell with next to none says nothing.
_FEW_MOVES, _FEW_PIXELS = 2.0, 2.5
#: The same for coarse cells: one in eighty of their pixels.
_FEW_OF_COARSE = 80


def num_columns(config: PyramidConfig) -> int:
    """Width of a row."""
    coarse = config.rows * config.cols // COARSE_CELLS**2
    used = 3 * _BUSIEST + _BUSIEST_LARGE  # unsteadiness
    used += 9 * _BUSIEST_MOTION  # motion
    used += 7 * coarse  # local ratios
    used += 2 * (3 + len(_SHARES) + len(_OVERLAP_FRAMES) + 2)  # layout
    used += 9 + 8  # global ratios
    return -(-used // _ALIGN) * _ALIGN


def columns(frames: Sequence[FrameCounts], config: PyramidConfig) -> Values:
    """The row ``[D]`` of a snippet from the counts of its frames."""
    active_FLTyx = np.stack([frame.active for frame in frames]).astype(np.float64)
    moved_FSDyx = np.stack([frame.moved for frame in frames]).astype(np.float64)
    mean_LTyx = active_FLTyx.mean(axis=0)
    frame_to_frame_FTyx = active_FLTyx[:, 0]
    blocks = [
        *unsteadiness(frame_to_frame_FTyx[:, 1:], config.time_bins),
        *motion(moved_FSDyx),
        *local_ratios(mean_LTyx, config.cell),
        *layout(frame_to_frame_FTyx[:, 1]),
        *layout(frame_to_frame_FTyx[:, 2]),
        *global_ratios(mean_LTyx),
    ]
    used = np.concatenate([block.ravel() for block in blocks])
    return np.pad(used, (0, num_columns(config) - len(used)))


def unsteadiness(active_FTyx: Values, time_bins: int) -> list[Values]:
    """How much the activity of a place comes and goes within the snippet.

    The mean change of a cell's count from one time bin to the next, ``log``, busiest cells first:
    12 cells for each of three thresholds, then 8 cells of twice the size for the middle one. Steady
    walking changes little; blows, falls and wheels do.
    """
    bins_BTyx = _time_means(active_FTyx, time_bins)
    if len(bins_BTyx) == 1:
        change_Tyx = np.zeros_like(bins_BTyx[0])
        large_yx = _pooled(change_Tyx[1], MOTION_CELLS)
    else:
        change_Tyx = np.abs(np.diff(bins_BTyx, axis=0)).mean(axis=0)
        large_BTyx = _pooled(bins_BTyx[:, 1], MOTION_CELLS)
        large_yx = np.abs(np.diff(large_BTyx, axis=0)).mean(axis=0)
    return [
        _largest(np.log1p(change_Tyx), _BUSIEST),
        _largest(np.log1p(large_yx), _BUSIEST_LARGE),
    ]


def motion(moved_FSDyx: Values) -> list[Values]:
    """Whether events travel, and whether together, at three speeds; six busiest cells of each.

    Opposite directions are set against each other. *Net* motion survives averaging over the
    snippet, *flicker* is what any single frame shows. Three groups: net motion as a share of all
    matches (coherence), flicker, and flicker that averages out (back and forth, as limbs do).
    """
    mean_SDyx = moved_FSDyx.mean(axis=0)
    half = mean_SDyx.shape[1] // 2
    net_Syx = np.abs(mean_SDyx[:, :half] - mean_SDyx[:, half:]).sum(axis=1)
    opposed = np.abs(moved_FSDyx[:, :, :half] - moved_FSDyx[:, :, half:])
    flicker_Syx = opposed.mean(axis=0).sum(axis=1)
    coherence_Syx = net_Syx / (mean_SDyx.sum(axis=1) + _FEW_MOVES)
    groups = (coherence_Syx, np.log1p(flicker_Syx), np.log1p(flicker_Syx - net_Syx))
    return [_largest(group, _BUSIEST_MOTION) for group in groups]


def local_ratios(mean_LTyx: Values, cell: int) -> list[Values]:
    """How strong and how fast the changes of each large part of the picture are, parts sorted.

    Four ratios of pixels above a high and a low threshold (contrast: a vehicle against the road is
    not a pedestrian against it), three of pixels over a short and a long lag (speed: what moves
    fast has changed fully after one frame). Ratios do not depend on how much of the part moves.
    """
    coarse = _pooled(mean_LTyx, COARSE_CELLS)
    few = (COARSE_CELLS * cell) ** 2 / _FEW_OF_COARSE
    quick, medium, slow = coarse
    contrast = [
        np.log1p(quick[high]) - np.log1p(quick[low] + few)
        for high, low in ((2, 1), (3, 1), (3, 2), (1, 0))
    ]
    speed = [
        (above + few) / (below + few)
        for above, below in ((quick[1], medium[1]), (medium[1], slow[1]), (quick[2], slow[2]))
    ]
    return [_largest(part, part.size) for part in (*contrast, *speed)]


def layout(active_Fyx: Values) -> list[Values]:
    """How the activity is spread over the picture and how it moves about, in cells.

    Variance down and across, entropy, share of the 3, 6, 12, 24 and 48 most active cells, overlap
    of the activity with that of 1 and 4 frames later, and mean step of its centre from frame to
    frame, down and across: one compact thing that moves, or many everywhere.
    """
    mean_yx = active_Fyx.mean(axis=0)
    share_yx = mean_yx / (mean_yx.sum() + _FEW_PIXELS)
    # Distances from the snippet's own centre, towards which frames with little activity are drawn.
    away = [axis - _centre(share_yx, axis) for axis in np.indices(share_yx.shape)]
    spread = [(share_yx * distance**2).sum() for distance in away]
    entropy = -(share_yx * np.log(share_yx + 1e-6)).sum()
    largest = np.cumsum(_largest(share_yx, max(_SHARES)))[np.array(_SHARES) - 1]
    per_frame_Fyx = active_Fyx / (active_Fyx.sum(axis=(1, 2), keepdims=True) + _FEW_PIXELS)
    overlap = [_overlap(per_frame_Fyx, later) for later in _OVERLAP_FRAMES]
    centres = [(per_frame_Fyx * distance).sum(axis=(1, 2)) for distance in away]
    steps = [np.abs(np.diff(centre)).mean() if len(centre) > 1 else 0.0 for centre in centres]
    return [np.array([*spread, entropy, *largest, *overlap, *steps])]


def global_ratios(mean_LTyx: Values) -> list[Values]:
    """The same for the whole picture: log ratios of neighbouring thresholds, then of lags."""
    total_LT = np.log1p(mean_LTyx.sum(axis=(2, 3)))
    return [total_LT[:, :-1] - total_LT[:, 1:], total_LT[1:] - total_LT[:-1]]


def _time_means(values_F: Values, bins: int) -> Values:
    """Means over equal parts of the frames; as many parts as frames where there are fewer."""
    num_frames = len(values_F)
    bins = min(bins, num_frames)
    edges = np.arange(bins + 1) * num_frames // bins
    sums: Values = np.add.reduceat(values_F, edges[:-1], axis=0)
    return sums / np.diff(edges).reshape(-1, *[1] * (values_F.ndim - 1))


def _pooled(cells: Values, side: int) -> Values:
    """Sums over blocks of ``side`` x ``side`` cells, ``[..., y, x]``."""
    *rest, rows, cols = cells.shape
    blocks: Values = cells.reshape(*rest, rows // side, side, cols // side, side)
    pooled: Values = blocks.sum(axis=(-3, -1))
    return pooled


def _largest(cells: Values, count: int) -> Values:
    """The ``count`` largest of the cells ``[..., y, x]``, largest first."""
    flat = np.sort(cells.reshape(*cells.shape[:-2], -1), axis=-1)
    return flat[..., ::-1][..., :count]


def _centre(share_yx: Values, axis_yx: NDArray[np.int64]) -> float:
    total = share_yx.sum()
    return float((share_yx * axis_yx).sum() / total) if total > 0 else 0.0


def _overlap(share_Fyx: Values, later: int) -> float:
    if len(share_Fyx) <= later:
        return 0.0
    return float(np.minimum(share_Fyx[later:], share_Fyx[:-later]).sum(axis=(1, 2)).mean())
