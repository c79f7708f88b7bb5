"""Two streams with an uncertainty for every value, fused by precision and refined (section 3).

Training keeps the input of every attention layer and refinement step only, and computes what is
inside once more on the way back, attention a few bags at a time. Dropout is drawn from keys, so the
second time draws the same.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from outspike.config import IefVadConfig
from outspike.detectors.draws import keyed_dropout, subkeys

#: Rows of the bags attended to together in training, which bounds the attention weights held.
_PIECE_ROWS = 2048


@dataclass(frozen=True, kw_only=True)
class Fused:
    """Everything the fusion computes; all ``[B, T, D]`` but the logits ``[B, T]``."""

    features: Tensor
    logits: Tensor
    image_mu: Tensor
    event_mu: Tensor
    image_logvar: Tensor
    event_logvar: Tensor
    image_weight: Tensor
    event_weight: Tensor


def _recomputed(run: Callable[..., Tensor], *args: Tensor | int | None) -> Tensor:
    """``run(*args)`` that keeps its arguments for the way back, and nothing of what is inside."""
    if not torch.is_grad_enabled():
        return run(*args)
    result: Tensor = checkpoint(run, *args, use_reentrant=False, preserve_rng_state=False)
    return result


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
        if not torch.is_grad_enabled():
            return self._normal(x_BTD, mask_BT, keys_B, salt)
        size = max(1, _PIECE_ROWS // x_BTD.shape[1])
        rows = torch.split(x_BTD, size)
        seen = [None] * len(rows) if mask_BT is None else torch.split(mask_BT, size)
        keys = [None] * len(rows) if keys_B is None else torch.split(keys_B, size)
        pieces = [
            _recomputed(self._normal, *piece, salt) for piece in zip(rows, seen, keys, strict=True)
        ]
        return torch.cat(pieces)

    def _normal(
        self, x_BTD: Tensor, mask_BT: Tensor | None, keys_B: Tensor | None, salt: int
    ) -> Tensor:
        heads = self.in_proj(x_BTD).unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        query, key, value = heads.unbind()
        seen = None if mask_BT is None else mask_BT[:, None, None, :]
        if keys_B is None:
            mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=seen)
        else:
            mixed = self._attend_and_drop(query, key, seen, keys_B, salt) @ value
        attended = self.out_proj(mixed.transpose(1, 2).flatten(2))
        normal: Tensor = self.norm(x_BTD + attended)
        return normal

    def _attend_and_drop(
        self, query: Tensor, key: Tensor, seen: Tensor | None, keys_B: Tensor, salt: int
    ) -> Tensor:
        """Attention weights with dropout, written out since the fused kernel draws by itself."""
        logits = query @ key.transpose(2, 3) / math.sqrt(query.shape[3])
        if seen is not None:
            logits = logits.masked_fill(~seen, -torch.inf)
        weights = F.softmax(logits, dim=3)
        return weights * _pair_dropout(weights, self.rate, keys_B, salt)


def _pair_dropout(weights_BHTT: Tensor, rate: float, keys_B: Tensor, salt: int) -> Tensor:
    """Keep factors for (head, row, column), the same for a pair whatever the padded length.

    Rows get keys of their own, hashed from the bag's; within a row the columns lead and heads
    follow, so that longer padding only appends draws.
    """
    num_bags, num_heads, num_rows, num_columns = weights_BHTT.shape
    ones = weights_BHTT.new_ones(num_bags * num_rows, num_columns, num_heads)
    kept = keyed_dropout(ones, rate, subkeys(keys_B, num_rows), salt)
    return kept.view(num_bags, num_rows, num_columns, num_heads).permute(0, 3, 1, 2)


class Modality(nn.Module):
    """One stream: attention over time, then a mean and a log-variance of every value."""

    def __init__(self, config: IefVadConfig) -> None:
        super().__init__()
        width = config.width
        self.layers = nn.ModuleList(
            AttentionLayer(width, config.num_heads, config.attention_dropout)
            for _ in range(config.num_layers)
        )
        self.whiten = nn.LayerNorm(width)
        self.mu = nn.Linear(width, width)
        self.logvar = nn.Linear(width, width)

    def forward(
        self, x_BTD: Tensor, mask_BT: Tensor | None, keys_B: Tensor | None, salt: int
    ) -> tuple[Tensor, Tensor]:
        """Mean and log-variance, ``[B, T, D]`` each."""
        for number, layer in enumerate(self.layers):
            x_BTD = layer(x_BTD, mask_BT, keys_B, salt + number)
        white = self.whiten(x_BTD)
        return self.mu(white), self.logvar(white)


class Refinement(nn.Module):
    """One correction of the fused vector, ``f - rate (A relu(B f + b) + a)``."""

    def __init__(self, width: int, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.inner = nn.Linear(width, width)
        self.outer = nn.Linear(width, width)

    def forward(self, fused: Tensor) -> Tensor:
        """The corrected vector, ``[B, T, D]``."""
        step: Tensor = self.outer(F.relu(self.inner(fused)))
        return fused - self.rate * step


class UncertaintyFusion(nn.Module):
    """Precision-weighted mean of two streams, refined in steps, and a logit per row."""

    def __init__(self, config: IefVadConfig) -> None:
        super().__init__()
        self.config = config
        self.image = Modality(config)
        self.event = Modality(config)
        self.refinement = nn.ModuleList(
            Refinement(config.width, config.refinement_rate) for _ in range(config.refinement_steps)
        )
        self.classifier = nn.Linear(config.width, 1)

    def forward(
        self,
        image_BTD: Tensor,
        event_BTD: Tensor,
        *,
        mask_BT: Tensor | None = None,
        keys_B: Tensor | None = None,
    ) -> Fused:
        """Fuse two aligned sequences; ``mask_BT`` None treats padding as snippets."""
        layers = self.config.num_layers
        image_mu, image_logvar = self.image(image_BTD, mask_BT, keys_B, 0)
        event_mu, event_logvar = self.event(event_BTD, mask_BT, keys_B, layers)
        image_precision = self._precision(image_logvar)
        event_precision = self._precision(event_logvar)
        total = image_precision + event_precision + self.config.epsilon
        image_weight, event_weight = image_precision / total, event_precision / total
        fused = image_weight * image_mu + event_weight * event_mu
        for step in self.refinement:
            fused = _recomputed(step, fused)
        return Fused(
            features=fused,
            logits=self.classifier(fused)[..., 0],
            image_mu=image_mu,
            event_mu=event_mu,
            image_logvar=image_logvar,
            event_logvar=event_logvar,
            image_weight=image_weight,
            event_weight=event_weight,
        )

    def _precision(self, logvar: Tensor) -> Tensor:
        precision = torch.exp(-logvar)
        if self.config.noise_model == "gaussian":
            return precision
        return (self.config.nu + 1.0) / self.config.nu * precision
