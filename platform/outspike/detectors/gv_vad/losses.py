"""Loss terms of GV-VAD, correct and as published (``gv_vad_ssls.md`` section 3)."""

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from outspike.config import GvVadConfig
from outspike.detectors.bags import Bags
from outspike.detectors.base import LossTerm, own_bags
from outspike.errors import BagError

#: The published loop folds the scores of every bag into this many rows.
PUBLISHED_ROWS = 32


def top_snippets(ranking_BS: Tensor, mask_BS: Tensor, k_B: Tensor) -> Tensor:
    """The ``k`` snippets of each bag that rank highest, bool ``[B, S]``; ties go to the earlier."""
    order = ranking_BS.masked_fill(~mask_BS, -torch.inf).argsort(
        dim=1, descending=True, stable=True
    )
    place = torch.arange(ranking_BS.shape[1], device=ranking_BS.device)
    chosen = place < torch.minimum(k_B, mask_BS.sum(dim=1))[:, None]
    return torch.zeros_like(mask_BS).scatter(1, order, chosen)


def classification_term(video_B: Tensor, bags: Bags, config: GvVadConfig) -> LossTerm:
    """Cross-entropy of each bag's score with its label (MIL)."""
    target = bags.labels.to(video_B.dtype)
    entropy = F.binary_cross_entropy(video_B, target, reduction="none")
    weight = torch.where(target > 0, config.anomalous_weight, config.normal_weight)
    return LossTerm(
        name="mil",
        values=weight * entropy,
        counts=torch.ones_like(entropy),
        bags=own_bags(bags),
    )


def magnitude_term(mean_BKW: Tensor, bags: Bags, config: GvVadConfig) -> LossTerm:
    """Long mean features for anomalous bags, short ones for normal bags, crop by crop (MAG).

    The j-th normal bag is paired with the j-th anomalous one; where one kind has fewer bags it
    starts again from its first.
    """
    pairs = _pairs(bags)
    length: Tensor = torch.linalg.vector_norm(mean_BKW, dim=2)
    normal, anomalous = length[pairs[:, 0]], length[pairs[:, 1]]
    values = ((config.magnitude_margin - anomalous).abs() + normal).square()
    return LossTerm(
        name="magnitude",
        values=values.sum(dim=1),
        counts=torch.full_like(values[:, 0], values.shape[1]),
        bags=pairs,
        weight=config.magnitude_weight,
        combine="geometric",
    )


def smooth_term(snippet_BS: Tensor, bags: Bags, weight: float) -> LossTerm:
    """Squared steps from snippet to snippet, summed over each anomalous bag (SMOOTH)."""
    rows = _anomalous(bags)
    steps = snippet_BS[rows].diff(dim=1) * bags.mask[rows, 1:]
    return _per_bag("smooth", steps.square().sum(dim=1), rows, weight)


def sparse_term(snippet_BS: Tensor, bags: Bags, weight: float) -> LossTerm:
    """Length of the vector of scores of each anomalous bag (SPARSE)."""
    rows = _anomalous(bags)
    length: Tensor = torch.linalg.vector_norm(snippet_BS[rows] * bags.mask[rows], dim=1)
    return _per_bag("sparse", length, rows, weight)


def suspicion_term(
    snippet_BS: Tensor, suspected_BS: Tensor, bags: Bags, config: GvVadConfig
) -> LossTerm:
    """Cross-entropy of anomalous bags' scores with what their captions say (PAL).

    The published form teaches the opposite: suspected snippets are pulled to zero.
    """
    rows = _anomalous(bags)
    scores, mask = snippet_BS[rows], bags.mask[rows]
    if config.compat is not None:
        scores = 1.0 - scores
    entropy = F.binary_cross_entropy(scores, suspected_BS[rows].to(scores.dtype), reduction="none")
    return LossTerm(
        name="pal",
        values=(entropy * mask).sum(dim=1),
        counts=mask.sum(dim=1).to(entropy.dtype),
        bags=rows[:, None],
        weight=config.pal_weight,
    )


def published_smooth_term(snippet_BS: Tensor, bags: Bags, weight: float) -> LossTerm:
    """SMOOTH as published: the sum over a table of 32 rows a bag, all bags one below the other.

    Snippets a row apart are compared, the last of one bag with the first of the next.
    """
    table, owner = _published_table(snippet_BS, bags)
    steps = table.diff(dim=0).square().sum(dim=1)
    return LossTerm(
        name="smooth",
        values=steps,
        counts=torch.ones_like(steps),
        bags=torch.stack([owner[1:], owner[:-1]], dim=1),
        weight=weight * len(steps),
        combine="geometric",
    )


def published_sparse_term(snippet_BS: Tensor, bags: Bags, weight: float) -> LossTerm:
    """SPARSE as published: mean length of the columns of that table."""
    table, _ = _published_table(snippet_BS, bags)
    length: Tensor = torch.linalg.vector_norm(table, dim=0)
    return LossTerm(
        name="sparse",
        values=length,
        counts=torch.ones_like(length),
        bags=_anomalous(bags).expand(len(length), -1),
        weight=weight,
        combine="geometric",
    )


def _published_table(snippet_BS: Tensor, bags: Bags) -> tuple[Tensor, Tensor]:
    """Scores of anomalous bags in 32 rows each, and the bag of every row."""
    rows = _anomalous(bags)
    if snippet_BS.shape[1] % PUBLISHED_ROWS:
        raise BagError(
            f"{bags.bag_ids[0]}: {snippet_BS.shape[1]} rows a bag; the published loss folds them "
            f"into {PUBLISHED_ROWS}: use the window rule mean_segments with length 64 or 32."
        )
    table = snippet_BS[rows].reshape(len(rows) * PUBLISHED_ROWS, -1)
    return table, rows.repeat_interleave(PUBLISHED_ROWS)


def _per_bag(name: str, values: Tensor, rows: Tensor, weight: float) -> LossTerm:
    return LossTerm(
        name=name,
        values=values,
        counts=torch.ones_like(values),
        bags=rows[:, None],
        weight=weight,
    )


def _anomalous(bags: Bags) -> Tensor:
    return (bags.labels == 1).nonzero()[:, 0]


def _pairs(bags: Bags) -> Tensor:
    """Indices of (normal, anomalous) bags, int64 ``[n, 2]``; none where a kind is absent."""
    halves = [(bags.labels == label).nonzero()[:, 0] for label in (0, 1)]
    number = max(map(len, halves)) if all(map(len, halves)) else 0
    place = torch.arange(number, device=bags.labels.device)
    return torch.stack([half[place % max(1, len(half))] for half in halves], dim=1)
