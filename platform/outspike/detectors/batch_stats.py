"""Batch normalisation over chosen rows and over all ranks.

``torch.nn.SyncBatchNorm`` refuses CPU tensors and knows no masks; this one computes its statistics
by differentiable all-reduce, so R ranks of B/R bags normalise exactly as one rank of B bags.
"""

import torch
from torch import Tensor, nn

from outspike.detectors.reduce import Group, differentiable_all_reduce, world_size
from outspike.errors import BagError


class MaskedBatchNorm1d(nn.BatchNorm1d):
    """``nn.BatchNorm1d`` on ``[B, C, T]`` whose statistics come from the rows that a mask selects.

    State-dict compatible with the module it extends and, without a mask in one process, identical
    to it. All rows are normalised; the mask only decides whose values make mean and variance.
    """

    group: Group = None

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Normalise ``x [B, C, T]``; ``mask`` is bool ``[B, T]``, None selects every row.

        Raises BagError where a training batch selects no row on any rank.
        """
        if not self.training or (mask is None and world_size(self.group) == 1):
            return super().forward(x)
        if mask is None:
            mask = torch.ones(x.shape[0], x.shape[2], dtype=torch.bool, device=x.device)
        x = x.to(torch.promote_types(x.dtype, torch.float32))  # sums of half precision are coarse
        mean, var, count = self._statistics(x, mask)
        self._track(mean, var, count)
        normal = (x - mean[:, None]) * torch.rsqrt(var + self.eps)[:, None]
        if not self.affine:
            return normal
        return normal * self.weight[:, None] + self.bias[:, None]

    def _statistics(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean and biased variance ``[C]`` of the selected rows of all ranks, and their number."""
        # Rows left out are replaced, not multiplied: no gradient and no 0 * inf from them.
        chosen = torch.where(mask[:, None], x, 0.0)
        number = mask.sum().to(x.dtype)[None]
        sums = differentiable_all_reduce(torch.cat([chosen.sum(dim=(0, 2)), number]), self.group)
        count = sums[-1].detach()
        if count < 1:
            raise BagError(
                "No row of the batch takes part in batch statistics; with isolate_stats on, every "
                "batch needs real bags."
            )
        mean = sums[:-1] / count
        deviation = torch.where(mask[:, None], x - mean[:, None], 0.0)
        squares = differentiable_all_reduce(deviation.square().sum(dim=(0, 2)), self.group)
        return mean, squares / count, count

    def _track(self, mean: Tensor, var: Tensor, count: Tensor) -> None:
        if self.running_mean is None or self.running_var is None:
            return
        with torch.no_grad():
            if self.num_batches_tracked is not None:
                self.num_batches_tracked.add_(1)
            rate = self.momentum
            if rate is None:
                rate = 1.0 / float(self.num_batches_tracked or 1)
            unbiased = var * (count / (count - 1).clamp_min(1.0))
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), rate)
            self.running_var.lerp_(unbiased.to(self.running_var.dtype), rate)
