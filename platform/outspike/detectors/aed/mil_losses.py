"""Losses that AED's repository shares with its weakly supervised sister AR-Net (section 4).

AED itself uses none of them. The cross-entropy over the k highest scores is MSF's ``mil_term``.
"""

from typing import Literal

import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from outspike.detectors.bags import Bags
from outspike.detectors.base import LossTerm, own_bags
from outspike.detectors.msf.detector import mil_term
from outspike.detectors.topk import topk_rows


def kmax_term(
    snippet_BS: Tensor, bags: Bags, divisor: int, error: Literal["entropy", "square"] = "entropy"
) -> LossTerm:
    """Error of the ``ceil(snippets / divisor)`` highest scores of each bag against its label.

    Scores are pooled before averaging, so long bags weigh more.
    """
    k = -(-bags.num_snippets // divisor)
    if error == "entropy":
        return mil_term(snippet_BS, bags, k)
    highest, chosen = topk_rows(snippet_BS, bags.mask, k)
    squares = (highest - bags.labels[:, None].to(highest.dtype)).square() * chosen
    counts = chosen.sum(dim=1).to(highest.dtype)
    return LossTerm(name="mil", values=squares.sum(dim=1), counts=counts, bags=own_bags(bags))


def soft_cross_entropy(
    logits_NC: Tensor, target_NC: Tensor, *, reduction: Literal["mean", "sum"] = "mean"
) -> Tensor:
    """Cross-entropy with targets that are themselves distributions, over rows."""
    values = -(target_NC * F.log_softmax(logits_NC, dim=1)).sum(dim=1)
    return values.mean() if reduction == "mean" else values.sum()


def hinge(anomalous: Tensor, normal: Tensor) -> Tensor:
    """How far each anomalous score fails to exceed a normal one by 1."""
    return F.relu(1.0 - anomalous + normal)
