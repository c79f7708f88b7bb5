"""Two streams with an uncertainty for every value, fused by precision and refined (section 3).

Training keeps no attention weights (:mod:`outspike.detectors.ief_vad.attention`), and of the
weighted mean and every refinement step only the inputs: what is inside is computed once more on the
way back.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from outspike.config import IefVadConfig
from outspike.detectors.ief_vad.attention import AttentionLayer
from outspike.detectors.recompute import recomputed


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
        fused, image_weight, event_weight = recomputed(
            self._weighted_mean, image_mu, image_logvar, event_mu, event_logvar
        )
        for step in self.refinement:
            fused = recomputed(step, fused)
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

    def _weighted_mean(
        self, image_mu: Tensor, image_logvar: Tensor, event_mu: Tensor, event_logvar: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Mean of both streams by precision, and the weight of each, ``[B, T, D]``."""
        image_precision = self._precision(image_logvar)
        event_precision = self._precision(event_logvar)
        total = image_precision + event_precision + self.config.epsilon
        image_weight, event_weight = image_precision / total, event_precision / total
        return image_weight * image_mu + event_weight * event_mu, image_weight, event_weight

    def _precision(self, logvar: Tensor) -> Tensor:
        precision = torch.exp(-logvar)
        if self.config.noise_model == "gaussian":
            return precision
        return (self.config.nu + 1.0) / self.config.nu * precision
