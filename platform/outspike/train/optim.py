"""Optimisers, schedules, and optimiser state as named tensors."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from outspike.config import OptimConfig
from outspike.errors import CheckpointError

_OPTIMISERS: dict[str, type[torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "sgd": torch.optim.SGD,
}


def make_optimiser(
    config: OptimConfig, network: nn.Module, extra: list[dict[str, object]]
) -> torch.optim.Optimizer:
    """The optimiser of a network, with further parameter groups of their own settings.

    Adam's weight decay is L2 added to the gradient, AdamW's is decoupled; both as published.
    """
    main: list[dict[str, object]] = [{"params": list(network.parameters())}]
    options: dict[str, float] = {"lr": config.lr, "weight_decay": config.weight_decay}
    if config.optimiser == "sgd":
        options["momentum"] = config.momentum
    optimiser = _OPTIMISERS[config.optimiser](main + extra, **options)  # type: ignore[arg-type]
    for group in optimiser.param_groups:
        group["initial_lr"] = group["lr"]
    return optimiser


def schedule_factor(config: OptimConfig, step: int, total_steps: int) -> float:
    """What the learning rate is multiplied by at a step; no state, so nothing to resume."""
    if config.schedule == "constant":
        return 1.0
    if config.schedule == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * min(step / total_steps, 1.0)))
    return config.gamma ** sum(step >= milestone for milestone in config.milestones)


def state_tensors(module: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """State of an optimiser as ``{"<parameter>/<state>": tensor}``."""
    return {
        f"{name}/{key}": value
        for name, parameter in module.named_parameters()
        for key, value in optimiser.state.get(parameter, {}).items()
        if isinstance(value, Tensor)
    }


def load_state_tensors(
    module: nn.Module, optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]
) -> None:
    """Put back what :func:`state_tensors` gave.

    Raises:
        CheckpointError: a state belongs to no parameter, or has another shape than it.
    """
    parameters = dict(module.named_parameters())
    optimiser.state.clear()
    for path, tensor in tensors.items():
        name, _, key = path.rpartition("/")
        parameter = parameters.get(name)
        if parameter is None or (tensor.ndim and tensor.shape != parameter.shape):
            raise CheckpointError(
                f"Optimiser state {path!r} of shape {tuple(tensor.shape)} fits no parameter of "
                "this detector; the checkpoint is of another one."
            )
        # Adam keeps its step counter on the CPU, whatever the parameters' device.
        device = parameter.device if tensor.ndim else torch.device("cpu")
        optimiser.state[parameter][key] = tensor.to(device)


def load_weights(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Load a state dict strictly, listing what is missing, extra or of another shape."""
    expected = module.state_dict()
    missing = sorted(set(expected) - set(tensors))
    extra = sorted(set(tensors) - set(expected))
    shaped = sorted(
        name for name in set(expected) & set(tensors) if expected[name].shape != tensors[name].shape
    )
    if missing or extra or shaped:
        raise CheckpointError(
            f"The weights do not fit the detector: missing {missing}, extra {extra}, of another "
            f"shape {shaped}."
        )
    module.load_state_dict(dict(tensors))
