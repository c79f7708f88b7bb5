"""One training step, in plain torch: alone, or as one of the ranks of a process group.

The loss is a global mean over the ranks' bags (:mod:`outspike.detectors.reduce`), gradients are
averaged by DDP, and everything else is the same on every rank, so ``R`` ranks with ``B/R`` bags
each take the step that one rank with ``B`` bags takes.
"""

import dataclasses
import inspect
import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from outspike.config import TrainConfig, config_hash
from outspike.detectors.bags import Bags, Scores
from outspike.detectors.base import Detector, LossTerm
from outspike.detectors.build import build
from outspike.detectors.ssls import Ssls, Survey
from outspike.errors import CheckpointError, TrainingError
from outspike.train.accumulate import check_divisible, divided, joined
from outspike.train.checkpoint import Checkpoint
from outspike.train.feed import fed
from outspike.train.optim import (
    load_state_tensors,
    load_weights,
    make_optimiser,
    schedule_factor,
    state_tensors,
)
from outspike.train.pace import SpikeRates
from outspike.train.seeding import seed_model, seed_step


@dataclass(frozen=True, kw_only=True)
class World:
    """This process among those that train together."""

    rank: int = 0
    size: int = 1
    device: str = "cpu"

    @classmethod
    def current(cls, device: str = "cpu") -> "World":
        """The world of the initialised process group, or a world of one."""
        if dist.is_available() and dist.is_initialized():
            return cls(rank=dist.get_rank(), size=dist.get_world_size(), device=device)
        return cls(device=device)


#: Told (steps done, what the rank is about now).
Note = Callable[[int, str], None]


def _nobody(step: int, phase: str) -> None:
    """Nobody listens."""


class BagSource(Protocol):
    """Where the bags of a step come from."""

    def batch(self, step: int, world: World) -> Bags:
        """This rank's bags of a step."""

    def whole(self) -> Iterator[Bags]:
        """Every training bag by itself, without windows, in one fixed order."""


class Objective(nn.Module):
    """Detector, loss and reduction as one module, so that DDP sees every parameter in one forward.

    Args:
        detector: what is trained.
        ssls: weights of generated bags, with the parameters of a learned scale.
        low_precision: compute the detector in bfloat16, and the loss in the type of the weights.
    """

    def __init__(self, detector: Detector, ssls: Ssls, *, low_precision: bool = False) -> None:
        super().__init__()
        self.detector = detector
        self.ssls = ssls
        self.low_precision = low_precision

    def forward(
        self, bags: Bags, step: int, whole: Survey | None = None, *, is_last: bool = True
    ) -> tuple[Tensor, dict[str, float]]:
        """Loss to differentiate, and the values to log.

        With ``whole``, the bags are a piece of the batch that it tells of, and the loss is their
        part.
        """
        terms = self.terms(bags, step)
        if whole is None:
            return self.ssls.reduce(terms, bags, step)
        return self.ssls.reduce_piece(terms, bags, step, whole, is_last=is_last), whole.log

    def terms(self, bags: Bags, step: int) -> list[LossTerm]:
        """Loss terms of a batch, or of a piece of one.

        Raises:
            TrainingError: scores are not finite; some losses would end in an error of PyTorch's.
        """
        with torch.autocast(bags.labels.device.type, torch.bfloat16, enabled=self.low_precision):
            scores = self.detector(bags)
        if not bool(torch.isfinite(scores.snippet).all()):
            raise TrainingError(_not_finite(step, "scores are not finite", bags))
        return self.detector.loss(bags, _widened(scores) if self.low_precision else scores)


class Learner:
    """A detector, its optimiser, and the step that moves them.

    Args:
        config: of the run; weights are initialised from its seed, the same on every rank.
        world: this process among those that train together.
        dtype: of weights and features.
    """

    def __init__(
        self,
        config: TrainConfig,
        *,
        world: World | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.config = config
        self.world = world or World.current()
        seed_model(config.seed)
        detector = build(config.detector, isolate_stats=config.ssls.isolate_stats)
        check_divisible(detector, config.compute.accumulate)
        ssls = Ssls(config.ssls, total_steps=config.steps)
        low_precision = config.compute.precision == "bfloat16"
        objective = Objective(detector, ssls, low_precision=low_precision)
        self.objective = objective.to(self.world.device, dtype)
        if config.compute.compile:
            detector.compile()
        self.dtype = dtype
        self.waited_s = 0.0
        self.note: Note = _nobody
        self.spikes = SpikeRates()
        self.optimiser = make_optimiser(
            config.optim, detector, ssls.parameter_groups(config.optim.lr)
        )
        self._wrapped: nn.Module | None = None

    @property
    def detector(self) -> Detector:
        """The bare detector."""
        return self.objective.detector

    def prepare(self, source: BagSource) -> None:
        """Before the first step of a fresh run: input scaling, or the whole fit of a plain rule.

        Every rank does the same on the same bags.
        """
        batches = (bags.to(self.world.device, self.dtype) for bags in source.whole())
        if self.detector.trainable:
            self.detector.fit_inputs(batches)
        else:
            self.detector.fit(batches)

    def steps(
        self, source: BagSource, *, start: int, stop: int
    ) -> Iterator[tuple[int, dict[str, float]]]:
        """Take the steps ``[start, stop)``, and yield (steps done, losses) after each.

        ``waited_s`` counts the seconds that steps have waited for their bags; ``note`` is told what
        the rank is about, and ``spikes`` holds how much neurons fired at the last logged step.
        """
        read = partial(source.batch, world=self.world)
        with closing(fed(read, self.config.compute, start=start, stop=stop)) as batches:
            for step in range(start, stop):
                began = time.perf_counter()
                self.note(step, "reads bags")
                bags = next(batches)
                self.waited_s += time.perf_counter() - began
                self.note(step, "computes")
                yield step + 1, self.learn(bags, step)

    def learn(self, bags: Bags, step: int) -> dict[str, float]:
        """One optimiser step on this rank's share of a batch.

        Returns:
            Global values of the loss terms, the learning rate and the norm of the gradient.

        Raises:
            TrainingError: the loss or its gradient is not finite. No weight was changed.
        """
        seed_step(self.config.seed, step, self.world.rank)
        objective = self._ready()
        objective.train()
        factor = schedule_factor(self.config.optim, step, self.config.steps)
        for group in self.optimiser.param_groups:
            group["lr"] = group["initial_lr"] * factor
        self.optimiser.zero_grad(set_to_none=True)
        self.detector.reset()
        with self._watched(step):
            losses = self._differentiate(objective, bags.to(self.world.device, self.dtype), step)
        self.detector.reset()
        norm = self._clip()
        if not (math.isfinite(norm) and math.isfinite(losses["total"])):
            values = ", ".join(f"{name}={value:.4g}" for name, value in losses.items())
            what = f"loss or gradient is not finite ({values}, gradient norm {norm:.4g})"
            raise TrainingError(_not_finite(step, what, bags))
        self.optimiser.step()
        return {**losses, "lr": self.config.optim.lr * factor, "gradient_norm": norm}

    def checkpoint(self, step: int, **more: Any) -> Checkpoint:
        """The state after ``step`` steps; ``more`` are further fields of the checkpoint."""
        return Checkpoint(
            step=step,
            config_hash=training_hash(self.config),
            model=dict(self.objective.state_dict()),
            optimiser=state_tensors(self.objective, self.optimiser),
            **more,
        )

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint of the same config, bit for bit.

        Raises:
            CheckpointError: it is of another config, or its tensors do not fit.
        """
        require_same_config(checkpoint, self.config)
        load_weights(self.objective, checkpoint.model)
        load_state_tensors(self.objective, self.optimiser, checkpoint.optimiser)

    def _differentiate(self, objective: nn.Module, bags: Bags, step: int) -> dict[str, float]:
        """Fill in the gradients of a batch, at once or in pieces, and return what to log."""
        if self.config.compute.accumulate == 1:
            total, losses = objective(bags, step)
            total.backward()
            return dict(losses)
        pieces = divided(bags, self.config.compute.accumulate)
        with torch.no_grad():
            terms = joined(
                [(self.objective.terms(piece, step), places) for piece, places in pieces]
            )
            whole = self.objective.ssls.survey(terms, bags, step)
        for number, (piece, _) in enumerate(pieces, start=1):
            is_last = number == len(pieces)
            with nullcontext() if is_last else self._unshared(objective):
                total, _ = objective(piece, step, whole, is_last=is_last)
                total.backward()
        return dict(whole.log)

    def _watched(self, step: int) -> AbstractContextManager[None]:
        """At steps that are logged, somebody counts spikes; compiled code is left alone."""
        if self.config.compute.compile or (step + 1) % self.config.log_every:
            return nullcontext()
        return self.spikes.watching(self.detector)

    def _unshared(self, objective: nn.Module) -> AbstractContextManager[None]:
        """Gradients stay with this rank, to be averaged together with those of the last piece."""
        if isinstance(objective, DistributedDataParallel):
            shut: AbstractContextManager[None] = objective.no_sync()
            return shut
        return nullcontext()

    def _ready(self) -> nn.Module:
        if self.world.size == 1:
            return self.objective
        if self._wrapped is None:  # late, so that weights restored before are those broadcast
            ids = [self.world.device] if self.world.device.startswith("cuda") else None
            self._wrapped = DistributedDataParallel(self.objective, device_ids=ids, **_BUFFERS_STAY)
        return self._wrapped

    def _clip(self) -> float:
        parameters = list(self.objective.parameters())
        limit = self.config.optim.clip_norm
        if limit is None:
            gradients = [p.grad for p in parameters if p.grad is not None]
            return float(nn.utils.get_total_norm(gradients))
        return float(nn.utils.clip_grad_norm_(parameters, limit))


#: Batch statistics are global already, so buffers never differ between ranks. PyTorch 2.13 gave the
#: option another name.
_BUFFERS_STAY: dict[str, Any] = {
    "forward_sync_buffers"
    if "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters
    else "broadcast_buffers": False
}

#: Fields that may differ when a run is resumed: they decide where and how fast, not what is learnt.
PLACE_FIELDS = (
    "name",
    "num_workers",
    "min_workers",
    "cpus_per_worker",
    "gpus_per_worker",
    "num_cpus",
    "shard_cache",
    "shard_cache_gb",
    "checkpoint_every",
    "log_every",
    "max_failures",
    "stall_after_s",
    "collective_timeout_s",
    "storage",
    "tracking_uri",
    "resume",
    "dry_run",
)


def training_hash(config: TrainConfig) -> str:
    """Hash of everything in a config that decides the weights."""
    neutral = TrainConfig()
    placed = {name: getattr(neutral, name) for name in PLACE_FIELDS}
    compute = dataclasses.replace(config.compute, prefetch=0, pin_memory=False)
    return config_hash(dataclasses.replace(config, compute=compute, **placed))


def _widened(scores: Scores) -> Scores:
    """Scores in float32, since losses of many small terms would be lost in bfloat16."""

    def wide(value: Tensor) -> Tensor:
        return value.float() if value.dtype == torch.bfloat16 else value

    return Scores(
        snippet=wide(scores.snippet),
        frames=None if scores.frames is None else wide(scores.frames),
        extras={name: wide(value) for name, value in scores.extras.items()},
    )


def require_same_config(checkpoint: Checkpoint, config: TrainConfig) -> None:
    """Raise CheckpointError unless the checkpoint was made with this config."""
    expected = training_hash(config)
    if checkpoint.config_hash != expected:
        raise CheckpointError(
            f"The checkpoint at step {checkpoint.step} was made with another config (hash "
            f"{checkpoint.config_hash[:12]}, this one is {expected[:12]}); resume with the config "
            "stored beside the run, or start a new run."
        )


def _not_finite(step: int, what: str, bags: Bags) -> str:
    names = ", ".join(bags.bag_ids[:4])
    return (
        f"Step {step}: {what}; bags of this rank: {names}, ... Lower optim.lr, or set "
        "optim.clip_norm."
    )
