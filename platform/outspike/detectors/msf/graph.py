"""The spiking graph network of MSF: similarity and distance graphs over snippets (section 5.3)."""

import math
from functools import partial

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from outspike.detectors.eager import eager
from outspike.detectors.neurons import Neuron, lif

_SIMILAR = 0.7
_EPSILON = 1e-20
#: Rows of a T x T adjacency held at once where no gradient is kept: memory stays linear in T.
_BLOCK_ROWS = 256
#: Snippets further apart than this are strangers: exp(-64 / e) is 6e-11, below float32's last bit.
_REACH = 64


class GraphConvolution(nn.Module):
    """``A (z W)`` plus a residual: the input, or a convolution over time where widths differ."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(inputs, outputs))
        nn.init.xavier_uniform_(self.weight)
        self.residual: nn.Module = nn.Identity()
        if inputs != outputs:
            self.residual = nn.Conv1d(inputs, outputs, 5, padding=2)

    def forward(self, z_BTC: Tensor, graph: "_SimilarityGraph | _DistanceGraph") -> Tensor:
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
        similar = _SimilarityGraph(z_BTC, lengths_B)
        distant = _DistanceGraph(z_BTC)
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


class _SimilarityGraph:
    """Multiplies by the similarity adjacency: whole where it has gradients, else in row blocks."""

    def __init__(self, z_BTC: Tensor, lengths_B: Tensor | None) -> None:
        self._rows = partial(similarity_adjacency, z_BTC, lengths_B)
        self._num_rows = z_BTC.shape[1]
        whole = torch.is_grad_enabled() or self._num_rows <= _BLOCK_ROWS
        self._whole = self._rows(0, self._num_rows) if whole else None

    def __matmul__(self, projected_BTC: Tensor) -> Tensor:
        if self._whole is not None:
            return self._whole @ projected_BTC
        starts = range(0, self._num_rows, _BLOCK_ROWS)
        blocks = [(start, min(start + _BLOCK_ROWS, self._num_rows)) for start in starts]
        return torch.cat([self._rows(a, b) @ projected_BTC for a, b in blocks], dim=1)


class _DistanceGraph:
    """Multiplies by the distance adjacency, which is the same band around every snippet.

    Long sequences are cut into blocks that overlap by the reach of the band, so that time and
    memory are linear in their length.
    """

    def __init__(self, like: Tensor) -> None:
        self._num_rows = like.shape[1]
        self._long = self._num_rows > _BLOCK_ROWS
        size = _BLOCK_ROWS + 2 * _REACH if self._long else self._num_rows
        self._adjacency = distance_adjacency(size, like)
        if self._long:
            self._adjacency = self._adjacency[_REACH : _REACH + _BLOCK_ROWS]

    def __matmul__(self, projected_BTC: Tensor) -> Tensor:
        if not self._long:
            return self._adjacency @ projected_BTC
        missing = -self._num_rows % _BLOCK_ROWS
        padded = F.pad(projected_BTC, (0, 0, _REACH, _REACH + missing))
        blocks = padded.unfold(1, _BLOCK_ROWS + 2 * _REACH, _BLOCK_ROWS)
        mixed = (blocks @ self._adjacency.T).transpose(2, 3).flatten(1, 2)
        return mixed[:, : self._num_rows]


def similarity_adjacency(
    z_BTC: Tensor, lengths_B: Tensor | None = None, start: int = 0, stop: int | None = None
) -> Tensor:
    """Rows ``[start, stop)`` of the softmax of cosine similarities above 0.7, ``[B, rows, T]``.

    Similarities at or below 0.7 enter the softmax as 0, not as minus infinity, so that unrelated
    snippets keep a little weight. Rows and columns past ``lengths_B`` are zero.
    """
    norm = torch.linalg.vector_norm(z_BTC, dim=2)
    dots = z_BTC[:, start:stop] @ z_BTC.transpose(1, 2)
    if _compiles(dots):
        return _compiled_rows(dots, norm, lengths_B, start)
    cosine = dots / (norm[:, start:stop, None] * norm[:, None, :] + _EPSILON)
    similar = torch.where(cosine > _SIMILAR, cosine, torch.zeros_like(cosine))
    if lengths_B is None:
        return F.softmax(similar, dim=2)
    inside = torch.arange(z_BTC.shape[1], device=z_BTC.device) < lengths_B[:, None]
    weights = F.softmax(similar.masked_fill(~inside[:, None, :], -math.inf), dim=2)
    return weights * inside[:, start:stop, None]


def _compiles(dots: Tensor) -> bool:
    """Whether a kernel can take over: no gradient to keep, on the CPU, in a precision it knows."""
    plain = dots.device.type == "cpu" and dots.dtype in (torch.float32, torch.float64)
    return plain and not dots.requires_grad


@eager
def _compiled_rows(dots: Tensor, norm_BT: Tensor, lengths_B: Tensor | None, start: int) -> Tensor:
    from outspike.detectors import kernels

    if lengths_B is None:
        lengths_B = torch.full((len(dots),), dots.shape[2])
    dots, norm_BT = dots.detach().contiguous(), norm_BT.detach().contiguous()
    kernels.similarity_rows(
        dots.numpy(),
        norm_BT.numpy(),
        lengths_B.contiguous().numpy(),
        start,
        kernels.constants(dots, _SIMILAR, _EPSILON),
    )
    return dots


def distance_adjacency(
    num_rows: int, like: Tensor, start: int = 0, stop: int | None = None
) -> Tensor:
    """Rows ``[start, stop)`` of ``exp(-|i - j| / e)``, ``[rows, T]``, not normalised."""
    stop = num_rows if stop is None else stop
    steps = torch.arange(1 - num_rows, num_rows, device=like.device, dtype=like.dtype)
    # Row i is the same curve shifted by i, so it is evaluated once and read at T offsets.
    shifted = torch.exp(-steps.abs() / math.e).unfold(0, num_rows, 1)
    return shifted[num_rows - stop : num_rows - start].flip(0)
