"""A batch taken in pieces whose gradients add up to those of the whole.

The loss is a sum of terms, each a global sum over a global count. So every piece needs the counts
of the whole batch: a first pass without gradient collects the terms of all pieces, which also
gives the values to log, and a second one differentiates each piece's share. What cannot be had so
is a detector whose bags meet before the loss.
"""

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from outspike.detectors.bags import Bags
from outspike.detectors.base import Detector, LossTerm
from outspike.errors import ConfigError


def check_divisible(detector: Detector, num_pieces: int) -> None:
    """Raise ConfigError where bags of a batch reach each other: pieces are then not the whole."""
    why = ""
    if any(isinstance(module, _BatchNorm) for module in detector.modules()):
        why = "its layers normalise by statistics of the whole batch"
    elif getattr(detector, "uses_bank", False):
        why = "its losses rank snippets over the whole batch"
    elif getattr(detector.config, "compat", None) == "gv_vad_2025":
        why = "its losses run over the borders of bags"
    if num_pieces > 1 and why:
        raise ConfigError(
            f"compute.accumulate={num_pieces}: detector {detector.config.kind!r} cannot be trained "
            f"in pieces, since {why}; set it to 1, and lower bags_per_batch or use more workers to "
            "save memory."
        )


def divided(bags: Bags, num_pieces: int) -> list[tuple[Bags, Tensor]]:
    """Pieces of almost equal size, each with the places of its bags in the whole batch."""
    places = [torch.arange(first, bags.num_bags, num_pieces) for first in range(num_pieces)]
    return [(bags.take(chosen), chosen.to(bags.labels.device)) for chosen in places]


def joined(pieces: Sequence[tuple[list[LossTerm], Tensor]]) -> list[LossTerm]:
    """Terms of the whole batch from those of its pieces, owned by the bags of the whole."""
    whole = []
    for same in zip(*(terms for terms, _ in pieces), strict=True):
        places = [chosen for _, chosen in pieces]
        whole.append(
            dataclasses.replace(
                same[0],
                values=torch.cat([term.values for term in same]),
                counts=torch.cat([term.counts for term in same]),
                bags=torch.cat([at[term.bags] for at, term in zip(places, same, strict=True)]),
            )
        )
    return whole
