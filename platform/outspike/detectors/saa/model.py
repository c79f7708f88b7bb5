"""Networks of SAA: temporal context, attention, classifier (section 2 of its specification).

Features are ``[B, C, T]``. ``mask`` tells snippets from padding, which is kept at zero before every
convolution over time; None takes every row for a snippet, as the published code does.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from outspike.detectors.batch_stats import MaskedBatchNorm1d
from outspike.detectors.draws import keyed_dropout

DILATIONS = (1, 2, 4)
_SLOPE = 0.2
#: Layers that draw dropout masks, told apart in the draws.
_ATTENTION_SALT, _CLASSIFIER_SALT = 0, 2


class NormalisedConv(nn.Module):
    """Convolution over time and batch normalisation, with a rectifier between them or without."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        *,
        dilation: int = 1,
        bias: bool,
        rectified: bool = True,
    ) -> None:
        super().__init__()
        padding = dilation * (kernel // 2)
        self.conv = nn.Conv1d(
            inputs, outputs, kernel, dilation=dilation, padding=padding, bias=bias
        )
        self.norm = MaskedBatchNorm1d(outputs)
        self.rectified = rectified

    def forward(self, x_BCT: Tensor, stats_BT: Tensor | None) -> Tensor:
        """``stats_BT`` selects the rows that make batch statistics."""
        x = self.conv(x_BCT)
        normal: Tensor = self.norm(F.relu(x) if self.rectified else x, stats_BT)
        return normal


class NonLocal(nn.Module):
    """Context from all snippets by dot products divided by their number, without softmax.

    ``(theta^T phi) g^T`` is computed as ``theta^T (phi g^T)``: linear in time, and no ``[T, T]``.
    """

    def __init__(self, width: int, *, bias: bool) -> None:
        super().__init__()
        inner = width // 2
        self.theta = nn.Conv1d(width, inner, 1, bias=bias)
        self.phi = nn.Conv1d(width, inner, 1, bias=bias)
        self.g = nn.Conv1d(width, inner, 1, bias=bias)
        self.out = NormalisedConv(inner, width, 1, bias=bias, rectified=False)

    def forward(self, x_BCT: Tensor, mask_BT: Tensor | None, stats_BT: Tensor | None) -> Tensor:
        """The input plus its context."""
        phi = masked(self.phi(x_BCT), mask_BT)
        number: Tensor | int = x_BCT.shape[2]
        if mask_BT is not None:
            number = mask_BT.sum(dim=1)[:, None, None].to(phi.dtype)
        pairs_BCC = torch.bmm(self.g(x_BCT), phi.transpose(1, 2)) / number
        context: Tensor = self.out(torch.bmm(pairs_BCC, self.theta(x_BCT)), stats_BT)
        return context + x_BCT


class TemporalContext(nn.Module):
    """The temporal embedding unit: three dilated branches and a non-local one, merged, plus input.

    Args:
        width: a multiple of 8; each branch is a quarter of it.
        bias: biases of convolutions that have them in the PyTorch form. Without them, as in the
            MindSpore graph, the normalisation of the non-local branch starts at 1 instead of 0.
    """

    def __init__(self, width: int, *, bias: bool) -> None:
        super().__init__()
        part = width // 4
        self.branches = nn.ModuleList(
            NormalisedConv(width, part, 3, dilation=d, bias=bias) for d in DILATIONS
        )
        self.gate = nn.Conv1d(width, part, 1, bias=False)
        self.non_local = NonLocal(part, bias=bias)
        self.merge = NormalisedConv(width, width, 3, bias=False)
        initialise(self)
        nn.init.constant_(self.non_local.out.norm.weight, 0.0 if bias else 1.0)

    def forward(self, x_BCT: Tensor, mask_BT: Tensor | None, stats_BT: Tensor | None) -> Tensor:
        """Features with context ``[B, C, T]``; padding of the input must be zero already."""
        parts = [branch(x_BCT, stats_BT) for branch in self.branches]
        parts.append(self.non_local(F.relu(self.gate(x_BCT)), mask_BT, stats_BT))
        merged = self.merge(masked(torch.cat(parts, dim=1), mask_BT), stats_BT)
        return masked(merged + x_BCT, mask_BT)


class Attention(nn.Module):
    """The anomalous attention unit, ``[B, C, T] -> [B, T]`` logits."""

    def __init__(self, width: int, inner: int, *, bias: bool, dropout: float) -> None:
        super().__init__()
        self.rate = dropout
        self.layers = nn.ModuleList(
            [
                nn.Conv1d(width, inner, 3, padding=1, bias=bias),
                nn.Conv1d(inner, inner, 3, padding=1, bias=bias),
                nn.Conv1d(inner, 1, 1, bias=bias),
            ]
        )
        initialise(self)

    def forward(self, x_BCT: Tensor, mask_BT: Tensor | None, keys_B: Tensor | None) -> Tensor:
        """Dropout also falls on the logit, whose attention is then exactly one half."""
        x = masked(F.leaky_relu(self.layers[0](x_BCT), _SLOPE), mask_BT)
        x = dropped(x.transpose(1, 2), self.rate, keys_B, _ATTENTION_SALT).transpose(1, 2)
        x = self.layers[2](F.leaky_relu(self.layers[1](x), _SLOPE))
        x = dropped(x.transpose(1, 2), self.rate, keys_B, _ATTENTION_SALT + 1)
        return x[..., 0]


class Classifier(nn.Module):
    """The snippet classifier, ``[B, C, T] -> [B, T]`` logits."""

    def __init__(self, width: int, inner: tuple[int, int], *, dropout: float) -> None:
        super().__init__()
        self.rate = dropout
        widths = (width, *inner, 1)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        initialise(self)

    def forward(self, x_BCT: Tensor, keys_B: Tensor | None) -> Tensor:
        """Dropout before every layer."""
        x = x_BCT.transpose(1, 2)
        for salt, layer in enumerate(self.layers, start=_CLASSIFIER_SALT):
            x = dropped(x if layer is self.layers[0] else F.relu(x), self.rate, keys_B, salt)
            x = layer(x)
        return x[..., 0]


def masked(x_BCT: Tensor, mask_BT: Tensor | None) -> Tensor:
    """Zeros at padding."""
    return x_BCT if mask_BT is None else torch.where(mask_BT[:, None], x_BCT, 0.0)


def dropped(x_BTC: Tensor, rate: float, keys_B: Tensor | None, salt: int) -> Tensor:
    """Dropout that belongs to the bag; None turns it off."""
    return x_BTC if keys_B is None else keyed_dropout(x_BTC, rate, keys_B, salt)


def initialise(module: nn.Module) -> None:
    """Xavier-uniform weights and zero biases, as in the code this network descends from."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv1d | nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
