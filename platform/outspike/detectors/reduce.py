"""The one place where loss terms become a number, over all ranks.

``torch.distributed`` convention: ``group=None`` is the default group where one is initialised, and
this process alone otherwise.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor

from outspike.detectors.base import LossTerm

Group = dist.ProcessGroup | None


def world_size(group: Group = None) -> int:
    """Ranks that share a batch; 1 without ``torch.distributed``."""
    if not (dist.is_available() and dist.is_initialized()):
        return 1
    return dist.get_world_size(group)


def all_reduced(value: Tensor, group: Group = None) -> Tensor:
    """Sum over ranks, without gradient."""
    total = value.detach().clone()
    if world_size(group) > 1:
        dist.all_reduce(total, group=group)
    return total


class _AllReduceSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, group: Group) -> Tensor:
        ctx.group = group
        return all_reduced(value, group)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return all_reduced(grads[0].contiguous(), ctx.group), None


def differentiable_all_reduce(value: Tensor, group: Group = None) -> Tensor:
    """Sum over ranks; the gradient of each rank's share is the sum of all ranks' gradients.

    Every rank must run the backward pass through it, in the same order.
    """
    if world_size(group) == 1:
        return value
    reduced: Tensor = _AllReduceSum.apply(value, group)  # type: ignore[no-untyped-call]
    return reduced


def gathered(rows: Tensor, group: Group = None) -> tuple[Tensor, int]:
    """Rows of all ranks in the order of ranks, without gradient, and where this rank's begin.

    Ranks may hold different numbers of rows, also none.
    """
    rows = rows.detach()
    size = world_size(group)
    if size == 1:
        return rows, 0
    rank = dist.get_rank(group)
    counts = torch.zeros(size, dtype=torch.int64, device=rows.device)
    counts[rank] = len(rows)
    numbers = all_reduced(counts, group).tolist()
    padded = rows.new_zeros((max(numbers), *rows.shape[1:]))
    padded[: len(rows)] = rows
    parts = [torch.empty_like(padded) for _ in range(size)]
    dist.all_gather(parts, padded, group=group)
    whole = [part[:number] for part, number in zip(parts, numbers, strict=True)]
    return torch.cat(whole), sum(numbers[:rank])


def unit_weights(term: LossTerm, omega: Tensor) -> Tensor:
    """Weight of each unit of a term from the weights of its bags, ``[B] -> [n]``."""
    owners = omega[term.bags]
    weight = owners.prod(dim=1)
    if term.combine == "geometric" and term.bags.shape[1] > 1:
        weight = weight ** (1.0 / term.bags.shape[1])
    return weight


def reduce_terms(
    terms: Sequence[LossTerm],
    omega: Tensor,
    group: Group = None,
    *,
    normalise: Literal["count", "weight"] = "count",
) -> tuple[Tensor, dict[str, float]]:
    """Weighted global mean of every term, summed.

    Args:
        terms: what :meth:`Detector.loss` returned on this rank.
        omega: weight of each bag of this rank, ``[B]``; all ones leave every bit as it was.
        group: ranks that share the batch.
        normalise: divide by the number of units (a bag of weight 0 is then gone), or by the sum of
            their weights.

    Returns:
        The scalar to call ``backward()`` on under gradient averaging (this rank's share times the
        world size), and the global value of each term and of their ``total``, for the log. A term
        without any unit is 0.
    """
    numerators, counts = _sums(terms, _owned(terms, omega, group), normalise)
    sums = torch.stack([counts.detach().double(), torch.stack(numerators).detach().double()])
    everywhere, global_sums = all_reduced(sums, group)
    divisors = _divisors(everywhere)
    means = (global_sums / divisors).tolist()
    values = {term.name: mean for term, mean in zip(terms, means, strict=True)}
    values["total"] = sum(term.weight * mean for term, mean in zip(terms, means, strict=True))
    return _total(terms, numerators, divisors, world_size(group), omega), values


def global_counts(
    terms: Sequence[LossTerm],
    omega: Tensor,
    group: Group = None,
    *,
    normalise: Literal["count", "weight"] = "count",
) -> Tensor:
    """What :func:`reduce_terms` divides each term by, float64 ``[terms]``."""
    _, counts = _sums(terms, _owned(terms, omega, group), normalise)
    return _divisors(all_reduced(counts.detach().double(), group))


def reduce_piece(
    terms: Sequence[LossTerm], omega: Tensor, divisors: Tensor, group: Group = None
) -> Tensor:
    """A piece's part of what :func:`reduce_terms` would give the whole batch to differentiate.

    Args:
        terms: of a part of this rank's bags, all owned by bags of this rank.
        omega: weights of those bags.
        divisors: :func:`global_counts` of the whole batch.
        group: ranks that share the batch.
    """
    numerators, _ = _sums(terms, {"rank": omega}, "count")
    return _total(terms, numerators, divisors, world_size(group), omega)


def _sums(
    terms: Sequence[LossTerm], owners: dict[str, Tensor], normalise: Literal["count", "weight"]
) -> tuple[list[Tensor], Tensor]:
    """This rank's weighted sum of each term, and what it adds to their denominators."""
    numerators, counts = [], []
    for term in terms:
        weight = unit_weights(term, owners[term.scope])
        numerators.append((weight * term.values).sum())
        counts.append((term.counts if normalise == "count" else weight * term.counts).sum())
    return numerators, torch.stack(counts)


def _divisors(counts: Tensor) -> Tensor:
    return torch.where(counts > 0, counts, torch.ones_like(counts))


def _total(
    terms: Sequence[LossTerm], numerators: list[Tensor], divisors: Tensor, size: int, like: Tensor
) -> Tensor:
    total = torch.zeros((), dtype=numerators[0].dtype, device=like.device)
    for term, numerator, divisor in zip(terms, numerators, divisors, strict=True):
        total = total + term.weight * (numerator / divisor.to(numerator.dtype)) * size
    return total


def split_losses(
    terms: Sequence[LossTerm], synthetic: Tensor, group: Group = None
) -> tuple[float, float]:
    """Unweighted loss of the real and of the synthetic units by themselves, for logs and for SSLS.

    A unit with any synthetic owner counts as synthetic. A group without units has loss 0.
    """
    losses = []
    flags = _owned(terms, synthetic.to(torch.uint8), group)
    for wanted in (False, True):
        part = []
        for term in terms:
            made = flags[term.scope].bool()[term.bags].any(dim=1)
            chosen = (made == wanted).to(term.values.dtype)
            part.append(
                replace(term, values=(term.values * chosen).detach(), counts=term.counts * chosen)
            )
        ones = torch.ones(len(synthetic), dtype=terms[0].values.dtype, device=synthetic.device)
        losses.append(reduce_terms(part, ones, group)[1]["total"])
    return losses[0], losses[1]


def _owned(terms: Sequence[LossTerm], value: Tensor, group: Group) -> dict[str, Tensor]:
    """A value per bag under both meanings of a term's owners; gathered only where one needs it."""
    if not any(term.scope == "world" for term in terms):
        return {"rank": value}
    return {"rank": value, "world": gathered(value, group)[0]}
