"""One training step, in plain torch: alone, or as one of the ranks of a process group.

The loss is a global mean over the ranks' bags (:mod:`outspike.detectors.reduce`), gradients are
averaged by DDP, and everything else is the same on every rank, so ``R`` ranks with ``B/R`` bags
each take the step that one rank with ``B`` bags takes.
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from outspike.config import TrainConfig, config_hash
from outspike.detectors.bags import Bags
from outspike.detectors.base import Detector
from outspike.detectors.build import build
from outspike.detectors.ssls import Ssls
from outspike.errors import CheckpointError, TrainingError
from outspike.train.checkpoint import Checkpoint
from outspike.train.optim import (
    load_state_tensors,
    load_weights,
    make_optimiser,
    schedule_factor,
    state_tensors,
)
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
    """

    def __init__(self, detector: Detector, ssls: Ssls) -> None:
        super().__init__()
        self.detector = detector
        self.ssls = ssls

    def forward(self, bags: Bags, step: int) -> tuple[Tensor, dict[str, float]]:
        """Loss to differentiate, and the values to log."""
        scores = self.detector(bags)
        return self.ssls.reduce(self.detector.loss(bags, scores), bags, step)


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
        ssls = Ssls(config.ssls, total_steps=config.steps)
        self.objective = Objective(detector, ssls).to(self.world.device, dtype)
        self.dtype = dtype
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
        """Take the steps ``[start, stop)``, and yield (steps done, losses) after each."""
        for step in range(start, stop):
            yield step + 1, self.learn(source.batch(step, self.world), step)

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
        total, losses = objective(bags.to(self.world.device, self.dtype), step)
        total.backward()
        self.detector.reset()
        norm = self._clip()
        if not (math.isfinite(norm) and math.isfinite(losses["total"])):
            raise TrainingError(_not_finite(step, losses, norm, bags))
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

    def _ready(self) -> nn.Module:
        if self.world.size == 1:
            return self.objective
        if self._wrapped is None:  # late, so that weights restored before are those broadcast
            ids = [self.world.device] if self.world.device.startswith("cuda") else None
            # Batch statistics are global already, so buffers never differ between ranks.
            self._wrapped = DistributedDataParallel(
                self.objective, device_ids=ids, broadcast_buffers=False
            )
        return self._wrapped

    def _clip(self) -> float:
        parameters = list(self.objective.parameters())
        limit = self.config.optim.clip_norm
        if limit is None:
            gradients = [p.grad for p in parameters if p.grad is not None]
            return float(nn.utils.get_total_norm(gradients))
        return float(nn.utils.clip_grad_norm_(parameters, limit))


#: Fields that may differ when a run is resumed: they decide where and how fast, not what is learnt.
PLACE_FIELDS = (
    "name",
    "num_workers",
    "cpus_per_worker",
    "gpus_per_worker",
    "num_cpus",
    "checkpoint_every",
    "log_every",
    "max_failures",
    "storage",
    "tracking_uri",
    "resume",
    "dry_run",
)


def training_hash(config: TrainConfig) -> str:
    """Hash of everything in a config that decides the weights."""
    neutral = TrainConfig()
    return config_hash(
        dataclasses.replace(config, **{name: getattr(neutral, name) for name in PLACE_FIELDS})
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


def _not_finite(step: int, losses: Mapping[str, float], norm: float, bags: Bags) -> str:
    terms = ", ".join(f"{name}={value:.4g}" for name, value in losses.items())
    names = ", ".join(bags.bag_ids[:4])
    return (
        f"Step {step}: loss or gradient is not finite ({terms}, gradient norm {norm:.4g}); bags of "
        f"this rank: {names}, ... Lower optim.lr, or set optim.clip_norm."
    )
