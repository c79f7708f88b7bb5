"""Sums over the k highest snippets of each bag, for multiple-instance losses."""

import torch
from torch import Tensor


def topk_rows(values_BS: Tensor, mask_BS: Tensor, k_B: Tensor) -> tuple[Tensor, Tensor]:
    """Snippets from the highest down, and which of them are among the ``k`` of their bag.

    Args:
        values_BS: scores.
        mask_BS: which of them are snippets; padding never counts.
        k_B: how many of each bag.

    Returns:
        ``values`` sorted downwards ``[B, S]`` and a bool mask of the first ``min(k, snippets)``.
    """
    hidden = values_BS.detach().masked_fill(~mask_BS, -torch.inf)
    order = hidden.argsort(dim=1, descending=True, stable=True)
    rank = torch.arange(values_BS.shape[1], device=values_BS.device)
    chosen = rank < torch.minimum(k_B, mask_BS.sum(dim=1))[:, None]
    return values_BS.gather(1, order), chosen
