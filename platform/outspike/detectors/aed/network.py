"""The network of AED (``lad2000_aed.md`` section 3): windows in, class logits and frame scores out.

A feature row is taken for a picture of ``width / 16`` channels on a 4 x 4 grid, index
``16 * channel + 4 * row + column``, as published: the convolution mixes unrelated features.
"""

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from outspike.detectors.base import probabilities

GRID = 4
CELLS = GRID * GRID


class ConvLstmCell(nn.Module):
    """A convolutional LSTM step without peephole terms.

    The paper's equations 1 to 4 have them, its code does not; this follows the code. Gates are in
    the order input, forget, output, candidate.
    """

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.gates = nn.Conv2d(inputs + hidden, 4 * hidden, 3, padding=1)

    def from_input(self, x_NCHW: Tensor) -> Tensor:
        """The input's share of the gates, which overlapping windows have in common."""
        weight = self.gates.weight[:, : -self.hidden]
        return F.conv2d(x_NCHW, weight, self.gates.bias, padding=1)

    def forward(
        self, share_NGHW: Tensor, state: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, Tensor]:
        """Hidden and cell ``[N, hidden, H, W]`` after a step; state None is all zeros."""
        gates = share_NGHW
        if state is not None:
            gates = gates + F.conv2d(state[0], self.gates.weight[:, -self.hidden :], padding=1)
        i, f, o, candidate = gates.chunk(4, dim=1)
        cell = torch.sigmoid(i) * torch.tanh(candidate)
        if state is not None:
            cell = torch.sigmoid(f) * state[1] + cell
        return torch.sigmoid(o) * torch.tanh(cell), cell


class Head(nn.Module):
    """Two layers without biases, a rectifier between them."""

    def __init__(self, inputs: int, inner: int, outputs: int) -> None:
        super().__init__()
        self.inner = nn.Linear(inputs, inner, bias=False)
        self.outer = nn.Linear(inner, outputs, bias=False)

    def forward(self, x_ND: Tensor) -> Tensor:
        """Raw outputs."""
        out: Tensor = self.outer(F.relu(self.inner(x_ND)))
        return out


class AedNetwork(nn.Module):
    """One or two recurrent layers over a window, then a classifier and a frame regressor.

    Args:
        channels: of the input pictures.
        hidden, down, head: widths of the recurrent state, of the layer after it, of the heads.
        num_layers: 1 (AED) or 2 (AED_T).
        num_classes, num_scores: outputs of the two heads.
    """

    def __init__(
        self,
        *,
        channels: int,
        hidden: int,
        num_layers: int,
        down: int,
        head: int,
        num_classes: int,
        num_scores: int,
    ) -> None:
        super().__init__()
        inputs = [channels, *[hidden] * (num_layers - 1)]
        self.cells = nn.ModuleList(ConvLstmCell(number, hidden) for number in inputs)
        self.down = nn.Linear(hidden * CELLS, down)
        self.class_head = Head(down, head, num_classes)
        self.frame_head = Head(down, head, num_scores)

    def prepared(self, x_ND: Tensor) -> Tensor:
        """The first layer's input share of every row, ``[N, G, 4, 4]``."""
        first = self.cells[0]
        assert isinstance(first, ConvLstmCell)
        return first.from_input(x_ND.view(len(x_ND), -1, GRID, GRID))

    def forward(self, share_WLGHW: Tensor) -> tuple[Tensor, Tensor]:
        """Class logits ``[W, C]`` and frame scores in (0, 1) ``[W, num_scores]`` of windows whose
        rows went through :meth:`prepared`.
        """
        states: list[tuple[Tensor, Tensor] | None] = [None] * len(self.cells)
        hidden = share_WLGHW
        for step in range(share_WLGHW.shape[1]):
            for layer, cell in enumerate(self.cells):
                assert isinstance(cell, ConvLstmCell)
                share = cell.from_input(hidden) if layer else share_WLGHW[:, step]
                hidden, memory = cell(share, states[layer])
                states[layer] = hidden, memory
        z = F.relu(self.down(hidden.flatten(1)))
        return self.class_head(z), probabilities(self.frame_head(z))
