"""The spiking graph network of MSF: similarity and distance graphs over snippets (section 5.3)."""

import math
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from outspike.detectors.neurons import Neuron, lif

_SIMILAR = 0.7
_EPSILON = 1e-20
#: Rows of a T x T adjacency held at once where no gradient is kept: memory stays linear in T.
_BLOCK_ROWS = 1024


class GraphConvolution(nn.Module):
    """``A (z W)`` plus a residual: the input, or a convolution over time where widths differ."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(inputs, outputs))
        nn.init.xavier_uniform_(self.weight)
        self.residual: nn.Module = nn.Identity()
        if inputs != outputs:
            self.residual = nn.Conv1d(inputs, outputs, 5, padding=2)

    def forward(self, z_BTC: Tensor, graph: "_Graph") -> Tensor:
        """Mix rows along a graph, ``[B, T, inputs] -> [B, T, outputs]``."""
        residual: Tensor = self.residual(z_BTC.transpose(1, 2)).transpose(1, 2)
        return graph @ (z_BTC @ self.weight) + residual


class SpikingGraph(nn.Module):
    """Two graph branches whose four neuron passes share a membrane, ``[B, T, C] -> [B, T, C]``."""

    def __init__(self, channels: int, *, tau: float) -> None:
        super().__init__()
        half = channels // 2
        self.similar_in = GraphConvolution(channels, half)
        self.similar_out = GraphConvolution(half, half)
        self.distant_in = GraphConvolution(channels, half)
        self.distant_out = GraphConvolution(half, half)
        self.linear = nn.Linear(channels, channels)
        self.neuron = Neuron(tau=tau, threshold=1.0)

    def forward(
        self,
        z_BTC: Tensor,
        lengths_B: Tensor | None = None,
        v: Tensor | None = None,
        *,
        freeze_padding: bool = True,
    ) -> tuple[Tensor, Tensor]:
        """Mixed rows and the membrane ``[B, C / 2]`` after the fourth pass.

        Rows past ``lengths_B`` hear nothing and are heard by nobody; their output is meaningless.
        The published layer lets the neurons run on through them (``freeze_padding=False``).
        """
        steps = lengths_B if freeze_padding else None
        similar = _Graph(partial(similarity_adjacency, z_BTC, lengths_B), z_BTC.shape[1])
        distant = _Graph(partial(distance_adjacency, z_BTC.shape[1], z_BTC), z_BTC.shape[1])
        first, v = self._fire(self.similar_in(z_BTC, similar), v, steps)
        second, v = self._fire(self.distant_in(z_BTC, distant), v, steps)
        first, v = self._fire(self.similar_out(first, similar), v, steps)
        second, v = self._fire(self.distant_out(second, distant), v, steps)
        return self.linear(torch.cat([first, second], dim=2)), v

    def _fire(
        self, x_BTC: Tensor, v: Tensor | None, lengths_B: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        spikes, v = lif(x_BTC.transpose(0, 1), v, self.neuron, lengths_B=lengths_B)
        return spikes.transpose(0, 1), v


class _Graph:
    """An adjacency to multiply by: whole where it is small or has gradients, else row blocks."""

    def __init__(self, rows: Callable[[int, int], Tensor], num_rows: int) -> None:
        self._rows = rows
        self._num_rows = num_rows
        whole = torch.is_grad_enabled() or num_rows <= _BLOCK_ROWS
        self._whole = rows(0, num_rows) if whole else None

    def __matmul__(self, projected: Tensor) -> Tensor:
        if self._whole is not None:
            return self._whole @ projected
        stops = [min(row + _BLOCK_ROWS, self._num_rows) for row in self._starts()]
        blocks = zip(self._starts(), stops, strict=True)
        return torch.cat([self._rows(start, stop) @ projected for start, stop in blocks], dim=1)

    def _starts(self) -> range:
        return range(0, self._num_rows, _BLOCK_ROWS)


def similarity_adjacency(
    z_BTC: Tensor, lengths_B: Tensor | None = None, start: int = 0, stop: int | None = None
) -> Tensor:
    """Rows ``[start, stop)`` of the softmax of cosine similarities above 0.7, ``[B, rows, T]``.

    Similarities at or below 0.7 enter the softmax as 0, not as minus infinity, so that unrelated
    snippets keep a little weight. Rows and columns past ``lengths_B`` are zero.
    """
    norm = torch.linalg.vector_norm(z_BTC, dim=2)
    dots = z_BTC[:, start:stop] @ z_BTC.transpose(1, 2)
    cosine = dots / (norm[:, start:stop, None] * norm[:, None, :] + _EPSILON)
    similar = torch.where(cosine > _SIMILAR, cosine, torch.zeros_like(cosine))
    if lengths_B is None:
        return F.softmax(similar, dim=2)
    inside = torch.arange(z_BTC.shape[1], device=z_BTC.device) < lengths_B[:, None]
    weights = F.softmax(similar.masked_fill(~inside[:, None, :], -math.inf), dim=2)
    return weights * inside[:, start:stop, None]


def distance_adjacency(
    num_rows: int, like: Tensor, start: int = 0, stop: int | None = None
) -> Tensor:
    """Rows ``[start, stop)`` of ``exp(-|i - j| / e)``, ``[rows, T]``, not normalised."""
    stop = num_rows if stop is None else stop
    steps = torch.arange(1 - num_rows, num_rows, device=like.device, dtype=like.dtype)
    # Row i is the same curve shifted by i, so it is evaluated once and read at T offsets.
    shifted = torch.exp(-steps.abs() / math.e).unfold(0, num_rows, 1)
    return shifted[num_rows - stop : num_rows - start].flip(0)
