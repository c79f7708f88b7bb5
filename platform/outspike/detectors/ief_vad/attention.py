"""Self-attention over time whose weights are never kept, with dropout drawn from keys.

The fused kernels of PyTorch draw dropout by themselves, from a generator; here whether a pair of
snippets is heard depends on (seed, step, bag) only. So training has its own operation: it works
through the batch a few bags at a time, keeps queries, keys and values, and computes the weights
once more on the way back.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from outspike.detectors.draws import keep_mask, subkeys

#: Rows of the bags attended to together in training, which bounds the attention weights held. On a
#: CPU the weights of one bag fit the cache; a GPU wants more work at once.
_PIECE_ROWS = {"cpu": 256, "cuda": 4096}


class AttentionLayer(nn.Module):
    """``LayerNorm(x + attention(x))``: post-norm, no feed-forward part."""

    def __init__(self, width: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.rate = dropout
        self.in_proj = nn.Linear(width, 3 * width)
        self.out_proj = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        nn.init.xavier_uniform_(self.in_proj.weight)
        nn.init.zeros_(self.in_proj.bias)
        nn.init.zeros_(self.out_proj.bias)

    def forward(
        self, x_BTD: Tensor, mask_BT: Tensor | None, keys_B: Tensor | None, salt: int
    ) -> Tensor:
        """``mask_BT`` None attends to every row; ``keys_B`` None turns dropout off."""
        packed = self.in_proj(x_BTD)
        if keys_B is None:
            seen = None if mask_BT is None else mask_BT[:, None, None, :]
            query, key, value = _heads(packed, self.num_heads)
            mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=seen)
            mixed = mixed.transpose(1, 2).flatten(2)
        else:
            mixed = dropped_attention(packed, mask_BT, keys_B, self.num_heads, self.rate, salt)
        normal: Tensor = self.norm(x_BTD + self.out_proj(mixed))
        return normal


def dropped_attention(
    packed: Tensor,
    mask_BT: Tensor | None,
    keys_B: Tensor,
    num_heads: int,
    rate: float,
    salt: int,
) -> Tensor:
    """Attention with dropout on its weights, ``[B, T, 3D] -> [B, T, D]``.

    ``packed`` holds queries, keys and values side by side; ``mask_BT`` False hides a row from all.
    """
    mixed: Tensor = _DroppedAttention.apply(  # type: ignore[no-untyped-call]
        packed, mask_BT, keys_B, num_heads, rate, salt
    )
    return mixed


class _DroppedAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        packed: Tensor,
        mask_BT: Tensor | None,
        keys_B: Tensor,
        num_heads: int,
        rate: float,
        salt: int,
    ) -> Tensor:
        ctx.save_for_backward(packed, mask_BT, keys_B)
        ctx.settings = num_heads, rate, salt
        mixed = packed.new_empty(*packed.shape[:2], packed.shape[2] // 3)
        # As on the way back, where autocast is off: the weights must be the same both times.
        with torch.autocast(packed.device.type, enabled=False):
            for piece in _pieces(packed):
                query, key, value = _heads(packed[piece], num_heads)
                weights = _weights(query, key, None if mask_BT is None else mask_BT[piece])
                weights *= _keep_factors(weights, keys_B[piece], rate, salt)
                _heads_of_one(mixed[piece], num_heads).copy_(weights @ value)
        return mixed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        packed, mask_BT, keys_B = ctx.saved_tensors
        num_heads, rate, salt = ctx.settings
        grad_packed = torch.empty_like(packed)
        for piece in _pieces(packed):
            query, key, value = _heads(packed[piece], num_heads)
            grad_query, grad_key, grad_value = _heads(grad_packed[piece], num_heads)
            grad_mixed = _heads_of_one(grads[0][piece], num_heads)
            weights = _weights(query, key, None if mask_BT is None else mask_BT[piece])
            factors = _keep_factors(weights, keys_B[piece], rate, salt)
            grad_value.copy_((weights * factors).mT @ grad_mixed)
            grad_weights = (grad_mixed @ value.mT).mul_(factors)
            grad_logits = torch._softmax_backward_data(grad_weights, weights, 3, weights.dtype)
            grad_logits *= 1.0 / math.sqrt(query.shape[3])
            grad_query.copy_(grad_logits @ key)
            grad_key.copy_(grad_logits.mT @ query)
        return grad_packed, None, None, None, None, None


def _pieces(packed: Tensor) -> list[slice]:
    """Bags that are attended to together."""
    rows = _PIECE_ROWS.get(packed.device.type, _PIECE_ROWS["cuda"])
    size = max(1, rows // packed.shape[1])
    return [slice(start, start + size) for start in range(0, len(packed), size)]


def _heads(packed: Tensor, num_heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Views of queries, keys and values, ``[B, T, 3D] -> 3 x [B, H, T, D / H]``."""
    by_head = packed.view(*packed.shape[:2], 3, num_heads, -1).permute(2, 0, 3, 1, 4)
    return by_head[0], by_head[1], by_head[2]


def _heads_of_one(x_BTD: Tensor, num_heads: int) -> Tensor:
    """A view by heads, ``[B, T, D] -> [B, H, T, D / H]``."""
    return x_BTD.view(*x_BTD.shape[:2], num_heads, -1).transpose(1, 2)


def _weights(query: Tensor, key: Tensor, seen_BT: Tensor | None) -> Tensor:
    """Attention weights without dropout, ``[B, H, T, T]``."""
    logits = (query @ key.mT) * (1.0 / math.sqrt(query.shape[3]))
    if seen_BT is not None:
        logits.masked_fill_(~seen_BT[:, None, None, :], -torch.inf)
    return F.softmax(logits, dim=3)


def _keep_factors(weights_BHTT: Tensor, keys_B: Tensor, rate: float, salt: int) -> Tensor:
    """0 or ``1 / (1 - rate)`` for (head, row, column), the same whatever the padded length.

    Rows get keys of their own, hashed from the bag's; within a row the columns lead and heads
    follow, so that longer padding only appends draws.
    """
    num_bags, num_heads, num_rows, num_columns = weights_BHTT.shape
    keep = keep_mask(subkeys(keys_B, num_rows), num_columns * num_heads, rate, salt)
    by_head = keep.view(num_bags, num_rows, num_columns, num_heads).permute(0, 3, 1, 2)
    return by_head.to(weights_BHTT.dtype, memory_format=torch.contiguous_format).mul_(
        1.0 / (1.0 - rate)
    )
