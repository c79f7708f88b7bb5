"""Multi-branch supervision of SAA (section 3 of its specification; equation numbers of the paper).

Scores and attention are ``[N, T]``, one row a crop of a bag; ``owners`` name the bag of each row.
Every row counts once in every term, however long it is.
"""

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from outspike.config import SaaConfig
from outspike.detectors.base import LossTerm
from outspike.detectors.topk import topk_rows

_ROWS_A_SNIPPET = 16
_CONFIDENT = 0.5


def loss_terms(
    scores_NT: Tensor,
    attention_NT: Tensor,
    *,
    mask_NT: Tensor,
    labels_N: Tensor,
    owners: Tensor,
    step: int,
    config: SaaConfig,
) -> list[LossTerm]:
    """All terms of equation 15, each with its weight."""
    attended = attention_NT * scores_NT
    low = suppressed(attention_NT, mask_NT, config.epsilon).to(scores_NT.dtype)
    branches = {
        "score": (scores_NT, config.alpha),
        "attended": (attended, config.alpha),
        "suppressed_score": (scores_NT * low, 1.0 - config.alpha),
        "suppressed_attended": (attended * low, 1.0 - config.alpha),
    }
    terms = [
        _classification(name, branch, mask_NT, labels_N, owners, weight, config)
        for name, (branch, weight) in branches.items()
    ]
    literal = config.reduction == "literal"
    mask = mask_NT.to(scores_NT.dtype)
    length = mask.sum(dim=1)
    spread = torch.ones_like(length) if literal else length
    target = scores_NT if step < config.guide_steps else (scores_NT > _CONFIDENT).to(mask.dtype)
    away = (attention_NT - target).square() * mask
    normal, anomalous, every = labels_N == 0, labels_N == 1, torch.ones_like(labels_N).bool()
    per_row = [
        ("guide_normal", (attention_NT.square() * mask).sum(dim=1) / length, normal, 1.0),
        ("guide_anomalous", away.sum(dim=1) / length, anomalous, 1.0),
        ("norm", (attention_NT * mask).sum(dim=1) / spread, anomalous, config.norm_weight),
        (
            "smooth",
            _roughness(scores_NT, mask) + _roughness(attended, mask),
            every,
            config.smooth_weight,
        ),
        ("sparse", ((scores_NT + attended) * mask).sum(dim=1) / spread, every, 1.0),
    ]
    for name, values, rows, weight in per_row:
        kept = values[rows]
        terms.append(
            LossTerm(
                name=name,
                values=kept,
                counts=torch.ones_like(kept),
                bags=owners[rows],
                weight=weight,
            )
        )
    return terms


def suppressed(attention_NT: Tensor, mask_NT: Tensor, epsilon: float) -> Tensor:
    """Snippets whose attention lies strictly below ``epsilon`` of the way from the row's lowest to
    its highest, bool ``[N, T]``; none where attention is constant.
    """
    values = attention_NT.detach()
    lowest = values.masked_fill(~mask_NT, torch.inf).amin(dim=1, keepdim=True)
    highest = values.masked_fill(~mask_NT, -torch.inf).amax(dim=1, keepdim=True)
    return mask_NT & (values < epsilon * (highest - lowest) + lowest)


def _classification(
    name: str,
    scores_NT: Tensor,
    mask_NT: Tensor,
    labels_N: Tensor,
    owners: Tensor,
    weight: float,
    config: SaaConfig,
) -> LossTerm:
    """Equation 12 for one score sequence: cross-entropy of a row's top-k mean, or of each snippet.

    The suppressed branches of an anomalous bag keep its label.
    """
    length = mask_NT.sum(dim=1)
    labels = labels_N.to(scores_NT.dtype)
    if config.classification == "topk":
        highest, chosen = topk_rows(scores_NT, mask_NT, length // _ROWS_A_SNIPPET + 1)
        mean = (highest * chosen).sum(dim=1) / chosen.sum(dim=1)
        values = F.binary_cross_entropy(mean, labels, reduction="none")
    else:
        target = labels[:, None].expand_as(scores_NT)
        entropy = F.binary_cross_entropy(scores_NT, target, reduction="none")
        values = torch.where(mask_NT, entropy, 0.0).sum(dim=1) / length
    return LossTerm(
        name=name, values=values, counts=torch.ones_like(values), bags=owners, weight=weight
    )


def _roughness(scores_NT: Tensor, mask_NT: Tensor) -> Tensor:
    """Summed squared differences of neighbouring snippets, ``[N]``."""
    both = mask_NT[:, 1:] * mask_NT[:, :-1]
    return (scores_NT.diff(dim=1).square() * both).sum(dim=1)
