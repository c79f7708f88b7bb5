"""Long bags in windows that overlap by half, and the scores of the windows blended back."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """Which rows each window has; windows lie side by side, those of the first bag first."""

    bag: Tensor
    """int64 ``[W]``: the bag a window was cut from."""
    rows: Tensor
    """int64 ``[W, T]``: its rows in that bag, past the end where the bag is shorter."""
    inside: Tensor
    """bool ``[W, T]``: which of them are snippets of the bag; never none, and padding is last."""
    mask: Tensor
    """bool ``[B, S]`` of the bags."""

    @classmethod
    def of(cls, mask_BS: Tensor, window: int) -> "Overlap":
        """Windows of ``window`` rows every ``window // 2`` until each bag's last snippet."""
        num_rows = mask_BS.shape[1]
        half = window // 2
        num_windows = max(0, -(-(num_rows - window) // half)) + 1
        starts = torch.arange(num_windows, device=mask_BS.device) * half
        lengths = mask_BS.sum(dim=1)
        # A window is needed if it is the first or reaches rows that the one before it did not.
        needed = (starts == 0) | (starts + window - half < lengths[:, None])
        bag, number = needed.nonzero(as_tuple=True)
        rows = starts[number][:, None] + torch.arange(window, device=mask_BS.device)
        padded = F.pad(mask_BS, (0, int(starts[-1]) + window - num_rows))
        return cls(bag=bag, rows=rows, inside=padded[bag[:, None], rows], mask=mask_BS)

    def cut(self, x_BSD: Tensor) -> Tensor:
        """Rows of the windows, zeros past a bag's end, ``[B, S, D] -> [W, T, D]``."""
        padding = max(0, int(self.rows.max()) + 1 - x_BSD.shape[1])
        return F.pad(x_BSD, (0, 0, 0, padding))[self.bag[:, None], self.rows]

    def blend(self, values_WT: Tensor) -> Tensor:
        """A value a snippet from the windows over it, ``[W, T] -> [B, S]``.

        A window counts less towards its ends, where it has seen less of what is around.
        """
        window = self.rows.shape[1]
        position = torch.arange(window, device=values_WT.device, dtype=values_WT.dtype)
        weight = torch.minimum(position + 1, window - position) * self.inside
        total = self._summed(values_WT * weight) / self._summed(weight).clamp_min(1.0)
        return torch.where(self.mask, total, 0.0)

    def _summed(self, values_WT: Tensor) -> Tensor:
        num_bags, num_rows = self.mask.shape
        length = max(num_rows, int(self.rows.max()) + 1)
        total = torch.zeros(num_bags * length, dtype=values_WT.dtype, device=values_WT.device)
        total.index_add_(0, (self.bag[:, None] * length + self.rows).flatten(), values_WT.flatten())
        return total.view(num_bags, length)[:, :num_rows]
