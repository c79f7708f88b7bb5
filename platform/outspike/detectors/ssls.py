"""Synthetic-sample loss scaling (SSLS): one weight per bag, 1 for real, lambda for generated ones.

``per_sample`` is what the paper intends (``gv_vad_ssls.md`` section 4.3); ``batch_scalar`` is what
its published code computes (section 4.1) and exists for parity. Neither ``off`` nor ``unweighted``
scales anything. They differ in what a run may draw: with ``off`` no generated bag
(:class:`outspike.config.TrainConfig` refuses a batch that asks for some), with ``unweighted`` they
stand beside real ones at the same weight.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from outspike.config import SslsConfig
from outspike.detectors.bags import Bags
from outspike.detectors.base import LossTerm
from outspike.detectors.reduce import (
    Group,
    all_reduced,
    global_counts,
    reduce_piece,
    reduce_terms,
    split_losses,
)
from outspike.errors import ConfigError

_START = 0.001
_WARMUP_SHARE = 0.1
_PUBLISHED_STEPS = 1000
_PUBLISHED_OFFSET = 100

WARMUPS: dict[str, Callable[[float], float]] = {
    "linear": lambda x: _START + (1.0 - _START) * x,
    "exponential": lambda x: _START * (1.0 / _START) ** x,
    "cosine": lambda x: _START + 0.5 * (1.0 - _START) * (1.0 - math.cos(math.pi * x)),
}
#: Of the share of the steps after the warm-up, and of the number of fifths of all steps.
DECAYS: dict[str, Callable[[float, int], float]] = {
    "cosine": lambda x, fifths: 0.5 * (1.0 + math.cos(math.pi * x)),
    "step": lambda x, fifths: 0.1**fifths,
    "none": lambda x, fifths: 1.0,
}


def schedule_value(name: str, step: int, total_steps: int, *, clamp: bool = True) -> float:
    """Value in (0, 1] of schedule ``<warmup>_<decay>`` at a step of a run.

    The first tenth of the steps warms up from 0.001. ``clamp=False`` lets steps beyond the end go
    on as the published formulas do (the cosine rises again).

    Raises:
        ConfigError: unknown name; the known ones are listed.
    """
    warmup, _, decay = name.partition("_")
    if warmup not in WARMUPS or decay not in DECAYS:
        raise ConfigError(
            f"ssls.schedule={name!r}: expected <warmup>_<decay> with warmup in {sorted(WARMUPS)} "
            f"and decay in {sorted(DECAYS)}."
        )
    if clamp:
        step = min(max(step, 0), total_steps)
    num_warmup = int(_WARMUP_SHARE * total_steps)
    if step < num_warmup:
        return WARMUPS[warmup](step / num_warmup)
    after = step - num_warmup
    share = after / max(1, total_steps - num_warmup)
    return DECAYS[decay](share, after * 5 // max(1, total_steps))


def batch_scalar_factor(share: float, scale: Tensor, schedule: str | None, step: int) -> Tensor:
    """What the published code multiplies the whole batch cost by (``gv_vad_ssls.md`` section 4.1).

    Args:
        share: of the anomalous half that is synthetic.
        scale: lambda.
        schedule: published strategy, entered 100 steps late as in the published code, or None.
        step: true step.
    """
    value = 1.0
    if schedule is not None:
        late = step + _PUBLISHED_OFFSET
        value = schedule_value(schedule, late, _PUBLISHED_STEPS, clamp=False)
    return (1.0 - share) + share * scale * value


class Ssls(nn.Module):
    """Weights of synthetic bags: fixed, scheduled, or learned.

    The learned form keeps ``lambda = scale * sigmoid(rho)`` and trains ``rho`` on
    ``lambda * L_syn - log(lambda)``, the uncertainty form with ``s = -log(lambda)``. ``L_syn`` is
    the synthetic loss by itself, taken as a constant, so lambda settles at ``1 / L_syn`` or at its
    bound and never at zero. The network sees lambda as a constant.

    Args:
        config: mode, policy and scale.
        total_steps: length of the run, which schedules are stretched to.
    """

    def __init__(self, config: SslsConfig, *, total_steps: int) -> None:
        super().__init__()
        if total_steps < 1:
            raise ConfigError(f"total_steps={total_steps}: a run has at least one step.")
        bound = config.policy == "learned" and config.mode != "batch_scalar"
        if config.scale < 0 or (bound and config.scale == 0):
            raise ConfigError(f"ssls.scale={config.scale}: weights are not negative, bounds not 0.")
        self.config = config
        self.total_steps = total_steps
        if config.schedule is not None:
            schedule_value(config.schedule, 0, total_steps)  # refuse an unknown name before the run
        if self._scales and config.policy == "learned":
            published = config.mode == "batch_scalar"
            self.rho = nn.Parameter(torch.tensor(config.scale if published else 0.0))

    @property
    def _scales(self) -> bool:
        return self.config.mode in ("per_sample", "batch_scalar")

    def scale(self, step: int) -> Tensor:
        """Lambda at a step, a scalar (with gradient only where it is learned).

        Without the schedule in the published form, which applies it to the whole batch.
        """
        if not self._scales:
            return torch.ones(())
        published = self.config.mode == "batch_scalar"
        if self.config.policy == "learned":
            return self.rho if published else self.config.scale * torch.sigmoid(self.rho)
        if self.config.policy == "fixed" or published:
            return torch.tensor(self.config.scale)
        assert self.config.schedule is not None  # the config makes sure
        factor = schedule_value(self.config.schedule, step, self.total_steps)
        return torch.tensor(self.config.scale * factor)

    def weights(self, bags: Bags, step: int) -> Tensor:
        """Weight of each bag, ``[B]``, without gradient; exact ones where nothing is scaled."""
        ones = torch.ones_like(bags.labels)
        if self.config.mode != "per_sample":
            return ones
        scale = self.scale(step).detach().to(ones)
        return torch.where(bags.synthetic, scale, ones)

    def reduce(
        self, terms: Sequence[LossTerm], bags: Bags, step: int, group: Group = None
    ) -> tuple[Tensor, dict[str, float]]:
        """Loss of a batch over all ranks, and everything worth logging.

        As :func:`outspike.detectors.reduce.reduce_terms`, plus the training signal of a learned
        scale. The log holds each term, ``total``, ``ssls/scale``, ``ssls/share`` (of the batch that
        is synthetic) and, where there are any, ``ssls/real`` and ``ssls/synthetic``.
        """
        normalise = self.config.normalise
        total, log = reduce_terms(terms, self.weights(bags, step), group, normalise=normalise)
        log["ssls/scale"] = float(self.scale(step).detach())
        share = _global_share(bags.synthetic, torch.ones_like(bags.synthetic), group)
        log["ssls/share"] = share
        if share > 0:
            log["ssls/real"], log["ssls/synthetic"] = split_losses(terms, bags.synthetic, group)
        if self.config.mode == "batch_scalar":
            factor = self._batch_factor(bags, step, total, group)
            log["total"] *= float(factor.detach())
            return total * factor, log
        if self.config.mode == "per_sample" and self.config.policy == "learned":
            total = total + self._signal(log.get("ssls/synthetic"), step).to(total)
        return total, log

    def survey(
        self, terms: Sequence[LossTerm], bags: Bags, step: int, group: Group = None
    ) -> "Survey":
        """What :meth:`reduce_piece` has to know of a batch that is taken in pieces.

        Args:
            terms: of this rank's whole batch, without gradient.
            bags: that batch.
            step: true step.
            group: ranks that share the batch.
        """
        _, log = self.reduce(terms, bags, step, group)
        factor = None
        if self.config.mode == "batch_scalar":
            factor = self._batch_factor(bags, step, terms[0].values, group).detach()
        weights = self.weights(bags, step)
        divisors = global_counts(terms, weights, group, normalise=self.config.normalise)
        return Survey(divisors=divisors, factor=factor, log=log)

    def reduce_piece(
        self,
        terms: Sequence[LossTerm],
        piece: Bags,
        step: int,
        whole: "Survey",
        *,
        is_last: bool,
        group: Group = None,
    ) -> Tensor:
        """A piece's part of the loss: over all pieces, values and gradients of :meth:`reduce`."""
        if self.config.mode == "batch_scalar" and self.config.policy == "learned":
            raise ConfigError(
                "ssls.mode='batch_scalar' with a learned scale belongs to published batches; it "
                "cannot be trained in pieces (compute.accumulate)."
            )
        total = reduce_piece(terms, self.weights(piece, step), whole.divisors, group)
        if whole.factor is not None:
            return total * whole.factor
        if is_last and self.config.mode == "per_sample" and self.config.policy == "learned":
            total = total + self._signal(whole.log.get("ssls/synthetic"), step).to(total)
        return total

    def _batch_factor(self, bags: Bags, step: int, like: Tensor, group: Group) -> Tensor:
        # The published code overwrites the normal half's flags, so only anomalous bags count.
        anomalous = _global_share(bags.synthetic, bags.labels == 1, group)
        strategy = None if self.config.policy == "fixed" else self.config.schedule
        return batch_scalar_factor(anomalous, self.scale(step).to(like), strategy, step)

    def parameter_groups(self, lr: float) -> list[dict[str, object]]:
        """Optimiser groups: the learned scale by itself, without weight decay; else none.

        In the published form it has the rate and the decay of the network.
        """
        parameters = list(self.parameters())
        if not parameters:
            return []
        if self.config.mode == "batch_scalar":
            return [{"params": parameters}]
        rate = lr * self.config.learned_lr_factor
        return [{"params": parameters, "lr": rate, "weight_decay": 0.0}]

    def _signal(self, synthetic_loss: float | None, step: int) -> Tensor:
        """Value zero, gradient of ``lambda * L_syn - log(lambda)``: the loss logged stays itself"""
        scale = self.scale(step)
        if synthetic_loss is None:
            return 0.0 * scale
        signal = scale * synthetic_loss - torch.log(scale)
        return signal - signal.detach()


@dataclass(frozen=True, kw_only=True)
class Survey:
    """A whole batch as its pieces see it."""

    divisors: Tensor
    """Global count of each term, float64."""
    factor: Tensor | None
    """Of the whole cost (``batch_scalar``)."""
    log: dict[str, float]
    """What :meth:`Ssls.reduce` logs of the batch."""


def _global_share(flags: Tensor, among: Tensor, group: Group) -> float:
    pair = torch.stack([(flags & among.bool()).sum(), among.bool().sum()])
    hits, size = all_reduced(pair, group).tolist()
    return hits / size if size else 0.0
