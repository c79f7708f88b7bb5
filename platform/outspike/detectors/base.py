"""What a detector is: scores of bags, and loss terms whose reduction happens elsewhere."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from outspike.config import DetectorConfig
from outspike.detectors.bags import Bags, Scores
from outspike.errors import BagError


@dataclass(frozen=True, kw_only=True)
class LossTerm:
    """One term of a loss, split into units (a bag, a pair of bags) that are not yet averaged.

    The reducer computes ``weight * sum(values) / sum(counts)`` over all ranks, after weighting each
    unit by the bags that own it. So the same term on R ranks of B/R bags and on one rank of B bags
    is the same number.
    """

    name: str
    values: Tensor
    """``[n]``: the sum over each unit."""
    counts: Tensor
    """``[n]``: what each unit adds to the denominator."""
    bags: Tensor
    """int64 ``[n, m]``: the bags that own each unit, of this rank's batch or, with ``scope``
    ``world``, of all ranks' batches one after the other."""
    weight: float = 1.0
    combine: Literal["product", "geometric"] = "product"
    """How the weights of several owners make the unit's: their product or their geometric mean."""
    scope: Literal["rank", "world"] = "rank"
    """What ``bags`` counts; every unit belongs to the terms of one rank only."""


class Detector(nn.Module, ABC):
    """A network (or a fitted rule) that scores every snippet of every bag.

    Scores of a bag never depend on the other bags of a batch or on padding, except in a
    ``compat`` form whose published arithmetic does so.
    """

    trainable: ClassVar[bool] = True
    """False where :meth:`fit` takes the place of gradient steps."""
    needs_frame_labels: ClassVar[bool] = False
    """True where the loss reads ``Bags.frame_labels``: trains on fully supervised splits only."""

    config: DetectorConfig

    def __init__(self) -> None:
        super().__init__()
        self.isolate_stats = False

    @property
    @abstractmethod
    def feature_sets(self) -> dict[str, int]:
        """Feature sets read, by name, and the width expected of each."""

    @property
    def spiking_layers(self) -> tuple[str, ...]:
        """Names of the layers of spiking neurons, in the order in which a forward runs them."""
        return ()

    @abstractmethod
    def forward(self, bags: Bags) -> Scores:
        """Score all snippets; raises BagError where a feature set is absent or of another width."""

    @abstractmethod
    def loss(self, bags: Bags, scores: Scores) -> list[LossTerm]:
        """Loss terms of a labelled batch; raises BagError naming a bag without a label."""

    def fit_inputs(self, batches: Iterable[Bags]) -> None:
        """Take the input scaling from training bags, before the first step; nothing by default."""

    def fit(self, batches: Iterable[Bags]) -> None:
        """Learn from training bags at once, for detectors that are not ``trainable``."""
        raise NotImplementedError(f"{type(self).__name__} is trained by gradient steps.")

    def reset(self) -> None:
        """Forget spiking state. Every forward starts from rest by itself; this is for streams."""

    def inputs(self, bags: Bags) -> dict[str, Tensor]:
        """The feature sets this detector reads, checked, ``{name: [B, K, S, D]}``."""
        taken = {}
        for name, width in self.feature_sets.items():
            if name not in bags.features:
                raise BagError(
                    f"{bags.bag_ids[0]}: the batch has features {sorted(bags.features)}, "
                    f"{type(self).__name__} reads {name!r}."
                )
            rows = bags.features[name]
            if rows.shape[-1] != width:
                raise BagError(
                    f"{bags.bag_ids[0]}: features {name!r} are {rows.shape[-1]} wide, "
                    f"{type(self).__name__} was built for {width}."
                )
            taken[name] = rows
        return taken

    def stats_mask(self, bags: Bags) -> Tensor:
        """Rows that take part in batch statistics, bool ``[B, S]``."""
        if self.isolate_stats:
            return bags.mask & ~bags.synthetic[:, None]
        return bags.mask


def probabilities(logits: Tensor) -> Tensor:
    """Logistic function whose last bit does not depend on an element's place in the tensor.

    The vectorised float32 routine on a CPU rounds the elements left over at the end differently, so
    the same logit would get another score in a batch of another size. Logits in half precision
    become float32 scores: near 1 there are too few others.
    """
    if logits.dtype in (torch.bfloat16, torch.float16):
        logits = logits.float()
    if logits.device.type == "cpu" and logits.dtype == torch.float32:
        return torch.sigmoid(logits.double()).float()
    return torch.sigmoid(logits)


def require_labels(bags: Bags) -> None:
    """Raise BagError naming the bags whose label is unknown."""
    unknown = (bags.labels < 0).nonzero()[:, 0].tolist()
    if unknown:
        names = ", ".join(bags.bag_ids[i] for i in unknown[:5])
        raise BagError(f"{len(unknown)} bags have no label ({names}); training needs one each.")


def own_bags(bags: Bags) -> Tensor:
    """Owners of a term with one unit a bag, int64 ``[B, 1]``."""
    return torch.arange(bags.num_bags, device=bags.labels.device)[:, None]


def require_draws(bags: Bags) -> Tensor:
    """Keys for dropout ``[B]``; BagError if the batch was collated without a seed and step."""
    if bags.draw_keys is None:
        raise BagError(
            f"{bags.bag_ids[0]}: a training forward with dropout needs draw keys; "
            "collate with seed= and step=, or call eval()."
        )
    return bags.draw_keys
