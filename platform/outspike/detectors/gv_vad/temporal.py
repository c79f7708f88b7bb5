"""MTN: multi-scale context over time for one stream (``gv_vad_ssls.md`` section 2.1)."""

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from outspike.detectors.batch_stats import MaskedBatchNorm1d

DILATIONS = (1, 2, 4)


class CopiedBatchNorm1d(MaskedBatchNorm1d):
    """Batch normalisation of rows that stand for ``copies`` equal ones each.

    Mean and variance are the same either way. The running variance is corrected for the size of the
    sample, and that is what the published code counts with every copy.
    """

    copies: int = 1

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """As the base class."""
        if self.training and self.copies > 1 and mask is None:
            mask = torch.ones(x.shape[0], x.shape[2], dtype=torch.bool, device=x.device)
        return super().forward(x, mask)

    def _track(self, mean: Tensor, var: Tensor, count: Tensor) -> None:
        super()._track(mean, var, count * self.copies)


class Branch(nn.Module):
    """Convolution over three rows, rectifier, then normalisation: ``[M, C, T] -> [M, C', T]``."""

    def __init__(self, inputs: int, outputs: int, dilation: int = 1, *, bias: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv1d(inputs, outputs, 3, dilation=dilation, padding=dilation, bias=bias)
        self.norm = CopiedBatchNorm1d(outputs)

    def forward(self, u_MCT: Tensor, stats_MT: Tensor | None) -> Tensor:
        """``stats_MT`` selects the rows that make batch statistics; None takes all of them."""
        # In place: of the two only the rectified values are needed on the way back.
        normal: Tensor = self.norm(F.relu(self.conv(u_MCT), inplace=True), stats_MT)
        return normal


class NonLocal(nn.Module):
    """Every row hears from all rows of its sequence by unnormalised dot products, ``[M, C, T]``.

    There is no softmax, so ``(theta^T phi) g`` is summed as ``theta^T (phi g)``: linear in ``T``,
    without the ``[T, T]`` table.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(1, channels // 2)
        self.g = nn.Conv1d(channels, inner, 1)
        self.theta = nn.Conv1d(channels, inner, 1)
        self.phi = nn.Conv1d(channels, inner, 1)
        self.out = nn.Conv1d(inner, channels, 1)
        self.norm = CopiedBatchNorm1d(channels)
        nn.init.zeros_(self.norm.weight)

    def forward(self, u_MCT: Tensor, mask_MT: Tensor | None, stats_MT: Tensor | None) -> Tensor:
        """Rows outside ``mask_MT`` are not heard; None hears every row."""
        phi = self.phi(u_MCT)
        if mask_MT is None:
            phi = phi / u_MCT.shape[2]
        else:
            share = mask_MT.to(phi.dtype) / mask_MT.sum(dim=1, keepdim=True)
            phi = phi * share[:, None]
        table = self.g(u_MCT) @ phi.transpose(1, 2)
        heard: Tensor = self.norm(self.out(table @ self.theta(u_MCT)), stats_MT)
        return heard + u_MCT


class TemporalBlock(nn.Module):
    """Three dilated branches and one of non-local context, mixed and added to the input.

    A width ``W`` is split in four quarters of ``W // 4`` channels, which need not fill it.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        quarter = max(1, width // 4)
        self.branches = nn.ModuleList(Branch(width, quarter, d) for d in DILATIONS)
        self.pointwise = nn.Conv1d(width, quarter, 1, bias=False)
        self.context = NonLocal(quarter)
        self.mix = Branch(4 * quarter, width, bias=False)
        for module in self.modules():
            if isinstance(module, nn.Conv1d):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def count_copies(self, copies: int) -> None:
        """Let batch statistics count every row this many times."""
        for module in self.modules():
            if isinstance(module, CopiedBatchNorm1d):
                module.copies = copies

    def forward(
        self, x_MTW: Tensor, mask_MT: Tensor | None = None, stats_MT: Tensor | None = None
    ) -> Tensor:
        """Sequences with context, ``[M, T, W]``; values at padding are of no meaning.

        ``mask_MT`` None means that no row is padding, ``stats_MT`` None that all rows make batch
        statistics.
        """
        h = x_MTW.transpose(1, 2)
        inside = None if mask_MT is None else mask_MT[:, None].to(h.dtype)
        if inside is not None:
            h = h * inside
        scales = [branch(h, stats_MT) for branch in self.branches]
        pointwise = F.relu(self.pointwise(h), inplace=True)
        u = torch.cat([*scales, self.context(pointwise, mask_MT, stats_MT)], dim=1)
        if inside is not None:
            u = u * inside
        mixed: Tensor = self.mix(u, stats_MT)
        return mixed.add_(h).transpose(1, 2)
