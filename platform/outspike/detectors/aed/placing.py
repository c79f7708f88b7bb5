"""Which snippets each window of a batch reads, and to which it writes (``lad2000_aed.md``)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Placing:
    """Windows of all sequences of a batch, one after the other."""

    sequence: Tensor
    """int64 ``[W]``: which sequence each window belongs to."""
    reads: Tensor
    """int64 ``[W, L]``: the snippet that each position reads."""
    writes: Tensor
    """int64 ``[W, L]``: the snippet that each position scores; past the sequence it is padding."""
    is_real: Tensor
    """bool ``[W, L]``: the position reads a snippet and not padding."""


def place(
    lengths: Sequence[int], window: int, *, scrambled: bool = False, device: torch.device | str
) -> Placing:
    """Windows of ``window`` snippets with stride one over sequences of any length.

    As published, a sequence is first lengthened to a multiple of the window by repeating its last
    snippet.

    Args:
        lengths: snippets of each sequence, at least 1.
        window: ``L``.
        scrambled: read the snippets that the published test reads. It takes the windows, laid
            out ``[W, L]``, for ``[L, W]``, so that a window reads snippets from all over the video
            and its scores are still written to ``L`` neighbours.
    """
    sequences, reads, writes, real = [], [], [], []
    positions = torch.arange(window)
    for number, length in enumerate(lengths):
        padded = length + -length % window
        neighbours = torch.arange(padded - window + 1)[:, None] + positions
        taken = neighbours.reshape(window, -1).T if scrambled else neighbours
        sequences.append(torch.full((len(neighbours),), number))
        writes.append(neighbours)
        reads.append(taken.clamp(max=length - 1))
        real.append(taken < length)
    return Placing(*(torch.cat(part).to(device) for part in (sequences, reads, writes, real)))
